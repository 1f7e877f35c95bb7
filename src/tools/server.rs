//! The client of other MCP servers: connects, lists tools, calls them. Shared by
//! the controller, which pins the tools, and the gateway, which calls them.

use super::context::{self, CallContext, Issued};
use super::pin::{MAX_TOOLS, definition};
use crate::api::ToolServer;
use crate::api::tool_server::{Access, ServerIdentity, ServerTool};
use crate::error::root_cause;
use crate::fair::{Fair, Place};
use crate::k8s::{refs, services};
use crate::text::json::canonical;
use crate::text::{one_line, pattern};
use k8s_openapi::jiff::Timestamp;
use kube::{Client, ResourceExt};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rmcp::ServiceExt;
use rmcp::model::{
    CallToolRequestParams, CallToolResult, ClientConfig, PaginatedRequestParams, RequestMetaObject,
    Tool,
};
use rmcp::service::{ClientInitializeError, RoleClient, RunningService, ServiceError};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::{
    StreamableHttpClientTransportConfig, StreamableHttpError,
};
use secrecy::SecretString;
use serde_json::{Map, Value};
use std::error::Error as StdError;
use std::sync::LazyLock;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const LIST_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest a tool may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Sessions at once, and of them for one namespace: servers that hang hold up their own only.
static SESSIONS: LazyLock<Fair<String>> = LazyLock::new(|| Fair::new(32, 4));
const MAX_HEADERS: usize = 20;
/// A tool whose definition is longer is not offered. In bytes.
const MAX_DEFINITION: usize = 32 * 1024;
/// The longest answer of a server, in bytes. A result is cut far below.
const MAX_ANSWER: usize = 2 * 1024 * 1024;
/// More pages of tools are not read.
const MAX_PAGES: usize = 20;
/// Headers that are the transport's own, or that would lead elsewhere.
const NOT_SENT: [&str; 11] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "mcp-session-id",
    "te",
    "transfer-encoding",
    "upgrade",
    context::HEADER,
];

/// The texts hold nothing that a server answered: it is read by whoever sees the resource.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Reference(String),
    #[error("spec.url: {0}")]
    Address(String),
    #[error("cannot set up TLS for the server: {0}")]
    Setup(String),
    #[error("the server at spec.url does not speak MCP over streamable HTTP: {0}")]
    Connect(String),
    #[error("the server did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("the server refused the request: {0}")]
    Refused(String),
    #[error(
        "other ToolServers of the namespace are slow, and this one waits for them; see their \
         conditions"
    )]
    Busy,
}

/// A session with a server.
pub struct Session {
    service: RunningService<RoleClient, ClientConfig>,
    /// For whom its tool is called; none: only its tools are listed.
    claims: Option<Value>,
    _place: Place,
}

/// What a server offers.
#[derive(Default)]
pub struct Listing {
    /// Those its resource lists, sorted by name.
    pub tools: Vec<Tool>,
    pub server: ServerIdentity,
}

/// Connects to a server to list its tools.
pub async fn connect(kube: &Client, server: &ToolServer) -> Result<Session, Error> {
    let headers = headers(kube, server).await?;
    open(kube, server, headers, None).await
}

/// Connects to a server to call one of its tools.
pub async fn connect_for(
    kube: &Client,
    server: &ToolServer,
    tool: &str,
    context: &CallContext,
) -> Result<Session, Error> {
    let mut headers = headers(kube, server).await?;
    for own in &server.spec.client_headers {
        if own.client == context.client {
            // A client's header replaces the common one of that name.
            let own = headers_of(kube, server, &own.secret_ref.name).await?;
            headers.extend(own);
        }
    }
    let claims = context.claims(&Issued {
        server: &server.name_any(),
        tool,
        now: Timestamp::now().as_second(),
        id: uuid::Uuid::new_v4().to_string(),
    });
    if let Some(key) = context_key(kube, server).await? {
        let signed = context::signed(&claims, &key).and_then(|s| HeaderValue::try_from(s).ok());
        let mut signed = signed.ok_or_else(|| {
            Error::Reference(format!(
                "the key of spec.contextKeySecretRef has fewer than {} characters and can be \
                 guessed; use a longer one",
                context::MIN_KEY
            ))
        })?;
        signed.set_sensitive(true);
        headers.insert(HeaderName::from_static(context::HEADER), signed);
    }
    open(kube, server, headers, Some(claims)).await
}

async fn open(
    kube: &Client,
    server: &ToolServer,
    headers: HeaderMap,
    claims: Option<Value>,
) -> Result<Session, Error> {
    let namespace = server.namespace().unwrap_or_default();
    let place = tokio::time::timeout(LIST_TIMEOUT, SESSIONS.enter(namespace.clone()))
        .await
        .map_err(|_| Error::Busy)?;
    let guard = services::guard(kube, &namespace, &server.spec.url)
        .await
        .map_err(|e| Error::Address(e.to_string()))?;
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .dns_resolver(guard)
        .default_headers(headers)
        // A redirect would carry the headers to whoever the server names.
        .redirect(reqwest::redirect::Policy::none());
    if let Some(certificates) = ca(kube, server).await? {
        builder = builder.tls_certs_only(certificates);
    }
    let http = builder.build().map_err(|e| Error::Setup(root_cause(&e)))?;
    let config = StreamableHttpClientTransportConfig::with_uri(server.spec.url.clone())
        .max_json_response_size(MAX_ANSWER)
        .max_sse_event_size(MAX_ANSWER)
        .max_error_response_size(0);
    let transport = StreamableHttpClientTransport::with_client(http, config);
    let service = tokio::time::timeout(LIST_TIMEOUT, ClientConfig::default().serve(transport))
        .await
        .map_err(|_| Error::Timeout(LIST_TIMEOUT))?
        .map_err(|e| Error::Connect(cause(&e)))?;
    Ok(Session {
        service,
        claims,
        _place: place,
    })
}

/// The headers from the Secret of `spec.headersSecretRef`.
async fn headers(kube: &Client, server: &ToolServer) -> Result<HeaderMap, Error> {
    match &server.spec.headers_secret_ref {
        Some(reference) => headers_of(kube, server, &reference.name).await,
        None => Ok(HeaderMap::new()),
    }
}

async fn headers_of(kube: &Client, server: &ToolServer, secret: &str) -> Result<HeaderMap, Error> {
    let unusable = |why: String| Error::Reference(format!("Secret {secret}: {why}"));
    let namespace = server.namespace().unwrap_or_default();
    let data = refs::secret(kube, &namespace, secret)
        .await
        .map_err(|e| Error::Reference(e.to_string()))?;
    let mut headers = HeaderMap::new();
    for (key, value) in data.into_iter().take(MAX_HEADERS) {
        let name = HeaderName::try_from(&key)
            .ok()
            .filter(|name| !NOT_SENT.contains(&name.as_str()))
            .ok_or_else(|| unusable(format!("key {key} is no header that may be sent")))?;
        let text = String::from_utf8_lossy(&value.0).trim().to_string();
        let mut value = HeaderValue::try_from(text)
            .map_err(|_| unusable(format!("the value of key {key} cannot be sent in a header")))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// The key of `spec.contextKeySecretRef`.
async fn context_key(kube: &Client, server: &ToolServer) -> Result<Option<SecretString>, Error> {
    let Some(reference) = &server.spec.context_key_secret_ref else {
        return Ok(None);
    };
    let namespace = server.namespace().unwrap_or_default();
    refs::secret_key(kube, &namespace, &reference.name, &reference.key)
        .await
        .map(Some)
        .map_err(|e| Error::Reference(e.to_string()))
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
    /// What the server offers.
    pub async fn list(&self, server: &ToolServer) -> Result<Listing, Error> {
        let identity = self.identity();
        let mut tools = tokio::time::timeout(LIST_TIMEOUT, self.listed(server, &identity.name))
            .await
            .map_err(|_| Error::Timeout(LIST_TIMEOUT))??;
        tools.sort_by(|a, b| a.name.cmp(&b.name));
        tools.dedup_by(|a, b| a.name == b.name);
        tools.truncate(MAX_TOOLS);
        Ok(Listing {
            tools,
            server: identity,
        })
    }

    /// The tools its resource lists, page by page. Not all of them, if the server has no end.
    async fn listed(&self, server: &ToolServer, identity: &str) -> Result<Vec<Tool>, Error> {
        let is_usable = |tool: &Tool| {
            access(&server.spec.tools, &tool.name).is_some()
                && fits(&tool.name)
                && canonical(&definition(tool, identity)).len() <= MAX_DEFINITION
        };
        let (mut tools, mut cursor) = (Vec::new(), None);
        for _ in 0..MAX_PAGES {
            let params = PaginatedRequestParams::default().with_cursor(cursor.take());
            let page = self.service.list_tools(Some(params)).await;
            let page = page.map_err(|e| Error::Refused(cause(&e)))?;
            tools.extend(page.tools.into_iter().filter(is_usable));
            cursor = page.next_cursor;
            if cursor.is_none() || tools.len() > MAX_TOOLS {
                break;
            }
        }
        Ok(tools)
    }

    /// How the server names itself.
    fn identity(&self) -> ServerIdentity {
        let peer = self.service.peer_info();
        let info = peer.as_ref().and_then(|p| p.server_info.as_ref());
        info.map_or_else(ServerIdentity::default, |info| ServerIdentity {
            name: one_line(&info.name, 100),
            version: one_line(&info.version, 100),
        })
    }

    pub async fn call(
        &self,
        tool: &str,
        arguments: Map<String, Value>,
    ) -> Result<CallToolResult, Error> {
        let mut request = CallToolRequestParams::new(tool.to_string());
        request.arguments = Some(arguments);
        if let Some(claims) = &self.claims {
            let meta = Map::from_iter([(context::META.to_string(), claims.clone())]);
            request.meta = Some(RequestMetaObject::from(meta));
        }
        tokio::time::timeout(CALL_TIMEOUT, self.service.call_tool(request))
            .await
            .map_err(|_| Error::Timeout(CALL_TIMEOUT))?
            .map_err(|e| Error::Refused(cause(&e)))
    }
}

/// Why a server gave no answer, in our words: its own may be another server's secrets.
fn cause(error: &(dyn StdError + 'static)) -> String {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(text) = known(error) {
            return text;
        }
        next = inner(error);
    }
    "it gave no answer that MCP knows; see its log".into()
}

/// What an error wraps, also where rmcp does not name it as its source.
fn inner<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<ClientInitializeError>() {
        Some(ClientInitializeError::TransportError { error, .. }) => {
            Some(error.error.as_ref() as &(dyn StdError + 'static))
        }
        Some(ClientInitializeError::LegacyFallbackFailed { fallback, .. }) => {
            Some(fallback.as_ref() as &(dyn StdError + 'static))
        }
        _ => error.source(),
    }
}

fn known(error: &(dyn StdError + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<reqwest::Error>() {
        return Some(of_http(error));
    }
    if let Some(ServiceError::McpError(error)) = error.downcast_ref() {
        return Some(format!("MCP error {}", error.code.0));
    }
    if let Some(ClientInitializeError::JsonRpcError(error)) = error.downcast_ref() {
        return Some(format!("MCP error {}", error.code.0));
    }
    match error.downcast_ref::<StreamableHttpError<reqwest::Error>>()? {
        StreamableHttpError::Client(error) => Some(of_http(error)),
        StreamableHttpError::HttpStatus(error) => Some(format!("HTTP {}", error.status)),
        StreamableHttpError::UnexpectedServerResponse(text) => status_in(text),
        StreamableHttpError::AuthRequired(_) => Some("HTTP 401".into()),
        StreamableHttpError::InsufficientScope(_) => Some("HTTP 403".into()),
        StreamableHttpError::SessionExpired => Some("HTTP 404".into()),
        StreamableHttpError::ResponseBodyTooLarge { .. } => Some(format!(
            "its answer is longer than {} MiB",
            MAX_ANSWER >> 20
        )),
        _ => None,
    }
}

/// The status, or what kept the request from getting there. No body is part of either.
fn of_http(error: &reqwest::Error) -> String {
    match error.status() {
        Some(status) => format!("HTTP {}", status.as_u16()),
        None if error.is_body() || error.is_decode() => "its answer broke off".into(),
        None => root_cause(error),
    }
}

/// The status of `HTTP 500 Internal Server Error: body`.
fn status_in(text: &str) -> Option<String> {
    let status: String = text.strip_prefix("HTTP ")?.chars().take(3).collect();
    let is_status = status.len() == 3 && status.chars().all(|c| c.is_ascii_digit());
    is_status.then(|| format!("HTTP {status}"))
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

/// Whether the MSP declares a tool sensitive.
pub fn is_sensitive(server: &ToolServer, tool: &str) -> bool {
    let patterns = &server.spec.sensitive_tools;
    patterns.iter().any(|p| pattern::matches(p, tool))
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

    #[test]
    fn no_answer_gets_into_an_error() {
        type Failure = StreamableHttpError<reqwest::Error>;
        let said = |text: &str| cause(&Failure::UnexpectedServerResponse(text.to_string().into()));
        assert_eq!(said("HTTP 500 Internal Server Error: SECRET"), "HTTP 500");
        for text in ["HTTP SECRET", "SECRET", "HTTP 5", "HTTP ÄÖÜ SECRET"] {
            assert!(!said(text).contains("SECRET"), "{text}");
        }
        let refused = rmcp::ErrorData::internal_error("SECRET", None);
        assert_eq!(cause(&ServiceError::McpError(refused)), "MCP error -32603");
        assert_eq!(cause(&std::io::Error::other("SECRET")), said("SECRET"));
    }
}
