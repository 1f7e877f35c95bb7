//! Arguments of the processes. Each can be set by an environment variable, too.

use crate::net::Rules;
use crate::net::address::Network;
use clap::Args;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Of every process but the agents.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Watch only this namespace; may be repeated, or list several separated by commas. Default:
    /// all.
    #[arg(
        long = "namespace",
        env = "HALOPSA_NAMESPACE",
        value_name = "NAMESPACE",
        value_delimiter = ','
    )]
    pub namespaces: Vec<String>,
    /// The operator's own namespace.
    #[arg(long, env = "POD_NAMESPACE")]
    pub own_namespace: String,
    /// Name of the operator's Service, after which the gateway's Service and the certificates are
    /// named.
    #[arg(long, env = "HALOPSA_SERVICE", default_value = "halopsa-operator")]
    pub service: String,
    /// Address for health and metrics, without TLS.
    #[arg(long)]
    pub health_listen: Option<SocketAddr>,
}

/// Of the processes that call HaloPSA and other servers.
#[derive(Args, Clone, Debug)]
pub struct HaloArgs {
    /// Maximum delay before HaloPSA's reads reflect a write. After a crash, an unconfirmed note
    /// is not re-sent until it has passed.
    #[arg(
        long = "write-settle-time",
        env = "HALOPSA_WRITE_SETTLE_TIME",
        default_value = "90s",
        value_parser = duration
    )]
    pub settle: Duration,
    /// This process's share of a tenant's request limit, from 0 to 1.
    #[arg(long, env = "HALOPSA_RATE_SHARE", default_value_t = 0.3)]
    pub rate_share: f64,
    /// Timeout of one request to HaloPSA, like 30s.
    #[arg(long, env = "HALOPSA_TIMEOUT", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// URLs in resources may lead to private networks, as for a HaloPSA on premises. Services of
    /// the resource's own namespace may be named in any case.
    #[arg(
        long,
        env = "HALOPSA_ALLOW_PRIVATE_ADDRESSES",
        default_value_t = false,
        action = clap::ArgAction::Set
    )]
    pub allow_private_addresses: bool,
    /// Services in these namespaces may be named from any namespace, separated by commas.
    #[arg(long, env = "HALOPSA_SERVICE_NAMESPACES", value_delimiter = ',')]
    pub service_namespaces: Vec<String>,
    /// Addresses and ranges that no URL may lead to, separated by commas: the nodes', for example.
    #[arg(long, env = "HALOPSA_DENY_ADDRESSES", value_delimiter = ',')]
    pub deny_addresses: Vec<Network>,
    /// URLs in resources may lead to this machine. Only for tests.
    #[arg(long, hide = true)]
    pub allow_loopback: bool,
}

impl HaloArgs {
    /// Which addresses URLs in resources may lead to. The apiserver's are never among them.
    pub fn addresses(&self) -> Rules {
        let apiserver = std::env::var("KUBERNETES_SERVICE_HOST").ok();
        let apiserver = apiserver.and_then(|host| host.parse::<IpAddr>().ok());
        let mut denied = self.deny_addresses.clone();
        denied.extend(apiserver.map(Network::from));
        Rules {
            private: self.allow_private_addresses,
            loopback: self.allow_loopback,
            denied,
            service_namespaces: self.service_namespaces.clone(),
            unrestricted: false,
        }
    }
}

#[derive(Args, Clone, Debug)]
pub struct ControllerArgs {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub halopsa: HaloArgs,
    /// Image of the agents.
    #[arg(long, env = "HALOPSA_AGENT_IMAGE")]
    pub agent_image: String,
    /// The gateway's URL as agents reach it. Default: derived from the Service.
    #[arg(long, env = "HALOPSA_GATEWAY_URL")]
    pub gateway_url: Option<String>,
    /// How often a connection is compared with HaloPSA.
    #[arg(long, env = "HALOPSA_RESYNC", default_value = "60s", value_parser = duration)]
    pub resync: Duration,
    /// How often to search for tickets whose webhook was never received.
    #[arg(
        long = "sweep-interval",
        env = "HALOPSA_SWEEP_INTERVAL",
        default_value = "180s",
        value_parser = duration
    )]
    pub sweep: Duration,
    /// Run without leader election, as a single process.
    #[arg(long)]
    pub no_leader_election: bool,
}

#[derive(Args, Clone, Debug)]
pub struct GatewayArgs {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub halopsa: HaloArgs,
    /// A ticket whose agent sends no heartbeat for this long goes to the next agent.
    #[arg(long, env = "HALOPSA_LEASE", default_value = "45s", value_parser = duration)]
    pub lease: Duration,
    /// Address for agents, always with TLS.
    #[arg(long, default_value = "0.0.0.0:9443")]
    pub listen: SocketAddr,
}

#[derive(Args, Clone, Debug)]
pub struct ReceiverArgs {
    #[command(flatten)]
    pub common: Common,
    /// Address for webhooks and verification callbacks.
    #[arg(long, default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,
    /// Serve over TLS. Turn off only behind an Ingress or service mesh that terminates TLS.
    #[arg(long, env = "HALOPSA_WEBHOOK_TLS", default_value_t = true, action = clap::ArgAction::Set)]
    pub webhook_tls: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<crate::api::duration::Duration>()
        .map(Duration::from)
        .map_err(|e| e.to_string())
}
