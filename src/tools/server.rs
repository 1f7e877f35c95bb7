//! An MCP server somebody else runs: listed, pinned, called. Shared by the
//! controller, which pins its tools, and the gateway, which calls them.

use super::pin::{MAX_TOOLS, canonical, definition};
use crate::api::ToolServer;
use crate::api::tool_server::{Access, ServerTool};
use crate::error::root_cause;
use crate::text::pattern;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, ResourceExt};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rmcp::ServiceExt;
use rmcp::model::{CallToolRequestParams, CallToolResult, ClientConfig, Tool};
use rmcp::service::{RoleClient, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde_json::{Map, Value};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const LIST_TIMEOUT: Duration = Duration::from_secs(20);
/// A tool may take this long.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(120);
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
            .map_err(|e| Error::Setup(root_cause(&e)))?;
        builder = builder.tls_certs_only(certificates);
    }
    let http = builder.build().map_err(|e| Error::Setup(root_cause(&e)))?;
    let transport = StreamableHttpClientTransport::with_client(
        http,
        StreamableHttpClientTransportConfig::with_uri(server.spec.url.clone()),
    );
    let service = tokio::time::timeout(LIST_TIMEOUT, ClientConfig::default().serve(transport))
        .await
        .map_err(|_| Error::Timeout(LIST_TIMEOUT))?
        .map_err(|e| Error::Connect(root_cause(&e)))?;
    Ok(Session(service))
}

impl Session {
    /// The server's tools that its resource allows, by name.
    pub async fn tools(&self, server: &ToolServer) -> Result<Vec<Tool>, Error> {
        let all = tokio::time::timeout(LIST_TIMEOUT, self.0.list_all_tools())
            .await
            .map_err(|_| Error::Timeout(LIST_TIMEOUT))?
            .map_err(|e| Error::Refused(root_cause(&e)))?;
        let mut tools: Vec<Tool> = all
            .into_iter()
            .filter(|t| {
                access(&server.spec.tools, &t.name).is_some()
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
            .map_err(|e| Error::Refused(root_cause(&e)))
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
pub fn access(allowed: &[ServerTool], tool: &str) -> Option<Access> {
    allowed
        .iter()
        .find(|t| pattern::matches(&t.name, tool))
        .map(|t| t.access)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_tools_are_offered() {
        let allowed = [
            ServerTool {
                name: "get_*".into(),
                access: Access::Read,
            },
            ServerTool {
                name: "reset_password".into(),
                access: Access::Write,
            },
        ];
        assert_eq!(access(&allowed, "get_user"), Some(Access::Read));
        assert_eq!(access(&allowed, "reset_password"), Some(Access::Write));
        assert_eq!(access(&allowed, "delete_user"), None);
        assert!(!fits("a b") && !fits("") && !fits(&"x".repeat(65)) && !fits("ａ"));
    }
}
