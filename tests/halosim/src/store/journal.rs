//! The state in a file: what was written since the seed, one JSON object per line.
//!
//! The first line names the seed and keeps the CA, so that a restarted simulator is
//! the same one to its clients. Lines are appended when a write is answered, so a
//! killed simulator loses nothing it confirmed; a power cut may cost the last second.
//! A truncated line is ignored. At start the file is rewritten without the lines that
//! later ones replaced.

use super::{Action, Key, Object, Store, number, text};
use crate::auth::Application;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What a state is built on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub seed: String,
    pub ca_pem: String,
    pub ca_key: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line {
    Row {
        of: String,
        id: i64,
        object: Option<Object>,
    },
    Action {
        ticket: i64,
        id: i64,
        object: Option<Object>,
    },
    Webhook {
        id: String,
        object: Option<Object>,
    },
    Delivery {
        object: Object,
    },
    Application {
        object: Application,
    },
}

#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

/// What a journal held.
#[derive(Debug, Default)]
pub struct Kept {
    lines: Vec<Line>,
    pub applications: Vec<Application>,
}

impl Journal {
    /// Reads a state, if there is one.
    pub fn read(path: &Path) -> std::io::Result<Option<(Head, Kept)>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut lines = BufReader::new(file).lines();
        let bad = |what: &str| {
            std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                format!("{} is not a halosim state: {what}", path.display()),
            )
        };
        let Some(head) = lines.next() else {
            return Ok(None);
        };
        let head: Head = serde_json::from_str(&head?).map_err(|e| bad(&e.to_string()))?;
        // The last line per record wins.
        let mut last: BTreeMap<String, Line> = BTreeMap::new();
        let mut deliveries = Vec::new();
        for line in lines {
            let Ok(line) = line else { break };
            let Ok(line) = serde_json::from_str::<Line>(&line) else {
                continue;
            };
            let key = match &line {
                Line::Row { of, id, .. } => format!("row {of} {id:020}"),
                Line::Action { ticket, id, .. } => format!("action {ticket:020} {id:020}"),
                Line::Webhook { id, .. } => format!("webhook {id}"),
                Line::Application { object } => format!("application {}", object.client_id),
                Line::Delivery { .. } => {
                    deliveries.push(line);
                    continue;
                }
            };
            last.insert(key, line);
        }
        let kept_from = deliveries.len().saturating_sub(super::MAX_DELIVERIES);
        let lines: Vec<Line> = last
            .into_values()
            .chain(deliveries.into_iter().skip(kept_from))
            .collect();
        let applications = lines
            .iter()
            .filter_map(|line| {
                if let Line::Application { object } = line {
                    Some(object.clone())
                } else {
                    None
                }
            })
            .collect();
        Ok(Some((
            head,
            Kept {
                lines,
                applications,
            },
        )))
    }

    /// Starts a new file with the kept state, replacing the old one.
    pub fn start(path: &Path, head: &Head, kept: &Kept) -> std::io::Result<Self> {
        let new = path.with_extension("new");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&new)?;
        let mut text = serde_json::to_string(head)? + "\n";
        for line in &kept.lines {
            text += &serde_json::to_string(line)?;
            text.push('\n');
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
        })
    }

    fn append(&mut self, lines: &[Line]) {
        let mut text = String::new();
        for line in lines {
            text += &serde_json::to_string(line).unwrap_or_default();
            text.push('\n');
        }
        if let Err(error) = self.file.write_all(text.as_bytes()) {
            tracing::error!(%error, path = %self.path.display(), "cannot write the state; a restart will lose the latest changes");
        }
    }

    /// Syncs to disk, in case of a power cut.
    pub fn sync(&self) {
        let _ = self.file.sync_data();
    }

    pub fn write_application(&mut self, application: &Application) {
        self.append(&[Line::Application {
            object: application.clone(),
        }]);
    }
}

impl Store {
    /// Writes what has changed since the last call.
    pub fn write_journal(&mut self, journal: Option<&mut Journal>) {
        let changed = std::mem::take(&mut self.changed);
        let Some(journal) = journal.filter(|_| !changed.is_empty()) else {
            return;
        };
        let lines: Vec<Line> = changed
            .into_iter()
            .filter_map(|key| match key {
                Key::Row(of, id) => Some(Line::Row {
                    of: of.into(),
                    id,
                    object: self.get(of, id).map(|o| o.into_owned()),
                }),
                Key::Action(ticket, id) => {
                    let found = self
                        .actions
                        .get(&ticket)
                        .and_then(|a| a.iter().find(|a| number(&a.object, "id") == Some(id)));
                    Some(Line::Action {
                        ticket,
                        id,
                        object: found.map(|a| a.object.clone()),
                    })
                }
                Key::Webhook(id) => Some(Line::Webhook {
                    object: self.webhooks.get(&id).cloned(),
                    id,
                }),
                Key::Delivery(id) => Some(Line::Delivery {
                    object: self
                        .deliveries
                        .iter()
                        .find(|d| text(d, "id") == id)?
                        .clone(),
                }),
            })
            .collect();
        journal.append(&lines);
    }

    /// Brings back what a journal kept, over the seed.
    pub fn restore(&mut self, kept: &Kept) {
        for line in kept.lines.clone() {
            match line {
                Line::Row { of, id, object } => {
                    let Some(kind) = super::KINDS.iter().find(|k| **k == of) else {
                        continue;
                    };
                    let rows = self.kinds.entry(kind).or_default();
                    match object {
                        Some(object) => rows.insert(id, object),
                        None => {
                            rows.remove(id);
                        }
                    }
                }
                Line::Action { ticket, id, object } => {
                    let actions = self.actions.entry(ticket).or_default();
                    actions.retain(|a| number(&a.object, "id") != Some(id));
                    if let Some(object) = object {
                        actions.push(Action {
                            object,
                            visible_at: Instant::now(),
                        });
                    }
                }
                Line::Webhook { id, object } => match object {
                    Some(object) => {
                        self.webhooks.insert(id, object);
                    }
                    None => {
                        self.webhooks.remove(&id);
                    }
                },
                Line::Delivery { object } => self.deliveries.push_front(object),
                Line::Application { .. } => {}
            }
        }
        self.changed.clear();
    }

    /// The seed itself is not a change.
    pub fn seeded(&mut self) {
        self.changed.clear();
    }
}

/// A state's head from its parts.
pub fn head(seed: &str, ca_pem: &str, ca_key: &str) -> Head {
    Head {
        seed: seed.into(),
        ca_pem: ca_pem.into(),
        ca_key: ca_key.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::{self, Seed};
    use crate::store::{Author, object};
    use serde_json::json;

    #[test]
    fn a_killed_simulator_has_lost_nothing() {
        let path = std::env::temp_dir().join(format!("halosim-journal-{}", uuid::Uuid::new_v4()));
        let head = head("demo", "pem", "key");
        let mut journal = Journal::start(&path, &head, &Kept::default()).unwrap();
        let mut store = seed::make(&Seed::Demo);
        let author = Author::Agent {
            id: 3,
            application: "web".into(),
        };
        let (ticket, _) = store
            .write_ticket(&object(json!({"summary": "x", "client_id": 12})), &author)
            .unwrap();
        let id = number(&ticket, "id").unwrap();
        store
            .write_action(
                &object(json!({"ticket_id": id, "outcome": "Private Note", "note": "kept"})),
                &author,
                Instant::now(),
            )
            .unwrap();
        store
            .write_action(
                &object(json!({"ticket_id": id, "outcome": "Private Note", "note": "removed"})),
                &author,
                Instant::now(),
            )
            .unwrap();
        store.write_journal(Some(&mut journal));
        store.delete_action(id, 3).unwrap();
        store.remove("tickets", 4001);
        store.write_journal(Some(&mut journal));
        // A truncated line.
        journal
            .file
            .write_all(b"{\"kind\":\"row\",\"of\":\"tick")
            .unwrap();

        for _ in 0..2 {
            let (read, kept) = Journal::read(&path).unwrap().unwrap();
            assert_eq!(read, head);
            let mut again = seed::make(&Seed::Demo);
            again.restore(&kept);
            assert_eq!(
                again.get("tickets", id).unwrap().into_owned(),
                ticket_of(&store, id)
            );
            assert_eq!(again.actions(id).len(), 2);
            assert!(again.get("tickets", 4001).is_none() && again.get("tickets", 4002).is_some());
            Journal::start(&path, &head, &kept).unwrap();
        }
        std::fs::remove_file(path).unwrap();
    }

    fn ticket_of(store: &Store, id: i64) -> Object {
        store.get("tickets", id).unwrap().into_owned()
    }

    #[test]
    fn a_file_of_something_else_is_refused() {
        let path = std::env::temp_dir().join(format!("halosim-journal-{}", uuid::Uuid::new_v4()));
        std::fs::write(&path, "hello\n").unwrap();
        assert!(
            Journal::read(&path)
                .unwrap_err()
                .to_string()
                .contains("is not a halosim state")
        );
        std::fs::remove_file(path).unwrap();
    }
}
