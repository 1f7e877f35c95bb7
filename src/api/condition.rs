//! Conditions, as the Kubernetes API conventions define them.
//!
//! Types, reasons and what to do about each are a contract: `docs/conditions.md`.

use super::reason::Reason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use std::fmt;

pub const READY: &str = "Ready";
pub const CREDENTIALS_VALID: &str = "CredentialsValid";
pub const WEBHOOK_REGISTERED: &str = "WebhookRegistered";
pub const CLIENTS_SYNCED: &str = "ClientsSynced";
pub const VERIFICATION_AVAILABLE: &str = "VerificationAvailable";
pub const CLIENT_FOUND: &str = "ClientFound";
pub const AGENT_AVAILABLE: &str = "AgentAvailable";
pub const ACCEPTED: &str = "Accepted";
pub const FINISHED: &str = "Finished";

/// The new state of one condition, as a reconciler found it in this pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionUpdate {
    pub status: Status,
    pub reason: Reason,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    True,
    False,
    Unknown,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::True => "True",
            Status::False => "False",
            Status::Unknown => "Unknown",
        }
    }
}

impl ConditionUpdate {
    pub fn yes(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            status: Status::True,
            reason,
            message: message.into(),
        }
    }

    pub fn no(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            status: Status::False,
            reason,
            message: message.into(),
        }
    }

    pub fn unknown(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            status: Status::Unknown,
            reason,
            message: message.into(),
        }
    }

    pub fn is_true(&self) -> bool {
        self.status == Status::True
    }
}

/// Sets a condition. The transition time changes only with the status, so a pass
/// that finds nothing new yields the same list and nothing is written.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    update: &ConditionUpdate,
    generation: Option<i64>,
    now: Timestamp,
) {
    // The apiserver rejects messages over 32 KiB; readers give up earlier.
    let message: String = update.message.chars().take(1024).collect();
    let status = update.status.as_str();
    match conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(existing) => {
            if existing.status != status {
                existing.last_transition_time = Time(now);
            }
            existing.status = status.into();
            existing.reason = update.reason.as_str().into();
            existing.message = message;
            existing.observed_generation = generation;
        }
        None => conditions.push(Condition {
            type_: type_.into(),
            status: status.into(),
            reason: update.reason.as_str().into(),
            message,
            observed_generation: generation,
            last_transition_time: Time(now),
        }),
    }
}

pub fn get<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    get(conditions, type_).is_some_and(|c| c.status == "True")
}

impl fmt::Display for ConditionUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (status, reason) = (self.status.as_str(), self.reason);
        write!(f, "{status} {reason}: {}", self.message)
    }
}

/// Holds the texts of conditions to the snapshots of all texts.
#[cfg(test)]
pub fn snapshot(name: &str, said: &[String]) {
    let mut settings = insta::Settings::clone_current();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/texts/snapshots");
    settings.set_snapshot_path(folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.bind(|| insta::assert_snapshot!(format!("condition_{name}"), said.join("\n")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_changes_only_with_the_status() {
        let mut conditions = Vec::new();
        let first = Timestamp::from_second(100).unwrap();
        let later = Timestamp::from_second(200).unwrap();
        set(
            &mut conditions,
            READY,
            &ConditionUpdate::no(Reason::Pending, "a"),
            Some(1),
            first,
        );
        set(
            &mut conditions,
            READY,
            &ConditionUpdate::no(Reason::Invalid, "b"),
            Some(2),
            later,
        );
        assert_eq!(conditions[0].last_transition_time.0, first);
        assert_eq!(conditions[0].reason, "Invalid");
        set(
            &mut conditions,
            READY,
            &ConditionUpdate::yes(Reason::Connected, "c"),
            Some(2),
            later,
        );
        assert_eq!(conditions[0].last_transition_time.0, later);
        assert_eq!(conditions.len(), 1);
        assert!(is_true(&conditions, READY));
    }
}
