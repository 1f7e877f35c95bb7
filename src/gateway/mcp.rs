//! The tools over MCP: listed and called under policy, every call audited.

use super::catalog::{self, ResolvedTool};
use super::identity::Identity;
use super::steps::{self, Ended, StepExecutor};
use super::{AgentScope, Gateway, SUSPENDED, work};
use crate::api::Mode;
use crate::api::policy::Effect;
use crate::api::ticket::{IntentKind, IntentState, Step, StepState, Ticket, ToolCall};
use crate::audit::{self, Subject};
use crate::halopsa;
use crate::k8s::tickets;
use crate::metrics::{METRICS, ToolLabels};
use crate::policy::{Decision, facts::TicketFacts};
use crate::text::mask;
use crate::text::one_line;
use crate::ticket::actor::Actor;
use crate::ticket::approval;
use crate::ticket::state::{self, Event};
use crate::ticket::verification;
use crate::tools::{pin, read, server, write};
use k8s_openapi::jiff::Timestamp;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
    ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::Instrument;

/// The longest arguments of a call, as JSON, in bytes. An approval lists them whole.
const MAX_ARGUMENTS: usize = 8 * 1024;
/// How long a call waits for what an earlier one may have sent.
const MAX_WAIT: Duration = Duration::from_secs(20);

/// The MCP server of one request.
#[derive(Clone)]
pub struct Tools {
    gateway: Arc<Gateway>,
}

/// What came of a call.
struct Answer {
    result: CallToolResult,
    outcome: &'static str,
    decision: Option<Decision>,
    step: Option<i32>,
}

impl Answer {
    fn refused(outcome: &'static str, text: impl Into<String>) -> Self {
        Self {
            result: CallToolResult::error(vec![ContentBlock::text(text.into())]),
            outcome,
            decision: None,
            step: None,
        }
    }

    fn by(mut self, decision: &Decision) -> Self {
        self.decision = Some(decision.clone());
        self
    }

    fn step(mut self, number: i32) -> Self {
        self.step = Some(number);
        self
    }
}

const NO_SUCH_TOOL: &str = "there is no tool of this name";

impl Tools {
    pub fn new(gateway: Arc<Gateway>) -> Self {
        Self { gateway }
    }

    fn identity(context: &RequestContext<RoleServer>) -> Result<Identity, ErrorData> {
        context
            .extensions
            .get::<axum::http::request::Parts>()
            .and_then(|parts| parts.extensions.get::<Identity>())
            .cloned()
            .ok_or_else(|| ErrorData::internal_error("the request has no identity", None))
    }

    async fn run(
        &self,
        identity: &Identity,
        name: &str,
        arguments: Map<String, Value>,
    ) -> (Answer, &'static str) {
        let bound = match self.gateway.bound(identity) {
            Ok(bound) => bound,
            Err(why) => return (Answer::refused("failed", why), "unknown"),
        };
        let Some(found) = catalog::find(&self.gateway, identity, &bound, name) else {
            return (Answer::refused("unknown", NO_SUCH_TOOL), "unknown");
        };
        let label = found.label();
        if bound.connection.spec.suspend {
            return (Answer::refused("suspended", SUSPENDED), label);
        }
        let size = serde_json::to_string(&arguments).map_or(usize::MAX, |s| s.len());
        if size > MAX_ARGUMENTS {
            return (
                Answer::refused(
                    "bad arguments",
                    format!("the arguments are longer than {MAX_ARGUMENTS} bytes"),
                ),
                label,
            );
        }
        let halo = match self.gateway.halopsa.client(&bound.connection).await {
            Ok(halo) => halo,
            Err(error) => return (Answer::refused("failed", error.to_string()), label),
        };
        let answer = match found {
            ResolvedTool::Read(tool) => self.read(identity, &bound, &halo, tool, arguments).await,
            found => {
                self.write(identity, &bound, &halo, name, &found, arguments)
                    .await
            }
        };
        (answer, label)
    }

    async fn read(
        &self,
        identity: &Identity,
        bound: &AgentScope,
        halo: &halopsa::Client,
        tool: &read::Tool,
        arguments: Map<String, Value>,
    ) -> Answer {
        // A rule may ask for the ticket; one that does not need not cost a request.
        let facts = match catalog::has_conditions(&self.gateway, identity, bound, tool.name) {
            true => match work::holding(&self.gateway, identity).await {
                Some(ticket) => halo
                    .ticket(ticket.spec.ticket_id)
                    .await
                    .map(|t| TicketFacts::from(&t))
                    .unwrap_or_default(),
                None => TicketFacts::default(),
            },
            false => TicketFacts::default(),
        };
        let decision = catalog::decide(
            &self.gateway,
            identity,
            bound,
            tool.name,
            tool.access,
            &arguments,
            &facts,
        );
        match decision.effect {
            Effect::Auto => {}
            Effect::Disabled => return Answer::refused("disabled", NO_SUCH_TOOL).by(&decision),
            Effect::ApprovalNeeded => {
                return Answer::refused("needs approval", "a technician would have to approve reading this; go on without it and say so in the plan")
                    .by(&decision);
            }
        }
        match read::call(tool, arguments, bound.halo_client_id, halo).await {
            Ok(value) => Answer {
                result: CallToolResult::structured(value),
                outcome: "ok",
                decision: Some(decision),
                step: None,
            },
            Err(error) => {
                let outcome = match error {
                    read::Error::NotYours(_) => "refused",
                    read::Error::Arguments(_) => "bad arguments",
                    _ => "failed",
                };
                Answer::refused(outcome, error.to_string()).by(&decision)
            }
        }
    }

    /// A call that changes something: checked, decided, then run or queued.
    async fn write(
        &self,
        identity: &Identity,
        bound: &AgentScope,
        halo: &halopsa::Client,
        name: &str,
        found: &ResolvedTool,
        mut arguments: Map<String, Value>,
    ) -> Answer {
        // The watch may be behind with the step this agent has just made, so the Ticket is read anew.
        let ticket = match work::holding(&self.gateway, identity).await {
            None => return Answer::refused("refused", "you hold no ticket: claim one first"),
            Some(held) => match work::api(&self.gateway, identity)
                .get(&kube::ResourceExt::name_any(&held))
                .await
            {
                Ok(ticket) => ticket,
                Err(error) => return Answer::refused("failed", crate::k8s::explain(&error)),
            },
        };
        let status = ticket.status.clone().unwrap_or_default();
        let Some(lease) = status
            .lease
            .as_ref()
            .filter(|l| l.holder == identity.pod)
            .map(|l| l.id.clone())
        else {
            return Answer::refused("refused", "you hold no ticket: claim one first");
        };
        let (pin, why) = match found {
            ResolvedTool::Server { pin, .. } => (pin.clone(), None),
            _ => (
                String::new(),
                arguments
                    .remove(write::WHY)
                    .and_then(|v| v.as_str().map(|w| one_line(w, 300))),
            ),
        };
        // Checked before anything is decided: nonsense is not put before a technician.
        if let ResolvedTool::Write(_) = found
            && let Err(error) = write::parse(name, &arguments)
        {
            return Answer::refused(
                "bad arguments",
                format!("the arguments do not fit: {error}"),
            );
        }
        let halo_ticket = match halo.ticket(ticket.spec.ticket_id).await {
            Ok(halo_ticket) if halo_ticket.client_id == Some(bound.halo_client_id) => halo_ticket,
            Ok(_) | Err(halopsa::Error::NotFound { .. }) => {
                return Answer::refused(
                    "refused",
                    "the ticket is not your client's any more: drop it",
                );
            }
            Err(error) => return Answer::refused("failed", error.to_string()),
        };
        let decision = catalog::decide(
            &self.gateway,
            identity,
            bound,
            name,
            found.access(),
            &arguments,
            &TicketFacts::from(&halo_ticket),
        );
        if decision.effect == Effect::Disabled {
            return Answer::refused("disabled", NO_SUCH_TOOL).by(&decision);
        }
        let user = halo_ticket.user_id;
        if decision.require_verification && !state::is_verified(&status, user, Timestamp::now()) {
            let reasons = vec![format!("policy: '{name}' asks for it")];
            let refused = |text: &str| Answer::refused("not verified", text).by(&decision);
            let Some(timeout) = bound.verification_timeout(&self.gateway) else {
                return refused(
                    "the requester has to be verified for this, and no verification provider is connected; leave it to a technician",
                );
            };
            let event = verification::start(
                &status,
                &bound.connection,
                &ticket,
                &reasons,
                timeout,
                Some(lease),
            );
            return match tickets::transition(
                &work::api(&self.gateway, identity),
                &ticket,
                &[event],
                Actor::Agent(&identity.pod),
            )
            .await
            {
                Ok(_) => refused(
                    "the requester has to be verified for this and is being asked; drop the ticket, you get it again when they have answered",
                ),
                Err(error) => Answer::refused("failed", error.to_string()).by(&decision),
            };
        }
        // A server's tool that only reads changes nothing that would have to be kept track of.
        if let ResolvedTool::Server {
            access: crate::policy::Access::Read,
            ..
        } = found
            && decision.effect == Effect::Auto
        {
            return self.read_server(found, arguments).await.by(&decision);
        }
        if bound.mode == Mode::Plan || status.mode == Some(Mode::Plan) {
            return Answer::refused("disabled", NO_SUCH_TOOL).by(&decision);
        }
        let planned = status.intents.iter().any(|i| {
            i.run == status.run && i.kind == IntentKind::PlanNote && i.state == IntentState::Posted
        });
        if !planned {
            let text = "hand in your diagnosis and plan first (POST /v1/work/{ticket}/plan): technicians read it before anything changes";
            return Answer::refused("no plan yet", text).by(&decision);
        }
        let uid = bound.connection.metadata.uid.clone().unwrap_or_default();
        let step = steps::new_step(&ticket, &uid, name, &arguments, pin, why, &decision);
        let desk = StepExecutor {
            gateway: &self.gateway,
            api: work::api(&self.gateway, identity),
            bound,
            halo,
            by: Actor::Agent(&identity.pod),
            lease: &lease,
            max_wait: MAX_WAIT,
        };
        // The same call again in the same turn is the same step.
        if let Some(known) = status
            .steps
            .iter()
            .rev()
            .find(|s| s.run == status.run && s.hash == step.hash)
        {
            match known.state {
                StepState::Done => {
                    return said(
                        known,
                        "done already in this turn",
                        known.result.as_deref().unwrap_or_default(),
                    )
                    .by(&decision)
                    .step(known.number);
                }
                StepState::Proposed | StepState::Waiting => {
                    return queued(known.number).by(&decision);
                }
                StepState::Denied | StepState::Expired => {
                    return Answer::refused(
                        "denied",
                        "a technician was asked about exactly this call, and it was not approved",
                    )
                    .by(&decision);
                }
                StepState::Unknown => {
                    return Answer::refused("unknown", "whether exactly this call was carried out is not known; a technician has to look")
                        .by(&decision);
                }
                StepState::Running => {
                    return ended(desk.run(&ticket, known.number, false).await, known.number)
                        .by(&decision);
                }
                StepState::Failed | StepState::Superseded => {}
            }
        }
        let number = step.number;
        match decision.effect {
            Effect::ApprovalNeeded => {
                let event = Event::StepProposed {
                    lease: lease.clone(),
                    step: Box::new(step),
                };
                match tickets::transition(&desk.api, &ticket, &[event], Actor::Agent(&identity.pod))
                    .await
                {
                    Ok(_) => queued(number).by(&decision),
                    Err(error) => Answer::refused("failed", error.to_string()).by(&decision),
                }
            }
            _ => {
                let event = Event::StepStarted {
                    lease: lease.clone(),
                    step: Box::new(step),
                };
                match tickets::transition(&desk.api, &ticket, &[event], Actor::Agent(&identity.pod))
                    .await
                {
                    Ok(stored) => {
                        ended(desk.run(&stored, number, true).await, number).by(&decision)
                    }
                    Err(error) => Answer::refused("failed", error.to_string()).by(&decision),
                }
            }
        }
    }

    async fn read_server(&self, found: &ResolvedTool, arguments: Map<String, Value>) -> Answer {
        let ResolvedTool::Server {
            server, tool, pin, ..
        } = found
        else {
            return Answer::refused("unknown", NO_SUCH_TOOL);
        };
        let called = async {
            let session = server::connect(&self.gateway.kube, server).await?;
            let offered = session.tools(server).await?;
            if !offered
                .iter()
                .any(|t| t.name == *tool && pin::hash(t) == *pin)
            {
                return Err(server::Error::Refused("the server has changed the tool, or does not offer it any more; nothing was called".into()));
            }
            session.call(tool, arguments).await
        };
        match called.await {
            Ok(result) if result.is_error == Some(true) => {
                Answer::refused("failed", steps::result_text(&result))
            }
            Ok(result) => {
                let text = steps::result_text(&result);
                Answer {
                    result: CallToolResult::structured(json!({"result": text})),
                    outcome: "ok",
                    decision: None,
                    step: None,
                }
            }
            Err(error) => Answer::refused("failed", error.to_string()),
        }
    }
}

fn queued(number: i32) -> Answer {
    let value = json!({"status": "queued", "step": number, "message": "Not run: a technician has to approve it. At the end of your turn the assigned agent is asked about all queued steps."});
    Answer {
        result: CallToolResult::structured(value),
        outcome: "queued",
        decision: None,
        step: Some(number),
    }
}

fn said(step: &Step, message: &str, result: &str) -> Answer {
    let value =
        json!({"status": "done", "step": step.number, "message": message, "result": result});
    Answer {
        result: CallToolResult::structured(value),
        outcome: "repeated",
        decision: None,
        step: Some(step.number),
    }
}

fn ended(run: Result<(Ticket, Ended), steps::Error>, number: i32) -> Answer {
    match run {
        Ok((
            _,
            Ended {
                state: StepState::Done,
                full,
                ..
            },
        )) => {
            let value = json!({"status": "done", "step": number, "result": full});
            Answer {
                result: CallToolResult::structured(value),
                outcome: "ok",
                decision: None,
                step: Some(number),
            }
        }
        Ok((_, Ended { full, .. })) => Answer::refused("failed", full).step(number),
        Err(error @ steps::Error::Unsettled { .. }) => Answer::refused(
            "unsettled",
            format!("{error}. Make exactly the same call again then"),
        )
        .step(number),
        Err(error) => Answer::refused("failed", error.to_string()).step(number),
    }
}

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        let mut info = ServerConfig::new(ServerCapabilities::builder().enable_tools().build());
        info.server_info = Implementation::new("halopsa-operator", env!("CARGO_PKG_VERSION"));
        info
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let identity = Self::identity(&context)?;
        let bound = self
            .gateway
            .bound(&identity)
            .map_err(|why| ErrorData::internal_error(why, None))?;
        Ok(ListToolsResult::with_all_items(
            catalog::list(&self.gateway, &identity, &bound).await,
        ))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let identity = Self::identity(&context)?;
        let started = Instant::now();
        // Names come from outside: bounded where shown, and not a label unless known.
        let shown = one_line(&request.name, 100);
        let arguments = request.arguments.unwrap_or_default();
        let mut call = ToolCall {
            tool: shown.clone(),
            arguments: mask::shown(&arguments),
            ..ToolCall::default()
        };
        let span = tracing::info_span!(
            target: "audit", "tool_call", otel.name = %format!("tool {shown}"), tool = %shown, namespace = %identity.namespace, client = %identity.client,
            pod = %identity.pod, arguments = %call.arguments, ticket = tracing::field::Empty, decision = tracing::field::Empty,
            rule = tracing::field::Empty, step = tracing::field::Empty, outcome = tracing::field::Empty,
        );
        let (answer, label) = self
            .run(&identity, &request.name, arguments)
            .instrument(span.clone())
            .await;
        let ticket = work::held_by(&self.gateway, &identity);
        call.outcome = answer.outcome.into();
        call.step = answer.step;
        call.ms = started.elapsed().as_millis() as i64;
        if let Some(decision) = &answer.decision {
            call.decision = format!("{:?}", decision.effect);
            call.rule = decision.rule.clone();
        }
        span.record("ticket", ticket.as_deref().unwrap_or_default());
        span.record("decision", &call.decision);
        span.record("rule", &call.rule);
        span.record("step", call.step);
        span.record("outcome", &call.outcome);
        METRICS
            .tool_calls
            .get_or_create(&ToolLabels {
                tool: label,
                outcome: answer.outcome,
            })
            .inc();
        let subject = Subject {
            namespace: &identity.namespace,
            client: &identity.client,
            ticket: ticket.as_deref().unwrap_or_default(),
            by: Some(Actor::Agent(&identity.pod)),
        };
        audit::call(subject, &call);
        if let Some(ticket) = ticket {
            self.gateway
                .journal
                .add(&identity.namespace, &ticket, &identity.pod, call);
        }
        Ok(answer.result.into())
    }
}

/// What an approval is bound to, from what is stored now.
pub fn request_hash(uid: &str, ticket: &Ticket, numbers: &[i32]) -> Option<String> {
    let status = ticket.status.as_ref()?;
    let steps: Option<Vec<&Step>> = numbers
        .iter()
        .map(|n| status.steps.iter().find(|s| s.number == *n))
        .collect();
    Some(approval::hash(
        uid,
        ticket.spec.ticket_id,
        status.run,
        steps?,
    ))
}
