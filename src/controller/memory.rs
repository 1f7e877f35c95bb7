//! What the reconcilers remember between two passes. A restart forgets it, and costs a few reads.

use crate::api::ticket::{REQUESTED_AT_ANNOTATION, Ticket};
use crate::halopsa::types::HaloClient;
use crate::k8s::cache::Remembered;
use crate::k8s::key::Key;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, RwLock, watch};

/// HaloPSA's clients per connection: one list serves the reconciler of every ImportedClient.
#[derive(Debug)]
pub struct Directory {
    connections: Remembered<Key, Listing>,
    changed: watch::Sender<u64>,
}

/// The clients of one tenant.
#[derive(Clone, Debug)]
pub struct Listing {
    pub clients: Arc<BTreeMap<i64, HaloClient>>,
    pub read_at: Instant,
    /// The list belongs to this instance; another tenant's is another list.
    pub instance_url: String,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            connections: Remembered::default(),
            changed: watch::Sender::new(0),
        }
    }
}

impl Directory {
    pub fn get(&self, connection: &Key) -> Option<Listing> {
        self.connections.get(connection)
    }

    /// Stores a list; wakes the clients' reconciler if it changed.
    pub fn put(&self, connection: Key, instance_url: &str, clients: Vec<HaloClient>) -> Listing {
        let clients: BTreeMap<i64, HaloClient> = clients.into_iter().map(|c| (c.id, c)).collect();
        let listing = Listing {
            clients: Arc::new(clients),
            read_at: Instant::now(),
            instance_url: instance_url.into(),
        };
        let same = |before: &Listing| {
            before.clients.len() == listing.clients.len()
                && before
                    .clients
                    .values()
                    .zip(listing.clients.values())
                    .all(|(a, b)| a.id == b.id && a.name == b.name && a.inactive == b.inactive)
        };
        let before = self.connections.set(connection, listing.clone());
        if !before.as_ref().is_some_and(same) {
            self.changed.send_modify(|n| *n += 1);
        }
        listing
    }

    pub fn forget(&self, connection: &Key) {
        self.connections.forget(connection);
    }

    /// Yields whenever a list has changed.
    pub fn changed(&self) -> impl futures::Stream<Item = ()> + Send + 'static {
        let receiver = self.changed.subscribe();
        futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.changed().await.ok().map(|()| ((), receiver))
        })
    }
}

/// Up to when each connection has been swept. After a restart the sweep looks a day back and
/// finds nothing new; no object is written to remember it.
pub type Sweeps = Remembered<Key, Timestamp>;

/// What was last verified against HaloPSA, so that a pass caused by a client's
/// status asks HaloPSA nothing.
#[derive(Debug, Default)]
pub struct Verified {
    checks: Remembered<Key, Check>,
    excess: Remembered<Key, Excess>,
}

#[derive(Debug)]
struct Check {
    generation: i64,
    at: Instant,
}

/// Scopes the application has beyond those needed.
#[derive(Clone, Debug)]
struct Excess {
    generation: i64,
    at: Instant,
    scopes: Vec<String>,
}

impl Verified {
    pub fn is_fresh(&self, connection: &Key, generation: i64, max_age: Duration) -> bool {
        self.checks
            .lock()
            .get(connection)
            .is_some_and(|c| c.generation == generation && c.at.elapsed() < max_age)
    }

    pub fn set(&self, connection: Key, generation: i64) {
        let at = Instant::now();
        self.checks.set(connection, Check { generation, at });
    }

    pub fn excess(
        &self,
        connection: &Key,
        generation: i64,
        max_age: Duration,
    ) -> Option<Vec<String>> {
        self.excess
            .get(connection)
            .filter(|e| e.generation == generation && e.at.elapsed() < max_age)
            .map(|e| e.scopes)
    }

    pub fn set_excess(&self, connection: Key, generation: i64, scopes: Vec<String>) {
        let excess = Excess {
            generation,
            at: Instant::now(),
            scopes,
        };
        self.excess.set(connection, excess);
    }

    pub fn forget(&self, connection: &Key) {
        self.excess.forget(connection);
        self.checks.forget(connection);
    }
}

/// What was applied last. An object that still has the version the apiserver gave it then, and is
/// wanted to be the same, need not be written.
#[derive(Debug, Default)]
pub struct Applied(Remembered<(Key, &'static str), AppliedObject>);

#[derive(Debug)]
struct AppliedObject {
    digest: [u8; 32],
    version: String,
}

impl Applied {
    pub fn is_current(
        &self,
        key: &Key,
        kind: &'static str,
        wanted: &Value,
        observed: Option<&str>,
    ) -> bool {
        self.0
            .lock()
            .get(&(key.clone(), kind))
            .is_some_and(|o| o.digest == digest(wanted) && Some(o.version.as_str()) == observed)
    }

    pub fn remember(&self, key: &Key, kind: &'static str, wanted: &Value, version: String) {
        let object = AppliedObject {
            digest: digest(wanted),
            version,
        };
        self.0.set((key.clone(), kind), object);
    }

    pub fn forget(&self, key: &Key) {
        self.0.lock().retain(|(of, _), _| of != key);
    }
}

fn digest(value: &Value) -> [u8; 32] {
    Sha256::digest(value.to_string()).into()
}

/// The CA, once there is one, and the namespaces that have it; where the gateway is.
#[derive(Debug, Default)]
pub struct Published {
    pub ca: RwLock<Option<String>>,
    pub namespaces: Mutex<HashMap<String, Instant>>,
    pub addresses: GatewayAddresses,
}

/// The cluster addresses of the gateway's Service; none: it was not asked for yet.
#[derive(Debug, Default)]
pub struct GatewayAddresses(watch::Sender<Option<Vec<IpAddr>>>);

impl GatewayAddresses {
    pub fn get(&self) -> Option<Vec<IpAddr>> {
        self.0.borrow().clone()
    }

    /// Returns whether they are others than before.
    pub fn set(&self, addresses: Vec<IpAddr>) -> bool {
        let addresses = Some(addresses);
        self.0.send_if_modified(|known| {
            let is_new = *known != addresses;
            *known = addresses;
            is_new
        })
    }

    /// Yields whenever they have changed.
    pub fn changed(&self) -> impl futures::Stream<Item = ()> + Send + 'static {
        let receiver = self.0.subscribe();
        futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.changed().await.ok().map(|()| ((), receiver))
        })
    }
}

/// A checksum of each value the receiver was given, and when.
#[derive(Debug, Default)]
pub struct Handed(Remembered<String, (Option<[u8; 32]>, Instant)>);

impl Handed {
    /// Compared with the stored one again after this time.
    const FRESH: Duration = Duration::from_secs(300);

    pub fn is_fresh(&self, key: &str, checksum: Option<[u8; 32]>) -> bool {
        let known = self.0.get(key);
        known.is_some_and(|(known, at)| known == checksum && at.elapsed() < Self::FRESH)
    }

    pub fn set(&self, key: String, checksum: Option<[u8; 32]>) {
        self.0.set(key, (checksum, Instant::now()));
    }
}

/// When a ticket was read last, and which request it followed.
#[derive(Clone, Debug)]
struct Poll {
    at: Instant,
    requested_at: Option<String>,
}

/// When each waiting ticket was read last.
#[derive(Debug, Default)]
pub struct Polls(Remembered<Key, Poll>);

impl Polls {
    /// How long to wait before the next poll; none: it is due, and counts as made.
    pub fn wait(&self, ticket: &Ticket, every: Duration) -> Option<Duration> {
        let key = Key::of(ticket);
        let requested_at = ticket.annotations().get(REQUESTED_AT_ANNOTATION).cloned();
        let mut polls = self.0.lock();
        if let Some(last) = polls.get(&key)
            && last.requested_at == requested_at
            && last.at.elapsed() < every
        {
            return Some(every.saturating_sub(last.at.elapsed()));
        }
        let at = Instant::now();
        polls.insert(key, Poll { at, requested_at });
        None
    }

    pub fn forget(&self, key: &Key) {
        self.0.forget(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_applied_is_not_applied_again() {
        let (applied, key) = (Applied::default(), Key::new("ns", "n"));
        let wanted = json!({"a": 1});
        assert!(!applied.is_current(&key, "Deployment", &wanted, Some("1")));
        applied.remember(&key, "Deployment", &wanted, "1".into());
        assert!(applied.is_current(&key, "Deployment", &wanted, Some("1")));
        assert!(
            !applied.is_current(&key, "Deployment", &wanted, Some("2")),
            "somebody changed it"
        );
        assert!(
            !applied.is_current(&key, "Deployment", &wanted, None),
            "somebody deleted it"
        );
        assert!(!applied.is_current(&key, "Deployment", &json!({"a": 2}), Some("1")));
    }
}
