//! Watches kept as stores that several readers share: one watch a kind, however
//! many controllers look at it.

use futures::{Stream, StreamExt};
use kube::runtime::reflector::{self, ReflectHandle, Store, store::Writer};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::hash::Hash;

/// Objects a slow reader may lag behind before the watch waits for it.
const BUFFER: usize = 4096;

/// A store and its watch; subscribe, then [`Reflector::run`].
pub struct Reflector<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Hash + Eq + Clone + Default,
{
    pub store: Store<K>,
    writer: Writer<K>,
}

impl<K> Default for Reflector<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Hash + Eq + Clone + Default,
{
    fn default() -> Self {
        let (store, writer) = reflector::store_shared(BUFFER);
        Self { store, writer }
    }
}

impl<K> Reflector<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Hash + Eq + Clone + Default + Send + Sync,
{
    /// Another reader of what the watch sees.
    pub fn subscribe(&self) -> Option<ReflectHandle<K>> {
        self.writer.subscribe()
    }

    /// Watches until dropped; `observe` sees every event.
    pub async fn run(self, api: Api<K>, config: watcher::Config, observe: impl Fn(&watcher::Event<K>) + Send) {
        drive(watcher::watcher(api, config), self.writer, observe).await;
    }
}

async fn drive<K>(stream: impl Stream<Item = watcher::Result<watcher::Event<K>>>, writer: Writer<K>, observe: impl Fn(&watcher::Event<K>) + Send)
where
    K: Resource + Clone + Debug + Send + Sync + 'static,
    K::DynamicType: Hash + Eq + Clone + Default,
{
    let stream = stream
        .default_backoff()
        // Field ownership is half of an object's size, and nobody reads it here.
        .modify(|object| object.managed_fields_mut().clear())
        .inspect(|event| match event {
            Ok(event) => observe(event),
            Err(error) => tracing::warn!(%error, "a watch broke and is started again"),
        })
        .reflect_shared(writer)
        .for_each(|_| std::future::ready(()));
    stream.await;
}

/// Looks an object up by namespace and name.
pub fn get<K>(store: &Store<K>, namespace: &str, name: &str) -> Option<std::sync::Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.get(&reflector::ObjectRef::new(name).within(namespace))
}
