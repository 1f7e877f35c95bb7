//! The built-in brain: read, compare, conclude. No language model, and the same
//! ticket gives the same plan.

use super::diagnosis::conclude;
use super::evidence::{self, Evidence};
use super::gateway::Gateway;
use super::turn::{Conclusion, hand_in};
use super::{placeholders, runbooks};
use crate::gateway::wire::{
    Context, Mode, Plan, ResumeReason, StepSeen, StepState, WHY, Work, WorkflowStep, write_tool,
};
use crate::text::{one_line, unseen};
use serde_json::{Map, Value, json};

/// Of an argument shown in a plan, in characters.
const MAX_SHOWN: usize = 160;

/// One turn: the first diagnoses and acts, a later one answers.
pub async fn think(work: &Work, gateway: &Gateway) -> Conclusion {
    if work.turn > 0 {
        return Conclusion {
            plan: None,
            message: Some(answer(work)),
        };
    }
    let plan = diagnose(work, gateway).await;
    if work.mode != Mode::Execute {
        return Conclusion {
            plan: Some(plan),
            message: None,
        };
    }
    let calls = intended(work);
    let plan = with_calls(plan, work, &calls);
    // Technicians read the plan before anything changes. If it cannot be handed in, nothing does.
    if let Err(error) = hand_in(gateway, work, &plan).await {
        tracing::warn!(ticket = %work.ticket, %error, "could not hand in the plan; doing nothing");
        return Conclusion {
            plan: Some(plan),
            message: None,
        };
    }
    let failure = act(&calls, gateway).await.err();
    Conclusion {
        plan: Some(plan),
        message: failure.map(|why| format!("The plan was not completed. {why}")),
    }
}

/// Makes the calls in order and stops at the first that fails.
async fn act(calls: &[WorkflowStep], gateway: &Gateway) -> Result<(), String> {
    let tools = gateway.tools().await.map_err(|e| e.to_string())?;
    for call in calls {
        tools
            .call_until_settled(&call.tool, arguments(call))
            .await
            .map_err(|error| format!("{}: {error}", call.tool))?;
    }
    Ok(())
}

/// A call's arguments, with the reason if the tool takes one.
fn arguments(call: &WorkflowStep) -> Value {
    let mut arguments = call.arguments.clone();
    if let Some(why) = &call.why
        && write_tool(&call.tool).is_some()
    {
        arguments.insert(WHY.into(), why.as_str().into());
    }
    Value::Object(arguments)
}

/// What this brain would do about a ticket: the steps of the workflow that fits
/// best; without one, what is safe in any case.
pub fn intended(work: &Work) -> Vec<WorkflowStep> {
    let context = &work.context;
    if let Some(workflow) = context.workflows.iter().find(|w| !w.steps.is_empty()) {
        return filled(&workflow.steps, context);
    }
    let mut calls: Vec<WorkflowStep> = ask_requester(context).into_iter().collect();
    calls.push(call(
        "halopsa_update_ticket",
        json!({"status": "In Progress"}),
        "work has started",
    ));
    calls
}

/// A workflow's steps for this ticket.
fn filled(steps: &[WorkflowStep], context: &Context) -> Vec<WorkflowStep> {
    let id = context.ticket_id.to_string();
    // The gateway refuses a call with characters that nobody sees.
    let requester = unseen::strip(&context.requester.name);
    let subject = unseen::strip(&context.subject);
    let values = [
        ("ticketId", id.as_str()),
        ("requester", requester.as_str()),
        ("subject", subject.as_str()),
        ("client", context.client.as_str()),
    ];
    let fill = |step: &WorkflowStep| WorkflowStep {
        arguments: placeholders::fill(&step.arguments, &values),
        ..step.clone()
    };
    steps.iter().map(fill).collect()
}

/// The questions a technician would ask first, if a runbook fits.
fn ask_requester(context: &Context) -> Option<WorkflowStep> {
    let (book, _) = runbooks::find(&context.subject, &context.details)?;
    if book.questions.is_empty() {
        return None;
    }
    let name = match unseen::strip(&context.requester.name) {
        name if name.is_empty() => "there".into(),
        name => name,
    };
    let questions: Vec<String> = book.questions.iter().map(|q| format!("- {q}")).collect();
    let text = format!(
        "Hello {name},\n\nWe are looking into \"{}\". To help you faster, please tell us:\n\n\
         {}\n\nThank you",
        unseen::strip(&context.subject),
        questions.join("\n")
    );
    Some(call(
        "halopsa_reply_to_requester",
        json!({"text": text}),
        "so that the technician has the answers from the start",
    ))
}

fn call(tool: &str, arguments: Value, why: &str) -> WorkflowStep {
    let arguments = if let Value::Object(map) = arguments {
        map
    } else {
        Map::new()
    };
    WorkflowStep {
        tool: tool.into(),
        arguments,
        why: Some(why.into()),
    }
}

/// Execute mode: what the agent is about to call, then what is left to the technician.
fn with_calls(plan: Plan, work: &Work, calls: &[WorkflowStep]) -> Plan {
    let mut steps = instructions(work);
    steps.extend(calls.iter().map(described));
    let advice = plan.steps.iter();
    steps.extend(advice.map(|step| format!("For the technician: {step}")));
    Plan { steps, ..plan }
}

/// Plan mode: a workflow's instructions are what would be done, then the rest of the plan.
fn with_instructions(plan: Plan, work: &Work) -> Plan {
    let mut steps = instructions(work);
    steps.extend(plan.steps.iter().cloned());
    Plan { steps, ..plan }
}

/// The workflows' instructions, line by line.
fn instructions(work: &Work) -> Vec<String> {
    let mut steps = Vec::new();
    for workflow in &work.context.workflows {
        let lines = workflow.instructions.lines().map(str::trim);
        steps.extend(
            lines
                .filter(|line| !line.is_empty())
                .map(|line| format!("Workflow {}: {line}", workflow.name)),
        );
    }
    steps
}

/// A call in words.
fn described(call: &WorkflowStep) -> String {
    let title = write_tool(&call.tool).map_or(call.tool.as_str(), |t| t.title);
    let why = call.why.as_deref();
    let why = why.map(|w| format!(", {w}")).unwrap_or_default();
    let shown = |value: &Value| {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_string);
        one_line(&text, MAX_SHOWN)
    };
    let values: Vec<String> = call
        .arguments
        .iter()
        .map(|(name, value)| format!("{name}: {}", shown(value)))
        .collect();
    format!("The agent: {title} ({}){why}", values.join("; "))
}

/// What to say in a later turn. Pure.
pub fn answer(work: &Work) -> String {
    let reason = work.resumed.as_ref().map(|r| r.reason).unwrap_or_default();
    let text = match reason {
        ResumeReason::StepsRun => return after_steps(&work.steps),
        ResumeReason::Denied => {
            "Understood: none of the steps was run, and the agent stops here. Its diagnosis above \
             remains as a proposal."
        }
        ResumeReason::Message if work.approval_pending => {
            "Your message was read as neither a clear yes nor a clear no, so the request above is \
             still open. All of its steps are approved or denied together: reply with a plain yes \
             to run every step as listed, or with a no to run none. If you want only some of them, \
             or under a condition, reply no and do those by hand."
        }
        ResumeReason::Message => {
            "Your message was read. The built-in agent has nothing to add to its diagnosis above."
        }
    };
    text.to_string()
}

/// What to say once the approved steps have run.
fn after_steps(steps: &[StepSeen]) -> String {
    let done = |step: &StepSeen| {
        !matches!(
            step.state,
            StepState::Failed | StepState::Unknown | StepState::Superseded
        )
    };
    if steps.iter().all(done) {
        return "All approved steps are done. The agent plans nothing more; the ticket stays with \
                its assigned technician."
            .into();
    }
    let failed: Vec<String> = steps
        .iter()
        .filter(|s| matches!(s.state, StepState::Failed | StepState::Unknown))
        .map(|s| format!("Step {} ({}): {}", s.number, s.tool, s.result))
        .collect();
    format!(
        "Not every approved step was done. Please take over from here.\n{}",
        failed.join("\n")
    )
}

/// Gathers evidence and concludes. A tool that fails makes the plan poorer, not absent.
pub async fn diagnose(work: &Work, gateway: &Gateway) -> Plan {
    let context = &work.context;
    let evidence = match gateway.tools().await {
        Ok(tools) => evidence::gather(context, &tools).await,
        Err(error) => Evidence::unavailable(&error.to_string()),
    };
    let plan = conclude(context, &evidence);
    match work.mode {
        Mode::Execute => plan,
        Mode::Plan => with_instructions(plan, work),
    }
}

/// The end of a turn that could not be finished.
pub fn gave_up(work: &Work, why: &str) -> Conclusion {
    let plan = conclude(&work.context, &Evidence::unavailable(why));
    let message = (work.turn > 0 || work.mode == Mode::Execute)
        .then(|| format!("The agent could not finish its turn: {why}."));
    Conclusion {
        plan: Some(plan),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::wire::MatchedWorkflow;

    fn work(mode: Mode) -> Work {
        Work {
            ticket: "acme-7".into(),
            lease_id: "l".into(),
            lease_seconds: 45,
            mode,
            turn: 0,
            resumed: None,
            steps: Vec::new(),
            approval_pending: false,
            model: None,
            context: Context {
                workflows: vec![MatchedWorkflow {
                    name: "printers".into(),
                    instructions: "Log five minutes.\n\n".into(),
                    ..MatchedWorkflow::default()
                }],
                ..Context::default()
            },
        }
    }

    #[test]
    fn a_plan_names_who_does_what() {
        let plan = || Plan {
            steps: vec!["Call them".into()],
            ..Plan::default()
        };
        let calls = [call("crm__add", json!({"name": "Kim"}), "as agreed")];
        assert_eq!(
            with_calls(plan(), &work(Mode::Execute), &calls).steps,
            [
                "Workflow printers: Log five minutes.",
                "The agent: crm__add (name: Kim), as agreed",
                "For the technician: Call them",
            ]
        );
        assert_eq!(
            with_instructions(plan(), &work(Mode::Plan)).steps,
            ["Workflow printers: Log five minutes.", "Call them"]
        );
    }
}
