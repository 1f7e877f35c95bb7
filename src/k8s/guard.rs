//! Objects that this version cannot read: one of them must not keep a watch from the others.
//!
//! What the apiserver stores need not parse: it was written by another version, or is nested more
//! deeply than our parser goes. `kube::core::DeserializeGuard` holds the first, but not the
//! second: it fails with the whole list. [`Guarded`] takes an object's text first, which has no
//! limit of depth, and parses it on its own.

use super::cache::Remembered;
use super::key::Key;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::Resource;
use kube::api::ApiResource;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::hash::Hash;
use std::sync::Arc;
use tokio::sync::watch;

/// The longest path to a field that is shown.
const MAX_PATH: usize = 120;

/// An object as the apiserver sends it: read, or known to be unreadable.
#[derive(Clone, Debug)]
pub struct Guarded<K>(pub Result<K, Box<Unreadable>>);

/// An object that cannot be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// Name, namespace, uid, resourceVersion and generation.
    pub metadata: ObjectMeta,
    /// Which field, and what to do about it; never its value.
    pub why: String,
    /// Its conditions, as far as they can be read.
    pub conditions: Vec<Condition>,
}

/// What of an object's metadata is read if the object is not. Not all of it: who owns which field
/// is nested as deeply as the object.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Outline {
    metadata: OutlineMeta,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OutlineMeta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Conditions {
    status: ConditionList,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConditionList {
    conditions: Vec<Condition>,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        match serde_json::from_str(raw.get()) {
            Ok(object) => Ok(Self(Ok(object))),
            Err(_) => unreadable::<K>(raw.get())
                .map(|unreadable| Self(Err(Box::new(unreadable))))
                .map_err(D::Error::custom),
        }
    }
}

fn unreadable<K: DeserializeOwned>(json: &str) -> Result<Unreadable, serde_json::Error> {
    let meta = serde_json::from_str::<Outline>(json)?.metadata;
    let conditions = serde_json::from_str::<Conditions>(json).unwrap_or_default();
    Ok(Unreadable {
        metadata: ObjectMeta {
            name: meta.name,
            namespace: meta.namespace,
            uid: meta.uid,
            resource_version: meta.resource_version,
            generation: meta.generation,
            ..ObjectMeta::default()
        },
        why: why::<K>(json),
        conditions: conditions.status.conditions,
    })
}

/// Which field cannot be read, and what to do. The parser's own words quote the value.
fn why<K: DeserializeOwned>(json: &str) -> String {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let (path, category) = match serde_path_to_error::deserialize::<_, K>(&mut deserializer) {
        Ok(_) => (String::new(), Category::Data),
        Err(error) => (error.path().to_string(), error.inner().classify()),
    };
    let mut field: String = path.chars().take(MAX_PATH).collect();
    if field.len() < path.len() {
        field.push('…');
    }
    if field.is_empty() || field == "." {
        field = "the object".into();
    }
    match category {
        Category::Data if field.starts_with("status") => format!(
            "{field} was written by another version of the operator and cannot be read; install \
             that version again, or delete the object"
        ),
        Category::Data => format!(
            "{field} cannot be read by this version of the operator; correct it, or install the \
             version that knows it"
        ),
        _ => format!("{field} is nested too deeply to be read; make it flatter"),
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn api_version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::api_version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn url_path(dt: &Self::DynamicType, namespace: Option<&str>) -> String {
        K::url_path(dt, namespace)
    }

    fn meta(&self) -> &ObjectMeta {
        match &self.0 {
            Ok(object) => object.meta(),
            Err(unreadable) => &unreadable.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(object) => object.meta_mut(),
            Err(unreadable) => &mut unreadable.metadata,
        }
    }
}

/// An unreadable object and its kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub resource: ApiResource,
    pub object: Unreadable,
}

/// The objects of all watches that cannot be read now.
#[derive(Debug)]
pub struct Unreadables {
    /// By kind, namespace and name.
    objects: Remembered<(String, Key), Found>,
    changed: watch::Sender<()>,
}

impl Default for Unreadables {
    fn default() -> Self {
        Self {
            objects: Remembered::default(),
            changed: watch::Sender::new(()),
        }
    }
}

impl Unreadables {
    pub fn all(&self) -> Vec<((String, Key), Found)> {
        let objects = self.objects.lock();
        objects
            .iter()
            .map(|(key, found)| (key.clone(), found.clone()))
            .collect()
    }

    /// Moves whenever one was added or is gone.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Whether this object exists and cannot be read: then it is not gone.
    pub fn has<K: Resource<DynamicType = ()>>(&self, key: &Key) -> bool {
        let kind = K::kind(&());
        let objects = self.objects.lock();
        objects.keys().any(|(of, k)| *of == kind && k == key)
    }

    /// Whether one of this kind in the namespace cannot be read.
    pub fn any<K: Resource<DynamicType = ()>>(&self, namespace: &str) -> bool {
        let kind = K::kind(&());
        let objects = self.objects.lock();
        objects
            .keys()
            .any(|(of, k)| *of == kind && k.namespace == namespace)
    }

    fn add(&self, key: (String, Key), found: Found) {
        let (kind, about) = &key;
        let why = found.object.why.clone();
        let before = self.objects.get(&key).map(|f| f.object.why);
        if before.as_ref() != Some(&why) {
            tracing::warn!(%kind, namespace = about.namespace, name = about.name,
                "an object cannot be read and is left out: {why}");
        }
        if self.objects.changed(key, found) {
            self.changed.send_replace(());
        }
    }

    fn forget(&self, key: &(String, Key)) {
        if self.objects.forget(key).is_some() {
            self.changed.send_replace(());
        }
    }

    fn keep(&self, kind: &str, namespace: Option<&str>, seen: &BTreeSet<Key>) {
        let gone: Vec<(String, Key)> = {
            let objects = self.objects.lock();
            let of_watch = objects
                .keys()
                .filter(|(of, k)| of == kind && namespace.is_none_or(|n| n == k.namespace));
            of_watch
                .filter(|(_, k)| !seen.contains(k))
                .cloned()
                .collect()
        };
        for key in gone {
            self.forget(&key);
        }
    }
}

/// Sorts what a watch brings: readable objects pass, the others are remembered.
pub struct Sorter<K: Resource + Clone + 'static>
where
    K::DynamicType: Hash + Eq + Clone + Default,
{
    unreadables: Arc<Unreadables>,
    store: Store<K>,
    /// The watch's; none: all.
    namespace: Option<String>,
    resource: ApiResource,
    /// Those found since the watch started again.
    seen: BTreeSet<Key>,
}

impl<K> Sorter<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Hash + Eq + Clone + Default,
{
    pub fn new(unreadables: Arc<Unreadables>, store: Store<K>, namespace: Option<String>) -> Self {
        Self {
            unreadables,
            store,
            namespace,
            resource: ApiResource::erase::<K>(&K::DynamicType::default()),
            seen: BTreeSet::new(),
        }
    }

    /// The event without unreadable objects. One that could be read before stays as it was then,
    /// until it is deleted or the watch starts again.
    pub fn sort(&mut self, event: Event<Guarded<K>>) -> Option<Event<K>> {
        match event {
            Event::Init => {
                self.seen.clear();
                Some(Event::Init)
            }
            Event::InitDone => {
                let namespace = self.namespace.as_deref();
                self.unreadables
                    .keep(&self.resource.kind, namespace, &self.seen);
                Some(Event::InitDone)
            }
            Event::InitApply(Guarded(Ok(object))) => Some(Event::InitApply(object)),
            Event::Apply(Guarded(Ok(object))) => {
                self.unreadables.forget(&self.key(Key::of(&object)));
                Some(Event::Apply(object))
            }
            Event::Delete(Guarded(Ok(object))) => {
                self.unreadables.forget(&self.key(Key::of(&object)));
                Some(Event::Delete(object))
            }
            Event::InitApply(Guarded(Err(object))) => {
                self.seen.insert(key_of(&object));
                self.add(*object);
                None
            }
            Event::Apply(Guarded(Err(object))) => {
                self.add(*object);
                None
            }
            Event::Delete(Guarded(Err(object))) => {
                let key = key_of(&object);
                let before = ObjectRef::<K>::new(&key.name).within(&key.namespace);
                self.unreadables.forget(&self.key(key));
                let before = self.store.get(&before)?;
                Some(Event::Delete((*before).clone()))
            }
        }
    }

    fn key(&self, key: Key) -> (String, Key) {
        (self.resource.kind.clone(), key)
    }

    fn add(&self, object: Unreadable) {
        let key = self.key(key_of(&object));
        let resource = self.resource.clone();
        self.unreadables.add(key, Found { resource, object });
    }
}

fn key_of(object: &Unreadable) -> Key {
    let meta = &object.metadata;
    Key::new(
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{HaloPSAConnection, Workflow};
    use kube::ResourceExt;
    use kube::core::ObjectList;
    use kube::runtime::reflector;
    use serde_json::{Value, json};

    fn workflow(name: &str, arguments: &str) -> String {
        let mut object = json!({
            "apiVersion": "rallied.ai/v1alpha1", "kind": "Workflow",
            "metadata": {"name": name, "namespace": "msp", "generation": 3},
            "spec": {"connectionRef": {"name": "halo"}, "trigger": "printer",
                     "instructions": "Restart it.",
                     "steps": [{"tool": "t", "arguments": "ARGUMENTS"}]},
        })
        .to_string();
        object = object.replace("\"ARGUMENTS\"", arguments);
        object
    }

    fn nested(depth: usize) -> String {
        format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth))
    }

    #[test]
    fn one_object_nested_too_deeply_does_not_take_the_list_along() {
        let deep = workflow("deep", &nested(10_000));
        assert!(serde_json::from_str::<Workflow>(&deep).is_err());
        let list = format!(
            r#"{{"apiVersion": "rallied.ai/v1alpha1", "kind": "WorkflowList",
                "metadata": {{"resourceVersion": "7"}}, "items": [{deep}, {}]}}"#,
            workflow("flat", &nested(3))
        );
        let list: ObjectList<Guarded<Workflow>> = serde_json::from_str(&list).unwrap();
        assert_eq!(list.metadata.resource_version.as_deref(), Some("7"));
        let bad = list.items[0].0.as_ref().unwrap_err();
        assert_eq!(bad.metadata.name.as_deref(), Some("deep"));
        assert_eq!(bad.metadata.generation, Some(3));
        assert!(
            bad.why.starts_with("spec.steps[0].arguments"),
            "{}",
            bad.why
        );
        assert!(bad.why.contains("nested too deeply"), "{}", bad.why);
        assert!(list.items[1].0.is_ok());
    }

    #[test]
    fn an_event_of_a_watch_is_guarded_as_well() {
        let line = format!(
            r#"{{"type":"ADDED","object":{}}}"#,
            workflow("deep", &nested(10_000))
        );
        let event: kube::core::WatchEvent<Guarded<Workflow>> = serde_json::from_str(&line).unwrap();
        let kube::core::WatchEvent::Added(object) = event else {
            panic!("{event:?}");
        };
        assert!(object.0.is_err());
        assert_eq!(object.name_any(), "deep");
    }

    #[test]
    fn the_field_is_named_and_its_value_is_not() {
        let cases: [(Value, &str); 3] = [
            (
                json!({"spec": {"instanceURL": 7, "mark": "hunter2"}}),
                "spec.instanceURL cannot be read",
            ),
            (
                json!({"status": {"importedClients": "hunter2"}}),
                "status.importedClients was written by another version",
            ),
            (json!({}), "the object cannot be read"),
        ];
        for (mut object, why) in cases {
            object["metadata"] = json!({"name": "halo", "namespace": "msp"});
            if object.get("status").is_some() {
                object["spec"] = json!({
                    "instanceURL": "https://x.example",
                    "credentialsSecretRef": {"name": "s"},
                    "webhook": {"url": "https://w.example"},
                });
            }
            let text = object.to_string();
            let read: Guarded<HaloPSAConnection> = serde_json::from_str(&text).unwrap();
            let bad = read.0.unwrap_err();
            assert!(bad.why.starts_with(why), "{}", bad.why);
            assert!(!bad.why.contains("hunter2"), "{}", bad.why);
        }
    }

    #[test]
    fn unreadable_objects_are_left_out_and_remembered() {
        let guarded = |text: &str| serde_json::from_str::<Guarded<Workflow>>(text).unwrap();
        let good = workflow("w", "{}");
        let bad = workflow("w", "7");
        let (store, mut writer) = reflector::store::<Workflow>();
        let unreadables = Arc::<Unreadables>::default();
        let key = Key::new("msp", "w");
        let mut sorter = Sorter::new(unreadables.clone(), store, None);
        let event = sorter.sort(Event::Apply(guarded(&good))).unwrap();
        writer.apply_watcher_event(&event);
        assert!(sorter.sort(Event::Apply(guarded(&bad))).is_none());
        assert!(unreadables.has::<Workflow>(&key) && unreadables.any::<Workflow>("msp"));
        assert!(!unreadables.has::<HaloPSAConnection>(&key) && !unreadables.any::<Workflow>("x"));
        // Deleted: whoever knows it as it was before is told.
        let event = sorter.sort(Event::Delete(guarded(&bad)));
        assert!(matches!(event, Some(Event::Delete(_))), "{event:?}");
        assert!(unreadables.all().is_empty());
        // Corrected while the watch was down.
        assert!(sorter.sort(Event::InitApply(guarded(&bad))).is_none());
        assert!(matches!(
            sorter.sort(Event::InitDone),
            Some(Event::InitDone)
        ));
        assert_eq!(unreadables.all().len(), 1);
        assert!(sorter.sort(Event::Init).is_some());
        assert!(sorter.sort(Event::InitApply(guarded(&good))).is_some());
        assert!(sorter.sort(Event::InitDone).is_some());
        assert!(unreadables.all().is_empty());
    }
}
