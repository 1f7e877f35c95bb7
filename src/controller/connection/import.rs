//! Which of HaloPSA's clients are imported, and what is known of all of them.

use crate::api::connection::ClientSelector;
use crate::halopsa::types::HaloClient;
use crate::halopsa::{self, UNKNOWN_CLIENT};
use crate::text::pattern;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;
use tokio::sync::watch;

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

/// What HaloPSA's clients are, for each connection: one list read serves every
/// client's reconciler.
#[derive(Debug)]
pub struct Directory {
    connections: RwLock<HashMap<(String, String), Listing>>,
    changed: watch::Sender<u64>,
}

/// The clients of one tenant.
#[derive(Clone, Debug)]
pub struct Listing {
    pub clients: Arc<BTreeMap<i64, HaloClient>>,
    pub read_at: Instant,
    /// The list belongs to this sign-in; another tenant's is another list.
    pub instance_url: String,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            connections: RwLock::default(),
            changed: watch::Sender::new(0),
        }
    }
}

impl Directory {
    pub fn get(&self, namespace: &str, connection: &str) -> Option<Listing> {
        let key = (namespace.to_string(), connection.to_string());
        self.connections
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned()
    }

    /// Stores a list; who resolves clients is told when it is news.
    pub fn put(
        &self,
        namespace: &str,
        connection: &str,
        instance_url: &str,
        clients: Vec<HaloClient>,
    ) -> Listing {
        let clients: BTreeMap<i64, HaloClient> = clients.into_iter().map(|c| (c.id, c)).collect();
        let listing = Listing {
            clients: Arc::new(clients),
            read_at: Instant::now(),
            instance_url: instance_url.into(),
        };
        let key = (namespace.to_string(), connection.to_string());
        let before = self
            .connections
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, listing.clone());
        let same = before.is_some_and(|b| {
            b.clients.len() == listing.clients.len()
                && b.clients
                    .values()
                    .zip(listing.clients.values())
                    .all(|(a, b)| a.id == b.id && a.name == b.name && a.inactive == b.inactive)
        });
        if !same {
            self.changed.send_modify(|n| *n += 1);
        }
        listing
    }

    pub fn forget(&self, namespace: &str, connection: &str) {
        self.connections
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&(namespace.to_string(), connection.to_string()));
    }

    /// Yields whenever a list has changed.
    pub fn changed(&self) -> impl futures::Stream<Item = ()> + Send + 'static {
        let receiver = self.changed.subscribe();
        futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.changed().await.ok().map(|()| ((), receiver))
        })
    }
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
        "HaloPSA has no client with id {0}, or the API agent may not see it; correct spec.haloClientId"
    )]
    NoSuchId(i64),
    #[error(
        "HaloPSA has no client named \"{0}\"; correct spec.haloClientName, or give haloClientId, which survives a rename"
    )]
    NoSuchName(String),
    #[error("HaloPSA has several clients named \"{name}\" (ids {} and {}); give haloClientId instead", ids[0], ids[1])]
    Ambiguous { name: String, ids: [i64; 2] },
}

/// The list, read again when it is older than `max_age` or of another instance.
pub async fn listing(
    directory: &Directory,
    halo: &halopsa::Client,
    namespace: &str,
    connection: &str,
    instance_url: &str,
    max_age: std::time::Duration,
) -> Result<Listing, halopsa::Error> {
    match directory.get(namespace, connection) {
        Some(listing)
            if listing.read_at.elapsed() < max_age && listing.instance_url == instance_url =>
        {
            Ok(listing)
        }
        _ => Ok(directory.put(namespace, connection, instance_url, halo.clients().await?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            "ns",
            "halo",
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
}
