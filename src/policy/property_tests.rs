//! Strictest wins: what is added, broken or missing never permits more.

use super::grant::Grant;
use super::*;
use crate::api::Mode;
use crate::ids::TechnicianId;
use proptest::prelude::*;
use serde_json::json;

/// Conditions that say nothing about what is absent.
const CONDITIONS: [&str; 7] = [
    "args.k == 'x'",
    "!(args.k == 'x')",
    "args.n <= 5",
    "args.k in ['x', 'y'] && args.n > 1",
    "ticket.priority == 'High'",
    "args.k != 'x' || ticket.status == 'New'",
    "true",
];

fn effects() -> impl Strategy<Value = Effect> {
    prop_oneof![
        Just(Effect::Auto),
        Just(Effect::ApprovalNeeded),
        Just(Effect::Disabled)
    ]
}

fn accesses() -> impl Strategy<Value = Access> {
    prop_oneof![
        Just(Access::Read),
        Just(Access::Write),
        Just(Access::Destructive)
    ]
}

fn rules() -> impl Strategy<Value = ToolRule> {
    let tool = prop::sample::select(vec!["t", "t", "T", "*", "t*", "other"]);
    let when = prop::option::of(prop::sample::select(CONDITIONS.to_vec()));
    let approvers = prop::option::of(prop::collection::vec(2i64..5, 1..3));
    let verify = any::<Option<bool>>();
    (tool, effects(), when, approvers, verify).prop_map(|(tool, effect, when, ids, verify)| {
        let approvers = ids.map(|ids| Approvers {
            agent_ids: Some(ids.into_iter().map(TechnicianId).collect()),
            team: None,
        });
        ToolRule {
            tools: vec![tool.into()],
            effect,
            when: when.map(str::to_string),
            require_verification: verify,
            approvers: approvers.filter(|_| effect == Effect::ApprovalNeeded),
        }
    })
}

/// For which clients.
#[derive(Clone, Copy, Debug)]
enum For {
    Everyone,
    Us,
    OurLabel,
    Others,
    NobodyKnows,
}

fn levels() -> impl Strategy<Value = For> {
    prop_oneof![
        Just(For::Everyone),
        Just(For::Us),
        Just(For::OurLabel),
        Just(For::Others),
        Just(For::NobodyKnows)
    ]
}

fn policy(level: For, rules: Vec<ToolRule>) -> ToolPolicySpec {
    let mut spec = ToolPolicySpec {
        rules,
        ..ToolPolicySpec::default()
    };
    let selector = |value| Some(serde_json::from_value(value).unwrap());
    match level {
        For::Everyone => {}
        For::Us => spec.clients = Some(vec!["acme".into()]),
        For::Others => spec.clients = Some(vec!["blue".into()]),
        For::OurLabel => {
            spec.client_selector = selector(json!({"matchLabels": {"tier": "gold"}}));
        }
        For::NobodyKnows => break_selector(&mut spec),
    }
    spec
}

fn break_selector(spec: &mut ToolPolicySpec) {
    spec.clients = None;
    let sometimes = json!({"matchExpressions": [{"key": "a", "operator": "Sometimes"}]});
    spec.client_selector = Some(serde_json::from_value(sometimes).unwrap());
}

fn one_policy() -> impl Strategy<Value = ToolPolicySpec> {
    (levels(), prop::collection::vec(rules(), 1..4)).prop_map(|(level, rules)| policy(level, rules))
}

fn policies() -> impl Strategy<Value = Vec<ToolPolicySpec>> {
    prop::collection::vec(one_policy(), 0..4)
}

#[derive(Clone, Debug)]
struct Asked {
    access: Access,
    sensitive: bool,
    arguments: Map<String, Value>,
    ticket: Option<TicketFacts>,
}

fn calls() -> impl Strategy<Value = Asked> {
    let word = prop::sample::select(vec!["x", "y", "z"]);
    let facts = (
        prop::sample::select(vec!["High", "Low"]),
        prop::sample::select(vec!["New", "Open"]),
    );
    let arguments = (word, 0i64..10);
    (accesses(), any::<bool>(), arguments, facts).prop_map(
        |(access, sensitive, (k, n), (priority, status))| Asked {
            access,
            sensitive,
            arguments: json!({"k": k, "n": n}).as_object().cloned().unwrap(),
            ticket: Some(TicketFacts {
                priority: priority.into(),
                status: status.into(),
                ..TicketFacts::default()
            }),
        },
    )
}

fn decided(call: &Asked, specs: &[ToolPolicySpec]) -> Decision {
    let labels = BTreeMap::from([("tier".to_string(), "gold".to_string())]);
    let client = Client {
        name: "acme",
        labels: &labels,
    };
    let names: Vec<String> = (0..specs.len()).map(|n| format!("p{n}")).collect();
    let named: Vec<Named<'_>> = names
        .iter()
        .zip(specs)
        .map(|(name, spec)| Named { name, spec })
        .collect();
    let asked = Call {
        tool: "t",
        access: call.access,
        sensitive: call.sensitive,
        arguments: &call.arguments,
        ticket: call.ticket.as_ref(),
    };
    decide(Mode::Execute, client, &asked, &named)
}

fn granted(call: &Asked, specs: &[ToolPolicySpec]) -> Grant {
    let decision = decided(call, specs);
    Grant {
        effect: decision.effect,
        require_verification: decision.require_verification,
        approvers: decision.approvers,
    }
}

/// A rule that permits no more than this, with an effect as strict as wished or stricter.
fn stricter_rule(than: &Grant, wished: Effect, tool: &str) -> ToolRule {
    let effect = match super::grant::strictness(wished) >= super::grant::strictness(than.effect) {
        true => wished,
        false => than.effect,
    };
    ToolRule {
        tools: vec![tool.into()],
        effect,
        when: None,
        require_verification: than.require_verification.then_some(true),
        approvers: None,
    }
}

/// Without rules that lift the requirement for a sensitive tool.
fn lifting_nothing(mut spec: ToolPolicySpec) -> ToolPolicySpec {
    for rule in &mut spec.rules {
        rule.require_verification = rule.require_verification.filter(|required| *required);
    }
    spec
}

proptest! {
    #[test]
    fn a_stricter_rule_never_permits_more(
        call in calls(),
        specs in policies(),
        wished in effects(),
        tool in prop::sample::select(vec!["t", "*"]),
        when in prop::option::of(prop::sample::select(CONDITIONS.to_vec())),
        at in any::<(prop::sample::Index, prop::sample::Index)>(),
        level in levels(),
    ) {
        let before = granted(&call, &specs);
        let rule = ToolRule {
            when: when.map(str::to_string),
            ..stricter_rule(&before, wished, tool)
        };
        let mut more = specs.clone();
        more.push(policy(level, vec![rule.clone()]));
        let after = granted(&call, &more);
        prop_assert!(after <= before, "a policy: {after:?} after {before:?}");
        if !specs.is_empty() {
            let mut more = specs.clone();
            let chosen = at.0.index(more.len());
            let place = at.1.index(more[chosen].rules.len() + 1);
            more[chosen].rules.insert(place, rule);
            let after = granted(&call, &more);
            prop_assert!(after <= before, "a rule: {after:?} after {before:?}");
        }
    }

    #[test]
    fn breaking_a_condition_never_permits_more(
        call in calls(),
        specs in prop::collection::vec(one_policy(), 1..4),
        at in any::<(prop::sample::Index, prop::sample::Index)>(),
    ) {
        let chosen = at.0.index(specs.len());
        let place = at.1.index(specs[chosen].rules.len());
        let mut broken = specs.clone();
        broken[chosen].rules[place].when = Some("args.".into());
        let mut without = specs.clone();
        without[chosen].rules.remove(place);
        let now = granted(&call, &broken);
        let (intact, without) = (granted(&call, &specs), granted(&call, &without));
        prop_assert!(now <= intact, "{now:?}, intact {intact:?}");
        prop_assert!(now <= without, "{now:?}, without {without:?}");
    }

    #[test]
    fn breaking_a_selector_never_permits_more(
        call in calls(),
        specs in policies(),
        rules in prop::collection::vec(rules(), 1..4),
        level in prop_oneof![Just(For::Us), Just(For::OurLabel), Just(For::Others)],
    ) {
        let with = |spec: ToolPolicySpec| {
            let mut specs = specs.clone();
            specs.push(spec);
            granted(&call, &specs)
        };
        let spec = policy(level, rules);
        let mut broken = spec.clone();
        break_selector(&mut broken);
        let (now, intact, without) = (with(broken), with(spec), granted(&call, &specs));
        prop_assert!(now <= intact, "{now:?}, intact {intact:?}");
        prop_assert!(now <= without, "{now:?}, without {without:?}");
    }

    #[test]
    fn missing_information_never_permits_more(
        call in calls(),
        specs in policies(),
        key in prop::sample::select(vec!["k", "n"]),
        ill in prop::sample::select(vec![json!(null), json!(true), json!(["x"]), json!({"x": 1})]),
    ) {
        let before = granted(&call, &specs);
        let mut changed = vec![call.clone(), call.clone(), call.clone(), call.clone()];
        changed[0].arguments.remove(key);
        changed[1].arguments.insert(key.into(), ill);
        changed[2].ticket = None;
        let other = if key == "k" { json!(1) } else { json!("1") };
        changed[3].arguments.insert(key.into(), other);
        for call in changed {
            let after = granted(&call, &specs);
            prop_assert!(after <= before, "{call:?}: {after:?} after {before:?}");
        }
    }

    #[test]
    fn a_pattern_never_enables_a_destructive_tool(call in calls(), specs in policies()) {
        let mut specs = specs;
        for rule in specs.iter_mut().flat_map(|spec| &mut spec.rules) {
            for tool in &mut rule.tools {
                *tool = format!("{tool}*");
            }
        }
        let call = Asked { access: Access::Destructive, ..call };
        prop_assert_eq!(decided(&call, &specs).effect, Effect::Disabled);
    }

    #[test]
    fn a_requirement_is_never_lost_by_a_policy(
        call in calls(),
        specs in policies(),
        more in one_policy(),
    ) {
        let before = decided(&call, &specs);
        let more = if call.sensitive { lifting_nothing(more) } else { more };
        let after = decided(&call, &[specs, vec![more]].concat());
        if before.require_verification && after.effect != Effect::Disabled {
            prop_assert!(after.require_verification, "{after:?} after {before:?}");
        }
    }

    #[test]
    fn a_policy_of_the_same_level_never_adds_an_approver(
        call in calls(),
        specs in policies(),
        more in one_policy(),
    ) {
        let deciding = ToolRule {
            tools: vec!["t".into()],
            effect: Effect::ApprovalNeeded,
            approvers: Some(Approvers {
                agent_ids: Some([2, 3, 4].map(TechnicianId).into()),
                team: None,
            }),
            ..ToolRule::default()
        };
        let specs = [specs, vec![policy(For::Us, vec![deciding])]].concat();
        let before = granted(&call, &specs);
        let after = granted(&call, &[specs, vec![lifting_nothing(more)]].concat());
        prop_assert!(after <= before, "{after:?} after {before:?}");
    }

    #[test]
    fn what_agents_do_not_see_never_runs(call in calls(), specs in policies()) {
        let labels = BTreeMap::from([("tier".to_string(), "gold".to_string())]);
        let client = Client { name: "acme", labels: &labels };
        let named: Vec<Named<'_>> = specs.iter().map(|spec| Named { name: "p", spec }).collect();
        if !visible(Mode::Execute, client, "t", call.access, &named) {
            prop_assert_eq!(decided(&call, &specs).effect, Effect::Disabled);
        }
    }
}
