//! Lookups over Tickets and ImportedClients, kept up to date by the watch, so that none has to
//! scan.

use super::key::Key;
use crate::api::ImportedClient;
use crate::api::ticket::{Phase, Ticket};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher::Event;
use std::collections::{BTreeSet, HashMap};
use std::sync::{PoisonError, RwLock};

/// A ticket or a client of HaloPSA, by its connection and HaloPSA's id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct HaloKey {
    connection: Key,
    id: i64,
}

/// The objects seen since a watch started again: those it no longer names are gone.
#[derive(Debug, Default)]
struct Seen(Option<BTreeSet<Key>>);

impl Seen {
    fn start(&mut self) {
        self.0 = Some(BTreeSet::new());
    }

    fn see(&mut self, key: &Key) {
        if let Some(seen) = &mut self.0 {
            seen.insert(key.clone());
        }
    }

    /// Ends it; those of `known` that were not seen.
    fn gone<'a>(&mut self, known: impl Iterator<Item = &'a Key>) -> Vec<Key> {
        match self.0.take() {
            Some(seen) => known.filter(|k| !seen.contains(*k)).cloned().collect(),
            None => Vec::new(),
        }
    }
}

/// What is known of a client's tickets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Not claimed by an agent.
    pub waiting: usize,
    /// Claimed.
    pub working: usize,
    /// Waiting for a human.
    pub paused: usize,
    /// When the last ticket changed its phase.
    pub last_change: Option<Timestamp>,
}

impl Load {
    pub fn open(&self) -> usize {
        self.waiting + self.working + self.paused
    }
}

#[derive(Clone, Debug)]
struct Entry {
    client: Option<Key>,
    halo: HaloKey,
    phase: Phase,
    since: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<Key, Entry>,
    by_client: HashMap<Key, BTreeSet<String>>,
    by_ticket: HashMap<HaloKey, BTreeSet<String>>,
    /// Those that wait for a technician, or for their approved steps to be run.
    awaiting: BTreeSet<Key>,
    seen: Seen,
}

/// The index; cheap to read from many tasks.
#[derive(Debug, Default)]
pub struct TicketIndex(RwLock<Inner>);

impl TicketIndex {
    /// Applies an event of the watch.
    pub fn observe(&self, event: &Event<Ticket>) {
        let mut inner = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Apply(ticket) => inner.insert(ticket),
            Event::Delete(ticket) => inner.remove(&Key::of(ticket)),
            Event::Init => inner.seen.start(),
            Event::InitApply(ticket) => {
                inner.seen.see(&Key::of(ticket));
                inner.insert(ticket);
            }
            Event::InitDone => {
                let Inner { seen, entries, .. } = &mut *inner;
                for key in seen.gone(entries.keys()) {
                    inner.remove(&key);
                }
            }
        }
    }

    /// How busy a client is.
    pub fn load(&self, namespace: &str, client: &str) -> Load {
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut load = Load::default();
        let Some(names) = inner.by_client.get(&Key::new(namespace, client)) else {
            return load;
        };
        for name in names {
            let Some(entry) = inner.entries.get(&Key::new(namespace, name)) else {
                continue;
            };
            match entry.phase {
                Phase::Received | Phase::Ready => load.waiting += 1,
                Phase::Working => load.working += 1,
                Phase::Verifying | Phase::AwaitingApproval => load.paused += 1,
                _ => {}
            }
            load.last_change = load.last_change.max(entry.since);
        }
        load
    }

    /// Tickets of a client in this phase, longest in it first.
    pub fn in_phase(&self, namespace: &str, client: &str, phase: Phase) -> Vec<String> {
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(names) = inner.by_client.get(&Key::new(namespace, client)) else {
            return Vec::new();
        };
        let mut found: Vec<(Option<Timestamp>, &String)> = names
            .iter()
            .filter_map(|name| {
                let entry = inner.entries.get(&Key::new(namespace, name))?;
                (entry.phase == phase).then_some((entry.since, name))
            })
            .collect();
        found.sort();
        found.into_iter().map(|(_, name)| name.clone()).collect()
    }

    /// Tickets that wait for a technician, or for their approved steps to be run.
    pub fn awaiting(&self) -> Vec<Key> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .awaiting
            .iter()
            .cloned()
            .collect()
    }

    /// How many of a connection's tickets wait for a technician.
    pub fn awaiting_of(&self, namespace: &str, connection: &str) -> usize {
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let connection = Key::new(namespace, connection);
        inner
            .awaiting
            .iter()
            .filter(|key| {
                inner
                    .entries
                    .get(*key)
                    .is_some_and(|e| e.halo.connection == connection)
            })
            .count()
    }

    /// Every Ticket for this HaloPSA ticket.
    pub fn of_halo_ticket(&self, namespace: &str, connection: &str, ticket_id: i64) -> Vec<String> {
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let key = HaloKey {
            connection: Key::new(namespace, connection),
            id: ticket_id,
        };
        inner
            .by_ticket
            .get(&key)
            .map(|names| names.iter().cloned().collect())
            .unwrap_or_default()
    }
}

impl Inner {
    fn insert(&mut self, ticket: &Ticket) {
        let key = Key::of(ticket);
        self.remove(&key);
        let status = ticket.status.as_ref();
        let entry = Entry {
            client: ticket
                .spec
                .client_ref
                .as_ref()
                .map(|c| Key::new(&key.namespace, &c.name)),
            halo: HaloKey {
                connection: Key::new(&key.namespace, &ticket.spec.connection_ref.name),
                id: ticket.spec.ticket_id,
            },
            phase: status.map(|s| s.phase).unwrap_or_default(),
            since: status.and_then(|s| s.phase_since.as_ref()).map(|t| t.0),
        };
        if let Some(client) = &entry.client {
            self.by_client
                .entry(client.clone())
                .or_default()
                .insert(key.name.clone());
        }
        self.by_ticket
            .entry(entry.halo.clone())
            .or_default()
            .insert(key.name.clone());
        if entry.phase == Phase::AwaitingApproval {
            self.awaiting.insert(key.clone());
        }
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: &Key) {
        let Some(entry) = self.entries.remove(key) else {
            return;
        };
        self.awaiting.remove(key);
        if let Some(client) = &entry.client
            && let Some(names) = self.by_client.get_mut(client)
        {
            names.remove(&key.name);
            if names.is_empty() {
                self.by_client.remove(client);
            }
        }
        if let Some(names) = self.by_ticket.get_mut(&entry.halo) {
            names.remove(&key.name);
            if names.is_empty() {
                self.by_ticket.remove(&entry.halo);
            }
        }
    }
}

/// What storing a Ticket for an ImportedClient needs to know about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientEntry {
    /// If there are two for one HaloPSA client, the older one counts.
    created: Option<Timestamp>,
    pub name: String,
    pub slug: String,
    pub suspended: bool,
}

/// ImportedClients by HaloPSA's client id.
#[derive(Debug, Default)]
pub struct ClientIndex(RwLock<ClientInner>);

#[derive(Debug, Default)]
struct ClientInner {
    by_id: HashMap<HaloKey, BTreeSet<ClientEntry>>,
    entries: HashMap<Key, (HaloKey, ClientEntry)>,
    seen: Seen,
}

impl ClientIndex {
    pub fn observe(&self, event: &Event<ImportedClient>) {
        let mut inner = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Apply(client) => inner.insert(Key::of(client), client),
            Event::Delete(client) => inner.remove(&Key::of(client)),
            Event::Init => inner.seen.start(),
            Event::InitApply(client) => {
                inner.seen.see(&Key::of(client));
                inner.insert(Key::of(client), client);
            }
            Event::InitDone => {
                let ClientInner { seen, entries, .. } = &mut *inner;
                for key in seen.gone(entries.keys()) {
                    inner.remove(&key);
                }
            }
        }
    }

    pub fn find(
        &self,
        namespace: &str,
        connection: &str,
        halo_client_id: i64,
    ) -> Option<ClientEntry> {
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        inner
            .by_id
            .get(&HaloKey {
                connection: Key::new(namespace, connection),
                id: halo_client_id,
            })?
            .first()
            .cloned()
    }
}

impl ClientInner {
    fn insert(&mut self, key: Key, client: &ImportedClient) {
        self.remove(&key);
        // A client given by name is indexed once the controller has resolved it.
        let Some(id) = client
            .spec
            .halo_client_id
            .or_else(|| client.status.as_ref()?.halo_client_id)
        else {
            return;
        };
        let entry = ClientEntry {
            created: client.metadata.creation_timestamp.as_ref().map(|t| t.0),
            name: key.name.clone(),
            slug: client.slug(),
            suspended: client.spec.suspend || client.metadata.deletion_timestamp.is_some(),
        };
        let by = HaloKey {
            connection: Key::new(&key.namespace, &client.spec.connection_ref.name),
            id,
        };
        self.by_id
            .entry(by.clone())
            .or_default()
            .insert(entry.clone());
        self.entries.insert(key, (by, entry));
    }

    fn remove(&mut self, key: &Key) {
        let Some((by, entry)) = self.entries.remove(key) else {
            return;
        };
        if let Some(entries) = self.by_id.get_mut(&by) {
            entries.remove(&entry);
            if entries.is_empty() {
                self.by_id.remove(&by);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::LocalRef;
    use crate::api::ticket::{TicketSpec, TicketStatus};

    fn ticket(name: &str, client: &str, id: i64, phase: Phase) -> Ticket {
        let mut ticket = Ticket::new(
            name,
            TicketSpec {
                connection_ref: LocalRef {
                    name: "halo".into(),
                },
                client_ref: Some(LocalRef {
                    name: client.into(),
                }),
                ticket_id: id,
                ..TicketSpec::default()
            },
        );
        ticket.metadata.namespace = Some("msp".into());
        ticket.status = Some(TicketStatus {
            phase,
            ..TicketStatus::default()
        });
        ticket
    }

    #[test]
    fn follows_the_watch() {
        let index = TicketIndex::default();
        index.observe(&Event::Apply(ticket("acme-1", "acme", 1, Phase::Ready)));
        index.observe(&Event::Apply(ticket("acme-2", "acme", 2, Phase::Working)));
        index.observe(&Event::Apply(ticket("blue-1", "blue", 1, Phase::Done)));
        let load = index.load("msp", "acme");
        assert_eq!((load.waiting, load.working, load.open()), (1, 1, 2));
        assert_eq!(index.of_halo_ticket("msp", "halo", 1), ["acme-1", "blue-1"]);
        assert_eq!(index.in_phase("msp", "acme", Phase::Ready), ["acme-1"]);
        index.observe(&Event::Apply(ticket("acme-1", "acme", 1, Phase::Done)));
        assert_eq!(index.load("msp", "acme").waiting, 0);
        // A restarted watch reports what is left.
        index.observe(&Event::Init);
        index.observe(&Event::InitApply(ticket("blue-1", "blue", 1, Phase::Done)));
        index.observe(&Event::InitDone);
        assert_eq!(index.load("msp", "acme").open(), 0);
        assert_eq!(index.of_halo_ticket("msp", "halo", 1), ["blue-1"]);
        index.observe(&Event::Delete(ticket("blue-1", "blue", 1, Phase::Done)));
        assert!(index.of_halo_ticket("msp", "halo", 1).is_empty());
    }
}
