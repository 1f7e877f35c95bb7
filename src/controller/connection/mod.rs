//! The connection's reconciler: signs in, keeps the webhook, imports clients.

pub mod import;
pub mod sweep;

use crate::api::condition::{self, ConditionUpdate};
use crate::api::connection::{ApiAgent, ClientSelector, HaloPSAConnectionStatus, WebhookStatus};
use crate::api::reason::Reason;
use crate::api::{
    CONNECTION_LABEL, HALO_CLIENT_ID_LABEL, HaloPSAConnection, ImportedClient, LocalRef,
};
use crate::controller::context::{Context, jitter};
use crate::halopsa::api::WebhookSpec;
use crate::halopsa::registration;
use crate::halopsa::{self, missing_scopes};
use crate::halopsa_pool;
use crate::k8s::key::Key;
use crate::k8s::{self, names};
use crate::text::hex;
use crate::ticket::route;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::finalizer::{self, Event as Finalizer};
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// HaloPSA's list of clients is read again after so many resyncs (five minutes by default).
const CLIENTS_EVERY: u32 = 5;
/// Scopes beyond those needed are asked about again after this time.
const EXCESS_EVERY: Duration = Duration::from_secs(600);
/// A connection being deleted waits this long for a HaloPSA that does not answer.
const CLEANUP_PATIENCE: SignedDuration = SignedDuration::from_secs(60);
/// Applies under way at once while importing.
const IMPORT_PARALLEL: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", k8s::explain(.0))]
    Kube(#[from] kube::Error),
    #[error("the webhook is not removed from HaloPSA yet: {0}")]
    Cleanup(String),
    #[error("{0}")]
    Finalizer(String),
}

/// What was last verified against HaloPSA, so that a pass caused by a client's
/// status asks HaloPSA nothing.
#[derive(Debug, Default)]
pub struct Verified {
    /// Generation and time of the last full check.
    checks: Mutex<HashMap<(String, String), (i64, Instant)>>,
    excess: Mutex<HashMap<(String, String), (i64, Instant, Vec<String>)>>,
}

impl Verified {
    fn is_fresh(&self, key: &(String, String), generation: i64, max_age: Duration) -> bool {
        let map = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(key).is_some_and(|(at_generation, at)| {
            *at_generation == generation && at.elapsed() < max_age
        })
    }

    fn set(&self, key: (String, String), generation: i64) {
        self.checks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, (generation, Instant::now()));
    }

    /// Scopes beyond those needed, asked for now and then: it takes a sign-in of its own.
    async fn excess(
        &self,
        key: &(String, String),
        generation: i64,
        halo: &halopsa::Client,
    ) -> Result<Vec<String>, halopsa::Error> {
        let known = self
            .excess
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned();
        if let Some((at_generation, at, excess)) = known
            && at_generation == generation
            && at.elapsed() < EXCESS_EVERY
        {
            return Ok(excess);
        }
        let excess = halo.excess_scopes().await?;
        self.excess
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.clone(), (generation, Instant::now(), excess.clone()));
        Ok(excess)
    }

    pub fn forget(&self, key: &(String, String)) {
        self.excess
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
        self.checks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}

/// The connections that a Secret matters to; what was verified with it is void.
pub fn of_secret(
    context: Arc<Context>,
) -> impl Fn(PartialObjectMeta<Secret>) -> Vec<ObjectRef<HaloPSAConnection>> {
    move |secret| {
        let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
        let uses = |c: &HaloPSAConnection| {
            c.namespace().as_deref() == Some(&namespace)
                && (c.spec.credentials_secret_ref.name == name
                    || names::webhook_secret(&c.name_any()) == name)
        };
        context
            .stores
            .connections
            .state_filter(uses)
            .into_iter()
            .map(|connection| {
                context
                    .verified
                    .forget(&(namespace.clone(), connection.name_any()));
                ObjectRef::from_obj(&*connection)
            })
            .collect()
    }
}

/// The connections that name a provider, when it changes.
pub fn of_provider(
    context: Arc<Context>,
) -> impl Fn(Arc<crate::api::VerificationProvider>) -> Vec<ObjectRef<HaloPSAConnection>> {
    move |provider| {
        let names = |c: &HaloPSAConnection| {
            c.namespace() == provider.namespace()
                && c.spec
                    .sensitivity
                    .provider_ref
                    .as_ref()
                    .is_some_and(|r| r.name == provider.name_any())
        };
        context
            .stores
            .connections
            .state_filter(names)
            .iter()
            .map(|c| ObjectRef::from_obj(&**c))
            .collect()
    }
}

pub async fn reconcile(
    connection: Arc<HaloPSAConnection>,
    ctx: Arc<Context>,
) -> Result<Action, Error> {
    ctx.stores.filled().await;
    let namespace = connection.namespace().unwrap_or_default();
    let api: Api<HaloPSAConnection> = Api::namespaced(ctx.kube.clone(), &namespace);
    let result = finalizer::finalizer(&api, names::WEBHOOK_FINALIZER, connection, |event| async {
        match event {
            Finalizer::Apply(connection) => apply(&api, &connection, &ctx).await,
            Finalizer::Cleanup(connection) => cleanup(&connection, &ctx).await,
        }
    })
    .await;
    result.map_err(|error| match error {
        finalizer::Error::ApplyFailed(error) | finalizer::Error::CleanupFailed(error) => error,
        finalizer::Error::AddFinalizer(error) | finalizer::Error::RemoveFinalizer(error) => {
            Error::Kube(error)
        }
        other => Error::Finalizer(other.to_string()),
    })
}

pub fn error_policy(
    connection: Arc<HaloPSAConnection>,
    error: &Error,
    ctx: Arc<Context>,
) -> Action {
    let (namespace, name) = (
        connection.namespace().unwrap_or_default(),
        connection.name_any(),
    );
    tracing::warn!(kind = "HaloPSAConnection", %namespace, %name, %error, "reconciling failed, it is tried again");
    Action::requeue(
        ctx.backoff
            .next("HaloPSAConnection", &Key::new(namespace, name)),
    )
}

/// What one pass found out.
struct Findings {
    status: HaloPSAConnectionStatus,
    credentials: ConditionUpdate,
    webhook: ConditionUpdate,
    clients: ConditionUpdate,
    /// Something outside failed: look again soon.
    failed: bool,
}

async fn apply(
    api: &Api<HaloPSAConnection>,
    connection: &HaloPSAConnection,
    ctx: &Context,
) -> Result<Action, Error> {
    let (namespace, name) = (
        connection.namespace().unwrap_or_default(),
        connection.name_any(),
    );
    let key = (namespace.clone(), name.clone());
    let before = connection.status.clone().unwrap_or_default();
    if connection.spec.suspend {
        let verdict = ConditionUpdate::unknown(
            Reason::Suspended,
            "spec.suspend is true: nothing is done outside the cluster; set it to false to go on",
        );
        let mut status = before.clone();
        condition::set(
            &mut status.conditions,
            condition::READY,
            &verdict,
            connection.metadata.generation,
            Timestamp::now(),
        );
        status.observed_generation = connection.metadata.generation;
        ctx.verified.forget(&key);
        report(api, connection, &before, status, ctx).await?;
        return Ok(Action::await_change());
    }
    let findings = observe(connection, &before, ctx).await?;
    let mut status = findings.status;
    let now = Timestamp::now();
    let generation = connection.metadata.generation;
    for (type_, verdict) in [
        (condition::CREDENTIALS_VALID, &findings.credentials),
        (condition::WEBHOOK_REGISTERED, &findings.webhook),
        (condition::CLIENTS_SYNCED, &findings.clients),
    ] {
        condition::set(&mut status.conditions, type_, verdict, generation, now);
    }
    condition::set(
        &mut status.conditions,
        condition::VERIFICATION_AVAILABLE,
        &verification_verdict(connection, ctx),
        generation,
        now,
    );
    let first_bad = [&findings.credentials, &findings.webhook, &findings.clients]
        .into_iter()
        .find(|v| !v.is_true());
    let ready = match first_bad {
        None => ConditionUpdate::yes(
            Reason::Connected,
            "signed in, webhook registered, clients synced",
        ),
        Some(bad) => ConditionUpdate::no(bad.reason, bad.message.clone()),
    };
    condition::set(
        &mut status.conditions,
        condition::READY,
        &ready,
        generation,
        now,
    );
    status.observed_generation = generation;
    report(api, connection, &before, status, ctx).await?;
    let backoff_key = Key::new(namespace, name);
    if findings.failed {
        return Ok(Action::requeue(
            ctx.backoff.next("HaloPSAConnection", &backoff_key),
        ));
    }
    ctx.backoff.reset("HaloPSAConnection", &backoff_key);
    Ok(Action::requeue(jitter(
        ctx.options.resync.min(ctx.options.sweep),
    )))
}

/// Whether requesters of sensitive tickets can be asked. Not a part of Ready: without it agents only plan.
fn verification_verdict(connection: &HaloPSAConnection, ctx: &Context) -> ConditionUpdate {
    let Some(reference) = &connection.spec.sensitivity.provider_ref else {
        return ConditionUpdate::no(
            Reason::NoProvider,
            "agents work on sensitive tickets in Plan mode only; name a VerificationProvider in spec.sensitivity.providerRef to have requesters verified",
        );
    };
    let name = &reference.name;
    match crate::controller::ticket::verification::provider_of(connection, ctx) {
        None => ConditionUpdate::no(
            Reason::ProviderNotFound,
            format!(
                "there is no VerificationProvider {name}; sensitive tickets are refused until it is there"
            ),
        ),
        Some(provider) => {
            let ready = provider
                .status
                .as_ref()
                .and_then(|s| condition::get(&s.conditions, condition::READY));
            match ready {
                Some(ready) if ready.status == "True" => {
                    ConditionUpdate::yes(Reason::Connected, ready.message.clone())
                }
                Some(ready) => ConditionUpdate::no(
                    Reason::ProviderNotReady,
                    format!("VerificationProvider {name}: {}", ready.message),
                ),
                None => ConditionUpdate::unknown(
                    Reason::NotChecked,
                    format!("VerificationProvider {name} was not checked yet"),
                ),
            }
        }
    }
}

/// Signs in, sees to the webhook, imports clients, sweeps: what came of each.
async fn observe(
    connection: &HaloPSAConnection,
    before: &HaloPSAConnectionStatus,
    ctx: &Context,
) -> Result<Findings, Error> {
    let (namespace, name) = (
        connection.namespace().unwrap_or_default(),
        connection.name_any(),
    );
    let key = (namespace.clone(), name.clone());
    let generation = connection.metadata.generation.unwrap_or_default();
    let mut findings = Findings {
        status: before.clone(),
        credentials: ConditionUpdate::unknown(Reason::NotChecked, "not checked yet"),
        webhook: ConditionUpdate::unknown(Reason::NotChecked, "waits for CredentialsValid"),
        clients: ConditionUpdate::unknown(Reason::NotChecked, "waits for CredentialsValid"),
        failed: true,
    };
    let fresh = ctx
        .verified
        .is_fresh(&key, generation, ctx.options.resync * 4 / 5);
    let tenant = if fresh {
        ctx.halopsa.client(connection).await
    } else {
        ctx.halopsa.fresh_client(connection).await
    };
    let halo = match tenant {
        Ok(halo) => halo,
        Err(halopsa_pool::Error::Kube(error)) => return Err(error.into()),
        Err(error) => {
            findings.credentials = ConditionUpdate::no(error.reason(), error.to_string());
            return Ok(findings);
        }
    };
    if fresh {
        (findings.credentials, findings.webhook) = kept(before);
    } else {
        let scopes = match halo.sign_in().await {
            Ok(scopes) => scopes,
            Err(error) => {
                findings.credentials = outside(&error);
                return Ok(findings);
            }
        };
        findings.status.granted_scopes = scopes.clone();
        let missing = missing_scopes(&scopes);
        if !missing.is_empty() {
            halo.sign_out().await;
            findings.credentials = ConditionUpdate::no(
                Reason::MissingScopes,
                format!(
                    "HaloPSA granted {} but not {}; tick it in the application's permissions under Configuration > Integrations > HaloPSA API",
                    if scopes.is_empty() {
                        "no scope".into()
                    } else {
                        scopes.join(" ")
                    },
                    missing.join(" ")
                ),
            );
            return Ok(findings);
        }
        match halo.me().await {
            Ok(agent) => {
                findings.status.api_agent = Some(ApiAgent {
                    id: agent.id,
                    name: agent.name,
                })
            }
            Err(error) => {
                findings.credentials = outside(&error);
                return Ok(findings);
            }
        }
        let excess = match ctx.verified.excess(&key, generation, &halo).await {
            Ok(excess) => excess,
            Err(error) => {
                findings.credentials = outside(&error);
                return Ok(findings);
            }
        };
        findings.credentials = if excess.is_empty() {
            ConditionUpdate::yes(
                Reason::SignedIn,
                "signed in with all:standard, all:teams and admin:webhooks",
            )
        } else {
            let message = format!(
                "signed in, but the application also has {}, more than needed; untick it in its permissions",
                excess.join(" and ")
            );
            ConditionUpdate::yes(Reason::ExcessiveScopes, message)
        };
        match register(connection, &halo, &mut findings.status, ctx).await? {
            Ok(()) => {
                findings.webhook = ConditionUpdate::yes(
                    Reason::Registered,
                    format!("HaloPSA posts to {}", webhook_url(connection)),
                )
            }
            Err(error) => {
                findings.webhook = outside(&error);
                return Ok(findings);
            }
        }
        ctx.verified.set(key.clone(), generation);
    }
    match sync_clients(connection, &halo, &mut findings.status, ctx).await? {
        Ok(verdict) => findings.clients = verdict,
        Err(error) => {
            findings.clients = outside(&error);
            return Ok(findings);
        }
    }
    if let Err(error) = sweep::sweep_if_due(connection, &halo, ctx).await? {
        tracing::warn!(%namespace, %name, %error, "looking for tickets without a webhook failed, it is tried again");
    }
    findings.failed = false;
    Ok(findings)
}

/// The verdicts that still stand from the last pass.
fn kept(before: &HaloPSAConnectionStatus) -> (ConditionUpdate, ConditionUpdate) {
    let keep = |type_, reasons: &[Reason]| match condition::get(&before.conditions, type_) {
        Some(c) if c.status == "True" => ConditionUpdate::yes(
            reasons
                .iter()
                .find(|r| c.reason == **r)
                .copied()
                .unwrap_or(reasons[0]),
            c.message.clone(),
        ),
        _ => ConditionUpdate::unknown(Reason::NotChecked, "not checked yet"),
    };
    (
        keep(
            condition::CREDENTIALS_VALID,
            &[Reason::SignedIn, Reason::ExcessiveScopes],
        ),
        keep(condition::WEBHOOK_REGISTERED, &[Reason::Registered]),
    )
}

/// A failure outside: unknown when HaloPSA could not be asked, false when it said no.
fn outside(error: &halopsa::Error) -> ConditionUpdate {
    if error.is_transient() {
        ConditionUpdate::unknown(halopsa_pool::reason(error), error.to_string())
    } else {
        ConditionUpdate::no(halopsa_pool::reason(error), error.to_string())
    }
}

fn webhook_url(connection: &HaloPSAConnection) -> String {
    let path = names::webhook_path(
        &connection.namespace().unwrap_or_default(),
        &connection.name_any(),
    );
    format!("{}{path}", connection.spec.webhook.url)
}

/// Sees to it that HaloPSA has the webhook as it has to be.
async fn register(
    connection: &HaloPSAConnection,
    halo: &halopsa::Client,
    status: &mut HaloPSAConnectionStatus,
    ctx: &Context,
) -> Result<Result<(), halopsa::Error>, Error> {
    let (username, password, secret_name) = webhook_secret(connection, ctx).await?;
    let name = names::webhook(
        &connection.namespace().unwrap_or_default(),
        &connection.name_any(),
    );
    let url = webhook_url(connection);
    let checksum = checksum(&username, &password);
    let known = status.webhook.clone();
    let spec = WebhookSpec {
        name: &name,
        url: &url,
        username: &username,
        password: &password,
    };
    let password_known = known
        .as_ref()
        .is_some_and(|w| w.credentials_checksum == checksum);
    let registered = match registration::ensure(
        halo,
        known.as_ref().map(|w| w.id.as_str()),
        &spec,
        password_known,
    )
    .await
    {
        Ok(registered) => registered,
        Err(error) => return Ok(Err(error)),
    };
    if !registered.repaired.is_empty() {
        let note = format!(
            "webhook {name} in HaloPSA: {}",
            registered.repaired.join("; ")
        );
        tracing::info!(
            namespace = connection.namespace().unwrap_or_default(),
            connection = connection.name_any(),
            "{note}"
        );
        ctx.event(
            &connection.object_ref(&()),
            EventType::Normal,
            Reason::WebhookRegistered,
            "Register",
            &note,
        )
        .await;
    }
    status.webhook = Some(WebhookStatus {
        id: registered.id,
        name,
        url,
        secret_ref: LocalRef { name: secret_name },
        credentials_checksum: checksum,
    });
    Ok(Ok(()))
}

/// The generated user name and password, made when there are none.
async fn webhook_secret(
    connection: &HaloPSAConnection,
    ctx: &Context,
) -> Result<(String, String, String), Error> {
    let secrets: Api<Secret> = Api::namespaced(
        ctx.kube.clone(),
        &connection.namespace().unwrap_or_default(),
    );
    let name = names::webhook_secret(&connection.name_any());
    let read = |secret: &Secret, key: &str| {
        let bytes = &secret.data.as_ref()?.get(key)?.0;
        String::from_utf8(bytes.clone())
            .ok()
            .filter(|s| !s.is_empty())
    };
    if let Some(secret) = secrets.get_opt(&name).await?
        && let (Some(username), Some(password)) =
            (read(&secret, "username"), read(&secret, "password"))
    {
        return Ok((username, password, name));
    }
    let (username, password) = (format!("rallied-{}", random_hex(4)), random_hex(24));
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(
                [
                    (names::MANAGED_BY.to_string(), names::OPERATOR.to_string()),
                    (CONNECTION_LABEL.to_string(), connection.name_any()),
                ]
                .into(),
            ),
            owner_references: connection
                .controller_owner_ref(&())
                .map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/basic-auth".into()),
        string_data: Some(
            [
                ("username".to_string(), username.clone()),
                ("password".to_string(), password.clone()),
            ]
            .into(),
        ),
        ..Secret::default()
    };
    secrets
        .patch(
            &name,
            &PatchParams::apply(names::CONTROLLER).force(),
            &Patch::Apply(&secret),
        )
        .await?;
    Ok((username, password, name))
}

fn random_hex(bytes: usize) -> String {
    hex::encode((0..bytes).map(|_| rand::random()).collect::<Vec<u8>>())
}

fn checksum(username: &str, password: &str) -> String {
    hex::encode(&Sha256::digest(format!("{username}:{password}"))[..6])
}

/// Imports the selected clients; drains and removes those not selected any more.
async fn sync_clients(
    connection: &HaloPSAConnection,
    halo: &halopsa::Client,
    status: &mut HaloPSAConnectionStatus,
    ctx: &Context,
) -> Result<Result<ConditionUpdate, halopsa::Error>, Error> {
    use futures::TryStreamExt;
    let (namespace, name) = (
        connection.namespace().unwrap_or_default(),
        connection.name_any(),
    );
    let url = &connection.spec.instance_url;
    let listing = match import::listing(
        &ctx.directory,
        halo,
        &namespace,
        &name,
        url,
        ctx.options.resync * CLIENTS_EVERY,
    )
    .await
    {
        Ok(listing) => listing,
        Err(error) => return Ok(Err(error)),
    };
    let api: Api<ImportedClient> = Api::namespaced(ctx.kube.clone(), &namespace);
    let existing = ctx.stores.clients.state_filter(|c| {
        c.namespace().as_deref() == Some(&namespace) && c.spec.connection_ref.name == name
    });
    let mine = |c: &ImportedClient| {
        c.owner_references()
            .iter()
            .any(|o| Some(&o.uid) == connection.metadata.uid.as_ref())
    };
    let selector = connection.spec.clients.clone().unwrap_or_default();
    let changes = plan(
        &selector,
        &listing,
        existing.iter().map(|c| Existing {
            client: c,
            generated: mine(c),
            open: open(ctx, c),
        }),
    );
    let created = changes
        .iter()
        .filter(|c| matches!(c, Change::Create { .. }))
        .count() as i64;
    let removed = changes
        .iter()
        .filter(|c| matches!(c, Change::Remove { .. }))
        .count() as i64;
    futures::stream::iter(changes.into_iter().map(Ok))
        .try_for_each_concurrent(IMPORT_PARALLEL, |change| {
            carry_out(change, connection, &api, ctx)
        })
        .await?;
    status.imported_clients = Some(existing.len() as i64 + created - removed);
    status.total_clients = Some(listing.clients.len() as i64);
    let all: Vec<_> = listing.clients.values().cloned().collect();
    let unmatched = import::unmatched(&selector, &all);
    Ok(Ok(if unmatched.is_empty() {
        ConditionUpdate::yes(Reason::Synced, "the selected clients are imported")
    } else {
        ConditionUpdate::no(
            Reason::ClientsNotFound,
            format!(
                "spec.clients names clients HaloPSA does not have: {}; the others are imported",
                unmatched
                    .into_iter()
                    .take(10)
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        )
    }))
}

fn open(ctx: &Context, client: &ImportedClient) -> usize {
    ctx.index
        .load(&client.namespace().unwrap_or_default(), &client.name_any())
        .open()
}

struct Existing<'a> {
    client: &'a ImportedClient,
    /// Made from the selector, not applied by a user.
    generated: bool,
    open: usize,
}

/// What has to be done about one ImportedClient.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Create {
        name: String,
        id: i64,
    },
    /// Selected again while it was being drained.
    Resume {
        name: String,
        id: i64,
    },
    /// Not selected any more, with tickets under way: takes no new ones.
    Drain {
        name: String,
        id: i64,
    },
    /// Not selected any more, nothing under way.
    Remove {
        name: String,
    },
}

/// Compares what is selected with what there is: pure.
///
/// A client that HaloPSA does not list (any more) or lists as inactive is left
/// alone: a list can be short by mistake, and a company's agent is not deleted
/// because of it. Its own ClientFound condition tells.
fn plan<'a>(
    selector: &ClientSelector,
    listing: &import::Listing,
    existing: impl Iterator<Item = Existing<'a>>,
) -> Vec<Change> {
    let existing: Vec<Existing<'a>> = existing.collect();
    let id_of = |c: &ImportedClient| {
        c.spec.halo_client_id.or_else(|| {
            import::resolve(listing, None, c.spec.halo_client_name.as_deref())
                .ok()
                .map(|h| h.id)
        })
    };
    let mut taken: std::collections::HashSet<String> =
        existing.iter().map(|e| e.client.name_any()).collect();
    let by_id: HashMap<i64, &Existing<'a>> = existing
        .iter()
        .filter_map(|e| Some((id_of(e.client)?, e)))
        .collect();
    let mut changes = Vec::new();
    for client in listing
        .clients
        .values()
        .filter(|c| import::selects(selector, c))
    {
        match by_id.get(&client.id) {
            Some(e) if e.generated && e.client.spec.suspend => changes.push(Change::Resume {
                name: e.client.name_any(),
                id: client.id,
            }),
            Some(_) => {}
            None => {
                let name = route::slug(&client.name, client.id, |slug| taken.contains(slug));
                taken.insert(name.clone());
                changes.push(Change::Create {
                    name,
                    id: client.id,
                });
            }
        }
    }
    for e in existing.iter().filter(|e| e.generated) {
        let Some(client) = id_of(e.client).and_then(|id| listing.clients.get(&id)) else {
            continue;
        };
        if client.inactive || import::selects(selector, client) {
            continue;
        }
        let name = e.client.name_any();
        match e.open {
            0 => changes.push(Change::Remove { name }),
            _ if !e.client.spec.suspend => changes.push(Change::Drain {
                name,
                id: client.id,
            }),
            _ => {}
        }
    }
    changes
}

async fn carry_out(
    change: Change,
    connection: &HaloPSAConnection,
    api: &Api<ImportedClient>,
    ctx: &Context,
) -> Result<(), Error> {
    let about = connection.object_ref(&());
    match &change {
        Change::Create { name, id } => {
            put(connection, api, name, *id, false).await?;
            ctx.event(
                &about,
                EventType::Normal,
                Reason::ClientImported,
                "Import",
                &format!("HaloPSA client {id} is imported as {name}"),
            )
            .await;
        }
        Change::Resume { name, id } => put(connection, api, name, *id, false).await?,
        Change::Drain { name, id } => {
            put(connection, api, name, *id, true).await?;
            let note = format!(
                "{name} is not selected any more; its open tickets are finished first, then it is removed"
            );
            ctx.event(
                &about,
                EventType::Normal,
                Reason::ClientDraining,
                "Drain",
                &note,
            )
            .await;
        }
        Change::Remove { name } => {
            let uid = crate::k8s::reflect::get(
                &ctx.stores.clients,
                &connection.namespace().unwrap_or_default(),
                name,
            )
            .and_then(|c| c.uid());
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid,
                    resource_version: None,
                }),
                ..DeleteParams::background()
            };
            match api.delete(name, &params).await {
                Err(error) if !k8s::is_not_found(&error) => return Err(error.into()),
                _ => {
                    ctx.event(
                        &about,
                        EventType::Normal,
                        Reason::ClientRemoved,
                        "Remove",
                        &format!("{name} is not selected any more and is removed"),
                    )
                    .await
                }
            }
        }
    }
    Ok(())
}

/// Applies a generated ImportedClient: only the fields that are ours, so that a
/// user may set mode, prompt and agent on it.
async fn put(
    connection: &HaloPSAConnection,
    api: &Api<ImportedClient>,
    name: &str,
    id: i64,
    suspend: bool,
) -> Result<(), Error> {
    let mut spec = json!({"connectionRef": {"name": connection.name_any()}, "haloClientId": id});
    if suspend {
        spec["suspend"] = true.into();
    }
    let object = json!({
        "apiVersion": ImportedClient::api_version(&()), "kind": ImportedClient::kind(&()),
        "metadata": {
            "name": name,
            "labels": {names::MANAGED_BY: names::OPERATOR, CONNECTION_LABEL: connection.name_any(), HALO_CLIENT_ID_LABEL: id.to_string()},
            "ownerReferences": [connection.controller_owner_ref(&())],
        },
        "spec": spec,
    });
    api.patch(
        name,
        &PatchParams::apply(names::CONTROLLER).force(),
        &Patch::Apply(&object),
    )
    .await?;
    Ok(())
}

/// Removes the webhook. A HaloPSA that is gone for good does not hold the deletion up for ever.
async fn cleanup(connection: &HaloPSAConnection, ctx: &Context) -> Result<Action, Error> {
    let (namespace, name) = (
        connection.namespace().unwrap_or_default(),
        connection.name_any(),
    );
    let known = connection.status.as_ref().and_then(|s| s.webhook.as_ref());
    let outcome = async {
        let halo = ctx
            .halopsa
            .fresh_client(connection)
            .await
            .map_err(|e| e.to_string())?;
        let webhook_name = names::webhook(&namespace, &name);
        let spec = WebhookSpec {
            name: &webhook_name,
            url: &webhook_url(connection),
            username: "",
            password: "",
        };
        registration::remove(&halo, known.map(|w| w.id.as_str()), &spec)
            .await
            .map_err(|e| e.to_string())
    };
    let outcome = tokio::time::timeout(Duration::from_secs(30), outcome)
        .await
        .unwrap_or_else(|_| Err("HaloPSA does not answer".into()));
    let about = connection.object_ref(&());
    match outcome {
        Ok(()) => {
            ctx.event(
                &about,
                EventType::Normal,
                Reason::WebhookRemoved,
                "Cleanup",
                "the webhook is removed from HaloPSA",
            )
            .await
        }
        Err(message) => {
            let since = connection
                .metadata
                .deletion_timestamp
                .as_ref()
                .map_or(Timestamp::now(), |t| t.0);
            // Nothing was ever registered, or it has been tried long enough.
            if known.is_some() && Timestamp::now().duration_since(since) < CLEANUP_PATIENCE {
                return Err(Error::Cleanup(message));
            }
            if known.is_some() {
                let note = format!(
                    "the webhook stays in HaloPSA: {message}. Delete it by hand under Configuration > Integrations > Webhooks"
                );
                tracing::warn!(%namespace, %name, "{note}");
                ctx.event(
                    &about,
                    EventType::Warning,
                    Reason::WebhookLeftBehind,
                    "Cleanup",
                    &note,
                )
                .await;
            }
        }
    }
    ctx.halopsa.forget(&namespace, &name);
    ctx.directory.forget(&namespace, &name);
    ctx.verified.forget(&(namespace.clone(), name.clone()));
    ctx.backoff
        .reset("HaloPSAConnection", &Key::new(namespace, name));
    Ok(Action::await_change())
}

/// Writes the status if it is news, and an Event where a condition has turned.
async fn report(
    api: &Api<HaloPSAConnection>,
    connection: &HaloPSAConnection,
    before: &HaloPSAConnectionStatus,
    status: HaloPSAConnectionStatus,
    ctx: &Context,
) -> Result<(), Error> {
    if k8s::apply_status(
        api,
        connection,
        connection.status.as_ref(),
        &status,
        names::CONTROLLER,
    )
    .await?
    {
        ctx.emit_transitions(
            &connection.object_ref(&()),
            &before.conditions,
            &status.conditions,
        )
        .await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::client::ImportedClientSpec;
    use crate::halopsa::types::HaloClient;

    fn imported(name: &str, id: i64, suspend: bool) -> ImportedClient {
        ImportedClient::new(
            name,
            ImportedClientSpec {
                halo_client_id: Some(id),
                suspend,
                ..ImportedClientSpec::default()
            },
        )
    }

    #[test]
    fn import_plan() {
        let halo = |id, name: &str, inactive| HaloClient {
            id,
            name: name.into(),
            inactive,
        };
        let listing = import::Directory::default().put(
            "ns",
            "c",
            "u",
            vec![
                halo(1, "Unknown", false),
                halo(12, "Acme", false),
                halo(13, "Blue", false),
                halo(14, "Old", true),
            ],
        );
        let ids = |ids: &[i64]| ClientSelector {
            ids: Some(ids.to_vec()),
            ..ClientSelector::default()
        };
        let acme = imported("acme", 12, false);
        let drained = imported("acme", 12, true);
        let old = imported("old", 14, false);
        let gone = imported("gone", 99, false);
        let run = |selector: &ClientSelector, existing: &[(&ImportedClient, bool, usize)]| {
            plan(
                selector,
                &listing,
                existing.iter().map(|(client, generated, open)| Existing {
                    client,
                    generated: *generated,
                    open: *open,
                }),
            )
        };
        assert_eq!(
            run(&ids(&[12]), &[]),
            [Change::Create {
                name: "acme".into(),
                id: 12
            }]
        );
        assert_eq!(run(&ids(&[12]), &[(&acme, true, 0)]), []);
        assert_eq!(
            run(&ids(&[12]), &[(&acme, false, 0)]),
            [],
            "the user's own stands for it"
        );
        assert_eq!(
            run(&ids(&[]), &[(&acme, true, 0)]),
            [Change::Remove {
                name: "acme".into()
            }]
        );
        assert_eq!(
            run(&ids(&[]), &[(&acme, true, 2)]),
            [Change::Drain {
                name: "acme".into(),
                id: 12
            }]
        );
        assert_eq!(run(&ids(&[]), &[(&drained, true, 1)]), []);
        assert_eq!(
            run(&ids(&[12]), &[(&drained, true, 1)]),
            [Change::Resume {
                name: "acme".into(),
                id: 12
            }]
        );
        assert_eq!(
            run(&ids(&[]), &[(&acme, false, 0)]),
            [],
            "a user's client is the user's"
        );
        assert_eq!(
            run(&ids(&[]), &[(&old, true, 0), (&gone, true, 0)]),
            [],
            "inactive and gone are left alone"
        );
        let clash = imported("blue", 77, false);
        assert_eq!(
            run(&ids(&[13]), &[(&clash, false, 0)]),
            [Change::Create {
                name: "blue-13".into(),
                id: 13
            }]
        );
    }
}
