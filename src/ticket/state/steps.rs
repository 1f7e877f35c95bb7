//! The calls that write: proposed, sent, ended.

use super::claim::new_lease;
use super::{AUTO_STEPS, Applied, Change, Event, MAX_TURNS, OPEN_STEPS, Refused, STEP_LIMIT};
use crate::api::reason::Reason;
use crate::api::ticket::{
    ApprovalState, AutoSteps, Lease, Phase, ResumeReason, Step, StepState, TicketStatus,
};
use crate::text::mask;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

impl Change<'_> {
    pub(super) fn steps(&mut self) -> Result<Applied, Refused> {
        let event = self.event;
        match event {
            Event::StepProposed { lease, step } => self.step_proposed(lease, step),
            Event::StepStarted { lease, step } => self.step_started(lease, step),
            Event::StepSent { lease, number } => self.step_sent(lease, *number),
            Event::StepEnded {
                number,
                state,
                result,
            } => self.step_ended(*number, *state, result),
            Event::StepsTaken {
                lease,
                holder,
                expires_at,
            } => self.steps_taken(new_lease(lease, holder, *expires_at)),
            Event::StepsFinished { lease } => self.steps_finished(lease),
            _ => Err(self.wrong()),
        }
    }

    fn step_proposed(&mut self, lease: &str, step: &Step) -> Result<Applied, Refused> {
        self.next.held(lease)?;
        let open = |s: &&Step| matches!(s.state, StepState::Proposed | StepState::Waiting);
        if self.next.steps.iter().filter(open).count() >= OPEN_STEPS {
            return Err(Refused::TooManySteps);
        }
        self.next.add_step(step, StepState::Proposed, self.now)?;
        Ok(Applied::Recorded)
    }

    fn step_started(&mut self, lease: &str, step: &Step) -> Result<Applied, Refused> {
        self.next.held(lease)?;
        let count = self.next.auto_steps_in_turn();
        if count >= AUTO_STEPS {
            return Err(Refused::TooManyAutoSteps);
        }
        self.next.add_step(step, StepState::Running, self.now)?;
        self.next.auto_steps = Some(AutoSteps {
            run: self.next.run,
            turn: self.next.turn,
            count: count + 1,
        });
        Ok(Applied::Recorded)
    }

    fn step_sent(&mut self, lease: &str, number: i32) -> Result<Applied, Refused> {
        self.next.held(lease)?;
        let approved = self
            .next
            .approval
            .as_ref()
            .filter(|a| a.state == ApprovalState::Approved)
            .is_some_and(|a| a.steps.contains(&number));
        let now = self.now;
        let step = self.next.step_mut(number)?;
        match step.state {
            StepState::Waiting if approved => {}
            // Sent before, and certainly not arrived.
            StepState::Running => {}
            _ => return Err(Refused::NoSuchStep),
        }
        step.state = StepState::Running;
        step.recorded_at = Time(now);
        Ok(Applied::Recorded)
    }

    fn step_ended(
        &mut self,
        number: i32,
        state: StepState,
        result: &str,
    ) -> Result<Applied, Refused> {
        let step = self.next.step_mut(number)?;
        // Whoever sent it knows the result, even after losing the lease.
        if step.state != StepState::Running || !state.is_final() {
            return Err(Refused::NoSuchStep);
        }
        step.end(state, result);
        Ok(Applied::Recorded)
    }

    fn steps_taken(&mut self, lease: Lease) -> Result<Applied, Refused> {
        if self.next.phase != Phase::AwaitingApproval
            || !self.next.approval_is(ApprovalState::Approved)
        {
            return Err(self.wrong());
        }
        self.enter(
            Phase::Working,
            Reason::RunningSteps,
            "the gateway is running the approved steps",
        );
        self.next.attempts += 1;
        self.next.lease = Some(lease);
        Ok(Applied::Recorded)
    }

    fn steps_finished(&mut self, lease: &str) -> Result<Applied, Refused> {
        self.next.held(lease)?;
        if !self.next.approval_is(ApprovalState::Approved) {
            return Err(self.wrong());
        }
        let next = &mut self.next;
        if let Some(approval) = &mut next.approval {
            approval.state = ApprovalState::Executed;
            for step in next
                .steps
                .iter_mut()
                .filter(|s| approval.steps.contains(&s.number) && !s.state.is_final())
            {
                step.end(StepState::Superseded, "not run");
            }
        }
        next.attempts = 0;
        if next.turn < MAX_TURNS {
            let replies = next
                .resume
                .as_ref()
                .map(|resume| resume.replies.clone())
                .unwrap_or_default();
            self.resume(
                ResumeReason::StepsRun,
                &replies,
                Reason::StepsRun,
                "the approved steps were run; waiting for the agent to conclude",
            );
        } else {
            self.enter(Phase::Done, Reason::StepsRun, "the approved steps were run");
        }
        Ok(Applied::Recorded)
    }
}

impl TicketStatus {
    /// The number of the next step.
    pub fn next_step(&self) -> i32 {
        self.steps
            .iter()
            .map(|s| s.number)
            .max()
            .unwrap_or_default()
            + 1
    }

    /// How many steps ran without approval in this turn.
    pub fn auto_steps_in_turn(&self) -> i32 {
        self.auto_steps
            .filter(|steps| (steps.run, steps.turn) == (self.run, self.turn))
            .map_or(0, |steps| steps.count)
    }

    /// Ends every step in such a state.
    pub(super) fn settle(&mut self, end: StepState, which: impl Fn(StepState) -> bool) {
        for step in self.steps.iter_mut().filter(|s| which(s.state)) {
            step.end(end, step.result.clone().as_deref().unwrap_or_default());
        }
    }

    fn step_mut(&mut self, number: i32) -> Result<&mut Step, Refused> {
        self.steps
            .iter_mut()
            .find(|s| s.number == number)
            .ok_or(Refused::NoSuchStep)
    }

    fn add_step(&mut self, step: &Step, state: StepState, now: Timestamp) -> Result<(), Refused> {
        if step.number != self.next_step() {
            return Err(Refused::NoSuchStep);
        }
        while self.steps.len() >= STEP_LIMIT {
            let Some(oldest) = self.steps.iter().position(|s| s.state.is_final()) else {
                return Err(Refused::TooManySteps);
            };
            self.steps.remove(oldest);
        }
        self.steps.push(Step {
            state,
            recorded_at: Time(now),
            run: self.run,
            ..step.clone()
        });
        Ok(())
    }
}

impl Step {
    fn end(&mut self, state: StepState, result: &str) {
        self.state = state;
        self.result = (!result.is_empty()).then(|| result.chars().take(300).collect());
        // The whole call was needed to run it. What stays is for display, and holds no secret and
        // no text.
        self.arguments = mask::arguments(&self.tool, &self.arguments, true);
        self.why = None;
    }
}
