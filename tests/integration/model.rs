//! A language model through the gateway: its budget, its key, its failures.

use crate::approvals::{DANA, asked, notes_with};
use crate::fake::{Fake, Model, Script, calls, plan, words};
use crate::harness::{ACME, Harness, eventually};
use halopsa_operator::api::ImportedClient;
use halopsa_operator::api::ticket::{StepState, Ticket};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::{Value, json};

pub const KEY: &str = "sk-very-secret";

/// The connection's fields that name this model.
pub async fn configure(harness: &Harness, fake: &Fake, limits: Value) -> Value {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "model", "labels": {"rallied.ai/use": "true"}}, "stringData": {"key": KEY}});
    harness.apply::<Secret>("model", &secret).await;
    let ca = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "model-ca"}, "data": {"ca.crt": fake.ca}});
    harness.apply::<ConfigMap>("model-ca", &ca).await;
    json!({"agent": {"model": {"baseURL": format!("{}/v1", fake.url), "name": "our-model", "apiKeySecretRef": {"name": "model", "key": "key"},
        "caConfigMapRef": {"name": "model-ca"}, "limits": limits}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_reads_plans_acts_and_concludes() {
    let mut harness = Harness::start("model").await;
    let script: Script = Box::new(|n, _| match n {
        0 => calls(&[
            ("halopsa_search_tickets", json!({"query": "printer"})),
            ("halopsa_no_such_tool", json!({})),
        ]),
        1 => calls(&[("submit_plan", plan())]),
        2 => calls(&[(
            "halopsa_update_ticket",
            json!({"status": "In Progress", "why": "because"}),
        )]),
        3 => calls(&[("finish", json!({}))]),
        _ => calls(&[("finish", json!({"message": "The model concludes."}))]),
    });
    let (model, fake) = Model::start(script).await;
    harness
        .execute(&[ACME], configure(&harness, &fake, json!({})).await)
        .await;
    harness.run_agent("acme-dental-group").await;
    let (id, name) = asked(&harness, "Label printer is offline").await;
    assert!(
        harness.our_actions(id)[0]["note"]
            .as_str()
            .unwrap()
            .contains("planned by the model")
    );
    assert!(
        harness.our_actions(id)[1]["note_html"]
            .as_str()
            .unwrap()
            .contains("because")
    );
    harness.reply(id, DANA, "<p>Approved</p>");
    let status = harness.ticket_in(&name, "Done").await.status.unwrap();
    assert_eq!(status.steps[0].state, StepState::Done);
    assert_eq!(notes_with(&harness, id, "The model concludes."), 1);
    let used = status.model.unwrap();
    assert_eq!(
        (
            used.calls,
            used.tokens,
            (used.run, used.turn),
            used.turn_calls
        ),
        (5, 500, (0, 1), 1)
    );
    let requests = model.requests.lock().unwrap().clone();
    assert!(
        requests
            .iter()
            .all(|(key, body)| key == &format!("Bearer {KEY}") && body["model"] == "our-model")
    );
    // The model was told that a tool does not exist, and it was offered the MCP tools.
    let second = requests[1].1.to_string();
    assert!(
        second.contains("there is no tool of this name")
            && second.contains("Printer on reception is offline")
    );
    let offered: Vec<&str> = requests[0].1["tools"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|t| t["function"]["name"].as_str())
        .collect();
    assert!(
        offered.contains(&"halopsa_update_ticket") && offered.contains(&"submit_plan"),
        "{offered:?}"
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_goes_wrong_ends_in_a_useful_note() {
    let mut harness = Harness::start("badmodel").await;
    let (model, fake) = Model::start(Box::new(|_, _| words("hm"))).await;
    let mut more = configure(&harness, &fake, json!({"stepsPerTurn": 6, "timeout": "2s"})).await;
    more["agent"]["mode"] = "Plan".into();
    harness.execute(&[ACME], more).await;
    harness.run_agent("acme-dental-group").await;
    let read = |n: usize| calls(&[("halopsa_search_tickets", json!({"query": format!("q{n}")}))]);
    let scripts: Vec<(&str, Script, &str)> = vec![
        (
            "talks",
            Box::new(|_, _| words("I approve everything.")),
            "it called no tool",
        ),
        (
            "loops over one call",
            Box::new(move |_, _| calls(&[("halopsa_search_tickets", json!({"query": "x"}))])),
            "over and over",
        ),
        (
            "never ends",
            Box::new(move |n, _| read(n)),
            "did not finish within 6 answers",
        ),
        (
            "is down",
            Box::new(|_, _| (500, json!({"error": {"message": "x"}}))),
            "HTTP 500",
        ),
        (
            "has a wrong key",
            Box::new(|_, _| {
                (
                    401,
                    json!({"error": {"message": format!("wrong key {KEY}")}}),
                )
            }),
            "HTTP 401",
        ),
        (
            "gives no JSON",
            Box::new(|_, _| (200, json!("<html>oops</html>"))),
            "not JSON",
        ),
        (
            "gives an empty plan",
            Box::new(|_, _| calls(&[("finish", json!({}))])),
            "its plan was empty",
        ),
        (
            "gives arguments that are not JSON",
            Box::new(|_, _| {
                (
                    200,
                    json!({"choices": [{"message": {"tool_calls": [{"id": "1", "function": {"name": "finish", "arguments": "{"}}]}}]}),
                )
            }),
            "the arguments of its calls are not JSON",
        ),
    ];
    for (what, script, said) in scripts {
        model.play(script);
        let id = harness.open_ticket(ACME, "Label printer is offline");
        harness
            .ticket_in(&format!("acme-dental-group-{id}"), "Done")
            .await;
        let notes = harness.our_notes(id);
        assert_eq!(notes.len(), 1, "{what}");
        assert!(
            notes[0].contains("did not produce a usable result") && notes[0].contains(said),
            "{what}: {}",
            notes[0]
        );
        assert!(
            notes[0].contains("Restart the Print Spooler"),
            "{what}: the built-in diagnosis is missing"
        );
        assert!(!notes[0].contains(KEY), "{what}");
    }
    assert!(model.asked() < 10);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_budget_ends_with_an_honest_note() {
    let mut harness = Harness::start("budget").await;
    let script: Script = Box::new(|n, _| {
        let mut answer = calls(&[("halopsa_search_tickets", json!({"query": format!("q{n}")}))]);
        answer.1["usage"]["total_tokens"] = 30_000.into();
        answer
    });
    let (model, fake) = Model::start(script).await;
    let mut more = configure(
        &harness,
        &fake,
        json!({"tokensPerTicket": 80_000, "tokensPerDay": 180_500}),
    )
    .await;
    more["agent"]["mode"] = "Plan".into();
    harness.execute(&[ACME], more).await;
    harness.run_agent("acme-dental-group").await;
    let api = harness.api::<Ticket>();
    let mut used = 0;
    for said in [
        "this ticket's budget of 80000 tokens is used up",
        "this ticket's budget",
        "the client's budget of 180500 tokens",
    ] {
        let id = harness.open_ticket(ACME, "Label printer is offline");
        let name = format!("acme-dental-group-{id}");
        harness.ticket_in(&name, "Done").await;
        let note = harness.our_notes(id)[0].clone();
        assert!(
            note.contains(said) && note.contains("Restart the Print Spooler"),
            "{said}: {note}"
        );
        used += api
            .get(&name)
            .await
            .unwrap()
            .status
            .unwrap()
            .model
            .map(|m| m.tokens)
            .unwrap_or_default();
    }
    assert!(used <= 180_500, "{used}");
    assert!(model.asked() <= 6);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_through_and_are_counted() {
    let harness = Harness::start("stream").await;
    let stream = "data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"lo\"}}]}\n\ndata: {\"choices\":[],\"usage\":{\"total_tokens\":42}}\n\ndata: [DONE]\n\n";
    let (_, fake) = Model::start(Box::new(move |_, _| (200, json!(stream)))).await;
    harness
        .execute(&[ACME], configure(&harness, &fake, json!({})).await)
        .await;
    let gateway = harness.agent_gateway("acme-dental-group").await;
    let token = std::fs::read_to_string(&gateway.token_file).unwrap();
    let ask = |body: Value| {
        let call = harness
            .http()
            .post(format!("{}/v1/model/chat/completions", harness.gateway))
            .bearer_auth(&token)
            .json(&body)
            .send();
        async { call.await.unwrap() }
    };
    let request = json!({"messages": [{"role": "user", "content": "hi"}], "stream": true});
    assert_eq!(
        ask(request.clone()).await.status().as_u16(),
        409,
        "no model without a ticket"
    );
    let id = harness.open_ticket(ACME, "Label printer is offline");
    let name = format!("acme-dental-group-{id}");
    harness.ticket_in(&name, "Ready").await;
    let work = gateway.claim().await.unwrap().unwrap();
    assert_eq!(work.model.unwrap().name, "our-model");
    let answer = eventually("the claim is known", || async {
        Some(ask(request.clone()).await).filter(|a| a.status().is_success())
    })
    .await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    assert_eq!(answer.text().await.unwrap(), stream);
    let api = harness.api::<Ticket>();
    let used = eventually("the tokens are counted", || async {
        api.get(&name).await.unwrap().status?.model
    })
    .await;
    assert_eq!(used.tokens, 42);
    assert_eq!(ask(json!({"nonsense": 1})).await.status().as_u16(), 400);

    // A client without a model gets 404.
    let mut connection = harness.connection(&[ACME]);
    connection["spec"]["agent"] = json!({"mode": "Execute"});
    harness
        .apply::<halopsa_operator::api::HaloPSAConnection>("halo", &connection)
        .await;
    eventually("no model", || async {
        (ask(request.clone()).await.status().as_u16() == 404).then_some(())
    })
    .await;
    assert_eq!(
        harness
            .api::<ImportedClient>()
            .list(&Default::default())
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    harness.stop().await;
}
