//! The agent: claims a ticket, thinks, reports. It holds no secret and reaches
//! nothing but the gateway.
//!
//! - [`gateway`]: the gateway's work API and MCP tools, from the agent's side
//! - [`brain`]: the built-in brain; it gathers [`evidence`], compares it with its
//!   [`runbooks`], concludes ([`diagnosis`]) and acts ([`placeholders`])
//! - [`model`]: the brain that asks a language model
//! - [`turn`]: the result of a turn

pub mod brain;
pub mod diagnosis;
pub mod evidence;
pub mod gateway;
pub mod model;
pub mod placeholders;
pub mod runbooks;
pub mod turn;

use crate::gateway::wire::Work;
use gateway::{Error, Gateway};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use turn::{Conclusion, backoff};

/// The longest turn of the built-in brain.
const THINKING: Duration = Duration::from_secs(300);
/// The longest turn with a language model, which is slower.
const MODEL_THINKING: Duration = Duration::from_secs(1800);
/// How long reporting a finished turn is retried.
const REPORTING: Duration = Duration::from_secs(600);
/// The longest wait between two reports while the Pod is shutting down.
const MAX_STOPPING_BACKOFF: Duration = Duration::from_secs(2);

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
                tracing::warn!(%error, "could not claim a ticket; will retry");
                tokio::select! {
                    () = tokio::time::sleep(backoff(failures)) => {}
                    _ = stop.changed() => break,
                }
            }
        }
    }
    tracing::info!("stopped");
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
        conclusion = tokio::time::timeout(limit, think(work, gateway)) => {
            conclusion.unwrap_or_else(|_| brain::gave_up(work, "thinking took too long"))
        }
        () = &mut lost => return,
        _ = stop.changed() => {
            release(gateway, work).await;
            return;
        }
    };
    // A plan is worth more than a quick stop: reporting goes on while the Pod may live.
    tokio::select! {
        () = report(gateway, work, &conclusion, stop.clone()) => {}
        () = &mut lost => {}
    }
}

/// Hands the ticket back, so that the next agent need not wait for the lease to expire.
async fn release(gateway: &Gateway, work: &Work) {
    let ticket = &work.ticket;
    match gateway.release(work).await {
        Ok(()) => tracing::info!(%ticket, "handed back"),
        Err(error) => {
            tracing::warn!(%ticket, %error, "could not hand back; the lease will expire");
        }
    }
}

/// Reports the conclusion until the gateway has it, the lease is lost, or time is up.
async fn report(
    gateway: &Gateway,
    work: &Work,
    conclusion: &Conclusion,
    stop: watch::Receiver<bool>,
) {
    let until = Instant::now() + REPORTING;
    let ticket = &work.ticket;
    let plan = conclusion.plan.as_ref();
    let message = conclusion.message.as_deref();
    let mut failures = 0u32;
    loop {
        match gateway.complete(work, plan, message).await {
            Ok(()) => {
                tracing::info!(%ticket, "done");
                return;
            }
            Err(error @ (Error::LeaseLost | Error::Refused(_))) => {
                tracing::warn!(%ticket, %error, "the report was refused");
                return;
            }
            Err(error) if Instant::now() < until => {
                failures += 1;
                tracing::warn!(%ticket, %error, "could not report; will retry");
                let wait = backoff(failures);
                tokio::time::sleep(if *stop.borrow() {
                    wait.min(MAX_STOPPING_BACKOFF)
                } else {
                    wait
                })
                .await;
            }
            Err(error) => {
                tracing::error!(%ticket, %error, "could not report; another agent takes over");
                return;
            }
        }
    }
}

/// Renews the lease; returns when it is lost.
async fn heartbeats(gateway: &Gateway, work: &Work) {
    let ticket = &work.ticket;
    let every = Duration::from_secs((work.lease_seconds / 3).max(1));
    loop {
        tokio::time::sleep(every).await;
        match gateway.heartbeat(work).await {
            Err(error @ (Error::LeaseLost | Error::Refused(_))) => {
                tracing::warn!(%ticket, %error, "dropping the ticket");
                return;
            }
            Err(error) => {
                tracing::warn!(%ticket, %error, "heartbeat failed; retrying at the next interval");
            }
            Ok(()) => {}
        }
    }
}
