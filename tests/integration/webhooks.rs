//! Posts to the receiver as HaloPSA does.

use crate::harness::{ACME, BLUE, Harness, eventually};
use halopsa_operator::api::Ticket;
use kube::api::Api;
use reqwest::StatusCode;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn answers_by_the_book() {
    let harness = Harness::start("webhook").await;
    harness.ready(&[ACME]).await;
    let sender = Sender::new(&harness).await;
    let tickets = harness.api::<Ticket>();
    unauthorized_is_refused(&harness, &sender, &tickets).await;
    every_shape_is_stored_before_the_answer(&sender, &tickets).await;
    what_makes_no_ticket_is_answered_too(&sender, &tickets).await;
    health_and_metrics(&harness).await;
    harness.stop().await;
}

/// HaloPSA, as far as the receiver can tell.
struct Sender {
    http: reqwest::Client,
    url: String,
    username: String,
    password: String,
}

impl Sender {
    async fn new(harness: &Harness) -> Self {
        let (username, password) = harness.webhook_login().await;
        Self {
            http: harness.http(),
            url: format!("{}/webhooks/{}/halo", harness.webhooks, harness.namespace),
            username,
            password,
        }
    }

    fn request(&self) -> reqwest::RequestBuilder {
        self.http
            .post(&self.url)
            .basic_auth(&self.username, Some(&self.password))
    }

    async fn post(&self, body: Value) -> StatusCode {
        self.request().json(&body).send().await.unwrap().status()
    }
}

fn new_ticket() -> Value {
    json!({"event": "New Ticket Logged", "ticket": {"id": 7001, "client_id": ACME}})
}

/// A wrong password, an unknown connection, no credentials: 401, without a reason.
async fn unauthorized_is_refused(harness: &Harness, sender: &Sender, tickets: &Api<Ticket>) {
    let (http, body) = (&sender.http, new_ticket());
    for (url, password) in [
        (sender.url.clone(), "wrong"),
        (
            format!("{}/webhooks/{}/other", harness.webhooks, harness.namespace),
            sender.password.as_str(),
        ),
    ] {
        let answer = http
            .post(url)
            .basic_auth(&sender.username, Some(password))
            .json(&body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(answer.text().await.unwrap(), "");
    }
    let anonymous = http.post(&sender.url).json(&body).send().await.unwrap();
    assert_eq!(anonymous.status(), StatusCode::UNAUTHORIZED);
    assert!(
        tickets
            .get_opt("acme-dental-group-7001")
            .await
            .unwrap()
            .is_none()
    );
}

async fn every_shape_is_stored_before_the_answer(sender: &Sender, tickets: &Api<Ticket>) {
    for (id, body) in [
        (
            7001,
            json!({"event": "new ticket logged", "object_id": 7001, "ticket": {"id": 7001, "summary": "  Printer\n offline ", "client_id": ACME, "hasbeenclosed": false}}),
        ),
        (
            7002,
            json!({"Event": "New Ticket Logged", "OBJECT_ID": "7002", "Ticket": {"ID": "7002.0", "CLIENT_ID": "12"}}),
        ),
        (
            7003,
            json!([{"event": "New Ticket Logged", "object": {"id": 7003, "client_id": ACME}}]),
        ),
        (
            7004,
            json!({"event": "Ticket Updated by User", "ticket_id": 7004, "client_id": ACME}),
        ),
    ] {
        assert_eq!(sender.post(body).await, StatusCode::OK);
        let ticket = tickets
            .get_opt(&format!("acme-dental-group-{id}"))
            .await
            .unwrap();
        assert!(
            ticket.is_some_and(|t| t.spec.ticket_id == id),
            "{id} is stored when the answer comes"
        );
    }
    assert_eq!(
        tickets
            .get("acme-dental-group-7001")
            .await
            .unwrap()
            .spec
            .subject
            .as_deref(),
        Some("Printer offline")
    );
}

/// A duplicate, one that is not understood, one of a client that is not imported, one that is
/// too long, and what the API agent did itself.
async fn what_makes_no_ticket_is_answered_too(sender: &Sender, tickets: &Api<Ticket>) {
    assert_eq!(sender.post(new_ticket()).await, StatusCode::OK);
    let count = tickets.list(&Default::default()).await.unwrap().items.len();
    for body in [
        json!({"nothing": "here"}),
        json!({"event": "New Ticket Logged", "ticket": {"id": 7100, "client_id": BLUE}}),
    ] {
        assert_eq!(sender.post(body).await, StatusCode::OK);
    }
    let garbage = sender.request().body("not json").send().await.unwrap();
    assert_eq!(garbage.status(), StatusCode::OK);
    let long = sender.request().body(vec![b' '; 3 << 20]).send().await;
    assert!(long.is_err() || long.is_ok_and(|a| a.status() == StatusCode::PAYLOAD_TOO_LARGE));
    assert_eq!(
        tickets.list(&Default::default()).await.unwrap().items.len(),
        count
    );

    let own = json!({"event": "action added", "object_id": 7200, "ticket": {"id": 7200, "client_id": ACME}, "action": {"who_agentid": halosim::seed::API_AGENT}});
    assert_eq!(sender.post(own).await, StatusCode::OK);
    assert!(
        tickets
            .get_opt("acme-dental-group-7200")
            .await
            .unwrap()
            .is_none()
    );
}

/// Health and metrics have a listener of their own; strangers reach neither.
async fn health_and_metrics(harness: &Harness) {
    let http = harness.http();
    for path in ["readyz", "healthz", "metrics"] {
        let public = http.get(format!("{}/{path}", harness.webhooks)).send();
        assert_eq!(
            public.await.unwrap().status(),
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    let inside = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = |path: &str| inside.get(format!("{}/{path}", harness.health)).send();
    assert_eq!(get("readyz").await.unwrap().status(), StatusCode::OK);
    let metrics = get("metrics").await.unwrap().text().await.unwrap();
    assert!(
        metrics.contains("halopsa_webhook_events_total"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn event_information_only_is_looked_up_by_the_controller() {
    let harness = Harness::start("eventonly").await;
    harness.ready(&[ACME]).await;
    harness
        .sim
        .shared
        .store()
        .webhooks
        .values_mut()
        .for_each(|w| {
            w.insert("payload_type".into(), 2.into());
        });
    let id = harness.open_ticket(ACME, "Printer offline");
    harness
        .ticket_in(&format!("acme-dental-group-{id}"), "Ready")
        .await;
    let unrouted = format!("unrouted.halo.{id}");
    let tickets = harness.api::<Ticket>();
    eventually("the unrouted Ticket is gone", || async {
        tickets
            .get_opt(&unrouted)
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    harness.stop().await;
}
