//! May this call run? Pure: no clock, no network, no cluster.
//!
//! Closed by default. In order of precedence (`decide`):
//!
//! 1. Plan mode allows reads only, whatever the policies say.
//! 2. What the connection's policies disable, or require verification for: a client's policy
//!    cannot override it.
//! 3. The client's policies, where they have a rule for the tool.
//! 4. The connection's policies.
//! 5. The built-in defaults: reads `Auto`, writes `ApprovalNeeded`, destructive tools `Disabled`;
//!    sensitive tools require that the requester is verified.
//!
//! Within a policy the first rule that matches decides. Policies of one level are merged: the
//! strictest effect, every requirement, only the approvers they have in common (`grant`).
//!
//! What cannot be told counts against the call: where a rule's `when` or a policy's selector
//! cannot be evaluated, the result is the strictest of all it might have been.

pub mod approvers;
mod cost;
mod decide;
mod explain;
pub mod expression;
pub mod facts;
pub mod grant;
pub mod sensitivity;

pub use crate::api::tool_server::Access;
pub use decide::{decide, visible};
pub use explain::explain;

use crate::api::policy::{Approvers, Effect, ToolPolicySpec, ToolRule};
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
    /// The tool changes identities, credentials, privileges, mail flow, money or people's data.
    pub sensitive: bool,
    pub arguments: &'a Map<String, Value>,
    /// None: they cannot be told.
    pub ticket: Option<&'a TicketFacts>,
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
    /// What else made the decision, human-readable; empty, if the rule alone did.
    pub reason: String,
}

impl Decision {
    /// The rule, and what else made the decision.
    pub fn because(&self) -> String {
        match self.reason.is_empty() {
            true => self.rule.clone(),
            false => format!("{}; {}", self.rule, self.reason),
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
    /// Its selector is invalid: whether it applies to the client cannot be told.
    Broken,
    None,
}

/// The decision while a policy cannot be read: it may be one that forbids the call.
pub fn unreadable() -> Decision {
    let rule = "a ToolPolicy that cannot be read; see its conditions";
    Decision {
        effect: Effect::Disabled,
        rule: rule.into(),
        approvers: None,
        require_verification: true,
        reason: String::new(),
    }
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

/// Whether a rule names a tool in full, not by a pattern.
fn names_exactly(rule: &ToolRule, tool: &str) -> bool {
    rule.tools
        .iter()
        .any(|name| !name.contains('*') && pattern::matches(name, tool))
}

/// Whether a rule's condition holds for a call.
enum Condition {
    Holds,
    DoesNotHold,
    /// With the error.
    CannotBeTold(String),
}

fn condition(rule: &ToolRule, client: Client<'_>, call: &Call<'_>) -> Condition {
    let Some(when) = &rule.when else {
        return Condition::Holds;
    };
    match expression::holds(when, call.tool, client.name, call.arguments, call.ticket) {
        Ok(true) => Condition::Holds,
        Ok(false) => Condition::DoesNotHold,
        Err(error) => Condition::CannotBeTold(error),
    }
}

fn rule_name(policy: &Named<'_>, index: usize) -> String {
    format!("ToolPolicy {}, rule {}", policy.name, index + 1)
}

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;
