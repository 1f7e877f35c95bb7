//! Kubernetes code shared by controller, receiver and gateway.
//!
//! - [`reflect`]: watches kept as stores that several readers share
//! - [`watches`]: the watches that controller, gateway and receiver need
//! - [`namespaces`]: which namespaces they watch
//! - [`guard`]: objects that cannot be read, which stop no watch
//! - [`index`]: lookups over Tickets and ImportedClients
//! - [`services`]: where the URLs of resources lead
//! - [`cache`]: what a process remembers between two passes
//! - [`key`]: namespace and name of an object
//! - [`tickets`]: a Ticket's transitions, written with resourceVersion checks
//! - [`wakeups`]: who waits for a client's tickets
//! - [`names`]: names and field managers
//! - [`refs`]: Secrets and ConfigMaps that resources name; [`own`]: objects that the operator makes

pub mod cache;
pub mod guard;
pub mod index;
pub mod key;
pub mod name;
pub mod names;
pub mod namespaces;
pub mod own;
pub mod reflect;
pub mod refs;
pub mod services;
pub mod tickets;
pub mod wakeups;
pub mod watches;

use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::fmt::Debug;

/// Applies a status, unless the object already has it.
pub async fn apply_status<K, S>(
    api: &Api<K>,
    object: &K,
    current: Option<&S>,
    status: &S,
    manager: &str,
) -> Result<bool, kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    S: Serialize,
{
    // Compared as the apiserver stores it: times in whole seconds.
    if current
        .map(serde_json::to_value)
        .transpose()
        .map_err(kube::Error::SerdeError)?
        == Some(serde_json::to_value(status).map_err(kube::Error::SerdeError)?)
    {
        return Ok(false);
    }
    let patch = json!({"apiVersion": K::api_version(&()), "kind": K::kind(&()),
        "metadata": {"name": object.name_any()}, "status": status});
    api.patch_status(
        &object.name_any(),
        &PatchParams::apply(manager).force(),
        &Patch::Apply(&patch),
    )
    .await?;
    Ok(true)
}

/// Whether the apiserver reports that the object does not exist.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether someone else wrote the object in the meantime.
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// An apiserver error in one human-readable line.
pub fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("the apiserver says: {}", status.message),
        other => {
            format!(
                "cannot reach the apiserver: {}",
                crate::error::root_cause(other)
            )
        }
    }
}
