use super::facts::Requester;
use super::*;
use crate::api::Mode;
use crate::ids::TechnicianId;
use proptest::prelude::*;
use serde_json::json;

fn rule(tool: &str, effect: Effect, when: Option<&str>) -> ToolRule {
    ToolRule {
        tools: vec![tool.to_string()],
        effect,
        when: when.map(str::to_string),
        approvers: None,
        require_verification: None,
    }
}

fn policy(clients: Option<&[&str]>, rules: &[(&str, Effect)]) -> ToolPolicySpec {
    ToolPolicySpec {
        clients: clients.map(|c| c.iter().map(|s| s.to_string()).collect()),
        rules: rules
            .iter()
            .map(|(tool, effect)| rule(tool, *effect, None))
            .collect(),
        ..ToolPolicySpec::default()
    }
}

fn with_name<'a>(name: &'a str, spec: &'a ToolPolicySpec) -> Named<'a> {
    Named { name, spec }
}

fn ask(
    mode: Mode,
    client: &str,
    tool: &str,
    access: Access,
    arguments: Value,
    policies: &[Named<'_>],
) -> Decision {
    let labels = BTreeMap::from([(
        "tier".to_string(),
        if client == "acme" { "gold" } else { "none" }.to_string(),
    )]);
    let arguments = arguments.as_object().cloned().unwrap_or_default();
    let facts = TicketFacts::default();
    let call = Call {
        tool,
        access,
        sensitive: false,
        arguments: &arguments,
        ticket: Some(&facts),
    };
    decide(
        mode,
        Client {
            name: client,
            labels: &labels,
        },
        &call,
        policies,
    )
}

use Effect::{ApprovalNeeded, Auto, Disabled};

#[test]
fn precedence() {
    let whole = policy(
        None,
        &[
            ("halopsa_get_*", ApprovalNeeded),
            ("halopsa_delete_*", Disabled),
            ("*", Auto),
        ],
    );
    let acme = policy(
        Some(&["acme"]),
        &[("halopsa_get_user", Auto), ("halopsa_delete_*", Auto)],
    );
    let mut gold = policy(None, &[("other", ApprovalNeeded)]);
    gold.client_selector =
        serde_json::from_value(json!({"matchLabels": {"tier": "gold"}})).unwrap();
    let all = [
        with_name("whole", &whole),
        with_name("acme", &acme),
        with_name("gold", &gold),
    ];
    for (client, tool, access, effect, rule) in [
        (
            "acme",
            "halopsa_get_user",
            Access::Read,
            Auto,
            "ToolPolicy acme, rule 1",
        ),
        (
            "blue",
            "halopsa_get_user",
            Access::Read,
            ApprovalNeeded,
            "ToolPolicy whole, rule 1",
        ),
        (
            "acme",
            "halopsa_delete_x",
            Access::Destructive,
            Disabled,
            "ToolPolicy whole, rule 2",
        ),
        (
            "blue",
            "other",
            Access::Write,
            Auto,
            "ToolPolicy whole, rule 3",
        ),
        (
            "acme",
            "other",
            Access::Write,
            ApprovalNeeded,
            "ToolPolicy gold, rule 1",
        ),
    ] {
        let decision = ask(Mode::Execute, client, tool, access, json!({}), &all);
        assert_eq!(
            (decision.effect, decision.rule.as_str()),
            (effect, rule),
            "{client} {tool}"
        );
    }
}

#[test]
fn without_policies_the_built_in_defaults_decide() {
    for (access, effect) in [
        (Access::Read, Auto),
        (Access::Write, ApprovalNeeded),
        (Access::Destructive, Disabled),
    ] {
        assert_eq!(
            ask(Mode::Execute, "acme", "x", access, json!({}), &[]).effect,
            effect
        );
    }
}

#[test]
fn the_first_rule_that_holds_decides_and_the_stricter_policy() {
    let spec = ToolPolicySpec {
        rules: vec![
            rule("t", Disabled, Some("args.status == 'Closed'")),
            rule("t", Auto, Some("args.minutes <= 15")),
            rule("t", ApprovalNeeded, None),
        ],
        ..ToolPolicySpec::default()
    };
    let named = [with_name("p", &spec)];
    for (arguments, effect) in [
        (json!({"status": "Closed", "minutes": 5}), Disabled),
        (json!({"status": "New", "minutes": 5}), Auto),
        (json!({"status": "New", "minutes": 50}), ApprovalNeeded),
        // Cannot be evaluated: counts against the call.
        (json!({"minutes": 5}), Disabled),
        (json!({"status": "New"}), ApprovalNeeded),
        (json!({"status": "New", "minutes": "5"}), ApprovalNeeded),
    ] {
        assert_eq!(
            ask(
                Mode::Execute,
                "acme",
                "t",
                Access::Write,
                arguments.clone(),
                &named
            )
            .effect,
            effect,
            "{arguments}"
        );
    }
    let loose = policy(None, &[("t", Auto)]);
    let both = [with_name("a", &loose), with_name("p", &spec)];
    assert_eq!(
        ask(
            Mode::Execute,
            "acme",
            "t",
            Access::Write,
            json!({"status": "New"}),
            &both
        )
        .effect,
        ApprovalNeeded
    );
}

#[test]
fn an_explanation_names_what_decided_and_what_did_not() {
    let spec = ToolPolicySpec {
        rules: vec![
            rule("t", Disabled, Some("args.x == 1")),
            rule("t", Auto, None),
        ],
        ..ToolPolicySpec::default()
    };
    let other = policy(Some(&["blue"]), &[("t", Disabled)]);
    let named = [with_name("p", &spec), with_name("q", &other)];
    let labels = BTreeMap::new();
    let arguments = json!({"x": 2}).as_object().cloned().unwrap();
    let facts = TicketFacts::default();
    let call = Call {
        tool: "t",
        access: Access::Write,
        sensitive: false,
        arguments: &arguments,
        ticket: Some(&facts),
    };
    let (decision, lines) = explain(
        Mode::Execute,
        Client {
            name: "acme",
            labels: &labels,
        },
        &call,
        &named,
    );
    assert_eq!(
        (decision.effect, decision.rule.as_str()),
        (Auto, "ToolPolicy p, rule 2")
    );
    let text = lines.join("\n");
    for part in [
        "rule 1 would say Disabled, but does not count, since args.x == 1 does not hold",
        "rule 2 says Auto",
        "q is for other clients",
        "built-in: ApprovalNeeded",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn what_is_broken_allows_nothing() {
    let spec = ToolPolicySpec {
        rules: vec![
            rule("t", Auto, Some("args.")),
            rule("u", Disabled, Some("args.")),
        ],
        ..ToolPolicySpec::default()
    };
    let named = [with_name("p", &spec)];
    assert_eq!(
        ask(Mode::Execute, "acme", "t", Access::Write, json!({}), &named).effect,
        ApprovalNeeded
    );
    assert_eq!(
        ask(Mode::Execute, "acme", "u", Access::Read, json!({}), &named).effect,
        Disabled
    );
    let mut selector = policy(None, &[("t", Auto), ("u", Disabled)]);
    selector.client_selector = serde_json::from_value(
        json!({"matchExpressions": [{"key": "a", "operator": "Sometimes"}]}),
    )
    .unwrap();
    let named = [with_name("p", &selector)];
    assert_eq!(
        ask(Mode::Execute, "acme", "t", Access::Write, json!({}), &named).effect,
        ApprovalNeeded
    );
    assert_eq!(
        ask(Mode::Execute, "acme", "u", Access::Read, json!({}), &named).effect,
        Disabled
    );
}

#[test]
fn other_spellings_of_a_name_evade_no_rule() {
    let spec = policy(
        None,
        &[("halopsa_close_ticket", Disabled), ("halopsa_*", Auto)],
    );
    let named = [with_name("p", &spec)];
    for (tool, effect) in [
        ("halopsa_close_ticket", Disabled),
        ("HALOPSA_CLOSE_TICKET", Disabled),
        // Not in the catalogue, so never run; and no pattern lets it through.
        ("xhalopsa_close_ticket", ApprovalNeeded),
        ("halopsа_close_ticket", ApprovalNeeded),
    ] {
        assert_eq!(
            ask(
                Mode::Execute,
                "acme",
                tool,
                Access::Write,
                json!({}),
                &named
            )
            .effect,
            effect,
            "{tool}"
        );
    }
}

#[test]
fn only_what_can_never_run_is_hidden() {
    let labels = BTreeMap::new();
    let client = Client {
        name: "acme",
        labels: &labels,
    };
    let spec = ToolPolicySpec {
        rules: vec![
            rule("a", Disabled, Some("args.x == 1")),
            rule("b", Disabled, None),
            rule("c", Disabled, Some("true")),
            rule("c", Auto, None),
        ],
        ..ToolPolicySpec::default()
    };
    let named = [with_name("p", &spec)];
    for (tool, access, seen) in [
        ("a", Access::Write, true),
        ("b", Access::Read, false),
        ("c", Access::Write, true),
        ("d", Access::Destructive, false),
        ("d", Access::Write, true),
    ] {
        assert_eq!(
            visible(Mode::Execute, client, tool, access, &named),
            seen,
            "{tool}"
        );
    }
    assert!(!visible(Mode::Plan, client, "c", Access::Write, &named));
}

fn effects() -> impl Strategy<Value = Effect> {
    prop_oneof![Just(Auto), Just(ApprovalNeeded), Just(Disabled)]
}

proptest! {
    #[test]
    fn no_policy_lets_plan_mode_write(
        rules in prop::collection::vec(("[a-z_*]{1,12}", effects()), 0..8),
        own in any::<bool>(),
        tool in "[a-z_]{1,12}",
    ) {
        let rules: Vec<(&str, Effect)> = rules.iter().map(|(t, e)| (t.as_str(), *e)).collect();
        let spec = policy(own.then_some(&["acme"][..]), &rules);
        let named = [with_name("p", &spec)];
        for access in [Access::Write, Access::Destructive] {
            let decision = ask(Mode::Plan, "acme", &tool, access, json!({}), &named);
            prop_assert_eq!(decision.effect, Disabled);
        }
    }

    #[test]
    fn no_argument_changes_a_decision_without_when(
        rules in prop::collection::vec(("[a-c*]{1,3}", effects()), 0..6),
        tool in "[a-cA-C]{1,3}",
        key in ".{0,10}",
        value in ".{0,40}",
    ) {
        let rules: Vec<(&str, Effect)> = rules.iter().map(|(t, e)| (t.as_str(), *e)).collect();
        let spec = policy(None, &rules);
        let named = [with_name("p", &spec)];
        let decide = |tool: &str, arguments: Value| {
            ask(Mode::Execute, "acme", tool, Access::Write, arguments, &named)
        };
        let plain = decide(&tool, json!({}));
        prop_assert_eq!(&decide(&tool, json!({key: value})), &plain);
        // Nor does the case of the name.
        prop_assert_eq!(decide(&tool.to_uppercase(), json!({})).effect, plain.effect);
    }

    #[test]
    fn disabled_on_the_connection_stays_disabled(
        rules in prop::collection::vec(("[a-c*]{1,3}", effects()), 0..6),
        tool in "[a-c]{1,3}",
    ) {
        let lock = policy(None, &[(&tool, Disabled)]);
        let rules: Vec<(&str, Effect)> = rules.iter().map(|(t, e)| (t.as_str(), *e)).collect();
        let own = policy(Some(&["acme"]), &rules);
        let named = [with_name("lock", &lock), with_name("own", &own)];
        let decision = ask(Mode::Execute, "acme", &tool, Access::Read, json!({}), &named);
        prop_assert_eq!(decision.effect, Disabled);
    }
}

/// A rule for `t` that names it so.
fn naming(tool: &str, effect: Effect, require_verification: Option<bool>) -> ToolRule {
    ToolRule {
        require_verification,
        ..rule(tool, effect, None)
    }
}

fn spec(clients: Option<&[&str]>, rules: Vec<ToolRule>) -> ToolPolicySpec {
    ToolPolicySpec {
        rules,
        ..policy(clients, &[])
    }
}

fn broken(rules: Vec<ToolRule>) -> ToolPolicySpec {
    let mut spec = spec(None, rules);
    spec.client_selector = serde_json::from_value(
        json!({"matchExpressions": [{"key": "a", "operator": "Sometimes"}]}),
    )
    .unwrap();
    spec
}

/// The decision about `t` for `acme`.
fn about(
    access: Access,
    sensitive: bool,
    arguments: Value,
    ticket: Option<&TicketFacts>,
    specs: &[ToolPolicySpec],
) -> Decision {
    let labels = BTreeMap::new();
    let client = Client {
        name: "acme",
        labels: &labels,
    };
    let names: Vec<String> = (0..specs.len()).map(|n| format!("p{n}")).collect();
    let named: Vec<Named<'_>> = names
        .iter()
        .zip(specs)
        .map(|(name, spec)| with_name(name, spec))
        .collect();
    let arguments = arguments.as_object().cloned().unwrap_or_default();
    let call = Call {
        tool: "t",
        access,
        sensitive,
        arguments: &arguments,
        ticket,
    };
    let decision = decide(Mode::Execute, client, &call, &named);
    let shown = visible(Mode::Execute, client, "t", access, &named);
    assert!(
        shown || decision.effect == Disabled,
        "hidden, but {decision:?}"
    );
    decision
}

#[test]
fn a_condition_that_cannot_be_told_never_loosens_what_follows() {
    let cheap = || rule("t", ApprovalNeeded, Some("args.amount < 100"));
    let facts = TicketFacts::default();
    for (access, rules, effect) in [
        (
            Access::Write,
            vec![cheap(), rule("t", Disabled, None)],
            Disabled,
        ),
        (
            Access::Write,
            vec![cheap(), rule("t", Auto, None)],
            ApprovalNeeded,
        ),
        (Access::Write, vec![cheap()], ApprovalNeeded),
        (Access::Read, vec![cheap()], ApprovalNeeded),
        (Access::Destructive, vec![cheap()], Disabled),
        (
            Access::Destructive,
            vec![cheap(), rule("t", Auto, None)],
            ApprovalNeeded,
        ),
    ] {
        for arguments in [json!({}), json!({"amount": "1"}), json!({"amount": null})] {
            let specs = [spec(None, rules.clone())];
            let decision = about(access, false, arguments.clone(), Some(&facts), &specs);
            assert_eq!(decision.effect, effect, "{access:?} {rules:?} {arguments}");
            assert!(decision.reason.contains("could not be evaluated"));
        }
    }
}

#[test]
fn a_broken_selector_never_loosens() {
    let locked = || spec(None, vec![naming("t", ApprovalNeeded, Some(true))]);
    let facts = TicketFacts::default();
    for (access, specs, effect, verified) in [
        (
            Access::Destructive,
            vec![broken(vec![naming("t", ApprovalNeeded, None)])],
            Disabled,
            false,
        ),
        (
            Access::Write,
            vec![broken(vec![naming("t", Auto, Some(false))]), locked()],
            ApprovalNeeded,
            true,
        ),
        (
            Access::Write,
            vec![broken(vec![naming("t", Disabled, None)]), locked()],
            Disabled,
            true,
        ),
        (
            Access::Read,
            vec![
                broken(vec![naming("t", ApprovalNeeded, None)]),
                spec(Some(&["acme"]), vec![naming("t", Auto, None)]),
            ],
            ApprovalNeeded,
            false,
        ),
    ] {
        let decision = about(access, false, json!({}), Some(&facts), &specs);
        assert_eq!(decision.effect, effect, "{access:?} {specs:?}");
        let asks = verified && effect != Disabled;
        assert_eq!(decision.require_verification && effect != Disabled, asks);
    }
}

#[test]
fn a_destructive_tool_is_enabled_by_its_name_only() {
    let own: Option<&[&str]> = Some(&["acme"]);
    let exact = |clients| spec(clients, vec![naming("t", ApprovalNeeded, None)]);
    let pattern = |clients, name| spec(clients, vec![naming(name, Auto, None)]);
    for (specs, effect) in [
        (vec![pattern(None, "*")], Disabled),
        (vec![pattern(None, "t*")], Disabled),
        (vec![pattern(own, "*")], Disabled),
        (vec![pattern(own, "*"), pattern(None, "*")], Disabled),
        (vec![exact(None)], ApprovalNeeded),
        // The rest of the connection is under a catch-all.
        (vec![exact(None), pattern(None, "*")], ApprovalNeeded),
        (vec![exact(own), pattern(None, "*")], ApprovalNeeded),
        (vec![pattern(own, "*"), exact(None)], Disabled),
        (
            vec![spec(
                None,
                vec![naming("*", ApprovalNeeded, None), naming("t", Auto, None)],
            )],
            Disabled,
        ),
        (
            vec![spec(
                None,
                vec![naming("t", Auto, None), naming("*", ApprovalNeeded, None)],
            )],
            Auto,
        ),
        (
            vec![exact(own), spec(None, vec![naming("*", Disabled, None)])],
            Disabled,
        ),
    ] {
        let facts = TicketFacts::default();
        let decision = about(Access::Destructive, false, json!({}), Some(&facts), &specs);
        assert_eq!(decision.effect, effect, "{specs:?}");
    }
    let decision = about(
        Access::Destructive,
        false,
        json!({}),
        None,
        &[pattern(None, "*")],
    );
    assert!(
        decision.because().contains("names it exactly"),
        "{decision:?}"
    );
}

#[test]
fn a_requirement_outlives_every_merge() {
    let own: Option<&[&str]> = Some(&["acme"]);
    let one = |clients, verify| spec(clients, vec![naming("t", Auto, verify)]);
    for (sensitive, specs, verified) in [
        (false, vec![], false),
        (false, vec![one(None, Some(true))], true),
        (false, vec![one(None, None), one(None, Some(true))], true),
        (
            false,
            vec![one(None, Some(true)), one(None, Some(false))],
            true,
        ),
        (false, vec![one(None, Some(true)), one(own, None)], true),
        (
            false,
            vec![one(None, Some(true)), one(own, Some(false))],
            true,
        ),
        (
            false,
            vec![one(own, Some(true)), one(own, Some(false))],
            true,
        ),
        (false, vec![one(None, Some(false))], false),
        // A sensitive tool requires it unless a rule says otherwise, in its name.
        (true, vec![], true),
        (true, vec![one(None, None)], true),
        (true, vec![one(None, Some(false))], false),
        (true, vec![one(own, Some(false))], false),
        (
            true,
            vec![one(own, Some(false)), one(None, Some(true))],
            true,
        ),
        (true, vec![one(own, None), one(None, Some(false))], true),
        (
            true,
            vec![spec(None, vec![naming("*", Auto, Some(false))])],
            true,
        ),
        (
            true,
            vec![
                one(None, Some(false)),
                spec(None, vec![naming("*", Auto, None)]),
            ],
            false,
        ),
    ] {
        for access in [Access::Read, Access::Write] {
            let decision = about(access, sensitive, json!({}), None, &specs);
            assert_eq!(
                decision.require_verification, verified,
                "{sensitive} {specs:?}"
            );
            assert_eq!(!decision.reason.is_empty(), verified, "{decision:?}");
        }
    }
}

#[test]
fn without_facts_a_rule_about_the_ticket_counts_against_reads_too() {
    let critical = "ticket.priority == 'Critical'";
    let specs = [spec(None, vec![rule("t", Disabled, Some(critical))])];
    let decide = |facts| about(Access::Read, false, json!({}), facts, &specs).effect;
    assert_eq!(decide(None), Disabled);
    assert_eq!(decide(Some(&TicketFacts::default())), Auto);
    let specs = [spec(None, vec![rule("t", Auto, Some("ticket.id > 0"))])];
    let decision = about(Access::Write, false, json!({}), None, &specs);
    assert_eq!(decision.effect, ApprovalNeeded);
}

#[test]
fn a_rule_can_say_that_the_call_is_about_the_requester() {
    let about_self = "args.user.lowerAscii() == ticket.requester.email";
    let specs = [spec(
        None,
        vec![
            rule("t", ApprovalNeeded, Some(about_self)),
            rule("t", Disabled, None),
        ],
    )];
    let facts = TicketFacts {
        requester: Requester {
            email: Some("kim@acme.example".into()),
            ..Requester::default()
        },
        ..TicketFacts::default()
    };
    let none = TicketFacts::default();
    for (user, facts, effect) in [
        (json!("Kim@acme.example"), &facts, ApprovalNeeded),
        (json!("ceo@acme.example"), &facts, Disabled),
        (json!(["kim@acme.example"]), &facts, Disabled),
        (json!("kim@acme.example"), &none, Disabled),
    ] {
        let arguments = json!({"user": user});
        let decision = about(Access::Write, false, arguments, Some(facts), &specs);
        assert_eq!(decision.effect, effect, "{user}");
    }
}

#[test]
fn policies_of_one_level_have_their_approvers_in_common() {
    let by = |ids: &[i64]| {
        let approvers = Approvers {
            agent_ids: Some(ids.iter().map(|id| TechnicianId(*id)).collect()),
            team: None,
        };
        let rule = ToolRule {
            approvers: Some(approvers),
            ..rule("t", ApprovalNeeded, None)
        };
        spec(None, vec![rule])
    };
    let nobody = || spec(None, vec![rule("t", ApprovalNeeded, None)]);
    for (specs, ids) in [
        (vec![by(&[3, 4])], Some(vec![3, 4])),
        (vec![by(&[3, 4]), by(&[4, 5])], Some(vec![4])),
        (vec![by(&[3, 4]), nobody()], None),
        (vec![nobody(), by(&[3, 4])], None),
    ] {
        let decision = about(Access::Write, false, json!({}), None, &specs);
        let found = decision.approvers.and_then(|a| a.agent_ids);
        let found = found.map(|ids| ids.iter().map(|id| id.0).collect::<Vec<_>>());
        assert_eq!(found, ids, "{specs:?}");
    }
}
