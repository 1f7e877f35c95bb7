//! Steps, carried out once, whatever crashes in between.
//!
//! A step that is about to be sent is stored as `Running` first. One that is
//! found `Running` may have been sent by a process that died: it is looked for
//! by its marker until HaloPSA must have shown it, and only then sent again. Where
//! nobody can look (another server's tool), it is `Unknown` and a human's.

use super::{AgentScope, Gateway};
use crate::api::ticket::{Step, StepState, Ticket};
use crate::api::tool_server::SEPARATOR;
use crate::failpoint;
use crate::halopsa;
use crate::k8s::tickets;
use crate::text::{cut, one_line, plain};
use crate::ticket::actor::Actor;
use crate::ticket::state::{self, Event};
use crate::tools::server;
use crate::tools::write::{self, Write};
use crate::tools::{pin, send};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Api, ResourceExt};
use serde_json::{Map, Value};
use std::time::Duration;

const SEARCH_EVERY: Duration = Duration::from_secs(2);
/// Of a result this much goes back to the agent, in bytes.
pub const MAX_RESULT: usize = 16 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Halo(#[from] halopsa::Error),
    #[error(transparent)]
    Ticket(#[from] tickets::Error),
    #[error("whether step {number} arrived in HaloPSA is not known yet; looking again in {} s", .wait.as_secs())]
    Unsettled { number: i32, wait: Duration },
    #[error("there is no step {0} on the ticket")]
    Missing(i32),
}

/// Where steps are carried out.
pub struct StepExecutor<'a> {
    pub gateway: &'a Gateway,
    pub api: Api<Ticket>,
    pub bound: &'a AgentScope,
    pub halo: &'a halopsa::Client,
    pub by: Actor<'a>,
    pub lease: &'a str,
    /// The longest wait for what may have been sent to show up.
    pub max_wait: Duration,
}

/// What came of a step.
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
}

impl StepExecutor<'_> {
    /// Carries out a step that is stored as `Running`. `fresh`: stored so just now by this caller.
    pub async fn run(
        &self,
        ticket: &Ticket,
        number: i32,
        fresh: bool,
    ) -> Result<(Ticket, Ended), Error> {
        let namespace = ticket.namespace().unwrap_or_default();
        let step = step_of(ticket, number).ok_or(Error::Missing(number))?;
        failpoint::hit(&namespace, "step.recorded").await;
        let arguments: Map<String, Value> =
            serde_json::from_str(&step.arguments).unwrap_or_default();
        let Some(_) = write::find(&step.tool) else {
            let ended = match fresh {
                true => self.call_server(&namespace, &step, arguments).await,
                false => Ended::new(
                    StepState::Unknown,
                    "it was interrupted; whether it was carried out cannot be found out from here. Look, and do what is missing",
                ),
            };
            failpoint::hit(&namespace, "step.sent").await;
            return self.end(ticket, number, ended).await;
        };
        let write = match write::parse(&step.tool, &arguments) {
            Ok(write) => write,
            Err(why) => {
                return self
                    .end(ticket, number, Ended::new(StepState::Failed, &why))
                    .await;
            }
        };
        let halo_ticket = match self.halo.ticket(ticket.spec.ticket_id).await {
            Err(halopsa::Error::NotFound { .. }) => {
                return self
                    .end(
                        ticket,
                        number,
                        Ended::new(
                            StepState::Failed,
                            "HaloPSA does not have the ticket any more",
                        ),
                    )
                    .await;
            }
            other => other?,
        };
        if halo_ticket.client_id != Some(self.bound.halo_client_id) {
            return self
                .end(
                    ticket,
                    number,
                    Ended::new(
                        StepState::Failed,
                        "the ticket belongs to another client now; nothing was changed",
                    ),
                )
                .await;
        }
        let spec = &self.bound.connection.spec;
        let target = send::Target {
            halo: self.halo,
            ticket: &halo_ticket,
            notes: &spec.notes,
            api_agent: self
                .bound
                .connection
                .status
                .as_ref()
                .and_then(|s| s.api_agent.as_ref())
                .map(|a| a.id),
            instance_url: &spec.instance_url,
            marker: &step.marker,
        };
        let mut ticket = ticket.clone();
        if !fresh {
            match self.look(&write, &target, &step).await? {
                send::Found::Yes(result) => {
                    return self
                        .end(&ticket, number, Ended::new(StepState::Done, &result))
                        .await;
                }
                send::Found::CannotTell => {
                    let text = "it was interrupted; whether it was carried out cannot be found out. Look, and do what is missing";
                    return self
                        .end(&ticket, number, Ended::new(StepState::Unknown, text))
                        .await;
                }
                // It never arrived. This is a new attempt, with a settle time of its own.
                send::Found::No => {
                    let event = Event::StepSent {
                        lease: self.lease.into(),
                        number,
                    };
                    ticket = tickets::transition(&self.api, &ticket, &[event], self.by).await?;
                }
            }
        }
        // Half of the settle time for sending leaves the other half for HaloPSA to show it.
        let sent = tokio::time::timeout(self.gateway.settle / 2, send::send(&write, &target)).await;
        failpoint::hit(&namespace, "step.sent").await;
        let ended = match sent {
            Ok(Ok(result)) => Ended::new(StepState::Done, &result),
            Ok(Err(error)) if error.definitely_not_applied() => {
                Ended::new(StepState::Failed, &error.to_string())
            }
            Ok(Err(send::Error::Halo(error))) => {
                tracing::warn!(%namespace, ticket = %ticket.name_any(), step = number, %error, "a step may or may not have arrived; it is looked for");
                return Err(Error::Unsettled {
                    number,
                    wait: self.gateway.settle,
                });
            }
            Ok(Err(error)) => Ended::new(StepState::Failed, &error.to_string()),
            Err(_) => {
                return Err(Error::Unsettled {
                    number,
                    wait: self.gateway.settle,
                });
            }
        };
        self.end(&ticket, number, ended).await
    }

    async fn end(
        &self,
        ticket: &Ticket,
        number: i32,
        ended: Ended,
    ) -> Result<(Ticket, Ended), Error> {
        let event = Event::StepEnded {
            number,
            state: ended.state,
            result: ended.summary.clone(),
        };
        let stored = tickets::transition(&self.api, ticket, &[event], self.by).await?;
        failpoint::hit(&stored.namespace().unwrap_or_default(), "step.stored").await;
        Ok((stored, ended))
    }

    /// Polls for a write until it is there or HaloPSA must have shown it.
    async fn look(
        &self,
        write: &Write,
        target: &send::Target<'_>,
        step: &Step,
    ) -> Result<send::Found, Error> {
        let settles_at =
            step.recorded_at.0 + SignedDuration::try_from(self.gateway.settle).unwrap_or_default();
        let gives_up = tokio::time::Instant::now() + self.max_wait;
        loop {
            let found = send::find(write, target).await?;
            let left =
                Duration::try_from(settles_at.duration_since(Timestamp::now())).unwrap_or_default();
            if matches!(found, send::Found::Yes(_)) || left.is_zero() {
                return Ok(found);
            }
            if tokio::time::Instant::now() + SEARCH_EVERY > gives_up {
                return Err(Error::Unsettled {
                    number: step.number,
                    wait: left,
                });
            }
            tokio::time::sleep(SEARCH_EVERY.min(left + Duration::from_millis(100))).await;
        }
    }

    /// Calls another server's tool, if it is still the one that was pinned.
    async fn call_server(
        &self,
        namespace: &str,
        step: &Step,
        arguments: Map<String, Value>,
    ) -> Ended {
        let failed = |text: &str| Ended::new(StepState::Failed, text);
        let Some((server, tool)) = step.tool.split_once(SEPARATOR) else {
            return failed("there is no tool of this name");
        };
        let Some(server) = crate::k8s::reflect::get(&self.gateway.servers, namespace, server)
        else {
            return failed("its ToolServer is gone; nothing was called");
        };
        let session = match server::connect(&self.gateway.kube, &server).await {
            Ok(session) => session,
            Err(error) => return failed(&format!("nothing was called: {error}")),
        };
        match session.tools(&server).await {
            Err(error) => return failed(&format!("nothing was called: {error}")),
            Ok(tools) => match tools.iter().find(|t| t.name == tool) {
                None => {
                    return failed(
                        "the server does not offer the tool any more; nothing was called",
                    );
                }
                Some(offered) if pin::hash(offered) != step.pin => {
                    return failed(
                        "the server has changed the tool since; nothing was called. Accept the change on the ToolServer first",
                    );
                }
                Some(_) => {}
            },
        }
        match session.call(tool, arguments).await {
            Ok(result) => {
                let text = result_text(&result);
                if result.is_error == Some(true) {
                    Ended::new(StepState::Failed, &format!("the tool says: {text}"))
                } else {
                    Ended::new(StepState::Done, &text)
                }
            }
            Err(error) => Ended::new(
                StepState::Unknown,
                &format!(
                    "{error}; whether it was carried out is not known. Look, and do what is missing"
                ),
            ),
        }
    }
}

/// What a tool gave back, as text: bounded, no markup.
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
    ticket
        .status
        .as_ref()?
        .steps
        .iter()
        .find(|s| s.number == number)
        .cloned()
}

/// A step as it is stored, from a call that was checked.
pub fn new_step(
    ticket: &Ticket,
    connection_uid: &str,
    tool: &str,
    arguments: &Map<String, Value>,
    pin: String,
    why: Option<String>,
    decision: &crate::policy::Decision,
) -> Step {
    let status = ticket
        .status
        .clone()
        .unwrap_or_else(|| state::received(Timestamp::now()));
    let number = status.next_step();
    let arguments = pin::canonical(&Value::Object(arguments.clone()));
    Step {
        number,
        run: status.run,
        tool: tool.to_string(),
        hash: crate::ticket::approval::step_hash(tool, &arguments, &pin),
        pin,
        arguments,
        why,
        rule: decision.rule.clone(),
        state: StepState::Proposed,
        marker: crate::ticket::note::marker(
            connection_uid,
            ticket.spec.ticket_id,
            status.run,
            &crate::ticket::note::step_tag(number),
        ),
        recorded_at: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::now()),
        result: None,
        approvers: decision.approvers.clone(),
    }
}
