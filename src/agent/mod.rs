//! The agent: claims a ticket, thinks, reports. It holds no secret and reaches
//! nothing but the gateway.
//!
//! - [`gateway`]: the gateway's work API and MCP tools, from the agent's side
//! - [`brain`]: the built-in runbook brain, [`runbooks`]: what it knows
//! - [`model`]: the brain that asks a language model

pub mod brain;
pub mod gateway;
pub mod model;
pub mod runbooks;

use crate::gateway::wire::{Plan, Work};
use gateway::{Error, Gateway};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Thinking about one ticket ends after this time.
const THINKING: Duration = Duration::from_secs(300);
/// With a language model, which takes its time.
const MODEL_THINKING: Duration = Duration::from_secs(1800);
/// A finished plan is offered again for this long.
const REPORTING: Duration = Duration::from_secs(600);
/// Tries of handing a plan in before anything is changed.
const HAND_IN_TRIES: u32 = 12;
const MAX_WAIT: Duration = Duration::from_secs(15);

/// What an agent has to say at the end of its turn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conclusion {
    /// Diagnosis and plan, unless handed in before.
    pub plan: Option<Plan>,
    /// Execute mode: a note beside it, or the answer of a later round.
    pub message: Option<String>,
}

/// Hands the plan in, again while the gateway asks to wait.
async fn hand_in(gateway: &Gateway, work: &Work, plan: &Plan) -> Result<(), Error> {
    let mut failures = 0;
    loop {
        match gateway.plan(work, plan).await {
            Err(Error::Unavailable(why)) | Err(Error::Unreachable(why))
                if failures < HAND_IN_TRIES =>
            {
                failures += 1;
                tracing::info!(ticket = %work.ticket, %why, "the plan could not be handed in yet, it is tried again");
                tokio::time::sleep(backoff(failures)).await;
            }
            other => return other,
        }
    }
}

async fn think(work: &Work, gateway: &Gateway) -> Conclusion {
    match &work.model {
        Some(model) => model::think(work, model, gateway).await,
        None => brain::think(work, gateway).await,
    }
}

/// Works until `stop` turns true.
pub async fn run(gateway: Gateway, mut stop: watch::Receiver<bool>) {
    let mut failures = 0u32;
    while !*stop.borrow() {
        let claimed = tokio::select! {
            claimed = gateway.claim() => claimed,
            _ = stop.changed() => break,
        };
        match claimed {
            Ok(Some(work)) => {
                failures = 0;
                work_on(&gateway, &work, &mut stop).await;
            }
            Ok(None) => failures = 0,
            Err(error) => {
                failures += 1;
                tracing::warn!(%error, "no ticket could be claimed, it is tried again");
                tokio::select! {
                    () = tokio::time::sleep(backoff(failures)) => {}
                    _ = stop.changed() => break,
                }
            }
        }
    }
    tracing::info!("stopped");
}

fn backoff(failures: u32) -> Duration {
    Duration::from_millis(250 << failures.min(6))
        .min(MAX_WAIT)
        .mul_f64(rand::random_range(0.75..1.25))
}

/// One ticket from claim to report.
async fn work_on(gateway: &Gateway, work: &Work, stop: &mut watch::Receiver<bool>) {
    tracing::info!(ticket = %work.ticket, mode = %work.mode, "working");
    let lost = heartbeats(gateway, work);
    tokio::pin!(lost);
    let limit = if work.model.is_some() {
        MODEL_THINKING
    } else {
        THINKING
    };
    let conclusion = tokio::select! {
        conclusion = tokio::time::timeout(limit, think(work, gateway)) => conclusion.unwrap_or_else(|_| brain::gave_up(work, "thinking took too long")),
        () = &mut lost => return,
        _ = stop.changed() => {
            // The next agent starts at once instead of waiting for the lease to run out.
            match gateway.release(work).await {
                Ok(()) => tracing::info!(ticket = %work.ticket, "handed back"),
                Err(error) => tracing::warn!(ticket = %work.ticket, %error, "could not be handed back, its lease runs out"),
            }
            return;
        }
    };
    // A plan is worth more than a quick stop: reporting goes on while the Pod may live.
    tokio::select! {
        () = report(gateway, work, &conclusion, stop.clone()) => {}
        () = &mut lost => {}
    }
}

/// Offers the plan until the gateway has it, the lease is lost, or time is up.
async fn report(
    gateway: &Gateway,
    work: &Work,
    conclusion: &Conclusion,
    stop: watch::Receiver<bool>,
) {
    let until = Instant::now() + REPORTING;
    let mut failures = 0u32;
    loop {
        match gateway
            .complete(
                work,
                conclusion.plan.as_ref(),
                conclusion.message.as_deref(),
            )
            .await
        {
            Ok(()) => {
                tracing::info!(ticket = %work.ticket, "done");
                return;
            }
            Err(error @ (Error::LeaseLost | Error::Refused(_))) => {
                tracing::warn!(ticket = %work.ticket, %error, "the plan was not taken");
                return;
            }
            Err(error) if Instant::now() < until => {
                failures += 1;
                tracing::warn!(ticket = %work.ticket, %error, "the plan could not be handed over, it is tried again");
                let wait = backoff(failures);
                tokio::time::sleep(if *stop.borrow() {
                    wait.min(Duration::from_secs(2))
                } else {
                    wait
                })
                .await;
            }
            Err(error) => {
                tracing::error!(ticket = %work.ticket, %error, "the plan could not be handed over; the ticket goes to the next agent");
                return;
            }
        }
    }
}

/// Says that the agent is alive until the lease is lost.
async fn heartbeats(gateway: &Gateway, work: &Work) {
    let every = Duration::from_secs((work.lease_seconds / 3).max(1));
    loop {
        tokio::time::sleep(every).await;
        match gateway.heartbeat(work).await {
            Err(error @ (Error::LeaseLost | Error::Refused(_))) => {
                tracing::warn!(ticket = %work.ticket, %error, "the ticket is dropped");
                return;
            }
            Err(error) => {
                tracing::warn!(ticket = %work.ticket, %error, "a heartbeat failed, the next may not")
            }
            Ok(()) => {}
        }
    }
}
