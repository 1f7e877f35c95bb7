//! The agents' listener. An agent is not trusted: who it is, whose tickets it
//! sees and what it may call is decided here.
//!
//! - [`identity`]: who asks (TokenReview)
//! - [`work`]: claim, heartbeat, release, plan, complete
//! - [`mcp`]: the tools; [`catalog`]: which there are, [`tools`]: those that read
//! - [`steps`]: calls that write, carried out once; [`approval`]: the request for
//!   approval; [`runner`]: approved steps, run in order
//! - [`sensitivity`]: is a ticket sensitive
//! - [`model`]: the language model, with its key and its budget
//! - [`wire`]: what goes over the wire

pub mod approval;
pub mod catalog;
pub mod identity;
pub mod mcp;
pub mod model;
pub mod runner;
pub mod steps;
pub mod wire;
pub mod work;

use crate::api::connection::ModelSpec;
use crate::api::{
    HaloPSAConnection, ImportedClient, Mode, Ticket, ToolPolicy, ToolServer, VerificationProvider,
    Workflow,
};
use crate::audit;
use crate::halopsa_pool::HaloPool;
use crate::k8s::index::TicketIndex;
use crate::k8s::reflect;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use identity::{Identity, Reviewer};
use k8s_openapi::jiff::SignedDuration;
use kube::Client;
use kube::runtime::reflector::Store;
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
    pub connections: Store<HaloPSAConnection>,
    pub clients: Store<ImportedClient>,
    pub tickets: Store<Ticket>,
    pub policies: Store<ToolPolicy>,
    pub servers: Store<ToolServer>,
    pub workflows: Store<Workflow>,
    pub providers: Store<VerificationProvider>,
    pub listings: catalog::Listings,
    pub index: Arc<TicketIndex>,
    pub halopsa: HaloPool,
    pub reviewer: Reviewer,
    /// Moves whenever a Ticket has changed.
    pub changed: watch::Receiver<u64>,
    /// How late HaloPSA may show a write.
    pub settle: Duration,
    /// A lease without a heartbeat ends after this time.
    pub lease: SignedDuration,
    pub journal: work::PendingJournal,
    pub backoff: work::ConnectionBackoff,
    /// Every store is filled: before that no rule is known, and nothing is decided.
    pub ready: crate::server::Ready,
}

/// A client and its connection, as an agent's request needs them.
pub struct AgentScope {
    pub client: Arc<ImportedClient>,
    pub connection: Arc<HaloPSAConnection>,
    /// HaloPSA's id of the client.
    pub halo_client_id: i64,
    pub mode: Mode,
}

/// Why nothing goes out for a suspended connection.
pub const SUSPENDED: &str =
    "the connection is suspended; this goes on when spec.suspend is false again";

impl AgentScope {
    /// The HaloPSA agent we act as.
    pub fn api_agent(&self) -> Option<i64> {
        self.connection
            .status
            .as_ref()
            .and_then(|s| s.api_agent.as_ref())
            .map(|a| a.id)
    }

    /// How long a requester has, where there is somebody to ask them.
    pub fn verification_timeout(&self, gateway: &Gateway) -> Option<Duration> {
        let name = &self.connection.spec.sensitivity.provider_ref.as_ref()?.name;
        let namespace = kube::ResourceExt::namespace(&*self.connection).unwrap_or_default();
        let provider = reflect::get(&gateway.providers, &namespace, name);
        // One that is not there yet is waited for: it fails closed.
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
    /// What the agent's identity binds it to.
    pub fn bound(&self, identity: &Identity) -> Result<AgentScope, &'static str> {
        let client = reflect::get(&self.clients, &identity.namespace, &identity.client)
            .ok_or("your ImportedClient is gone")?;
        let connection = reflect::get(
            &self.connections,
            &identity.namespace,
            &client.spec.connection_ref.name,
        )
        .ok_or("your connection is gone")?;
        let status = client.status.as_ref();
        let halo_client_id = status
            .and_then(|s| s.halo_client_id)
            .ok_or("your client is not resolved in HaloPSA yet")?;
        let mode = client.spec.mode.unwrap_or(connection.spec.agent.mode);
        Ok(AgentScope {
            client,
            connection,
            halo_client_id,
            mode,
        })
    }
}

pub fn router(gateway: Arc<Gateway>) -> Router {
    let tools = gateway.clone();
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_sse_keep_alive(None)
        .with_max_request_body_bytes(MAX_BODY)
        // Names are checked by TLS; agents are no browsers.
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

/// Every request needs an agent's token; what it says of the agent goes along with the request.
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
        Ok(identity) => {
            request.extensions_mut().insert(identity);
            next.run(request).await
        }
        Err(error) => {
            let status = match error {
                identity::Error::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::UNAUTHORIZED,
            };
            audit::event(
                "Unauthenticated",
                audit::Subject::default(),
                &error.to_string(),
            );
            problem(status, error.to_string())
        }
    }
}

pub fn problem(status: StatusCode, error: impl Into<String>) -> Response {
    (
        status,
        Json(wire::Problem {
            error: error.into(),
        }),
    )
        .into_response()
}
