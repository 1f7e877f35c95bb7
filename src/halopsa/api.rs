//! The calls the operator makes, by name.

use super::client::{Client, Priority};
use super::error::Error;
use super::reply;
use super::types::{
    Action, Agent, Article, Asset, Category, HaloClient, Named, Notification, PriorityRow, Ticket,
    User, Webhook, WebhookEvent,
};
use crate::ids::ActionId;
use futures::{Stream, TryStreamExt};
use k8s_openapi::jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::HashSet;

/// Rows requested per page; HaloPSA returns at most 100 tickets.
const PAGE_SIZE: usize = 100;
/// Maximum pages read per list; a longer one is cut there, not read without end.
const MAX_PAGES: usize = 1000;
/// Actions of a ticket that are asked for; the second number if the first was not enough.
const REPLIES: [usize; 2] = [200, 1000];
/// Rows read per list.
const MAX_LISTED: usize = PAGE_SIZE * MAX_PAGES;
/// How often a list is read before giving up because it keeps changing.
const READINGS: usize = 3;

/// An event a webhook can subscribe to: HaloPSA's number and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventType {
    pub number: i64,
    pub name: &'static str,
}

/// New and updated tickets. Numbers as seen on live tenants.
pub const EVENTS: [EventType; 5] = [
    EventType {
        number: 3,
        name: "New Ticket Logged",
    },
    EventType {
        number: 19,
        name: "Ticket Updated by User",
    },
    EventType {
        number: 39,
        name: "Closed",
    },
    EventType {
        number: 76,
        name: "Ticket Status Changed",
    },
    EventType {
        number: 1072,
        name: "Ticket Deleted",
    },
];

/// The desired state of a webhook.
#[derive(Clone, Debug)]
pub struct WebhookSpec<'a> {
    pub name: &'a str,
    pub url: &'a str,
    pub username: &'a str,
    pub password: &'a str,
}

impl Client {
    pub async fn me(&self) -> Result<Agent, Error> {
        self.get("/Agent/me", &[], Priority::Background)
            .await?
            .one()
    }

    /// Every client the API agent may see, inactive ones too. A list that grew or shrank
    /// while it was read is read again: a client that slipped from one page to another must
    /// not look like one that is gone.
    pub async fn clients(&self) -> Result<Vec<HaloClient>, Error> {
        let query = [("includeinactive", "true".into()), ("order", "id".into())];
        for _ in 0..READINGS {
            let pages = self.pages::<HaloClient>("/Client", "clients", query.to_vec());
            let pages: Vec<Page<HaloClient>> = pages.try_collect().await?;
            if pages.windows(2).all(|two| two[0].total == two[1].total) {
                return Ok(pages.into_iter().flat_map(|page| page.rows).collect());
            }
        }
        Err(Error::Answer {
            call: "GET /Client".into(),
            detail: format!("the list changed each of the {READINGS} times it was read"),
        })
    }

    /// Like [`Client::ticket`], but `None` if HaloPSA does not have the ticket.
    pub async fn find_ticket(&self, id: i64) -> Result<Option<Ticket>, Error> {
        match self.ticket(id).await {
            Ok(ticket) => Ok(Some(ticket)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn ticket(&self, id: i64) -> Result<Ticket, Error> {
        let query = [("includedetails", "true".to_string())];
        let reply = self
            .get(&format!("/Tickets/{id}"), &query, Priority::Ticket)
            .await?;
        let missing = || Error::NotFound {
            call: "GET /Tickets/{id}".into(),
        };
        // HaloPSA may answer for a missing ticket with a bare object, too. A reply that
        // reports an error says nothing about the ticket.
        if reply.is_bare() {
            return Err(missing());
        }
        let ticket: Ticket = reply.one()?;
        if ticket.id == id {
            Ok(ticket)
        } else {
            Err(missing())
        }
    }

    /// A ticket's actions, newest first as HaloPSA lists them.
    pub async fn actions(&self, ticket: i64, count: usize) -> Result<Vec<Action>, Error> {
        let query = [
            ("ticket_id", ticket.to_string()),
            ("count", count.to_string()),
            ("excludesys", "true".into()),
        ];
        self.get_long("/Actions", &query, Priority::Ticket)
            .await?
            .rows("actions")
    }

    pub async fn search_tickets(
        &self,
        client: i64,
        search: &str,
        count: usize,
    ) -> Result<Vec<Ticket>, Error> {
        let query = [
            ("client_id", client.to_string()),
            ("search", search.to_string()),
            ("pageinate", "true".into()),
            ("page_size", count.to_string()),
            ("page_no", "1".into()),
        ];
        self.get("/Tickets", &query, Priority::Ticket)
            .await?
            .rows("tickets")
    }

    /// Open tickets changed since then, newest first, page by page. One that changes while
    /// pages are read may be left to the next sweep; none is returned twice.
    pub fn tickets_changed_since(
        &self,
        since: Timestamp,
    ) -> impl Stream<Item = Result<Vec<Ticket>, Error>> + '_ {
        // HaloPSA sorts by id, not by change, so the filter has to do it.
        let query = vec![
            (
                "lastupdatefromdate",
                since.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
            ),
            ("open_only", "true".into()),
        ];
        // HaloPSA silently ignores unknown filters: check what came back.
        let changed = move |t: &Ticket| {
            t.last_update
                .or(t.dateoccurred)
                .is_none_or(|at| at >= since)
        };
        self.pages("/Tickets", "tickets", query)
            .map_ok(move |page| page.rows.into_iter().filter(|t| changed(t)).collect())
    }

    pub async fn user(&self, id: i64) -> Result<User, Error> {
        self.get(&format!("/Users/{id}"), &[], Priority::Ticket)
            .await?
            .one()
    }

    pub async fn assets(
        &self,
        client: i64,
        search: &str,
        count: usize,
    ) -> Result<Vec<Asset>, Error> {
        let mut query = vec![
            ("client_id", client.to_string()),
            ("pageinate", "true".into()),
            ("page_size", count.to_string()),
            ("page_no", "1".into()),
        ];
        if !search.is_empty() {
            query.push(("search", search.to_string()));
        }
        self.get("/Asset", &query, Priority::Ticket)
            .await?
            .rows("assets")
    }

    pub async fn articles(&self, search: &str, count: usize) -> Result<Vec<Article>, Error> {
        let query = [
            ("search", search.to_string()),
            ("pageinate", "true".into()),
            ("page_size", count.to_string()),
            ("page_no", "1".into()),
        ];
        self.get("/KBArticle", &query, Priority::Ticket)
            .await?
            .rows("articles")
    }

    /// A ticket's actions with their HTML, newest first.
    pub async fn replies(&self, ticket: i64, count: usize) -> Result<Vec<Action>, Error> {
        let query = [
            ("ticket_id", ticket.to_string()),
            ("count", count.to_string()),
            ("includehtmlnote", "true".into()),
        ];
        self.get_long("/Actions", &query, Priority::Ticket)
            .await?
            .rows("actions")
    }

    /// A ticket's actions with their HTML, newest first and back to this one; none: it is too far
    /// back. `/Actions` has no pages, so more are asked for.
    pub async fn replies_since(
        &self,
        ticket: i64,
        action: ActionId,
    ) -> Result<Option<Vec<Action>>, Error> {
        for count in REPLIES {
            let actions = self.replies(ticket, count).await?;
            // An empty list is one that lags behind.
            if actions.is_empty() || actions.iter().any(|a| a.id <= action) {
                return Ok(Some(actions));
            }
            // HaloPSA has no more of them.
            if actions.len() < count {
                break;
            }
        }
        Ok(None)
    }

    pub async fn statuses(&self) -> Result<Vec<Named>, Error> {
        self.get("/Status", &[], Priority::Ticket)
            .await?
            .rows("statuses")
    }

    pub async fn teams(&self) -> Result<Vec<Named>, Error> {
        self.get("/Team", &[], Priority::Ticket)
            .await?
            .rows("teams")
    }

    pub async fn ticket_types(&self) -> Result<Vec<Named>, Error> {
        self.get("/TicketType", &[], Priority::Ticket)
            .await?
            .rows("tickettypes")
    }

    /// The categories of tickets, of all four lists.
    pub async fn categories(&self) -> Result<Vec<Category>, Error> {
        self.get("/Category", &[], Priority::Ticket)
            .await?
            .rows("categories")
    }

    /// Technicians the API agent may see.
    pub async fn agents(&self) -> Result<Vec<Agent>, Error> {
        self.get("/Agent", &[], Priority::Ticket)
            .await?
            .rows("agents")
    }

    pub async fn priorities(&self) -> Result<Vec<PriorityRow>, Error> {
        self.get("/Priority", &[], Priority::Ticket)
            .await?
            .rows("priorities")
    }

    pub async fn article(&self, id: i64) -> Result<Article, Error> {
        self.get(&format!("/KBArticle/{id}"), &[], Priority::Ticket)
            .await?
            .one()
    }

    /// Posts an internal note; returns the id of its action. Sent once: after an
    /// uncertain error, look for the note's marker before sending it again.
    pub async fn post_internal_note(
        &self,
        ticket: i64,
        outcome: &str,
        fallback: i64,
        html: &str,
    ) -> Result<ActionId, Error> {
        let note = json!({"note_html": html, "hiddenfromuser": true, "sendemail": false});
        self.post_action(ticket, outcome, Some(fallback), note)
            .await
    }

    /// Posts an action with these fields. Sent once, as above.
    pub async fn post_action(
        &self,
        ticket: i64,
        outcome: &str,
        fallback: Option<i64>,
        fields: Value,
    ) -> Result<ActionId, Error> {
        let with = |outcome: (&str, Value)| {
            let mut action = fields.clone();
            action["ticket_id"] = ticket.into();
            action[outcome.0] = outcome.1;
            vec![action]
        };
        let reply = match (
            self.post(
                "/Actions",
                with(("outcome", outcome.into())),
                Priority::Ticket,
            )
            .await,
            fallback,
        ) {
            // The tenant has no action with this name, or renamed it.
            (Err(Error::Rejected { detail, .. }), Some(fallback))
                if detail.to_ascii_lowercase().contains("outcome") =>
            {
                self.post(
                    "/Actions",
                    with(("outcome_id", fallback.into())),
                    Priority::Ticket,
                )
                .await?
            }
            (other, _) => other?,
        };
        // Without an id it is unknown whether the action was created.
        let id = reply.id().filter(|id| *id > 0);
        id.map(ActionId).ok_or_else(|| Error::Answer {
            call: "POST /Actions".into(),
            detail: format!("it has no id: {}", reply.explained()),
        })
    }

    /// Creates a ticket or, with an id, updates only the given fields. Sent once, as above.
    pub async fn post_ticket(&self, ticket: Value) -> Result<Ticket, Error> {
        self.post("/Tickets", vec![ticket], Priority::Ticket)
            .await?
            .one()
    }

    pub async fn webhooks(&self) -> Result<Vec<Webhook>, Error> {
        self.get("/Webhook", &[("type", "0".into())], Priority::Background)
            .await?
            .rows("webhooks")
    }

    /// Creates a webhook or, with an id, updates it.
    pub async fn put_webhook(
        &self,
        id: Option<&str>,
        spec: &WebhookSpec<'_>,
    ) -> Result<Webhook, Error> {
        let mut webhook = json!({
            "name": spec.name, "url": spec.url, "type": 0, "method": 0,
            "content_type": "application/json", "authentication_type": 1,
            "basic_username": spec.username, "basic_password": spec.password,
            "active": true, "disabled": false,
        });
        if let Some(id) = id {
            webhook["id"] = id.into();
        }
        self.post("/Webhook", vec![webhook], Priority::Background)
            .await?
            .one()
    }

    pub async fn delete_webhook(&self, id: &str) -> Result<(), Error> {
        self.delete(&format!("/Webhook/{id}"), Priority::Background)
            .await
    }

    pub async fn notifications(&self, webhook: &str) -> Result<Vec<Notification>, Error> {
        let query = [
            ("webhook_id", webhook.to_string()),
            ("showall", "true".into()),
        ];
        let all: Vec<Notification> = self
            .get("/Notification", &query, Priority::Background)
            .await?
            .rows("notifications")?;
        Ok(all
            .into_iter()
            .filter(|n| n.webhook_id.eq_ignore_ascii_case(webhook))
            .collect())
    }

    pub async fn subscribe(&self, webhook: &str, events: &[EventType]) -> Result<(), Error> {
        let row = |event: &EventType| {
            json!({"webhook_id": webhook, "eventno": event.number, "name": event.name, "type": -2,
                   "delivery_method": 6, "agent_id": 0, "conditions": []})
        };
        self.post(
            "/Notification",
            events.iter().map(row).collect(),
            Priority::Background,
        )
        .await
        .map(|_| ())
    }

    pub async fn unsubscribe(&self, notification: i64) -> Result<(), Error> {
        self.delete(
            &format!("/Notification/{notification}"),
            Priority::Background,
        )
        .await
    }

    pub async fn deliveries(
        &self,
        webhook: &str,
        count: usize,
    ) -> Result<Vec<WebhookEvent>, Error> {
        let query = [
            ("webhook_id", webhook.to_string()),
            ("count", count.to_string()),
        ];
        self.get("/WebhookEvent", &query, Priority::Background)
            .await?
            .rows("webhookevents")
    }

    /// The pages of a list, as they come; only one is in memory. A row that moves to
    /// another page while pages are read is returned once, by its id, or not at all.
    fn pages<T: DeserializeOwned>(
        &self,
        path: &'static str,
        envelope: &'static str,
        query: Vec<(&'static str, String)>,
    ) -> impl Stream<Item = Result<Page<T>, Error>> + '_ {
        let start = (1, HashSet::new());
        futures::stream::try_unfold(Some(start), move |state| {
            let mut query = query.clone();
            async move {
                let Some((number, mut seen)) = state else {
                    return Ok(None);
                };
                query.extend([
                    ("pageinate", "true".into()),
                    ("page_size", PAGE_SIZE.to_string()),
                    ("page_no", number.to_string()),
                ]);
                let reply = self.get(path, &query, Priority::Background).await?;
                let listed = reply.listed(envelope)?;
                let (total, count) = (listed.total, listed.rows.len());
                let before = seen.len();
                let mut is_fresh =
                    |row: &RawValue| reply::id_of(row).is_some_and(|id| seen.insert(id));
                let mut rows = Vec::new();
                for row in listed.rows {
                    if is_fresh(row) {
                        rows.extend(reply::read(row));
                    }
                }
                // Judged by what came, not by what was requested: HaloPSA may cap page sizes.
                let last = seen.len() == before
                    || number >= MAX_PAGES
                    || seen.len() >= MAX_LISTED
                    || total.map_or(count < PAGE_SIZE, |total| seen.len() as i64 >= total);
                let next = (!last).then_some((number + 1, seen));
                Ok(Some((Page { rows, total }, next)))
            }
        })
    }
}

/// A page of a list, and the total HaloPSA reported.
struct Page<T> {
    rows: Vec<T>,
    total: Option<i64>,
}
