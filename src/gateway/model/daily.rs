//! A client's use of the model today, kept on its ImportedClient: a deleted Ticket takes none of it
//! away.

use crate::api::ImportedClient;
use crate::api::client::ModelUsage;
use crate::gateway::Gateway;
use crate::gateway::identity::Identity;
use crate::k8s::{self, names, reflect};
use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::json;
use std::time::Duration;

const TRIES: u32 = 8;

/// The sum with these tokens. A day that is over is not counted any more: pure.
fn added(recorded: Option<&ModelUsage>, day: &str, tokens: i64) -> Option<ModelUsage> {
    let before = match recorded {
        Some(recorded) if recorded.day.as_str() > day => return None,
        Some(recorded) if recorded.day == day => recorded.tokens,
        _ => 0,
    };
    Some(ModelUsage {
        day: day.into(),
        tokens: before.saturating_add(tokens),
    })
}

/// Adds to the day's sum. Two gateways may do so at once, so the write names the version it is
/// based on.
pub async fn record(
    gateway: &Gateway,
    identity: &Identity,
    day: &str,
    tokens: i64,
) -> Result<(), kube::Error> {
    if tokens == 0 {
        return Ok(());
    }
    let api: Api<ImportedClient> = Api::namespaced(gateway.kube.clone(), &identity.namespace);
    let params = PatchParams {
        field_manager: Some(names::GATEWAY.into()),
        ..PatchParams::default()
    };
    let mut attempt: u32 = 0;
    loop {
        let store = &gateway.stores.clients;
        let Some(client) = reflect::get(store, &identity.namespace, &identity.client) else {
            return Ok(());
        };
        let recorded = client.status.as_ref().and_then(|s| s.model_usage.as_ref());
        let Some(usage) = added(recorded, day, tokens) else {
            return Ok(());
        };
        let patch = json!({
            "apiVersion": ImportedClient::api_version(&()),
            "kind": ImportedClient::kind(&()),
            "metadata": {"resourceVersion": client.resource_version()},
            "status": {"modelUsage": usage},
        });
        let patched = api
            .patch_status(&client.name_any(), &params, &Patch::Merge(&patch))
            .await;
        match patched {
            Ok(_) => return Ok(()),
            Err(error) if k8s::is_not_found(&error) => return Ok(()),
            // The watch brings what was written in between.
            Err(error) if k8s::is_conflict(&error) && attempt < TRIES => {
                let wait = Duration::from_millis(rand::random_range(20..60) << attempt.min(4));
                tokio::time::sleep(wait).await;
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_summed_and_the_next_starts_at_zero() {
        let usage = |day: &str, tokens| ModelUsage {
            day: day.into(),
            tokens,
        };
        for (recorded, expected) in [
            (None, Some(usage("2026-01-02", 5))),
            (Some(usage("2026-01-01", 9)), Some(usage("2026-01-02", 5))),
            (Some(usage("2026-01-02", 9)), Some(usage("2026-01-02", 14))),
            (Some(usage("2026-01-03", 9)), None),
        ] {
            assert_eq!(added(recorded.as_ref(), "2026-01-02", 5), expected);
        }
    }
}
