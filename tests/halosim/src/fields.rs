//! The fields HaloPSA's objects have. Those with no value are null on the wire: a
//! full ticket has more than 800. A client that cannot handle that fails here first.

use crate::store::Object;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::LazyLock;

/// The fields a list shows of each row, and those a single object has besides.
static FIELDS: LazyLock<HashMap<&'static str, Vec<&'static str>>> = LazyLock::new(|| {
    include_str!("fields.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(": "))
        .map(|(name, fields)| (name, fields.split(' ').collect()))
        .collect()
});

/// How much of an object is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    List,
    Detail,
}

/// Adds the fields that have no value.
pub fn fill(kind: &str, depth: Depth, object: &mut Object) {
    let (list, detail) = (format!("{kind}.list"), format!("{kind}.detail"));
    let detail = FIELDS
        .get(detail.as_str())
        .filter(|_| depth == Depth::Detail);
    for field in FIELDS
        .get(list.as_str())
        .into_iter()
        .chain(detail)
        .flatten()
    {
        if !object.contains_key(*field) {
            object.insert((*field).to_string(), Value::Null);
        }
    }
}
