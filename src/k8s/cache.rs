//! What a process remembers between two passes. All of it may be lost in a restart.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A map that many tasks share. No lock is held across an await.
#[derive(Debug)]
pub struct Remembered<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq, V> Remembered<K, V> {
    /// The map itself, for reading and writing in one go.
    pub fn lock(&self) -> MutexGuard<'_, HashMap<K, V>> {
        // A panic elsewhere leaves the map intact: every change here is one insert or remove.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
        V: Clone,
    {
        self.lock().get(key).cloned()
    }

    /// Remembers a value; returns the previous one.
    pub fn set(&self, key: K, value: V) -> Option<V> {
        self.lock().insert(key, value)
    }

    pub fn forget<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.lock().remove(key)
    }

    /// Remembers a value; reports whether it differs from the previous one.
    pub fn changed(&self, key: K, value: V) -> bool
    where
        V: PartialEq,
    {
        let mut map = self.lock();
        if map.get(&key) == Some(&value) {
            return false;
        }
        map.insert(key, value);
        true
    }
}
