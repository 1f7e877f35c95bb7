//! Watches kept as stores that several readers share: one watch per kind, however
//! many controllers read it.

use super::guard::Unreadables;
use super::namespaces::{Namespaces, merged};
use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::reflector::{self, ReflectHandle, Store, store::Writer};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

/// How many objects a slow reader may lag behind before the watch waits for it.
const BUFFER: usize = 4096;

/// A store and its watch; subscribe, then [`Reflector::run`].
pub struct Reflector<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Hash + Eq + Clone + Default,
{
    pub store: Store<K>,
    writer: Writer<K>,
    filled: tokio::sync::watch::Sender<bool>,
    unreadables: Arc<Unreadables>,
}

impl<K> Default for Reflector<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Hash + Eq + Clone + Default,
{
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl<K> Reflector<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Hash + Eq + Clone + Default,
{
    /// A store whose unreadable objects are remembered there.
    pub fn new(unreadables: Arc<Unreadables>) -> Self {
        let (store, writer) = reflector::store_shared(BUFFER);
        Self {
            store,
            writer,
            filled: tokio::sync::watch::Sender::new(false),
            unreadables,
        }
    }
}

impl<K> Reflector<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Hash + Eq + Clone + Default + Send + Sync,
{
    /// Turns true once the store is filled. The store's own `wait_until_ready` wakes only
    /// one waiter, and that is the controller.
    pub fn filled(&self) -> tokio::sync::watch::Receiver<bool> {
        self.filled.subscribe()
    }

    /// Another reader of what the watch sees.
    pub fn subscribe(&self) -> Option<ReflectHandle<K>> {
        self.writer.subscribe()
    }
}

impl<K> Reflector<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    /// Watches until dropped. `observe` sees every event before the store and the
    /// subscribers do; `stored` is called once the store has it. Update an index in
    /// the first, wake readers of the store in the second.
    pub fn run(
        self,
        kube: &Client,
        namespaces: &Namespaces,
        config: &watcher::Config,
        observe: impl Fn(&watcher::Event<K>) + Send + Sync + 'static,
        stored: impl Fn(&watcher::Event<K>) + Send + Sync + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let watches = namespaces.watches(kube, config, &self.unreadables, &self.store);
        let events = merged(watches, self.store.clone());
        drive(events, self, observe, stored)
    }
}

async fn drive<K>(
    stream: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    reflector: Reflector<K>,
    observe: impl Fn(&watcher::Event<K>) + Send,
    stored: impl Fn(&watcher::Event<K>) + Send,
) where
    K: Resource + Clone + Debug + Send + Sync + 'static,
    K::DynamicType: Hash + Eq + Clone + Default,
{
    let Reflector { writer, filled, .. } = reflector;
    let stream = stream
        // Field ownership is half of an object's size, and nobody reads it here.
        .modify(|object: &mut K| object.managed_fields_mut().clear())
        .inspect(|event| match event {
            Ok(event) => observe(event),
            Err(error) => tracing::warn!(%error, "a watch failed; restarting it"),
        })
        .reflect_shared(writer)
        .for_each(|event| {
            if let Ok(event) = event {
                if matches!(event, watcher::Event::InitDone) {
                    filled.send_replace(true);
                }
                stored(&event);
            }
            std::future::ready(())
        });
    stream.await;
}

/// Looks up an object by namespace and name.
pub fn get<K>(store: &Store<K>, namespace: &str, name: &str) -> Option<std::sync::Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.get(&reflector::ObjectRef::new(name).within(namespace))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ticket::{Ticket, TicketSpec};
    use std::sync::Mutex;

    #[tokio::test]
    async fn whoever_is_woken_finds_the_change_in_the_store() {
        let ticket = |name: &str| {
            let mut ticket = Ticket::new(name, TicketSpec::default());
            ticket.metadata.namespace = Some("msp".into());
            ticket
        };
        use watcher::Event::{Apply, Init, InitApply, InitDone};
        let events = [
            Init,
            InitApply(ticket("a")),
            InitDone,
            Apply(ticket("b")),
            Apply(ticket("c")),
        ];
        let reflector = Reflector::<Ticket>::default();
        let (store, observed, stored) = (
            reflector.store.clone(),
            Mutex::new(Vec::new()),
            Mutex::new(Vec::new()),
        );
        let (at_observe, at_stored) = (
            |_: &watcher::Event<Ticket>| observed.lock().unwrap().push(store.len()),
            |_: &watcher::Event<Ticket>| stored.lock().unwrap().push(store.len()),
        );
        drive(
            futures::stream::iter(events.map(Ok)),
            reflector,
            at_observe,
            at_stored,
        )
        .await;
        assert_eq!(
            *observed.lock().unwrap(),
            [0, 0, 0, 1, 2],
            "the index comes first"
        );
        assert_eq!(*stored.lock().unwrap(), [0, 0, 1, 2, 3], "the wake-up last");
    }
}
