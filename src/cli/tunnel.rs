//! HaloPSA (or halosim) inside the cluster has an address like
//! `https://halosim.halosim.svc`, which the user's machine cannot reach. A local
//! port is then forwarded to one of the Service's Pods, as `kubectl port-forward` does.

use super::error::Error;
use crate::halopsa::client::Config;
use crate::k8s::services::service_of;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use tokio::net::TcpListener;

/// Points the client at a local port if HaloPSA's host is a Service.
pub async fn open(kube: &Client, config: &mut Config) -> Result<(), Error> {
    let Ok(mut url) = reqwest::Url::parse(&config.instance_url) else {
        return Ok(());
    };
    let host = url.host_str().unwrap_or_default().to_string();
    let Some((service, namespace)) = service_of(&host) else {
        return Ok(());
    };
    let port = url.port_or_known_default().unwrap_or(443);
    let (pod, port) = pod_of(kube, namespace, service, port).await?;
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .map_err(|e| Error::Tunnel(e.to_string()))?;
    let address = listener
        .local_addr()
        .map_err(|e| Error::Tunnel(e.to_string()))?;
    let pods: Api<Pod> = Api::namespaced(kube.clone(), namespace);
    tokio::spawn(async move {
        while let Ok((mut local, _)) = listener.accept().await {
            let (pods, pod) = (pods.clone(), pod.clone());
            tokio::spawn(async move {
                if let Ok(mut forward) = pods.portforward(&pod, &[port]).await
                    && let Some(mut remote) = forward.take_stream(port)
                {
                    let _ = tokio::io::copy_bidirectional(&mut local, &mut remote).await;
                }
            });
        }
    });
    // The host name stays, so the certificate is still checked; only the address differs.
    url.set_port(Some(address.port()))
        .map_err(|()| Error::Tunnel("the URL cannot have a port".into()))?;
    config.instance_url = url.as_str().trim_end_matches('/').to_string();
    config.resolve = Some((host, address));
    Ok(())
}

async fn pod_of(
    kube: &Client,
    namespace: &str,
    service: &str,
    port: u16,
) -> Result<(String, u16), Error> {
    let services: Api<Service> = Api::namespaced(kube.clone(), namespace);
    let spec = services.get(service).await?.spec.unwrap_or_default();
    let target = spec
        .ports
        .iter()
        .flatten()
        .find(|p| p.port == i32::from(port))
        .and_then(|p| p.target_port.clone());
    let selector: Vec<String> = spec
        .selector
        .iter()
        .flatten()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    if selector.is_empty() {
        return Err(Error::Tunnel(format!(
            "Service {namespace}/{service} selects no Pods"
        )));
    }
    let pods: Api<Pod> = Api::namespaced(kube.clone(), namespace);
    let running = |p: &Pod| {
        p.status
            .as_ref()
            .is_some_and(|s| s.phase.as_deref() == Some("Running"))
    };
    let pod = pods
        .list(&ListParams::default().labels(&selector.join(",")))
        .await?
        .items
        .into_iter()
        .find(running);
    let pod = pod.ok_or_else(|| {
        Error::Tunnel(format!("Service {namespace}/{service} has no running Pod"))
    })?;
    let number = match target {
        Some(IntOrString::Int(number)) => u16::try_from(number).ok(),
        Some(IntOrString::String(name)) => {
            let containers = pod.spec.iter().flat_map(|s| &s.containers);
            let mut ports = containers.flat_map(|c| c.ports.iter().flatten());
            ports
                .find(|p| p.name.as_deref() == Some(&name))
                .and_then(|p| u16::try_from(p.container_port).ok())
        }
        None => Some(port),
    };
    let number = number.ok_or_else(|| {
        Error::Tunnel(format!(
            "cannot find the port of Service {namespace}/{service}"
        ))
    })?;
    Ok((pod.name_any(), number))
}
