//! Configuration: Webhooks, their events, and the Deliveries tab.

use super::page::{Page, alert, missing, options, time, to};
use super::request::{Agent, Form};
use super::session::Who;
use crate::query::Query;
use crate::store::{No, Object, flag, number, object, text};
use crate::{Shared, deliver};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde_json::{Value, json};
use std::sync::Arc;

/// Events the simulator raises.
const EVENTS: [(i64, &str); 6] = [
    (3, "New Ticket Logged"),
    (19, "Ticket Updated by User"),
    (39, "Ticket Closed"),
    (76, "Ticket Status Changed"),
    (1004, "Action Added"),
    (1072, "Ticket Deleted"),
];
const AUTHENTICATION: [(&str, &str); 3] = [("0", "None"), ("1", "Basic"), ("2", "Bearer")];
const PAYLOADS: [(&str, &str); 4] = [
    ("0", "Full object"),
    ("1", "Small object"),
    ("2", "Event information only"),
    ("3", "Custom"),
];
/// Deliveries per page.
const SHOWN: usize = 50;
/// Most webhooks allowed.
const MAX_WEBHOOKS: usize = 100;

fn frame<'a>(shared: &'a Shared, agent: Agent, title: &'a str) -> Page<'a> {
    Page {
        shared,
        who: Some(Who::Agent(agent.0)),
        title,
        at: "/config/webhooks",
    }
}

fn find(shared: &Shared, id: &str) -> Option<Object> {
    shared.store().read_webhook(id)
}

fn gone(shared: &Shared, agent: Agent) -> Response {
    missing(shared, Who::Agent(agent.0), "There is no such webhook.")
}

fn state(hook: &Object) -> &'static str {
    match (flag(hook, "disabled"), flag(hook, "active")) {
        (true, _) => "Disabled after failures",
        (false, true) => "Active",
        (false, false) => "Inactive",
    }
}

pub async fn list(State(shared): State<Arc<Shared>>, agent: Agent) -> Response {
    list_page(&shared, agent, None)
}

fn list_page(shared: &Shared, agent: Agent, message: Option<&str>) -> Response {
    let hooks: Vec<Object> = {
        let store = shared.store();
        store
            .webhooks
            .keys()
            .filter_map(|id| store.read_webhook(id))
            .collect()
    };
    frame(shared, agent, "Webhooks").show_with(
        message,
        &html! {
            h1 { "Webhooks" }
            (alert(message))
            @if hooks.is_empty() { p.empty { "No webhook is registered." } } @else {
                table {
                    thead { tr { th { "Name" } th { "URL" } th { "Events" } th { "State" } } }
                    tbody { @for hook in &hooks { tr {
                        td { a href={ "/config/webhooks/" (text(hook, "id")) } { (text(hook, "name")) } }
                        td { (text(hook, "url")) }
                        td { (hook.get("events").and_then(Value::as_array).map_or(0, Vec::len)) }
                        td { (state(hook)) }
                    } } }
                }
            }
            details.act { summary { "New webhook" }
                form.stacked method="post" action="/config/webhooks" { (fields(&Object::new())) button.primary { "Create" } }
            }
        },
    )
}

/// The fields of a webhook's form. A password is accepted but never shown.
fn fields(hook: &Object) -> Markup {
    let chosen = |name: &str| number(hook, name).unwrap_or_default().to_string();
    let subscribed: Vec<i64> = hook
        .get("events")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|e| crate::store::integer(e.get("eventno")?))
        .collect();
    html! {
        label { "Name" input name="name" required maxlength="255" value=(text(hook, "name")); }
        label { "Payload URL" input type="url" name="url" required maxlength="500" value=(text(hook, "url")); }
        label { "Payload" select name="payload_type" { (options(PAYLOADS.map(|(v, n)| (v.to_string(), n)), &chosen("payload_type"))) } }
        label { "Custom payload" textarea name="custom_payload" rows="3" { (text(hook, "custom_payload")) } }
        label { "Authentication" select name="authentication_type" {
            (options(AUTHENTICATION.map(|(v, n)| (v.to_string(), n)), &chosen("authentication_type")))
        } }
        label { "User name" input name="basic_username" autocomplete="off" value=(text(hook, "basic_username")); }
        label { "Password or token; leave empty to keep it" input type="password" name="basic_password" autocomplete="new-password"; }
        label { "Disable after this many failures in a row (0: never)"
            input type="number" min="0" max="1000" name="auto_disable_attempts" value=(chosen("auto_disable_attempts")); }
        label { input type="checkbox" name="active" value="true" checked[hook.is_empty() || flag(hook, "active") && !flag(hook, "disabled")]; " Active" }
        fieldset.permissions { legend { "Events" }
            @for (event, name) in EVENTS {
                label { input type="checkbox" name="event" value=(event) checked[subscribed.contains(&event)]; " " (name) }
            }
        }
    }
}

/// The form, as a request to the API.
fn input(form: &Form) -> Object {
    let mut input = object(json!({
        "name": form.get("name"), "url": form.get("url"), "payload_type": form.number("payload_type").unwrap_or_default(),
        "custom_payload": form.get("custom_payload"), "authentication_type": form.number("authentication_type").unwrap_or_default(),
        "basic_username": form.get("basic_username"), "active": form.get("active") == "true", "disabled": false,
        "auto_disable_attempts": form.number("auto_disable_attempts").unwrap_or_default().clamp(0, 1000),
    }));
    if !form.get("basic_password").is_empty() {
        input.insert("basic_password".into(), form.get("basic_password").into());
    }
    input
}

/// Writes the webhook, then subscribes it to exactly the ticked events.
fn write(shared: &Shared, id: Option<&str>, form: &Form) -> Result<String, No> {
    if !form.get("url").starts_with("https://") && !form.get("url").starts_with("http://") {
        return Err(No::BadRequest(
            "The Payload URL must begin with https:// or http://",
        ));
    }
    let mut input = input(form);
    if let Some(id) = id {
        input.insert("id".into(), id.into());
    }
    let wanted: Vec<i64> = form
        .all("event")
        .into_iter()
        .filter_map(|e| e.parse().ok())
        .filter(|e| EVENTS.iter().any(|(n, _)| n == e))
        .collect();
    let mut store = shared.store();
    let hook = store.write_webhook(&input)?;
    let id = text(&hook, "id").to_string();
    let rows: Vec<(i64, i64)> = store
        .notifications_of(&id)
        .map(|n| {
            (
                number(n, "id").unwrap_or_default(),
                number(n, "eventno").unwrap_or_default(),
            )
        })
        .collect();
    for (row, event) in &rows {
        // Other events are not on this page and stay subscribed.
        if EVENTS.iter().any(|(n, _)| n == event) && !wanted.contains(event) {
            store.remove("notification", *row);
        }
    }
    for event in wanted
        .into_iter()
        .filter(|e| rows.iter().all(|(_, known)| known != e))
    {
        store.write_notification(&object(
            json!({"webhook_id": id, "type": -2, "delivery_method": 6, "eventno": event}),
        ))?;
    }
    Ok(id)
}

pub async fn create(State(shared): State<Arc<Shared>>, agent: Agent, form: Form) -> Response {
    if shared.store().webhooks.len() >= MAX_WEBHOOKS {
        return list_page(
            &shared,
            agent,
            Some("There are too many webhooks; delete one first."),
        );
    }
    let written = write(&shared, None, &form);
    shared.commit();
    match written {
        Ok(id) => to(&format!("/config/webhooks/{id}")),
        Err(No::BadRequest(message)) => list_page(&shared, agent, Some(message)),
        Err(No::NotFound) => gone(&shared, agent),
    }
}

fn tabs(id: &str, deliveries: bool) -> Markup {
    html! {
        nav.tabs aria-label="Webhook" {
            a href={ "/config/webhooks/" (id) } aria-current=[(!deliveries).then_some("page")] { "Details" }
            a href={ "/config/webhooks/" (id) "/deliveries" } aria-current=[deliveries.then_some("page")] { "Deliveries" }
        }
    }
}

pub async fn show(
    State(shared): State<Arc<Shared>>,
    agent: Agent,
    Path(id): Path<String>,
) -> Response {
    details(&shared, agent, &id, None)
}

fn details(shared: &Shared, agent: Agent, id: &str, message: Option<&str>) -> Response {
    let Some(hook) = find(shared, id) else {
        return gone(shared, agent);
    };
    frame(shared, agent, text(&hook, "name")).show_with(
        message,
        &html! {
            h1 { (text(&hook, "name")) " " span.tag { (state(&hook)) } }
            (tabs(id, false))
            (alert(message))
            form.stacked method="post" action={ "/config/webhooks/" (id) } { (fields(&hook)) button.primary { "Save" } }
            form.stacked method="post" action={ "/config/webhooks/" (id) "/delete" } { button.danger { "Delete webhook" } }
        },
    )
}

pub async fn change(
    State(shared): State<Arc<Shared>>,
    agent: Agent,
    Path(id): Path<String>,
    form: Form,
) -> Response {
    let written = write(&shared, Some(&id), &form);
    shared.commit();
    match written {
        Ok(id) => to(&format!("/config/webhooks/{id}")),
        Err(No::BadRequest(message)) => details(&shared, agent, &id, Some(message)),
        Err(No::NotFound) => gone(&shared, agent),
    }
}

pub async fn delete(
    State(shared): State<Arc<Shared>>,
    agent: Agent,
    Path(id): Path<String>,
    _form: Form,
) -> Response {
    let deleted = shared.store().delete_webhook(&id);
    shared.commit();
    deleted.map_or_else(|_| gone(&shared, agent), |_| to("/config/webhooks"))
}

pub async fn deliveries(
    State(shared): State<Arc<Shared>>,
    agent: Agent,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let Some(hook) = find(&shared, &id) else {
        return gone(&shared, agent);
    };
    let query = Query::parse(query.as_deref());
    let (all, total): (Vec<Object>, usize) = {
        let store = shared.store();
        let of_hook = || {
            store
                .deliveries
                .iter()
                .filter(|d| text(d, "webhook_id").eq_ignore_ascii_case(&id))
        };
        (of_hook().take(SHOWN).cloned().collect(), of_hook().count())
    };
    let newest = all
        .first()
        .map(|d| text(d, "id").to_string())
        .unwrap_or_default();
    if query.get("seen") == Some(newest.as_str()) {
        return StatusCode::NO_CONTENT.into_response();
    }
    frame(&shared, agent, text(&hook, "name")).show(&html! {
        h1 { (text(&hook, "name")) " " span.tag { (state(&hook)) } }
        (tabs(&id, true))
        div data-live={ "/config/webhooks/" (id) "/deliveries" } data-seen=(newest) {
            p.hint { (total) " deliveries kept" @if total > SHOWN { ", the newest " (SHOWN) " shown" } }
            @if all.is_empty() { p.empty { "Nothing has been delivered." } }
            @for delivery in &all { (entry(&id, delivery)) }
        }
    })
}

fn entry(hook: &str, delivery: &Object) -> Markup {
    let seconds = delivery
        .get("duration")
        .and_then(Value::as_f64)
        .unwrap_or_default();
    let failed = flag(delivery, "error");
    html! {
        details.delivery.failed[failed] {
            summary {
                span.tag.internal[failed] { @if failed { "Failed" } @else { "Succeeded" } }
                " " (time(text(delivery, "timestamp"))) " " span { "Ticket " (number(delivery, "entity_id").unwrap_or_default()) }
                " " span { @if text(delivery, "responsestatus").is_empty() { "no response" } @else { "HTTP " (text(delivery, "responsestatus")) } }
                " " span { (format!("{:.0} ms", seconds * 1000.0)) }
            }
            h3 { "Request" } pre { (text(delivery, "requestheaders")) } pre { (text(delivery, "requestbody")) }
            h3 { "Response" } pre { (text(delivery, "responseheaders")) } pre { (text(delivery, "responsebody")) }
            form method="post" action={ "/config/webhooks/" (hook) "/deliveries/" (text(delivery, "id")) } { button { "Send again" } }
        }
    }
}

/// Sends a logged delivery again.
pub async fn resend(
    State(shared): State<Arc<Shared>>,
    agent: Agent,
    Path((id, delivery)): Path<(String, String)>,
    _form: Form,
) -> Response {
    let again = deliver::again(&shared.store(), &delivery);
    let Some((_, delivery)) = again else {
        return gone(&shared, agent);
    };
    shared.queue(delivery);
    to(&format!("/config/webhooks/{id}/deliveries"))
}
