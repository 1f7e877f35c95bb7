//! Writing webhooks and what they are subscribed to.

use super::{Key, No, Object, Outcome, Store, flag, number, object, text};
use serde_json::{Value, json};

impl Store {
    /// Creates or updates a webhook. Its `events` are a read-only join.
    pub fn write_webhook(&mut self, input: &Object) -> Outcome<Object> {
        let id = text(input, "id").to_ascii_lowercase();
        let mut webhook = match id.is_empty() {
            false => self.webhooks.get(&id).cloned().ok_or(No::NotFound)?,
            true => object(json!({
                "id": uuid::Uuid::new_v4().to_string(), "type": 0, "method": 0, "content_type": "application/json", "authentication_type": 0,
                "active": true, "disabled": false, "payload_type": 0, "batch_method": 0, "batch_delay_seconds": 30, "batch_limit": 0,
                "auto_disable_attempts": 0, "log_retention_policy_days": 30, "note": "",
            })),
        };
        for (key, value) in input {
            if key != "id" && key != "events" {
                webhook.insert(key.clone(), value.clone());
            }
        }
        if text(&webhook, "name").is_empty() || text(&webhook, "url").is_empty() {
            return Err(No::BadRequest(
                "A Name and a URL must be entered for this Webhook",
            ));
        }
        if text(&webhook, "url").len() > 500 || text(&webhook, "name").len() > 255 {
            return Err(No::BadRequest(
                "The Name or the URL of this Webhook is too long",
            ));
        }
        if !flag(&webhook, "disabled") {
            webhook.insert("failures".into(), 0.into());
        }
        let id = text(&webhook, "id").to_string();
        self.put_webhook(webhook);
        if self.settings.events_in_webhook
            && let Some(events) = input.get("events").and_then(Value::as_array)
        {
            for event in events {
                let mut row = object(event.clone());
                row.insert("webhook_id".into(), id.clone().into());
                self.write_notification(&row)?;
            }
        }
        self.read_webhook(&id).ok_or(No::NotFound)
    }

    /// Stores a webhook as is.
    pub fn put_webhook(&mut self, webhook: Object) {
        let id = text(&webhook, "id").to_ascii_lowercase();
        self.changed.insert(Key::Webhook(id.clone()));
        self.webhooks.insert(id, webhook);
    }

    /// A webhook as clients see it: with its events, without its password.
    pub fn read_webhook(&self, id: &str) -> Option<Object> {
        let mut webhook = self.webhooks.get(&id.to_ascii_lowercase())?.clone();
        webhook.remove("basic_password");
        webhook.remove("failures");
        let events: Vec<Value> = self
            .notifications_of(id)
            .map(|n| Value::Object(n.clone()))
            .collect();
        webhook.insert("events".into(), events.into());
        Some(webhook)
    }

    pub fn notifications_of<'a>(&'a self, webhook: &'a str) -> impl Iterator<Item = &'a Object> {
        self.kind("notification")
            .into_iter()
            .flat_map(|rows| rows.values())
            .filter(move |n| text(n, "webhook_id").eq_ignore_ascii_case(webhook))
    }

    pub fn delete_webhook(&mut self, id: &str) -> Outcome<Object> {
        let id = id.to_ascii_lowercase();
        let webhook = self.webhooks.remove(&id).ok_or(No::NotFound)?;
        let rows: Vec<i64> = self
            .notifications_of(&id)
            .filter_map(|n| number(n, "id"))
            .collect();
        for row in rows {
            self.remove("notification", row);
        }
        self.changed.insert(Key::Webhook(id));
        Ok(webhook)
    }

    /// Subscribes; a row with an existing guid moves from its old webhook.
    pub fn write_notification(&mut self, input: &Object) -> Outcome<Object> {
        let webhook = text(input, "webhook_id");
        if !webhook.is_empty() && !self.webhooks.contains_key(&webhook.to_ascii_lowercase()) {
            return Err(No::BadRequest("Record not found"));
        }
        if number(input, "eventno").is_none() && number(input, "id").is_none() {
            return Err(No::BadRequest(
                "An Event must be selected for this Notification",
            ));
        }
        let guid = text(input, "guid").to_string();
        let existing = self
            .kind("notification")
            .and_then(|rows| {
                rows.values()
                    .find(|n| !guid.is_empty() && text(n, "guid") == guid)
            })
            .cloned();
        let mut row = existing.unwrap_or_else(|| object(json!({"guid": uuid::Uuid::new_v4().to_string(), "filter_type": 2, "emailtemplate_id": 32})));
        row.extend(
            input
                .iter()
                .filter(|(key, _)| *key != "guid" && *key != "id")
                .map(|(k, v)| (k.clone(), v.clone())),
        );
        // Some clients send it as text.
        if let Some(number) = number(&row, "eventno") {
            row.insert("eventno".into(), number.into());
        }
        let id = self.put("notification", row);
        Ok(self
            .get("notification", id)
            .map(|n| n.into_owned())
            .unwrap_or_default())
    }

    /// Counts a failed or successful delivery; true if this disabled the webhook.
    pub fn count_delivery(&mut self, webhook: &str, failed: bool) -> bool {
        let id = webhook.to_ascii_lowercase();
        let Some(hook) = self.webhooks.get_mut(&id) else {
            return false;
        };
        let before = number(hook, "failures").unwrap_or_default();
        let failures = if failed { before + 1 } else { 0 };
        if failures == before {
            return false;
        }
        hook.insert("failures".into(), failures.into());
        let limit = number(hook, "auto_disable_attempts").unwrap_or_default();
        let off = failed && limit > 0 && failures >= limit && !flag(hook, "disabled");
        if off {
            hook.insert("disabled".into(), true.into());
        }
        self.changed.insert(Key::Webhook(id));
        off
    }
}
