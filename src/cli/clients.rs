//! `kubectl halopsa clients CONNECTION`: which clients can be imported.

use super::cluster::Cluster;
use super::error::Error;
use super::table::table;
use super::terminal::safe;
use crate::api::client::{ImportedClient, ImportedClientSpec};
use crate::api::{HaloPSAConnection, LocalRef};
use crate::halopsa::types::HaloClient;
use crate::ticket::route;
use kube::api::{Api, ListParams};
use kube::{Resource, ResourceExt};
use serde_json::json;

/// The tenant's clients as a table, or ImportedClients for those named as YAML.
pub async fn run(cluster: &Cluster, name: &str, import: &[String]) -> Result<String, Error> {
    let connection = cluster.connection(name).await?;
    let mut clients = cluster.halo(&connection).await?.clients().await?;
    clients.sort_by_key(|c| c.name.to_lowercase());
    let api: Api<ImportedClient> = Api::namespaced(cluster.kube.clone(), &cluster.namespace);
    let imported: Vec<ImportedClient> = api
        .list(&ListParams::default())
        .await?
        .items
        .into_iter()
        .filter(|c| c.spec.connection_ref.name == name)
        .collect();
    if import.is_empty() {
        Ok(list(&clients, &imported))
    } else {
        yaml(&connection, &clients, &imported, import)
    }
}

fn as_imported<'a>(
    client: &HaloClient,
    imported: &'a [ImportedClient],
) -> Option<&'a ImportedClient> {
    imported.iter().find(|i| {
        i.spec
            .halo_client_id
            .or_else(|| i.status.as_ref()?.halo_client_id)
            == Some(client.id)
    })
}

/// The table of clients.
fn list(clients: &[HaloClient], imported: &[ImportedClient]) -> String {
    let mut rows = vec![
        ["HALO ID", "NAME", "IMPORTED AS", "STATE"]
            .map(str::to_string)
            .to_vec(),
    ];
    rows.extend(clients.iter().map(|client| {
        let (name, state) = match as_imported(client, imported) {
            Some(i) => (
                i.name_any(),
                i.status
                    .as_ref()
                    .and_then(|s| s.agent)
                    .map_or("Pending".to_string(), |a| format!("{a:?}")),
            ),
            None => (
                "-".to_string(),
                if client.inactive {
                    "inactive in HaloPSA"
                } else {
                    ""
                }
                .to_string(),
            ),
        };
        vec![client.id.to_string(), client.name.clone(), name, state]
    }));
    table(&rows)
}

/// ImportedClients for the wanted names or ids.
fn yaml(
    connection: &HaloPSAConnection,
    clients: &[HaloClient],
    imported: &[ImportedClient],
    wanted: &[String],
) -> Result<String, Error> {
    let mut out = String::new();
    let mut taken: Vec<String> = imported.iter().map(ResourceExt::name_any).collect();
    for wanted in wanted {
        let found = clients.iter().find(|c| {
            c.name.eq_ignore_ascii_case(wanted.trim()) || c.id.to_string() == wanted.trim()
        });
        let client = found.ok_or_else(|| {
            Error::Other(format!(
                "HaloPSA has no client \"{wanted}\"; run this without --import to see the names"
            ))
        })?;
        if let Some(already) = as_imported(client, imported) {
            out.push_str(&format!(
                "# {} is already imported as {}\n",
                safe(&client.name),
                already.name_any()
            ));
            continue;
        }
        let name = route::slug(&client.name, client.id, |slug| {
            taken.iter().any(|t| t == slug)
        });
        taken.push(name.clone());
        let spec = ImportedClientSpec {
            connection_ref: LocalRef {
                name: connection.name_any(),
            },
            halo_client_id: Some(client.id),
            ..Default::default()
        };
        let object = json!({
            "apiVersion": ImportedClient::api_version(&()), "kind": ImportedClient::kind(&()),
            "metadata": {"name": name, "namespace": connection.namespace()},
            "spec": {"connectionRef": spec.connection_ref, "haloClientId": spec.halo_client_id},
        });
        let text = serde_yaml::to_string(&object).map_err(|e| Error::Other(e.to_string()))?;
        out.push_str(&format!("---\n# {}\n{text}", safe(&client.name)));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_prints() {
        let clients = [
            HaloClient {
                id: 12,
                name: "Acme".into(),
                inactive: false,
            },
            HaloClient {
                id: 13,
                name: "Old".into(),
                inactive: true,
            },
        ];
        let imported = [ImportedClient::new(
            "acme",
            ImportedClientSpec {
                halo_client_id: Some(12),
                ..Default::default()
            },
        )];
        let text = list(&clients, &imported);
        assert!(
            text.contains("12        Acme   acme") && text.contains("inactive in HaloPSA"),
            "{text}"
        );
        let connection = HaloPSAConnection::new("halo", Default::default());
        let text = yaml(
            &connection,
            &clients,
            &imported,
            &["old".into(), "12".into()],
        )
        .unwrap();
        assert!(
            text.contains("haloClientId: 13")
                && text.contains("# Acme is already imported as acme"),
            "{text}"
        );
        assert!(yaml(&connection, &clients, &imported, &["Nobody".into()]).is_err());
    }

    #[test]
    fn a_clients_name_is_no_yaml() {
        let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding";
        for line in ["\n", "\r", "\r\n", "\u{85}", "\u{2028}", "\u{2029}"] {
            let name = format!("Acme\u{1b}[2J{line}---{line}{}", role.replace('\n', line));
            let client = HaloClient {
                id: 12,
                name,
                inactive: false,
            };
            let connection = HaloPSAConnection::new("halo", Default::default());
            let spec = ImportedClientSpec {
                halo_client_id: Some(12),
                ..Default::default()
            };
            let imported = [ImportedClient::new("acme", spec)];
            let clients = [client];
            let printed = |imported: &[ImportedClient]| {
                let text = yaml(&connection, &clients, imported, &["12".into()]).unwrap();
                let moves = ['\u{1b}', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
                assert!(!text.contains(moves), "{text}");
                text
            };
            let text = printed(&[]);
            // One document: more of them are an error.
            let document: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
            assert_eq!(document["kind"], "ImportedClient");
            assert!(printed(&imported).lines().all(|l| l.starts_with('#')));
            assert!(!list(&clients, &imported).contains('\u{1b}'));
        }
    }
}
