//! Objects that the operator makes. Another's object of the same name is left as it is.

use super::names;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::{Api, Patch, PatchParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{kind} {name} exists and is not the operator's, so it was left as it is; delete or rename \
         it, or hand it over: kubectl label {kind} {name} {}={}",
        names::MANAGED_BY,
        names::OPERATOR
    )]
    NameTaken { kind: String, name: String },
    #[error("{}", super::explain(.0))]
    Kube(#[from] kube::Error),
}

/// Whether the operator made the object: by its label, or because it has written it before.
pub fn is_ours(meta: &ObjectMeta) -> bool {
    let label = meta.labels.as_ref().and_then(|l| l.get(names::MANAGED_BY));
    let mut fields = meta.managed_fields.iter().flatten();
    label.is_some_and(|by| by == names::OPERATOR)
        || fields.any(|f| f.manager.as_deref() == Some(names::CONTROLLER))
}

/// Applies an object as the controller. `observed`: the object as it was found; none, if there was
/// none. Should another's object have come in between, the apiserver reports the conflict.
pub async fn apply<K>(
    api: &Api<K>,
    name: &str,
    observed: Option<&ObjectMeta>,
    wanted: &(impl Serialize + Debug),
) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let taken = || Error::NameTaken {
        kind: K::kind(&()).into_owned(),
        name: name.into(),
    };
    let params = PatchParams::apply(names::CONTROLLER);
    let params = match observed {
        Some(meta) if !is_ours(meta) => return Err(taken()),
        Some(_) => params.force(),
        None => params,
    };
    match api.patch(name, &params, &Patch::Apply(wanted)).await {
        Ok(stored) => Ok(stored),
        Err(error) if observed.is_none() && super::is_conflict(&error) => Err(taken()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn whose_an_object_is() {
        for (meta, ours) in [
            (json!({}), false),
            (
                json!({"labels": {"app.kubernetes.io/managed-by": "Helm"}}),
                false,
            ),
            (
                json!({"labels": {"app.kubernetes.io/managed-by": "halopsa-operator"}}),
                true,
            ),
            (json!({"managedFields": [{"manager": "kubectl"}]}), false),
            (
                json!({"managedFields": [{"manager": "k"}, {"manager": "halopsa-controller"}]}),
                true,
            ),
        ] {
            let parsed: ObjectMeta = serde_json::from_value(meta.clone()).unwrap();
            assert_eq!(is_ours(&parsed), ours, "{meta}");
        }
    }
}
