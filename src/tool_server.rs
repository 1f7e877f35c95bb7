//! An MCP server somebody else runs: listed, pinned, called. Shared by the
//! controller, which pins its tools, and the gateway, which calls them.

use crate::api::ToolServer;
use crate::api::tool_server::{Nature, PinnedTool, ServerTool};
use crate::cause::innermost;
use crate::ticket::route::matches_pattern;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, ResourceExt};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rmcp::ServiceExt;
use rmcp::model::{CallToolRequestParams, CallToolResult, ClientConfig, Tool};
use rmcp::service::{RoleClient, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const LIST_TIMEOUT: Duration = Duration::from_secs(20);
/// A tool may take this long.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Tools of one server that are looked at.
pub const MAX_TOOLS: usize = 200;
const MAX_HEADERS: usize = 20;
/// A tool whose definition is longer is not offered, in bytes.
const MAX_DEFINITION: usize = 32 * 1024;

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {what}: {why}")]
    Reference { what: String, why: String },
    #[error("cannot set up TLS for the server: {0}")]
    Setup(String),
    #[error("the server at spec.url does not speak MCP over streamable HTTP: {0}")]
    Connect(String),
    #[error("the server does not answer in {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("the server refused: {0}")]
    Refused(String),
}

/// A session with a server.
pub struct Session(RunningService<RoleClient, ClientConfig>);

/// Connects to a server with the headers and the CA its resource names.
pub async fn connect(kube: &Client, server: &ToolServer) -> Result<Session, Error> {
    let namespace = server.namespace().unwrap_or_default();
    let mut headers = HeaderMap::new();
    if let Some(reference) = &server.spec.headers_secret_ref {
        let what = format!("Secret {}", reference.name);
        let missing = |why: String| Error::Reference {
            what: what.clone(),
            why,
        };
        let secret = Api::<Secret>::namespaced(kube.clone(), &namespace)
            .get_opt(&reference.name)
            .await
            .map_err(|e| missing(crate::k8s::explain(&e)))?;
        let data = secret
            .ok_or_else(|| missing("there is none; apply it".into()))?
            .data
            .unwrap_or_default();
        for (key, value) in data.into_iter().take(MAX_HEADERS) {
            let name = HeaderName::try_from(&key)
                .map_err(|_| missing(format!("its key {key} is no header name")))?;
            let text = String::from_utf8_lossy(&value.0).trim().to_string();
            let mut value = HeaderValue::try_from(text).map_err(|_| {
                missing(format!(
                    "the value of its key {key} cannot be sent in a header"
                ))
            })?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .default_headers(headers)
        // A redirect would carry the headers to whoever the server names.
        .redirect(reqwest::redirect::Policy::none());
    if let Some(reference) = &server.spec.ca_config_map_ref {
        let what = format!("ConfigMap {}", reference.name);
        let map = Api::<ConfigMap>::namespaced(kube.clone(), &namespace)
            .get_opt(&reference.name)
            .await;
        let map = map.map_err(|e| Error::Reference {
            what: what.clone(),
            why: crate::k8s::explain(&e),
        })?;
        let pem = map.and_then(|m| m.data?.remove(&reference.key));
        let pem = pem.ok_or_else(|| Error::Reference {
            what,
            why: format!("it has no key {}", reference.key),
        })?;
        let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes())
            .map_err(|e| Error::Setup(innermost(&e)))?;
        builder = builder.tls_certs_only(certificates);
    }
    let http = builder.build().map_err(|e| Error::Setup(innermost(&e)))?;
    let transport = StreamableHttpClientTransport::with_client(
        http,
        StreamableHttpClientTransportConfig::with_uri(server.spec.url.clone()),
    );
    let service = tokio::time::timeout(LIST_TIMEOUT, ClientConfig::default().serve(transport))
        .await
        .map_err(|_| Error::Timeout(LIST_TIMEOUT))?
        .map_err(|e| Error::Connect(innermost(&e)))?;
    Ok(Session(service))
}

impl Session {
    /// The server's tools that its resource allows, by name.
    pub async fn tools(&self, server: &ToolServer) -> Result<Vec<Tool>, Error> {
        let all = tokio::time::timeout(LIST_TIMEOUT, self.0.list_all_tools())
            .await
            .map_err(|_| Error::Timeout(LIST_TIMEOUT))?
            .map_err(|e| Error::Refused(innermost(&e)))?;
        let mut tools: Vec<Tool> = all
            .into_iter()
            .filter(|t| {
                nature(&server.spec.tools, &t.name).is_some()
                    && fits(&t.name)
                    && canonical(&definition(t)).len() <= MAX_DEFINITION
            })
            .collect();
        tools.sort_by(|a, b| a.name.cmp(&b.name));
        tools.dedup_by(|a, b| a.name == b.name);
        tools.truncate(MAX_TOOLS);
        Ok(tools)
    }

    pub async fn call(
        &self,
        tool: &str,
        arguments: Map<String, Value>,
    ) -> Result<CallToolResult, Error> {
        let mut request = CallToolRequestParams::new(tool.to_string());
        request.arguments = Some(arguments);
        tokio::time::timeout(CALL_TIMEOUT, self.0.call_tool(request))
            .await
            .map_err(|_| Error::Timeout(CALL_TIMEOUT))?
            .map_err(|e| Error::Refused(innermost(&e)))
    }
}

/// Names that fit into one of ours, and that every model's API takes.
fn fits(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// What the MSP says a tool does; None: it is not offered. The first entry that names it counts.
pub fn nature(allowed: &[ServerTool], tool: &str) -> Option<Nature> {
    allowed
        .iter()
        .find(|t| matches_pattern(&t.name, tool))
        .map(|t| t.nature)
}

/// What a tool is pinned by.
fn definition(tool: &Tool) -> Value {
    json!({"name": tool.name, "title": tool.title, "description": tool.description, "inputSchema": *tool.input_schema, "annotations": tool.annotations})
}

/// SHA-256 of a tool's definition.
pub fn hash(tool: &Tool) -> String {
    let digest = Sha256::digest(canonical(&definition(tool)));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// JSON with sorted keys: the same value gives the same text.
pub fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            let parts: Vec<String> = keys
                .into_iter()
                .map(|k| format!("{}:{}", Value::from(k.as_str()), canonical(&map[k])))
                .collect();
            format!("{{{}}}", parts.join(","))
        }
        Value::Array(items) => format!(
            "[{}]",
            items.iter().map(canonical).collect::<Vec<_>>().join(",")
        ),
        other => other.to_string(),
    }
}

/// What to keep pinned, from what was pinned and what the server offers: pure.
/// A new tool is pinned as it is; a changed one is stopped until `accepted` names
/// the present offer; one the server does not offer any more stays pinned, so
/// that it cannot come back changed.
pub fn pin(
    pinned: &[PinnedTool],
    offered: &[(String, String)],
    accepted: Option<&str>,
) -> (Vec<PinnedTool>, Option<String>) {
    let changed: Vec<&(String, String)> = offered
        .iter()
        .filter(|(name, hash)| pinned.iter().any(|p| p.name == *name && p.hash != *hash))
        .collect();
    let revision = (!changed.is_empty()).then(|| {
        let digest = Sha256::digest(
            changed
                .iter()
                .map(|(name, hash)| format!("{name}={hash}\n"))
                .collect::<String>(),
        );
        digest
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    });
    let accept = revision.is_some() && revision.as_deref() == accepted;
    let mut next: Vec<PinnedTool> = pinned.to_vec();
    for (name, hash) in offered {
        match next.iter_mut().find(|p| p.name == *name) {
            None => next.push(PinnedTool {
                name: name.clone(),
                hash: hash.clone(),
                offered: None,
            }),
            Some(known) if known.hash == *hash => known.offered = None,
            Some(known) if accept => {
                *known = PinnedTool {
                    name: name.clone(),
                    hash: hash.clone(),
                    offered: None,
                }
            }
            Some(known) => known.offered = Some(hash.clone()),
        }
    }
    next.sort_by(|a, b| a.name.cmp(&b.name));
    next.truncate(MAX_TOOLS);
    (next, if accept { None } else { revision })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter()
            .map(|(n, h)| (n.to_string(), h.to_string()))
            .collect()
    }

    #[test]
    fn a_changed_tool_stops_until_it_is_accepted() {
        let (first, revision) = pin(&[], &offer(&[("a", "1"), ("b", "1")]), None);
        assert_eq!((first.len(), revision), (2, None));
        let (stopped, revision) = pin(&first, &offer(&[("a", "2"), ("b", "1"), ("c", "1")]), None);
        assert_eq!(
            (
                stopped[0].hash.as_str(),
                stopped[0].offered.as_deref(),
                stopped.len()
            ),
            ("1", Some("2"), 3)
        );
        let revision = revision.unwrap();
        // An old acceptance does not accept another change.
        let (still, other) = pin(&stopped, &offer(&[("a", "3")]), Some(&revision));
        assert!(still[0].offered.is_some() && other.unwrap() != revision);
        let (accepted, none) = pin(&stopped, &offer(&[("a", "2"), ("b", "1")]), Some(&revision));
        assert_eq!(
            (accepted[0].hash.as_str(), &accepted[0].offered, none),
            ("2", &None, None)
        );
        // Changed back, it runs again; gone and back changed, it does not.
        assert_eq!(
            pin(&stopped, &offer(&[("a", "1")]), None).0[0].offered,
            None
        );
        let (gone, _) = pin(&first, &offer(&[]), None);
        assert!(
            pin(&gone, &offer(&[("a", "9")]), None).0[0]
                .offered
                .is_some()
        );
    }

    #[test]
    fn only_listed_tools_are_offered() {
        let allowed = [
            ServerTool {
                name: "get_*".into(),
                nature: Nature::Read,
            },
            ServerTool {
                name: "reset_password".into(),
                nature: Nature::Write,
            },
        ];
        assert_eq!(nature(&allowed, "get_user"), Some(Nature::Read));
        assert_eq!(nature(&allowed, "reset_password"), Some(Nature::Write));
        assert_eq!(nature(&allowed, "delete_user"), None);
        assert!(!fits("a b") && !fits("") && !fits(&"x".repeat(65)) && !fits("ａ"));
    }

    #[test]
    fn the_order_of_keys_does_not_matter() {
        let (a, b): (Value, Value) = (
            serde_json::from_str(r#"{"a":1,"b":[{"y":1,"x":2}]}"#).unwrap(),
            serde_json::from_str(r#"{"b":[{"x":2,"y":1}],"a":1}"#).unwrap(),
        );
        assert_eq!(canonical(&a), canonical(&b));
    }
}
