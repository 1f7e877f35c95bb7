//! The public listener: HaloPSA's webhooks.
//!
//! A webhook is checked, routed by what the watches know, stored as a Ticket,
//! and only then answered. HaloPSA is never called from here.

pub mod callback;
pub mod decide;

use crate::api::ticket::{REOPEN_ANNOTATION, REQUESTED_AT_ANNOTATION, Source, Ticket, TicketSpec};
use crate::api::{HaloPSAConnection, LocalRef};
use crate::halopsa::webhook;
use crate::k8s::index::{ClientIndex, TicketIndex};
use crate::k8s::{self, names, reflect, tickets};
use crate::metrics::{METRICS, WebhookLabels, WebhookResult};
use crate::text;
use crate::ticket::route;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine;
use decide::{Known, Step};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::reflector::Store;
use kube::{Client, Resource, ResourceExt};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;

/// The longest body taken.
pub const MAX_BODY: usize = 2 * 1024 * 1024;
/// HaloPSA is answered within this time.
const TIMEOUT: Duration = Duration::from_secs(10);
/// One Event a client that is not imported in this time.
const EVENT_EVERY: Duration = Duration::from_secs(600);
const MAX_SAID: usize = 1000;
const MAX_SUBJECT: usize = 200;

/// What the receiver knows of the cluster.
pub struct Receiver {
    pub kube: Client,
    pub connections: Store<HaloPSAConnection>,
    pub secrets: Store<Secret>,
    pub tickets: Store<Ticket>,
    pub index: Arc<TicketIndex>,
    pub clients: Arc<ClientIndex>,
    pub ready: crate::server::Ready,
    recorder: Recorder,
    said: Mutex<HashMap<(String, String, i64), Instant>>,
}

impl Receiver {
    pub fn new(
        kube: Client,
        connections: Store<HaloPSAConnection>,
        secrets: Store<Secret>,
        tickets: Store<Ticket>,
        index: Arc<TicketIndex>,
        clients: Arc<ClientIndex>,
        ready: crate::server::Ready,
    ) -> Self {
        let reporter = Reporter {
            controller: names::RECEIVER.into(),
            instance: std::env::var("POD_NAME").ok(),
        };
        let recorder = Recorder::new(kube.clone(), reporter);
        Self {
            kube,
            connections,
            secrets,
            tickets,
            index,
            clients,
            ready,
            recorder,
            said: Mutex::default(),
        }
    }
}

pub fn router(receiver: Arc<Receiver>) -> Router {
    Router::new()
        .route("/webhooks/{namespace}/{connection}", post(receive))
        .route(
            "/verifications/{namespace}/{provider}",
            post(callback::take).layer(DefaultBodyLimit::max(16 * 1024)),
        )
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(receiver.clone())
        .merge(crate::server::health(receiver.ready.clone()))
}

async fn receive(
    State(receiver): State<Arc<Receiver>>,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let started = Instant::now();
    let answer = tokio::time::timeout(TIMEOUT, receiver.handle(&namespace, &name, &headers, body))
        .await
        .unwrap_or_else(|_| {
            count(WebhookResult::Failed);
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "not stored in time, send it again\n",
            )
        });
    METRICS
        .webhook_duration_seconds
        .observe(started.elapsed().as_secs_f64());
    answer.into_response()
}

fn count(result: WebhookResult) {
    METRICS
        .webhooks
        .get_or_create(&WebhookLabels { result })
        .inc();
}

type Answer = (StatusCode, &'static str);

impl Receiver {
    async fn handle(
        &self,
        namespace: &str,
        name: &str,
        headers: &HeaderMap,
        body: Result<Bytes, BytesRejection>,
    ) -> Answer {
        if !self.ready.is_ready() {
            return (StatusCode::SERVICE_UNAVAILABLE, "starting, send it again\n");
        }
        let connection = reflect::get(&self.connections, namespace, name);
        let secret = reflect::get(&self.secrets, namespace, &names::webhook_secret(name));
        // An unknown connection looks like a wrong password from outside.
        let (Some(connection), true) = (connection, authorized(headers, secret.as_deref())) else {
            count(WebhookResult::Unauthorized);
            return (StatusCode::UNAUTHORIZED, "");
        };
        let body = match body {
            Ok(body) => body,
            Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                count(WebhookResult::Unreadable);
                return (
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "a webhook's body is at most 2 MiB\n",
                );
            }
            Err(_) => return (StatusCode::BAD_REQUEST, ""),
        };
        let events = match webhook::parse(&body) {
            Ok(events) => events,
            Err(unreadable) => {
                // HaloPSA switches a webhook off that fails too often, so this is no failure.
                count(WebhookResult::Unreadable);
                tracing::warn!(%namespace, connection = %name, reason = %unreadable, bytes = body.len(), "a webhook is not understood; choose the full object as its payload in HaloPSA");
                return (StatusCode::OK, "not understood\n");
            }
        };
        for event in events {
            match self.take(&connection, &event).await {
                Ok(result) => count(result),
                Err(error) => {
                    count(WebhookResult::Failed);
                    tracing::error!(%namespace, connection = %name, ticket = event.ticket_id, error = k8s::explain(&error), "a webhook could not be stored; HaloPSA was answered 503, the sweep will find the ticket");
                    return (
                        StatusCode::SERVICE_UNAVAILABLE,
                        "not stored, send it again\n",
                    );
                }
            }
        }
        (StatusCode::OK, "stored\n")
    }

    /// Does what an event asks for. Doing it twice is doing it once.
    async fn take(
        &self,
        connection: &HaloPSAConnection,
        event: &webhook::Event,
    ) -> Result<WebhookResult, kube::Error> {
        let (namespace, name) = (
            connection.namespace().unwrap_or_default(),
            connection.name_any(),
        );
        let existing: Vec<Arc<Ticket>> = self
            .index
            .of_halo_ticket(&namespace, &name, event.ticket_id)
            .iter()
            .filter_map(|ticket| reflect::get(&self.tickets, &namespace, ticket))
            .collect();
        let known = Known {
            api_agent: connection
                .status
                .as_ref()
                .and_then(|s| s.api_agent.as_ref())
                .map(|a| a.id),
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
                    let (ticket_name, client_ref) = match client {
                        Some(client) => (
                            route::ticket_name(&client.slug, event.ticket_id),
                            Some(LocalRef { name: client.name }),
                        ),
                        None => (route::unrouted_name(&name, event.ticket_id), None),
                    };
                    let subject = event
                        .subject
                        .as_deref()
                        .filter(|_| !connection.spec.privacy.hide_subjects);
                    let spec = TicketSpec {
                        connection_ref: LocalRef { name: name.clone() },
                        client_ref,
                        ticket_id: event.ticket_id,
                        halo_client_id: event.client_id,
                        subject: subject.map(|s| text::one_line(s, MAX_SUBJECT)),
                        closed: false,
                        source: Source::Webhook,
                    };
                    let object = tickets::object(&ticket_name, connection, spec);
                    let params = PostParams {
                        field_manager: Some(names::RECEIVER.into()),
                        ..PostParams::default()
                    };
                    match api.create(&params, &object).await {
                        // Another delivery, or another replica, was faster.
                        Err(error) if k8s::is_conflict(&error) => {}
                        other => {
                            other?;
                        }
                    }
                    WebhookResult::Stored
                }
                Step::Update {
                    ticket,
                    halo_client_id,
                    closed,
                    reopen,
                } => {
                    let mut spec = serde_json::Map::new();
                    spec.extend(halo_client_id.map(|id| ("haloClientId".to_string(), json!(id))));
                    spec.extend(closed.map(|closed| ("closed".to_string(), json!(closed))));
                    let mut patch = json!({"spec": spec});
                    if reopen {
                        let request = format!("halopsa-{}", uuid::Uuid::new_v4());
                        patch["metadata"] = json!({"annotations": {REOPEN_ANNOTATION: request}});
                    }
                    let params = PatchParams {
                        field_manager: Some(names::RECEIVER.into()),
                        ..PatchParams::default()
                    };
                    match api.patch(&ticket, &params, &Patch::Merge(patch)).await {
                        Err(error) if k8s::is_not_found(&error) => {}
                        other => {
                            other?;
                        }
                    }
                    WebhookResult::Stored
                }
                Step::Look { ticket } => {
                    let patch = json!({"metadata": {"annotations": {REQUESTED_AT_ANNOTATION: uuid::Uuid::new_v4().to_string()}}});
                    let params = PatchParams {
                        field_manager: Some(names::RECEIVER.into()),
                        ..PatchParams::default()
                    };
                    match api.patch(&ticket, &params, &Patch::Merge(patch)).await {
                        Err(error) if k8s::is_not_found(&error) => {}
                        other => {
                            other?;
                        }
                    }
                    WebhookResult::Stored
                }
                Step::NotImported { client_id } => {
                    self.say_not_imported(connection, client_id).await;
                    WebhookResult::NotImported
                }
            };
        }
        Ok(result)
    }

    /// An Event, but not for each of a client's tickets.
    async fn say_not_imported(&self, connection: &HaloPSAConnection, client_id: i64) {
        let key = (
            connection.namespace().unwrap_or_default(),
            connection.name_any(),
            client_id,
        );
        {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            if said.get(&key).is_some_and(|at| at.elapsed() < EVENT_EVERY) {
                return;
            }
            if said.len() >= MAX_SAID {
                said.clear();
            }
            said.insert(key, Instant::now());
        }
        let note = format!(
            "a ticket of HaloPSA client {client_id} came and is not handled; import the client to handle it (kubectl halopsa clients {})",
            connection.name_any()
        );
        let event = Event {
            type_: EventType::Normal,
            reason: "ClientNotImported".into(),
            note: Some(note),
            action: "Receive".into(),
            secondary: None,
        };
        if let Err(error) = self
            .recorder
            .publish(&event, &connection.object_ref(&()))
            .await
        {
            tracing::debug!(%error, "an Event was not written");
        }
    }
}

/// Basic authentication, compared in constant time.
fn authorized(headers: &HeaderMap, secret: Option<&Secret>) -> bool {
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
    let value = |key: &str| {
        secret
            .and_then(|s| s.data.as_ref()?.get(key))
            .map(|b| b.0.as_slice())
            .filter(|b| !b.is_empty())
    };
    let (Some(username), Some(password)) = (value("username"), value("password")) else {
        return false;
    };
    let mut wanted = username.to_vec();
    wanted.push(b':');
    wanted.extend_from_slice(password);
    given.ct_eq(&wanted).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    #[test]
    fn only_the_right_user_name_and_password() {
        let secret = Secret {
            data: Some(
                [
                    ("username".to_string(), ByteString(b"u".to_vec())),
                    ("password".to_string(), ByteString(b"p:p".to_vec())),
                ]
                .into(),
            ),
            ..Secret::default()
        };
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            authorized(&headers, Some(&secret))
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
        assert!(!authorized(&HeaderMap::new(), Some(&secret)));
        assert!(!authorized(&HeaderMap::new(), None));
        assert!(
            !authorized(&HeaderMap::new(), Some(&Secret::default())),
            "an empty Secret admits nobody"
        );
    }
}
