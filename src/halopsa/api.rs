//! The calls the operator makes, by name.

use super::client::{Client, Priority};
use super::error::Error;
use super::lenient;
use super::types::{Action, Agent, Article, Asset, HaloClient, Named, Notification, PriorityRow, Ticket, User, Webhook, WebhookEvent};
use k8s_openapi::jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Rows asked for on one page; HaloPSA gives at most 100 tickets.
const PAGE_SIZE: usize = 100;
/// Pages read of one list; a list longer than this is an error, not an endless loop.
const MAX_PAGES: usize = 1000;
/// Page cap of a sweep: what is beyond it comes with the next.
const SWEEP_PAGES: usize = 20;

/// An event a webhook can subscribe to: HaloPSA's number and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventType {
    pub number: i64,
    pub name: &'static str,
}

/// New and updated tickets. Numbers as seen on live tenants.
pub const EVENTS: [EventType; 5] = [
    EventType { number: 3, name: "New Ticket Logged" },
    EventType { number: 19, name: "Ticket Updated by User" },
    EventType { number: 39, name: "Closed" },
    EventType { number: 76, name: "Ticket Status Changed" },
    EventType { number: 1072, name: "Ticket Deleted" },
];

/// What a webhook has to be.
#[derive(Clone, Debug)]
pub struct WebhookSpec<'a> {
    pub name: &'a str,
    pub url: &'a str,
    pub username: &'a str,
    pub password: &'a str,
}

impl Client {
    pub async fn me(&self) -> Result<Agent, Error> {
        one(self.get("/Agent/me", &[], Priority::Background).await?, "GET /Agent/me")
    }

    /// Every client the API agent may see, inactive ones too.
    pub async fn clients(&self) -> Result<Vec<HaloClient>, Error> {
        self.all_pages("/Client", "clients", &[("includeinactive", "true".into())], MAX_PAGES).await
    }

    pub async fn ticket(&self, id: i64) -> Result<Ticket, Error> {
        let call = "GET /Tickets/{id}";
        let query = [("includedetails", "true".to_string())];
        let ticket: Ticket = one(self.get(&format!("/Tickets/{id}"), &query, Priority::Ticket).await?, call)
            // A ticket that can't be found is answered with a body without id, too.
            .map_err(|_| Error::NotFound { call: call.into() })?;
        if ticket.id == id { Ok(ticket) } else { Err(Error::NotFound { call: call.into() }) }
    }

    /// A ticket's actions, newest first as HaloPSA lists them.
    pub async fn actions(&self, ticket: i64, count: usize) -> Result<Vec<Action>, Error> {
        let query = [("ticket_id", ticket.to_string()), ("count", count.to_string()), ("excludesys", "true".into())];
        Ok(rows(self.get("/Actions", &query, Priority::Ticket).await?, "actions"))
    }

    pub async fn search_tickets(&self, client: i64, search: &str, count: usize) -> Result<Vec<Ticket>, Error> {
        let query = [
            ("client_id", client.to_string()),
            ("search", search.to_string()),
            ("pageinate", "true".into()),
            ("page_size", count.to_string()),
            ("page_no", "1".into()),
        ];
        Ok(rows(self.get("/Tickets", &query, Priority::Ticket).await?, "tickets"))
    }

    /// Tickets changed since then. HaloPSA lists by id, not by change, so the filter has to do it.
    pub async fn tickets_changed_since(&self, since: Timestamp) -> Result<Vec<Ticket>, Error> {
        let query = [("lastupdatefromdate", since.strftime("%Y-%m-%dT%H:%M:%S").to_string()), ("open_only", "true".into())];
        let tickets: Vec<Ticket> = self.all_pages("/Tickets", "tickets", &query, SWEEP_PAGES).await?;
        // An unknown filter is ignored without a word: check what came back.
        Ok(tickets.into_iter().filter(|t| t.last_update.or(t.dateoccurred).is_none_or(|at| at >= since)).collect())
    }

    pub async fn user(&self, id: i64) -> Result<User, Error> {
        one(self.get(&format!("/Users/{id}"), &[], Priority::Ticket).await?, "GET /Users/{id}")
    }

    pub async fn assets(&self, client: i64, search: &str, count: usize) -> Result<Vec<Asset>, Error> {
        let mut query =
            vec![("client_id", client.to_string()), ("pageinate", "true".into()), ("page_size", count.to_string()), ("page_no", "1".into())];
        if !search.is_empty() {
            query.push(("search", search.to_string()));
        }
        Ok(rows(self.get("/Asset", &query, Priority::Ticket).await?, "assets"))
    }

    pub async fn articles(&self, search: &str, count: usize) -> Result<Vec<Article>, Error> {
        let query = [("search", search.to_string()), ("pageinate", "true".into()), ("page_size", count.to_string()), ("page_no", "1".into())];
        Ok(rows(self.get("/KBArticle", &query, Priority::Ticket).await?, "articles"))
    }

    /// A ticket's actions as people wrote them, newest first, with their HTML.
    pub async fn replies(&self, ticket: i64, count: usize) -> Result<Vec<Action>, Error> {
        let query = [("ticket_id", ticket.to_string()), ("count", count.to_string()), ("includehtmlnote", "true".into())];
        Ok(rows(self.get("/Actions", &query, Priority::Ticket).await?, "actions"))
    }

    pub async fn statuses(&self) -> Result<Vec<Named>, Error> {
        Ok(rows(self.get("/Status", &[], Priority::Ticket).await?, "statuses"))
    }

    pub async fn teams(&self) -> Result<Vec<Named>, Error> {
        Ok(rows(self.get("/Team", &[], Priority::Ticket).await?, "teams"))
    }

    pub async fn ticket_types(&self) -> Result<Vec<Named>, Error> {
        Ok(rows(self.get("/TicketType", &[], Priority::Ticket).await?, "tickettypes"))
    }

    /// Technicians the API agent may see.
    pub async fn agents(&self) -> Result<Vec<Agent>, Error> {
        Ok(rows(self.get("/Agent", &[], Priority::Ticket).await?, "agents"))
    }

    pub async fn priorities(&self) -> Result<Vec<PriorityRow>, Error> {
        Ok(rows(self.get("/Priority", &[], Priority::Ticket).await?, "priorities"))
    }

    pub async fn article(&self, id: i64) -> Result<Article, Error> {
        one(self.get(&format!("/KBArticle/{id}"), &[], Priority::Ticket).await?, "GET /KBArticle/{id}")
    }

    /// Posts an internal note; HaloPSA's id of the action. Sent once: after an
    /// uncertain error look for the note's marker before sending again.
    pub async fn post_internal_note(&self, ticket: i64, outcome: &str, fallback: i64, html: &str) -> Result<Option<i64>, Error> {
        let note = json!({"note_html": html, "hiddenfromuser": true, "sendemail": false});
        self.post_action(ticket, outcome, Some(fallback), note).await
    }

    /// Posts an action with these fields. Sent once, as above.
    pub async fn post_action(&self, ticket: i64, outcome: &str, fallback: Option<i64>, fields: Value) -> Result<Option<i64>, Error> {
        let with = |outcome: (&str, Value)| {
            let mut action = fields.clone();
            action["ticket_id"] = ticket.into();
            action[outcome.0] = outcome.1;
            vec![action]
        };
        let reply = match (self.post("/Actions", with(("outcome", outcome.into())), Priority::Ticket).await, fallback) {
            // The tenant has no action of this name, or renamed it.
            (Err(Error::Rejected { detail, .. }), Some(fallback)) if detail.to_ascii_lowercase().contains("outcome") => {
                self.post("/Actions", with(("outcome_id", fallback.into())), Priority::Ticket).await?
            }
            (other, _) => other?,
        };
        let action = first(&reply);
        Ok(action.get("id").and_then(lenient::integer).filter(|id| *id > 0))
    }

    /// Creates a ticket, or with an id changes just the fields given. Sent once, as above.
    pub async fn post_ticket(&self, ticket: Value) -> Result<Ticket, Error> {
        one(self.post("/Tickets", vec![ticket], Priority::Ticket).await?, "POST /Tickets")
    }

    pub async fn webhooks(&self) -> Result<Vec<Webhook>, Error> {
        Ok(rows(self.get("/Webhook", &[("type", "0".into())], Priority::Background).await?, "webhooks"))
    }

    /// Creates a webhook, or with an id sets it right.
    pub async fn put_webhook(&self, id: Option<&str>, spec: &WebhookSpec<'_>) -> Result<Webhook, Error> {
        let mut webhook = json!({
            "name": spec.name, "url": spec.url, "type": 0, "method": 0, "content_type": "application/json",
            "authentication_type": 1, "basic_username": spec.username, "basic_password": spec.password,
            "active": true, "disabled": false,
        });
        if let Some(id) = id {
            webhook["id"] = id.into();
        }
        one(self.post("/Webhook", vec![webhook], Priority::Background).await?, "POST /Webhook")
    }

    pub async fn delete_webhook(&self, id: &str) -> Result<(), Error> {
        self.delete(&format!("/Webhook/{id}"), Priority::Background).await
    }

    pub async fn notifications(&self, webhook: &str) -> Result<Vec<Notification>, Error> {
        let query = [("webhook_id", webhook.to_string()), ("showall", "true".into())];
        let all: Vec<Notification> = rows(self.get("/Notification", &query, Priority::Background).await?, "notifications");
        Ok(all.into_iter().filter(|n| n.webhook_id.eq_ignore_ascii_case(webhook)).collect())
    }

    pub async fn subscribe(&self, webhook: &str, events: &[EventType]) -> Result<(), Error> {
        let row = |event: &EventType| {
            json!({"webhook_id": webhook, "eventno": event.number, "name": event.name, "type": -2, "delivery_method": 6,
                   "agent_id": 0, "conditions": []})
        };
        self.post("/Notification", events.iter().map(row).collect(), Priority::Background).await.map(|_| ())
    }

    pub async fn unsubscribe(&self, notification: i64) -> Result<(), Error> {
        self.delete(&format!("/Notification/{notification}"), Priority::Background).await
    }

    pub async fn deliveries(&self, webhook: &str, count: usize) -> Result<Vec<WebhookEvent>, Error> {
        let query = [("webhook_id", webhook.to_string()), ("count", count.to_string())];
        Ok(rows(self.get("/WebhookEvent", &query, Priority::Background).await?, "webhookevents"))
    }

    /// Every page of a list. A row that moves to another page while pages are
    /// read may come twice (it is kept once, by id) or be missed until the next reading.
    async fn all_pages<T: DeserializeOwned>(&self, path: &str, envelope: &str, query: &[(&str, String)], max_pages: usize) -> Result<Vec<T>, Error> {
        let mut seen = std::collections::HashSet::new();
        let mut all = Vec::new();
        for page in 1..=max_pages {
            let mut query: Vec<(&str, String)> = query.to_vec();
            query.extend([("pageinate", "true".into()), ("page_size", PAGE_SIZE.to_string()), ("page_no", page.to_string())]);
            let reply = self.get(path, &query, Priority::Background).await?;
            let total = reply.get("record_count").and_then(lenient::integer);
            let page_rows = raw_rows(&reply, envelope);
            let came = page_rows.len();
            for row in page_rows {
                if row.get("id").and_then(lenient::integer).is_none_or(|id| seen.insert(id)) {
                    all.extend(serde_json::from_value(row.clone()).ok());
                }
            }
            // By what came, not by what was asked: HaloPSA caps page sizes as it likes.
            if came == 0 || total.is_none() || total.is_some_and(|total| seen.len() as i64 >= total) {
                break;
            }
        }
        Ok(all)
    }
}

/// The rows of a list: a bare array, or an array in an envelope.
fn raw_rows<'a>(reply: &'a Value, envelope: &str) -> &'a [Value] {
    reply
        .as_array()
        .or_else(|| reply.get(envelope).and_then(Value::as_array))
        .or_else(|| reply.as_object()?.values().find_map(Value::as_array))
        .map_or(&[], Vec::as_slice)
}

fn rows<T: DeserializeOwned>(reply: Value, envelope: &str) -> Vec<T> {
    raw_rows(&reply, envelope).iter().filter_map(|row| serde_json::from_value(row.clone()).ok()).collect()
}

/// The object, also when it comes as an array of one.
fn first(reply: &Value) -> &Value {
    reply.as_array().and_then(|a| a.first()).unwrap_or(reply)
}

fn one<T: DeserializeOwned>(reply: Value, call: &str) -> Result<T, Error> {
    let object = first(&reply);
    if object.get("id").is_none_or(Value::is_null) {
        return Err(Error::Answer { call: call.into(), detail: "it holds no id".into() });
    }
    serde_json::from_value(object.clone()).map_err(|_| Error::Answer { call: call.into(), detail: "its fields are not as expected".into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_bare_or_wrapped() {
        for reply in [json!([{"id": 1}]), json!({"record_count": 1, "clients": [{"id": "1.0"}]}), json!({"Clients": [{"id": 1.0}]})] {
            let clients: Vec<HaloClient> = rows(reply, "clients");
            assert_eq!(clients[0].id, 1);
        }
        let none: Vec<HaloClient> = rows(json!({"error": "x"}), "clients");
        assert!(none.is_empty());
    }

    #[test]
    fn objects_come_bare_or_in_an_array() {
        for reply in [json!({"id": 1}), json!([{"id": 1}])] {
            assert_eq!(one::<Agent>(reply, "x").unwrap().id, 1);
        }
        assert!(one::<Agent>(json!({}), "x").is_err());
    }
}
