//! An operator in this process, a namespace in the cluster, and a simulated HaloPSA.

use halopsa_operator::agent;
use halopsa_operator::api::{HaloPSAConnection, ImportedClient, Ticket};
use halopsa_operator::run::{
    Common, ControllerArgs, GatewayArgs, HaloArgs, ReceiverArgs, controller, gateway, receiver,
};
use halosim::{Options, Sim};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use std::fmt::Debug;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

pub const ACME: i64 = 12;
pub const BLUE: i64 = 13;

pub struct Harness {
    pub kube: Client,
    pub namespace: String,
    pub sim: Sim,
    /// The receiver, as HaloPSA reaches it.
    pub webhooks: String,
    /// The receiver's health and metrics.
    pub health: String,
    pub gateway: String,
    pub ca: String,
    arguments: Arguments,
    operator: Vec<tokio::task::JoinHandle<()>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    agents: Vec<Arc<watch::Sender<bool>>>,
}

/// Of the three processes.
#[derive(Clone)]
struct Arguments {
    controller: ControllerArgs,
    gateway: GatewayArgs,
    receiver: ReceiverArgs,
}

fn run_operator(arguments: &Arguments) -> Vec<tokio::task::JoinHandle<()>> {
    let forever = || futures::FutureExt::shared(std::future::pending::<()>());
    let Arguments {
        controller: of_controller,
        gateway: of_gateway,
        receiver: of_receiver,
    } = arguments.clone();
    vec![
        tokio::spawn(async move {
            controller(of_controller, forever())
                .await
                .expect("controller")
        }),
        tokio::spawn(async move { gateway(of_gateway, forever()).await.expect("gateway") }),
        tokio::spawn(async move { receiver(of_receiver, forever()).await.expect("receiver") }),
    ]
}

/// An unused port, below the range the system assigns to clients.
fn free_port() -> SocketAddr {
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(20_000);
    loop {
        let port = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if let Ok(listener) = std::net::TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().unwrap();
        }
    }
}

/// Probes until there is a value, for up to half a minute.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    probe: impl FnMut() -> F,
) -> T {
    within(Duration::from_secs(30), what, probe).await
}

/// Probes until there is a value, ten times per second.
pub async fn within<T, F: Future<Output = Option<T>>>(
    time: Duration,
    what: &str,
    mut probe: impl FnMut() -> F,
) -> T {
    for _ in 0..time.as_millis() / 100 {
        if let Some(value) = probe().await {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not in time: {what}");
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => from
            .into_iter()
            .for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value)),
        (into, from) => *into = from,
    }
}

/// The arguments of the three processes.
fn arguments(namespace: &str, health_listen: SocketAddr, timeout: Duration) -> Arguments {
    let common = Common {
        namespaces: vec![namespace.to_string()],
        own_namespace: namespace.to_string(),
        service: "operator".into(),
        health_listen: None,
    };
    let halopsa = HaloArgs {
        settle: Duration::from_secs(4),
        rate_share: 1.0,
        timeout,
        allow_private_addresses: false,
        service_namespaces: Vec::new(),
        deny_addresses: Vec::new(),
        allow_loopback: true,
    };
    Arguments {
        controller: ControllerArgs {
            common: common.clone(),
            halopsa: halopsa.clone(),
            agent_image: "local/none:0".into(),
            gateway_url: None,
            resync: Duration::from_secs(2),
            sweep: Duration::from_secs(3600),
            no_leader_election: true,
        },
        gateway: GatewayArgs {
            common: common.clone(),
            halopsa,
            lease: Duration::from_secs(6),
            listen: free_port(),
        },
        receiver: ReceiverArgs {
            common: Common {
                health_listen: Some(health_listen),
                ..common
            },
            listen: free_port(),
            webhook_tls: true,
        },
    }
}

impl Harness {
    /// An operator for a new namespace that holds credentials for the simulator.
    pub async fn start(name: &str) -> Self {
        Self::start_with(name, Duration::from_secs(30)).await
    }

    /// The same, with this timeout for requests to HaloPSA.
    pub async fn start_with(name: &str, timeout: Duration) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let kube = Client::try_default()
            .await
            .expect("a cluster: run make integration");
        let namespace = format!("it-{name}-{:06x}", rand::random::<u32>() & 0xff_ffff);
        let object: Namespace = serde_json::from_value(
            json!({"metadata": {"name": namespace, "labels": {"rallied.ai/test": "integration"}}}),
        )
        .unwrap();
        Api::all(kube.clone())
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
        halopsa_operator::audit::kept::start(&namespace);
        let sim = Sim::start(Options {
            rate_limit: 100_000,
            ..Options::default()
        })
        .await
        .unwrap();
        let health_listen = free_port();
        let arguments = arguments(&namespace, health_listen, timeout);
        let (listen, gateway_listen) = (arguments.receiver.listen, arguments.gateway.listen);
        let operator = run_operator(&arguments);
        let secrets: Api<Secret> = Api::namespaced(kube.clone(), &namespace);
        let ca = eventually("the operator's certificate", || async {
            let data = secrets.get_opt("operator-tls").await.unwrap()?.data?;
            Some(String::from_utf8(data.get("ca.crt")?.0.clone()).unwrap())
        })
        .await;
        sim.shared.trust(ca.clone());
        let port = |address: SocketAddr| format!("https://localhost:{}", address.port());
        let (webhooks, gateway) = (port(listen), port(gateway_listen));
        let harness = Self {
            kube,
            namespace,
            sim,
            webhooks,
            health: format!("http://{health_listen}"),
            gateway,
            ca,
            arguments,
            operator,
            tasks: Vec::new(),
            agents: Vec::new(),
        };
        harness.credentials(halosim::seed::CLIENT_SECRET).await;
        let ca = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "halosim-ca"}, "data": {"ca.crt": harness.sim.shared.ca_pem}});
        harness
            .apply::<k8s_openapi::api::core::v1::ConfigMap>("halosim-ca", &ca)
            .await;
        harness
    }

    /// Kills the operator and starts it again.
    pub async fn restart(&mut self) {
        for task in self.operator.drain(..) {
            task.abort();
            let _ = task.await;
        }
        self.operator = run_operator(&self.arguments);
    }

    /// A connection in Execute mode with these additional fields; its clients are ready.
    pub async fn execute(&self, ids: &[i64], more: Value) {
        let mut connection = self.connection(ids);
        connection["spec"]["agent"] = json!({"mode": "Execute"});
        connection["spec"]["approvals"] = json!({"poll": "1s"});
        merge(&mut connection["spec"], more);
        self.apply::<HaloPSAConnection>("halo", &connection).await;
        self.wait_ready(ids).await;
    }

    /// Assigns a ticket without a trace in its actions, as an import does.
    pub fn assign(&self, ticket: i64, agent: i64) {
        self.sim
            .shared
            .store()
            .get_mut("tickets", ticket)
            .unwrap()
            .insert("agent_id".into(), agent.into());
    }

    /// An action by a technician in HaloPSA's web pages; its id.
    pub fn reply(&self, ticket: i64, agent: i64, html: &str) -> i64 {
        let author = halosim::store::Author::Agent {
            id: agent,
            application: "nethelpdesk-agent-web-application".into(),
        };
        self.act(
            &author,
            json!({"ticket_id": ticket, "outcome": "Private Note", "note_html": html}),
        )
    }

    /// An action by anybody; its id.
    pub fn act(&self, author: &halosim::store::Author, input: Value) -> i64 {
        let (action, changes) = self
            .sim
            .shared
            .store()
            .write_action(
                input.as_object().unwrap(),
                author,
                std::time::Instant::now(),
            )
            .unwrap();
        self.sim.shared.publish(changes);
        action["id"].as_i64().unwrap()
    }

    /// The API agent's actions on a ticket, in full.
    pub fn our_actions(&self, ticket: i64) -> Vec<serde_json::Map<String, Value>> {
        let store = self.sim.shared.store();
        store
            .actions(ticket)
            .into_iter()
            .filter(|a| a["actionby_application_id"] == "Rallied Agent")
            .cloned()
            .collect()
    }

    /// A field of a ticket in HaloPSA.
    pub fn halo(&self, ticket: i64, field: &str) -> Value {
        self.sim
            .shared
            .store()
            .get("tickets", ticket)
            .unwrap()
            .get(field)
            .cloned()
            .unwrap_or_default()
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.kube.clone(), &self.namespace)
    }

    pub async fn apply<K>(&self, name: &str, object: &Value) -> K
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + serde::de::DeserializeOwned
            + Debug,
    {
        self.api::<K>()
            .patch(
                name,
                &PatchParams::apply("test").force(),
                &Patch::Apply(object),
            )
            .await
            .unwrap()
    }

    pub async fn credentials(&self, secret: &str) {
        let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "credentials", "labels": {"rallied.ai/use": "true"}}, "stringData": {"clientId": halosim::seed::CLIENT_ID, "clientSecret": secret}});
        self.apply::<Secret>("credentials", &object).await;
    }

    /// A connection named `halo`, importing these clients.
    pub async fn connect(&self, ids: &[i64]) -> HaloPSAConnection {
        self.apply("halo", &self.connection(ids)).await
    }

    pub fn connection(&self, ids: &[i64]) -> Value {
        json!({
            "apiVersion": "rallied.ai/v1alpha1", "kind": "HaloPSAConnection", "metadata": {"name": "halo"},
            "spec": {
                "instanceURL": self.sim.url.replace("127.0.0.1", "localhost"), "credentialsSecretRef": {"name": "credentials"}, "caConfigMapRef": {"name": "halosim-ca"},
                "webhook": {"url": self.webhooks}, "clients": {"ids": ids}, "rateLimit": {"requests": 100_000},
            },
        })
    }

    /// Waits until a condition of the connection has this status and reason; its message.
    pub async fn connection_is(&self, type_: &str, status: &str, reason: &str) -> String {
        let api = self.api::<HaloPSAConnection>();
        eventually(&format!("{type_}={status} {reason}"), || async {
            let connection = api.get_opt("halo").await.unwrap()?;
            let found = connection
                .status?
                .conditions
                .into_iter()
                .find(|c| c.type_ == type_)?;
            (found.status == status && found.reason == reason).then_some(found.message)
        })
        .await
    }

    /// Connected, with these clients imported and ready.
    pub async fn ready(&self, ids: &[i64]) {
        self.connect(ids).await;
        self.wait_ready(ids).await;
    }

    async fn wait_ready(&self, ids: &[i64]) {
        self.connection_is("Ready", "True", "Connected").await;
        let api = self.api::<ImportedClient>();
        eventually("the imported clients", || async {
            let all = api.list(&Default::default()).await.unwrap().items;
            let ready = |c: &ImportedClient| {
                c.status.as_ref().is_some_and(|s| {
                    s.conditions
                        .iter()
                        .any(|c| c.type_ == "Ready" && c.status == "True")
                })
            };
            (all.len() == ids.len() && all.iter().all(ready)).then_some(())
        })
        .await;
    }

    /// A new ticket by an end user of the client; its id.
    pub fn open_ticket(&self, client: i64, summary: &str) -> i64 {
        let user = self
            .sim
            .shared
            .store()
            .kind("users")
            .unwrap()
            .values()
            .find(|u| u["client_id"] == client)
            .unwrap()["id"]
            .as_i64()
            .unwrap();
        self.open_ticket_by(client, user, summary)
    }

    /// A new ticket of the client with this user on it; its id.
    pub fn open_ticket_by(&self, client: i64, user: i64, summary: &str) -> i64 {
        let (ticket, changes) = {
            let mut store = self.sim.shared.store();
            let input = json!({"client_id": client, "user_id": user, "summary": summary, "details": "<p>It does not work.</p>"});
            store
                .write_ticket(
                    input.as_object().unwrap(),
                    &halosim::store::Author::User { id: user },
                )
                .unwrap()
        };
        self.sim.shared.publish(changes);
        ticket["id"].as_i64().unwrap()
    }

    /// The API agent's notes on a ticket.
    pub fn our_notes(&self, ticket: i64) -> Vec<String> {
        let store = self.sim.shared.store();
        let notes = store
            .actions(ticket)
            .into_iter()
            .filter(|a| a["actionby_application_id"] == "Rallied Agent");
        notes
            .map(|a| a["note"].as_str().unwrap_or_default().to_string())
            .collect()
    }

    pub async fn ticket_in(&self, name: &str, phase: &str) -> Ticket {
        let api = self.api::<Ticket>();
        eventually(&format!("Ticket {name} in {phase}"), || async {
            let ticket = api.get_opt(name).await.unwrap()?;
            (ticket.status.as_ref()?.phase.as_str() == phase).then_some(ticket)
        })
        .await
    }

    /// A token as the kubelet would project it into a Pod of this ServiceAccount.
    pub async fn token(&self, service_account: &str, audience: &str) -> String {
        let pod_name = format!("pod-{:06x}", rand::random::<u32>() & 0xff_ffff);
        // Never scheduled: it has to exist only so that the token can be bound to it.
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": pod_name},
            "spec": {"serviceAccountName": service_account, "nodeSelector": {"none": "such"}, "containers": [{"name": "x", "image": "local/none:0"}]},
        }))
        .unwrap();
        let pod = self
            .api::<Pod>()
            .create(&PostParams::default(), &pod)
            .await
            .unwrap();
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec![audience.into()],
                bound_object_ref: Some(BoundObjectReference {
                    kind: Some("Pod".into()),
                    api_version: Some("v1".into()),
                    name: Some(pod.name_any()),
                    uid: pod.uid(),
                }),
                expiration_seconds: Some(600),
            },
            ..TokenRequest::default()
        };
        let api = self.api::<ServiceAccount>();
        api.create_token_request(service_account, &PostParams::default(), &request)
            .await
            .unwrap()
            .status
            .unwrap()
            .token
    }

    /// Files as the kubelet would mount them, and the agent's view of the gateway.
    pub async fn agent_gateway(&self, client: &str) -> agent::gateway::Gateway {
        let token = self
            .token(&format!("halopsa-agent-{client}"), "halopsa-gateway")
            .await;
        let folder =
            std::env::temp_dir().join(format!("{}-{:08x}", self.namespace, rand::random::<u32>()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("token"), token).unwrap();
        std::fs::write(folder.join("ca.crt"), &self.ca).unwrap();
        agent::gateway::Gateway {
            url: self.gateway.clone(),
            ca_file: folder.join("ca.crt"),
            token_file: folder.join("token"),
        }
    }

    /// An agent of the client, in this process.
    pub async fn run_agent(&mut self, client: &str) -> Arc<watch::Sender<bool>> {
        let gateway = self.agent_gateway(client).await;
        let (stop, stopped) = watch::channel(false);
        let stop = Arc::new(stop);
        self.agents.push(stop.clone());
        self.tasks.push(tokio::spawn(agent::run(gateway, stopped)));
        stop
    }

    /// An HTTP client that trusts the operator.
    pub fn http(&self) -> reqwest::Client {
        let ca = reqwest::Certificate::from_pem(self.ca.as_bytes()).unwrap();
        reqwest::Client::builder()
            .tls_certs_only([ca])
            .no_proxy()
            .build()
            .unwrap()
    }

    /// User name and password of the connection's webhook.
    pub async fn webhook_login(&self) -> (String, String) {
        let data = self
            .api::<Secret>()
            .get("halo-webhook")
            .await
            .unwrap()
            .data
            .unwrap();
        let text = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
        (text("username"), text("password"))
    }

    /// The audit stream so far.
    pub fn audit(&self) -> Vec<String> {
        halopsa_operator::audit::kept::lines(&self.namespace)
    }

    /// Ends the operator and removes the namespace.
    pub async fn stop(self) {
        for task in self.tasks.iter().chain(&self.operator) {
            task.abort();
        }
        // Without the operator, nothing would remove the finalizers.
        let connections = self.api::<HaloPSAConnection>();
        for connection in connections.list(&Default::default()).await.unwrap() {
            let patch = json!({"metadata": {"finalizers": null}});
            let _ = connections
                .patch(
                    &connection.name_any(),
                    &PatchParams::default(),
                    &Patch::Merge(patch),
                )
                .await;
        }
        let _ = Api::<Namespace>::all(self.kube.clone())
            .delete(&self.namespace, &DeleteParams::background())
            .await;
    }
}
