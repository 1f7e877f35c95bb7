//! May this call run? Pure: no clock, no network, no cluster.
//!
//! Closed by default: a tool that nothing speaks about is not for agents.
//! Precedence: Plan mode allows reads only, whatever the policies say; then the
//! policies of the client; then those of the connection; then the built-in
//! default for the tool. `Disabled` on the connection cannot be undone below it.

use crate::api::Mode;
use crate::api::policy::{Effect, ToolPolicySpec};
use crate::ticket::route::matches_pattern;

/// What a tool does to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    Read,
    Write,
    /// Cannot be undone.
    Destructive,
}

/// What is decided about a call, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub effect: Effect,
    /// The rule that decided, for people: a policy's name and rule number, or `built-in`.
    pub rule: String,
}

/// A policy and the name it goes by.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    pub name: &'a str,
    pub spec: &'a ToolPolicySpec,
}

/// Decides about one tool for one client. `policies` are those of the client's connection.
pub fn decide(mode: Mode, client: &str, tool: &str, nature: Nature, policies: &[Named<'_>]) -> Decision {
    if mode == Mode::Plan && nature != Nature::Read {
        return Decision { effect: Effect::Disabled, rule: "Plan mode: read-only tools".into() };
    }
    let mut policies: Vec<&Named<'_>> = policies.iter().collect();
    // A stable order, whatever order the cluster lists them in.
    policies.sort_by_key(|p| p.name);
    let first = |level: &dyn Fn(&ToolPolicySpec) -> bool| {
        let decisions: Vec<Decision> = policies.iter().filter(|p| level(p.spec)).filter_map(|p| by_policy(p, tool)).collect();
        // Two policies of one level may disagree: the stricter counts.
        decisions.into_iter().max_by_key(|d| strictness(d.effect))
    };
    let connection = first(&|spec| spec.clients.is_none());
    if let Some(decision) = connection.as_ref().filter(|d| d.effect == Effect::Disabled) {
        return decision.clone();
    }
    first(&|spec| spec.clients.as_ref().is_some_and(|names| names.iter().any(|n| n == client))).or(connection).unwrap_or(Decision {
        effect: match nature {
            Nature::Read => Effect::Auto,
            Nature::Write => Effect::ApprovalNeeded,
            Nature::Destructive => Effect::Disabled,
        },
        rule: "built-in".into(),
    })
}

fn by_policy(policy: &Named<'_>, tool: &str) -> Option<Decision> {
    let (number, rule) = policy.spec.rules.iter().enumerate().find(|(_, rule)| rule.tools.iter().any(|p| matches_pattern(p, tool)))?;
    Some(Decision { effect: rule.effect, rule: format!("ToolPolicy {}, rule {}", policy.name, number + 1) })
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
    use crate::api::policy::ToolRule;
    use proptest::prelude::*;

    fn policy(clients: Option<&[&str]>, rules: &[(&str, Effect)]) -> ToolPolicySpec {
        ToolPolicySpec {
            clients: clients.map(|c| c.iter().map(|s| s.to_string()).collect()),
            rules: rules.iter().map(|(tool, effect)| ToolRule { tools: vec![tool.to_string()], effect: *effect }).collect(),
            ..ToolPolicySpec::default()
        }
    }

    #[test]
    fn precedence() {
        use Effect::{ApprovalNeeded, Auto, Disabled};
        let whole = policy(None, &[("halopsa_get_*", ApprovalNeeded), ("halopsa_delete_*", Disabled), ("*", Auto)]);
        let acme = policy(Some(&["acme"]), &[("halopsa_get_user", Auto), ("halopsa_delete_*", Auto)]);
        let both = [Named { name: "whole", spec: &whole }, Named { name: "acme", spec: &acme }];
        for (client, tool, nature, effect, rule) in [
            ("acme", "halopsa_get_user", Nature::Read, Auto, "ToolPolicy acme, rule 1"),
            ("blue", "halopsa_get_user", Nature::Read, ApprovalNeeded, "ToolPolicy whole, rule 1"),
            ("acme", "halopsa_delete_x", Nature::Destructive, Disabled, "ToolPolicy whole, rule 2"),
            ("acme", "other", Nature::Write, Auto, "ToolPolicy whole, rule 3"),
        ] {
            let decision = decide(Mode::Execute, client, tool, nature, &both);
            assert_eq!((decision.effect, decision.rule.as_str()), (effect, rule), "{client} {tool}");
        }
        for (nature, effect) in [(Nature::Read, Auto), (Nature::Write, ApprovalNeeded), (Nature::Destructive, Disabled)] {
            assert_eq!(decide(Mode::Execute, "acme", "x", nature, &[]).effect, effect);
        }
    }

    proptest! {
        #[test]
        fn no_policy_lets_plan_mode_write(
            rules in prop::collection::vec(("[a-z_*]{1,12}", prop_oneof![Just(Effect::Auto), Just(Effect::ApprovalNeeded), Just(Effect::Disabled)]), 0..8),
            own in any::<bool>(),
            tool in "[a-z_]{1,12}",
        ) {
            let rules: Vec<(&str, Effect)> = rules.iter().map(|(t, e)| (t.as_str(), *e)).collect();
            let spec = policy(own.then_some(&["acme"][..]), &rules);
            let named = [Named { name: "p", spec: &spec }];
            for nature in [Nature::Write, Nature::Destructive] {
                prop_assert_eq!(decide(Mode::Plan, "acme", &tool, nature, &named).effect, Effect::Disabled);
            }
        }
    }
}
