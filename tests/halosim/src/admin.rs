//! What a person would do in HaloPSA's pages, and faults on demand. Plain HTTP:
//! keep it on loopback.

use crate::Shared;
use crate::api::whole;
use crate::auth::Limit;
use crate::store::{Author, Change, No, Object, Settings, number, object, text};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The application of HaloPSA's own web pages, for what people do there.
pub const WEB_APPLICATION: &str = "nethelpdesk-agent-web-application";

pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route(
            "/ca",
            get(|State(s): State<Arc<Shared>>| async move { s.ca_pem.clone() }),
        )
        .route("/trust", post(trust))
        .route(
            "/faults",
            get(|State(s): State<Arc<Shared>>| async move { Json(s.engine().faults.clone()) })
                .post(faults),
        )
        .route(
            "/settings",
            get(|State(s): State<Arc<Shared>>| async move { Json(s.store().settings.clone()) })
                .post(settings),
        )
        .route(
            "/rate-limit",
            get(|State(s): State<Arc<Shared>>| async move { Json(s.auth.limit()) })
                .post(rate_limit),
        )
        .route("/tokens", post(tokens))
        .route("/counts", get(counts))
        .route(
            "/ignored",
            get(|State(s): State<Arc<Shared>>| async move { Json(s.ignored()) }),
        )
        .route("/outbox", get(outbox))
        .route("/applications", get(applications).post(application))
        .route("/tickets", post(ticket))
        .route("/batch", get(batch_ids).post(batch))
        .route("/actions", post(action))
        .route("/tickets/{id}/actions", get(actions))
        .route("/notes", get(notes))
        .route("/records/{kind}/{id}", get(record).post(change))
        .route(
            "/webhooks",
            get(webhooks).post(webhook).delete(delete_webhooks),
        )
        .route("/deliveries", get(deliveries))
        .route(
            "/mails",
            get(|State(s): State<Arc<Shared>>| async move { Json(s.verifier.mails()) }),
        )
        .route("/mails/{token}/{answer}", post(mail_answer))
        .route("/verifier-faults", post(verifier_faults))
        .with_state(shared)
}

type App = State<Arc<Shared>>;

async fn trust(State(shared): App, pem: String) -> Response {
    if !pem.contains("BEGIN CERTIFICATE") {
        return (StatusCode::BAD_REQUEST, "not a PEM certificate\n").into_response();
    }
    shared.trust(pem);
    StatusCode::NO_CONTENT.into_response()
}

async fn faults(State(shared): App, Json(faults): Json<crate::Faults>) -> Response {
    shared.set_faults(faults);
    StatusCode::NO_CONTENT.into_response()
}

async fn settings(State(shared): App, Json(settings): Json<Settings>) -> Response {
    shared.store().settings = settings;
    StatusCode::NO_CONTENT.into_response()
}

async fn rate_limit(State(shared): App, Json(limit): Json<Limit>) -> Response {
    if limit.requests == 0 || limit.window_seconds == 0 {
        return (
            StatusCode::BAD_REQUEST,
            "requests and window_seconds must be above 0\n",
        )
            .into_response();
    }
    shared.auth.set_limit(limit);
    StatusCode::NO_CONTENT.into_response()
}

/// `{"life_seconds": 60}` for tokens from now on; `{"forget": true}` revokes all tokens.
async fn tokens(State(shared): App, Json(body): Json<Value>) -> Response {
    if let Some(seconds) = whole(&body, "life_seconds").filter(|s| *s > 0) {
        shared
            .auth
            .set_life(Duration::from_secs(seconds.unsigned_abs()));
    }
    if body.get("forget").and_then(Value::as_bool) == Some(true) {
        shared.auth.forget_tokens();
    }
    StatusCode::NO_CONTENT.into_response()
}

async fn counts(State(shared): App) -> Json<Value> {
    let counts = shared.auth.counts();
    let store = shared.store();
    Json(json!({"auth": counts, "faults": shared.engine().hits,
        "tickets": store.rows("tickets").count(), "users": store.rows("users").count(), "clients": store.rows("client").count()}))
}

/// E-mails HaloPSA sent to requesters, newest first.
async fn outbox(State(shared): App) -> Json<Value> {
    Json(
        shared
            .store()
            .outbox
            .iter()
            .cloned()
            .map(Value::Object)
            .collect(),
    )
}

async fn applications(State(shared): App) -> Json<Value> {
    let all: Vec<Value> = shared
        .auth
        .applications()
        .into_iter()
        .map(|a| json!({"name": a.name, "client_id": a.client_id, "client_secret": a.client_secret, "scopes": a.scopes, "agent_id": a.agent_id, "enabled": a.enabled}))
        .collect();
    Json(all.into())
}

/// Changes an application's secret, scopes or `enabled`. Permissions are baked into
/// tokens, so the old ones are revoked.
async fn application(State(shared): App, Json(body): Json<Value>) -> Response {
    let client_id = body
        .get("client_id")
        .and_then(Value::as_str)
        .unwrap_or(crate::seed::CLIENT_ID);
    let changed = shared.change_application(client_id, |application| {
        if let Some(secret) = body.get("client_secret").and_then(Value::as_str) {
            application.client_secret = secret.into();
        }
        if let Some(scopes) = body.get("scopes").and_then(Value::as_array) {
            application.scopes = scopes
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_string)
                .collect();
        }
        if let Some(enabled) = body.get("enabled").and_then(Value::as_bool) {
            application.enabled = enabled;
        }
    });
    shared.auth.forget_tokens();
    if changed {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::NOT_FOUND
    }
    .into_response()
}

/// The author of a request: `"user_id"` an end user, else the agent `"agent_id"` in the web pages.
fn author(body: &Value) -> Author {
    match (whole(body, "user_id"), whole(body, "as_agent")) {
        (_, Some(id)) => Author::Agent {
            id,
            application: WEB_APPLICATION.into(),
        },
        (Some(id), None) => Author::User { id },
        _ => Author::Agent {
            id: 3,
            application: WEB_APPLICATION.into(),
        },
    }
}

fn done(shared: &Shared, outcome: Result<(Object, Vec<Change>), No>) -> Response {
    match outcome {
        Ok((object, changes)) => {
            shared.publish(changes);
            (StatusCode::CREATED, Json(Value::Object(object))).into_response()
        }
        Err(No::NotFound) => StatusCode::NOT_FOUND.into_response(),
        Err(No::BadRequest(message)) => (StatusCode::BAD_REQUEST, message).into_response(),
    }
}

/// Many tickets, created in the background at an interval:
/// `{"interval_ms": 200, "tickets": [...]}`.
async fn batch(State(shared): App, Json(body): Json<Value>) -> Response {
    let Some(tickets) = body.get("tickets").and_then(Value::as_array).cloned() else {
        return (StatusCode::BAD_REQUEST, "tickets is missing\n").into_response();
    };
    let interval = Duration::from_millis(
        whole(&body, "interval_ms")
            .unwrap_or_default()
            .max(0)
            .unsigned_abs(),
    );
    shared.batch().clear();
    tokio::spawn(async move {
        for body in tickets {
            match open(&shared, body) {
                Ok(ticket) => shared.batch().extend(number(&ticket, "id")),
                Err((_, why)) => tracing::warn!("a ticket of the batch was refused: {why}"),
            }
            tokio::time::sleep(interval).await;
        }
    });
    StatusCode::ACCEPTED.into_response()
}

/// The ids of the last batch, as far as it has got.
async fn batch_ids(State(shared): App) -> Json<Value> {
    Json(shared.batch().clone().into())
}

/// A new or changed ticket. Names work in place of ids: `client`, `user`.
async fn ticket(State(shared): App, Json(body): Json<Value>) -> Response {
    match open(&shared, body) {
        Ok(ticket) => (StatusCode::CREATED, Json(Value::Object(ticket))).into_response(),
        Err(refused) => refused.into_response(),
    }
}

fn open(shared: &Shared, mut body: Value) -> Result<Object, (StatusCode, String)> {
    for (name, kind, id) in [
        ("client", "client", "client_id"),
        ("user", "users", "user_id"),
    ] {
        let Some(wanted) = body.get(name).and_then(Value::as_str).map(str::to_string) else {
            continue;
        };
        let found = {
            let store = shared.store();
            store.named(kind, &wanted)
        };
        match found {
            Some(found) => body[id] = found.into(),
            None => return Err((StatusCode::NOT_FOUND, format!("no {name} named {wanted}\n"))),
        }
    }
    let author = author(&body);
    let mut input = object(body);
    for key in ["client", "user", "as_agent"] {
        input.remove(key);
    }
    if let Some(id) = number(&input, "id") {
        // The pages always send type and client.
        let current = shared
            .store()
            .get("tickets", id)
            .map(|t| t.into_owned())
            .unwrap_or_default();
        for key in ["tickettype_id", "client_id"] {
            if let Some(value) = current.get(key) {
                input.entry(key).or_insert(value.clone());
            }
        }
    }
    let outcome = shared.store().write_ticket(&input, &author);
    match outcome {
        Ok((ticket, changes)) => {
            shared.publish(changes);
            Ok(ticket)
        }
        Err(No::NotFound) => Err((StatusCode::NOT_FOUND, String::new())),
        Err(No::BadRequest(message)) => Err((StatusCode::BAD_REQUEST, message.into())),
    }
}

async fn action(State(shared): App, Json(body): Json<Value>) -> Response {
    let author = author(&body);
    let mut input = object(body);
    input.remove("as_agent");
    input.entry("outcome").or_insert("Private Note".into());
    let outcome = shared.store().write_action(&input, &author, Instant::now());
    done(&shared, outcome)
}

async fn actions(State(shared): App, Path(id): Path<i64>) -> Json<Value> {
    let all: Vec<Value> = shared
        .store()
        .actions(id)
        .into_iter()
        .map(|a| Value::Object(a.clone()))
        .collect();
    Json(all.into())
}

/// How many actions the integration wrote on each ticket that has any actions.
async fn notes(State(shared): App) -> Json<Value> {
    let application = crate::seed::applications()
        .into_iter()
        .next()
        .map(|a| a.name)
        .unwrap_or_default();
    let store = shared.store();
    let counts: Vec<Value> = store
        .worked_on()
        .filter_map(|id| {
            let actions = store.actions(id);
            let ours = actions
                .iter()
                .filter(|a| text(a, "actionby_application_id") == application)
                .count();
            (!actions.is_empty()).then(|| json!({"ticket_id": id, "notes": ours}))
        })
        .collect();
    Json(counts.into())
}

/// The requester follows the link of an e-mail: `verified` or `denied`.
async fn mail_answer(
    State(shared): App,
    Path((token, answer)): Path<(String, String)>,
) -> StatusCode {
    if crate::verifier::respond(&shared, &token, &answer).await {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::GONE
    }
}

async fn verifier_faults(
    State(shared): App,
    Json(faults): Json<crate::verifier::Faults>,
) -> StatusCode {
    *shared.verifier.faults() = faults;
    StatusCode::NO_CONTENT
}

async fn record(State(shared): App, Path((kind, id)): Path<(String, i64)>) -> Response {
    let found = shared.store().get(&kind, id).map(|o| o.into_owned());
    found.map_or_else(
        || StatusCode::NOT_FOUND.into_response(),
        |o| Json(Value::Object(o)).into_response(),
    )
}

/// Sets fields of a record directly, without events.
async fn change(
    State(shared): App,
    Path((kind, id)): Path<(String, i64)>,
    Json(body): Json<Value>,
) -> Response {
    let found = match shared.store().get_mut(&kind, id) {
        Some(row) => {
            row.extend(object(body));
            true
        }
        None => false,
    };
    shared.commit();
    if found {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::NOT_FOUND
    }
    .into_response()
}

async fn webhooks(State(shared): App) -> Json<Value> {
    let store = shared.store();
    let all: Vec<Value> = store
        .webhooks
        .keys()
        .filter_map(|id| store.read_webhook(id))
        .map(Value::Object)
        .collect();
    Json(all.into())
}

/// Changes every webhook: drift for the operator to detect.
async fn webhook(State(shared): App, Json(body): Json<Value>) -> Response {
    let body = object(body);
    {
        let mut store = shared.store();
        for mut webhook in store.webhooks.values().cloned().collect::<Vec<_>>() {
            webhook.extend(body.clone());
            store.put_webhook(webhook);
        }
    }
    shared.commit();
    StatusCode::NO_CONTENT.into_response()
}

async fn delete_webhooks(State(shared): App) -> Response {
    let mut store = shared.store();
    let ids: Vec<String> = store.webhooks.keys().cloned().collect();
    for id in ids {
        let _ = store.delete_webhook(&id);
    }
    drop(store);
    shared.commit();
    StatusCode::NO_CONTENT.into_response()
}

async fn deliveries(
    State(shared): App,
    Query(query): Query<HashMap<String, String>>,
) -> Json<Value> {
    let count = query
        .get("count")
        .and_then(|c| c.parse().ok())
        .unwrap_or(20);
    let all: Vec<Value> = shared
        .store()
        .deliveries
        .iter()
        .take(count)
        .map(|d| Value::Object(d.clone()))
        .collect();
    Json(all.into())
}
