//! The requester's proof of identity.

use super::{Applied, Change, Event, Refused, whole_second};
use crate::api::reason::Reason;
use crate::api::ticket::{ApprovalState, Phase, TicketStatus, Verification, VerificationState};
use crate::ids::{ActionId, TechnicianId};
use crate::ticket::marker::Tag;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

impl Change<'_> {
    pub(super) fn verification(&mut self) -> Result<Applied, Refused> {
        let event = self.event;
        match event {
            Event::VerificationStarted {
                challenge_id,
                reasons,
                deadline,
                lease,
                newest_action,
            } => {
                self.verification_may_start(lease.as_deref())?;
                self.challenge(challenge_id, reasons, *deadline, *newest_action);
                Ok(Applied::Recorded)
            }
            Event::ChallengeSent {
                method,
                user_id,
                address,
            } => self.challenge_sent(method, *user_id, address),
            Event::Verified {
                challenge_id,
                valid_until,
            } => self.verified(challenge_id, *valid_until),
            Event::VerificationFailed {
                challenge_id,
                state,
                message,
            } => self.verification_failed(challenge_id, *state, message),
            Event::VerificationSkipped {
                user_id,
                valid_until,
            } => self.verification_skipped(*user_id, *valid_until),
            Event::VerifyAgain {
                by,
                action,
                challenge_id,
                deadline,
            } => self.verify_again(*by, *action, challenge_id, *deadline),
            Event::VerificationOverridden {
                by,
                action,
                user_id,
                valid_until,
            } => self.overridden(*by, *action, *user_id, *valid_until),
            _ => Err(self.wrong()),
        }
    }

    fn verification_may_start(&mut self, lease: Option<&str>) -> Result<(), Refused> {
        match (self.next.phase, lease) {
            (Phase::Received | Phase::Ready, None) => {}
            (Phase::Working, Some(lease)) => {
                self.next.held(lease)?;
                if self.next.approval_is(ApprovalState::Approved) {
                    return Err(self.wrong());
                }
            }
            _ => return Err(self.wrong()),
        }
        Ok(())
    }

    fn challenge_sent(
        &mut self,
        method: &str,
        user_id: i64,
        address: &str,
    ) -> Result<Applied, Refused> {
        let phase = self.next.phase;
        let Some(verification) = self
            .next
            .verification
            .as_mut()
            .filter(|v| phase == Phase::Verifying && v.state == VerificationState::Pending)
        else {
            return Err(self.wrong());
        };
        verification.state = VerificationState::Sent;
        verification.method = Some(method.into());
        verification.user_id = Some(user_id);
        verification.address = Some(address.into());
        Ok(Applied::Recorded)
    }

    fn verified(&mut self, challenge_id: &str, valid_until: Timestamp) -> Result<Applied, Refused> {
        self.answered(challenge_id, VerificationState::Verified, Some(valid_until))?;
        self.enter(
            Phase::Ready,
            Reason::Verified,
            "the requester is verified; waiting for the agent",
        );
        Ok(Applied::Recorded)
    }

    fn verification_failed(
        &mut self,
        challenge_id: &str,
        state: VerificationState,
        message: &str,
    ) -> Result<Applied, Refused> {
        if state.passes() {
            return Err(self.wrong());
        }
        self.answered(challenge_id, state, None)?;
        self.enter(Phase::Refused, Reason::NotVerified, message);
        Ok(Applied::Recorded)
    }

    fn verification_skipped(
        &mut self,
        user_id: Option<i64>,
        valid_until: Timestamp,
    ) -> Result<Applied, Refused> {
        let id = self
            .next
            .verification
            .as_ref()
            .map(|v| v.challenge_id.clone())
            .unwrap_or_default();
        self.answered(&id, VerificationState::Skipped, Some(valid_until))?;
        if let Some(verification) = &mut self.next.verification {
            verification.user_id = user_id;
        }
        self.enter(
            Phase::Ready,
            Reason::VerificationSkipped,
            "the provider could not be reached and its failurePolicy is Ignore; \
             waiting for the agent",
        );
        Ok(Applied::Recorded)
    }

    fn verify_again(
        &mut self,
        by: TechnicianId,
        action: ActionId,
        challenge_id: &str,
        deadline: Timestamp,
    ) -> Result<Applied, Refused> {
        let phase = self.next.phase;
        let Some(last) = self
            .next
            .verification
            .as_ref()
            .filter(|_| phase == Phase::Refused)
        else {
            return Err(self.wrong());
        };
        let (reasons, newest_action) = (last.reasons.clone(), last.newest_action);
        self.next.seen(action, None);
        self.challenge(challenge_id, &reasons, deadline, newest_action);
        if let Some(verification) = &mut self.next.verification {
            verification.decided_by = Some(by);
        }
        Ok(Applied::Recorded)
    }

    fn overridden(
        &mut self,
        by: TechnicianId,
        action: ActionId,
        user_id: Option<i64>,
        valid_until: Timestamp,
    ) -> Result<Applied, Refused> {
        let phase = self.next.phase;
        let Some(verification) = self
            .next
            .verification
            .as_mut()
            .filter(|_| matches!(phase, Phase::Refused | Phase::Verifying))
        else {
            return Err(self.wrong());
        };
        verification.state = VerificationState::Overridden;
        verification.decided_by = Some(by);
        verification.user_id = user_id;
        // The technician has read the ticket up to their own reply.
        verification.newest_action = verification.newest_action.max(Some(action));
        verification.valid_until = Some(Time(whole_second(valid_until)));
        self.next.seen(action, None);
        self.enter(
            Phase::Ready,
            Reason::VerificationOverridden,
            "the assigned technician vouches for the requester; waiting for the agent",
        );
        Ok(Applied::Recorded)
    }

    /// The deadline has passed without an answer.
    pub(super) fn verification_expired(&mut self) {
        let sent = self
            .next
            .verification
            .as_ref()
            .is_some_and(|v| v.state == VerificationState::Sent);
        let (state, message) = if sent {
            (
                VerificationState::Expired,
                "the requester did not prove their identity in time",
            )
        } else {
            (
                VerificationState::Failed,
                "the verification provider could not be reached in time; see its Ready condition",
            )
        };
        if let Some(verification) = &mut self.next.verification {
            verification.state = state;
        }
        self.enter(Phase::Refused, Reason::VerificationExpired, message);
    }

    /// A new challenge for the requester.
    fn challenge(
        &mut self,
        challenge_id: &str,
        reasons: &[String],
        deadline: Timestamp,
        newest_action: Option<ActionId>,
    ) {
        self.next.verification = Some(Verification {
            number: self.next.verification.as_ref().map_or(0, |v| v.number) + 1,
            challenge_id: challenge_id.into(),
            state: VerificationState::Pending,
            reasons: reasons
                .iter()
                .take(20)
                .map(|r| r.chars().take(200).collect())
                .collect(),
            method: None,
            user_id: None,
            newest_action,
            address: None,
            started_at: Time(self.now),
            valid_until: None,
            decided_by: None,
        });
        self.enter(
            Phase::Verifying,
            Reason::Sensitive,
            "waiting for the requester to prove their identity",
        );
        self.next.deadline = Some(Time(whole_second(deadline)));
    }

    /// Records the answer to this challenge, if it still waits for one: the first answer counts.
    fn answered(
        &mut self,
        challenge_id: &str,
        state: VerificationState,
        valid_until: Option<Timestamp>,
    ) -> Result<(), Refused> {
        let waits = self.next.phase == Phase::Verifying;
        let Some(verification) = self
            .next
            .verification
            .as_mut()
            .filter(|v| waits && v.challenge_id == challenge_id)
        else {
            return Err(self.wrong());
        };
        verification.state = state;
        verification.valid_until = valid_until.map(|until| Time(whole_second(until)));
        Ok(())
    }
}

/// The notes about a verification that are due: one when the challenge was sent, one when it is
/// over.
pub fn verification_tags(verification: &Verification) -> Vec<Tag> {
    let number = verification.number;
    let sent = verification
        .method
        .is_some()
        .then_some(Tag::ChallengeSent(number));
    let over = !matches!(
        verification.state,
        VerificationState::Pending | VerificationState::Sent
    );
    sent.into_iter()
        .chain(over.then_some(Tag::VerificationOutcome(number)))
        .collect()
}

/// Whether this requester has proved who they are, for this ticket, and it is still valid. It
/// holds for them only, whoever vouched for them.
pub fn is_verified(status: &TicketStatus, user_id: Option<i64>, now: Timestamp) -> bool {
    status.verification.as_ref().is_some_and(|v| {
        let known = user_id.is_some() || v.state != VerificationState::Verified;
        v.state.passes()
            && known
            && v.user_id == user_id
            && v.valid_until.as_ref().is_some_and(|until| now < until.0)
    })
}

/// Whether no agent but the one that holds the ticket may read it: it is not known yet whether it
/// is sensitive, or it is and nobody has proved who wrote it.
pub fn is_hidden(status: &TicketStatus) -> bool {
    let not_verified = |v: &Verification| !v.state.passes();
    matches!(status.phase, Phase::Received | Phase::Verifying)
        || status.sensitive
        || status.verification.as_ref().is_some_and(not_verified)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_agent_may_read() {
        let status = |phase, verification: Option<VerificationState>, sensitive| {
            let mut change = TicketStatus {
                phase,
                sensitive,
                ..TicketStatus::default()
            };
            change.verification = verification.map(|state| Verification {
                newest_action: None,
                number: 1,
                challenge_id: "c".into(),
                state,
                reasons: Vec::new(),
                method: None,
                user_id: None,
                address: None,
                started_at: Time(Timestamp::UNIX_EPOCH),
                valid_until: None,
                decided_by: None,
            });
            change
        };
        use VerificationState::{Denied, Expired, Failed, Overridden, Pending, Sent, Verified};
        for (phase, verification, sensitive, hidden) in [
            (Phase::Received, None, false, true),
            (Phase::Ready, None, false, false),
            (Phase::Done, None, false, false),
            (Phase::Done, None, true, true),
            (Phase::Verifying, Some(Pending), false, true),
            (Phase::Verifying, Some(Sent), false, true),
            (Phase::Ready, Some(Verified), false, false),
            (Phase::Done, Some(Overridden), false, false),
            (Phase::Refused, Some(Denied), false, true),
            (Phase::Refused, Some(Expired), false, true),
            (Phase::Ignored, Some(Failed), false, true),
            // Closed while its requester was asked.
            (Phase::Ignored, Some(Sent), false, true),
        ] {
            assert_eq!(
                is_hidden(&status(phase, verification, sensitive)),
                hidden,
                "{phase:?} {verification:?} {sensitive}"
            );
        }
    }
}
