//! Third-party agents: any program, any MCP client.

use crate::approvals::{DANA, asked, notes_with};
use crate::harness::{ACME, Harness};
use crate::walls::hold;
use halopsa_operator::agent::gateway::Gateway;
use halopsa_operator::api::ticket::StepState;
use serde_json::json;
use std::process::{Child, Command, Stdio};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/agent.py");

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn with_gateway<'a>(command: &'a mut Command, gateway: &Gateway) -> &'a mut Command {
    command
        .env("HALOPSA_GATEWAY_URL", &gateway.url)
        .env("HALOPSA_GATEWAY_CA", &gateway.ca_file)
        .env("HALOPSA_TOKEN_FILE", &gateway.token_file)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_example_works_a_ticket_to_its_end() {
    let harness = Harness::start("python").await;
    harness.execute(&[ACME], json!({})).await;
    let gateway = harness.agent_gateway("acme-dental-group").await;
    let mut command = Command::new("python3");
    let _agent = Running(
        with_gateway(command.arg(EXAMPLE), &gateway)
            .stderr(Stdio::null())
            .spawn()
            .expect("python3"),
    );
    let (id, name) = asked(&harness, "Printer offline").await;
    harness.reply(id, DANA, "<p>Go ahead</p>");
    let status = harness.ticket_in(&name, "Done").await.status.unwrap();
    assert!(status.steps.iter().all(|s| s.state == StepState::Done));
    assert_eq!(notes_with(&harness, id, "the example agent is done"), 1);
    harness.stop().await;
}

#[test]
fn the_documentation_shows_the_example_as_it_is() {
    let example = std::fs::read_to_string(EXAMPLE).unwrap();
    let document = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/docs/agent-interface.md"
    ))
    .unwrap();
    assert!(
        document.contains(&example),
        "docs/agent-interface.md differs from examples/agent.py"
    );
    assert!(example.lines().count() <= 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_independent_mcp_client_finds_everything_by_the_book() {
    let harness = Harness::start("go").await;
    harness.execute(&[ACME], json!({})).await;
    let gateway = harness.agent_gateway("acme-dental-group").await;
    hold(&harness, &gateway, "Scanner is slow").await;
    let mut command = Command::new("go");
    command
        .args(["run", "."])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance"));
    let output = tokio::task::spawn_blocking(move || {
        with_gateway(&mut command, &gateway).output().expect("go")
    })
    .await
    .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(String::from_utf8_lossy(&output.stdout).lines().count() > 20);
    harness.stop().await;
}
