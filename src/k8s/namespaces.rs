//! The namespaces that are watched: a list, or all. The watches of a list are read as one.

use super::guard::{Guarded, Sorter, Unreadables};
use super::key::Key;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::Store;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

/// Which namespaces are watched. None named: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(BTreeSet<String>);

impl Namespaces {
    /// An empty name is no name: an environment variable may be set to nothing.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let names = names.into_iter().map(|name| name.trim().to_string());
        Self(names.filter(|name| !name.is_empty()).collect())
    }

    /// One Api for each namespace, or one for all.
    pub fn apis<K>(&self, kube: &Client) -> Vec<Api<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        if self.0.is_empty() {
            return vec![Api::all(kube.clone())];
        }
        let names = self.0.iter();
        names
            .map(|name| Api::namespaced(kube.clone(), name))
            .collect()
    }

    /// One watch for each namespace, or one for all.
    pub fn watches<K>(
        &self,
        kube: &Client,
        config: &watcher::Config,
        unreadables: &Arc<Unreadables>,
        store: &Store<K>,
    ) -> Vec<NamespaceWatch<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + Sync
            + 'static,
    {
        let apis = self.apis::<Guarded<K>>(kube).into_iter();
        apis.map(|api| {
            let namespace = api.namespace().map(str::to_string);
            let mut sorter = Sorter::new(unreadables.clone(), store.clone(), namespace.clone());
            // Each waits for itself: a namespace that fails delays no other.
            let events = watcher::watcher(api, config.clone())
                .default_backoff()
                .filter_map(move |event| {
                    let event = match event {
                        Ok(event) => sorter.sort(event).map(Ok),
                        Err(error) => Some(Err(error)),
                    };
                    std::future::ready(event)
                })
                .boxed();
            NamespaceWatch { namespace, events }
        })
        .collect()
    }
}

/// The watch of one namespace, or of all.
pub struct NamespaceWatch<K> {
    namespace: Option<String>,
    events: BoxStream<'static, watcher::Result<Event<K>>>,
}

/// Several watches as one that a store can follow: it begins when every namespace is listed. A
/// namespace that is listed again later changes its own objects only. `store` is the store that
/// follows.
pub fn merged<K>(
    mut watches: Vec<NamespaceWatch<K>>,
    store: Store<K>,
) -> BoxStream<'static, watcher::Result<Event<K>>>
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    if watches.len() == 1 {
        return watches.remove(0).events;
    }
    let namespaces = watches.iter().map(|w| w.namespace.clone());
    let mut merge = Merge::new(namespaces.map(Option::unwrap_or_default), store);
    let numbered = watches
        .into_iter()
        .enumerate()
        .map(|(number, watch)| watch.events.map(move |event| (number, event)));
    stream::select_all(numbered)
        .flat_map(move |(number, event)| stream::iter(merge.step(number, event)))
        .boxed()
}

/// Several streams as one, in no order.
pub fn either<T: 'static>(
    streams: impl IntoIterator<Item = impl Stream<Item = T> + Send + 'static>,
) -> impl Stream<Item = T> + Send + 'static {
    stream::select_all(streams.into_iter().map(StreamExt::boxed))
}

/// Where each watch is.
struct Merge<K: Resource<DynamicType = ()> + 'static> {
    parts: Vec<Part<K>>,
    /// Every namespace has been listed once.
    begun: bool,
    store: Store<K>,
}

struct Part<K> {
    namespace: String,
    /// What is known before every namespace is listed.
    first: BTreeMap<Key, K>,
    is_listed: bool,
    /// The objects named since the watch started again.
    again: Option<BTreeSet<Key>>,
}

impl<K> Merge<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    fn new(namespaces: impl Iterator<Item = String>, store: Store<K>) -> Self {
        let parts = namespaces.map(|namespace| Part {
            namespace,
            first: BTreeMap::new(),
            is_listed: false,
            again: None,
        });
        Self {
            parts: parts.collect(),
            begun: false,
            store,
        }
    }

    /// What an event of one watch means for the whole.
    fn step(
        &mut self,
        number: usize,
        event: watcher::Result<Event<K>>,
    ) -> Vec<watcher::Result<Event<K>>> {
        match event {
            Err(error) => vec![Err(error)],
            Ok(event) if self.begun => {
                let events = self.later(number, event);
                events.into_iter().map(Ok).collect()
            }
            Ok(event) => self.at_first(number, event).into_iter().map(Ok).collect(),
        }
    }

    fn at_first(&mut self, number: usize, event: Event<K>) -> Vec<Event<K>> {
        let Some(part) = self.parts.get_mut(number) else {
            return Vec::new();
        };
        match event {
            Event::Init => {
                part.first.clear();
                part.is_listed = false;
            }
            Event::InitApply(object) | Event::Apply(object) => {
                part.first.insert(Key::of(&object), object);
            }
            Event::Delete(object) => {
                part.first.remove(&Key::of(&object));
            }
            Event::InitDone => part.is_listed = true,
        }
        if !self.parts.iter().all(|part| part.is_listed) {
            return Vec::new();
        }
        self.begun = true;
        let all = self.parts.iter_mut();
        let objects = all.flat_map(|part| std::mem::take(&mut part.first).into_values());
        std::iter::once(Event::Init)
            .chain(objects.map(Event::InitApply))
            .chain(std::iter::once(Event::InitDone))
            .collect()
    }

    fn later(&mut self, number: usize, event: Event<K>) -> Vec<Event<K>> {
        let Some(part) = self.parts.get_mut(number) else {
            return Vec::new();
        };
        match event {
            Event::Init => {
                part.again = Some(BTreeSet::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                if let Some(seen) = &mut part.again {
                    seen.insert(Key::of(&object));
                }
                vec![Event::Apply(object)]
            }
            Event::InitDone => {
                let Some(seen) = part.again.take() else {
                    return Vec::new();
                };
                let namespace = part.namespace.as_str();
                let gone = self.store.state_filter(|object| {
                    object.namespace().as_deref() == Some(namespace)
                        && !seen.contains(&Key::of(object))
                });
                let gone = gone.iter().map(|object| Event::Delete((**object).clone()));
                gone.collect()
            }
            event => vec![event],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ticket::{Ticket, TicketSpec};
    use kube::runtime::reflector::{self, store::Writer};
    use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};

    fn ticket(namespace: &str, name: &str) -> Ticket {
        let mut ticket = Ticket::new(name, TicketSpec::default());
        ticket.metadata.namespace = Some(namespace.into());
        ticket
    }

    /// Two namespaces, and the store that follows both.
    struct Both {
        merge: Merge<Ticket>,
        store: Store<Ticket>,
        writer: Writer<Ticket>,
    }

    impl Both {
        fn new() -> Self {
            let (store, writer) = reflector::store();
            Self {
                merge: Merge::new(["a", "b"].map(str::to_string).into_iter(), store.clone()),
                store,
                writer,
            }
        }

        /// Feeds events of one watch; how many came out, and what the store holds then.
        fn feed(
            &mut self,
            number: usize,
            events: impl IntoIterator<Item = Event<Ticket>>,
        ) -> (usize, Vec<String>) {
            let mut count = 0;
            for event in events {
                for merged in self.merge.step(number, Ok(event)) {
                    self.writer.apply_watcher_event(&merged.unwrap());
                    count += 1;
                }
            }
            let keys = self.store.state().into_iter();
            let mut keys: Vec<String> = keys.map(|t| Key::of(&*t).to_string()).collect();
            keys.sort();
            (count, keys)
        }
    }

    #[test]
    fn names_are_sorted_and_an_empty_one_is_none() {
        let of = |names: &[&str]| Namespaces::new(names.iter().map(|n| n.to_string()));
        assert_eq!(of(&["b", "a", "b", "", " "]), of(&["a", "b"]));
        assert_eq!(of(&[""]), Namespaces::default());
    }

    #[test]
    fn the_store_is_filled_when_every_namespace_is_listed() {
        let mut both = Both::new();
        let first = [Init, InitApply(ticket("a", "1")), InitDone];
        assert_eq!(both.feed(0, first), (0, vec![]));
        // What happens meanwhile is not lost.
        let meanwhile = [
            Apply(ticket("a", "2")),
            Apply(ticket("a", "3")),
            Delete(ticket("a", "1")),
        ];
        assert_eq!(both.feed(0, meanwhile), (0, vec![]));
        let second = [Init, InitApply(ticket("b", "1")), InitDone];
        let all = ["a/2", "a/3", "b/1"].map(str::to_string).to_vec();
        assert_eq!(both.feed(1, second), (5, all));
    }

    #[test]
    fn a_list_that_starts_again_before_the_others_are_there_counts_once() {
        let mut both = Both::new();
        both.feed(0, [Init, InitApply(ticket("a", "1")), InitDone]);
        both.feed(0, [Init, InitApply(ticket("a", "2"))]);
        assert_eq!(both.feed(1, [Init, InitDone]), (0, vec![]));
        assert_eq!(both.feed(0, [InitDone]), (3, vec!["a/2".to_string()]));
    }

    #[test]
    fn a_namespace_that_is_listed_again_changes_its_own_objects_only() {
        let mut both = Both::new();
        both.feed(
            0,
            [
                Init,
                InitApply(ticket("a", "1")),
                InitApply(ticket("a", "2")),
                InitDone,
            ],
        );
        both.feed(1, [Init, InitApply(ticket("b", "1")), InitDone]);
        let again = [
            Init,
            InitApply(ticket("a", "2")),
            InitApply(ticket("a", "3")),
        ];
        let all = ["a/1", "a/2", "a/3", "b/1"].map(str::to_string).to_vec();
        assert_eq!(both.feed(0, again), (2, all));
        let left = ["a/2", "a/3", "b/1"].map(str::to_string).to_vec();
        assert_eq!(both.feed(0, [InitDone]), (1, left));
        let (_, left) = both.feed(1, [Delete(ticket("b", "1"))]);
        assert_eq!(left, ["a/2", "a/3"]);
    }

    #[test]
    fn an_error_of_one_watch_passes_and_changes_nothing() {
        let mut both = Both::new();
        let error = watcher::Error::NoResourceVersion;
        assert!(matches!(
            both.merge.step(0, Err(error)).as_slice(),
            [Err(_)]
        ));
        let (_, all) = both.feed(0, [Init, InitDone]);
        assert!(all.is_empty());
    }
}
