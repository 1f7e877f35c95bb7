//! May this call run? Pure: no clock, no network, no cluster.
//!
//! Closed by default. In order of precedence:
//!
//! 1. Plan mode allows reads only, whatever the policies say.
//! 2. `Disabled` by a policy of the connection: a client's policy cannot override it.
//! 3. The client's policies, where they have a rule for the tool.
//! 4. The connection's policies.
//! 5. The built-in defaults: reads `Auto`, writes `ApprovalNeeded`, destructive tools `Disabled`.
//!
//! Within a policy the first rule that matches decides; of two policies of one
//! level the stricter. A rule whose `when` cannot be evaluated counts against the
//! call: it matches unless its effect is `Auto`.

pub mod approvers;
pub mod expression;
pub mod facts;
pub mod sensitivity;

use crate::api::Mode;
use crate::api::policy::{Approvers, Effect, ToolPolicySpec, ToolRule};
pub use crate::api::tool_server::Access;
use crate::text::pattern;
use facts::TicketFacts;
use kube::core::{Selector, SelectorExt};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The client a call is for.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    pub name: &'a str,
    pub labels: &'a BTreeMap<String, String>,
}

/// A call as the rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub tool: &'a str,
    pub access: Access,
    pub arguments: &'a Map<String, Value>,
    pub ticket: &'a TicketFacts,
}

/// The decision about a call, and the rule that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub effect: Effect,
    /// The rule that decided, human-readable: a policy's name and rule number, or `built-in`.
    pub rule: String,
    /// Who may approve besides the assigned technician.
    pub approvers: Option<Approvers>,
    /// The requester must have proved who they are.
    pub require_verification: bool,
}

impl Decision {
    fn new(effect: Effect, rule: String) -> Self {
        Self {
            effect,
            rule,
            approvers: None,
            require_verification: false,
        }
    }
}

/// A policy with its name.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    pub name: &'a str,
    pub spec: &'a ToolPolicySpec,
}

/// The level at which a policy applies to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Client,
    Connection,
    /// Its selector is invalid: it binds every client, and allows nothing.
    Broken,
    None,
}

/// Decides about one call. `policies` are those of the client's connection.
pub fn decide(mode: Mode, client: Client<'_>, call: &Call<'_>, policies: &[Named<'_>]) -> Decision {
    let matching = |policy: &Named<'_>, broken: bool| {
        let (index, rule) = policy.spec.rules.iter().enumerate().find(|(_, rule)| {
            names(rule, call.tool)
                && !(broken && rule.effect == Effect::Auto)
                && counts(rule, client.name, call)
        })?;
        Some(Decision {
            approvers: rule.approvers.clone(),
            require_verification: rule.require_verification,
            ..Decision::new(rule.effect, rule_name(policy, index))
        })
    };
    by_precedence(mode, client, call.access, policies, &matching)
}

/// Whether agents see a tool: whether any call of it might be allowed.
pub fn visible(
    mode: Mode,
    client: Client<'_>,
    tool: &str,
    access: Access,
    policies: &[Named<'_>],
) -> bool {
    // The most permissive of what a policy may say: rules with `when` may or may not match.
    let matching = |policy: &Named<'_>, broken: bool| {
        let mut best: Option<Decision> = None;
        let rules = policy.spec.rules.iter().enumerate();
        for (index, rule) in rules.filter(|(_, rule)| names(rule, tool)) {
            if !(broken && rule.effect == Effect::Auto)
                && best
                    .as_ref()
                    .is_none_or(|b| strictness(rule.effect) < strictness(b.effect))
            {
                best = Some(Decision::new(rule.effect, rule_name(policy, index)));
            }
            if rule.when.is_none() {
                return best;
            }
        }
        // Every rule may leave the call to the next level.
        best.filter(|b| b.effect != Effect::Disabled)
    };
    by_precedence(mode, client, access, policies, &matching).effect != Effect::Disabled
}

/// Applies the order of precedence. `matching` is the decision of one policy, given whether its
/// selector is broken.
fn by_precedence(
    mode: Mode,
    client: Client<'_>,
    access: Access,
    policies: &[Named<'_>],
    matching: &dyn Fn(&Named<'_>, bool) -> Option<Decision>,
) -> Decision {
    if mode == Mode::Plan && access != Access::Read {
        return Decision::new(Effect::Disabled, "Plan mode: read-only tools".into());
    }
    let mut policies: Vec<&Named<'_>> = policies.iter().collect();
    // A stable order, whatever order the cluster lists them in.
    policies.sort_by_key(|p| p.name);
    let level = |levels: &[Level]| {
        let decisions = policies.iter().filter_map(|p| {
            let level = applies(p.spec, client);
            levels
                .contains(&level)
                .then(|| matching(p, level == Level::Broken))
                .flatten()
        });
        // The first of the strictest, so that the same one is named every time.
        decisions.fold(None, |strictest: Option<Decision>, d| match strictest {
            Some(s) if strictness(s.effect) >= strictness(d.effect) => Some(s),
            _ => Some(d),
        })
    };
    let connection = level(&[Level::Connection]);
    if let Some(decision) = connection.as_ref().filter(|d| d.effect == Effect::Disabled) {
        return decision.clone();
    }
    level(&[Level::Client, Level::Broken])
        .or(connection)
        .unwrap_or_else(|| {
            let effect = match access {
                Access::Read => Effect::Auto,
                Access::Write => Effect::ApprovalNeeded,
                Access::Destructive => Effect::Disabled,
            };
            Decision::new(effect, "built-in".into())
        })
}

/// The decision about a call, and human-readable lines on what each policy says about it.
pub fn explain(
    mode: Mode,
    client: Client<'_>,
    call: &Call<'_>,
    policies: &[Named<'_>],
) -> (Decision, Vec<String>) {
    let mut lines = Vec::new();
    if mode == Mode::Plan && call.access != Access::Read {
        lines.push(format!(
            "{} is in Plan mode, which allows reads only; no policy can change that",
            client.name
        ));
    }
    let mut sorted: Vec<&Named<'_>> = policies.iter().collect();
    sorted.sort_by_key(|p| (applies(p.spec, client) != Level::Connection, p.name));
    for policy in sorted {
        explain_policy(policy, client, call, &mut lines);
    }
    let built_in = match call.access {
        Access::Read => "Auto, as for every tool that reads",
        Access::Write => "ApprovalNeeded, as for every tool that writes",
        Access::Destructive => "Disabled, as for every destructive tool",
    };
    lines.push(format!("built-in: {built_in}"));
    (decide(mode, client, call, policies), lines)
}

/// What one policy says about a call: its rules for the tool, up to the one that decides.
fn explain_policy(
    policy: &Named<'_>,
    client: Client<'_>,
    call: &Call<'_>,
    lines: &mut Vec<String>,
) {
    let level = match applies(policy.spec, client) {
        Level::Connection => "every client of the connection",
        Level::Client => "this client",
        Level::Broken => "every client, because its clientSelector is invalid, and allows nothing",
        Level::None => {
            lines.push(format!("ToolPolicy {} is for other clients", policy.name));
            return;
        }
    };
    let rules = policy.spec.rules.iter().enumerate();
    for (index, rule) in rules.filter(|(_, rule)| names(rule, call.tool)) {
        let (counts, why) = explain_condition(rule, client, call);
        let verb = if counts { "says" } else { "would say" };
        let not = if counts { "" } else { ", but does not count" };
        lines.push(format!(
            "ToolPolicy {} (for {level}), rule {} {verb} {:?}{not}{why}",
            policy.name,
            index + 1,
            rule.effect
        ));
        if counts {
            return;
        }
    }
    lines.push(format!(
        "ToolPolicy {} (for {level}) decides nothing about this call",
        policy.name
    ));
}

/// Whether a rule for the tool counts for this call, and why.
fn explain_condition(rule: &ToolRule, client: Client<'_>, call: &Call<'_>) -> (bool, String) {
    let Some(when) = &rule.when else {
        return (true, String::new());
    };
    match expression::holds(when, call.tool, client.name, call.arguments, call.ticket) {
        Ok(true) => (true, format!(", since {when} holds")),
        Ok(false) => (false, format!(", since {when} does not hold")),
        Err(error) => (
            rule.effect != Effect::Auto,
            format!(", since {when} cannot be evaluated ({error})"),
        ),
    }
}

fn rule_name(policy: &Named<'_>, index: usize) -> String {
    format!("ToolPolicy {}, rule {}", policy.name, index + 1)
}

fn applies(spec: &ToolPolicySpec, client: Client<'_>) -> Level {
    match (&spec.clients, &spec.client_selector) {
        (Some(names), _) if names.iter().any(|n| n == client.name) => Level::Client,
        (Some(_), _) => Level::None,
        (None, Some(selector)) => match Selector::try_from(selector.clone()) {
            Ok(selector) if selector.matches(client.labels) => Level::Client,
            Ok(_) => Level::None,
            Err(_) => Level::Broken,
        },
        (None, None) => Level::Connection,
    }
}

/// Whether a policy or tool server with these clients applies to this client.
pub fn selects(
    clients: Option<&Vec<String>>,
    selector: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
    client: Client<'_>,
) -> bool {
    match (clients, selector) {
        (Some(names), _) => names.iter().any(|n| n == client.name),
        (None, Some(selector)) => {
            Selector::try_from(selector.clone()).is_ok_and(|s| s.matches(client.labels))
        }
        (None, None) => true,
    }
}

/// Whether a rule names a tool. Case is ignored, so that it is not a way around a rule.
pub fn names(rule: &ToolRule, tool: &str) -> bool {
    rule.tools
        .iter()
        .any(|pattern| pattern::matches(pattern, tool))
}

/// Whether a rule for the tool counts for this call.
fn counts(rule: &ToolRule, client: &str, call: &Call<'_>) -> bool {
    match &rule.when {
        None => true,
        Some(when) => expression::holds(when, call.tool, client, call.arguments, call.ticket)
            .unwrap_or(rule.effect != Effect::Auto),
    }
}

fn strictness(effect: Effect) -> u8 {
    match effect {
        Effect::Auto => 0,
        Effect::ApprovalNeeded => 1,
        Effect::Disabled => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn rule(tool: &str, effect: Effect, when: Option<&str>) -> ToolRule {
        ToolRule {
            tools: vec![tool.to_string()],
            effect,
            when: when.map(str::to_string),
            approvers: None,
            require_verification: false,
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
        let call = Call {
            tool,
            access,
            arguments: &arguments,
            ticket: &TicketFacts::default(),
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
        let call = Call {
            tool: "t",
            access: Access::Write,
            arguments: &arguments,
            ticket: &TicketFacts::default(),
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
}
