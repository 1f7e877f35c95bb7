//! The Lease of the controllers, renewed on a thread of its own: work that keeps every other thread
//! busy does not lose it.

use crate::k8s::names;
use kube::Client;
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use tokio::sync::{oneshot, watch};

const LEASE: &str = "halopsa-operator";
/// A leader that does not renew for this long is replaced, in seconds.
const LEASE_SECONDS: u64 = 15;
/// Renewed this long before its end, in seconds.
const LEASE_GRACE: u64 = 5;

/// Whether this process leads. The Lease is given back once nobody holds the first any longer;
/// the second resolves when that is done.
pub struct Leadership {
    pub leads: watch::Receiver<bool>,
    pub given_back: oneshot::Receiver<()>,
}

/// Competes for the Lease until the [`Leadership`] is dropped.
pub async fn compete(
    namespace: &str,
    identity: &str,
) -> Result<Leadership, Box<dyn std::error::Error>> {
    let (namespace, identity) = (namespace.to_string(), identity.to_string());
    let (started, start) = oneshot::channel();
    let (done, given_back) = oneshot::channel();
    let renew = async move {
        match manager(&namespace, &identity).await {
            Ok(manager) => {
                let (leads, task) = manager.watch().await;
                // If nobody takes it, it is dropped here, and the task ends.
                let _ = started.send(Ok(leads));
                let _ = task.await;
            }
            Err(error) => {
                let _ = started.send(Err(error.to_string()));
            }
        }
        let _ = done.send(());
    };
    let thread = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => runtime.block_on(renew),
            Err(error) => tracing::error!(%error, "cannot renew the Lease"),
        }
    };
    std::thread::Builder::new()
        .name("lease".into())
        .spawn(thread)?;
    let started: Result<watch::Receiver<bool>, String> = start
        .await
        .map_err(|_| "the thread that renews the Lease has ended")?;
    let leads = started?;
    Ok(Leadership { leads, given_back })
}

/// Its client is made here: a client's connections belong to the thread that makes it.
async fn manager(namespace: &str, identity: &str) -> Result<LeaseManager, LeaseManagerError> {
    let kube = Client::try_default().await?;
    LeaseManagerBuilder::new(kube, LEASE)
        .with_namespace(namespace)
        .with_identity(identity)
        .with_duration(LEASE_SECONDS)
        .with_grace(LEASE_GRACE)
        .with_field_manager(names::CONTROLLER)
        .build()
        .await
}
