//! Steps, carried out once, whatever crashes in between.
//!
//! A step that is about to be sent is stored as `Running` first. One that is
//! found `Running` may have been sent by a process that died: it is searched for
//! by its marker until HaloPSA must have shown it, and only then sent again. If
//! nothing can be searched (another server's tool), it is `Unknown` and left to
//! a technician.

use super::{AgentScope, Gateway};
use crate::api::ToolServer;
use crate::api::ticket::{Step, StepState, Ticket};
use crate::api::tool_server::SEPARATOR;
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
use crate::ticket::ownership::still_ours;
use crate::ticket::state::{self, Event};
use crate::tools::server;
use crate::tools::write::{self, Write};
use crate::tools::{pin, send};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client, ResourceExt};
use serde_json::{Map, Value};
use std::time::Duration;

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
    /// For the journal, cut.
    pub summary: String,
    /// For the agent.
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
            let ended = self.run_on_server(&namespace, &step, fresh).await;
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
        let write = match write::parse(&step.tool, &arguments(step)) {
            Ok(write) => write,
            Err(why) => return over(Ended::failed(&why)),
        };
        let found = self.halo.find_ticket(ticket.spec.ticket_id).await?;
        let ownership = still_ours(found.as_ref(), self.scope.halo_client_id);
        let Some(halo_ticket) = found.filter(|_| !ownership.is_gone()) else {
            let why = format!("{}; nothing was changed", ownership.sentence());
            return over(Ended::failed(&why));
        };
        let target = self.target(&halo_ticket, step);
        if fresh {
            return over(self.send(&write, &target, ticket, step.number).await?);
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
                let ended = self.send(&write, &target, &ticket, step.number).await?;
                Ok((ticket, ended))
            }
        }
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
        write: &Write,
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
            Ok(Err(error)) => Ok(Ended::failed(&error.to_string())),
            Err(_) => Err(unsettled),
        }
    }

    /// Polls for a write until it is there or HaloPSA must have shown it.
    async fn search_until_settled(
        &self,
        write: &Write,
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

    async fn run_on_server(&self, namespace: &str, step: &Step, fresh: bool) -> Ended {
        if !fresh {
            return Ended::unknown(
                "it was interrupted; whether it was carried out cannot be found out from here. \
                 Check, and do what is missing",
            );
        }
        let Some((server, tool)) = step.tool.split_once(SEPARATOR) else {
            return Ended::failed("there is no tool of this name");
        };
        let Some(server) = reflect::get(&self.gateway.stores.servers, namespace, server) else {
            return Ended::failed("its ToolServer no longer exists; nothing was called");
        };
        let kube = &self.gateway.kube;
        let session = match pinned_session(kube, &server, tool, &step.pin).await {
            Ok(session) => session,
            Err(why) => return Ended::failed(&why),
        };
        match session.call(tool, arguments(step)).await {
            Ok(result) if result.is_error == Some(true) => {
                Ended::failed(&format!("the tool reports: {}", result_text(&result)))
            }
            Ok(result) => Ended::done(&result_text(&result)),
            Err(error) => Ended::unknown(&format!(
                "{error}; whether it was carried out is not known. Check, and do what is missing"
            )),
        }
    }
}

/// A session with a server whose tool is still the one that was pinned, or why nothing was called.
pub async fn pinned_session(
    kube: &Client,
    server: &ToolServer,
    tool: &str,
    pin: &str,
) -> Result<server::Session, String> {
    let not_called = |error: server::Error| format!("nothing was called: {error}");
    let session = server::connect(kube, server).await.map_err(not_called)?;
    let tools = session.tools(server).await.map_err(not_called)?;
    match tools.iter().find(|t| t.name == tool) {
        None => Err("the server no longer offers the tool; nothing was called".into()),
        Some(offered) if pin::hash(offered) != pin => Err(
            "the server has changed the tool since; nothing was called. \
             Accept the change on the ToolServer first"
                .into(),
        ),
        Some(_) => Ok(session),
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
    pub arguments: &'a Map<String, Value>,
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
        ),
        recorded_at: Time(now),
        result: None,
        approvers: decision.approvers.clone(),
        high_risk: call.high_risk,
    }
}
