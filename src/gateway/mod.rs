//! The agents' listener. An agent is not trusted: who it is, whose tickets it
//! sees and what it may call is decided here.
//!
//! - [`identity`]: who calls (TokenReview)
//! - [`quota`]: how much one agent may ask
//! - [`work`]: a ticket's way through an agent: `work/claim` hands it out with its
//!   `work/context`, `work/turn` ends it, `work/journal` keeps its tool calls
//! - [`mcp`]: tool calls; [`catalog`]: the tools there are; [`outcome`]: the result as a label;
//!   [`resolve`]: what a call means in HaloPSA;
//!   [`hidden`]: the tickets that no agent may read
//! - [`steps`]: calls that write, carried out once; [`approval`]: the request for
//!   approval; [`runner`]: approved steps, run in order
//! - [`model`]: the language model, with its key and its budget
//! - [`wire`]: the protocol between agents and gateway

pub mod approval;
pub mod catalog;
mod facts;
pub mod hidden;
pub mod identity;
pub mod mcp;
pub mod model;
pub mod outcome;
pub mod quota;
pub mod resolve;
pub mod runner;
pub mod steps;
pub mod wire;
pub mod work;

use crate::api::condition::CLIENT_FOUND;
use crate::api::connection::ModelSpec;
use crate::api::{HaloPSAConnection, ImportedClient, Mode};
use crate::audit;
use crate::halopsa;
use crate::halopsa_pool::{self, HaloPool};
use crate::ids::TechnicianId;
use crate::k8s::index::TicketIndex;
use crate::k8s::reflect;
use crate::k8s::wakeups::Wakeups;
use crate::k8s::watches::Stores;
use crate::metrics::Metrics;
use crate::tools::rows::Rows;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use identity::{Identity, Reviewer};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::SignedDuration;
use kube::{Client, ResourceExt};
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The longest body an agent may send.
const MAX_BODY: usize = 512 * 1024;

/// What the gateway knows and uses.
pub struct Gateway {
    pub kube: Client,
    pub stores: Stores,
    pub listings: catalog::Listings,
    pub rows: Rows,
    pub index: Arc<TicketIndex>,
    pub halopsa: HaloPool,
    pub reviewer: Reviewer,
    pub quotas: quota::Quotas,
    /// Moves whenever a Ticket has changed; for who waits for one client's, `wakeups`.
    pub changed: watch::Receiver<u64>,
    pub wakeups: Arc<Wakeups>,
    /// Maximum delay before HaloPSA's reads reflect a write.
    pub settle: Duration,
    /// A lease without a heartbeat ends after this time.
    pub lease: SignedDuration,
    pub journal: work::PendingJournal,
    pub backoff: work::ConnectionBackoff,
    /// Every store is filled: before that no rule is known, and nothing is decided.
    pub ready: crate::server::Ready,
    pub metrics: Arc<Metrics>,
}

/// What an agent is bound to: its client, and the client's connection.
#[derive(Clone)]
pub struct AgentScope {
    pub client: Arc<ImportedClient>,
    pub connection: Arc<HaloPSAConnection>,
    /// HaloPSA's id of the client.
    pub halo_client_id: i64,
    pub mode: Mode,
}

/// Why nothing is sent for a suspended connection.
pub const SUSPENDED: &str =
    "the connection is suspended; set spec.suspend to false to resume its work";

impl AgentScope {
    /// The HaloPSA agent we act as.
    pub fn api_agent(&self) -> Option<TechnicianId> {
        let status = self.connection.status.as_ref()?;
        Some(status.api_agent.as_ref()?.id)
    }

    /// Markers of notes and approvals are bound to it.
    pub fn connection_uid(&self) -> &str {
        self.connection.metadata.uid.as_deref().unwrap_or_default()
    }

    /// How long a requester has to answer; none: nothing can verify them.
    pub fn verification_timeout(&self, gateway: &Gateway) -> Option<Duration> {
        let name = &self.connection.spec.sensitivity.provider_ref.as_ref()?.name;
        let namespace = self.connection.namespace().unwrap_or_default();
        let provider = reflect::get(&gateway.stores.providers, &namespace, name);
        // A provider that does not exist yet fails closed: the ticket waits for it.
        Some(provider.map_or(Duration::from_secs(300), |p| p.spec.timeout.into()))
    }

    /// The client's language model, else the connection's.
    pub fn model(&self) -> Option<&ModelSpec> {
        self.client
            .spec
            .agent
            .as_ref()
            .and_then(|a| a.model.as_ref())
            .or(self.connection.spec.agent.settings.model.as_ref())
    }
}

impl Gateway {
    /// What an ImportedClient's agent is bound to.
    pub fn scope(&self, namespace: &str, client: &str) -> Result<AgentScope, &'static str> {
        let client = reflect::get(&self.stores.clients, namespace, client)
            .ok_or("your ImportedClient no longer exists")?;
        let connection = reflect::get(
            &self.stores.connections,
            namespace,
            &client.spec.connection_ref.name,
        )
        .ok_or("your connection no longer exists")?;
        let halo_client_id = bound(&client)?;
        let mode = client.spec.mode.unwrap_or(connection.spec.agent.mode);
        Ok(AgentScope {
            client,
            connection,
            halo_client_id,
            mode,
        })
    }

    /// The connection's HaloPSA on behalf of the client: it shares the request window with the
    /// connection's other clients.
    pub async fn halo(&self, scope: &AgentScope) -> Result<halopsa::Client, halopsa_pool::Error> {
        let halo = self.halopsa.client(&scope.connection).await?;
        Ok(halo.for_caller(&scope.client.name_any()))
    }

    /// As [`Gateway::scope`], for the calling agent.
    pub fn scope_of(&self, identity: &Identity) -> Result<AgentScope, &'static str> {
        self.scope(&identity.namespace, &identity.client)
    }
}

/// The client in HaloPSA whose tickets the agent may see: pure. What was resolved before counts only
/// while it is still so.
fn bound(client: &ImportedClient) -> Result<i64, &'static str> {
    const UNRESOLVED: &str = "your client is not resolved in HaloPSA yet";
    let status = client.status.as_ref().ok_or(UNRESOLVED)?;
    let found = status.halo_client_id.ok_or(UNRESOLVED)?;
    let is_false = |c: &&Condition| c.type_ == CLIENT_FOUND && c.status == "False";
    if status.conditions.iter().any(|c| is_false(&c)) {
        return Err("your client is inactive, a duplicate or gone; see its condition ClientFound");
    }
    match client.spec.halo_client_id {
        Some(wanted) if wanted != found => Err("your client is being resolved in HaloPSA again"),
        _ => Ok(found),
    }
}

pub fn router(gateway: Arc<Gateway>) -> Router {
    let tools = gateway.clone();
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_sse_keep_alive(None)
        .with_max_request_body_bytes(MAX_BODY)
        // TLS checks names, and agents are not browsers.
        .disable_allowed_hosts();
    let mcp = StreamableHttpService::new(
        move || Ok(mcp::Tools::new(tools.clone())),
        Arc::new(NeverSessionManager::default()),
        config,
    );
    Router::new()
        .route("/v1/work/claim", post(work::claim))
        .route("/v1/work/{ticket}/heartbeat", post(work::heartbeat))
        .route("/v1/work/{ticket}/release", post(work::release))
        .route("/v1/work/{ticket}/plan", post(work::plan))
        .route("/v1/work/{ticket}/complete", post(work::complete))
        .route("/v1/model/chat/completions", post(model::completions))
        .nest_service("/mcp", mcp)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(
            gateway.clone(),
            authenticate,
        ))
        .with_state(gateway)
}

/// Every request needs an agent's token. Who it belongs to is handed on with the request.
async fn authenticate(
    State(gateway): State<Arc<Gateway>>,
    mut request: Request,
    next: Next,
) -> Response {
    if !gateway.ready.is_ready() {
        return problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "the gateway is starting; try again in a moment",
        );
    }
    let token = request
        .headers()
        .get(axum::http::header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("Bearer "))
        .unwrap_or_default()
        .to_string();
    match gateway.reviewer.review(&token).await {
        Ok(identity) => match gateway.quotas.enter(&identity, request.uri().path()) {
            Ok(_place) => {
                request.extensions_mut().insert(identity);
                next.run(request).await
            }
            Err(exceeded) => exceeded.into_response(),
        },
        Err(error) => unauthenticated(&gateway, &error),
    }
}

fn unauthenticated(gateway: &Gateway, error: &identity::Error) -> Response {
    if gateway.reviewer.is_recorded() {
        let subject = audit::Subject::default();
        audit::event("Unauthenticated", subject, &error.to_string());
    }
    match error {
        identity::Error::Busy(wait) => quota::Exceeded::Rate(*wait).into_response(),
        identity::Error::Unavailable(_) => {
            problem(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
        }
        _ => problem(StatusCode::UNAUTHORIZED, error.to_string()),
    }
}

pub fn problem(status: StatusCode, error: impl Into<String>) -> Response {
    (
        status,
        Json(wire::ErrorBody {
            error: error.into(),
        }),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_client_is_bound_while_it_is_found() {
        let client = |spec: Option<i64>, status: serde_json::Value| -> ImportedClient {
            let mut client = json!({
                "apiVersion": "rallied.ai/v1alpha1", "kind": "ImportedClient",
                "metadata": {"name": "acme", "namespace": "msp"},
                "spec": {"connectionRef": {"name": "halo"}}, "status": status,
            });
            if let Some(id) = spec {
                client["spec"]["haloClientId"] = id.into();
            }
            serde_json::from_value(client).unwrap()
        };
        let found = |status: &str| {
            json!({"haloClientId": 12, "conditions": [{
                "type": "ClientFound", "status": status, "reason": "Found", "message": "",
                "lastTransitionTime": "2026-11-25T00:00:00Z",
            }]})
        };
        for (spec, status, bound_to) in [
            (None, json!({}), None),
            (None, json!({"haloClientId": 12}), Some(12)),
            (None, found("True"), Some(12)),
            (None, found("Unknown"), Some(12)),
            (Some(12), found("True"), Some(12)),
            // A duplicate, or inactive: what it was once is no longer its own.
            (None, found("False"), None),
            // Another client since.
            (Some(13), found("True"), None),
        ] {
            assert_eq!(
                bound(&client(spec, status.clone())).ok(),
                bound_to,
                "{status}"
            );
        }
    }
}
