//! What the receiver checks requests with: the webhooks' logins and the providers' signing keys,
//! copied into one Secret of the operator's namespace. So the public process may read that Secret
//! and no other.

use super::context::Context;
use crate::k8s::key::Key;
use crate::k8s::{self, names};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The longest value, in bytes.
const MAX_VALUE: usize = 512;
/// Values of one namespace: a Secret is bounded, and no tenant fills it for the others.
const MAX_VALUES: usize = 32;

/// Hands the receiver a value of this object under this key; none takes it away.
pub async fn hand_over(
    ctx: &Context,
    of: &Key,
    key: String,
    value: Option<&str>,
) -> Result<(), kube::Error> {
    let checksum = value.map(|value| Sha256::digest(value).into());
    if ctx.handed.is_fresh(&key, checksum) {
        return Ok(());
    }
    let wanted = Wanted {
        namespace: &of.namespace,
        key: &key,
        value: value
            .filter(|value| value.len() <= MAX_VALUE)
            .map(|value| ByteString(value.as_bytes().to_vec())),
    };
    if !store(ctx, &wanted).await? || (value.is_some() && wanted.value.is_none()) {
        tracing::warn!(
            namespace = of.namespace,
            name = of.name,
            "the receiver rejects this object's requests: the Secret's value is longer than \
             {MAX_VALUE} bytes, or the namespace has more than {MAX_VALUES} connections and \
             providers; shorten it, or delete those not needed"
        );
    }
    ctx.handed.set(key, checksum);
    Ok(())
}

struct Wanted<'a> {
    namespace: &'a str,
    key: &'a str,
    value: Option<ByteString>,
}

/// Stores a value; false if the namespace has no room for it.
async fn store(ctx: &Context, wanted: &Wanted<'_>) -> Result<bool, kube::Error> {
    let api: Api<Secret> = Api::namespaced(ctx.kube.clone(), &ctx.options.own_namespace);
    let name = names::receiver_secret(&ctx.options.service);
    let stored = match api.get_opt(&name).await? {
        Some(secret) => secret,
        None if wanted.value.is_none() => return Ok(true),
        None => match api.create(&PostParams::default(), &empty(&name)).await {
            Ok(created) => created,
            // Another reconciliation was faster.
            Err(error) if k8s::is_conflict(&error) => api.get(&name).await?,
            Err(error) => return Err(error),
        },
    };
    let Some(change) = change(&stored.data.unwrap_or_default(), &live(ctx), wanted) else {
        return Ok(false);
    };
    if !change.is_empty() {
        let params = PatchParams {
            field_manager: Some(names::CONTROLLER.into()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(json!({ "data": change }));
        api.patch(&name, &params, &patch).await?;
    }
    Ok(true)
}

fn empty(name: &str) -> Secret {
    let labels = [(names::MANAGED_BY.to_string(), names::OPERATOR.to_string())];
    Secret {
        metadata: ObjectMeta {
            name: Some(name.into()),
            labels: Some(labels.into()),
            ..ObjectMeta::default()
        },
        ..Secret::default()
    }
}

/// The key of every object there is, and the object's namespace.
fn live(ctx: &Context) -> BTreeMap<String, String> {
    let logins = ctx.stores.connections.state().into_iter().map(|c| {
        let key = Key::of(&*c);
        (names::login_key(&key), key.namespace)
    });
    let keys = ctx.stores.providers.state().into_iter().map(|p| {
        let key = Key::of(&*p);
        (names::signing_key(&key), key.namespace)
    });
    logins.chain(keys).collect()
}

/// What has to change in the Secret: the value, and those of objects that are gone. None: the
/// namespace has no room for another value.
fn change(
    stored: &BTreeMap<String, ByteString>,
    live: &BTreeMap<String, String>,
    wanted: &Wanted<'_>,
) -> Option<BTreeMap<String, Option<ByteString>>> {
    let gone = stored.keys().filter(|key| !live.contains_key(*key));
    let mut change: BTreeMap<_, _> = gone.map(|key| (key.clone(), None)).collect();
    let known = stored.get(wanted.key);
    let held = stored.keys().filter(|key| {
        live.get(*key)
            .is_some_and(|namespace| namespace == wanted.namespace)
    });
    if known.is_none() && wanted.value.is_some() && held.count() >= MAX_VALUES {
        return None;
    }
    if known != wanted.value.as_ref() {
        change.insert(wanted.key.into(), wanted.value.clone());
    }
    Some(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> ByteString {
        ByteString(text.as_bytes().to_vec())
    }

    fn wanted<'a>(namespace: &'a str, key: &'a str, value: Option<&str>) -> Wanted<'a> {
        Wanted {
            namespace,
            key,
            value: value.map(bytes),
        }
    }

    #[test]
    fn a_value_is_stored_replaced_and_removed_and_what_is_gone_goes() {
        let live: BTreeMap<String, String> = ["a", "b"]
            .map(|key| (key.to_string(), "msp".to_string()))
            .into();
        let stored: BTreeMap<String, ByteString> = [("a", "1"), ("old", "9")]
            .map(|(key, value)| (key.to_string(), bytes(value)))
            .into();
        let changed = |wanted: &Wanted| change(&stored, &live, wanted).unwrap();
        let gone = ("old".to_string(), None);
        for (key, value, expected) in [
            ("a", Some("1"), vec![gone.clone()]),
            (
                "a",
                Some("2"),
                vec![("a".into(), Some(bytes("2"))), gone.clone()],
            ),
            ("a", None, vec![("a".into(), None), gone.clone()]),
            (
                "b",
                Some("3"),
                vec![("b".into(), Some(bytes("3"))), gone.clone()],
            ),
            ("b", None, vec![gone.clone()]),
        ] {
            let expected: BTreeMap<_, _> = expected.into_iter().collect();
            assert_eq!(
                changed(&wanted("msp", key, value)),
                expected,
                "{key} {value:?}"
            );
        }
    }

    #[test]
    fn a_namespace_that_is_full_takes_no_room_from_another() {
        let key = |n: usize| format!("webhook.{n}");
        let full: BTreeMap<String, ByteString> =
            (0..MAX_VALUES).map(|n| (key(n), bytes("x"))).collect();
        let mut live: BTreeMap<String, String> =
            full.keys().map(|key| (key.clone(), "a".into())).collect();
        live.extend([("one".into(), "a".into()), ("two".into(), "b".into())]);
        assert!(change(&full, &live, &wanted("a", "one", Some("x"))).is_none());
        assert!(change(&full, &live, &wanted("b", "two", Some("x"))).is_some());
        // A known one may change.
        let known = key(0);
        assert!(change(&full, &live, &wanted("a", &known, Some("y"))).is_some());
    }
}
