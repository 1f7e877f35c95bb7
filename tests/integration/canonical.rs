//! One canonical call: however an agent spells it, policies decide on what runs, a technician
//! reads it, and nothing else runs.

use crate::approvals::{DANA, LUIS, approve, asked};
use crate::fake::{Tools, plan};
use crate::harness::{ACME, BLUE, Harness, eventually};
use crate::tool_servers;
use halopsa_operator::agent::gateway::{self, Error, Gateway};
use halopsa_operator::api::ticket::{StepState, Ticket};
use halopsa_operator::api::{ToolPolicy, ToolServer};
use halopsa_operator::failpoint;
use halopsa_operator::gateway::wire::Work;
use halosim::store::{Author, object};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use std::time::Duration;

const AGENT: &str = "acme-dental-group";

/// An agent that holds a ticket and has handed in its plan.
struct Held {
    id: i64,
    gateway: Gateway,
    work: Work,
    tools: gateway::Tools,
}

impl Held {
    async fn ticket(harness: &Harness) -> Self {
        let id = harness.open_ticket(ACME, "Label printer is offline");
        harness.assign(id, DANA);
        let gateway = harness.agent_gateway(AGENT).await;
        let work = claim(&gateway).await;
        let plan = serde_json::from_value(plan()).unwrap();
        gateway.plan(&work, &plan).await.unwrap();
        let tools = gateway.tools().await.unwrap();
        Self {
            id,
            gateway,
            work,
            tools,
        }
    }

    /// What the agent is told.
    async fn call(&self, tool: &str, arguments: Value) -> Result<Value, String> {
        self.gateway.heartbeat(&self.work).await.unwrap();
        match self.tools.call_until_settled(tool, arguments).await {
            Ok(result) => Ok(result),
            Err(Error::Tool(why)) => Err(why),
            Err(error) => panic!("{tool}: {error}"),
        }
    }
}

async fn claim(gateway: &Gateway) -> Work {
    eventually("a ticket", || async { gateway.claim().await.unwrap() }).await
}

async fn policy(harness: &Harness, rules: Value) {
    let policy = json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "ToolPolicy", "metadata": {"name": "p"},
        "spec": {"connectionRef": {"name": "halo"}, "rules": rules}});
    harness.apply::<ToolPolicy>("p", &policy).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
}

/// (tool, argument, ways to write the same row)
const SPELLINGS: [(&str, &str, [&str; 5]); 3] = [
    (
        "halopsa_update_ticket",
        "status",
        [
            "With User",
            "with user",
            " With User",
            "With User\u{2003}",
            "4",
        ],
    ),
    (
        "halopsa_update_ticket",
        "priority",
        [
            "Critical",
            "CRITICAL",
            " critical ",
            "\u{2003}Critical",
            "1",
        ],
    ),
    (
        "halopsa_assign_ticket",
        "agent",
        [
            "Luis Ortega",
            "LUIS ORTEGA",
            " luis  ortega",
            "Luis\u{a0}Ortega",
            "4",
        ],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_name_evades_a_rule() {
    let harness = Harness::start("spelling").await;
    harness.execute(&[ACME], json!({})).await;
    let rules = json!([
        {"tools": ["halopsa_update_ticket"], "effect": "Disabled", "when": "has(args.status) && args.status == 'With User'"},
        {"tools": ["halopsa_update_ticket"], "effect": "Disabled", "when": "has(args.priorityId) && args.priorityId == 1"},
        {"tools": ["halopsa_assign_ticket"], "effect": "Disabled", "when": "has(args.agent) && args.agent == 'Luis Ortega'"},
        {"tools": ["*"], "effect": "Auto"}]);
    policy(&harness, rules).await;
    let held = Held::ticket(&harness).await;
    for (tool, field, spellings) in SPELLINGS {
        for spelling in spellings {
            let refused = held.call(tool, json!({field: spelling})).await.unwrap_err();
            assert!(
                refused.contains("no tool"),
                "{field} {spelling:?}: {refused}"
            );
        }
    }
    for (tool, arguments, why) in [
        (
            "halopsa_update_ticket",
            json!({"status": "With\u{200b}User"}),
            "invisible",
        ),
        (
            "halopsa_update_ticket",
            json!({"status": "With User", "statusId": 2}),
            "unknown field",
        ),
        (
            "halopsa_update_ticket",
            json!({"agent": "Dana Novak"}),
            "halopsa_assign_ticket",
        ),
        (
            "halopsa_reply_to_requester",
            json!({"text": "moc.live\u{202e}"}),
            "U+202E",
        ),
    ] {
        let refused = held.call(tool, arguments.clone()).await.unwrap_err();
        assert!(refused.contains(why), "{arguments}: {refused}");
    }
    assert_eq!(
        (
            harness.halo(held.id, "status_id"),
            harness.halo(held.id, "agent_id")
        ),
        (json!(1), json!(DANA))
    );
    // What the rules allow runs at once, in any spelling.
    let done = held
        .call("halopsa_update_ticket", json!({"status": " in  progress "}))
        .await;
    assert_eq!(done.unwrap()["status"], "done");
    assert_eq!(harness.halo(held.id, "status_name"), "In Progress");
    // But a wildcard does not let an agent choose its judge.
    let queued = held
        .call("halopsa_assign_ticket", json!({"agent": "dana novak"}))
        .await;
    assert_eq!(queued.unwrap()["status"], "queued");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_closes_is_not_a_way_around_the_tool_that_closes() {
    let harness = Harness::start("closing").await;
    harness.execute(&[ACME], json!({})).await;
    let rules = json!([
        {"tools": ["halopsa_close_ticket"], "effect": "Disabled"},
        {"tools": ["*"], "effect": "Auto"}]);
    policy(&harness, rules).await;
    let held = Held::ticket(&harness).await;
    for status in [
        "Closed",
        "closed ",
        "9",
        "Geschlossen",
        "GESCHLOSSEN",
        "23",
        "Clôturé",
        "clôturé",
        "24",
        "Resolved",
        "8",
    ] {
        let refused = held
            .call("halopsa_update_ticket", json!({"status": status}))
            .await
            .unwrap_err();
        assert!(
            refused.contains("halopsa_close_ticket"),
            "{status}: {refused}"
        );
    }
    assert_eq!(harness.halo(held.id, "hasbeenclosed"), false);
    assert_eq!(harness.halo(held.id, "status_id"), 1);
    let refused = held
        .call("halopsa_close_ticket", json!({"closureNote": "x"}))
        .await
        .unwrap_err();
    assert!(refused.contains("no tool"), "{refused}");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_of_two_technicians_is_nobodys() {
    let harness = Harness::start("twins").await;
    harness.execute(&[ACME], json!({})).await;
    let twin = json!({"id": 40, "name": "luis ortega", "isdisabled": false, "isapiagent": false});
    harness.sim.shared.store().put("agent", object(twin));
    policy(
        &harness,
        json!([{"tools": ["halopsa_assign_ticket"], "effect": "Auto"}]),
    )
    .await;
    let held = Held::ticket(&harness).await;
    let refused = held
        .call("halopsa_assign_ticket", json!({"agent": "Luis Ortega"}))
        .await
        .unwrap_err();
    assert!(refused.contains("give the id, one of: 4, 40"), "{refused}");
    assert_eq!(harness.halo(held.id, "agent_id"), json!(DANA));
    let done = held
        .call("halopsa_assign_ticket", json!({"agent": "4"}))
        .await;
    assert_eq!(done.unwrap()["status"], "done");
    assert_eq!(harness.halo(held.id, "agent_id"), json!(LUIS));
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_decides_is_not_changed_while_a_request_stands() {
    let harness = Harness::start("judge").await;
    harness.execute(&[ACME], json!({})).await;
    policy(
        &harness,
        json!([{"tools": ["halopsa_assign_ticket"], "effect": "Auto"}]),
    )
    .await;
    let mut held = Held::ticket(&harness).await;
    let queued = held
        .call("halopsa_update_ticket", json!({"status": "In Progress"}))
        .await;
    assert_eq!(queued.unwrap()["status"], "queued");
    held.gateway.complete(&held.work, None, None).await.unwrap();
    let name = format!("{AGENT}-{}", held.id);
    harness.ticket_in(&name, "AwaitingApproval").await;
    // A question wakes the agent, and the request still stands.
    harness.reply(held.id, DANA, "<p>What is this for?</p>");
    held.work = claim(&held.gateway).await;
    assert!(held.work.approval_pending);
    let refused = held
        .call("halopsa_assign_ticket", json!({"agent": "Luis Ortega"}))
        .await
        .unwrap_err();
    assert!(
        refused.contains("a request for approval stands"),
        "{refused}"
    );
    assert_eq!(harness.halo(held.id, "agent_id"), json!(DANA));
    harness.stop().await;
}

/// Makes somebody else of the client the ticket's requester.
fn swap_requester(harness: &Harness, ticket: i64, user: i64) {
    let author = Author::Agent {
        id: LUIS,
        application: "nethelpdesk-agent-web-application".into(),
    };
    let input = json!({"id": ticket, "tickettype_id": 1, "client_id": ACME, "user_id": user});
    let mut store = harness.sim.shared.store();
    store.write_ticket(&object(input), &author).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_goes_to_whom_the_request_names_or_to_nobody() {
    let mut harness = Harness::start("recipient").await;
    harness.execute(&[ACME], json!({})).await;
    harness.run_agent(AGENT).await;
    let (id, name) = asked(&harness, "Label printer is offline").await;
    let request = harness.our_actions(id)[1]["note_html"].to_string();
    assert!(request.contains("kim.lee@acmedental.example"), "{request}");
    let kim = harness.halo(id, "user_id").as_i64().unwrap();
    swap_requester(&harness, id, kim + 1);
    harness.reply(id, DANA, "<p>Approved</p>");
    let status = harness.ticket_in(&name, "Done").await.status.unwrap();
    assert_eq!(
        status.steps[0].state,
        StepState::Failed,
        "{:?}",
        status.steps
    );
    let why = status.steps[0].result.clone().unwrap_or_default();
    assert!(why.contains("the requester has changed"), "{why}");
    let public = |id: i64| {
        let actions = harness.our_actions(id).into_iter();
        actions
            .filter(|a| a["hiddenfromuser"] == false)
            .collect::<Vec<_>>()
    };
    assert!(public(id).is_empty(), "nothing was sent");
    assert_eq!(
        harness.halo(id, "status_id"),
        1,
        "nor was anything after it"
    );

    // With the same requester it is sent, to exactly that address.
    let (id, name) = asked(&harness, "Label printer is offline again").await;
    harness.reply(id, DANA, "<p>Approved</p>");
    harness.ticket_in(&name, "Done").await;
    let sent = public(id);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0]["emailto"], "kim.lee@acmedental.example");
    harness.stop().await;
}

/// A ticket whose call of a ToolServer was approved, and whose gateway ends before it makes it.
async fn approved(harness: &mut Harness, change: impl AsyncFnOnce(&Harness, i64)) -> String {
    tool_servers::workflow(harness).await;
    harness.run_agent(AGENT).await;
    let (id, name) = asked(harness, "User profile is stuck").await;
    let ended = failpoint::arm(&harness.namespace, "steps.taken", 1);
    approve(harness, id, &name).await;
    let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
    ended.expect("the steps are taken").unwrap();
    change(harness, id).await;
    harness.restart().await;
    name
}

fn set(harness: &Harness, id: i64, field: &str, value: Value) {
    let mut store = harness.sim.shared.store();
    let ticket = store.get_mut("tickets", id).unwrap();
    ticket.insert(field.into(), value);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_servers_tool_is_not_called_for_a_ticket_that_is_closed() {
    let mut harness = Harness::start("closedsince").await;
    harness.execute(&[ACME], json!({})).await;
    let (tools, fake) = Tools::start(&[("reset_password", "Resets a password")]).await;
    tool_servers::server(&harness, &fake, json!({})).await;
    let name = approved(&mut harness, async |harness: &Harness, id: i64| {
        set(harness, id, "hasbeenclosed", true.into());
    })
    .await;
    let failed = step_failed(&harness, &name).await;
    assert!(failed.contains("the ticket is closed"), "{failed}");
    assert!(tools.called.lock().unwrap().is_empty());
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_called_or_written_for_a_ticket_of_another_client() {
    let mut harness = Harness::start("movedsince").await;
    harness.execute(&[ACME, BLUE], json!({})).await;
    let (tools, fake) = Tools::start(&[("reset_password", "Resets a password")]).await;
    tool_servers::server(&harness, &fake, json!({})).await;
    let name = approved(&mut harness, async |harness: &Harness, id: i64| {
        set(harness, id, "client_id", BLUE.into());
    })
    .await;
    let status = harness.ticket_in(&name, "Ignored").await.status.unwrap();
    assert_eq!(status.reason.as_deref(), Some("Moved"));
    assert!(tools.called.lock().unwrap().is_empty());
    let id: i64 = name.rsplit('-').next().unwrap().parse().unwrap();
    assert_eq!(harness.our_actions(id).len(), 2, "plan and request");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_servers_tool_is_not_called_at_another_address() {
    let mut harness = Harness::start("readdressed").await;
    harness.execute(&[ACME], json!({})).await;
    let (tools, fake) = Tools::start(&[("reset_password", "Resets a password")]).await;
    tool_servers::server(&harness, &fake, json!({})).await;
    // The same server, the same tool, under another address.
    let url = format!("{}/mcp/", fake.url);
    let name = approved(&mut harness, async |harness: &Harness, _: i64| {
        let patch = json!({"spec": {"url": url}});
        harness
            .api::<ToolServer>()
            .patch("m365", &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    })
    .await;
    let failed = step_failed(&harness, &name).await;
    assert!(failed.contains("URL"), "{failed}");
    assert!(tools.called.lock().unwrap().is_empty());
    harness.stop().await;
}

/// Why the first step failed.
async fn step_failed(harness: &Harness, name: &str) -> String {
    let api = harness.api::<Ticket>();
    eventually("the step has failed", || async {
        let status = api.get(name).await.unwrap().status?;
        let step = status.steps.first()?;
        (step.state == StepState::Failed).then(|| step.result.clone().unwrap_or_default())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closure_note_is_no_markup_and_fills_in_nothing() {
    let harness = Harness::start("closure").await;
    harness.execute(&[ACME], json!({})).await;
    policy(
        &harness,
        json!([{"tools": ["halopsa_*"], "effect": "Auto"}]),
    )
    .await;
    let held = Held::ticket(&harness).await;
    let note = "Done <img src=x onerror=alert(1)> $USERNAME";
    let done = held
        .call("halopsa_close_ticket", json!({"closureNote": note}))
        .await;
    // The controller may see the closed ticket before the step's end is stored.
    assert!(match done {
        Ok(done) => done["result"] == "closed",
        Err(why) => why.contains("it has ended"),
    });
    let kept = harness.halo(held.id, "closure_note").to_string();
    assert!(
        kept.contains("&lt;img") && kept.contains("$ USERNAME"),
        "{kept}"
    );
    assert!(kept.contains("Reference: rallied-"), "{kept}");
    harness.stop().await;
}
