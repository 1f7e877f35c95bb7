//! Files on tickets and actions.

use super::{Key, No, Object, Outcome, Store, number, object, text};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Bytes of one file.
const MAX_FILE: usize = 8 << 20;
/// Files per write.
const MAX_FILES: usize = 20;

impl Store {
    /// Adds the `attachments` of a posted ticket or action; returns how many. Anything that is
    /// not a file is skipped.
    pub(super) fn attach(&mut self, input: &Object, ticket: i64, action: i64) -> usize {
        let files = input
            .get("attachments")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let files = files.into_iter().take(MAX_FILES).map(object);
        files
            .filter(|file| {
                self.write_attachment(&with(file.clone(), ticket, action))
                    .is_ok()
            })
            .count()
    }

    /// `POST /Attachment`: `ticket_id`, `filename` and `data_base64`.
    pub fn write_attachment(&mut self, input: &Object) -> Outcome<Object> {
        let ticket =
            number(input, "ticket_id").ok_or(No::BadRequest("An Attachment needs a Ticket"))?;
        if self.get("tickets", ticket).is_none() {
            return Err(No::BadRequest("Record not found"));
        }
        let (name, data) = (text(input, "filename"), text(input, "data_base64"));
        if name.is_empty() || name.len() > 255 {
            return Err(No::BadRequest(
                "A File Name must be entered for this Attachment",
            ));
        }
        // As browsers send it: data:image/png;base64,...
        let data = data.rsplit_once("base64,").map_or(data, |(_, data)| data);
        let bytes = STANDARD
            .decode(data)
            .map_err(|_| No::BadRequest("The Attachment is not valid base64"))?;
        if bytes.len() > MAX_FILE {
            return Err(No::BadRequest("The Attachment is too large"));
        }
        let action = number(input, "action_id").unwrap_or_default();
        let now = self.now();
        let id = self.put(
            "attachment",
            object(json!({
                "ticket_id": ticket, "action_id": action, "filename": name, "filesize": bytes.len(), "type": 0, "desc": text(input, "desc"),
                "content_type": content_type(name), "isimage": content_type(name).starts_with("image/"), "datecreated": now,
                "unique_id": uuid::Uuid::new_v4().to_string(), "data_base64": data,
            })),
        );
        self.add(ticket, "attachment_count", 1);
        let found = self.actions.get_mut(&ticket).and_then(|a| {
            a.iter_mut()
                .find(|a| number(&a.object, "id") == Some(action))
        });
        if let Some(found) = found {
            let count = number(&found.object, "attachment_count").unwrap_or_default() + 1;
            found.object.insert("attachment_count".into(), count.into());
            self.changed.insert(Key::Action(ticket, action));
        }
        let mut shown = self
            .get("attachment", id)
            .map(|a| a.into_owned())
            .unwrap_or_default();
        shown.remove("data_base64");
        Ok(shown)
    }

    pub fn attachment(&self, id: i64) -> Option<(Object, Vec<u8>)> {
        let mut object = self.get("attachment", id)?.into_owned();
        let data = object
            .remove("data_base64")
            .and_then(|d| d.as_str().and_then(|d| STANDARD.decode(d).ok()));
        Some((object, data.unwrap_or_default()))
    }
}

fn with(mut file: Object, ticket: i64, action: i64) -> Object {
    file.insert("ticket_id".into(), ticket.into());
    file.insert("action_id".into(), action.into());
    file
}

fn content_type(name: &str) -> &'static str {
    match name
        .rsplit_once('.')
        .map(|(_, end)| end.to_ascii_lowercase())
        .as_deref()
    {
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("gif") => "image/gif",
        Some("pdf") => "application/pdf",
        Some("txt" | "log") => "text/plain",
        _ => "application/octet-stream",
    }
}
