//! What `kubectl halopsa` and `--help` print.

use clap::CommandFactory;
use halopsa_operator::api::HaloPSAConnection;
use halopsa_operator::api::Mode;
use halopsa_operator::api::policy::Effect;
use halopsa_operator::cli::findings::{
    ExpectedWebhook, HaloAccess, HaloState, Observed, WebhookState, findings, report,
};
use halopsa_operator::cli::{policy, table::table};
use halopsa_operator::halopsa::types::{Agent, Webhook};
use halopsa_operator::policy::Decision;

fn connection() -> HaloPSAConnection {
    serde_yaml::from_str(
        r"
apiVersion: rallied.ai/v1alpha1
kind: HaloPSAConnection
metadata: {name: acme-halo, namespace: msp}
spec:
  instanceURL: https://halo.example.com
  credentialsSecretRef: {name: halopsa}
  webhook: {url: https://hooks.example.com}
  clients: {all: true}
",
    )
    .expect("a connection")
}

fn doctor(halo: HaloAccess) -> String {
    report(&findings(&Observed {
        connection: connection(),
        halo,
        provider: None,
        clients: Vec::new(),
    }))
}

fn signed_in(webhook: Option<WebhookState>) -> HaloAccess {
    HaloAccess::SignedIn(Box::new(HaloState {
        scopes: ["all:standard", "all:teams", "admin:webhooks"]
            .map(str::to_string)
            .into(),
        excess_scopes: Vec::new(),
        api_agent: Ok(Agent {
            name: "Rallied Agent".into(),
            ..Agent::default()
        }),
        expected: ExpectedWebhook::new(&connection(), "rallied-0011".into()),
        webhook: Ok(webhook),
    }))
}

#[test]
fn doctor_reports() {
    let no_secret = "Secret halopsa does not exist; create it".to_string();
    insta::assert_snapshot!(
        "doctor_no_credentials",
        doctor(HaloAccess::NoCredentials(no_secret))
    );
    let rejected = "HaloPSA rejected the sign-in".to_string();
    insta::assert_snapshot!("doctor_no_sign_in", doctor(HaloAccess::NoSignIn(rejected)));
    insta::assert_snapshot!("doctor_no_webhook", doctor(signed_in(None)));
    let other = WebhookState {
        webhook: Webhook::default(),
        notifications: Ok(Vec::new()),
        deliveries: Ok(Vec::new()),
    };
    insta::assert_snapshot!("doctor_webhook_differs", doctor(signed_in(Some(other))));
}

#[test]
fn policy_explained() {
    for (name, effect) in [
        ("explain_auto", Effect::Auto),
        ("explain_approval", Effect::ApprovalNeeded),
        ("explain_disabled", Effect::Disabled),
    ] {
        let decision = Decision {
            effect,
            rule: "policy defaults, rule 1".into(),
            approvers: None,
            require_verification: false,
            reason: String::new(),
        };
        let lines = ["defaults, rule 1 names halopsa_*".to_string()];
        let tool = "halopsa_update_ticket";
        let text = policy::shown("acme", Mode::Execute, tool, &decision, &lines);
        insta::assert_snapshot!(name, text);
    }
}

#[test]
fn tables() {
    let rows = [
        ["NAME", "CLIENT", "AGENT"],
        ["acme", "Acme Ltd", "Idle"],
        ["northwind", "Northwind Traders", "Active"],
    ];
    let rows = rows.map(|row| row.map(str::to_string).to_vec());
    insta::assert_snapshot!(table(&rows));
}

#[test]
fn help_of_the_processes() {
    #[derive(clap::Parser)]
    enum Command {
        Controller(halopsa_operator::run::ControllerArgs),
        Gateway(halopsa_operator::run::GatewayArgs),
        Receiver(halopsa_operator::run::ReceiverArgs),
    }
    for process in ["controller", "gateway", "receiver"] {
        let mut command = Command::command();
        let help = command
            .find_subcommand_mut(process)
            .unwrap()
            .render_long_help();
        insta::assert_snapshot!(format!("help_{process}"), help.to_string());
    }
}
