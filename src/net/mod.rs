//! Where a tenant's URL may lead. Whoever writes a resource names an address, and the operator
//! connects to it from inside the cluster: so it must not be the cluster's own.
//!
//! - [`address`]: which kind an IP address is (pure)
//!
//! A name is resolved once per connection, checked, and exactly the checked addresses are
//! connected to: a name that resolves to something else later gains nothing.

pub mod address;

use address::{Kind, Network};
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The longest a name may take to resolve.
const TIMEOUT: Duration = Duration::from_secs(5);
/// More addresses of one name are not tried.
const MAX_ADDRESSES: usize = 16;

/// Why an address is not connected to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "{host} leads to {kind}, which resources may not name; correct the URL{}",
        hint(kind)
    )]
    Kind { host: String, kind: Kind },
    #[error(
        "{0} leads to an address the operator's administrator has denied, like the apiserver's; \
         correct the URL"
    )]
    Denied(String),
    #[error("cannot resolve {0}; check the URL and the cluster's DNS")]
    Unresolved(String),
    #[error("the URL has no host; correct it")]
    NoHost,
}

fn hint(kind: &Kind) -> &'static str {
    match kind {
        Kind::Private => {
            ", or have the administrator allow private addresses (--allow-private-addresses)"
        }
        _ => "",
    }
}

/// What a process allows. The default allows public addresses only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Private networks too: a HaloPSA or a tool server on premises.
    pub private: bool,
    /// For tests, whose servers listen there.
    pub loopback: bool,
    /// Never, whatever else is allowed.
    pub denied: Vec<Network>,
    /// Services in these namespaces may be named from any namespace.
    pub service_namespaces: Vec<String>,
    /// Everything may be named: for a person's own machine.
    pub unrestricted: bool,
}

static RULES: OnceLock<Rules> = OnceLock::new();

/// Sets the process's rules, once at its start. Without it the strictest hold.
pub fn install(rules: Rules) {
    // A second process in one test binary brings the same rules.
    let _ = RULES.set(rules);
}

/// The process's rules.
pub fn rules() -> Rules {
    RULES.get().cloned().unwrap_or_default()
}

/// Guards one client's connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    rules: Arc<Rules>,
    /// A Service's own addresses: they are connected to, whatever DNS says.
    fixed: Arc<[IpAddr]>,
}

impl Guard {
    pub fn new(rules: Rules) -> Self {
        Self {
            rules: Arc::new(rules),
            fixed: Arc::new([]),
        }
    }

    /// For a Service in the cluster, which has a private address. A headless one has none
    /// of its own.
    pub fn service(rules: Rules, addresses: Vec<IpAddr>) -> Self {
        Self {
            rules: Arc::new(Rules {
                private: true,
                ..rules
            }),
            fixed: addresses.into(),
        }
    }

    /// Checks the host of a URL that is an IP address: those are not resolved.
    pub fn check(&self, url: &Url) -> Result<(), Error> {
        let host = url.host_str().ok_or(Error::NoHost)?;
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        match literal.parse::<IpAddr>() {
            Ok(address) => self.allows(host, address),
            Err(_) => Ok(()),
        }
    }

    fn allows(&self, host: &str, ip: IpAddr) -> Result<(), Error> {
        let rules = &self.rules;
        if rules.unrestricted {
            return Ok(());
        }
        if rules.denied.iter().any(|network| network.contains(ip)) {
            return Err(Error::Denied(host.into()));
        }
        let kind = address::kind(ip);
        let allowed = match kind {
            Kind::Public => true,
            Kind::Private => rules.private,
            Kind::Loopback => rules.loopback,
            Kind::LinkLocal | Kind::Metadata | Kind::Special => false,
        };
        match allowed {
            true => Ok(()),
            false => Err(Error::Kind {
                host: host.into(),
                kind,
            }),
        }
    }

    /// The addresses of a name, if each of them is allowed: one that is not shows that the name
    /// is not to be trusted.
    async fn lookup(&self, host: &str) -> Result<Vec<SocketAddr>, Error> {
        let found: Vec<IpAddr> = match self.fixed.is_empty() {
            false => self.fixed.to_vec(),
            true => resolve(host).await?,
        };
        for ip in &found {
            self.allows(host, *ip)?;
        }
        Ok(found.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect())
    }
}

async fn resolve(host: &str) -> Result<Vec<IpAddr>, Error> {
    let unresolved = || Error::Unresolved(host.into());
    let found = tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((host, 0)))
        .await
        .map_err(|_| unresolved())?
        .map_err(|_| unresolved())?;
    let found: Vec<IpAddr> = found.map(|a| a.ip()).take(MAX_ADDRESSES).collect();
    match found.is_empty() {
        true => Err(unresolved()),
        false => Ok(found),
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(addresses(self.clone(), name))
    }
}

async fn addresses(
    guard: Guard,
    name: Name,
) -> Result<Addrs, Box<dyn std::error::Error + Send + Sync>> {
    let found = guard.lookup(name.as_str()).await?;
    Ok(Box::new(found.into_iter()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rules: &Rules, url: &str) -> Result<(), Error> {
        Guard::new(rules.clone()).check(&Url::parse(url).unwrap())
    }

    #[test]
    fn addresses_in_urls() {
        let strict = Rules {
            denied: vec!["203.0.113.0/24".parse().unwrap()],
            ..Rules::default()
        };
        let private = Rules {
            private: true,
            denied: vec!["10.96.0.1".parse().unwrap()],
            ..Rules::default()
        };
        for url in [
            "https://127.0.0.1/mcp",
            "https://127.1/mcp",
            "https://2130706433/mcp",
            "https://0x7f.1/mcp",
            "https://0/mcp",
            "https://169.254.169.254/latest",
            "https://[::1]/mcp",
            "https://[::ffff:169.254.169.254]/mcp",
            "https://[64:ff9b::a9fe:a9fe]/mcp",
            "https://[fd00:ec2::254]/mcp",
        ] {
            assert!(check(&strict, url).is_err(), "{url}");
            assert!(check(&private, url).is_err(), "{url}");
        }
        assert!(check(&strict, "https://10.0.0.1/mcp").is_err());
        assert!(check(&private, "https://10.0.0.1/mcp").is_ok());
        assert!(check(&private, "https://10.96.0.1/mcp").is_err(), "denied");
        assert!(check(&private, "https://[::ffff:10.96.0.1]/mcp").is_err());
        assert!(check(&strict, "https://203.0.113.9/mcp").is_err(), "denied");
        assert!(check(&strict, "https://198.51.100.1/mcp").is_ok());
        assert!(check(&strict, "https://tools.example/mcp").is_ok());
    }

    #[tokio::test]
    async fn names_are_judged_by_what_they_resolve_to() {
        let strict = Guard::new(Rules::default());
        let error = strict.lookup("localhost").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "localhost leads to a loopback address, which resources may not name; correct the URL"
        );
        let loopback = Rules {
            loopback: true,
            ..Rules::default()
        };
        let found = Guard::new(loopback.clone()).lookup("localhost").await;
        assert!(found.unwrap().iter().all(|a| a.ip().is_loopback()));
        let denied = Rules {
            denied: vec!["127.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()],
            ..loopback
        };
        assert!(Guard::new(denied).lookup("localhost").await.is_err());
    }

    #[tokio::test]
    async fn a_client_does_not_connect_to_a_name_that_leads_inside() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .dns_resolver(Guard::new(Rules::default()))
            .no_proxy()
            .build()
            .unwrap();
        let error = http.get("http://localhost:1/").send().await.unwrap_err();
        let cause = crate::error::root_cause(&error);
        assert!(cause.contains("a loopback address"), "{cause}");
    }

    #[tokio::test]
    async fn a_service_is_reached_at_its_own_address_only() {
        let address: IpAddr = "10.96.7.8".parse().unwrap();
        let guard = Guard::service(Rules::default(), vec![address]);
        let found = guard.lookup("m365.msp.svc").await.unwrap();
        assert_eq!(found, [SocketAddr::new(address, 0)]);
        // What the cluster calls a Service may still not be the apiserver.
        let denied = Rules {
            denied: vec![address.into()],
            ..Rules::default()
        };
        let guard = Guard::service(denied, vec![address]);
        assert!(guard.lookup("m365.msp.svc").await.is_err());
    }
}
