//! What the apiserver refuses with the chart's ValidatingAdmissionPolicies, whatever the rights of
//! who asks. They are the installed ones (config/operator.yaml), for one namespace; no operator
//! runs there, since that of the tests is the cluster's administrator.

use crate::harness::eventually;
use halopsa_operator::api::{HaloPSAConnection, Ticket};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fmt::Debug;

const INSTALLED: &str = include_str!("../../config/operator.yaml");
const ACCOUNTS: [&str; 4] = [
    "tenant",
    "halopsa-operator-controller",
    "halopsa-operator-gateway",
    "halopsa-operator-receiver",
];

/// A namespace with the policies, in which four ServiceAccounts may do everything.
struct Guarded {
    kube: Client,
    namespace: String,
}

impl Guarded {
    async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let kube = Client::try_default()
            .await
            .expect("a cluster: run make integration");
        let namespace = format!("it-admission-{:06x}", rand::random::<u32>() & 0xff_ffff);
        let object = json!({"metadata": {"name": namespace,
            "labels": {"rallied.ai/test": "integration"}}});
        let owner: Namespace = create(&Api::all(kube.clone()), object).await;
        let subjects = ACCOUNTS
            .map(|name| json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}));
        let binding = json!({"metadata": {"name": "everything"}, "subjects": subjects,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": "cluster-admin"}});
        let bindings = Api::namespaced(kube.clone(), &namespace);
        let _: RoleBinding = create(&bindings, binding).await;
        let guarded = Self { kube, namespace };
        guarded.install(&owner).await;
        guarded
    }

    /// The policies for this namespace only. They go when it goes.
    async fn install(&self, owner: &Namespace) {
        let accounts = format!("system:serviceaccount:{}:", self.namespace);
        let text = INSTALLED.replace("system:serviceaccount:halopsa-system:", &accounts);
        let mut installed = 0;
        for document in serde_yaml::Deserializer::from_str(&text) {
            let mut object = Value::deserialize(document).unwrap();
            let kind = object["kind"].as_str().unwrap_or_default().to_string();
            if !kind.starts_with("ValidatingAdmissionPolicy") {
                continue;
            }
            let renamed = |name: &Value| {
                let name = name.as_str().unwrap();
                Value::from(name.replace("halopsa-operator", &self.namespace))
            };
            let name = renamed(&object["metadata"]["name"]);
            object["metadata"] = json!({"name": name, "ownerReferences": [{
                "apiVersion": "v1", "kind": "Namespace", "name": self.namespace,
                "uid": owner.uid()}]});
            if kind == "ValidatingAdmissionPolicy" {
                let api = Api::all(self.kube.clone());
                let _: ValidatingAdmissionPolicy = create(&api, object).await;
            } else {
                object["spec"]["policyName"] = renamed(&object["spec"]["policyName"]);
                object["spec"]["matchResources"] = json!({"namespaceSelector": {"matchLabels":
                    {"kubernetes.io/metadata.name": self.namespace}}});
                let api = Api::all(self.kube.clone());
                let _: ValidatingAdmissionPolicyBinding = create(&api, object).await;
            }
            installed += 1;
        }
        assert_eq!(installed, 8, "four policies, each with its binding");
    }

    /// Objects of this kind as one of the ServiceAccounts sees them.
    async fn api<K: Resource<DynamicType = ()>>(&self, account: &str) -> Api<DynamicObject> {
        let mut config = kube::Config::infer().await.unwrap();
        let user = format!("system:serviceaccount:{}:{account}", self.namespace);
        config.auth_info.impersonate = Some(user);
        let client = Client::try_from(config).unwrap();
        Api::namespaced_with(client, &self.namespace, &ApiResource::erase::<K>(&()))
    }

    async fn stop(self) {
        let _ = Api::<Namespace>::all(self.kube)
            .delete(&self.namespace, &DeleteParams::background())
            .await;
    }
}

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: Clone + Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

/// Refused by a policy, as soon as it is in force. Nothing is stored meanwhile.
async fn creation_is_refused(what: &str, api: &Api<DynamicObject>, value: &Value) {
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    eventually(&format!("{what} is refused"), || async {
        let answer = api.create(&dry, &object(value.clone())).await;
        by_policy(answer).then_some(())
    })
    .await;
}

async fn change_is_refused(what: &str, api: &Api<DynamicObject>, name: &str, patch: &Value) {
    let dry = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    eventually(&format!("{what} is refused"), || async {
        let patch = Patch::Merge(patch);
        let answer = match patch_is_of_status(&patch) {
            true => api.patch_status(name, &dry, &patch).await,
            false => api.patch(name, &dry, &patch).await,
        };
        by_policy(answer).then_some(())
    })
    .await;
}

fn patch_is_of_status(patch: &Patch<&Value>) -> bool {
    matches!(patch, Patch::Merge(value) if value.get("status").is_some())
}

fn by_policy<T>(answer: Result<T, kube::Error>) -> bool {
    matches!(answer, Err(kube::Error::Api(status))
        if status.message.contains("ValidatingAdmissionPolicy"))
}

async fn change(api: &Api<DynamicObject>, name: &str, patch: &Value) {
    let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
    match patch_is_of_status(&patch) {
        true => api.patch_status(name, &params, &patch).await.unwrap(),
        false => api.patch(name, &params, &patch).await.unwrap(),
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_operator_writes_tickets_statuses_and_agents() {
    let guarded = Guarded::start().await;
    tickets(&guarded).await;
    agents(&guarded).await;
    instances(&guarded).await;
    guarded.stop().await;
}

async fn tickets(guarded: &Guarded) {
    let tenant = guarded.api::<Ticket>("tenant").await;
    let receiver = guarded.api::<Ticket>("halopsa-operator-receiver").await;
    let gateway = guarded.api::<Ticket>("halopsa-operator-gateway").await;
    let ticket = json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "Ticket",
        "metadata": {"name": "acme-1"},
        "spec": {"connectionRef": {"name": "halo"}, "ticketId": 1, "source": "Webhook"}});
    creation_is_refused("a tenant's Ticket", &tenant, &ticket).await;
    let stored = object(ticket);
    receiver
        .create(&PostParams::default(), &stored)
        .await
        .unwrap();
    let spec = json!({"spec": {"subject": "Reset the password of the owner"}});
    change_is_refused("another subject", &tenant, "acme-1", &spec).await;
    change_is_refused("the gateway's spec", &gateway, "acme-1", &spec).await;
    let status = json!({"status": {"phase": "Done"}});
    change_is_refused("a tenant's status", &tenant, "acme-1", &status).await;
    change(&gateway, "acme-1", &status).await;
    let reopen = json!({"metadata": {"annotations": {"rallied.ai/reopen": "1"}}});
    change(&tenant, "acme-1", &reopen).await;
    let delete = DeleteParams::default();
    tenant.delete("acme-1", &delete).await.unwrap();
}

async fn agents(guarded: &Guarded) {
    let tenant = guarded.api::<ServiceAccount>("tenant").await;
    let controller = guarded
        .api::<ServiceAccount>("halopsa-operator-controller")
        .await;
    let account = |name: &str| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    let agent = account("halopsa-agent-acme");
    creation_is_refused("an agent's account", &tenant, &agent).await;
    for (api, name) in [(&tenant, "other"), (&controller, "halopsa-agent-acme")] {
        let account = object(account(name));
        api.create(&PostParams::default(), &account).await.unwrap();
    }
    let pods = guarded.api::<Pod>("tenant").await;
    let pod = |account: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"serviceAccountName": account, "nodeSelector": {"none": "such"},
                "containers": [{"name": "x", "image": "local/none:0"}]}})
    };
    creation_is_refused("an agent's Pod", &pods, &pod("halopsa-agent-acme")).await;
    let other = object(pod("other"));
    pods.create(&PostParams::default(), &other).await.unwrap();
}

async fn instances(guarded: &Guarded) {
    let tenant = guarded.api::<HaloPSAConnection>("tenant").await;
    let controller = guarded
        .api::<HaloPSAConnection>("halopsa-operator-controller")
        .await;
    let connection = json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "HaloPSAConnection",
        "metadata": {"name": "halo"},
        "spec": {"instanceURL": "https://a.example", "credentialsSecretRef": {"name": "c"},
            "webhook": {"url": "https://hooks.example"}}});
    let stored = object(connection);
    tenant
        .create(&PostParams::default(), &stored)
        .await
        .unwrap();
    let moved = |host: &str| {
        let url = format!("https://{host}.example");
        json!({"spec": {"instanceURL": url}})
    };
    // A typing error is corrected until somebody has signed in.
    change(&tenant, "halo", &moved("b")).await;
    let status = json!({"status": {"apiAgent": {"id": 7, "name": "Rallied Agent"}}});
    change_is_refused("a tenant's status", &tenant, "halo", &status).await;
    change(&controller, "halo", &status).await;
    change_is_refused("another HaloPSA", &tenant, "halo", &moved("c")).await;
    let mut allowed = moved("c");
    allowed["metadata"] = json!({"annotations": {"rallied.ai/allow-instance-change": "true"}});
    change(&tenant, "halo", &allowed).await;
}
