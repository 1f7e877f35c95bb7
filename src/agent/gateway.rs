//! The gateway from the agent's side.

use crate::cause::innermost;
use crate::gateway::wire::{Completion, Held, Plan, Problem, Work};
use reqwest::StatusCode;
use rmcp::model::{CallToolRequestParams, ClientConfig};
use rmcp::service::{RoleClient, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ServiceExt, model::CallToolResult};
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// Longer than the gateway's long poll.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(40);
/// Longer than the gateway waits for HaloPSA to settle.
const COMPLETE_TIMEOUT: Duration = Duration::from_secs(120);
const TIMEOUT: Duration = Duration::from_secs(15);
const TOOL_TIMEOUT: Duration = Duration::from_secs(60);
/// A plan, a ticket's context: far below this.
const MAX_ANSWER: usize = 2 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the lease is lost: another agent has the ticket, or it is no work any more")]
    LeaseLost,
    #[error("the gateway refused: {0}")]
    Refused(String),
    #[error("the gateway asks to wait: {0}")]
    Unavailable(String),
    #[error("cannot reach the gateway: {0}")]
    Unreachable(String),
    #[error("cannot read {path}: {error}; the Pod's projected volume provides it")]
    File { path: String, error: std::io::Error },
    #[error("the tool failed: {0}")]
    Tool(String),
}

/// Where the gateway is and how to show who one is.
#[derive(Clone, Debug)]
pub struct Gateway {
    pub url: String,
    pub ca_file: PathBuf,
    pub token_file: PathBuf,
}

impl Gateway {
    fn read(&self, path: &PathBuf) -> Result<String, Error> {
        std::fs::read_to_string(path).map_err(|error| Error::File { path: path.display().to_string(), error })
    }

    /// Both files are renewed while the Pod lives, so they are read for each use.
    fn client(&self) -> Result<(reqwest::Client, String), Error> {
        let ca = reqwest::Certificate::from_pem_bundle(self.read(&self.ca_file)?.as_bytes()).map_err(|e| Error::Unreachable(innermost(&e)))?;
        let token = self.read(&self.token_file)?.trim().to_string();
        let client = reqwest::Client::builder()
            .https_only(true)
            .tls_certs_only(ca)
            .connect_timeout(Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|e| Error::Unreachable(innermost(&e)))?;
        Ok((client, token))
    }

    async fn post<T: Serialize>(&self, path: &str, body: &T, timeout: Duration) -> Result<(StatusCode, Vec<u8>), Error> {
        let (client, token) = self.client()?;
        let unreachable = |e: reqwest::Error| Error::Unreachable(innermost(&e));
        let mut response =
            client.post(format!("{}{path}", self.url)).bearer_auth(token).timeout(timeout).json(body).send().await.map_err(unreachable)?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if bytes.len() + chunk.len() > MAX_ANSWER {
                return Err(Error::Unreachable("the answer is too long".into()));
            }
            bytes.extend_from_slice(&chunk);
        }
        let problem = || serde_json::from_slice::<Problem>(&bytes).map_or_else(|_| format!("HTTP {}", status.as_u16()), |p| p.error);
        match status {
            status if status.is_success() => Ok((status, bytes)),
            StatusCode::CONFLICT => Err(Error::LeaseLost),
            StatusCode::NOT_FOUND | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => {
                Err(Error::Refused(problem()))
            }
            _ => Err(Error::Unavailable(problem())),
        }
    }

    pub async fn claim(&self) -> Result<Option<Work>, Error> {
        let (status, bytes) = self.post("/v1/work/claim", &serde_json::json!({}), CLAIM_TIMEOUT).await?;
        if status == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::Unavailable(format!("its answer is not understood: {e}")))
    }

    pub async fn heartbeat(&self, work: &Work) -> Result<(), Error> {
        self.held(work, "heartbeat").await
    }

    pub async fn release(&self, work: &Work) -> Result<(), Error> {
        self.held(work, "release").await
    }

    async fn held(&self, work: &Work, verb: &str) -> Result<(), Error> {
        let held = Held { lease_id: work.lease_id.clone() };
        self.post(&format!("/v1/work/{}/{verb}", work.ticket), &held, TIMEOUT).await.map(|_| ())
    }

    pub async fn complete(&self, work: &Work, plan: &Plan) -> Result<(), Error> {
        let completion = Completion { lease_id: work.lease_id.clone(), plan: plan.clone() };
        self.post(&format!("/v1/work/{}/complete", work.ticket), &completion, COMPLETE_TIMEOUT).await.map(|_| ())
    }

    /// A session with the tools.
    pub async fn tools(&self) -> Result<Tools, Error> {
        let (client, token) = self.client()?;
        let config = StreamableHttpClientTransportConfig::with_uri(format!("{}/mcp", self.url)).auth_header(token);
        let transport = StreamableHttpClientTransport::with_client(client, config);
        let service = tokio::time::timeout(TIMEOUT, ClientConfig::default().serve(transport))
            .await
            .map_err(|_| Error::Tool("the gateway does not answer".into()))?
            .map_err(|e| Error::Tool(innermost(&e)))?;
        Ok(Tools { service })
    }
}

/// The tools, ready to be called.
pub struct Tools {
    service: RunningService<RoleClient, ClientConfig>,
}

impl Tools {
    /// Calls a tool; its structured result.
    pub async fn call(&self, tool: &'static str, arguments: Value) -> Result<Value, Error> {
        let mut request = CallToolRequestParams::new(tool);
        request.arguments = arguments.as_object().cloned();
        let result: CallToolResult = tokio::time::timeout(TOOL_TIMEOUT, self.service.call_tool(request))
            .await
            .map_err(|_| Error::Tool(format!("{tool} takes too long")))?
            .map_err(|e| Error::Tool(innermost(&e)))?;
        if result.is_error == Some(true) {
            let text = serde_json::to_value(&result.content).ok().and_then(|c| Some(c.get(0)?.get("text")?.as_str()?.to_string()));
            return Err(Error::Tool(text.unwrap_or_else(|| format!("{tool} failed"))));
        }
        result.structured_content.ok_or_else(|| Error::Tool(format!("{tool} gave no result")))
    }

    /// The names of the tools the gateway offers.
    pub async fn names(&self) -> Result<Vec<String>, Error> {
        let tools = self.service.list_all_tools().await.map_err(|e| Error::Tool(innermost(&e)))?;
        Ok(tools.into_iter().map(|t| t.name.into_owned()).collect())
    }
}
