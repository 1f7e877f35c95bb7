//! Tells whose object cannot be read: an Event and a condition on the object itself.

use super::context::Context;
use crate::api::condition::{self, ConditionUpdate};
use crate::api::reason::Reason;
use crate::k8s::guard::{Found, Guarded};
use crate::k8s::{self, key::Key};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::runtime::events::EventType;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Owns one condition only: what else the status holds stays as it is.
const MANAGER: &str = "halopsa-unreadable";
/// The longest one write may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What could not be written is tried again after this.
const AGAIN: Duration = Duration::from_secs(60);

/// What was said about which object.
type Told = HashMap<(String, Key), String>;

/// Runs until dropped.
pub async fn run(ctx: Arc<Context>) {
    let unreadables = ctx.stores.unreadables.clone();
    let mut changed = unreadables.changed();
    let mut told = Told::new();
    loop {
        changed.borrow_and_update();
        let all = unreadables.all();
        let done = tell_all(&ctx, all, &mut told).await;
        let again = async {
            match done {
                true => std::future::pending().await,
                false => tokio::time::sleep(AGAIN).await,
            }
        };
        let outcome = tokio::select! {
            outcome = changed.changed() => outcome,
            () = again => Ok(()),
        };
        if outcome.is_err() {
            // The watches end with the process only.
            std::future::pending::<()>().await;
        }
    }
}

/// Tells what has not been told; reports whether all of it was.
async fn tell_all(ctx: &Context, all: Vec<((String, Key), Found)>, told: &mut Told) -> bool {
    let mut before = std::mem::take(told);
    let mut done = true;
    for (key, found) in all {
        let why = found.object.why.clone();
        if before.remove(&key).as_ref() == Some(&why) || tell(ctx, &found).await {
            told.insert(key, why);
        } else {
            done = false;
        }
    }
    done
}

/// Reports whether it was told, or never can be.
async fn tell(ctx: &Context, found: &Found) -> bool {
    let patch = match patch(found, Timestamp::now()) {
        Some(Patched::Unchanged) => return true,
        Some(Patched::Status(status)) => Some(status),
        None => None,
    };
    let done = match patch {
        Some(patch) => write(ctx, found, &patch).await,
        None => true,
    };
    if done {
        let why = &found.object.why;
        ctx.event(
            &about(found),
            EventType::Warning,
            Reason::Unreadable,
            "Read",
            why,
        )
        .await;
    }
    done
}

async fn write(ctx: &Context, found: &Found, patch: &Value) -> bool {
    let meta = &found.object.metadata;
    let (Some(namespace), Some(name)) = (&meta.namespace, &meta.name) else {
        return true;
    };
    let api: Api<Guarded<DynamicObject>> =
        Api::namespaced_with(ctx.kube.clone(), namespace, &found.resource);
    let params = PatchParams::apply(MANAGER).force();
    let apply = Patch::Apply(patch);
    let write = api.patch_status(name, &params, &apply);
    let error = match tokio::time::timeout(TIMEOUT, write).await {
        Ok(Ok(_)) => return true,
        Ok(Err(error)) => error,
        Err(_) => return false,
    };
    let kind = &found.resource.kind;
    tracing::warn!(%kind, %namespace, %name, error = k8s::explain(&error),
        "cannot say on an unreadable object that it is");
    // It is gone, or its status does not fit its schema: asking again does not help.
    matches!(&error, kube::Error::Api(status) if matches!(status.code, 400..=404 | 422))
}

fn about(found: &Found) -> ObjectReference {
    let meta = &found.object.metadata;
    ObjectReference {
        api_version: Some(found.resource.api_version.clone()),
        kind: Some(found.resource.kind.clone()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The condition that says whether an object of a kind is in use; none: a Ticket's status is its
/// state, and stays as it is.
fn condition_of(kind: &str) -> Option<&'static str> {
    match kind {
        "HaloPSAConnection" | "ImportedClient" | "ToolServer" | "VerificationProvider" => {
            Some(condition::READY)
        }
        "ToolPolicy" | "Workflow" => Some(condition::ACCEPTED),
        _ => None,
    }
}

#[derive(Debug, PartialEq)]
enum Patched {
    /// It says so already.
    Unchanged,
    Status(Value),
}

/// What is written on an object; none: nothing can be.
fn patch(found: &Found, now: Timestamp) -> Option<Patched> {
    let type_ = condition_of(&found.resource.kind)?;
    let object = &found.object;
    let before = condition::get(&object.conditions, type_);
    let mut conditions: Vec<Condition> = before.cloned().into_iter().collect();
    let update = ConditionUpdate::no(Reason::Unreadable, object.why.clone());
    let generation = object.metadata.generation;
    condition::set(&mut conditions, type_, &update, generation, now);
    if before == conditions.first() {
        return Some(Patched::Unchanged);
    }
    Some(Patched::Status(json!({
        "apiVersion": found.resource.api_version,
        "kind": found.resource.kind,
        // An object of this name that was created since is another one.
        "metadata": {"name": object.metadata.name, "uid": object.metadata.uid},
        "status": {"conditions": conditions},
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Ticket, Workflow};
    use crate::k8s::guard::Unreadable;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use kube::api::ApiResource;

    fn found(resource: ApiResource, conditions: Vec<Condition>) -> Found {
        let metadata = ObjectMeta {
            name: Some("w".into()),
            namespace: Some("msp".into()),
            uid: Some("u".into()),
            generation: Some(2),
            ..ObjectMeta::default()
        };
        let object = Unreadable {
            metadata,
            why: "spec.x cannot be read".into(),
            conditions,
        };
        Found { resource, object }
    }

    #[test]
    fn it_is_said_once() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let workflow = ApiResource::erase::<Workflow>(&());
        let first = patch(&found(workflow.clone(), Vec::new()), at(1)).unwrap();
        let Patched::Status(patch_of) = first else {
            panic!("{first:?}");
        };
        let condition = &patch_of["status"]["conditions"][0];
        assert_eq!(condition["type"], "Accepted");
        assert_eq!(condition["status"], "False");
        assert_eq!(condition["reason"], "Unreadable");
        let said: Condition = serde_json::from_value(condition.clone()).unwrap();
        let again = patch(&found(workflow, vec![said]), at(2)).unwrap();
        assert_eq!(again, Patched::Unchanged);
    }

    #[test]
    fn a_tickets_status_stays_as_it_is() {
        let ticket = ApiResource::erase::<Ticket>(&());
        assert_eq!(patch(&found(ticket, Vec::new()), Timestamp::now()), None);
    }
}
