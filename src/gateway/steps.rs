//! Steps, carried out once, whatever crashes in between.
//!
//! A step that is about to be sent is stored as `Running` first. One that is
//! found `Running` may have been sent by a process that died: it is searched for
//! by its marker until HaloPSA must have shown it, and only then sent again. If
//! nothing can be searched (another server's tool), it is `Unknown` and left to
//! a technician.

use super::catalog::ResolvedTool;
use super::resolve::Resolver;
use super::{AgentScope, Gateway};
use crate::api::ticket::{Step, StepState, Ticket};
use crate::api::tool_server::SEPARATOR;
use crate::api::{Mode, ToolServer};
use crate::failpoint;
use crate::halopsa::{self, types};
use crate::k8s::{reflect, tickets};
use crate::outbox::{Settled, until_settled};
use crate::policy::Decision;
use crate::text::json::canonical;
use crate::text::{cut, one_line, plain};
use crate::ticket::actor::Actor;
use crate::ticket::approval;
use crate::ticket::marker::{Tag, marker};
use crate::ticket::ownership::{Ownership, still_ours};
use crate::ticket::state::{self, Event};
use crate::tools::context::{CallContext, Requester};
use crate::tools::server;
use crate::tools::write::resolve::Canonical;
use crate::tools::write::{self, CLOSE};
use crate::tools::{pin, send};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client, ResourceExt};
use serde_json::{Map, Value};
use std::time::Duration;

const ONLY_PLANS: &str = "the client is in Plan mode now; nothing was changed";
/// How much of a result goes back to the agent, in bytes.
pub const MAX_RESULT: usize = 16 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Halo(#[from] halopsa::Error),
    #[error(transparent)]
    Ticket(#[from] tickets::Error),
    #[error(
        "whether step {number} arrived in HaloPSA is not known yet; checking again in {} s",
        .wait.as_secs()
    )]
    Unsettled { number: i32, wait: Duration },
    #[error("there is no step {0} on the ticket")]
    Missing(i32),
}

/// Carries out the steps of one ticket.
pub struct StepExecutor<'a> {
    pub gateway: &'a Gateway,
    pub api: Api<Ticket>,
    pub scope: &'a AgentScope,
    pub halo: &'a halopsa::Client,
    pub by: Actor<'a>,
    pub lease: &'a str,
    /// The longest wait for a write that may have been sent to show up.
    pub max_wait: Duration,
}

/// The result of a step.
#[derive(Clone, Debug)]
pub struct Ended {
    pub state: StepState,
    /// For the Ticket: our own words.
    pub summary: String,
    /// For the agent, and for the note about approved steps.
    pub full: String,
}

impl Ended {
    fn new(state: StepState, text: &str) -> Self {
        Self {
            state,
            summary: one_line(cut(text, 2000), 280),
            full: cut(text, MAX_RESULT).to_string(),
        }
    }

    /// With a text that others have written: only its length is stored.
    fn saying(self, text: &str) -> Self {
        let characters = text.chars().count();
        Self {
            summary: format!("{} ({characters} characters are not kept)", self.summary),
            full: cut(text, MAX_RESULT).to_string(),
            ..self
        }
    }

    fn done(text: &str) -> Self {
        Self::new(StepState::Done, text)
    }

    fn failed(text: &str) -> Self {
        Self::new(StepState::Failed, text)
    }

    fn unknown(text: &str) -> Self {
        Self::new(StepState::Unknown, text)
    }
}

impl StepExecutor<'_> {
    /// Carries out a step that is stored as `Running`. `fresh`: this caller has just stored it.
    pub async fn run(
        &self,
        ticket: &Ticket,
        number: i32,
        fresh: bool,
    ) -> Result<(Ticket, Ended), Error> {
        let namespace = ticket.namespace().unwrap_or_default();
        let step = step_of(ticket, number).ok_or(Error::Missing(number))?;
        failpoint::hit(&namespace, "step.recorded").await;
        let (ticket, ended) = if write::find(&step.tool).is_some() {
            self.run_write(ticket, &step, fresh).await?
        } else {
            let ended = self.run_on_server(ticket, &step, fresh).await;
            failpoint::hit(&namespace, "step.sent").await;
            (ticket.clone(), ended)
        };
        let event = Event::StepEnded {
            number,
            state: ended.state,
            result: ended.summary.clone(),
        };
        let stored = tickets::transition(&self.api, &ticket, &[event], self.by).await?;
        failpoint::hit(&namespace, "step.stored").await;
        Ok((stored, ended))
    }

    async fn run_write(
        &self,
        ticket: &Ticket,
        step: &Step,
        fresh: bool,
    ) -> Result<(Ticket, Ended), Error> {
        let over = |ended: Ended| Ok((ticket.clone(), ended));
        let write = match Canonical::read(&step.tool, &arguments(step)) {
            Ok(write) => write,
            Err(why) => {
                let why = format!("{why}; nothing was changed");
                return over(Ended::failed("the arguments do not fit").saying(&why));
            }
        };
        let found = self.halo.find_ticket(ticket.spec.ticket_id).await?;
        let ownership = still_ours(found.as_ref(), self.scope.halo_client_id);
        let Some(halo_ticket) = found.filter(|_| !ownership.is_gone()) else {
            let why = ownership.sentence();
            return over(match fresh {
                true => Ended::failed(&format!("{why}; nothing was changed")),
                false => Ended::unknown(&format!(
                    "it was interrupted, and {why}; whether it was carried out is not known"
                )),
            });
        };
        let target = self.target(&halo_ticket, step);
        if fresh {
            return over(self.check_and_send(&write, &target, ticket, step).await?);
        }
        match self.search_until_settled(&write, &target, step).await? {
            send::Found::Yes(result) => over(Ended::done(&result)),
            send::Found::CannotTell => over(Ended::unknown(
                "it was interrupted; whether it was carried out cannot be found out. \
                 Check, and do what is missing",
            )),
            // It never arrived. This is a new attempt, with a settle time of its own.
            send::Found::No => {
                let event = Event::StepSent {
                    lease: self.lease.into(),
                    number: step.number,
                };
                let ticket = tickets::transition(&self.api, ticket, &[event], self.by).await?;
                let ended = self.check_and_send(&write, &target, &ticket, step).await?;
                Ok((ticket, ended))
            }
        }
    }

    /// Sends a write, if it is still what was asked for.
    async fn check_and_send(
        &self,
        write: &Canonical,
        target: &send::Target<'_>,
        ticket: &Ticket,
        step: &Step,
    ) -> Result<Ended, Error> {
        if self.only_plans(ticket) {
            return Ok(Ended::failed(ONLY_PLANS));
        }
        if bound_pin(self.scope, None, "") != step.pin {
            return Ok(Ended::failed(
                "the connection's instanceURL has changed since the request; nothing was changed",
            ));
        }
        let resolver = Resolver {
            gateway: self.gateway,
            scope: self.scope,
            halo: self.halo,
            ticket: target.ticket,
        };
        match resolver.still_holds(&step.tool, write).await? {
            Ok(()) => self.send(write, target, ticket, step.number).await,
            Err(why) => Ok(Ended::failed(&why)),
        }
    }

    /// Nothing runs in Plan mode, whenever it began.
    fn only_plans(&self, ticket: &Ticket) -> bool {
        let mode = ticket.status.as_ref().and_then(|s| s.mode);
        self.scope.mode == Mode::Plan || mode == Some(Mode::Plan)
    }

    fn target<'t>(&'t self, ticket: &'t types::Ticket, step: &'t Step) -> send::Target<'t> {
        let spec = &self.scope.connection.spec;
        send::Target {
            halo: self.halo,
            ticket,
            notes: &spec.notes,
            api_agent: self.scope.api_agent(),
            instance_url: &spec.instance_url,
            marker: &step.marker,
        }
    }

    async fn send(
        &self,
        write: &Canonical,
        target: &send::Target<'_>,
        ticket: &Ticket,
        number: i32,
    ) -> Result<Ended, Error> {
        // Half of the settle time for sending leaves the other half for HaloPSA to show it.
        let sent = tokio::time::timeout(self.gateway.settle / 2, send::send(write, target)).await;
        let namespace = ticket.namespace().unwrap_or_default();
        failpoint::hit(&namespace, "step.sent").await;
        let unsettled = Error::Unsettled {
            number,
            wait: self.gateway.settle,
        };
        match sent {
            Ok(Ok(result)) => Ok(Ended::done(&result)),
            Ok(Err(send::Error::Halo(error))) if !error.definitely_not_applied() => {
                tracing::warn!(
                    %namespace, ticket = %ticket.name_any(), step = number, %error,
                    "a step may or may not have arrived; searching for it"
                );
                Err(unsettled)
            }
            Ok(Err(send::Error::Arguments(why))) => {
                Ok(Ended::failed("HaloPSA does not take it; nothing was changed").saying(&why))
            }
            Ok(Err(error)) => Ok(Ended::failed(&error.to_string())),
            Err(_) => Err(unsettled),
        }
    }

    /// Polls for a write until it is there or HaloPSA must have shown it.
    async fn search_until_settled(
        &self,
        write: &Canonical,
        target: &send::Target<'_>,
        step: &Step,
    ) -> Result<send::Found, Error> {
        let search = || send::find(write, target);
        let is_there = |found: &send::Found| matches!(found, send::Found::Yes(_));
        let (recorded_at, settle) = (step.recorded_at.0, self.gateway.settle);
        match until_settled(recorded_at, settle, self.max_wait, search, is_there).await? {
            Settled::Known(found) => Ok(found),
            Settled::After(wait) => Err(Error::Unsettled {
                number: step.number,
                wait,
            }),
        }
    }

    async fn run_on_server(&self, ticket: &Ticket, step: &Step, fresh: bool) -> Ended {
        if !fresh {
            return Ended::unknown(
                "it was interrupted; whether it was carried out cannot be found out from here. \
                 Check, and do what is missing",
            );
        }
        let halo_ticket = match self.callable(ticket, step).await {
            Ok(halo_ticket) => halo_ticket,
            Err(why) => return Ended::failed(&why),
        };
        let Some((server, tool)) = step.tool.split_once(SEPARATOR) else {
            return Ended::failed("there is no tool of this name");
        };
        let namespace = ticket.namespace().unwrap_or_default();
        let Some(server) = reflect::get(&self.gateway.stores.servers, &namespace, server) else {
            return Ended::failed("its ToolServer no longer exists; nothing was called");
        };
        let definition = pin::definition_in(&step.pin);
        if bound_pin(self.scope, Some(&*server), definition) != step.pin {
            return Ended::failed(
                "the ToolServer, its URL or the connection's instanceURL has changed since the \
                 request; nothing was called",
            );
        }
        let kube = &self.gateway.kube;
        let context = call_context(self.scope, ticket, &halo_ticket);
        let session = match pinned_session(kube, &server, tool, definition, &context).await {
            Ok(session) => session,
            Err(why) => return Ended::failed("nothing was called").saying(&why),
        };
        match session.call(tool, arguments(step)).await {
            Ok(result) if result.is_error == Some(true) => {
                Ended::failed("the tool reports an error")
                    .saying(&format!("the tool reports: {}", result_text(&result)))
            }
            Ok(result) => Ended::done("the tool has answered").saying(&result_text(&result)),
            Err(error) => {
                const UNKNOWN: &str =
                    "whether it was carried out is not known. Check, and do what is missing";
                Ended::unknown(UNKNOWN).saying(&format!("{error}; {UNKNOWN}"))
            }
        }
    }

    /// HaloPSA's ticket, if another server's tool may be called for it now; else why not.
    async fn callable(&self, ticket: &Ticket, step: &Step) -> Result<types::Ticket, String> {
        if self.only_plans(ticket) {
            return Err(ONLY_PLANS.into());
        }
        let found = self.halo.find_ticket(ticket.spec.ticket_id).await;
        let found = found.map_err(|error| {
            format!(
                "whether the ticket is still this client's could not be checked ({error}); \
                 nothing was called"
            )
        })?;
        let ownership = still_ours(found.as_ref(), self.scope.halo_client_id);
        let may = match ownership {
            Ownership::Ours => true,
            // The steps after the one that closed the ticket were approved with it.
            Ownership::Closed => closed_by_us(ticket, step.run),
            Ownership::Moved | Ownership::Deleted => false,
        };
        found
            .filter(|_| may)
            .ok_or_else(|| format!("{}; nothing was called", ownership.sentence()))
    }
}

/// Whether a step of this run has closed the ticket.
fn closed_by_us(ticket: &Ticket, run: i32) -> bool {
    let steps = ticket.status.iter().flat_map(|s| &s.steps);
    steps
        .filter(|s| s.run == run)
        .any(|s| s.tool == CLOSE && s.state == StepState::Done)
}

/// What a step is bound to: the definition of a ToolServer's tool, and where the call goes.
fn bound_pin(scope: &AgentScope, server: Option<&ToolServer>, definition: &str) -> String {
    let instance = scope.connection.spec.instance_url.as_str();
    match server {
        None => pin::bound(definition, &[instance]),
        Some(server) => {
            let uid = server.metadata.uid.as_deref().unwrap_or_default();
            pin::bound(definition, &[instance, uid, &server.spec.url])
        }
    }
}

/// The same, for a call that is made.
pub fn pin_of(scope: &AgentScope, tool: &ResolvedTool) -> String {
    let server = match tool {
        ResolvedTool::Server { server, .. } => Some(&**server),
        ResolvedTool::Read(_) | ResolvedTool::Write(_) => None,
    };
    bound_pin(scope, server, tool.pin())
}

/// A session with a server whose tool is still the one that was pinned, or why nothing was called.
pub async fn pinned_session(
    kube: &Client,
    server: &ToolServer,
    tool: &str,
    pin: &str,
    context: &CallContext,
) -> Result<server::Session, String> {
    let not_called = |error: server::Error| format!("nothing was called: {error}");
    let session = server::connect_for(kube, server, tool, context).await;
    let session = session.map_err(not_called)?;
    let listing = session.list(server).await.map_err(not_called)?;
    match listing.tools.iter().find(|t| t.name == tool) {
        None => Err("the server no longer offers the tool; nothing was called".into()),
        Some(offered) if pin::hash(offered, &listing.server.name) != pin => Err(
            "the server has changed the tool since; nothing was called. \
             Accept the change on the ToolServer first"
                .into(),
        ),
        Some(_) => Ok(session),
    }
}

/// For whom a ToolServer's tool is called.
pub fn call_context(
    scope: &AgentScope,
    ticket: &Ticket,
    halo_ticket: &types::Ticket,
) -> CallContext {
    let status = ticket.status.clone().unwrap_or_default();
    let email = halo_ticket.user_email.trim();
    CallContext {
        namespace: ticket.namespace().unwrap_or_default(),
        client: scope.client.name_any(),
        halo_client_id: scope.halo_client_id,
        ticket_id: ticket.spec.ticket_id,
        requester: halo_ticket.user_id.map(|id| Requester {
            id,
            email: (!email.is_empty()).then(|| email.to_string()),
        }),
        verified: state::is_verified(&status, halo_ticket.user_id, Timestamp::now()),
    }
}

/// A tool's result as text: bounded, without markup.
pub fn result_text(result: &rmcp::model::CallToolResult) -> String {
    if let Some(value) = &result.structured_content {
        return cut(&value.to_string(), MAX_RESULT).to_string();
    }
    let content = serde_json::to_value(&result.content).unwrap_or_default();
    let texts: Vec<&str> = content
        .as_array()
        .map(|items| {
            items
                .iter()
                .filter_map(|i| i.get("text")?.as_str())
                .collect()
        })
        .unwrap_or_default();
    let text = plain(&texts.join("\n"));
    if text.is_empty() { "done".into() } else { text }
}

pub fn step_of(ticket: &Ticket, number: i32) -> Option<Step> {
    let steps = &ticket.status.as_ref()?.steps;
    steps.iter().find(|s| s.number == number).cloned()
}

fn arguments(step: &Step) -> Map<String, Value> {
    serde_json::from_str(&step.arguments).unwrap_or_default()
}

/// A call that was checked.
pub struct CheckedCall<'a> {
    pub tool: &'a str,
    /// Canonical: this is what will run.
    pub arguments: &'a Map<String, Value>,
    /// As [`pin_of`] says.
    pub pin: &'a str,
    pub why: Option<String>,
    /// A yes to it has to name the request's number and code.
    pub high_risk: bool,
}

/// The step a call is stored as.
pub fn new_step(
    ticket: &Ticket,
    connection_uid: &str,
    call: CheckedCall<'_>,
    decision: &Decision,
) -> Step {
    let now = Timestamp::now();
    let status = ticket
        .status
        .clone()
        .unwrap_or_else(|| state::received(now));
    let number = status.next_step();
    let arguments = canonical(&Value::Object(call.arguments.clone()));
    Step {
        number,
        run: status.run,
        tool: call.tool.to_string(),
        hash: approval::step_hash(call.tool, &arguments, call.pin),
        pin: call.pin.to_string(),
        arguments,
        why: call.why,
        rule: decision.rule.clone(),
        state: StepState::Proposed,
        marker: marker(
            connection_uid,
            ticket.spec.ticket_id,
            status.run,
            &Tag::Step(number),
            rand::random(),
        ),
        recorded_at: Time(now),
        result: None,
        approvers: decision.approvers.clone(),
        high_risk: call.high_risk,
    }
}
