//! Where the URLs of resources lead: to the outside, or to a Service of this cluster.

use super::cache::Remembered;
use super::name::ObjectName;
use crate::net::{self, Guard};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use kube::{Api, Client};
use reqwest::Url;
use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// For this long a Service is not asked for again.
const CACHED_FOR: Duration = Duration::from_secs(60);
const MAX_CACHED: usize = 10_000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0} is not a valid URL; correct it")]
    Url(String),
    #[error(transparent)]
    Address(#[from] net::Error),
    #[error(
        "Service {0} is in another namespace; move it here, or have the operator's administrator \
         list that namespace (--service-namespaces)"
    )]
    Elsewhere(String),
    #[error("Service {0} does not exist; create it, or correct the URL")]
    Missing(String),
    #[error(
        "Service {0} is no Service of this cluster's Pods: its type is ExternalName, or it has no \
         selector; use a Service with a selector, or the server's own https:// URL"
    )]
    NotPods(String),
    #[error("http:// is only for a Service in this cluster, like http://m365.msp.svc:8080/mcp")]
    Plain,
    #[error("cannot look up Service {name}: {}", super::explain(.source))]
    Kube { name: String, source: kube::Error },
}

/// What a Service is, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Missing,
    NotPods,
    /// Its own addresses; none: it is headless.
    Pods(Vec<IpAddr>),
}

#[derive(Clone)]
struct Seen {
    at: Instant,
    target: Target,
}

static SEEN: LazyLock<Remembered<(String, String), Seen>> = LazyLock::new(Remembered::default);

/// The guard for connections to a URL that a resource of this namespace names.
pub async fn guard(kube: &Client, namespace: &str, url: &str) -> Result<Guard, Error> {
    let rules = net::rules();
    let parsed = Url::parse(url).map_err(|_| Error::Url(url.chars().take(200).collect()))?;
    let host = parsed.host_str().ok_or(net::Error::NoHost)?;
    if rules.unrestricted {
        return Ok(Guard::new(rules));
    }
    let Some((service, of)) = service_of(host) else {
        if parsed.scheme() != "https" {
            return Err(Error::Plain);
        }
        let guard = Guard::new(rules);
        guard.check(&parsed)?;
        return Ok(guard);
    };
    let label = format!("{of}/{service}");
    if of != namespace && !rules.service_namespaces.iter().any(|n| n.as_str() == of) {
        return Err(Error::Elsewhere(label));
    }
    match target(kube, of, service).await? {
        Target::Missing => Err(Error::Missing(label)),
        Target::NotPods => Err(Error::NotPods(label)),
        Target::Pods(addresses) => Ok(Guard::service(rules, addresses)),
    }
}

/// Service and namespace of a cluster-internal host name.
pub fn service_of(host: &str) -> Option<(&str, &str)> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let host = host
        .strip_suffix(".cluster.local")
        .unwrap_or(host)
        .strip_suffix(".svc")?;
    host.split_once('.').filter(|(service, namespace)| {
        !service.is_empty() && !namespace.is_empty() && !namespace.contains('.')
    })
}

async fn target(kube: &Client, namespace: &str, name: &str) -> Result<Target, Error> {
    let key = (namespace.to_string(), name.to_string());
    if let Some(seen) = SEEN.get(&key).filter(|s| s.at.elapsed() < CACHED_FOR) {
        return Ok(seen.target);
    }
    let label = format!("{namespace}/{name}");
    let valid = [namespace, name]
        .iter()
        .all(|part| ObjectName::try_from(part.to_string()).is_ok());
    if !valid {
        return Err(Error::Missing(label));
    }
    let found = Api::<Service>::namespaced(kube.clone(), namespace)
        .get_opt(name)
        .await
        .map_err(|source| Error::Kube {
            name: label,
            source,
        })?;
    let target = found.map_or(Target::Missing, |s| of_spec(&s.spec.unwrap_or_default()));
    let mut seen = SEEN.lock();
    if seen.len() >= MAX_CACHED {
        seen.retain(|_, s| s.at.elapsed() < CACHED_FOR);
    }
    // A Service that is missing may be there in a moment.
    if target != Target::Missing && seen.len() < MAX_CACHED {
        let at = Instant::now();
        let target = target.clone();
        seen.insert(key, Seen { at, target });
    }
    Ok(target)
}

/// What a Service leads to: pure. Without a selector whoever wrote its EndpointSlices decides.
fn of_spec(spec: &ServiceSpec) -> Target {
    let is_external = spec.type_.as_deref() == Some("ExternalName") || spec.external_name.is_some();
    if is_external || spec.selector.as_ref().is_none_or(|s| s.is_empty()) {
        return Target::NotPods;
    }
    let addresses = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let mut addresses: Vec<IpAddr> = addresses.filter_map(|ip| ip.parse().ok()).collect();
    addresses.dedup();
    Target::Pods(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_of_services() {
        assert_eq!(service_of("m365.msp.svc"), Some(("m365", "msp")));
        assert_eq!(service_of("m365.msp.svc."), Some(("m365", "msp")));
        assert_eq!(service_of("a.b.svc.cluster.local"), Some(("a", "b")));
        for host in ["tools.example", "svc", "a.svc", "pod.a.b.svc", ""] {
            assert_eq!(service_of(host), None, "{host}");
        }
    }

    #[test]
    fn only_a_service_of_pods_is_one() {
        let spec = |spec| of_spec(&serde_json::from_value(spec).unwrap());
        let pods = json!({"selector": {"app": "m365"}, "clusterIP": "10.96.1.2", "clusterIPs": ["10.96.1.2"]});
        assert_eq!(spec(pods), Target::Pods(vec!["10.96.1.2".parse().unwrap()]));
        let headless = json!({"selector": {"app": "m365"}, "clusterIP": "None"});
        assert_eq!(spec(headless), Target::Pods(Vec::new()));
        for wrong in [
            json!({"type": "ExternalName", "externalName": "169.254.169.254.nip.io"}),
            json!({"type": "ExternalName", "externalName": "x.example", "selector": {"a": "b"}}),
            json!({"clusterIP": "10.96.0.1"}),
            json!({"selector": {}, "clusterIP": "10.96.0.1"}),
        ] {
            assert_eq!(spec(wrong.clone()), Target::NotPods, "{wrong}");
        }
    }
}
