//! The outcome of a tool call, as metrics, journal and audit stream name it.

/// Shown as [`Outcome::as_str`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// Waits for a technician's approval.
    Queued,
    /// The same call was made before; it was not run again.
    Repeated,
    Failed,
    /// Not for this agent: another client's record, or no ticket held.
    Refused,
    UnknownTool,
    Suspended,
    BadArguments,
    /// Nothing may change before the plan is on the ticket.
    NoPlan,
    /// A read that would need approval, which reads cannot get.
    NeedsApproval,
    /// A technician said no to exactly this call, or nobody answered.
    Denied,
    Disabled,
    /// The requester has to be verified first.
    Unverified,
    /// HaloPSA may or may not have the write yet.
    Unsettled,
    /// It was sent, and it cannot be found out whether it arrived.
    UnknownResult,
}

impl Outcome {
    pub const ALL: [Outcome; 15] = [
        Outcome::Ok,
        Outcome::Queued,
        Outcome::Repeated,
        Outcome::Failed,
        Outcome::Refused,
        Outcome::UnknownTool,
        Outcome::Suspended,
        Outcome::BadArguments,
        Outcome::NoPlan,
        Outcome::NeedsApproval,
        Outcome::Denied,
        Outcome::Disabled,
        Outcome::Unverified,
        Outcome::Unsettled,
        Outcome::UnknownResult,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Queued => "queued",
            Outcome::Repeated => "repeated",
            Outcome::Failed => "failed",
            Outcome::Refused => "refused",
            Outcome::UnknownTool => "unknown_tool",
            Outcome::Suspended => "suspended",
            Outcome::BadArguments => "bad_arguments",
            Outcome::NoPlan => "no_plan",
            Outcome::NeedsApproval => "needs_approval",
            Outcome::Denied => "denied",
            Outcome::Disabled => "disabled",
            Outcome::Unverified => "unverified",
            Outcome::Unsettled => "unsettled",
            Outcome::UnknownResult => "unknown_result",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_snake_case_and_unique() {
        for (i, outcome) in Outcome::ALL.iter().enumerate() {
            let label = outcome.as_str();
            assert!(
                label.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
                "{label}"
            );
            assert!(
                Outcome::ALL[i + 1..].iter().all(|o| o.as_str() != label),
                "{label}"
            );
        }
    }
}
