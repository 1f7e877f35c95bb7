//! The result of a turn, and how a plan is handed in before anything changes.

use super::gateway::{Error, Gateway};
use crate::gateway::wire::{Plan, Work};
use std::time::Duration;

/// Retries of handing in a plan.
const HAND_IN_RETRIES: u32 = 12;
const MAX_BACKOFF: Duration = Duration::from_secs(15);

/// The result of a turn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conclusion {
    /// Diagnosis and plan, unless this is a later turn.
    pub plan: Option<Plan>,
    /// Execute mode: a note beside the plan, or the answer of a later turn.
    pub message: Option<String>,
}

/// Hands the plan in; retries while the gateway is unavailable.
pub async fn hand_in(gateway: &Gateway, work: &Work, plan: &Plan) -> Result<(), Error> {
    let ticket = &work.ticket;
    let mut failures = 0;
    loop {
        match gateway.plan(work, plan).await {
            Err(Error::Unavailable(why)) | Err(Error::Unreachable(why))
                if failures < HAND_IN_RETRIES =>
            {
                failures += 1;
                tracing::info!(%ticket, %why, "could not hand in the plan; will retry");
                tokio::time::sleep(backoff(failures)).await;
            }
            other => return other,
        }
    }
}

/// The wait after so many failures in a row.
pub fn backoff(failures: u32) -> Duration {
    Duration::from_millis(250 << failures.min(6))
        .min(MAX_BACKOFF)
        .mul_f64(rand::random_range(0.75..1.25))
}
