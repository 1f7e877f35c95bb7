//! Which of HaloPSA's clients are imported.

use super::Failure;
use crate::api::condition::ConditionUpdate;
use crate::api::connection::{ClientSelector, HaloPSAConnectionStatus};
use crate::api::reason::Reason;
use crate::api::{CONNECTION_LABEL, HALO_CLIENT_ID_LABEL, HaloPSAConnection, ImportedClient};
use crate::controller::context::Context;
use crate::controller::memory::Listing;
use crate::halopsa::types::HaloClient;
use crate::halopsa::{self, UNKNOWN_CLIENT};
use crate::k8s::{self, key::Key, names, reflect};
use crate::text::pattern;
use crate::ticket::route;
use futures::TryStreamExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};
use serde_json::json;
use std::collections::{HashMap, HashSet};

/// The list of clients is read again after this many resyncs (five minutes by default).
const CLIENTS_EVERY: u32 = 5;
/// Concurrent writes while importing.
const PARALLEL: usize = 16;

/// Whether the selector imports this client.
pub fn selects(selector: &ClientSelector, client: &HaloClient) -> bool {
    let any = |patterns: &Option<Vec<String>>| {
        patterns
            .iter()
            .flatten()
            .any(|p| pattern::matches(p, &client.name))
    };
    if any(&selector.exclude) || client.inactive {
        return false;
    }
    let named = selector
        .names
        .iter()
        .flatten()
        .any(|n| n.trim().eq_ignore_ascii_case(client.name.trim()));
    let listed = selector.ids.iter().flatten().any(|id| *id == client.id);
    (selector.all == Some(true) && client.id != UNKNOWN_CLIENT)
        || listed
        || named
        || any(&selector.patterns)
}

/// Ids and names of the selector that no client has: a typo, or a client that is gone.
pub fn unmatched(selector: &ClientSelector, clients: &[HaloClient]) -> Vec<String> {
    let ids = selector
        .ids
        .iter()
        .flatten()
        .filter(|id| !clients.iter().any(|c| c.id == **id))
        .map(|id| format!("id {id}"));
    let names = selector
        .names
        .iter()
        .flatten()
        .filter(|n| {
            !clients
                .iter()
                .any(|c| c.name.trim().eq_ignore_ascii_case(n.trim()))
        })
        .map(|n| format!("\"{n}\""));
    ids.chain(names).collect()
}

/// Which client of the list an ImportedClient means.
pub fn resolve<'a>(
    listing: &'a Listing,
    id: Option<i64>,
    name: Option<&str>,
) -> Result<&'a HaloClient, Unresolved> {
    if let Some(id) = id {
        return listing.clients.get(&id).ok_or(Unresolved::NoSuchId(id));
    }
    let name = name.unwrap_or_default().trim();
    let mut named = listing
        .clients
        .values()
        .filter(|c| c.name.trim().eq_ignore_ascii_case(name));
    match (named.next(), named.next()) {
        (Some(client), None) => Ok(client),
        (Some(first), Some(second)) => Err(Unresolved::Ambiguous {
            name: name.into(),
            ids: [first.id, second.id],
        }),
        (None, _) => Err(Unresolved::NoSuchName(name.into())),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    #[error(
        "HaloPSA has no client with id {0}, or the API agent may not see it; correct \
         spec.haloClientId"
    )]
    NoSuchId(i64),
    #[error(
        "HaloPSA has no client named \"{0}\"; correct spec.haloClientName, or set haloClientId, \
         which survives a rename"
    )]
    NoSuchName(String),
    #[error(
        "HaloPSA has several clients named \"{name}\" (ids {} and {}); set haloClientId instead",
        ids[0],
        ids[1]
    )]
    Ambiguous { name: String, ids: [i64; 2] },
}

/// The clients of a connection's tenant, read again when the list is older than `max_age`.
async fn listing(
    connection: &HaloPSAConnection,
    halo: &halopsa::Client,
    ctx: &Context,
) -> Result<Listing, halopsa::Error> {
    let (key, url) = (Key::of(connection), &connection.spec.instance_url);
    let max_age = ctx.options.resync * CLIENTS_EVERY;
    match ctx.directory.get(&key) {
        Some(listing) if listing.read_at.elapsed() < max_age && listing.instance_url == *url => {
            Ok(listing)
        }
        _ => Ok(ctx.directory.put(key, url, halo.clients().await?)),
    }
}

/// Imports the selected clients; drains and removes those no longer selected.
pub async fn sync(
    connection: &HaloPSAConnection,
    halo: &halopsa::Client,
    status: &mut HaloPSAConnectionStatus,
    ctx: &Context,
) -> Result<ConditionUpdate, Failure> {
    let listing = listing(connection, halo, ctx).await?;
    let key = Key::of(connection);
    let existing = ctx.stores.clients.state_filter(|c| {
        c.namespace().as_deref() == Some(&key.namespace) && c.spec.connection_ref.name == key.name
    });
    let generated = |c: &ImportedClient| {
        let owners = c.owner_references();
        owners
            .iter()
            .any(|o| Some(&o.uid) == connection.metadata.uid.as_ref())
    };
    let selector = connection.spec.clients.clone().unwrap_or_default();
    let mut changes = plan(
        &selector,
        &listing,
        existing.iter().map(|client| Existing {
            client,
            generated: generated(client),
            open: ctx.index.load(&key.namespace, &client.name_any()).open(),
        }),
    );
    if ctx.stores.unreadables.any::<ImportedClient>(&key.namespace) {
        // It may be the one that seems to be missing.
        changes.retain(|change| !matches!(change, Change::Create { .. }));
    }
    let count = |which: fn(&Change) -> bool| changes.iter().filter(|c| which(c)).count() as i64;
    let created = count(|c| matches!(c, Change::Create { .. }));
    let removed = count(|c| matches!(c, Change::Remove { .. }));
    let api: Api<ImportedClient> = Api::namespaced(ctx.kube.clone(), &key.namespace);
    futures::stream::iter(changes.into_iter().map(Ok))
        .try_for_each_concurrent(PARALLEL, |change| carry_out(change, connection, &api, ctx))
        .await?;
    status.imported_clients = Some(existing.len() as i64 + created - removed);
    status.total_clients = Some(listing.clients.len() as i64);
    Ok(synced(&selector, &listing))
}

fn synced(selector: &ClientSelector, listing: &Listing) -> ConditionUpdate {
    let all: Vec<_> = listing.clients.values().cloned().collect();
    let unmatched = unmatched(selector, &all);
    if unmatched.is_empty() {
        return ConditionUpdate::yes(Reason::Synced, "the selected clients are imported");
    }
    let shown: Vec<String> = unmatched.into_iter().take(10).collect();
    ConditionUpdate::no(
        Reason::ClientsNotFound,
        format!(
            "spec.clients names clients HaloPSA does not have: {}; the others are imported",
            shown.join(", ")
        ),
    )
}

struct Existing<'a> {
    client: &'a ImportedClient,
    /// Created from the selector, not applied by a user.
    generated: bool,
    open: usize,
}

/// A change to one ImportedClient.
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
    /// No longer selected, with open tickets: takes no new ones.
    Drain {
        name: String,
        id: i64,
    },
    /// No longer selected, without open tickets.
    Remove {
        name: String,
    },
}

/// Compares what is selected with what exists. Pure.
///
/// A client that HaloPSA does not list, or lists as inactive, is left alone: a list can be short by
/// mistake, and a company's agent is not deleted because of it. Its ClientFound condition reports
/// it.
fn plan<'a>(
    selector: &ClientSelector,
    listing: &Listing,
    existing: impl Iterator<Item = Existing<'a>>,
) -> Vec<Change> {
    let existing: Vec<Existing<'a>> = existing.collect();
    let id_of = |c: &ImportedClient| {
        c.spec.halo_client_id.or_else(|| {
            resolve(listing, None, c.spec.halo_client_name.as_deref())
                .ok()
                .map(|h| h.id)
        })
    };
    let mut taken: HashSet<String> = existing.iter().map(|e| e.client.name_any()).collect();
    let by_id: HashMap<i64, &Existing<'a>> = existing
        .iter()
        .filter_map(|e| Some((id_of(e.client)?, e)))
        .collect();
    let mut changes = Vec::new();
    for client in listing.clients.values().filter(|c| selects(selector, c)) {
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
        if client.inactive || selects(selector, client) {
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
) -> Result<(), kube::Error> {
    let (reason, action, note) = match &change {
        Change::Create { name, id } => {
            put(connection, api, name, *id, false).await?;
            let note = format!("HaloPSA client {id} is imported as {name}");
            (Reason::ClientImported, "Import", note)
        }
        Change::Resume { name, id } => return put(connection, api, name, *id, false).await,
        Change::Drain { name, id } => {
            put(connection, api, name, *id, true).await?;
            let note = format!(
                "{name} is no longer selected; it is removed once its open tickets are finished"
            );
            (Reason::ClientDraining, "Drain", note)
        }
        Change::Remove { name } => {
            remove(connection, api, name, ctx).await?;
            let note = format!("{name} is no longer selected and is removed");
            (Reason::ClientRemoved, "Remove", note)
        }
    };
    let about = connection.object_ref(&());
    ctx.event(&about, EventType::Normal, reason, action, &note)
        .await;
    Ok(())
}

/// Deletes the ImportedClient that was seen, not one that was created since.
async fn remove(
    connection: &HaloPSAConnection,
    api: &Api<ImportedClient>,
    name: &str,
    ctx: &Context,
) -> Result<(), kube::Error> {
    let namespace = connection.namespace().unwrap_or_default();
    let seen = reflect::get(&ctx.stores.clients, &namespace, name);
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: seen.and_then(|c| c.uid()),
            resource_version: None,
        }),
        ..DeleteParams::background()
    };
    match api.delete(name, &params).await {
        Err(error) if !k8s::is_not_found(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Applies a generated ImportedClient: only the operator's own fields, so that a user may set mode,
/// prompt and agent on it.
async fn put(
    connection: &HaloPSAConnection,
    api: &Api<ImportedClient>,
    name: &str,
    id: i64,
    suspend: bool,
) -> Result<(), kube::Error> {
    let mut spec = json!({"connectionRef": {"name": connection.name_any()}, "haloClientId": id});
    if suspend {
        spec["suspend"] = true.into();
    }
    let object = json!({
        "apiVersion": ImportedClient::api_version(&()), "kind": ImportedClient::kind(&()),
        "metadata": {
            "name": name,
            "labels": {
                names::MANAGED_BY: names::OPERATOR,
                CONNECTION_LABEL: connection.name_any(),
                HALO_CLIENT_ID_LABEL: id.to_string(),
            },
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::client::ImportedClientSpec;
    use crate::api::condition;
    use crate::controller::memory::Directory;

    fn client(id: i64, name: &str) -> HaloClient {
        HaloClient {
            id,
            name: name.into(),
            inactive: false,
        }
    }

    #[test]
    fn selection() {
        let acme = client(12, "Acme Dental");
        let unknown = client(1, "Unknown");
        let ids = |ids: &[i64]| ClientSelector {
            ids: Some(ids.to_vec()),
            ..ClientSelector::default()
        };
        let all = ClientSelector {
            all: Some(true),
            ..ClientSelector::default()
        };
        let list = |s: &str| Some(vec![s.to_string()]);
        assert!(!selects(&ClientSelector::default(), &acme), "none");
        assert!(selects(&all, &acme));
        assert!(
            !selects(&all, &unknown),
            "the catch-all client is nobody's company"
        );
        assert!(selects(&ids(&[1]), &unknown), "unless it is asked for");
        assert!(selects(&ids(&[12]), &acme) && !selects(&ids(&[13]), &acme));
        assert!(selects(
            &ClientSelector {
                names: list("acme dental"),
                ..ClientSelector::default()
            },
            &acme
        ));
        assert!(selects(
            &ClientSelector {
                patterns: list("acme*"),
                ..ClientSelector::default()
            },
            &acme
        ));
        assert!(!selects(
            &ClientSelector {
                all: Some(true),
                exclude: list("*dental"),
                ..ClientSelector::default()
            },
            &acme
        ));
        assert!(!selects(
            &all,
            &HaloClient {
                inactive: true,
                ..acme
            }
        ));
    }

    #[test]
    fn typos_are_named() {
        let selector = ClientSelector {
            ids: Some(vec![12, 99]),
            names: Some(vec!["Nobody".into()]),
            ..ClientSelector::default()
        };
        assert_eq!(
            unmatched(&selector, &[client(12, "Acme")]),
            ["id 99", "\"Nobody\""]
        );
    }

    #[test]
    fn resolution() {
        let directory = Directory::default();
        let listing = directory.put(
            Key::new("ns", "halo"),
            "https://x",
            vec![client(12, "Acme"), client(13, "Blue"), client(14, "blue ")],
        );
        assert_eq!(resolve(&listing, Some(12), None).map(|c| c.id), Ok(12));
        assert_eq!(resolve(&listing, None, Some("ACME")).map(|c| c.id), Ok(12));
        assert_eq!(
            resolve(&listing, Some(99), None).err(),
            Some(Unresolved::NoSuchId(99))
        );
        assert!(matches!(
            resolve(&listing, None, Some("Blue")),
            Err(Unresolved::Ambiguous { .. })
        ));
        assert!(matches!(
            resolve(&listing, None, Some("x")),
            Err(Unresolved::NoSuchName(_))
        ));
    }

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

    fn four_clients() -> Listing {
        let halo = |id, name: &str, inactive| HaloClient {
            id,
            name: name.into(),
            inactive,
        };
        let clients = vec![
            halo(1, "Unknown", false),
            halo(12, "Acme", false),
            halo(13, "Blue", false),
            halo(14, "Old", true),
        ];
        Directory::default().put(Key::new("ns", "c"), "u", clients)
    }

    #[test]
    fn import_plan() {
        let listing = four_clients();
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
            "the user's own counts"
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

    #[test]
    fn what_is_said_of_the_clients() {
        let selector = |ids: &[i64]| ClientSelector {
            ids: Some(ids.to_vec()),
            ..ClientSelector::default()
        };
        let said = [
            synced(&selector(&[12]), &four_clients()),
            synced(&selector(&[12, 98, 99]), &four_clients()),
        ]
        .map(|update| update.to_string());
        condition::snapshot("clients", &said);
    }
}
