//! The public listener: HaloPSA's webhooks.
//!
//! A webhook is authenticated before its body is read, routed by what the watches know, stored as
//! a Ticket, and only then answered. HaloPSA is never called from here.
//!
//! - [`decide`]: what an event asks for: pure
//! - [`callback`]: outcomes posted by verification providers

pub mod callback;
pub mod decide;

use crate::api::reason::Reason;
use crate::api::ticket::{REOPEN_ANNOTATION, REQUESTED_AT_ANNOTATION, Source, Ticket, TicketSpec};
use crate::api::{HaloPSAConnection, LocalRef};
use crate::halopsa::webhook;
use crate::k8s::cache::Remembered;
use crate::k8s::index::{ClientEntry, ClientIndex, TicketIndex};
use crate::k8s::key::Key;
use crate::k8s::name::ObjectName;
use crate::k8s::watches::{Stores, Watches};
use crate::k8s::{self, names, reflect, tickets};
use crate::metrics::{Metrics, WebhookLabels, WebhookResult};
use crate::server::Ready;
use crate::text;
use crate::ticket::route;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine;
use decide::{Known, Step};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::reflector::Store;
use kube::{Client, Resource};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

/// The longest webhook that is accepted.
pub const MAX_BODY: usize = 2 * 1024 * 1024;
const MAX_CALLBACK: usize = 16 * 1024;
/// HaloPSA is answered within this time, however slowly it sends.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Webhooks that are read and stored at the same time. Only those with the right password count;
/// more of them wait.
const WEBHOOKS: usize = 32;
/// Callbacks that are read at the same time. Their signature covers the body, so strangers can
/// take all of them; then providers are asked to send again, and webhooks are not concerned.
const CALLBACKS: usize = 64;
/// At most one Event in this time per client that is not imported.
const EVENT_EVERY: Duration = Duration::from_secs(600);
const MAX_ANNOUNCED: usize = 1000;
const MAX_SUBJECT: usize = 200;

const STARTING: Answer = (StatusCode::SERVICE_UNAVAILABLE, "starting, send it again\n");
const NOT_STORED: Answer = (
    StatusCode::SERVICE_UNAVAILABLE,
    "not stored, send it again\n",
);

type Answer = (StatusCode, &'static str);

/// What the controller has handed over to check requests with.
pub struct Handed {
    store: Store<Secret>,
    namespace: String,
    name: String,
}

impl Handed {
    /// The Secret of this name, in a store that watches it.
    pub fn new(store: Store<Secret>, namespace: &str, name: &str) -> Self {
        Self {
            store,
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    fn value(&self, key: &str) -> Option<Vec<u8>> {
        let secret = reflect::get(&self.store, &self.namespace, &self.name)?;
        let value = secret.data.as_ref()?.get(key)?;
        Some(value.0.clone()).filter(|value| !value.is_empty())
    }
}

/// What the receiver knows and uses.
pub struct Receiver {
    pub kube: Client,
    pub stores: Stores,
    pub handed: Handed,
    pub index: Arc<TicketIndex>,
    pub clients: Arc<ClientIndex>,
    pub ready: Ready,
    pub metrics: Arc<Metrics>,
    recorder: Recorder,
    webhooks: Semaphore,
    callbacks: Semaphore,
    /// When a client that is not imported last had its Event.
    announced: Remembered<(Key, i64), Instant>,
}

impl Receiver {
    pub fn new(
        kube: Client,
        watches: &Watches,
        handed: Handed,
        ready: Ready,
        metrics: Arc<Metrics>,
    ) -> Self {
        let reporter = Reporter {
            controller: names::RECEIVER.into(),
            instance: std::env::var("POD_NAME").ok(),
        };
        let recorder = Recorder::new(kube.clone(), reporter);
        Self {
            kube,
            stores: watches.stores(),
            handed,
            index: watches.ticket_index.clone(),
            clients: watches.client_index.clone(),
            ready,
            metrics,
            recorder,
            webhooks: Semaphore::new(WEBHOOKS),
            callbacks: Semaphore::new(CALLBACKS),
            announced: Remembered::default(),
        }
    }
}

/// Everything that strangers can reach. Health and metrics have a listener of their own.
pub fn router(receiver: Arc<Receiver>) -> Router {
    Router::new()
        .route("/webhooks/{namespace}/{connection}", post(receive))
        .route(
            "/verifications/{namespace}/{provider}",
            post(callback::take).layer(DefaultBodyLimit::max(MAX_CALLBACK)),
        )
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(receiver)
}

async fn receive(
    State(receiver): State<Arc<Receiver>>,
    Path((namespace, name)): Path<(ObjectName, ObjectName)>,
    request: Request,
) -> Response {
    let started = Instant::now();
    let answer = tokio::time::timeout(TIMEOUT, receiver.handle(&namespace, &name, request))
        .await
        .unwrap_or_else(|_| {
            receiver.count(WebhookResult::Failed);
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "not stored in time, send it again\n",
            )
        });
    receiver
        .metrics
        .webhook_duration_seconds
        .observe(started.elapsed().as_secs_f64());
    answer.into_response()
}

impl Receiver {
    fn count(&self, result: WebhookResult) {
        self.metrics
            .webhooks
            .get_or_create(&WebhookLabels { result })
            .inc();
    }

    async fn handle(&self, namespace: &str, name: &str, request: Request) -> Answer {
        if !self.ready.is_ready() {
            return STARTING;
        }
        let connection = reflect::get(&self.stores.connections, namespace, name);
        let login = self
            .handed
            .value(&names::login_key(&Key::new(namespace, name)));
        let is_known = authorized(request.headers(), login.as_deref());
        // An unknown connection looks like a wrong password from outside. The body is not read.
        let (Some(connection), true) = (connection, is_known) else {
            self.count(WebhookResult::Unauthorized);
            return (StatusCode::UNAUTHORIZED, "");
        };
        // Closed by nobody: the receiver itself would have to be gone.
        let Ok(_permit) = self.webhooks.acquire().await else {
            return STARTING;
        };
        let body = Bytes::from_request(request, &()).await;
        let events = match self.read(namespace, name, body) {
            Ok(events) => events,
            Err(answer) => return answer,
        };
        for event in events {
            match self.store(&connection, &event).await {
                Ok(result) => self.count(result),
                Err(error) => {
                    self.count(WebhookResult::Failed);
                    tracing::error!(
                        %namespace, connection = %name, ticket = event.ticket_id,
                        error = k8s::explain(&error),
                        "cannot store a webhook; answered 503, the sweep will find the ticket"
                    );
                    return NOT_STORED;
                }
            }
        }
        (StatusCode::OK, "stored\n")
    }

    /// The events in a body, or the answer when there are none.
    fn read(
        &self,
        namespace: &str,
        connection: &str,
        body: Result<Bytes, BytesRejection>,
    ) -> Result<Vec<webhook::Event>, Answer> {
        let body = match body {
            Ok(body) => body,
            Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                self.count(WebhookResult::Unreadable);
                return Err((
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "a webhook's body is at most 2 MiB\n",
                ));
            }
            Err(_) => return Err((StatusCode::BAD_REQUEST, "")),
        };
        webhook::parse(&body).map_err(|unreadable| {
            self.count(WebhookResult::Unreadable);
            tracing::warn!(
                %namespace, %connection, reason = %unreadable, bytes = body.len(),
                "cannot read a webhook; choose the full object as its payload in HaloPSA"
            );
            // HaloPSA disables a webhook that fails too often, so this is not an error.
            (StatusCode::OK, "not understood\n")
        })
    }

    /// Does what an event asks for. Idempotent.
    async fn store(
        &self,
        connection: &HaloPSAConnection,
        event: &webhook::Event,
    ) -> Result<WebhookResult, kube::Error> {
        let Key { namespace, name } = Key::of(connection);
        let existing: Vec<Arc<Ticket>> = self
            .index
            .of_halo_ticket(&namespace, &name, event.ticket_id)
            .iter()
            .filter_map(|ticket| reflect::get(&self.stores.tickets, &namespace, ticket))
            .collect();
        let status = connection.status.as_ref();
        let known = Known {
            api_agent: status.and_then(|s| s.api_agent.as_ref()).map(|a| a.id),
            client: event
                .client_id
                .and_then(|id| self.clients.find(&namespace, &name, id)),
            tickets: existing.iter().map(|t| &**t).collect(),
        };
        let api: Api<Ticket> = Api::namespaced(self.kube.clone(), &namespace);
        let mut result = WebhookResult::Nothing;
        for step in decide::decide(event, &known) {
            result = match step {
                Step::Create { client } => {
                    create(&api, connection, event, client).await?;
                    WebhookResult::Stored
                }
                Step::Update {
                    ticket,
                    halo_client_id,
                    closed,
                    reopen,
                } => {
                    let news = news(halo_client_id, closed, reopen);
                    patch(&api, &ticket, news).await?;
                    WebhookResult::Stored
                }
                Step::Poll { ticket } => {
                    let request = uuid::Uuid::new_v4().to_string();
                    patch(&api, &ticket, annotation(REQUESTED_AT_ANNOTATION, request)).await?;
                    WebhookResult::Stored
                }
                Step::NotImported { client_id } => {
                    self.announce(connection, client_id).await;
                    WebhookResult::NotImported
                }
            };
        }
        Ok(result)
    }

    /// Says in an Event that a client is not imported, but not for each of its tickets.
    async fn announce(&self, connection: &HaloPSAConnection, client_id: i64) {
        let key = Key::of(connection);
        let name = key.name.clone();
        {
            let mut announced = self.announced.lock();
            let key = (key, client_id);
            let last = announced.get(&key);
            if last.is_some_and(|at| at.elapsed() < EVENT_EVERY) {
                return;
            }
            if announced.len() >= MAX_ANNOUNCED {
                announced.clear();
            }
            announced.insert(key, Instant::now());
        }
        let note = format!(
            "ignored a ticket of HaloPSA client {client_id}, which is not imported; import the \
             client to handle its tickets (kubectl halopsa clients {name})"
        );
        let event = Event {
            type_: EventType::Normal,
            reason: Reason::ClientNotImported.as_str().into(),
            note: Some(note),
            action: "Receive".into(),
            secondary: None,
        };
        let published = self
            .recorder
            .publish(&event, &connection.object_ref(&()))
            .await;
        if let Err(error) = published {
            tracing::debug!(%error, "cannot write an Event");
        }
    }
}

/// Stores a new Ticket. Another delivery, or another replica, may have been faster.
async fn create(
    api: &Api<Ticket>,
    connection: &HaloPSAConnection,
    event: &webhook::Event,
    client: Option<ClientEntry>,
) -> Result<(), kube::Error> {
    let connection_name = Key::of(connection).name;
    let (name, client_ref) = match client {
        Some(client) => (
            route::ticket_name(&client.slug, event.ticket_id),
            Some(LocalRef { name: client.name }),
        ),
        None => (
            route::unrouted_name(&connection_name, event.ticket_id),
            None,
        ),
    };
    let subject = event
        .subject
        .as_deref()
        .filter(|_| !connection.spec.privacy.hide_subjects);
    let spec = TicketSpec {
        connection_ref: LocalRef {
            name: connection_name,
        },
        client_ref,
        ticket_id: event.ticket_id,
        halo_client_id: event.client_id,
        subject: subject.map(|s| text::one_line(s, MAX_SUBJECT)),
        closed: false,
        source: Source::Webhook,
    };
    let params = PostParams {
        field_manager: Some(names::RECEIVER.into()),
        ..PostParams::default()
    };
    let object = tickets::object(&name, connection, spec);
    match api.create(&params, &object).await {
        Err(error) if k8s::is_conflict(&error) => Ok(()),
        other => other.map(|_| ()),
    }
}

/// The patch that brings a Ticket up to date.
fn news(halo_client_id: Option<i64>, closed: Option<bool>, reopen: bool) -> Value {
    let mut patch = match reopen {
        true => annotation(
            REOPEN_ANNOTATION,
            format!("halopsa-{}", uuid::Uuid::new_v4()),
        ),
        false => json!({}),
    };
    let mut spec = serde_json::Map::new();
    spec.extend(halo_client_id.map(|id| ("haloClientId".to_string(), json!(id))));
    spec.extend(closed.map(|closed| ("closed".to_string(), json!(closed))));
    patch["spec"] = Value::Object(spec);
    patch
}

fn annotation(name: &str, value: String) -> Value {
    json!({"metadata": {"annotations": {name: value}}})
}

/// Patches a Ticket, unless it is gone meanwhile.
async fn patch(api: &Api<Ticket>, ticket: &str, patch: Value) -> Result<(), kube::Error> {
    let params = PatchParams {
        field_manager: Some(names::RECEIVER.into()),
        ..PatchParams::default()
    };
    match api.patch(ticket, &params, &Patch::Merge(patch)).await {
        Err(error) if k8s::is_not_found(&error) => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Basic authentication with this `USER:PASSWORD`, compared in constant time.
fn authorized(headers: &HeaderMap, login: Option<&[u8]>) -> bool {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
        .and_then(|(_, encoded)| {
            base64::engine::general_purpose::STANDARD
                .decode(encoded.trim())
                .ok()
        })
        .unwrap_or_default();
    // An empty login is a mistake, and admits nobody.
    let Some(login) = login.filter(|login| !login.is_empty()) else {
        return false;
    };
    given.ct_eq(login).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_user_name_and_password() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            authorized(&headers, Some(b"u:p:p"))
        };
        let basic = |s: &str| {
            format!(
                "Basic {}",
                base64::engine::general_purpose::STANDARD.encode(s)
            )
        };
        assert!(with(&basic("u:p:p")));
        assert!(with(&basic("u:p:p").replace("Basic", "basic")));
        for wrong in ["u:p", "u:p:pp", "", ":", "x:p:p"] {
            assert!(!with(&basic(wrong)), "{wrong}");
        }
        assert!(!with("Bearer x") && !with("Basic !!!"));
        assert!(!authorized(&HeaderMap::new(), Some(b"u:p:p")));
        assert!(!authorized(&HeaderMap::new(), None));
        assert!(
            !authorized(&HeaderMap::new(), Some(b"")),
            "an empty login admits nobody"
        );
    }
}
