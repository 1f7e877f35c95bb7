//! The client of other MCP servers: connects, lists tools, calls them. Shared by
//! the controller, which pins the tools, and the gateway, which calls them.

use super::pin::{MAX_TOOLS, definition};
use crate::api::ToolServer;
use crate::api::tool_server::{Access, ServerTool};
use crate::error::root_cause;
use crate::k8s::refs;
use crate::text::json::canonical;
use crate::text::pattern;
use kube::{Client, ResourceExt};
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
/// The longest a tool may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(120);
const MAX_HEADERS: usize = 20;
/// A tool whose definition is longer is not offered. In bytes.
const MAX_DEFINITION: usize = 32 * 1024;

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Reference(String),
    #[error("cannot set up TLS for the server: {0}")]
    Setup(String),
    #[error("the server at spec.url does not speak MCP over streamable HTTP: {0}")]
    Connect(String),
    #[error("the server did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("the server refused the request: {0}")]
    Refused(String),
}

/// A session with a server.
pub struct Session(RunningService<RoleClient, ClientConfig>);

/// Connects to a server with the headers and the CA its resource names.
pub async fn connect(kube: &Client, server: &ToolServer) -> Result<Session, Error> {
    let headers = headers(kube, server).await?;
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .default_headers(headers)
        // A redirect would carry the headers to whoever the server names.
        .redirect(reqwest::redirect::Policy::none());
    if let Some(certificates) = ca(kube, server).await? {
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

/// The headers from the Secret of `spec.headersSecretRef`.
async fn headers(kube: &Client, server: &ToolServer) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    let Some(reference) = &server.spec.headers_secret_ref else {
        return Ok(headers);
    };
    let unusable = |why: String| Error::Reference(format!("Secret {}: {why}", reference.name));
    let namespace = server.namespace().unwrap_or_default();
    let data = refs::secret(kube, &namespace, &reference.name)
        .await
        .map_err(|e| Error::Reference(e.to_string()))?;
    for (key, value) in data.into_iter().take(MAX_HEADERS) {
        let name = HeaderName::try_from(&key)
            .map_err(|_| unusable(format!("key {key} is not a valid header name")))?;
        let text = String::from_utf8_lossy(&value.0).trim().to_string();
        let mut value = HeaderValue::try_from(text)
            .map_err(|_| unusable(format!("the value of key {key} cannot be sent in a header")))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// The certificates from the ConfigMap of `spec.caConfigMapRef`; none: public CAs are trusted.
async fn ca(
    kube: &Client,
    server: &ToolServer,
) -> Result<Option<Vec<reqwest::Certificate>>, Error> {
    let Some(reference) = &server.spec.ca_config_map_ref else {
        return Ok(None);
    };
    let namespace = server.namespace().unwrap_or_default();
    refs::ca_certificates(kube, &namespace, reference)
        .await
        .map(Some)
        .map_err(|e| Error::Reference(e.to_string()))
}

impl Session {
    /// The server's tools that its resource lists, sorted by name.
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

/// Whether a tool's name can be part of the name agents see, which every model's API accepts.
fn fits(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// The access the MSP declares for a tool; none: it is not offered. The first entry that names it
/// counts.
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
