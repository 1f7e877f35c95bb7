//! Webhooks out: one attempt each, in order, recorded as Deliveries.

use crate::Shared;
use crate::store::{Change, Object, Store, number, object, text};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Bytes kept of a receiver's answer.
const MAX_ANSWER: usize = 4096;
const TIMEOUT: Duration = Duration::from_secs(30);
/// Deliveries under way at once.
const PARALLEL: usize = 32;

/// A webhook about to be posted.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub webhook: Object,
    pub body: Value,
    pub notification_id: i64,
}

/// The deliveries a change causes: one for each subscription to its event.
pub fn deliveries(store: &Store, change: &Change) -> Vec<Delivery> {
    let mut all = Vec::new();
    for (id, webhook) in &store.webhooks {
        let truth = |key: &str, default| webhook.get(key).and_then(Value::as_bool).unwrap_or(default);
        if !truth("active", true) || truth("disabled", false) || number(webhook, "type") != Some(0) {
            continue;
        }
        if let Some(row) = store.notifications_of(id).find(|n| number(n, "eventno") == Some(change.event)) {
            let notification_id = number(row, "id").unwrap_or_default();
            all.push(Delivery { body: payload(webhook, change, notification_id), webhook: webhook.clone(), notification_id });
        }
    }
    all
}

/// `payload_type` (its numbers are not public): 0 full, 1 small, 2 event information only.
fn payload(webhook: &Object, change: &Change, notification_id: i64) -> Value {
    let mut body = json!({
        "id": uuid::Uuid::new_v4(), "webhook_id": text(webhook, "id"), "notification_id": notification_id,
        "escmsg_id": uuid::Uuid::new_v4(), "event": change.name, "message": change.message, "object_id": number(&change.ticket, "id"),
        "agent_id": number(&change.ticket, "agent_id"), "timestamp": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.7fZ").to_string(),
    });
    match number(webhook, "payload_type").unwrap_or_default() {
        2 => {}
        1 => {
            let small = |key: &str| change.ticket.get(key).cloned().unwrap_or_default();
            body["ticket"] = json!({"id": small("id"), "summary": small("summary"), "client_id": small("client_id"), "status_id": small("status_id"), "agent_id": small("agent_id")});
        }
        _ => {
            body["ticket"] = Value::Object(change.ticket.clone());
            if let Some(action) = &change.action {
                body["action"] = Value::Object(action.clone());
            }
        }
    }
    body
}

/// Posts what is queued until the simulator ends.
pub async fn run(shared: Arc<Shared>, mut queue: mpsc::Receiver<Delivery>, delay: Duration) {
    let slots = Arc::new(tokio::sync::Semaphore::new(PARALLEL));
    let mut client: Option<(Option<String>, reqwest::Client)> = None;
    while let Some(delivery) = queue.recv().await {
        let ca = shared.webhook_ca();
        if client.as_ref().is_none_or(|(known, _)| *known != ca) {
            match make_client(ca.as_deref()) {
                Ok(new) => client = Some((ca, new)),
                Err(error) => tracing::error!(%error, "cannot set up TLS for webhooks"),
            }
        }
        let Some((_, http)) = client.clone() else { continue };
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let shared = shared.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            post(&shared, &http, delivery).await;
            drop(slot);
        });
    }
}

fn make_client(ca: Option<&str>) -> Result<reqwest::Client, reqwest::Error> {
    let mut builder = reqwest::Client::builder().timeout(TIMEOUT).user_agent("Halo").redirect(reqwest::redirect::Policy::none()).no_proxy();
    if let Some(pem) = ca {
        builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem.as_bytes())?);
    }
    builder.build()
}

async fn post(shared: &Shared, http: &reqwest::Client, delivery: Delivery) {
    let webhook = &delivery.webhook;
    let started = Instant::now();
    let outcome = if shared.faults().lose_webhooks {
        Err("lost on purpose".to_string())
    } else {
        let mut request = http.post(text(webhook, "url")).json(&delivery.body);
        if number(webhook, "authentication_type") == Some(1) {
            request = request.basic_auth(text(webhook, "basic_username"), Some(text(webhook, "basic_password")));
        }
        answer(request).await
    };
    let (status, body, error) = match outcome {
        Ok((status, body)) => (status.to_string(), body, !(200..300).contains(&status)),
        Err(error) => (String::new(), error, true),
    };
    tracing::debug!(url = text(webhook, "url"), status, error, "webhook posted");
    shared.store().record_delivery(object(json!({
        "id": uuid::Uuid::new_v4(), "webhook_id": text(webhook, "id"), "notification_id": delivery.notification_id,
        "timestamp": crate::store::now(), "status": if error { 2 } else { 1 }, "duration": started.elapsed().as_secs_f64(),
        "requestbody": delivery.body.to_string(), "responsestatus": status, "responsebody": body, "error": error,
    })));
}

async fn answer(request: reqwest::RequestBuilder) -> Result<(u16, String), String> {
    let response = request.send().await.map_err(|e| innermost(&e))?;
    let status = response.status().as_u16();
    let body = response.text().await.unwrap_or_default();
    Ok((status, body.chars().take(MAX_ANSWER).collect()))
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
