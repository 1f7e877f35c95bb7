//! The webhook in HaloPSA, and the Secret with its user name and password.

use super::Failure;
use crate::api::condition::ConditionUpdate;
use crate::api::connection::{HaloPSAConnectionStatus, WebhookStatus};
use crate::api::reason::Reason;
use crate::api::{CONNECTION_LABEL, HaloPSAConnection, LocalRef};
use crate::controller::context::Context;
use crate::controller::receiver_secret;
use crate::halopsa::api::WebhookSpec;
use crate::halopsa::{self, registration};
use crate::k8s::{key::Key, names, own};
use crate::text::hex;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta};
use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};
use sha2::{Digest, Sha256};

/// What HaloPSA authenticates its webhooks with.
struct Credentials {
    username: String,
    password: String,
    /// Name of the Secret that holds both.
    secret: String,
}

impl Credentials {
    /// Changes with user name and password, and reveals neither.
    fn checksum(&self) -> String {
        hex::encode(&Sha256::digest(format!("{}:{}", self.username, self.password))[..6])
    }
}

pub fn name(connection: &HaloPSAConnection) -> String {
    let key = Key::of(connection);
    names::webhook(&key.namespace, &key.name)
}

pub fn url(connection: &HaloPSAConnection) -> String {
    let key = Key::of(connection);
    let path = names::webhook_path(&key.namespace, &key.name);
    format!("{}{path}", connection.spec.webhook.url)
}

/// Registers the webhook in HaloPSA, or repairs it.
pub async fn register(
    connection: &HaloPSAConnection,
    halo: &halopsa::Client,
    status: &mut HaloPSAConnectionStatus,
    ctx: &Context,
) -> Result<ConditionUpdate, Failure> {
    let credentials = match credentials(connection, ctx).await {
        Ok(credentials) => credentials,
        Err(own::Error::Kube(error)) => return Err(error.into()),
        Err(taken @ own::Error::NameTaken { .. }) => {
            return Ok(ConditionUpdate::no(Reason::NameTaken, taken.to_string()));
        }
    };
    // Before HaloPSA posts with it.
    hand_over(connection, &credentials, ctx).await?;
    let (name, url, checksum) = (name(connection), url(connection), credentials.checksum());
    let spec = WebhookSpec {
        name: &name,
        url: &url,
        username: &credentials.username,
        password: &credentials.password,
    };
    let known = status.webhook.as_ref();
    let password_known = known.is_some_and(|w| w.credentials_checksum == checksum);
    let id = known.map(|w| w.id.as_str());
    let registered = registration::ensure(halo, id, &spec, password_known).await?;
    if !registered.repaired.is_empty() {
        let note = format!(
            "webhook {name} in HaloPSA: {}",
            registered.repaired.join("; ")
        );
        let key = Key::of(connection);
        tracing::info!(namespace = key.namespace, connection = key.name, "{note}");
        ctx.event(
            &connection.object_ref(&()),
            EventType::Normal,
            Reason::WebhookRegistered,
            "Register",
            &note,
        )
        .await;
    }
    let update = ConditionUpdate::yes(Reason::Registered, format!("HaloPSA posts to {url}"));
    status.webhook = Some(WebhookStatus {
        id: registered.id,
        name,
        url,
        secret_ref: LocalRef {
            name: credentials.secret,
        },
        credentials_checksum: checksum,
    });
    Ok(update)
}

async fn hand_over(
    connection: &HaloPSAConnection,
    credentials: &Credentials,
    ctx: &Context,
) -> Result<(), kube::Error> {
    let key = Key::of(connection);
    let login = format!("{}:{}", credentials.username, credentials.password);
    receiver_secret::hand_over(ctx, &key, names::login_key(&key), Some(&login)).await
}

/// The generated user name and password, created if there are none.
async fn credentials(
    connection: &HaloPSAConnection,
    ctx: &Context,
) -> Result<Credentials, own::Error> {
    let namespace = connection.namespace().unwrap_or_default();
    let secrets: Api<Secret> = Api::namespaced(ctx.kube.clone(), &namespace);
    let secret = names::webhook_secret(&connection.name_any());
    let read = |secret: &Secret, key: &str| {
        let bytes = &secret.data.as_ref()?.get(key)?.0;
        let text = String::from_utf8(bytes.clone()).ok()?;
        (!text.is_empty()).then_some(text)
    };
    let found = secrets.get_opt(&secret).await?;
    if let Some(found) = found.as_ref().filter(|f| own::is_ours(&f.metadata))
        && let (Some(username), Some(password)) = (read(found, "username"), read(found, "password"))
    {
        return Ok(Credentials {
            username,
            password,
            secret,
        });
    }
    let credentials = Credentials {
        username: format!("rallied-{}", random_hex(4)),
        password: random_hex(24),
        secret,
    };
    let object = secret_of(connection, &credentials);
    let observed = found.as_ref().map(|f| &f.metadata);
    own::apply(&secrets, &credentials.secret, observed, &object).await?;
    Ok(credentials)
}

fn secret_of(connection: &HaloPSAConnection, credentials: &Credentials) -> Secret {
    let text = |key: &str, value: &str| (key.to_string(), value.to_string());
    Secret {
        metadata: ObjectMeta {
            name: Some(credentials.secret.clone()),
            labels: Some(
                [
                    text(names::MANAGED_BY, names::OPERATOR),
                    text(CONNECTION_LABEL, &connection.name_any()),
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
                text("username", &credentials.username),
                text("password", &credentials.password),
            ]
            .into(),
        ),
        ..Secret::default()
    }
}

fn random_hex(bytes: usize) -> String {
    hex::encode((0..bytes).map(|_| rand::random()).collect::<Vec<u8>>())
}
