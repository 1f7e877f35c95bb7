//! Outgoing webhooks: queued, one attempt each, recorded as Deliveries.

use crate::Shared;
use crate::store::{Change, Object, Store, flag, number, object, text};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Bytes kept of a receiver's response.
const MAX_ANSWER: usize = 4096;
const TIMEOUT: Duration = Duration::from_secs(30);
/// Concurrent deliveries.
const PARALLEL: usize = 32;
/// Deliveries waiting in one webhook's batch.
const MAX_BATCH: usize = 1_000;

/// A webhook about to be posted.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub webhook: Object,
    pub body: Value,
    pub notification_id: i64,
}

/// A logged delivery, and a copy to send to the webhook as it is now.
pub fn again(store: &Store, id: &str) -> Option<(Object, Delivery)> {
    let logged = store
        .deliveries
        .iter()
        .find(|d| text(d, "id").eq_ignore_ascii_case(id))?
        .clone();
    let webhook = store
        .webhooks
        .get(&text(&logged, "webhook_id").to_ascii_lowercase())?
        .clone();
    let body = serde_json::from_str(text(&logged, "requestbody")).unwrap_or_default();
    let notification_id = number(&logged, "notification_id").unwrap_or_default();
    Some((
        logged,
        Delivery {
            webhook,
            body,
            notification_id,
        },
    ))
}

/// The deliveries a change causes: one per webhook subscribed to its event.
pub fn deliveries(store: &Store, change: &Change) -> Vec<Delivery> {
    let mut all = Vec::new();
    for (id, webhook) in &store.webhooks {
        let active = webhook
            .get("active")
            .is_none_or(|_| flag(webhook, "active"));
        if !active || flag(webhook, "disabled") || number(webhook, "type") != Some(0) {
            continue;
        }
        if let Some(row) = store
            .notifications_of(id)
            .find(|n| number(n, "eventno") == Some(change.event))
        {
            let notification_id = number(row, "id").unwrap_or_default();
            all.push(Delivery {
                body: payload(store, webhook, change, notification_id),
                webhook: webhook.clone(),
                notification_id,
            });
        }
    }
    all
}

/// `payload_type` (its numbers are not public): 0 full, 1 small, 2 event information only, 3 custom.
fn payload(store: &Store, webhook: &Object, change: &Change, notification_id: i64) -> Value {
    let mut body = json!({
        "id": uuid::Uuid::new_v4(), "webhook_id": text(webhook, "id"), "notification_id": notification_id,
        "escmsg_id": uuid::Uuid::new_v4(), "event": change.name, "message": change.message, "object_id": number(&change.ticket, "id"),
        "agent_id": number(&change.ticket, "agent_id"), "timestamp": store.timestamp().strftime("%Y-%m-%dT%H:%M:%S%.7fZ").to_string(),
    });
    let few = |object: &Object, keys: &[&str]| -> Value {
        keys.iter()
            .map(|key| {
                (
                    (*key).to_string(),
                    object.get(*key).cloned().unwrap_or_default(),
                )
            })
            .collect::<Object>()
            .into()
    };
    match number(webhook, "payload_type").unwrap_or_default() {
        3 if !text(webhook, "custom_payload").is_empty() => {
            return custom(text(webhook, "custom_payload"), change);
        }
        2 => {}
        1 => {
            body["ticket"] = few(
                &change.ticket,
                &["id", "summary", "client_id", "status_id", "agent_id"],
            );
            if let Some(action) = &change.action {
                body["action"] = few(
                    action,
                    &[
                        "id",
                        "ticket_id",
                        "outcome",
                        "who_agentid",
                        "actionby_application_id",
                    ],
                );
            }
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

/// The custom payload: JSON with HaloPSA's `$variables` in its strings.
/// Anything that is not JSON is sent as text.
fn custom(template: &str, change: &Change) -> Value {
    let id = number(&change.ticket, "id").unwrap_or_default().to_string();
    let variables = [
        ("$FAULTID", id.as_str()),
        ("$SYMPTOM", text(&change.ticket, "summary")),
        ("$AREA", text(&change.ticket, "client_name")),
        ("$USERNAME", text(&change.ticket, "user_name")),
        ("$STATUS", text(&change.ticket, "status_name")),
        ("$EVENT", change.name),
    ];
    let fill = |text: &str| {
        variables
            .iter()
            .fold(text.to_string(), |text, (name, value)| {
                text.replace(name, value)
            })
    };
    fn each(value: Value, fill: &dyn Fn(&str) -> String) -> Value {
        match value {
            Value::String(text) => fill(&text).into(),
            Value::Array(items) => items.into_iter().map(|v| each(v, fill)).collect(),
            Value::Object(fields) => Value::Object(
                fields
                    .into_iter()
                    .map(|(k, v)| (k, each(v, fill)))
                    .collect(),
            ),
            other => other,
        }
    }
    serde_json::from_str(template)
        .map_or_else(|_| fill(template).into(), |value| each(value, &fill))
}

/// Deliveries waiting to be posted as one array.
struct Batch {
    due: tokio::time::Instant,
    limit: usize,
    deliveries: Vec<Delivery>,
}

impl Batch {
    fn full(&self) -> bool {
        self.deliveries.len() >= MAX_BATCH
            || (self.limit > 0 && self.deliveries.len() >= self.limit)
    }

    /// One delivery with all bodies. The shape of HaloPSA's batches is not public.
    fn joined(mut self) -> Option<Delivery> {
        let mut last = self.deliveries.pop()?;
        let mut bodies: Vec<Value> = self.deliveries.into_iter().map(|d| d.body).collect();
        bodies.push(last.body);
        last.body = bodies.into();
        Some(last)
    }
}

/// Posts queued deliveries until the simulator stops.
pub async fn run(shared: Arc<Shared>, mut queue: mpsc::Receiver<Delivery>, delay: Duration) {
    let mut sender = Sender {
        shared: shared.clone(),
        slots: Arc::new(tokio::sync::Semaphore::new(PARALLEL)),
        client: None,
        delay,
    };
    let mut batches: HashMap<String, Batch> = HashMap::new();
    let mut held: Option<Delivery> = None;
    loop {
        let due = batches.values().map(|b| b.due).min();
        let delivery = tokio::select! {
            delivery = queue.recv() => match delivery {
                Some(delivery) => delivery,
                None => return,
            },
            () = async { tokio::time::sleep_until(due.unwrap_or_else(tokio::time::Instant::now)).await }, if due.is_some() => {
                let now = tokio::time::Instant::now();
                let ready: Vec<String> = batches.iter().filter(|(_, b)| b.due <= now).map(|(id, _)| id.clone()).collect();
                for id in ready {
                    if let Some(joined) = batches.remove(&id).and_then(Batch::joined) {
                        sender.send(joined).await;
                    }
                }
                continue;
            }
        };
        if number(&delivery.webhook, "batch_method").unwrap_or_default() > 0 {
            let id = text(&delivery.webhook, "id").to_string();
            let batch = batches.entry(id.clone()).or_insert_with(|| Batch {
                due: tokio::time::Instant::now()
                    + Duration::from_secs(
                        number(&delivery.webhook, "batch_delay_seconds")
                            .unwrap_or(30)
                            .clamp(0, 3600) as u64,
                    ),
                limit: number(&delivery.webhook, "batch_limit")
                    .unwrap_or_default()
                    .clamp(0, MAX_BATCH as i64) as usize,
                deliveries: Vec::new(),
            });
            batch.deliveries.push(delivery);
            if batch.full()
                && let Some(joined) = batches.remove(&id).and_then(Batch::joined)
            {
                sender.send(joined).await;
            }
            continue;
        }
        let (duplicate, reorder) = {
            let engine = shared.engine();
            (
                engine.faults.duplicate_webhooks,
                engine.faults.reorder_webhooks,
            )
        };
        if reorder && held.is_none() {
            held = Some(delivery);
            continue;
        }
        if duplicate {
            sender.send(delivery.clone()).await;
        }
        sender.send(delivery).await;
        if let Some(held) = held.take() {
            sender.send(held).await;
        }
    }
}

struct Sender {
    shared: Arc<Shared>,
    slots: Arc<tokio::sync::Semaphore>,
    client: Option<(Option<String>, reqwest::Client)>,
    delay: Duration,
}

impl Sender {
    async fn send(&mut self, delivery: Delivery) {
        let ca = self.shared.webhook_ca();
        if self.client.as_ref().is_none_or(|(known, _)| *known != ca) {
            match make_client(ca.as_deref()) {
                Ok(new) => self.client = Some((ca, new)),
                Err(error) => tracing::error!(%error, "cannot set up TLS for webhooks"),
            }
        }
        let Some((_, http)) = self.client.clone() else {
            return;
        };
        let Ok(slot) = self.slots.clone().acquire_owned().await else {
            return;
        };
        let (shared, delay) = (self.shared.clone(), self.delay);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            post(&shared, &http, delivery).await;
            drop(slot);
        });
    }
}

fn make_client(ca: Option<&str>) -> Result<reqwest::Client, reqwest::Error> {
    let mut builder = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .user_agent("Halo")
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    if let Some(pem) = ca {
        builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem.as_bytes())?);
    }
    builder.build()
}

/// One attempt plus `webhook_retries` more, each logged.
async fn post(shared: &Shared, http: &reqwest::Client, delivery: Delivery) {
    let attempts = 1 + shared.store().settings.webhook_retries;
    for attempt in 0..attempts {
        if attempt > 0 {
            tokio::time::sleep(Duration::from_millis(500) * attempt).await;
        }
        if attempt_once(shared, http, &delivery).await {
            return;
        }
    }
}

/// Posts and records; true if the receiver accepted it.
async fn attempt_once(shared: &Shared, http: &reqwest::Client, delivery: &Delivery) -> bool {
    let webhook = &delivery.webhook;
    let started = Instant::now();
    let outcome = if shared.engine().faults.lose_webhooks {
        Err("lost on purpose".to_string())
    } else {
        answer(request(http, webhook, &delivery.body)).await
    };
    let (status, headers, body, error) = match outcome {
        Ok((status, headers, body)) => (
            status.to_string(),
            headers,
            body,
            !(200..300).contains(&status),
        ),
        Err(error) => (String::new(), String::new(), error, true),
    };
    tracing::debug!(status, error, "webhook posted");
    let authorization = if number(webhook, "authentication_type").unwrap_or_default() > 0 {
        "\nauthorization: ***"
    } else {
        ""
    };
    let id = text(webhook, "id").to_string();
    let off = {
        let mut store = shared.store();
        let now = store.now();
        store.record_delivery(object(json!({
            "id": uuid::Uuid::new_v4(), "webhook_id": id, "notification_id": delivery.notification_id, "timestamp": now,
            "status": if error { 2 } else { 1 }, "duration": started.elapsed().as_secs_f64(), "entity_id": number_of(&delivery.body),
            "requestheaders": format!("content-type: application/json\nuser-agent: Halo{authorization}"), "requestbody": delivery.body.to_string(),
            "responsestatus": status, "responseheaders": headers, "responsebody": body, "error": error,
        })));
        store.count_delivery(&id, error)
    };
    if off {
        tracing::warn!(
            webhook = id,
            "too many deliveries failed in a row; webhook disabled"
        );
    }
    shared.commit();
    !error
}

fn number_of(body: &Value) -> Option<i64> {
    body.get("object_id").and_then(crate::store::integer)
}

fn request(http: &reqwest::Client, webhook: &Object, body: &Value) -> reqwest::RequestBuilder {
    let method = match number(webhook, "method") {
        Some(1) => reqwest::Method::GET,
        Some(2) => reqwest::Method::PUT,
        Some(3) => reqwest::Method::DELETE,
        Some(4) => reqwest::Method::PATCH,
        _ => reqwest::Method::POST,
    };
    let request = http.request(method, text(webhook, "url"));
    let request = match body {
        // A custom payload that is not JSON.
        Value::String(text) => request
            .header("content-type", "text/plain")
            .body(text.clone()),
        body => request.json(body),
    };
    match number(webhook, "authentication_type") {
        Some(1) => request.basic_auth(
            text(webhook, "basic_username"),
            Some(text(webhook, "basic_password")),
        ),
        // Which field holds the token is not public.
        Some(2) => request.bearer_auth(text(webhook, "basic_password")),
        _ => request,
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<(u16, String, String), String> {
    let mut response = request.send().await.map_err(|e| root_cause(&e))?;
    let status = response.status().as_u16();
    let headers: Vec<String> = response
        .headers()
        .iter()
        .take(30)
        .map(|(k, v)| format!("{k}: {}", v.to_str().unwrap_or("?")))
        .collect();
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk[..chunk.len().min(MAX_ANSWER - body.len())]);
        if body.len() >= MAX_ANSWER {
            break;
        }
    }
    Ok((
        status,
        headers.join("\n"),
        String::from_utf8_lossy(&body).into_owned(),
    ))
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
