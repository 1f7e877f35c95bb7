//! The REST API. Paths are case-insensitive, so one handler takes them all.

use crate::Shared;
use crate::auth::{Caller, Refusal};
use crate::query::{self, Query};
use crate::store::{Author, KINDS, No, Object, integer, number, text};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(handle).layer(DefaultBodyLimit::max(16 << 20)).with_state(shared)
}

async fn handle(State(shared): State<Arc<Shared>>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let faults = shared.faults().clone();
    if faults.latency_ms > 0 {
        tokio::time::sleep(Duration::from_millis(faults.latency_ms)).await;
    }
    if faults.down {
        return html(StatusCode::SERVICE_UNAVAILABLE, "503 Service Unavailable");
    }
    if faults.fail_next > 0 {
        shared.faults().fail_next -= 1;
        return html(StatusCode::INTERNAL_SERVER_ERROR, "500 Internal Server Error");
    }
    let path = uri.path().trim_end_matches('/').to_ascii_lowercase();
    let query = Query::parse(uri.query());
    let response = match path.as_str() {
        "" => html(StatusCode::OK, "halosim"),
        "/auth/token" => token(&shared, &method, &headers, &body),
        "/auth/.well-known/openid-configuration" => discovery(&headers),
        "/api/authinfo" => {
            let host = host(&headers);
            ok(json!({"auth_url": format!("https://{host}/auth"), "tenant_id": ""}))
        }
        path => match path.strip_prefix("/api/") {
            Some(rest) => {
                let segments: Vec<&str> = rest.split('/').collect();
                resource(&shared, &method, &segments, &query, &headers, &body)
            }
            None => StatusCode::NOT_FOUND.into_response(),
        },
    };
    tracing::debug!(%method, path, status = response.status().as_u16(), "answered");
    if method != Method::GET && response.status().is_success() && path.starts_with("/api/") && faults.lose_replies > 0 {
        shared.faults().lose_replies -= 1;
        return html(StatusCode::GATEWAY_TIMEOUT, "504 Gateway Time-out");
    }
    response
}

fn host(headers: &HeaderMap) -> String {
    headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("localhost").to_string()
}

fn discovery(headers: &HeaderMap) -> Response {
    let base = format!("https://{}/auth", host(headers));
    ok(json!({"issuer": base, "token_endpoint": format!("{base}/token"), "grant_types_supported": ["client_credentials"]}))
}

fn token(shared: &Shared, method: &Method, headers: &HeaderMap, body: &[u8]) -> Response {
    if *method != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let form = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !form.starts_with("application/x-www-form-urlencoded") {
        return (StatusCode::BAD_REQUEST, axum::Json(json!({"error": "invalid_request"}))).into_response();
    }
    let form = Query::parse(std::str::from_utf8(body).ok());
    let field = |name| form.get(name).unwrap_or_default();
    match shared.auth.issue(field("grant_type"), field("client_id"), field("client_secret"), form.get("scope")) {
        Ok((token, scope, life)) => {
            let mut reply = json!({"access_token": token, "token_type": "Bearer", "expires_in": life, "id_token": null, "refresh_token": null});
            if let Some(scope) = scope {
                reply["scope"] = scope.into();
            }
            ok(reply)
        }
        Err(Refusal::InvalidClient) => (StatusCode::UNAUTHORIZED, axum::Json(json!({"error": "invalid_client"}))).into_response(),
        Err(Refusal::InvalidScope) => (StatusCode::BAD_REQUEST, axum::Json(json!({"error": "invalid_scope"}))).into_response(),
        Err(Refusal::UnsupportedGrant) => (StatusCode::BAD_REQUEST, axum::Json(json!({"error": "unsupported_grant_type"}))).into_response(),
    }
}

fn resource(shared: &Shared, method: &Method, segments: &[&str], query: &Query, headers: &HeaderMap, body: &[u8]) -> Response {
    if !shared.auth.admit() {
        let message = format!("Rate Limit Reached - {} Requests per rolling 5 minute window", shared.auth.limit());
        return (StatusCode::TOO_MANY_REQUESTS, message).into_response();
    }
    let authorization = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let Some(caller) = shared.auth.caller(authorization) else {
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], "").into_response();
    };
    if !permitted(&caller, method, segments[0]) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let objects = match *method {
        Method::POST => match objects(headers, body) {
            Ok(objects) => objects,
            Err(response) => return *response,
        },
        _ => Vec::new(),
    };
    let author = Author::Agent { id: caller.agent_id, application: caller.application.clone() };
    match (method.as_str(), segments) {
        ("GET", ["agent", "me"]) => shown(shared, "agent", caller.agent_id),
        ("GET", ["actions"]) => actions(shared, query),
        ("GET", ["actions", id]) => action(shared, id, query),
        ("POST", ["actions"]) => {
            let visible_at = Instant::now() + Duration::from_millis(shared.faults().read_lag_ms);
            write(shared, &objects, query, |store, input| store.write_action(input, &author, visible_at))
        }
        ("DELETE", ["actions", id]) => match (query.number("ticket_id"), id.parse()) {
            (Some(ticket), Ok(id)) => reply(shared.store().delete_action(ticket, id)),
            _ => StatusCode::BAD_REQUEST.into_response(),
        },
        ("GET", ["tickets"]) => tickets(shared, query, &caller),
        ("POST", ["tickets"]) => write(shared, &objects, query, |store, input| store.write_ticket(input, &author)),
        ("DELETE", ["tickets", id]) => {
            let outcome = shared.store().delete_ticket(id.parse().unwrap_or_default());
            outcome
                .map(|(ticket, changes)| {
                    shared.publish(changes);
                    ok(ticket.into())
                })
                .unwrap_or_else(|no| refused(&no))
        }
        ("GET", ["webhook"]) => {
            let store = shared.store();
            let all: Vec<Value> = store.webhooks.keys().filter_map(|id| store.read_webhook(id)).map(Value::Object).collect();
            ok(all.into())
        }
        ("GET", ["webhook", id]) => shared.store().read_webhook(id).map_or_else(|| StatusCode::NOT_FOUND.into_response(), |w| ok(w.into())),
        ("POST", ["webhook"]) => write(shared, &objects, query, |store, input| store.write_webhook(input).map(|w| (w, Vec::new()))),
        ("DELETE", ["webhook", id]) => reply(shared.store().delete_webhook(id)),
        ("GET", ["webhookevent"]) => deliveries(shared, query),
        ("GET", ["notification"]) => {
            let store = shared.store();
            let webhook = query.get("webhook_id");
            let rows = store.kind("notification").into_iter().flat_map(|rows| rows.values());
            let rows: Vec<Value> =
                rows.filter(|n| webhook.is_none_or(|w| text(n, "webhook_id").eq_ignore_ascii_case(w))).map(|n| Value::Object(n.clone())).collect();
            ok(rows.into())
        }
        ("POST", ["notification"]) => write(shared, &objects, query, |store, input| store.write_notification(input).map(|n| (n, Vec::new()))),
        ("GET", ["instanceinfo"]) => ok(json!({"app_version": "2.214.1", "app_name": "HaloPSA", "using_event_service": true})),
        ("GET", [kind]) if KINDS.contains(kind) => {
            let store = shared.store();
            ok(query::list(kind, store.kind(kind).into_iter().flat_map(|rows| rows.values()), query))
        }
        ("GET", [kind, id]) if KINDS.contains(kind) => shown(shared, kind, id.parse().unwrap_or_default()),
        ("POST", [kind]) => match KINDS.iter().find(|k| *k == kind) {
            Some(kind) => write(shared, &objects, query, |store, input| {
                let id = number(input, "id").filter(|id| *id > 0);
                let mut object = match id {
                    Some(id) => store.get(kind, id).cloned().ok_or(No::NotFound)?,
                    None => Object::new(),
                };
                object.extend(input.clone());
                let id = store.put(kind, object);
                Ok((store.get(kind, id).cloned().unwrap_or_default(), Vec::new()))
            }),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        ("DELETE", [kind, id]) if KINDS.contains(kind) => reply(shared.store().remove(kind, id.parse().unwrap_or_default()).ok_or(No::NotFound)),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// What the scopes allow. The agent's own permissions are not modelled.
fn permitted(caller: &Caller, method: &Method, kind: &str) -> bool {
    match kind {
        "webhook" | "notification" | "webhookevent" => caller.has(&["admin", "admin:webhooks"]),
        "agent" | "instanceinfo" => !caller.scopes.is_empty(),
        "client" | "site" | "users" if *method == Method::GET => caller.has(&["all", "all:standard", "read:customers", "edit:customers"]),
        "tickets" | "actions" if *method == Method::GET => caller.has(&["all", "all:standard", "read:tickets", "edit:tickets"]),
        "tickets" | "actions" => caller.has(&["all", "all:standard", "edit:tickets"]),
        _ => caller.has(&["all", "all:standard"]),
    }
}

/// A POST takes an array of objects, as JSON.
fn objects(headers: &HeaderMap, body: &[u8]) -> Result<Vec<Object>, Box<Response>> {
    let json_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains("json"));
    if !json_type {
        return Err(Box::new(StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response()));
    }
    match serde_json::from_slice(body) {
        Ok(Value::Array(items)) => Ok(items.into_iter().filter_map(|v| if let Value::Object(o) = v { Some(o) } else { None }).collect()),
        _ => Err(Box::new(exception(StatusCode::BAD_REQUEST, "This endpoint requires a JSON array"))),
    }
}

/// Writes each object. One gives the bare object; of several actions the last,
/// unless `returnall=true`.
fn write(
    shared: &Shared,
    objects: &[Object],
    query: &Query,
    mut one: impl FnMut(&mut crate::store::Store, &Object) -> Result<(Object, Vec<crate::store::Change>), No>,
) -> Response {
    let mut written = Vec::new();
    let mut all_changes = Vec::new();
    for input in objects {
        let outcome = one(&mut shared.store(), input);
        match outcome {
            Ok((object, changes)) => {
                written.push(Value::Object(object));
                all_changes.extend(changes);
            }
            Err(no) => {
                shared.publish(all_changes);
                return refused(&no);
            }
        }
    }
    shared.publish(all_changes);
    let single = written.len() == 1;
    let body = match written.pop() {
        None => return exception(StatusCode::BAD_REQUEST, "The array is empty"),
        Some(last) if single => last,
        Some(last) => {
            written.push(last);
            if query.flag("returnall") || !written.iter().all(|w| w.get("outcome").is_some()) {
                written.into()
            } else {
                written.pop().unwrap_or_default()
            }
        }
    };
    (StatusCode::CREATED, axum::Json(body)).into_response()
}

fn tickets(shared: &Shared, query: &Query, caller: &Caller) -> Response {
    let store = shared.store();
    let everyones = caller.has(&["all", "all:teams"]);
    let rows = store.kind("tickets").into_iter().flat_map(|rows| rows.values());
    // Without all:teams only the tickets of the agent's own teams are seen; the API agent is in none.
    if everyones {
        ok(query::list("tickets", rows, query))
    } else {
        ok(query::list("tickets", rows.filter(|t| number(t, "agent_id") == Some(caller.agent_id)), query))
    }
}

fn actions(shared: &Shared, query: &Query) -> Response {
    let Some(ticket) = query.number("ticket_id") else { return StatusCode::BAD_REQUEST.into_response() };
    let store = shared.store();
    let rows = store.actions(ticket);
    let mut rows: Vec<&Object> = rows
        .into_iter()
        .filter(|a| !(query.flag("excludeprivate") && a.get("hiddenfromuser").and_then(Value::as_bool).unwrap_or_default()))
        .filter(|a| !query.flag("agentonly") || number(a, "who_type") == Some(1))
        .collect();
    let total = rows.len();
    rows.reverse();
    rows.truncate(query.number("count").unwrap_or(5000).max(0) as usize);
    let rows: Vec<Value> = rows
        .into_iter()
        .map(|row| {
            let mut row = query::shown("actions", row);
            if !query.flag("includehtmlnote") {
                row.remove("note_html");
            }
            Value::Object(row)
        })
        .collect();
    ok(json!({"ticket_id": ticket, "record_count": total, "actions": rows}))
}

fn action(shared: &Shared, id: &str, query: &Query) -> Response {
    let (Some(ticket), Ok(id)) = (query.number("ticket_id"), id.parse::<i64>()) else { return StatusCode::BAD_REQUEST.into_response() };
    let store = shared.store();
    let found = store.actions(ticket).into_iter().find(|a| number(a, "id") == Some(id)).cloned();
    found.map_or_else(|| StatusCode::NOT_FOUND.into_response(), |a| ok(a.into()))
}

fn deliveries(shared: &Shared, query: &Query) -> Response {
    let store = shared.store();
    let count = query.number("count").or_else(|| query.number("page_size")).unwrap_or(50).max(0) as usize;
    let webhook = query.get("webhook_id");
    let rows = store.deliveries.iter().filter(|d| webhook.is_none_or(|w| text(d, "webhook_id").eq_ignore_ascii_case(w)));
    let rows: Vec<Value> = rows.take(count).map(|d| Value::Object(d.clone())).collect();
    ok(rows.into())
}

fn shown(shared: &Shared, kind: &str, id: i64) -> Response {
    match shared.store().get(kind, id) {
        Some(row) => ok(Value::Object(query::shown(kind, row))),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn reply(outcome: Result<Object, No>) -> Response {
    outcome.map_or_else(|no| refused(&no), |object| ok(object.into()))
}

fn ok(body: Value) -> Response {
    (StatusCode::OK, axum::Json(body)).into_response()
}

fn refused(no: &No) -> Response {
    match no {
        No::NotFound => StatusCode::NOT_FOUND.into_response(),
        No::BadRequest("") => StatusCode::BAD_REQUEST.into_response(),
        No::BadRequest(message) => exception(StatusCode::BAD_REQUEST, message),
    }
}

fn exception(status: StatusCode, message: &str) -> Response {
    let body = json!({"ClassName": "System.Exception", "Message": message, "Data": null, "InnerException": null, "StackTraceString": null, "HResult": -2146233088i64});
    (status, axum::Json(body)).into_response()
}

fn html(status: StatusCode, title: &str) -> Response {
    (status, axum::response::Html(format!("<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"))).into_response()
}

/// A whole number from JSON, for the admin API.
pub fn whole(value: &Value, key: &str) -> Option<i64> {
    value.get(key).and_then(integer)
}

#[cfg(test)]
mod tests {
    use crate::{Options, Sim, seed};
    use serde_json::{Value, json};

    struct Wire {
        sim: Sim,
        http: reqwest::Client,
        token: String,
    }

    impl Wire {
        async fn new(scope: &str) -> Self {
            let sim = Sim::start(Options { rate_limit: 40, ..Options::default() }).await.unwrap();
            let ca = reqwest::Certificate::from_pem(sim.shared.ca_pem.as_bytes()).unwrap();
            let http = reqwest::Client::builder().tls_certs_only([ca]).no_proxy().build().unwrap();
            let mut wire = Self { sim, http, token: String::new() };
            let (status, reply) = wire.sign_in(seed::CLIENT_SECRET, Some(scope)).await;
            assert_eq!(status, 200, "{reply}");
            wire.token = reply["access_token"].as_str().unwrap().to_string();
            wire
        }

        async fn sign_in(&self, secret: &str, scope: Option<&str>) -> (u16, Value) {
            let mut form = vec![("grant_type", "client_credentials"), ("client_id", seed::CLIENT_ID), ("client_secret", secret)];
            form.extend(scope.map(|s| ("scope", s)));
            let answer = self.http.post(format!("{}/auth/token", self.sim.url)).form(&form).send().await.unwrap();
            (answer.status().as_u16(), answer.json().await.unwrap())
        }

        async fn get(&self, path: &str) -> (u16, Value) {
            let answer = self.http.get(format!("{}{path}", self.sim.url)).bearer_auth(&self.token).send().await.unwrap();
            (answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
        }

        async fn post(&self, path: &str, body: Value) -> (u16, Value) {
            let answer = self.http.post(format!("{}{path}", self.sim.url)).bearer_auth(&self.token).json(&body).send().await.unwrap();
            (answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
        }
    }

    const ALL: &str = "all:standard all:teams admin:webhooks";

    #[tokio::test]
    async fn sign_in_as_halopsa_does_it() {
        let wire = Wire::new(ALL).await;
        assert_eq!(wire.sign_in("wrong", Some(ALL)).await, (401, json!({"error": "invalid_client"})));
        assert_eq!(wire.sign_in(seed::CLIENT_SECRET, Some("read:actions")).await, (400, json!({"error": "invalid_scope"})));
        let (_, reply) = wire.sign_in(seed::CLIENT_SECRET, Some("all all:teams")).await;
        assert_eq!(reply["scope"], "all:teams", "what the application does not have is not granted");
        let (status, reply) = wire.sign_in(seed::CLIENT_SECRET, None).await;
        assert!(status == 200 && reply.get("scope").is_none());
        let limited = Wire::new("all:standard").await;
        assert_eq!(limited.get("/api/Webhook").await.0, 403);
        assert_eq!(limited.get("/api/Tickets").await.1["record_count"], 0, "without all:teams one sees one's own");
    }

    #[tokio::test]
    async fn posts_are_arrays_and_paths_have_no_case() {
        let wire = Wire::new(ALL).await;
        let (status, reply) = wire.post("/api/Tickets", json!({"summary": "x"})).await;
        assert!(status == 400 && reply["Message"].as_str().unwrap().contains("requires a JSON array"));
        let text = wire.http.post(format!("{}/api/Tickets", wire.sim.url)).bearer_auth(&wire.token).body("[]").send().await.unwrap();
        assert_eq!(text.status().as_u16(), 415);
        let (status, ticket) = wire.post("/API/tickets", json!([{"summary": "x", "client_id": 12, "actions": [{"note": "lost"}]}])).await;
        assert_eq!((status, &ticket["agent_id"], &ticket["client_name"]), (201, &json!(1), &json!("Acme Dental Group")));
        let id = ticket["id"].as_i64().unwrap();
        let (status, reply) = wire.post("/api/Tickets", json!([{"id": id, "status_id": 2}])).await;
        assert!(status == 400 && reply["Message"] == "Record not found");
        let (status, reply) = wire.post("/api/Tickets", json!([{"id": id, "tickettype_id": 1, "client_id": 12, "status_id": 9}])).await;
        assert!(status == 400 && reply["Message"].as_str().unwrap().contains("assign"));
        let (status, reply) =
            wire.post("/api/Tickets", json!([{"id": id, "tickettype_id": 1, "client_id": 12, "status_id": 9, "agent_id": 3}])).await;
        assert!(status == 201 && reply["hasbeenclosed"] == true && reply["summary"] == "x");
        assert_eq!(wire.get("/api/Tickets/999999").await.0, 404);
    }

    #[tokio::test]
    async fn actions_keep_halopsas_rules() {
        let wire = Wire::new(ALL).await;
        let (_, ticket) = wire.post("/api/Tickets", json!([{"summary": "x", "client_id": 12}])).await;
        let id = ticket["id"].as_i64().unwrap();
        assert_eq!(wire.post("/api/Actions", json!([{"outcome": "Private Note", "note": "x"}])).await.0, 400);
        let (status, reply) = wire.post("/api/Actions", json!([{"ticket_id": id, "note": "x"}])).await;
        assert!(status == 400 && reply["Message"] == "An Outcome must be entered for this Action");
        let note = json!([{"ticket_id": id, "outcome_id": 7, "note_html": "<p>a</p><p>b &amp; c</p>", "new_status": 2}]);
        let (status, action) = wire.post("/api/Actions", note).await;
        assert_eq!((status, &action["id"], &action["note"]), (201, &json!(2), &json!("ab & c")));
        assert_eq!((&action["who_agentid"], &action["actionby_application_id"]), (&json!(31), &json!("Rallied Agent")));
        assert_eq!(wire.get(&format!("/api/Tickets/{id}")).await.1["status_id"], 2);
        let (_, list) = wire.get(&format!("/api/Actions?ticket_id={id}&count=1")).await;
        assert_eq!((&list["record_count"], &list["actions"][0]["id"]), (&json!(2), &json!(2)), "newest first");
        assert!(list["actions"][0].get("note_html").is_none());
        assert_eq!(wire.get("/api/Actions/1").await.0, 400);
    }

    #[tokio::test]
    async fn lists_page_and_count_and_are_limited() {
        let wire = Wire::new(ALL).await;
        let (_, page) = wire.get("/api/Users?pageinate=true&page_size=7&page_no=2&client_id=12").await;
        assert_eq!((&page["record_count"], page["users"].as_array().unwrap().len()), (&json!(10), 3));
        assert!(page["users"][0]["site_id"].is_f64(), "a double, as HaloPSA writes it");
        let (_, found) = wire.get("/api/Tickets?search=printer%20offline&client_id=12&nonsense=1").await;
        assert!(found["record_count"].as_i64().unwrap() > 0);
        let (_, agents) = wire.get("/api/Agent").await;
        assert!(agents.as_array().unwrap().iter().all(|a| a["name"] != "Rallied Agent"));
        let mut last = (200, Value::Null);
        for _ in 0..45 {
            last = wire.get("/api/Agent/me").await;
        }
        assert_eq!(last.0, 429);
    }
}
