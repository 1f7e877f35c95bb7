//! The REST API. Paths are case-insensitive, so one handler takes them all.

use crate::auth::{Caller, Refusal};
use crate::faults::{self, Hit};
use crate::fields::Depth;
use crate::query::{self, Query};
use crate::store::{Author, Change, KINDS, No, Object, Store, flag, integer, number, text};
use crate::{Shared, deliver};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of a request's body.
const MAX_BODY: usize = 16 << 20;
/// Objects in one POST.
const MAX_OBJECTS: usize = 1_000;

pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .fallback(handle)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(shared)
}

async fn handle(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().trim_end_matches('/').to_ascii_lowercase();
    if path.starts_with("/api/") {
        shared.auth.arrived();
    }
    let (latency, hit) = {
        let mut faults = shared.engine();
        (faults.latency(), faults.hit(method.as_str(), &path))
    };
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let response = match hit {
        Some(Hit {
            kind,
            carried_out: false,
        }) => faults::spoil(kind, StatusCode::OK.into_response()).await,
        Some(Hit {
            kind,
            carried_out: true,
        }) => faults::spoil(kind, answer(&shared, &method, &uri, &path, &headers, &body)).await,
        None => answer(&shared, &method, &uri, &path, &headers, &body),
    };
    tracing::debug!(%method, path, status = response.status().as_u16(), ?hit, "answered");
    response
}

fn answer(
    shared: &Arc<Shared>,
    method: &Method,
    uri: &Uri,
    path: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Response {
    let query = Query::parse(uri.query());
    let _ = (
        query.get("tenant"),
        query.get("nocache"),
        query.get("includedetails"),
    );
    let mut response = match path {
        "/auth/token" => token(shared, method, headers, &query, body),
        "/auth/.well-known/openid-configuration" => discovery(headers),
        "/api/authinfo" => ok(
            json!({"auth_url": format!("https://{}/auth", host(headers)), "tenant_id": shared.tenant.clone().unwrap_or_default()}),
        ),
        path => match path.strip_prefix("/api/") {
            Some(rest) => {
                let segments: Vec<&str> = rest.split('/').collect();
                resource(shared, method, &segments, &query, headers, body)
            }
            None => StatusCode::NOT_FOUND.into_response(),
        },
    };
    shared.commit();
    shared.note_ignored(path, &query.ignored());
    // The clock of HaloPSA's machine.
    let now = shared
        .store()
        .timestamp()
        .strftime("%a, %d %b %Y %H:%M:%S GMT")
        .to_string();
    if let Ok(now) = now.parse() {
        response.headers_mut().insert(header::DATE, now);
    }
    response
}

fn host(headers: &HeaderMap) -> String {
    headers
        .get(header::HOST)
        .and_then(|h| h.to_str().ok())
        .unwrap_or("localhost")
        .to_string()
}

fn discovery(headers: &HeaderMap) -> Response {
    let base = format!("https://{}/auth", host(headers));
    ok(json!({
        "issuer": base, "token_endpoint": format!("{base}/token"), "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"], "scopes_supported": crate::auth::KNOWN_SCOPES,
    }))
}

fn oauth_error(status: StatusCode, error: &str, description: &str) -> Response {
    (
        status,
        axum::Json(json!({"error": error, "error_description": description})),
    )
        .into_response()
}

fn token(
    shared: &Shared,
    method: &Method,
    headers: &HeaderMap,
    query: &Query,
    body: &[u8],
) -> Response {
    if *method != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let header = |name| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
    };
    if !header(header::CONTENT_TYPE).starts_with("application/x-www-form-urlencoded") {
        return oauth_error(
            StatusCode::BAD_REQUEST,
            "invalid_request",
            "The content type has to be application/x-www-form-urlencoded.",
        );
    }
    let form = Query::parse(std::str::from_utf8(body).ok());
    let tenant = form.get("tenant").or_else(|| query.get("tenant"));
    if let (Some(own), Some(given)) = (&shared.tenant, tenant)
        && !own.eq_ignore_ascii_case(given)
    {
        return oauth_error(
            StatusCode::BAD_REQUEST,
            "invalid_request",
            "The tenant is not known.",
        );
    }
    // In the POST body, as most clients do, or by basic authentication.
    let basic = header(header::AUTHORIZATION)
        .strip_prefix("Basic ")
        .and_then(|b| base64::engine::general_purpose::STANDARD.decode(b).ok());
    let basic = basic.and_then(|b| String::from_utf8(b).ok()).and_then(|b| {
        b.split_once(':')
            .map(|(id, secret)| (id.to_string(), secret.to_string()))
    });
    let (id, secret) = match (form.get("client_id"), form.get("client_secret"), basic) {
        (Some(id), Some(secret), _) => (id.to_string(), secret.to_string()),
        (_, _, Some(basic)) => basic,
        (id, secret, None) => (
            id.unwrap_or_default().to_string(),
            secret.unwrap_or_default().to_string(),
        ),
    };
    match shared.auth.issue(
        form.get("grant_type").unwrap_or_default(),
        &id,
        &secret,
        form.get("scope"),
    ) {
        Ok(issued) => {
            let id_token = id_token(shared, issued.agent_id, &id, issued.seconds);
            let mut reply = json!({
                "access_token": issued.token, "token_type": "Bearer", "expires_in": issued.seconds, "id_token": id_token, "refresh_token": null,
            });
            if let Some(scope) = issued.scope {
                reply["scope"] = scope.into();
            }
            ok(reply)
        }
        Err(Refusal::InvalidClient) => oauth_error(
            StatusCode::UNAUTHORIZED,
            "invalid_client",
            "The specified client credentials are invalid.",
        ),
        Err(Refusal::InvalidScope) => oauth_error(
            StatusCode::BAD_REQUEST,
            "invalid_scope",
            "The specified 'scope' is not valid.",
        ),
        Err(Refusal::UnsupportedGrant) => oauth_error(
            StatusCode::BAD_REQUEST,
            "unsupported_grant_type",
            "The specified 'grant_type' is not supported.",
        ),
    }
}

/// Who the application acts as. Not signed with a key that clients could check.
fn id_token(shared: &Shared, agent: i64, client_id: &str, seconds: u64) -> String {
    let agent = shared
        .store()
        .get("agent", agent)
        .map(|a| a.into_owned())
        .unwrap_or_default();
    let ends = jiff::Timestamp::now().as_second() + seconds as i64;
    let claims = json!({"sub": number(&agent, "id").unwrap_or_default().to_string(), "name": text(&agent, "name"), "email": text(&agent, "email"),
        "agentid": number(&agent, "id"), "aud": client_id, "exp": ends});
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!(
        "{}.{}.{}",
        part(json!({"alg": "none", "typ": "JWT"})),
        part(claims),
        ""
    )
}

fn resource(
    shared: &Arc<Shared>,
    method: &Method,
    segments: &[&str],
    query: &Query,
    headers: &HeaderMap,
    body: &[u8],
) -> Response {
    if let Err(wait) = shared.auth.admit() {
        return rate_limited(shared, wait);
    }
    let authorization = headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok());
    let Some(caller) = shared.auth.caller(authorization) else {
        return (
            StatusCode::UNAUTHORIZED,
            [(header::WWW_AUTHENTICATE, "Bearer")],
            "",
        )
            .into_response();
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
    let author = Author::Agent {
        id: caller.agent_id,
        application: caller.application.clone(),
    };
    match (method.as_str(), segments) {
        ("GET" | "HEAD", segments) => read(shared, segments, query, &caller),
        ("POST", ["actions"]) => {
            let visible_at =
                Instant::now() + Duration::from_millis(shared.engine().faults.read_lag_ms);
            write(shared, &objects, query, true, |store, input| {
                store.write_action(input, &author, visible_at)
            })
        }
        ("POST", ["tickets"]) => write(shared, &objects, query, false, |store, input| {
            store.write_ticket(input, &author)
        }),
        ("POST", ["webhook"]) => write(shared, &objects, query, false, |store, input| {
            store.write_webhook(input).map(plain)
        }),
        ("POST", ["webhookevent"]) => resend(shared, &objects),
        ("POST", ["notification"]) => write(shared, &objects, query, false, |store, input| {
            store.write_notification(input).map(plain)
        }),
        ("POST", ["attachment"]) => write(shared, &objects, query, false, |store, input| {
            store.write_attachment(input).map(plain)
        }),
        ("POST", [kind]) => match KINDS.iter().find(|k| *k == kind) {
            Some(kind) => write(shared, &objects, query, false, |store, input| {
                let record = store.write_record(kind, input)?;
                Ok(plain(query::shown(kind, Depth::Detail, record)))
            }),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        ("DELETE", segments) => delete(shared, segments, query),
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

fn plain(object: Object) -> (Object, Vec<Change>) {
    (object, Vec::new())
}

fn rate_limited(shared: &Shared, wait: Duration) -> Response {
    let limit = shared.auth.limit();
    let text = match limit.named {
        true => format!(
            "Rate Limit Reached - {} Requests per rolling {} minute window",
            limit.requests,
            limit.window_seconds.div_ceil(60)
        ),
        false => String::new(),
    };
    let mut response = (StatusCode::TOO_MANY_REQUESTS, text).into_response();
    if limit.retry_after {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, (wait.as_secs() + 1).into());
    }
    response
}

fn read(shared: &Shared, segments: &[&str], query: &Query, caller: &Caller) -> Response {
    match segments {
        ["agent", "me"] => shown(shared, "agent", caller.agent_id),
        ["actions"] => actions(shared, query),
        ["actions", id] => action(shared, id, query),
        ["tickets"] => tickets(shared, query, caller),
        ["tickets", id] => ticket(shared, id.parse().unwrap_or_default(), query),
        ["attachment", id] => attachment(shared, id.parse().unwrap_or_default(), query),
        ["webhook"] => {
            let store = shared.store();
            let wanted = query.number("type");
            let all = store
                .webhooks
                .iter()
                .filter(|(_, hook)| wanted.is_none_or(|t| number(hook, "type") == Some(t)));
            ok(all
                .filter_map(|(id, _)| store.read_webhook(id))
                .map(|hook| listed("webhook", hook))
                .collect())
        }
        ["webhook", id] => found(
            shared
                .store()
                .read_webhook(id)
                .map(|hook| query::shown("webhook", Depth::Detail, hook)),
        ),
        ["webhookevent"] => deliveries(shared, query),
        ["webhookevent", id] => {
            let store = shared.store();
            found(
                store
                    .deliveries
                    .iter()
                    .find(|d| text(d, "id").eq_ignore_ascii_case(id))
                    .cloned(),
            )
        }
        ["notification"] => {
            let store = shared.store();
            let webhook = query.get("webhook_id");
            let rows = store
                .kind("notification")
                .into_iter()
                .flat_map(|rows| rows.values());
            let rows = rows
                .filter(|n| webhook.is_none_or(|w| text(n, "webhook_id").eq_ignore_ascii_case(w)));
            ok(rows.map(|n| listed("notification", n.clone())).collect())
        }
        ["instanceinfo"] => ok(json!({
            "dbid": 1, "app_version": "2.214.1", "database_version": "2.214.1", "app_name": "HaloPSA", "agent_count": 3, "licensed_agent_count": 5,
            "using_event_service": true, "using_outgoing_service": true,
        })),
        [kind] if KINDS.contains(kind) => {
            let store = shared.store();
            query::list(kind, store.rows(kind), query)
                .map_or_else(|message| exception(StatusCode::BAD_REQUEST, message), ok)
        }
        [kind, id] if KINDS.contains(kind) => shown(shared, kind, id.parse().unwrap_or_default()),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn listed(kind: &str, object: Object) -> Value {
    Value::Object(query::shown(kind, Depth::List, object))
}

fn found(object: Option<Object>) -> Response {
    object.map_or_else(
        || StatusCode::NOT_FOUND.into_response(),
        |object| ok(object.into()),
    )
}

fn delete(shared: &Shared, segments: &[&str], query: &Query) -> Response {
    match segments {
        ["actions", id] => match (query.number("ticket_id"), id.parse()) {
            (Some(ticket), Ok(id)) => reply(shared.store().delete_action(ticket, id)),
            _ => StatusCode::BAD_REQUEST.into_response(),
        },
        ["tickets", id] => {
            let outcome = shared.store().delete_ticket(id.parse().unwrap_or_default());
            match outcome {
                Ok((ticket, changes)) => {
                    shared.publish(changes);
                    ok(ticket.into())
                }
                Err(no) => refused(&no),
            }
        }
        ["webhook", id] => reply(shared.store().delete_webhook(id)),
        [kind, id] if KINDS.contains(kind) => reply(
            shared
                .store()
                .remove(kind, id.parse().unwrap_or_default())
                .ok_or(No::NotFound),
        ),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// What the scopes allow. `edit` includes `read`. The agent's own role is not modelled.
fn permitted(caller: &Caller, method: &Method, kind: &str) -> bool {
    let area = match kind {
        "webhook" | "notification" | "webhookevent" => {
            return caller.has(&["admin", "admin:webhooks"]);
        }
        "agent" | "instanceinfo" => return !caller.scopes.is_empty(),
        "client" | "site" | "users" | "toplevel" => "customers",
        "tickets" | "actions" | "attachment" => "tickets",
        "asset" | "assettype" => "assets",
        "kbarticle" => "kb",
        "team" => "teams",
        _ => return caller.has(&["all", "all:standard"]),
    };
    let (read, edit) = (format!("read:{area}"), format!("edit:{area}"));
    match *method {
        Method::GET | Method::HEAD => caller.has(&["all", "all:standard", &read, &edit]),
        _ => caller.has(&["all", "all:standard", &edit]),
    }
}

/// A POST takes an array of objects, as JSON.
fn objects(headers: &HeaderMap, body: &[u8]) -> Result<Vec<Object>, Box<Response>> {
    let json_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.contains("json"));
    if !json_type {
        return Err(Box::new(StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response()));
    }
    match serde_json::from_slice(body) {
        Ok(Value::Array(items)) if items.len() <= MAX_OBJECTS => Ok(items
            .into_iter()
            .filter_map(|v| {
                if let Value::Object(o) = v {
                    Some(o)
                } else {
                    None
                }
            })
            .collect()),
        Ok(Value::Array(_)) => Err(Box::new(exception(
            StatusCode::BAD_REQUEST,
            "The array is too long",
        ))),
        _ => Err(Box::new(exception(
            StatusCode::BAD_REQUEST,
            "This endpoint requires a JSON array",
        ))),
    }
}

/// Writes each object. One object is returned bare; of several actions only the last,
/// unless `returnall=true`.
fn write(
    shared: &Shared,
    objects: &[Object],
    query: &Query,
    last_only: bool,
    mut one: impl FnMut(&mut Store, &Object) -> Result<(Object, Vec<Change>), No>,
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
    let all = query.flag("returnall") || !last_only;
    let body = match (written.len(), written.pop()) {
        (_, None) => return exception(StatusCode::BAD_REQUEST, "The array is empty"),
        (1, Some(object)) if shared.store().settings.wrap_replies => json!([object]),
        (1, Some(object)) => object,
        (_, Some(last)) if all => {
            written.push(last);
            written.into()
        }
        (_, Some(last)) => last,
    };
    (StatusCode::CREATED, axum::Json(body)).into_response()
}

fn tickets(shared: &Shared, query: &Query, caller: &Caller) -> Response {
    let store = shared.store();
    // Without all:teams only tickets of the agent's own teams are visible; the API agent
    // is in no team.
    let everyones = caller.has(&["all", "all:teams"]);
    let mine = query.flag("mine");
    let rows = store
        .rows("tickets")
        .filter(|t| (everyones && !mine) || t.number("agent_id") == Some(caller.agent_id));
    match query::list("tickets", rows, query) {
        Ok(mut list) => {
            if query.flag("includeagent") {
                for row in list["tickets"].as_array_mut().into_iter().flatten() {
                    let agent = row
                        .get("agent_id")
                        .and_then(integer)
                        .and_then(|id| store.get("agent", id));
                    row["agent_name"] = agent.map(|a| text(&a, "name").to_string()).into();
                }
            }
            ok(list)
        }
        Err(message) => exception(StatusCode::BAD_REQUEST, message),
    }
}

fn ticket(shared: &Shared, id: i64, query: &Query) -> Response {
    let store = shared.store();
    let Some(ticket) = store.get("tickets", id) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let details = query.flag("includedetails");
    let mut ticket = ticket.into_owned();
    if details {
        query::with_details(&store, &mut ticket);
    }
    let agent = number(&ticket, "agent_id")
        .and_then(|id| store.get("agent", id))
        .map(|a| text(&a, "name").to_string());
    ticket.insert("agent_name".into(), agent.into());
    if query.flag("includelastaction") {
        let last = store
            .actions(id)
            .last()
            .map(|a| listed("actions", (*a).clone()));
        ticket.insert("lastaction".into(), last.into());
    }
    ok(query::shown(
        "tickets",
        if details { Depth::Detail } else { Depth::List },
        ticket,
    )
    .into())
}

fn attachment(shared: &Shared, id: i64, query: &Query) -> Response {
    let Some((mut object, bytes)) = shared.store().attachment(id) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if query.flag("includedetails") {
        object.insert(
            "data_base64".into(),
            base64::engine::general_purpose::STANDARD
                .encode(bytes)
                .into(),
        );
        return ok(object.into());
    }
    let kind = text(&object, "content_type").to_string();
    (
        [
            (header::CONTENT_TYPE, kind),
            (header::CONTENT_DISPOSITION, "attachment".to_string()),
        ],
        bytes,
    )
        .into_response()
}

fn actions(shared: &Shared, query: &Query) -> Response {
    let Some(ticket) = query.number("ticket_id") else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let store = shared.store();
    let (private, agents, mails, important) = (
        query.flag("excludeprivate"),
        query.flag("agentonly"),
        query.flag("conversationonly"),
        query.flag("importantonly"),
    );
    let (outcome, by_number) = (
        query.get("actoutcome").map(str::to_string),
        query.number("actoutcomenum"),
    );
    let (from, to) = (
        query.get("startdate").unwrap_or_default().to_string(),
        query.get("enddate").map(str::to_string),
    );
    let system = query.flag("excludesys");
    let mut rows: Vec<&Object> = store
        .actions(ticket)
        .into_iter()
        .filter(|a| {
            (!private || !flag(a, "hiddenfromuser")) && (!important || flag(a, "important"))
        })
        .filter(|a| !agents || number(a, "who_type") == Some(1))
        .filter(|a| !mails || !flag(a, "hiddenfromuser"))
        .filter(|a| !system || number(a, "action_systemid").unwrap_or_default() == 0)
        .filter(|a| {
            outcome
                .as_ref()
                .is_none_or(|o| text(a, "outcome").eq_ignore_ascii_case(o))
        })
        .filter(|a| by_number.is_none_or(|n| number(a, "outcome_id") == Some(n)))
        .filter(|a| {
            text(a, "datetime") >= from.as_str()
                && to
                    .as_ref()
                    .is_none_or(|to| text(a, "datetime") <= to.as_str())
        })
        .collect();
    let total = rows.len();
    rows.reverse();
    rows.truncate(query.number("count").unwrap_or(5000).max(0) as usize);
    let (html, email) = (
        query.flag("includehtmlnote"),
        query.flag("includehtmlemail"),
    );
    let rows: Vec<Value> = rows
        .into_iter()
        .map(|row| {
            let mut row = query::shown("actions", Depth::List, row.clone());
            if !html {
                row.remove("note_html");
            }
            if !email {
                row.remove("emailbody_html");
            }
            if query.flag("includeattachments") {
                let id = number(&row, "id");
                let files = store.rows("attachment").filter(|a| {
                    a.number("ticket_id") == Some(ticket) && a.number("action_id") == id
                });
                let files: Vec<Value> = files.map(|a| listed("attachment", a.whole())).collect();
                row.insert("attachments".into(), files.into());
            }
            Value::Object(row)
        })
        .collect();
    ok(json!({"ticket_id": ticket, "record_count": total, "actions": rows}))
}

fn action(shared: &Shared, id: &str, query: &Query) -> Response {
    let (Some(ticket), Ok(id)) = (query.number("ticket_id"), id.parse::<i64>()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let store = shared.store();
    let actions = store.actions(ticket);
    let latest = query.flag("mostrecent");
    let found_one = if latest {
        actions.last().copied()
    } else {
        actions.into_iter().find(|a| number(a, "id") == Some(id))
    };
    found(found_one.map(|a| query::shown("actions", Depth::Detail, a.clone())))
}

fn deliveries(shared: &Shared, query: &Query) -> Response {
    let store = shared.store();
    let webhook = query.get("webhook_id");
    let rows = store
        .deliveries
        .iter()
        .filter(|d| webhook.is_none_or(|w| text(d, "webhook_id").eq_ignore_ascii_case(w)));
    let show = |rows: Vec<&Object>| -> Value {
        rows.into_iter()
            .map(|d| listed("webhookevent", d.clone()))
            .collect()
    };
    if query.flag("pageinate") {
        let (size, page) = (
            query.number("page_size").unwrap_or(50).clamp(1, 500) as usize,
            query.number("page_no").unwrap_or(1).max(1) as usize,
        );
        let rows: Vec<&Object> = rows.collect();
        let total = rows.len();
        let page: Vec<&Object> = rows
            .into_iter()
            .skip((page - 1).saturating_mul(size))
            .take(size)
            .collect();
        return ok(json!({"record_count": total, "webhookevents": show(page)}));
    }
    let count = query.number("count").unwrap_or(50).max(0) as usize;
    ok(show(rows.take(count).collect()))
}

/// `POST /WebhookEvent`: sends a logged delivery again.
fn resend(shared: &Shared, objects: &[Object]) -> Response {
    let mut sent = Vec::new();
    for input in objects {
        let again = deliver::again(&shared.store(), text(input, "id"));
        let Some((found, delivery)) = again else {
            return StatusCode::NOT_FOUND.into_response();
        };
        shared.queue(delivery);
        sent.push(Value::Object(found));
    }
    match sent.pop() {
        Some(one) if sent.is_empty() => (StatusCode::CREATED, axum::Json(one)).into_response(),
        Some(last) => {
            sent.push(last);
            (StatusCode::CREATED, axum::Json(Value::from(sent))).into_response()
        }
        None => exception(StatusCode::BAD_REQUEST, "The array is empty"),
    }
}

fn shown(shared: &Shared, kind: &str, id: i64) -> Response {
    let object = shared
        .store()
        .get(kind, id)
        .map(|row| query::shown(kind, Depth::Detail, row.into_owned()));
    found(object)
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

/// A whole number from JSON, for the admin API.
pub fn whole(value: &Value, key: &str) -> Option<i64> {
    value.get(key).and_then(integer)
}

#[cfg(test)]
mod tests;
