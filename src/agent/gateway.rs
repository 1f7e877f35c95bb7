//! The gateway from the agent's side.

use crate::error::root_cause;
use crate::gateway::wire::{Completion, Held, Plan, PlanHandIn, Problem, Work};
use reqwest::StatusCode;
use rmcp::model::{CallToolRequestParams, ClientConfig, Tool};
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
/// Longer than the gateway gives another server's tool.
const TOOL_TIMEOUT: Duration = Duration::from_secs(180);
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
        std::fs::read_to_string(path).map_err(|error| Error::File {
            path: path.display().to_string(),
            error,
        })
    }

    /// Both files are renewed while the Pod lives, so they are read for each use.
    fn client(&self) -> Result<(reqwest::Client, String), Error> {
        let ca = reqwest::Certificate::from_pem_bundle(self.read(&self.ca_file)?.as_bytes())
            .map_err(|e| Error::Unreachable(root_cause(&e)))?;
        let token = self.read(&self.token_file)?.trim().to_string();
        let client = reqwest::Client::builder()
            .https_only(true)
            .tls_certs_only(ca)
            .connect_timeout(Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|e| Error::Unreachable(root_cause(&e)))?;
        Ok((client, token))
    }

    async fn post<T: Serialize>(
        &self,
        path: &str,
        body: &T,
        timeout: Duration,
    ) -> Result<(StatusCode, Vec<u8>), Error> {
        let (client, token) = self.client()?;
        let unreachable = |e: reqwest::Error| Error::Unreachable(root_cause(&e));
        let mut response = client
            .post(format!("{}{path}", self.url))
            .bearer_auth(token)
            .timeout(timeout)
            .json(body)
            .send()
            .await
            .map_err(unreachable)?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if bytes.len() + chunk.len() > MAX_ANSWER {
                return Err(Error::Unreachable("the answer is too long".into()));
            }
            bytes.extend_from_slice(&chunk);
        }
        let problem = || {
            serde_json::from_slice::<Problem>(&bytes)
                .map_or_else(|_| format!("HTTP {}", status.as_u16()), |p| p.error)
        };
        match status {
            status if status.is_success() => Ok((status, bytes)),
            StatusCode::CONFLICT => Err(Error::LeaseLost),
            StatusCode::NOT_FOUND
            | StatusCode::UNPROCESSABLE_ENTITY
            | StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE => Err(Error::Refused(problem())),
            _ => Err(Error::Unavailable(problem())),
        }
    }

    pub async fn claim(&self) -> Result<Option<Work>, Error> {
        let (status, bytes) = self
            .post("/v1/work/claim", &serde_json::json!({}), CLAIM_TIMEOUT)
            .await?;
        if status == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| Error::Unavailable(format!("its answer is not understood: {e}")))
    }

    pub async fn heartbeat(&self, work: &Work) -> Result<(), Error> {
        self.held(work, "heartbeat").await
    }

    pub async fn release(&self, work: &Work) -> Result<(), Error> {
        self.held(work, "release").await
    }

    async fn held(&self, work: &Work, verb: &str) -> Result<(), Error> {
        let held = Held {
            lease_id: work.lease_id.clone(),
        };
        self.post(&format!("/v1/work/{}/{verb}", work.ticket), &held, TIMEOUT)
            .await
            .map(|_| ())
    }

    /// Hands diagnosis and plan in before anything changes.
    pub async fn plan(&self, work: &Work, plan: &Plan) -> Result<(), Error> {
        let given = PlanHandIn {
            lease_id: work.lease_id.clone(),
            plan: plan.clone(),
        };
        self.post(
            &format!("/v1/work/{}/plan", work.ticket),
            &given,
            COMPLETE_TIMEOUT,
        )
        .await
        .map(|_| ())
    }

    /// One answer of the language model.
    pub async fn chat(&self, request: &Value, timeout: Duration) -> Result<Value, ModelError> {
        let (client, token) = self
            .client()
            .map_err(|e| ModelError::Passing(e.to_string()))?;
        let passing = |e: reqwest::Error| ModelError::Passing(root_cause(&e));
        let sent = client
            .post(format!("{}/v1/model/chat/completions", self.url))
            .bearer_auth(token)
            .timeout(timeout)
            .json(request)
            .send();
        let mut response = sent.await.map_err(passing)?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(passing)? {
            if bytes.len() + chunk.len() > 2 * MAX_ANSWER {
                return Err(ModelError::Final("its answer is too long".into()));
            }
            bytes.extend_from_slice(&chunk);
        }
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if status.is_success() {
            return Ok(value);
        }
        let error = |key: &str| {
            value
                .get("error")
                .and_then(|e| e.get(key))
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_string()
        };
        let message = if error("message").is_empty() {
            format!("HTTP {}", status.as_u16())
        } else {
            error("message")
        };
        // A budget does not come back by asking again; nor does a wrong key.
        Err(if status.is_server_error() {
            ModelError::Passing(message)
        } else {
            ModelError::Final(message)
        })
    }

    pub async fn complete(
        &self,
        work: &Work,
        plan: Option<&Plan>,
        message: Option<&str>,
    ) -> Result<(), Error> {
        let completion = Completion {
            lease_id: work.lease_id.clone(),
            plan: plan.cloned(),
            message: message.map(str::to_string),
        };
        self.post(
            &format!("/v1/work/{}/complete", work.ticket),
            &completion,
            COMPLETE_TIMEOUT,
        )
        .await
        .map(|_| ())
    }

    /// A session with the tools.
    pub async fn tools(&self) -> Result<Tools, Error> {
        let (client, token) = self.client()?;
        let config = StreamableHttpClientTransportConfig::with_uri(format!("{}/mcp", self.url))
            .auth_header(token);
        let transport = StreamableHttpClientTransport::with_client(client, config);
        let service = tokio::time::timeout(TIMEOUT, ClientConfig::default().serve(transport))
            .await
            .map_err(|_| Error::Tool("the gateway does not answer".into()))?
            .map_err(|e| Error::Tool(root_cause(&e)))?;
        Ok(Tools { service })
    }
}

/// Why the language model gives no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ModelError {
    #[error("{0}")]
    Passing(String),
    #[error("{0}")]
    Final(String),
}

/// The tools, ready to be called.
pub struct Tools {
    service: RunningService<RoleClient, ClientConfig>,
}

impl Tools {
    /// Calls a tool; its result, or what it says instead.
    pub async fn call(&self, tool: &str, arguments: Value) -> Result<Value, Error> {
        let mut request = CallToolRequestParams::new(tool.to_string());
        request.arguments = arguments.as_object().cloned();
        let result: CallToolResult =
            tokio::time::timeout(TOOL_TIMEOUT, self.service.call_tool(request))
                .await
                .map_err(|_| Error::Tool(format!("{tool} takes too long")))?
                .map_err(|e| Error::Tool(root_cause(&e)))?;
        if result.is_error == Some(true) {
            let text = serde_json::to_value(&result.content)
                .ok()
                .and_then(|c| Some(c.get(0)?.get("text")?.as_str()?.to_string()));
            return Err(Error::Tool(
                text.unwrap_or_else(|| format!("{tool} failed")),
            ));
        }
        result
            .structured_content
            .ok_or_else(|| Error::Tool(format!("{tool} gave no result")))
    }

    /// The tools the gateway offers.
    pub async fn list(&self) -> Result<Vec<Tool>, Error> {
        self.service
            .list_all_tools()
            .await
            .map_err(|e| Error::Tool(root_cause(&e)))
    }

    /// Their names.
    pub async fn names(&self) -> Result<Vec<String>, Error> {
        Ok(self
            .list()
            .await?
            .into_iter()
            .map(|t| t.name.into_owned())
            .collect())
    }
}
