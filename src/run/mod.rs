//! How the processes are put together: arguments, watches, listeners.

use crate::api::{
    HaloPSAConnection, ImportedClient, Ticket, ToolPolicy, ToolServer, VerificationProvider,
    Workflow,
};
use crate::controller::{self, context::Options};
use crate::gateway::{self, Gateway};
use crate::halopsa_pool::HaloPool;
use crate::k8s::index::{ClientIndex, TicketIndex};
use crate::k8s::reflect::Reflector;
use crate::k8s::{names, scoped};
use crate::receiver::{self, Receiver};
use crate::server::{self, Ready};
use axum_server::tls_rustls::RustlsConfig;
use clap::Args;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher;
use kube::{Api, Client};
use kube_lease_manager::LeaseManagerBuilder;
use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const LEASE: &str = "halopsa-operator";
/// A leader that is not heard of for this long is replaced, in seconds.
const LEASE_SECONDS: u64 = 15;
/// Renewed this long before its end, in seconds.
const LEASE_GRACE: u64 = 5;

#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Watch this namespace only; default: all.
    #[arg(long, env = "HALOPSA_NAMESPACE")]
    pub namespace: Option<String>,
    /// The operator's own namespace.
    #[arg(long, env = "POD_NAMESPACE")]
    pub own_namespace: String,
    /// Name of the operator's Service: its certificate is issued for it.
    #[arg(long, env = "HALOPSA_SERVICE", default_value = "halopsa-operator")]
    pub service: String,
    /// Maximum delay before HaloPSA's reads reflect a write. After a crash, an unconfirmed note
    /// is not re-sent until it has passed.
    #[arg(long = "write-settle-time", env = "HALOPSA_WRITE_SETTLE_TIME", default_value = "90s", value_parser = duration)]
    pub settle: Duration,
    /// A ticket whose agent is not heard of for this long goes to the next.
    #[arg(long, env = "HALOPSA_LEASE", default_value = "45s", value_parser = duration)]
    pub lease: Duration,
    /// This process's part of a tenant's request limit, from 0 to 1.
    #[arg(long, env = "HALOPSA_RATE_SHARE", default_value_t = 0.3)]
    pub rate_share: f64,
    /// The longest one request to HaloPSA may take, like 30s.
    #[arg(long, env = "HALOPSA_TIMEOUT", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Where health and metrics are served, without TLS.
    #[arg(long)]
    pub health_listen: Option<SocketAddr>,
}

#[derive(Args, Clone, Debug)]
pub struct ControllerArgs {
    #[command(flatten)]
    pub common: Common,
    /// Image of the agents.
    #[arg(long, env = "HALOPSA_AGENT_IMAGE")]
    pub agent_image: String,
    /// The gateway's address as agents reach it; default: made from the Service.
    #[arg(long, env = "HALOPSA_GATEWAY_URL")]
    pub gateway_url: Option<String>,
    /// How often a connection is compared with HaloPSA.
    #[arg(long, env = "HALOPSA_RESYNC", default_value = "60s", value_parser = duration)]
    pub resync: Duration,
    /// How often tickets whose webhook never came are looked for.
    #[arg(long = "sweep-interval", env = "HALOPSA_SWEEP_INTERVAL", default_value = "180s", value_parser = duration)]
    pub sweep: Duration,
    /// Lead without a Lease: for a single process.
    #[arg(long)]
    pub no_leader_election: bool,
}

#[derive(Args, Clone, Debug)]
pub struct ReceiverArgs {
    #[command(flatten)]
    pub common: Common,
    /// Where webhooks come in.
    #[arg(long, default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,
    /// Serve webhooks over TLS. Turn off only behind an Ingress or a service mesh that terminates TLS.
    #[arg(long, env = "HALOPSA_WEBHOOK_TLS", default_value_t = true, action = clap::ArgAction::Set)]
    pub webhook_tls: bool,
    /// Where agents come in, always with TLS.
    #[arg(long, default_value = "0.0.0.0:9443")]
    pub gateway_listen: SocketAddr,
}

fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<kube::core::Duration>()
        .map(Duration::from)
        .map_err(|e| e.to_string())
}

type Outcome = Result<(), Box<dyn Error>>;

/// The controller, for as long as it leads.
pub async fn controller(
    args: ControllerArgs,
    stop: impl Future<Output = ()> + Clone + Send + Sync + 'static,
) -> Outcome {
    let kube = Client::try_default().await?;
    let common = &args.common;
    if let Some(listen) = common.health_listen {
        let ready = Ready::default();
        // A replica that waits for its turn is ready to take it.
        ready.set(true);
        tokio::spawn(server::serve(listen, server::health(ready), stop.clone()));
    }
    let gateway_url = args.gateway_url.clone().unwrap_or_else(|| {
        format!(
            "https://{}.{}.svc:9443",
            common.service, common.own_namespace
        )
    });
    let options = Options {
        namespace: common.namespace.clone(),
        own_namespace: common.own_namespace.clone(),
        agent_image: args.agent_image.clone(),
        gateway_url,
        service: common.service.clone(),
        resync: args.resync,
        sweep: args.sweep,
        settle: common.settle,
        rate_share: common.rate_share,
        timeout: common.timeout,
    };
    if args.no_leader_election {
        controller::run(kube, options, stop).await;
        return Ok(());
    }
    let identity = std::env::var("POD_NAME")
        .unwrap_or_else(|_| format!("{}-{}", names::CONTROLLER, std::process::id()));
    let manager = LeaseManagerBuilder::new(kube.clone(), LEASE)
        .with_namespace(&common.own_namespace)
        .with_identity(&identity)
        .with_duration(LEASE_SECONDS)
        .with_grace(LEASE_GRACE)
        .with_field_manager(names::CONTROLLER)
        .build()
        .await?;
    let (mut leads, task) = manager.watch().await;
    let mut elected = leads.clone();
    tokio::select! {
        () = stop.clone() => {}
        outcome = async { elected.wait_for(|leads| *leads).await.map(|_| ()) } => {
            outcome?;
            tracing::info!(%identity, "leading");
            tokio::select! {
                () = controller::run(kube, options, stop) => {}
                // Another may lead already: nothing more may be written. The kubelet starts us again as a follower.
                _ = async { leads.wait_for(|leads| !*leads).await.map(|_| ()) } => return Err("the Lease is lost; stopping so that the next leader is alone".into()),
            }
        }
    }
    // Closing the channel gives the Lease back, so that the next leader need not wait for its end.
    drop(leads);
    drop(elected);
    let _ = tokio::time::timeout(Duration::from_secs(5), task).await;
    Ok(())
}

/// Receiver and gateway.
pub async fn receiver(
    args: ReceiverArgs,
    stop: impl Future<Output = ()> + Clone + Send + Sync + 'static,
) -> Outcome {
    let kube = Client::try_default().await?;
    let common = &args.common;
    let scope = common.namespace.as_deref();
    let ready = Ready::default();

    let connections = Reflector::<HaloPSAConnection>::default();
    let clients = Reflector::<ImportedClient>::default();
    let tickets = Reflector::<Ticket>::default();
    let policies = Reflector::<ToolPolicy>::default();
    let servers = Reflector::<ToolServer>::default();
    let workflows = Reflector::<Workflow>::default();
    let providers = Reflector::<VerificationProvider>::default();
    let secrets = Reflector::<Secret>::default();
    let index = Arc::new(TicketIndex::default());
    let by_id = Arc::new(ClientIndex::default());
    let (bump, changed) = watch::channel(0u64);

    let receiver = Arc::new(Receiver::new(
        kube.clone(),
        connections.store.clone(),
        secrets.store.clone(),
        tickets.store.clone(),
        index.clone(),
        by_id.clone(),
        ready.clone(),
    ));
    let gateway = Arc::new(Gateway {
        kube: kube.clone(),
        connections: connections.store.clone(),
        clients: clients.store.clone(),
        tickets: tickets.store.clone(),
        policies: policies.store.clone(),
        servers: servers.store.clone(),
        workflows: workflows.store.clone(),
        providers: providers.store.clone(),
        listings: Default::default(),
        index: index.clone(),
        halopsa: HaloPool::new(kube.clone(), common.rate_share, common.timeout),
        reviewer: gateway::identity::Reviewer::new(kube.clone()),
        changed,
        settle: common.settle,
        lease: common
            .lease
            .try_into()
            .unwrap_or(k8s_openapi::jiff::SignedDuration::from_secs(45)),
        journal: Default::default(),
        backoff: Default::default(),
        ready: ready.clone(),
    });

    let stores = (
        (
            connections.store.clone(),
            clients.store.clone(),
            tickets.store.clone(),
            policies.store.clone(),
            secrets.store.clone(),
        ),
        (
            servers.store.clone(),
            workflows.store.clone(),
            providers.store.clone(),
        ),
    );
    let readiness = ready.clone();
    tokio::spawn(async move {
        // Nothing is decided before every rule is known.
        let ((a, b, c, d, e), (f, g, h)) = stores;
        let all = futures::future::join5(
            a.wait_until_ready(),
            b.wait_until_ready(),
            c.wait_until_ready(),
            d.wait_until_ready(),
            e.wait_until_ready(),
        );
        let (all, more) = futures::future::join(
            all,
            futures::future::join3(
                f.wait_until_ready(),
                g.wait_until_ready(),
                h.wait_until_ready(),
            ),
        )
        .await;
        let rest =
            all.0.is_ok() && all.1.is_ok() && all.2.is_ok() && all.3.is_ok() && all.4.is_ok();
        if rest && more.0.is_ok() && more.1.is_ok() && more.2.is_ok() {
            readiness.set(true);
            tracing::info!("ready for webhooks and agents");
        }
    });
    let ours = watcher::Config::default()
        .labels(&format!("{}={}", names::MANAGED_BY, names::OPERATOR))
        .fields("type=kubernetes.io/basic-auth");
    let any = watcher::Config::default;
    // A task each: they run on several threads, and none sits on another's stack.
    let mut watches = tokio::task::JoinSet::new();
    watches.spawn(connections.run(scoped(&kube, scope), any(), |_| (), || ()));
    watches.spawn(clients.run(
        scoped(&kube, scope),
        any(),
        move |event| by_id.observe(event),
        || (),
    ));
    // Waiting agents are woken when the store has the news, not before: they read it.
    watches.spawn(tickets.run(
        scoped(&kube, scope),
        any(),
        move |event| index.observe(event),
        move || bump.send_modify(|n| *n += 1),
    ));
    watches.spawn(policies.run(scoped(&kube, scope), any(), |_| (), || ()));
    watches.spawn(secrets.run(scoped(&kube, scope), ours, |_| (), || ()));
    watches.spawn(servers.run(scoped(&kube, scope), any(), |_| (), || ()));
    watches.spawn(workflows.run(scoped(&kube, scope), any(), |_| (), || ()));
    watches.spawn(providers.run(scoped(&kube, scope), any(), |_| (), || ()));
    let steps = Box::pin(gateway::runner::run(gateway.clone()));

    if let Some(listen) = common.health_listen {
        tokio::spawn(server::serve(
            listen,
            server::health(ready.clone()),
            stop.clone(),
        ));
    }
    let certificate = certificate(
        kube.clone(),
        common.own_namespace.clone(),
        names::server_secret(&common.service),
    );
    let serving = async {
        let (tls, renewal) = certificate.await;
        let public = receiver::router(receiver);
        let webhooks = async {
            match !args.webhook_tls {
                true => server::serve(args.listen, public, stop.clone()).await,
                false => server::serve_tls(args.listen, tls.clone(), public, stop.clone()).await,
            }
        };
        let agents = server::serve_tls(
            args.gateway_listen,
            tls.clone(),
            gateway::router(gateway),
            stop.clone(),
        );
        tokio::select! {
            served = async { tokio::try_join!(webhooks, agents) } => served.map(|_| ()),
            () = renewal => Err(std::io::Error::other("the watch on the certificate ended")),
        }
    };
    tokio::select! {
        served = serving => served?,
        _ = watches.join_next() => return Err("a watch ended".into()),
        () = steps => return Err("the runner of approved steps ended".into()),
    }
    Ok(())
}

/// The gateway's certificate, once the controller has issued it, and a future
/// that serves each renewed one.
async fn certificate(
    kube: Client,
    namespace: String,
    secret: String,
) -> (RustlsConfig, impl Future<Output = ()>) {
    use futures::StreamExt;
    use kube::runtime::WatchStreamExt;
    let api: Api<Secret> = Api::namespaced(kube, &namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={secret}"));
    let mut stream = Box::pin(
        watcher(api, config)
            .default_backoff()
            .applied_objects()
            .filter_map(|event| async move {
                event.map_err(|error| tracing::warn!(%error, "the watch on the certificate broke and is started again")).ok()
            })
            .filter_map(|secret: Secret| async move {
                let part = |key: &str| secret.data.as_ref().and_then(|d| d.get(key)).map(|b| b.0.clone());
                let (certificate, key) = (part("tls.crt")?, part("tls.key")?);
                server::tls_config(&certificate, &key)
                    .map_err(|error| tracing::error!(%error, "the certificate in the Secret cannot be used; delete the Secret to have it made anew"))
                    .ok()
            }),
    );
    let first = stream.next().await;
    // The stream has no end; without a first certificate there is nothing to serve with.
    let tls = match first {
        Some(config) => RustlsConfig::from_config(config),
        None => std::future::pending().await,
    };
    let reload = tls.clone();
    let renewal = async move {
        while let Some(config) = stream.next().await {
            reload.reload_from_config(config);
            tracing::info!("serving a renewed certificate");
        }
    };
    (tls, renewal)
}
