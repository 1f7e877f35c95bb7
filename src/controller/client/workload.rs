//! An agent's objects: ServiceAccount, Deployment, NetworkPolicy. Pure.

use crate::api::connection::AgentSettings;
use crate::api::{CLIENT_LABEL, CONNECTION_LABEL, HaloPSAConnection, ImportedClient};
use crate::controller::address::host;
use crate::k8s::names;
use k8s_openapi::api::apps::v1::Deployment;
use kube::core::PartialObjectMeta;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// An agent, with its settings resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent<'a> {
    pub connection: &'a HaloPSAConnection,
    pub client: &'a ImportedClient,
    pub image: &'a str,
    pub gateway_url: &'a str,
    /// Namespace of the gateway's Pods.
    pub gateway_namespace: &'a str,
    /// Cluster addresses of the gateway's Service, if the URL names it.
    pub gateway_addresses: &'a [IpAddr],
    pub replicas: i32,
}

/// A setting of the client, else of the connection.
pub fn setting<'a, T>(
    client: &'a ImportedClient,
    connection: &'a HaloPSAConnection,
    pick: impl Fn(&'a AgentSettings) -> Option<T>,
) -> Option<T> {
    client
        .spec
        .agent
        .as_ref()
        .and_then(&pick)
        .or_else(|| pick(&connection.spec.agent.settings))
}

pub const DEFAULT_IDLE: Duration = Duration::from_secs(600);
pub const DEFAULT_MAX_REPLICAS: i32 = 3;
const TOKEN_SECONDS: i64 = 3600;

impl Agent<'_> {
    fn metadata(&self) -> Value {
        json!({
            "name": names::agent(&self.client.name_any()),
            "namespace": self.client.namespace(),
            "labels": self.labels(),
            "ownerReferences": [self.client.controller_owner_ref(&())],
        })
    }

    pub fn service_account(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": self.metadata(),
            "automountServiceAccountToken": false,
        })
    }

    /// Whether the agent has to look the gateway up. A name server answers for any name, so what an
    /// agent asks it leaves the cluster.
    fn needs_dns(&self) -> bool {
        let host = host(self.gateway_url);
        let is_address = host.is_some_and(|host| host.parse::<IpAddr>().is_ok());
        self.gateway_addresses.is_empty() && !is_address
    }

    /// The agent may reach the gateway, and nothing may reach the agent. If it has to look the
    /// gateway up it may also reach the cluster's own DNS.
    pub fn network_policy(&self) -> Value {
        let namespace = |name: &str| json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
        let mut egress = vec![json!({
            "to": [{
                "namespaceSelector": namespace(self.gateway_namespace),
                "podSelector": {"matchLabels": {"app.kubernetes.io/name": names::OPERATOR}},
            }],
            "ports": [{"protocol": "TCP", "port": 9443}],
        })];
        if self.needs_dns() {
            egress.push(json!({
                "to": [{
                    "namespaceSelector": namespace("kube-system"),
                    "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
                }],
                "ports": [
                    {"protocol": "UDP", "port": 53},
                    {"protocol": "TCP", "port": 53},
                ],
            }));
        }
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": self.metadata(),
            "spec": {
                "podSelector": {"matchLabels": self.selector()},
                "policyTypes": ["Ingress", "Egress"],
                "egress": egress,
            },
        })
    }

    fn selector(&self) -> Value {
        json!({"app.kubernetes.io/name": "halopsa-agent", CLIENT_LABEL: self.client.name_any()})
    }

    pub fn deployment(&self) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": self.metadata(),
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": self.selector()},
                // A new agent starts before an old one is told to stop; a lease hands each ticket
                // over.
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
                },
                "revisionHistoryLimit": 2,
                "progressDeadlineSeconds": 120,
                "template": {
                    "metadata": {"labels": self.labels()},
                    "spec": self.pod(),
                },
            },
        })
    }

    fn pod(&self) -> Value {
        let mut pod = json!({
            "serviceAccountName": names::agent(&self.client.name_any()),
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 30,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [self.container()],
            "volumes": [{
                "name": "gateway",
                "projected": {"defaultMode": 288, "sources": [
                    {"serviceAccountToken": {
                        "audience": names::GATEWAY_AUDIENCE,
                        "expirationSeconds": TOKEN_SECONDS,
                        "path": "token",
                    }},
                    {"configMap": {
                        "name": names::GATEWAY_CA,
                        "items": [{"key": names::CA_KEY, "path": "ca.crt"}],
                    }},
                ]},
            }],
            "dnsPolicy": "ClusterFirst",
        });
        if !self.needs_dns() {
            pod["dnsPolicy"] = "None".into();
            // A name server is required; nothing listens on this one.
            pod["dnsConfig"] = json!({"nameservers": ["127.0.0.1"]});
            pod["hostAliases"] = self.host_aliases();
        }
        pod
    }

    /// The gateway's name stays: its certificate is for the name.
    fn host_aliases(&self) -> Value {
        let host = host(self.gateway_url).unwrap_or_default();
        let alias = |ip: &IpAddr| json!({"ip": ip.to_string(), "hostnames": [host]});
        self.gateway_addresses.iter().map(alias).collect()
    }

    fn container(&self) -> Value {
        let resources = setting(self.client, self.connection, |s| s.resources.as_ref());
        let resources = resources.map_or_else(
            || json!({"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}}),
            |r| json!({"requests": r.requests, "limits": r.limits}),
        );
        json!({
            "name": "agent",
            "image": self.image,
            "args": ["agent"],
            "env": [
                {"name": "HALOPSA_GATEWAY_URL", "value": self.gateway_url},
                {"name": "HALOPSA_GATEWAY_CA", "value": "/var/run/halopsa/ca.crt"},
                {"name": "HALOPSA_TOKEN_FILE", "value": "/var/run/halopsa/token"},
                {"name": "RUST_LOG", "value": "info"},
            ],
            "resources": resources,
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [
                {"name": "gateway", "mountPath": "/var/run/halopsa", "readOnly": true},
            ],
        })
    }

    fn labels(&self) -> BTreeMap<&'static str, String> {
        let (connection, client) = (self.connection.name_any(), self.client.name_any());
        BTreeMap::from([
            (names::MANAGED_BY, names::OPERATOR.to_string()),
            ("app.kubernetes.io/name", "halopsa-agent".to_string()),
            ("app.kubernetes.io/component", "agent".to_string()),
            (CONNECTION_LABEL, connection),
            (CLIENT_LABEL, client),
        ])
    }
}

/// Changes with a Deployment's spec, not with its status.
pub fn version_of_deployment(deployment: &Deployment) -> String {
    let replicas = deployment
        .spec
        .as_ref()
        .and_then(|s| s.replicas)
        .unwrap_or_default();
    format!(
        "{}/{}/{replicas}",
        deployment.metadata.uid.as_deref().unwrap_or_default(),
        deployment.metadata.generation.unwrap_or_default()
    )
}

pub fn version_of_metadata<K>(object: &PartialObjectMeta<K>) -> String {
    object.metadata.resource_version.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_restricted_and_holds_no_api_token() {
        let (connection, client) = (
            HaloPSAConnection::new("halo", Default::default()),
            ImportedClient::new("acme", Default::default()),
        );
        let agent = Agent {
            connection: &connection,
            client: &client,
            image: "i",
            gateway_url: "https://g",
            gateway_namespace: "ns",
            gateway_addresses: &[],
            replicas: 0,
        };
        let deployment = agent.deployment();
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(
            pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"],
            true
        );
        assert_eq!(pod["volumes"].as_array().unwrap().len(), 1);
        assert_eq!(
            pod["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["audience"],
            "halopsa-gateway"
        );
        let text = deployment.to_string();
        assert!(
            !text.contains("secretKeyRef") && !text.contains("\"secret\""),
            "no Secret reaches an agent"
        );
        // The same input gives the same object: no write without a change.
        assert_eq!(deployment, agent.deployment());
    }

    #[test]
    fn an_agent_that_knows_the_gateways_address_has_no_dns() {
        let (connection, client) = (
            HaloPSAConnection::new("halo", Default::default()),
            ImportedClient::new("acme", Default::default()),
        );
        let addresses: [IpAddr; 1] = ["10.96.0.7".parse().unwrap()];
        let agent = |gateway_url, gateway_addresses| Agent {
            connection: &connection,
            client: &client,
            image: "i",
            gateway_url,
            gateway_namespace: "ns",
            gateway_addresses,
            replicas: 0,
        };
        let of = |agent: &Agent<'_>| {
            let pod = agent.deployment()["spec"]["template"]["spec"].clone();
            (pod, agent.network_policy()["spec"]["egress"].clone())
        };
        let (pod, egress) = of(&agent("https://op.ns.svc:9443", &addresses));
        assert_eq!(
            pod["hostAliases"],
            json!([{"ip": "10.96.0.7", "hostnames": ["op.ns.svc"]}])
        );
        assert_eq!(pod["dnsPolicy"], "None");
        assert_eq!(pod["dnsConfig"]["nameservers"], json!(["127.0.0.1"]));
        let rules = egress.as_array().unwrap();
        assert_eq!(rules.len(), 1, "the gateway and nothing else");
        assert_eq!(
            rules[0]["ports"],
            json!([{"protocol": "TCP", "port": 9443}])
        );

        let (pod, egress) = of(&agent("https://10.0.0.9:9443", &[]));
        assert_eq!(
            (pod["dnsPolicy"].as_str(), egress.as_array().unwrap().len()),
            (Some("None"), 1)
        );

        // Without an address: the cluster's DNS, and no pod that merely has its label.
        let (pod, egress) = of(&agent("https://gateway.example", &[]));
        assert_eq!(pod["dnsPolicy"], "ClusterFirst");
        assert!(pod.get("hostAliases").is_none());
        assert_eq!(
            egress[1]["to"][0]["namespaceSelector"]["matchLabels"],
            json!({"kubernetes.io/metadata.name": "kube-system"})
        );
        assert_eq!(egress.as_array().unwrap().len(), 2);
    }
}
