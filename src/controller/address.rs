//! Where agents find the gateway: the cluster addresses of its Service. An agent that knows them
//! needs no DNS, which would be a way out.

use super::context::Context;
use crate::k8s::names;
use k8s_openapi::api::core::v1::Service;
use kube::api::Api;
use std::net::IpAddr;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Reads the Service. If that fails, what was known stays.
pub async fn refresh(ctx: &Context) {
    let options = &ctx.options;
    let api: Api<Service> = Api::namespaced(ctx.kube.clone(), &options.own_namespace);
    let service = names::gateway_service(&options.service);
    let read = tokio::time::timeout(TIMEOUT, api.get_opt(&service)).await;
    let known = &ctx.published.addresses;
    let (found, why) = match read {
        Ok(Ok(service)) => (addresses(service.as_ref()), None),
        _ if known.get().is_some() => return,
        Ok(Err(error)) => (Vec::new(), Some(crate::k8s::explain(&error))),
        Err(_) => (
            Vec::new(),
            Some("the apiserver does not answer".to_string()),
        ),
    };
    let is_empty = found.is_empty();
    if !known.set(found) {
        return;
    }
    let namespace = &options.own_namespace;
    if is_empty {
        let why = why.unwrap_or_else(|| "it has no cluster address".into());
        tracing::warn!(%namespace, %service, %why,
            "the gateway's Service gives agents no address, so they may use the cluster's DNS");
    } else {
        tracing::info!(%namespace, %service, "agents reach the gateway without DNS");
    }
}

/// None for a headless Service, or one that does not exist: pure.
fn addresses(service: Option<&Service>) -> Vec<IpAddr> {
    let Some(spec) = service.and_then(|s| s.spec.as_ref()) else {
        return Vec::new();
    };
    let mut addresses: Vec<IpAddr> = spec
        .cluster_ips
        .iter()
        .flatten()
        .chain(&spec.cluster_ip)
        .filter_map(|ip| ip.parse().ok())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The host of a URL, without brackets: pure.
pub fn host(url: &str) -> Option<String> {
    let url = reqwest::Url::parse(url).ok()?;
    let host = url.host_str()?;
    Some(host.trim_matches(['[', ']']).to_string())
}

/// Whether a URL names the Service, as agents see it: pure.
pub fn is_service(url: &str, service: &str, namespace: &str) -> bool {
    let name = format!("{service}.{namespace}.svc");
    host(url).is_some_and(|host| {
        host == name || host.strip_suffix(".cluster.local") == Some(name.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_of_a_service() {
        for (spec, expected) in [
            (json!({"clusterIP": "10.96.0.7"}), vec!["10.96.0.7"]),
            (
                json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"]}),
                vec!["10.96.0.7", "fd00::7"],
            ),
            (json!({"clusterIP": "None", "clusterIPs": ["None"]}), vec![]),
            (
                json!({"type": "ExternalName", "externalName": "evil.example"}),
                vec![],
            ),
            (json!({}), vec![]),
        ] {
            let service: Service =
                serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
            let found = addresses(Some(&service));
            let expected: Vec<IpAddr> = expected.iter().map(|ip| ip.parse().unwrap()).collect();
            assert_eq!(found, expected, "{spec}");
        }
        assert!(addresses(None).is_empty());
    }

    #[test]
    fn which_urls_are_the_service() {
        for (url, is) in [
            ("https://op.sys.svc:9443", true),
            ("https://op.sys.svc.cluster.local:9443", true),
            ("https://op.other.svc:9443", false),
            ("https://gateway.example", false),
            ("https://op.sys.svc.evil.example", false),
            ("nonsense", false),
        ] {
            assert_eq!(is_service(url, "op", "sys"), is, "{url}");
        }
    }
}
