//! The gateway from the agent's side.

use crate::error::root_cause;
use crate::gateway::wire::{
    CALL_UNDER_WAY, Completion, ErrorBody, LeaseRef, Plan, PlanHandIn, UNSETTLED, Unsettled, Work,
};
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
/// Far above any plan or ticket context, in bytes.
const MAX_RESPONSE: usize = 2 * 1024 * 1024;
/// A model's response may be longer, in bytes.
const MAX_MODEL_RESPONSE: usize = 2 * MAX_RESPONSE;
/// How often a call with an unknown outcome is retried.
const MAX_RETRIES: u32 = 5;
/// The wait before such a retry, whatever the gateway asks for.
const MIN_RETRY_WAIT: Duration = Duration::from_secs(1);
const MAX_RETRY_WAIT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the lease is lost: another agent has the ticket, or it is no longer actionable")]
    LeaseLost,
    #[error("the gateway refused: {0}")]
    Refused(String),
    #[error("the gateway is unavailable: {0}")]
    Unavailable(String),
    #[error("cannot reach the gateway: {0}")]
    Unreachable(String),
    #[error("cannot read {path}: {error}; the Pod's projected volume provides it")]
    File { path: String, error: std::io::Error },
    #[error("the tool failed: {0}")]
    Tool(String),
    /// HaloPSA may or may not have the write yet.
    #[error("{message}")]
    Unsettled {
        message: String,
        retry_after: Duration,
    },
}

/// Where the gateway is, and the credentials for it.
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

    /// Both files are rotated while the Pod lives, so they are read for every request.
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
            if bytes.len() + chunk.len() > MAX_RESPONSE {
                return Err(Error::Unreachable("the response is too long".into()));
            }
            bytes.extend_from_slice(&chunk);
        }
        let problem = || {
            serde_json::from_slice::<ErrorBody>(&bytes)
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
            .map_err(|e| Error::Unavailable(format!("unexpected response: {e}")))
    }

    pub async fn heartbeat(&self, work: &Work) -> Result<(), Error> {
        self.held(work, "heartbeat").await
    }

    pub async fn release(&self, work: &Work) -> Result<(), Error> {
        self.held(work, "release").await
    }

    async fn held(&self, work: &Work, verb: &str) -> Result<(), Error> {
        let held = LeaseRef {
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

    /// One response of the language model.
    pub async fn chat(&self, request: &Value, timeout: Duration) -> Result<Value, ModelError> {
        let (client, token) = self
            .client()
            .map_err(|e| ModelError::Transient(e.to_string()))?;
        let transient = |e: reqwest::Error| ModelError::Transient(root_cause(&e));
        let sent = client
            .post(format!("{}/v1/model/chat/completions", self.url))
            .bearer_auth(token)
            .timeout(timeout)
            .json(request)
            .send();
        let mut response = sent.await.map_err(transient)?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transient)? {
            if bytes.len() + chunk.len() > MAX_MODEL_RESPONSE {
                return Err(ModelError::Permanent("its response is too long".into()));
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
        // Asking again helps neither with a used-up budget nor with a wrong key.
        Err(
            if status.is_server_error() || error("type") == CALL_UNDER_WAY {
                ModelError::Transient(message)
            } else {
                ModelError::Permanent(message)
            },
        )
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

    /// Opens a session with the tools.
    pub async fn tools(&self) -> Result<Tools, Error> {
        let (client, token) = self.client()?;
        let config = StreamableHttpClientTransportConfig::with_uri(format!("{}/mcp", self.url))
            .auth_header(token);
        let transport = StreamableHttpClientTransport::with_client(client, config);
        let service = tokio::time::timeout(TIMEOUT, ClientConfig::default().serve(transport))
            .await
            .map_err(|_| Error::Tool("the gateway does not respond".into()))?
            .map_err(|e| Error::Tool(root_cause(&e)))?;
        Ok(Tools { service })
    }
}

/// Why the language model gave no response.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ModelError {
    /// Asking again may help.
    #[error("{0}")]
    Transient(String),
    #[error("{0}")]
    Permanent(String),
}

/// A session with the tools.
pub struct Tools {
    service: RunningService<RoleClient, ClientConfig>,
}

impl Tools {
    /// Calls a tool once.
    pub async fn call(&self, tool: &str, arguments: Value) -> Result<Value, Error> {
        let mut request = CallToolRequestParams::new(tool.to_string());
        request.arguments = arguments.as_object().cloned();
        let result: CallToolResult =
            tokio::time::timeout(TOOL_TIMEOUT, self.service.call_tool(request))
                .await
                .map_err(|_| Error::Tool(format!("{tool} timed out")))?
                .map_err(|e| Error::Tool(root_cause(&e)))?;
        if result.is_error == Some(true) {
            return Err(failure(tool, &result));
        }
        result
            .structured_content
            .ok_or_else(|| Error::Tool(format!("{tool} returned no result")))
    }

    /// Calls a tool, and retries while the outcome is unknown. The gateway then looks for what
    /// the earlier call wrote, so nothing is written twice.
    pub async fn call_until_settled(&self, tool: &str, arguments: Value) -> Result<Value, Error> {
        let mut retries = 0;
        loop {
            match self.call(tool, arguments.clone()).await {
                Err(Error::Unsettled { retry_after, .. }) if retries < MAX_RETRIES => {
                    retries += 1;
                    tokio::time::sleep(retry_after.clamp(MIN_RETRY_WAIT, MAX_RETRY_WAIT)).await;
                }
                other => return other,
            }
        }
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

/// Why a tool failed, from its result.
fn failure(tool: &str, result: &CallToolResult) -> Error {
    if let Some(unsettled) = unsettled(result.structured_content.as_ref()) {
        return Error::Unsettled {
            message: unsettled.message,
            retry_after: Duration::from_secs(unsettled.retry_after_seconds),
        };
    }
    let text = serde_json::to_value(&result.content)
        .ok()
        .and_then(|c| Some(c.get(0)?.get("text")?.as_str()?.to_string()));
    Error::Tool(text.unwrap_or_else(|| format!("{tool} failed")))
}

fn unsettled(content: Option<&Value>) -> Option<Unsettled> {
    serde_json::from_value::<Unsettled>(content?.clone())
        .ok()
        .filter(|u| u.status == UNSETTLED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmcp::model::ContentBlock;
    use serde_json::json;

    #[test]
    fn an_unknown_outcome_is_told_from_a_failure() {
        let mut result = CallToolResult::error(vec![ContentBlock::text("refused")]);
        assert!(matches!(failure("t", &result), Error::Tool(text) if text == "refused"));
        result.structured_content = Some(json!({"status": "queued"}));
        assert!(matches!(failure("t", &result), Error::Tool(_)));
        result.structured_content =
            Some(json!({"status": "unsettled", "retryAfterSeconds": 3, "message": "wait"}));
        assert!(matches!(
            failure("t", &result),
            Error::Unsettled { retry_after, .. } if retry_after == Duration::from_secs(3)
        ));
    }
}
