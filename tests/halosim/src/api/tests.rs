//! The wire format, over HTTPS.

use crate::{Options, Sim, seed};
use serde_json::{Value, json};

struct Wire {
    sim: Sim,
    http: reqwest::Client,
    token: String,
}

impl Wire {
    async fn new(scope: &str) -> Self {
        let sim = Sim::start(Options {
            rate_limit: 40,
            ..Options::default()
        })
        .await
        .unwrap();
        let ca = reqwest::Certificate::from_pem(sim.shared.ca_pem.as_bytes()).unwrap();
        let http = reqwest::Client::builder()
            .tls_certs_only([ca])
            .no_proxy()
            .build()
            .unwrap();
        let mut wire = Self {
            sim,
            http,
            token: String::new(),
        };
        let (status, reply) = wire.sign_in(seed::CLIENT_SECRET, Some(scope)).await;
        assert_eq!(status, 200, "{reply}");
        wire.token = reply["access_token"].as_str().unwrap().to_string();
        wire
    }

    async fn sign_in(&self, secret: &str, scope: Option<&str>) -> (u16, Value) {
        let mut form = vec![
            ("grant_type", "client_credentials"),
            ("client_id", seed::CLIENT_ID),
            ("client_secret", secret),
        ];
        form.extend(scope.map(|s| ("scope", s)));
        let answer = self
            .http
            .post(format!("{}/auth/token", self.sim.url))
            .form(&form)
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self
            .http
            .get(format!("{}{path}", self.sim.url))
            .bearer_auth(&self.token)
            .send()
            .await
            .unwrap();
        (
            answer.status().as_u16(),
            serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default(),
        )
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let answer = self
            .http
            .post(format!("{}{path}", self.sim.url))
            .bearer_auth(&self.token)
            .json(&body)
            .send()
            .await
            .unwrap();
        (
            answer.status().as_u16(),
            serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default(),
        )
    }
}

const ALL: &str = "all:standard all:teams admin:webhooks";

#[tokio::test]
async fn sign_in_as_halopsa_does_it() {
    let wire = Wire::new(ALL).await;
    let (status, reply) = wire.sign_in("wrong", Some(ALL)).await;
    assert_eq!((status, &reply["error"]), (401, &json!("invalid_client")));
    let (status, reply) = wire
        .sign_in(seed::CLIENT_SECRET, Some("read:actions"))
        .await;
    assert_eq!((status, &reply["error"]), (400, &json!("invalid_scope")));
    let (_, reply) = wire
        .sign_in(seed::CLIENT_SECRET, Some("all all:teams"))
        .await;
    assert_eq!(
        reply["scope"], "all:teams",
        "what the application does not have is not granted"
    );
    let (status, reply) = wire.sign_in(seed::CLIENT_SECRET, None).await;
    assert!(status == 200 && reply.get("scope").is_none());
    let limited = Wire::new("all:standard").await;
    assert_eq!(limited.get("/api/Webhook").await.0, 403);
    assert_eq!(
        limited.get("/api/Tickets").await.1["record_count"],
        0,
        "without all:teams only one's own tickets are visible"
    );
}

#[tokio::test]
async fn posts_are_arrays_and_paths_are_case_insensitive() {
    let wire = Wire::new(ALL).await;
    let (status, reply) = wire.post("/api/Tickets", json!({"summary": "x"})).await;
    assert!(
        status == 400
            && reply["Message"]
                .as_str()
                .unwrap()
                .contains("requires a JSON array")
    );
    let text = wire
        .http
        .post(format!("{}/api/Tickets", wire.sim.url))
        .bearer_auth(&wire.token)
        .body("[]")
        .send()
        .await
        .unwrap();
    assert_eq!(text.status().as_u16(), 415);
    let (status, ticket) = wire
        .post(
            "/API/tickets",
            json!([{"summary": "x", "client_id": 12, "actions": [{"note": "lost"}]}]),
        )
        .await;
    assert_eq!(
        (status, &ticket["agent_id"], &ticket["client_name"]),
        (201, &json!(1), &json!("Acme Dental Group"))
    );
    let id = ticket["id"].as_i64().unwrap();
    let (status, reply) = wire
        .post("/api/Tickets", json!([{"id": id, "status_id": 2}]))
        .await;
    assert!(status == 400 && reply["Message"] == "Record not found");
    let (status, reply) = wire
        .post(
            "/api/Tickets",
            json!([{"id": id, "tickettype_id": 1, "client_id": 12, "status_id": 9}]),
        )
        .await;
    assert!(status == 400 && reply["Message"].as_str().unwrap().contains("assign"));
    let (status, reply) = wire
        .post(
            "/api/Tickets",
            json!([{"id": id, "tickettype_id": 1, "client_id": 12, "status_id": 9, "agent_id": 3}]),
        )
        .await;
    assert!(status == 201 && reply["hasbeenclosed"] == true && reply["summary"] == "x");
    assert_eq!(wire.get("/api/Tickets/999999").await.0, 404);
}

#[tokio::test]
async fn actions_keep_halopsas_rules() {
    let wire = Wire::new(ALL).await;
    let (_, ticket) = wire
        .post("/api/Tickets", json!([{"summary": "x", "client_id": 12}]))
        .await;
    let id = ticket["id"].as_i64().unwrap();
    assert_eq!(
        wire.post(
            "/api/Actions",
            json!([{"outcome": "Private Note", "note": "x"}])
        )
        .await
        .0,
        400
    );
    let (status, reply) = wire
        .post("/api/Actions", json!([{"ticket_id": id, "note": "x"}]))
        .await;
    assert!(status == 400 && reply["Message"] == "An Outcome must be entered for this Action");
    let note = json!([{"ticket_id": id, "outcome_id": 7, "note_html": "<p>a</p><p>b &amp; c</p>", "new_status": 2}]);
    let (status, action) = wire.post("/api/Actions", note).await;
    assert_eq!(
        (status, &action["id"], &action["note"]),
        (201, &json!(2), &json!("ab & c"))
    );
    assert_eq!(
        (&action["who_agentid"], &action["actionby_application_id"]),
        (&json!(31), &json!("Rallied Agent"))
    );
    assert_eq!(
        wire.get(&format!("/api/Tickets/{id}")).await.1["status_id"],
        2
    );
    let (_, list) = wire
        .get(&format!("/api/Actions?ticket_id={id}&count=1"))
        .await;
    assert_eq!(
        (&list["record_count"], &list["actions"][0]["id"]),
        (&json!(2), &json!(2)),
        "newest first"
    );
    assert!(list["actions"][0].get("note_html").is_none());
    assert_eq!(wire.get("/api/Actions/1").await.0, 400);
}

#[tokio::test]
async fn lists_page_and_count_and_are_limited() {
    let wire = Wire::new(ALL).await;
    let (_, page) = wire
        .get("/api/Users?pageinate=true&page_size=7&page_no=2&client_id=12")
        .await;
    assert_eq!(
        (
            &page["record_count"],
            page["users"].as_array().unwrap().len()
        ),
        (&json!(10), 3)
    );
    assert!(
        page["users"][0]["site_id"].is_f64(),
        "a double, as HaloPSA writes it"
    );
    let (_, found) = wire
        .get("/api/Tickets?search=printer%20offline&client_id=12&nonsense=1")
        .await;
    assert!(found["record_count"].as_i64().unwrap() > 0);
    let (_, agents) = wire.get("/api/Agent").await;
    assert!(
        agents
            .as_array()
            .unwrap()
            .iter()
            .all(|a| a["name"] != "Rallied Agent")
    );
    let mut last = (200, Value::Null);
    for _ in 0..45 {
        last = wire.get("/api/Agent/me").await;
    }
    assert_eq!(last.0, 429);
}

#[tokio::test]
async fn errors_have_halopsas_shapes() {
    let wire = Wire::new(ALL).await;
    let (status, reply) = wire.post("/api/Tickets", json!([{"details": "x"}])).await;
    assert_eq!(
        (status, &reply["ClassName"]),
        (400, &json!("System.Exception"))
    );
    assert!(
        reply.get("HResult").is_some() && reply["Message"].as_str().unwrap().contains("Summary")
    );
    let no_token = wire
        .http
        .get(format!("{}/api/Tickets", wire.sim.url))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            no_token.status().as_u16(),
            no_token.headers()["www-authenticate"].to_str().unwrap()
        ),
        (401, "Bearer")
    );
    let limited = Wire::new("read:tickets").await;
    assert_eq!(
        limited
            .post("/api/Tickets", json!([{"summary": "x", "client_id": 12}]))
            .await
            .0,
        403
    );
    assert_eq!(wire.get("/api/Nonsense").await.0, 404);
    assert_eq!(wire.get("/api/Users?advanced_search=nonsense").await.0, 400);
}

#[tokio::test]
async fn another_tenant_is_refused() {
    let sim = Sim::start(Options {
        tenant: Some("acme".into()),
        ..Options::default()
    })
    .await
    .unwrap();
    let ca = reqwest::Certificate::from_pem(sim.shared.ca_pem.as_bytes()).unwrap();
    let http = reqwest::Client::builder()
        .tls_certs_only([ca])
        .no_proxy()
        .build()
        .unwrap();
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", seed::CLIENT_ID),
        ("client_secret", seed::CLIENT_SECRET),
    ];
    for (query, status) in [("?tenant=acme", 200), ("?tenant=other", 400), ("", 200)] {
        let answer = http
            .post(format!("{}/auth/token{query}", sim.url))
            .form(&form)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status().as_u16(), status, "{query}");
    }
}

#[tokio::test]
async fn several_actions_give_the_last_or_all() {
    let wire = Wire::new(ALL).await;
    let (_, ticket) = wire
        .post("/api/Tickets", json!([{"summary": "x", "client_id": 12}]))
        .await;
    let note =
        |text: &str| json!({"ticket_id": ticket["id"], "outcome": "Private Note", "note": text});
    let (_, last) = wire
        .post("/api/Actions", json!([note("a"), note("b")]))
        .await;
    assert_eq!(last["note"], "b");
    let (_, all) = wire
        .post("/api/Actions?returnall=true", json!([note("c"), note("d")]))
        .await;
    assert_eq!(all.as_array().unwrap().len(), 2);
    let (_, tickets) = wire
        .post(
            "/api/Tickets",
            json!([{"summary": "y", "client_id": 12}, {"summary": "z", "client_id": 13}]),
        )
        .await;
    assert_eq!(tickets.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn an_email_to_the_user_is_in_the_outbox() {
    let wire = Wire::new(ALL).await;
    let (_, ticket) = wire
        .post(
            "/api/Tickets",
            json!([{"summary": "x", "client_id": 12, "users_name": "Kim Lee"}]),
        )
        .await;
    let mail = json!([{"ticket_id": ticket["id"], "outcome": "Email User", "note_html": "<p>Hello</p>", "sendemail": true}]);
    let (_, action) = wire.post("/api/Actions", mail).await;
    assert_eq!(
        (&action["emaildirection"], &action["emailto"]),
        (&json!("O"), &json!("kim.lee@acmedental.example"))
    );
    let outbox = wire.sim.shared.store().outbox.clone();
    assert_eq!(
        (outbox.len(), &outbox[0]["body_html"]),
        (1, &json!("<p>Hello</p>"))
    );
}

/// A webhook receiver that answers with this status, and what it received.
async fn receiver(
    status: u16,
) -> (
    String,
    std::sync::Arc<std::sync::Mutex<Vec<(String, Value)>>>,
) {
    use axum::http::{HeaderMap, StatusCode};
    let got = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let keep = got.clone();
    let app = axum::Router::new().fallback(move |headers: HeaderMap, body: String| {
        let authorization = headers
            .get("authorization")
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
            .to_string();
        keep.lock().unwrap().push((
            authorization,
            serde_json::from_str(&body).unwrap_or(Value::String(body)),
        ));
        async move { StatusCode::from_u16(status).unwrap() }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, got)
}

impl Wire {
    async fn hook(&self, fields: Value) -> String {
        let mut hook = json!({"name": "test"});
        hook.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let (status, hook) = self.post("/api/Webhook", json!([hook])).await;
        assert_eq!(status, 201, "{hook}");
        let id = hook["id"].as_str().unwrap().to_string();
        let row = json!([{"webhook_id": id, "type": -2, "delivery_method": 6, "eventno": "3"}]);
        assert_eq!(self.post("/api/Notification", row).await.0, 201);
        id
    }

    async fn ticket(&self, summary: &str) {
        assert_eq!(
            self.post(
                "/api/Tickets",
                json!([{"summary": summary, "client_id": 12}])
            )
            .await
            .0,
            201
        );
    }

    async fn deliveries(&self, count: usize) -> Vec<Value> {
        for _ in 0..200 {
            let (_, list) = self.get("/api/WebhookEvent").await;
            if list.as_array().is_some_and(|l| l.len() == count) {
                return list.as_array().unwrap().clone();
            }
            self.sim.shared.auth.set_limit(crate::auth::Limit {
                requests: 10_000,
                ..Default::default()
            });
            tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        }
        panic!("never {count} deliveries");
    }
}

#[tokio::test]
async fn payloads_are_full_small_event_or_custom() {
    let wire = Wire::new(ALL).await;
    let (url, got) = receiver(200).await;
    let template = r#"{"text": "$SYMPTOM ($FAULTID) of $AREA"}"#;
    for payload in [
        json!({"payload_type": 0}),
        json!({"payload_type": 1}),
        json!({"payload_type": 2}),
        json!({"payload_type": 3, "custom_payload": template}),
    ] {
        let mut fields = json!({"url": url, "authentication_type": 1, "basic_username": "u", "basic_password": "p"});
        fields
            .as_object_mut()
            .unwrap()
            .extend(payload.as_object().unwrap().clone());
        wire.hook(fields).await;
    }
    wire.ticket("Printer").await;
    let log = wire.deliveries(4).await;
    assert!(
        log.iter().all(|d| d["error"] == false
            && d["responsestatus"] == "200"
            && !d.to_string().contains("dTpw")),
        "no password in the log"
    );
    let got = got.lock().unwrap();
    assert!(
        got.iter()
            .all(|(authorization, _)| authorization == "Basic dTpw")
    );
    let has = |test: &dyn Fn(&Value) -> bool| got.iter().any(|(_, body)| test(body));
    assert!(
        has(&|b| b["ticket"]["details"].is_string() && b["event"] == "new ticket logged"),
        "full"
    );
    assert!(
        has(&|b| b["ticket"]["summary"] == "Printer" && b["ticket"].get("details").is_none()),
        "small"
    );
    assert!(
        has(&|b| b.get("ticket").is_none() && b["object_id"].is_i64()),
        "event only"
    );
    assert!(
        has(&|b| b["text"]
            .as_str()
            .is_some_and(|t| t.starts_with("Printer (") && t.ends_with("of Acme Dental Group"))),
        "custom"
    );
}

#[tokio::test]
async fn deliveries_are_batched_and_can_be_sent_again() {
    let wire = Wire::new(ALL).await;
    let (url, got) = receiver(200).await;
    wire.hook(json!({"url": url, "batch_method": 1, "batch_delay_seconds": 60, "batch_limit": 3}))
        .await;
    for n in 0..3 {
        wire.ticket(&format!("t{n}")).await;
    }
    let log = wire.deliveries(1).await;
    assert_eq!(
        got.lock().unwrap()[0].1.as_array().unwrap().len(),
        3,
        "one delivery of three"
    );
    assert_eq!(
        wire.post("/api/WebhookEvent", json!([{"id": log[0]["id"]}]))
            .await
            .0,
        201
    );
    wire.ticket("x").await;
    wire.ticket("y").await;
    // A delivery sent again follows its webhook's settings, too.
    wire.deliveries(2).await;
}

#[tokio::test]
async fn a_webhook_that_keeps_failing_switches_itself_off() {
    let wire = Wire::new(ALL).await;
    let (url, got) = receiver(500).await;
    let id = wire
        .hook(json!({"url": url, "auto_disable_attempts": 2}))
        .await;
    for n in 1..=2 {
        wire.ticket(&format!("t{n}")).await;
        let log = wire.deliveries(n).await;
        assert_eq!(
            (
                &log[0]["error"],
                &log[0]["status"],
                &log[0]["responsestatus"]
            ),
            (&json!(true), &json!(2), &json!("500"))
        );
    }
    assert_eq!(
        wire.get(&format!("/api/Webhook/{id}")).await.1["disabled"],
        true
    );
    wire.ticket("nobody hears of it").await;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(
        got.lock().unwrap().len(),
        2,
        "one attempt each, none once it is off"
    );
    assert_eq!(
        wire.post("/api/Webhook", json!([{"id": id, "disabled": false}]))
            .await
            .0,
        201
    );
    wire.ticket("again").await;
    wire.deliveries(3).await;
}

#[tokio::test]
async fn events_of_a_posted_webhook_are_ignored_unless_switched_on() {
    let wire = Wire::new(ALL).await;
    let hook = json!([{"name": "a", "url": "https://x.example/", "events": [{"eventno": 3}]}]);
    assert_eq!(
        wire.post("/api/Webhook", hook.clone()).await.1["events"],
        json!([])
    );
    wire.sim.shared.store().settings.events_in_webhook = true;
    assert_eq!(
        wire.post("/api/Webhook", hook).await.1["events"][0]["eventno"],
        3
    );
}
