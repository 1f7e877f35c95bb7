//! Why a call is decided as it is, for people.

use super::{
    Access, Call, Client, Condition, Decision, Level, Named, applies, condition, decide, names,
    names_exactly,
};
use crate::api::Mode;
use crate::api::policy::{Effect, ToolRule};

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
    let verified = match call.sensitive {
        true => "; the requester has to be verified, as for every sensitive tool",
        false => "",
    };
    lines.push(format!("built-in: {built_in}{verified}"));
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
        Level::Broken => {
            "clients that cannot be told, because its clientSelector is invalid: it counts where \
             it is stricter"
        }
        Level::None => {
            lines.push(format!("ToolPolicy {} is for other clients", policy.name));
            return;
        }
    };
    let rules = policy.spec.rules.iter().enumerate();
    for (index, rule) in rules.filter(|(_, rule)| names(rule, call.tool)) {
        let (verb, not, why) = explain_condition(rule, client, call);
        lines.push(format!(
            "ToolPolicy {} (for {level}), rule {} {verb} {:?}{}{not}{why}",
            policy.name,
            index + 1,
            rule.effect,
            explain_naming(rule, call),
        ));
        if verb == "says" {
            return;
        }
    }
    lines.push(format!(
        "ToolPolicy {} (for {level}) decides nothing more about this call",
        policy.name
    ));
}

/// Whether a rule for the tool counts for this call, and why.
fn explain_condition(
    rule: &ToolRule,
    client: Client<'_>,
    call: &Call<'_>,
) -> (&'static str, &'static str, String) {
    let when = rule.when.as_deref().unwrap_or_default();
    match condition(rule, client, call) {
        Condition::Holds if when.is_empty() => ("says", "", String::new()),
        Condition::Holds => ("says", "", format!(", since {when} holds")),
        Condition::DoesNotHold => {
            let why = format!(", since {when} does not hold");
            ("would say", ", but does not count", why)
        }
        Condition::CannotBeTold(error) => (
            "may say",
            ", and counts where it is stricter than what follows",
            format!(", since {when} cannot be evaluated ({error})"),
        ),
    }
}

/// What follows from whether a rule names the tool exactly or by a pattern.
fn explain_naming(rule: &ToolRule, call: &Call<'_>) -> String {
    let exact = names_exactly(rule, call.tool);
    let mut said = String::new();
    match rule.require_verification {
        Some(true) => said.push_str(", with the requester verified"),
        Some(false) if call.sensitive && exact => said.push_str(", without verification"),
        Some(false) if call.sensitive => {
            said.push_str(" (its requireVerification: false needs the tool's exact name)");
        }
        _ => {}
    }
    if call.access == Access::Destructive && !exact && rule.effect != Effect::Disabled {
        said.push_str(" (by a pattern, which does not enable a destructive tool: name it exactly)");
    }
    said
}
