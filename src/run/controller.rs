//! The controller process.

use super::{ControllerArgs, Outcome, lease};
use crate::controller::{self, context::Options};
use crate::k8s::names;
use crate::k8s::namespaces::Namespaces;
use crate::metrics::Metrics;
use crate::net;
use crate::server::{self, Ready};
use kube::Client;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

const LEASE_LOST: &str = "the Lease is lost; stopping so that the next leader is alone";

/// Waits until this process no longer leads.
async fn lost(leads: &mut tokio::sync::watch::Receiver<bool>) {
    // A closed channel is the end of the Lease's manager, and leads nothing either.
    let _ = leads.wait_for(|leads| !*leads).await;
}

/// The controller, for as long as it leads.
pub async fn controller(
    args: ControllerArgs,
    stop: impl Future<Output = ()> + Clone + Send + Sync + 'static,
) -> Outcome {
    let kube = Client::try_default().await?;
    let common = &args.common;
    net::install(args.halopsa.addresses());
    let metrics = Arc::<Metrics>::default();
    if let Some(listen) = common.health_listen {
        let ready = Ready::default();
        // A replica that waits for its turn is ready to take it.
        ready.set(true);
        server::serve_health(listen, ready, metrics.clone(), stop.clone())?;
    }
    let gateway_url = args.gateway_url.clone().unwrap_or_else(|| {
        let service = names::gateway_service(&common.service);
        format!("https://{service}.{}.svc:9443", common.own_namespace)
    });
    let options = Options {
        namespaces: Namespaces::new(common.namespaces.clone()),
        own_namespace: common.own_namespace.clone(),
        agent_image: args.agent_image.clone(),
        gateway_url,
        service: common.service.clone(),
        resync: args.resync,
        sweep: args.sweep,
        settle: args.halopsa.settle,
        rate_share: args.halopsa.rate_share,
        timeout: args.halopsa.timeout,
    };
    if args.no_leader_election {
        controller::run(kube, options, metrics, stop).await;
        return Ok(());
    }
    let identity = std::env::var("POD_NAME")
        .unwrap_or_else(|_| format!("{}-{}", names::CONTROLLER, std::process::id()));
    let lease::Leadership {
        mut leads,
        given_back,
    } = lease::compete(&common.own_namespace, &identity).await?;
    let mut elected = leads.clone();
    tokio::select! {
        () = stop.clone() => {}
        outcome = async { elected.wait_for(|leads| *leads).await.map(|_| ()) } => {
            outcome?;
            tracing::info!(%identity, "leading");
            tokio::select! {
                () = controller::run(kube, options, metrics, stop) => {}
                // Another may lead already, so nothing more may be written. The kubelet restarts
                // us as a follower.
                () = lost(&mut leads) => return Err(LEASE_LOST.into()),
            }
        }
    }
    // Closing the channel gives the Lease back, so that the next leader need not wait for its end.
    drop(leads);
    drop(elected);
    let _ = tokio::time::timeout(Duration::from_secs(5), given_back).await;
    Ok(())
}
