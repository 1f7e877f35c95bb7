//! The webhook in HaloPSA: its desired state, how it drifts, how it is repaired.

use crate::halopsa::api::{EVENTS, EventType, WebhookSpec};
use crate::halopsa::types::{Notification, Webhook};
use crate::halopsa::{Client, Error, lenient};

/// A difference between the webhook and its desired state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    Missing,
    /// What differs, human-readable, like `URL` or `password`.
    Changed(Vec<&'static str>),
}

/// How the webhook differs from the specification. The password cannot be read
/// back; `password_known` says whether HaloPSA was given the current one.
pub fn drift(
    found: Option<&Webhook>,
    spec: &WebhookSpec<'_>,
    password_known: bool,
) -> Option<Drift> {
    let Some(found) = found else {
        return Some(Drift::Missing);
    };
    let active = found
        .active
        .as_ref()
        .and_then(lenient::boolean)
        .unwrap_or(true)
        && !found.disabled;
    let differs: Vec<&'static str> = [
        (found.name != spec.name, "name"),
        (found.url != spec.url, "URL"),
        (found.type_.is_some_and(|t| t != 0), "type"),
        (found.method.is_some_and(|m| m != 0), "method"),
        (
            !found.content_type.is_empty() && !found.content_type.starts_with("application/json"),
            "content type",
        ),
        (found.authentication_type != Some(1), "authentication"),
        (found.basic_username != spec.username, "user name"),
        (!password_known, "password"),
        (!active, "active state"),
    ]
    .into_iter()
    .filter_map(|(differs, name)| differs.then_some(name))
    .collect();
    (!differs.is_empty()).then_some(Drift::Changed(differs))
}

/// The events to subscribe to, and the subscriptions to remove.
pub fn subscriptions(found: &[Notification]) -> (Vec<EventType>, Vec<i64>) {
    let missing = EVENTS
        .into_iter()
        .filter(|e| !found.iter().any(|n| n.eventno == Some(e.number)))
        .collect();
    let mut kept = Vec::new();
    let surplus = found
        .iter()
        .filter(|n| {
            let wanted = n
                .eventno
                .filter(|no| EVENTS.iter().any(|e| e.number == *no) && !kept.contains(no));
            kept.extend(wanted);
            wanted.is_none()
        })
        .map(|n| n.id)
        .collect();
    (missing, surplus)
}

/// Our webhook among all: by the known id, else by URL, else by name, so that one
/// whose creation was interrupted is found and not created twice.
pub fn ours<'a>(
    all: &'a [Webhook],
    id: Option<&str>,
    spec: &WebhookSpec<'_>,
) -> Option<&'a Webhook> {
    all.iter()
        .find(|w| id.is_some_and(|id| w.id.eq_ignore_ascii_case(id)))
        .or_else(|| all.iter().find(|w| w.url == spec.url))
        .or_else(|| all.iter().find(|w| w.name == spec.name))
}

/// What [`ensure`] found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    pub id: String,
    /// What was repaired, human-readable; empty if nothing was.
    pub repaired: Vec<String>,
}

/// Creates or repairs the webhook, and reads it back.
pub async fn ensure(
    halo: &Client,
    known_id: Option<&str>,
    spec: &WebhookSpec<'_>,
    password_known: bool,
) -> Result<Registered, Error> {
    let all = halo.webhooks().await?;
    let found = ours(&all, known_id, spec);
    let mut repaired = Vec::new();
    let id = match drift(found, spec, password_known) {
        None => found.map(|w| w.id.clone()).unwrap_or_default(),
        Some(drift) => {
            let written = halo.put_webhook(found.map(|w| w.id.as_str()), spec).await?;
            repaired.push(match drift {
                Drift::Missing => "created".into(),
                Drift::Changed(what) => format!("repaired {}", what.join(", ")),
            });
            written.id
        }
    };
    let (missing, surplus) = subscriptions(&halo.notifications(&id).await?);
    if !missing.is_empty() {
        halo.subscribe(&id, &missing).await?;
        let names: Vec<&str> = missing.iter().map(|e| e.name).collect();
        repaired.push(format!("subscribed to {}", names.join(", ")));
    }
    for id in surplus {
        halo.unsubscribe(id).await?;
        repaired.push("removed a subscription that is not ours".into());
    }
    if !repaired.is_empty() {
        // HaloPSA accepts some fields without storing them: say so now, not when no webhook comes.
        let all = halo.webhooks().await?;
        let again = drift(
            all.iter().find(|w| w.id.eq_ignore_ascii_case(&id)),
            spec,
            true,
        );
        let (missing, _) = subscriptions(&halo.notifications(&id).await?);
        if again.is_some() || !missing.is_empty() {
            let what = match again {
                Some(Drift::Changed(what)) => what.join(", "),
                Some(Drift::Missing) => "the webhook itself".into(),
                None => "its events".into(),
            };
            return Err(Error::Rejected {
                call: "POST /Webhook".into(),
                status: 200,
                detail: format!(
                    "it did not store {what}; set up the webhook by hand under Configuration > \
                     Integrations > Webhooks"
                ),
            });
        }
    }
    Ok(Registered { id, repaired })
}

/// Removes our webhook; it is fine if there is none.
pub async fn remove(
    halo: &Client,
    known_id: Option<&str>,
    spec: &WebhookSpec<'_>,
) -> Result<(), Error> {
    let all = halo.webhooks().await?;
    match ours(&all, known_id, spec) {
        Some(webhook) => halo.delete_webhook(&webhook.id).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SPEC: WebhookSpec<'static> = WebhookSpec {
        name: "Rallied (msp/acme)",
        url: "https://x/webhooks/msp/acme",
        username: "u",
        password: "p",
    };

    fn webhook(change: serde_json::Value) -> Webhook {
        let mut all = json!({"id": "a", "name": SPEC.name, "url": SPEC.url, "type": 0,
            "method": "0", "content_type": "application/json", "authentication_type": 1.0,
            "basic_username": "u", "active": true});
        all.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn every_drift_is_seen() {
        assert_eq!(drift(Some(&webhook(json!({}))), &SPEC, true), None);
        assert_eq!(drift(None, &SPEC, true), Some(Drift::Missing));
        for (change, what) in [
            (json!({"name": "x"}), "name"),
            (json!({"url": "x"}), "URL"),
            (json!({"method": 1}), "method"),
            (json!({"authentication_type": 0}), "authentication"),
            (json!({"basic_username": "x"}), "user name"),
            (json!({"active": false}), "active state"),
            (json!({"disabled": true}), "active state"),
            (json!({"content_type": "text/xml"}), "content type"),
        ] {
            assert_eq!(
                drift(Some(&webhook(change)), &SPEC, true),
                Some(Drift::Changed(vec![what]))
            );
        }
        assert_eq!(
            drift(Some(&webhook(json!({}))), &SPEC, false),
            Some(Drift::Changed(vec!["password"]))
        );
    }

    #[test]
    fn subscriptions_are_completed_and_cleaned() {
        let row = |id, eventno| Notification {
            id,
            eventno: Some(eventno),
            webhook_id: "a".into(),
        };
        let (missing, surplus) = subscriptions(&[row(1, 3), row(2, 3), row(3, 42), row(4, 76)]);
        assert_eq!(
            missing.iter().map(|e| e.number).collect::<Vec<_>>(),
            [19, 39, 1072]
        );
        assert_eq!(surplus, [2, 3]);
    }

    #[test]
    fn ours_is_found_by_id_then_url_then_name() {
        let all = [
            webhook(json!({"id": "n", "url": "other"})),
            webhook(json!({"id": "u", "name": "other"})),
            webhook(json!({"id": "i", "name": "o", "url": "o"})),
        ];
        assert_eq!(
            ours(&all, Some("I"), &SPEC).map(|w| w.id.as_str()),
            Some("i")
        );
        assert_eq!(
            ours(&all, Some("gone"), &SPEC).map(|w| w.id.as_str()),
            Some("u")
        );
        assert_eq!(
            ours(&all[..1], None, &SPEC).map(|w| w.id.as_str()),
            Some("n")
        );
    }
}
