//! An agent's objects: ServiceAccount, Deployment, NetworkPolicy. Pure.

use crate::api::connection::AgentSettings;
use crate::api::{CLIENT_LABEL, CONNECTION_LABEL, HaloPSAConnection, ImportedClient};
use crate::k8s::names;
use k8s_openapi::api::apps::v1::Deployment;
use kube::core::PartialObjectMeta;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use std::collections::BTreeMap;
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

    /// The agent may reach the gateway and cluster DNS. Nothing may reach the agent.
    pub fn network_policy(&self) -> Value {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": self.metadata(),
            "spec": {
                "podSelector": {"matchLabels": self.selector()},
                "policyTypes": ["Ingress", "Egress"],
                "egress": [
                    {
                        "to": [{
                            "namespaceSelector": {"matchLabels": {
                                "kubernetes.io/metadata.name": self.gateway_namespace,
                            }},
                            "podSelector": {"matchLabels": {
                                "app.kubernetes.io/name": names::OPERATOR,
                            }},
                        }],
                        "ports": [{"protocol": "TCP", "port": 9443}],
                    },
                    {
                        "to": [{
                            "namespaceSelector": {},
                            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
                        }],
                        "ports": [
                            {"protocol": "UDP", "port": 53},
                            {"protocol": "TCP", "port": 53},
                        ],
                    },
                ],
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
        json!({
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
        })
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
}
