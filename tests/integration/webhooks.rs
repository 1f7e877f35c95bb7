//! The receiver, posted to as HaloPSA does.

use crate::harness::{ACME, BLUE, Harness, eventually};
use halopsa_operator::api::Ticket;
use reqwest::StatusCode;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn answers_by_the_book() {
    let harness = Harness::start("webhook").await;
    harness.ready(&[ACME]).await;
    let http = harness.http();
    let url = format!("{}/webhooks/{}/halo", harness.webhooks, harness.namespace);
    let (username, password) = harness.webhook_login().await;
    let post = |body: Value| {
        http.post(&url)
            .basic_auth(&username, Some(&password))
            .json(&body)
            .send()
    };
    let tickets = harness.api::<Ticket>();

    // Wrong secrets, unknown connections: 401, and nothing said.
    let body = json!({"event": "New Ticket Logged", "ticket": {"id": 7001, "client_id": ACME}});
    for (url, password) in [
        (url.clone(), "wrong"),
        (
            format!("{}/webhooks/{}/other", harness.webhooks, harness.namespace),
            password.as_str(),
        ),
    ] {
        let answer = http
            .post(url)
            .basic_auth(&username, Some(password))
            .json(&body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(answer.text().await.unwrap(), "");
    }
    assert_eq!(
        http.post(&url).json(&body).send().await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    assert!(
        tickets
            .get_opt("acme-dental-group-7001")
            .await
            .unwrap()
            .is_none()
    );

    // Every shape: stored before the answer.
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
        let answer = post(body).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
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
    // The same again makes no second Ticket.
    assert_eq!(post(body.clone()).await.unwrap().status(), StatusCode::OK);

    // Not understood, not imported: 200, nothing stored.
    let count = tickets.list(&Default::default()).await.unwrap().items.len();
    for body in [
        json!({"nothing": "here"}),
        json!({"event": "New Ticket Logged", "ticket": {"id": 7100, "client_id": BLUE}}),
    ] {
        assert_eq!(post(body).await.unwrap().status(), StatusCode::OK);
    }
    let garbage = http
        .post(&url)
        .basic_auth(&username, Some(&password))
        .body("not json")
        .send()
        .await
        .unwrap();
    assert_eq!(garbage.status(), StatusCode::OK);
    let long = http
        .post(&url)
        .basic_auth(&username, Some(&password))
        .body(vec![b' '; 3 << 20])
        .send()
        .await;
    assert!(long.is_err() || long.is_ok_and(|a| a.status() == StatusCode::PAYLOAD_TOO_LARGE));
    assert_eq!(
        tickets.list(&Default::default()).await.unwrap().items.len(),
        count
    );

    // What our own agent did is no news.
    let own = json!({"event": "action added", "object_id": 7200, "ticket": {"id": 7200, "client_id": ACME}, "action": {"who_agentid": halosim::seed::API_AGENT}});
    assert_eq!(post(own).await.unwrap().status(), StatusCode::OK);
    assert!(
        tickets
            .get_opt("acme-dental-group-7200")
            .await
            .unwrap()
            .is_none()
    );

    // Only health besides.
    assert_eq!(
        http.get(format!("{}/readyz", harness.webhooks))
            .send()
            .await
            .unwrap()
            .status(),
        StatusCode::OK
    );
    let metrics = http
        .get(format!("{}/metrics", harness.webhooks))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        metrics.contains("halopsa_webhook_events_total"),
        "{metrics}"
    );
    harness.stop().await;
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
