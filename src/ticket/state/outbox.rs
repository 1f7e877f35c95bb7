//! The notes written to HaloPSA: recorded before they are sent.

use super::{Applied, Change, Event, JOURNAL_LIMIT, Refused};
use crate::api::ticket::{ApprovalState, Intent, IntentKind, IntentState, Phase, TicketStatus};
use crate::ids::ActionId;
use crate::ticket::marker::Tag;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

impl Change<'_> {
    pub(super) fn outbox(&mut self) -> Result<Applied, Refused> {
        let event = self.event;
        match event {
            Event::WriteIntended { tag, marker } => self.write_intended(tag, marker),
            Event::WritePosted { marker, action_id } => self.write_posted(marker, *action_id),
            Event::WriteRefused { marker } => {
                self.next
                    .intents
                    .retain(|i| i.marker != *marker || i.state == IntentState::Posted);
                Ok(Applied::Recorded)
            }
            _ => Err(self.wrong()),
        }
    }

    fn write_intended(&mut self, tag: &Tag, marker: &str) -> Result<Applied, Refused> {
        let Some(kind) = tag.kind().filter(|kind| self.may_write(*kind)) else {
            return Err(self.wrong());
        };
        let next = &mut self.next;
        // Two processes make two markers for one note.
        if next.intents.iter().any(|i| i.marker == marker) || intent(next, tag).is_some() {
            return Err(Refused::AlreadyIntended);
        }
        if kind == IntentKind::ApprovalRequest {
            // Nobody asks again what was said about an earlier request.
            let (run, said) = (next.run, IntentKind::ReplyNote);
            next.intents
                .retain(|i| i.run != run || i.kind != said || i.state != IntentState::Posted);
        }
        next.intents.push(Intent {
            kind,
            run: next.run,
            tag: tag.to_string(),
            marker: marker.into(),
            state: IntentState::Intended,
            recorded_at: Time(self.now),
            action_id: None,
        });
        while next.intents.len() > JOURNAL_LIMIT {
            let oldest = dispensable(&next.intents, next.run);
            next.intents.remove(oldest);
        }
        Ok(Applied::Recorded)
    }

    fn write_posted(
        &mut self,
        marker: &str,
        action_id: Option<ActionId>,
    ) -> Result<Applied, Refused> {
        let Some(intent) = self.next.intents.iter_mut().find(|i| i.marker == marker) else {
            return Err(self.wrong());
        };
        intent.state = IntentState::Posted;
        intent.action_id = action_id;
        Ok(Applied::Recorded)
    }

    /// Which notes belong to which state.
    fn may_write(&self, kind: IntentKind) -> bool {
        let phase = self.next.phase;
        let request = self.next.approval.as_ref().map(|a| a.state);
        match kind {
            IntentKind::PlanNote | IntentKind::TurnNote => phase == Phase::Working,
            IntentKind::FailureNote => phase == Phase::Failed,
            IntentKind::ApprovalRequest => {
                phase == Phase::Working && request == Some(ApprovalState::Preparing)
            }
            IntentKind::Reminder => {
                phase == Phase::AwaitingApproval && request == Some(ApprovalState::Requested)
            }
            IntentKind::ReplyNote => {
                !phase.is_terminal() && request == Some(ApprovalState::Requested)
            }
            IntentKind::DecisionNote => matches!(
                request,
                Some(
                    ApprovalState::Approved
                        | ApprovalState::Executed
                        | ApprovalState::Denied
                        | ApprovalState::Expired
                )
            ),
            IntentKind::VerificationNote => self.next.verification.is_some(),
        }
    }
}

/// The intent that is forgotten first: an earlier run's, or a note that nobody asks for again. A
/// marker that is forgotten cannot be searched for.
fn dispensable(intents: &[Intent], run: i32) -> usize {
    let earlier = intents.iter().position(|i| i.run != run);
    let asked = |kind| {
        use IntentKind::{FailureNote, PlanNote, VerificationNote};
        matches!(kind, PlanNote | FailureNote | VerificationNote)
    };
    let over = |i: &Intent| i.state == IntentState::Posted && !asked(i.kind);
    earlier
        .or_else(|| intents.iter().position(over))
        .unwrap_or_default()
}

/// This run's note, if it is recorded.
pub fn intent<'s>(status: &'s TicketStatus, tag: &Tag) -> Option<&'s Intent> {
    let tag = tag.to_string();
    status
        .intents
        .iter()
        .find(|i| i.run == status.run && i.tag == tag)
}

/// Whether this run's note is in HaloPSA.
pub fn posted(status: &TicketStatus, tag: &Tag) -> bool {
    intent(status, tag).is_some_and(|i| i.state == IntentState::Posted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: IntentKind, run: i32, state: IntentState) -> Intent {
        Intent {
            kind,
            run,
            tag: String::new(),
            marker: String::new(),
            state,
            recorded_at: Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH),
            action_id: None,
        }
    }

    #[test]
    fn the_plan_of_this_run_is_not_forgotten() {
        use IntentKind::{PlanNote, TurnNote};
        use IntentState::{Intended, Posted};
        let plan = of(PlanNote, 1, Posted);
        let turn = of(TurnNote, 1, Posted);
        let open = of(TurnNote, 1, Intended);
        let old = of(PlanNote, 0, Posted);
        for (intents, first) in [
            (vec![plan.clone(), old, turn.clone()], 1),
            (vec![plan.clone(), open.clone(), turn], 2),
            (vec![plan, open], 0),
        ] {
            assert_eq!(dispensable(&intents, 1), first);
        }
    }
}
