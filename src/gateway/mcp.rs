//! The tools over MCP: listed and called under policy, every call audited.
//!
//! A call that writes goes through these steps, each of which may refuse it: the
//! agent holds a ticket, the arguments fit and mean something in HaloPSA, the policies
//! allow what they mean, the requester is verified, the plan is posted, it is not a
//! repeat. Then it is queued or run.

use super::catalog::{self, ResolvedTool};
use super::identity::Identity;
use super::outcome::Outcome;
use super::resolve::{self, Resolver};
use super::steps::{self, CheckedCall, Ended, StepExecutor};
use super::wire::{UNSETTLED, Unsettled};
use super::{AgentScope, Gateway, SUSPENDED, facts, hidden, work};
use crate::api::Mode;
use crate::api::policy::Effect;
use crate::api::ticket::{
    ApprovalState, IntentKind, IntentState, Step, StepState, Ticket, TicketStatus, ToolCall,
};
use crate::audit::{self, Subject};
use crate::halopsa::{self, types};
use crate::k8s::{self, tickets};
use crate::metrics::ToolLabels;
use crate::policy::facts::TicketFacts;
use crate::policy::{self, Access, Decision};
use crate::text::{mask, unseen};
use crate::ticket::actor::Actor;
use crate::ticket::ownership::still_ours;
use crate::ticket::state::{self, AUTO_STEPS, Event};
use crate::ticket::verification::{self, Why};
use crate::tools::{read, write};
use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
    ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Map, Value, json};
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{Instrument, Span, field};

/// The longest arguments of a call, as JSON, in bytes. A request for approval shows them whole.
const MAX_ARGUMENTS: usize = 8 * 1024;
/// How long a call waits for HaloPSA to show what an earlier one may have sent.
const MAX_WAIT: Duration = Duration::from_secs(20);

const NO_SUCH_TOOL: &str = "there is no tool of this name";
const NO_TICKET: &str = "you hold no ticket: claim one first";
const NO_PLAN: &str = "hand in your diagnosis and plan first (POST /v1/work/{ticket}/plan): \
    technicians read it before anything changes";
const READ_NEEDS_APPROVAL: &str = "a technician would have to approve reading this; \
    go on without it and say so in the plan";
const CANNOT_VERIFY: &str = "the requester has to be verified for this, and no verification \
    provider is connected; leave it to a technician";
const VERIFYING: &str = "the requester has to be verified for this and is being asked; \
    drop the ticket, you get it again when they have answered";
const BEING_ASKED: &str = "a request for approval stands on the ticket, and the assigned \
    technician decides about it: the ticket is not assigned to somebody else meanwhile. Call again \
    once it is decided";
const QUEUED: &str = "Not run: a technician has to approve it. At the end of your turn the \
    assigned technician is asked about all queued steps.";
/// The label of a tool that does not exist: names from outside are not labels.
const UNKNOWN: &str = "unknown";

/// The MCP server of one request.
#[derive(Clone)]
pub struct Tools {
    gateway: Arc<Gateway>,
}

/// The answer to a call.
struct Answer {
    result: CallToolResult,
    outcome: Outcome,
    decision: Option<Decision>,
    step: Option<i32>,
}

/// A step's result, or the answer that ends the call early.
type Checked<T> = Result<T, Box<Answer>>;

impl Answer {
    fn new(outcome: Outcome, result: CallToolResult) -> Self {
        Self {
            result,
            outcome,
            decision: None,
            step: None,
        }
    }

    fn structured(outcome: Outcome, value: Value) -> Self {
        Self::new(outcome, CallToolResult::structured(value))
    }

    fn error(outcome: Outcome, text: impl Into<String>) -> Self {
        let text = ContentBlock::text(text.into());
        Self::new(outcome, CallToolResult::error(vec![text]))
    }

    fn by(mut self, decision: &Decision) -> Self {
        self.decision = Some(decision.clone());
        self
    }

    fn step(mut self, number: i32) -> Self {
        self.step = Some(number);
        self
    }

    fn of(checked: Checked<Answer>) -> Self {
        checked.unwrap_or_else(|refused| *refused)
    }
}

fn refuse(outcome: Outcome, text: impl Into<String>) -> Box<Answer> {
    Box::new(Answer::error(outcome, text))
}

fn failed(error: impl Display) -> Box<Answer> {
    refuse(Outcome::Failed, error.to_string())
}

fn unfit(error: resolve::Error) -> Box<Answer> {
    let outcome = match error {
        resolve::Error::Arguments(_) => Outcome::BadArguments,
        resolve::Error::Halo(_) => Outcome::Failed,
    };
    refuse(outcome, error.to_string())
}

/// A request for approval shows the arguments whole, so they are not longer than one can show.
fn in_bounds(arguments: &Map<String, Value>) -> Checked<()> {
    let size = serde_json::to_string(arguments).map_or(usize::MAX, |s| s.len());
    match size > MAX_ARGUMENTS {
        true => Err(refuse(
            Outcome::BadArguments,
            format!("the arguments are longer than {MAX_ARGUMENTS} bytes"),
        )),
        false => Ok(()),
    }
}

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

    /// The tool of this name, for the agent.
    fn find(&self, identity: &Identity, name: &str) -> Checked<(AgentScope, ResolvedTool)> {
        let scope = self.gateway.scope_of(identity);
        let scope = scope.map_err(|why| refuse(Outcome::Failed, why))?;
        match catalog::find(&self.gateway, &scope, name) {
            Some(tool) => Ok((scope, tool)),
            None => Err(refuse(Outcome::UnknownTool, NO_SUCH_TOOL)),
        }
    }

    async fn call(
        &self,
        identity: &Identity,
        scope: &AgentScope,
        name: &str,
        tool: &ResolvedTool,
        arguments: Map<String, Value>,
    ) -> Checked<Answer> {
        if scope.connection.spec.suspend {
            return Err(refuse(Outcome::Suspended, SUSPENDED));
        }
        in_bounds(&arguments)?;
        let halo = self.gateway.halo(scope).await;
        let halo = halo.map_err(failed)?;
        let call = Call {
            gateway: &self.gateway,
            identity,
            scope,
            halo: &halo,
            name,
            tool,
            arguments,
        };
        match tool {
            ResolvedTool::Read(tool) => Ok(call.read(tool).await),
            ResolvedTool::Write(_) | ResolvedTool::Server { .. } => call.write().await,
        }
    }

    /// Shows a call in its span, the audit stream and the Ticket's journal.
    fn record(&self, identity: &Identity, span: &Span, call: ToolCall) {
        let ticket = work::held_by(&self.gateway, identity);
        span.record("ticket", ticket.as_deref().unwrap_or_default());
        span.record("decision", &call.decision);
        span.record("rule", &call.rule);
        span.record("step", call.step);
        span.record("outcome", &call.outcome);
        let subject = Subject {
            namespace: &identity.namespace,
            client: &identity.client,
            ticket: ticket.as_deref().unwrap_or_default(),
            by: Some(Actor::Agent(&identity.pod)),
        };
        audit::call(subject, &call);
        if let Some(ticket) = ticket {
            let journal = &self.gateway.journal;
            journal.add(&identity.namespace, &ticket, &identity.pod, call);
        }
    }
}

/// The ticket a call is about, as HaloPSA has it.
struct Seen {
    held: HeldTicket,
    ticket: types::Ticket,
    facts: TicketFacts,
}

/// The ticket a call is about, and the agent's lease on it.
struct HeldTicket {
    ticket: Ticket,
    status: TicketStatus,
    lease: String,
}

/// A call of a tool that exists.
struct Call<'a> {
    gateway: &'a Gateway,
    identity: &'a Identity,
    scope: &'a AgentScope,
    halo: &'a halopsa::Client,
    name: &'a str,
    tool: &'a ResolvedTool,
    arguments: Map<String, Value>,
}

impl<'a> Call<'a> {
    fn by(&self) -> Actor<'a> {
        Actor::Agent(&self.identity.pod)
    }

    fn api(&self) -> Api<Ticket> {
        work::api(self.gateway, self.identity)
    }

    /// `ticket`: none, if nothing about it can be told.
    fn decide(&self, ticket: Option<&TicketFacts>) -> Decision {
        let call = policy::Call {
            tool: self.name,
            access: self.tool.access(),
            sensitive: self.tool.sensitive(),
            arguments: &self.arguments,
            ticket,
        };
        catalog::decide(self.gateway, self.scope, &call)
    }

    async fn read(self, tool: &read::Tool) -> Answer {
        let Some(held) = work::holding(self.gateway, self.identity).await else {
            return Answer::error(Outcome::Refused, NO_TICKET);
        };
        let held = held.spec.ticket_id;
        let seen = self.seen_for_reading().await;
        let decision = self.decide(seen.as_ref().map(|seen| &seen.facts));
        let answer = match decision.effect {
            Effect::Auto => self.read_verified(tool, held, seen, &decision).await,
            Effect::Disabled => Err(refuse(Outcome::Disabled, NO_SUCH_TOOL)),
            Effect::ApprovalNeeded => Err(refuse(Outcome::NeedsApproval, READ_NEEDS_APPROVAL)),
        };
        Answer::of(answer).by(&decision)
    }

    async fn read_verified(
        self,
        tool: &read::Tool,
        held: i64,
        seen: Option<Seen>,
        decision: &Decision,
    ) -> Checked<Answer> {
        if decision.require_verification {
            let seen = match seen {
                Some(seen) => seen,
                None => self.see().await?,
            };
            self.verify(&seen.held, seen.ticket.user_id, decision)
                .await?;
        }
        self.read_halopsa(tool, held).await
    }

    /// The ticket, if a rule for the tool asks about it; else it costs needless requests. None also
    /// if it cannot be told: then such a rule counts against the call.
    async fn seen_for_reading(&self) -> Option<Seen> {
        let wanted = catalog::wanted(self.gateway, self.scope, self.name);
        if !(wanted.ticket || wanted.verification || self.tool.sensitive()) {
            return None;
        }
        self.see().await.ok()
    }

    async fn see(&self) -> Checked<Seen> {
        let held = self.hold().await?;
        let ticket = self.halo_ticket(&held).await?;
        let facts = self.facts(&held, &ticket).await;
        Ok(Seen {
            held,
            ticket,
            facts,
        })
    }

    async fn facts(&self, held: &HeldTicket, ticket: &types::Ticket) -> TicketFacts {
        let (gateway, scope, halo) = (self.gateway, self.scope, self.halo);
        facts::gather(gateway, scope, halo, &held.status, ticket, self.name).await
    }

    /// `held`: the agent's own ticket, which it may read in any case.
    async fn read_halopsa(self, tool: &read::Tool, held: i64) -> Checked<Answer> {
        let mut hidden = hidden::tickets(self.gateway, self.scope);
        hidden.remove(&held);
        let view = read::View {
            client: self.scope.halo_client_id,
            hidden,
        };
        match read::call(tool, self.arguments, &view, self.halo).await {
            Ok(value) => Ok(Answer::structured(Outcome::Ok, value)),
            Err(error) => {
                let outcome = match error {
                    read::Error::NotYours(_) => Outcome::Refused,
                    read::Error::Arguments(_) => Outcome::BadArguments,
                    _ => Outcome::Failed,
                };
                Err(refuse(outcome, error.to_string()))
            }
        }
    }

    /// A call that changes something, or another server's tool.
    async fn write(mut self) -> Checked<Answer> {
        let held = self.hold().await?;
        let parsed = self.parse()?;
        let fits = self.check_schema().await;
        let ticket = self.halo_ticket(&held).await?;
        let (why, resolved) = match parsed {
            Some((why, write)) => (why, self.resolve(&write, &ticket).await),
            None => (None, Ok(())),
        };
        let facts = self.facts(&held, &ticket).await;
        let decision = self.at_most(self.decide(Some(&facts)), &held.status);
        let answer = match resolved.and(fits) {
            // A disabled tool does not exist, whatever its arguments and whatever rows there are.
            Err(refused) if decision.effect != Effect::Disabled => Err(refused),
            _ => self.decided(&held, &ticket, why, &decision).await,
        };
        Ok(Answer::of(answer).by(&decision))
    }

    /// An agent that runs call after call without approval is asked about, too.
    fn at_most(&self, decision: Decision, status: &TicketStatus) -> Decision {
        let writes = self.tool.access() != Access::Read;
        if !writes || decision.effect != Effect::Auto || status.auto_steps_in_turn() < AUTO_STEPS {
            return decision;
        }
        Decision {
            effect: Effect::ApprovalNeeded,
            reason: format!("{AUTO_STEPS} calls ran without approval in this turn"),
            ..decision
        }
    }

    /// The ticket the agent holds. Read again: the watch may be behind with the agent's last step.
    async fn hold(&self) -> Checked<HeldTicket> {
        let no_ticket = || refuse(Outcome::Refused, NO_TICKET);
        let seen = work::holding(self.gateway, self.identity).await;
        let name = seen.ok_or_else(no_ticket)?.name_any();
        let ticket = self.api().get(&name).await;
        let ticket = ticket.map_err(|error| failed(k8s::explain(&error)))?;
        let status = ticket.status.clone().unwrap_or_default();
        let lease = status
            .lease
            .as_ref()
            .filter(|l| l.holder == self.identity.pod)
            .map(|l| l.id.clone())
            .ok_or_else(no_ticket)?;
        Ok(HeldTicket {
            ticket,
            status,
            lease,
        })
    }

    /// Checks the arguments' form before anything is decided. Another server's tool gets them as
    /// they are; only what would show them differently to a technician is refused.
    fn parse(&mut self) -> Checked<Option<(Option<String>, write::Write)>> {
        if let ResolvedTool::Write(_) = self.tool {
            let parsed = resolve::parse(self.name, &mut self.arguments).map_err(unfit)?;
            return Ok(Some(parsed));
        }
        let given = Value::Object(self.arguments.clone());
        match unseen::bidi_in(&given) {
            Some(c) => Err(refuse(
                Outcome::BadArguments,
                format!(
                    "the arguments must not hold characters that control the direction of \
                     writing; they have {}",
                    unseen::named(c)
                ),
            )),
            None => Ok(None),
        }
    }

    /// Puts what the arguments mean in their place: from here on there is only this one call.
    async fn resolve(&mut self, write: &write::Write, ticket: &types::Ticket) -> Checked<()> {
        let resolver = Resolver {
            gateway: self.gateway,
            scope: self.scope,
            halo: self.halo,
            ticket,
        };
        let canonical = resolver.canonical(self.name, &self.arguments, write).await;
        self.arguments = canonical.map_err(unfit)?;
        in_bounds(&self.arguments)
    }

    /// The same for a ToolServer's tool, whose schema says what fits.
    async fn check_schema(&self) -> Checked<()> {
        let checked = catalog::check_arguments(self.gateway, self.tool, &self.arguments).await;
        checked.map_err(|error| {
            let text = format!("the arguments do not fit: {error}");
            refuse(Outcome::BadArguments, text)
        })
    }

    async fn halo_ticket(&self, held: &HeldTicket) -> Checked<types::Ticket> {
        let found = self.halo.find_ticket(held.ticket.spec.ticket_id).await;
        let found = found.map_err(failed)?;
        let ownership = still_ours(found.as_ref(), self.scope.halo_client_id);
        found.filter(|_| !ownership.is_gone()).ok_or_else(|| {
            let text = format!("{}; drop it", ownership.sentence());
            refuse(Outcome::Refused, text)
        })
    }

    async fn decided(
        self,
        held: &HeldTicket,
        halo_ticket: &types::Ticket,
        why: Option<String>,
        decision: &Decision,
    ) -> Checked<Answer> {
        if decision.effect == Effect::Disabled {
            return Err(refuse(Outcome::Disabled, NO_SUCH_TOOL));
        }
        self.verify(held, halo_ticket.user_id, decision).await?;
        // A server's tool that only reads changes nothing, so it needs no step.
        if self.tool.access() == Access::Read && decision.effect == Effect::Auto {
            return self.read_server(held, halo_ticket).await;
        }
        self.may_change(held)?;
        self.may_assign(held)?;
        let pin = steps::pin_of(self.scope, self.tool);
        let call = CheckedCall {
            tool: self.name,
            arguments: &self.arguments,
            pin: &pin,
            why,
            high_risk: self.tool.access() == Access::Destructive || self.tool.sensitive(),
        };
        let step = steps::new_step(&held.ticket, self.scope.connection_uid(), call, decision);
        let executor = self.executor(held);
        if let Some(answer) = deduplicate(&executor, held, &step.hash).await? {
            return Ok(answer);
        }
        match decision.effect {
            Effect::ApprovalNeeded => queue(&executor, held, step).await,
            Effect::Auto | Effect::Disabled => run(&executor, held, step).await,
        }
    }

    /// Starts the requester's verification if the rule requires one and there is none.
    async fn verify(
        &self,
        held: &HeldTicket,
        user: Option<i64>,
        decision: &Decision,
    ) -> Checked<()> {
        let now = Timestamp::now();
        if !decision.require_verification || state::is_verified(&held.status, user, now) {
            return Ok(());
        }
        let Some(timeout) = self.scope.verification_timeout(self.gateway) else {
            return Err(refuse(Outcome::Unverified, CANNOT_VERIFY));
        };
        let connection = &self.scope.connection;
        let reason = match connection.spec.privacy.hide_subjects {
            true => "policy".to_string(),
            false => format!("policy: '{}' requires it", self.name),
        };
        let event = verification::start(
            &held.status,
            connection,
            &held.ticket,
            &Why {
                reasons: &[reason],
                // Nothing was read for this reason.
                newest_action: held
                    .status
                    .verification
                    .as_ref()
                    .and_then(|v| v.newest_action),
            },
            timeout,
            Some(held.lease.clone()),
            now,
        );
        tickets::transition(&self.api(), &held.ticket, &[event], self.by())
            .await
            .map_err(failed)?;
        Err(refuse(Outcome::Unverified, VERIFYING))
    }

    /// Nothing changes in Plan mode, nor before technicians can read the plan.
    fn may_change(&self, held: &HeldTicket) -> Checked<()> {
        let status = &held.status;
        if self.scope.mode == Mode::Plan || status.mode == Some(Mode::Plan) {
            return Err(refuse(Outcome::Disabled, NO_SUCH_TOOL));
        }
        let planned = status.intents.iter().any(|i| {
            i.run == status.run && i.kind == IntentKind::PlanNote && i.state == IntentState::Posted
        });
        match planned {
            true => Ok(()),
            false => Err(refuse(Outcome::NoPlan, NO_PLAN)),
        }
    }

    /// Who decides about a request does not change by our hand while it stands.
    fn may_assign(&self, held: &HeldTicket) -> Checked<()> {
        let stands = [
            ApprovalState::Preparing,
            ApprovalState::Requested,
            ApprovalState::Approved,
        ];
        let asked = stands.into_iter().any(|s| held.status.approval_is(s));
        match asked && self.name == write::ASSIGN {
            true => Err(refuse(Outcome::Refused, BEING_ASKED)),
            false => Ok(()),
        }
    }

    fn executor<'c>(&'c self, held: &'c HeldTicket) -> StepExecutor<'c> {
        StepExecutor {
            gateway: self.gateway,
            api: self.api(),
            scope: self.scope,
            halo: self.halo,
            by: self.by(),
            lease: &held.lease,
            max_wait: MAX_WAIT,
        }
    }

    async fn read_server(self, held: &HeldTicket, halo_ticket: &types::Ticket) -> Checked<Answer> {
        let ResolvedTool::Server {
            server, tool, pin, ..
        } = self.tool
        else {
            return Err(refuse(Outcome::UnknownTool, NO_SUCH_TOOL));
        };
        let context = steps::call_context(self.scope, &held.ticket, halo_ticket);
        let session = steps::pinned_session(&self.gateway.kube, server, tool, pin, &context)
            .await
            .map_err(failed)?;
        let result = session.call(tool, self.arguments).await.map_err(failed)?;
        let text = steps::result_text(&result);
        match result.is_error {
            Some(true) => Err(refuse(Outcome::Failed, text)),
            _ => Ok(Answer::structured(Outcome::Ok, json!({"result": text}))),
        }
    }
}

/// The same call again in the same run is the same step.
async fn deduplicate(
    executor: &StepExecutor<'_>,
    held: &HeldTicket,
    hash: &str,
) -> Checked<Option<Answer>> {
    let status = &held.status;
    let mut newest_first = status.steps.iter().rev();
    let Some(known) = newest_first.find(|s| s.run == status.run && s.hash == hash) else {
        return Ok(None);
    };
    let number = known.number;
    match known.state {
        StepState::Done => Ok(Some(repeated(known))),
        StepState::Proposed | StepState::Waiting => Ok(Some(queued(number))),
        StepState::Running => {
            let run = executor.run(&held.ticket, number, false).await;
            Ok(Some(ended(run, number)))
        }
        StepState::Denied | StepState::Expired => Err(refuse(
            Outcome::Denied,
            "a technician was asked about exactly this call, and it was not approved",
        )),
        StepState::Unknown => Err(refuse(
            Outcome::UnknownResult,
            "whether exactly this call was carried out is not known; a technician has to check",
        )),
        StepState::Failed | StepState::Superseded => Ok(None),
    }
}

async fn queue(executor: &StepExecutor<'_>, held: &HeldTicket, step: Step) -> Checked<Answer> {
    let number = step.number;
    let event = Event::StepProposed {
        lease: held.lease.clone(),
        step: Box::new(step),
    };
    tickets::transition(&executor.api, &held.ticket, &[event], executor.by)
        .await
        .map_err(failed)?;
    Ok(queued(number))
}

async fn run(executor: &StepExecutor<'_>, held: &HeldTicket, step: Step) -> Checked<Answer> {
    let number = step.number;
    let event = Event::StepStarted {
        lease: held.lease.clone(),
        step: Box::new(step),
    };
    let stored = tickets::transition(&executor.api, &held.ticket, &[event], executor.by)
        .await
        .map_err(failed)?;
    Ok(ended(executor.run(&stored, number, true).await, number))
}

fn queued(number: i32) -> Answer {
    let value = json!({"status": "queued", "step": number, "message": QUEUED});
    Answer::structured(Outcome::Queued, value).step(number)
}

fn repeated(step: &Step) -> Answer {
    let value = json!({
        "status": "done",
        "step": step.number,
        "message": "already done; not run again",
        "result": step.result.as_deref().unwrap_or_default(),
    });
    Answer::structured(Outcome::Repeated, value).step(step.number)
}

fn ended(run: Result<(Ticket, Ended), steps::Error>, number: i32) -> Answer {
    let answer = match run {
        Ok((_, ended)) if ended.state == StepState::Done => Answer::structured(
            Outcome::Ok,
            json!({"status": "done", "step": number, "result": ended.full}),
        ),
        Ok((_, ended)) => Answer::error(Outcome::Failed, ended.full),
        Err(steps::Error::Unsettled { number, wait }) => unsettled(number, wait),
        Err(error) => Answer::error(Outcome::Failed, error.to_string()),
    };
    answer.step(number)
}

/// Agents of any kind read the message; ours reads the structured content.
fn unsettled(number: i32, wait: Duration) -> Answer {
    let error = steps::Error::Unsettled { number, wait };
    let message = format!("{error}. Make exactly the same call again then");
    let mut answer = Answer::error(Outcome::Unsettled, message.as_str());
    let body = Unsettled {
        status: UNSETTLED.into(),
        retry_after_seconds: wait.as_secs().max(1),
        message,
    };
    answer.result.structured_content = serde_json::to_value(body).ok();
    answer
}

fn span(identity: &Identity, call: &ToolCall) -> Span {
    tracing::info_span!(
        target: "audit",
        "tool_call",
        otel.name = %format!("tool {}", call.tool),
        tool = %call.tool,
        namespace = %identity.namespace,
        client = %identity.client,
        pod = %identity.pod,
        arguments = %call.arguments,
        ticket = field::Empty,
        decision = field::Empty,
        rule = field::Empty,
        step = field::Empty,
        outcome = field::Empty,
    )
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
        let scope = self
            .gateway
            .scope_of(&identity)
            .map_err(|why| ErrorData::internal_error(why, None))?;
        Ok(ListToolsResult::with_all_items(
            catalog::list(&self.gateway, &scope).await,
        ))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let identity = Self::identity(&context)?;
        let started = Instant::now();
        let (name, arguments) = (&*request.name, request.arguments.unwrap_or_default());
        let found = self.find(&identity, name);
        let label = found.as_ref().map_or(UNKNOWN, |(_, tool)| tool.label());
        // The name of a tool that does not exist is an agent's words, and so are its arguments.
        let masked = |accepted| match label {
            UNKNOWN => String::new(),
            _ => mask::shown(name, &arguments, accepted),
        };
        let shown_name = if label == UNKNOWN { UNKNOWN } else { name };
        let accepted = masked(true);
        let mut call = ToolCall {
            tool: shown_name.to_string(),
            arguments: masked(false),
            ..ToolCall::default()
        };
        let span = span(&identity, &call);
        let answer = match found {
            Ok((scope, tool)) => Answer::of(
                self.call(&identity, &scope, name, &tool, arguments)
                    .instrument(span.clone())
                    .await,
            ),
            Err(refused) => *refused,
        };
        // Names are looked up before a call is decided.
        let (ok, queued) = (Outcome::Ok, Outcome::Queued);
        if [ok, queued, Outcome::Repeated].contains(&answer.outcome) {
            call.arguments = accepted;
        }
        call.outcome = answer.outcome.as_str().into();
        call.step = answer.step;
        call.ms = started.elapsed().as_millis() as i64;
        if let Some(decision) = answer.decision {
            call.decision = format!("{:?}", decision.effect);
            call.rule = decision.because();
        }
        self.record(&identity, &span, call);
        let labels = ToolLabels {
            tool: label,
            outcome: answer.outcome.as_str(),
        };
        let metrics = &self.gateway.metrics;
        metrics.tool_calls.get_or_create(&labels).inc();
        Ok(answer.result.into())
    }
}
