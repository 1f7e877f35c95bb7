//! The facts about a ticket that a policy can use.

use crate::halopsa::types;
use crate::text::one_line;
use serde_json::{Value, json};

/// What an expression sees of a ticket. HaloPSA's words, no ticket text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TicketFacts {
    pub id: i64,
    pub client_id: i64,
    pub priority: String,
    pub status: String,
    pub kind: String,
    pub category: String,
    pub requester: Requester,
    /// Kinds of reasons why the ticket is sensitive. None: not looked up.
    pub sensitivity: Option<Vec<String>>,
}

/// Whose ticket it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requester {
    pub id: Option<i64>,
    pub name: String,
    /// From HaloPSA's record of the user, in lower case. None: not looked up, or there is none.
    pub email: Option<String>,
    /// Whether they have proved who they are. None: not looked up.
    pub verified: Option<bool>,
}

impl TicketFacts {
    /// As an expression's variable `ticket`. What was not looked up is absent, so that an
    /// expression that asks for it fails, and the rule counts against the call.
    pub fn as_json(&self) -> Value {
        let requester = &self.requester;
        let mut who = json!({"id": requester.id, "name": requester.name});
        if let Some(email) = &requester.email {
            who["email"] = email.as_str().into();
        }
        if let Some(verified) = requester.verified {
            who["verified"] = verified.into();
        }
        let mut ticket = json!({
            "id": self.id,
            "clientId": self.client_id,
            "priority": self.priority,
            "status": self.status,
            "type": self.kind,
            "category": self.category,
            "requester": who,
        });
        if let Some(reasons) = &self.sensitivity {
            ticket["sensitivity"] = reasons.as_slice().into();
        }
        ticket
    }
}

impl From<&types::Ticket> for TicketFacts {
    fn from(ticket: &types::Ticket) -> Self {
        Self {
            id: ticket.id,
            client_id: ticket.client_id.unwrap_or_default(),
            priority: one_line(&ticket.priority_name, 100),
            status: one_line(&ticket.status_name, 100),
            kind: one_line(&ticket.tickettype_name, 100),
            category: one_line(&ticket.category_1, 200),
            requester: Requester {
                id: ticket.user_id,
                name: one_line(&ticket.user_name, 200),
                ..Requester::default()
            },
            sensitivity: None,
        }
    }
}

/// The address in HaloPSA's record of a requester; none, if it is not a user of this client.
pub fn email(user: &types::User, halo_client_id: Option<i64>) -> Option<String> {
    let address = one_line(&user.emailaddress, 320).to_ascii_lowercase();
    let ours = user.client_id.is_some() && user.client_id == halo_client_id;
    (ours && !user.inactive && !address.is_empty()).then_some(address)
}

/// What the rules for a tool want to know about the ticket: what nobody asks for is not looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub ticket: bool,
    /// More of the requester than the ticket says.
    pub requester: bool,
    pub sensitivity: bool,
    /// Whether the requester is verified, by a rule that requires it.
    pub verification: bool,
}

impl Wanted {
    /// Adds what a rule's `when` mentions.
    pub fn add(&mut self, when: &str) {
        self.ticket |= when.contains("ticket");
        self.requester |= when.contains("requester");
        self.sensitivity |= when.contains("sensitivity");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_user_of_the_client_has_an_address() {
        let user = types::User {
            emailaddress: "Kim@Acme.example".into(),
            client_id: Some(12),
            ..types::User::default()
        };
        assert_eq!(email(&user, Some(12)).as_deref(), Some("kim@acme.example"));
        assert_eq!(email(&user, Some(13)), None);
        assert_eq!(email(&user, None), None);
        assert_eq!(email(&types::User::default(), None), None);
        let left = types::User {
            inactive: true,
            ..user
        };
        assert_eq!(email(&left, Some(12)), None);
    }

    #[test]
    fn only_what_is_mentioned_is_wanted() {
        let mut wanted = Wanted::default();
        wanted.add("args.a == 1");
        assert_eq!(wanted, Wanted::default());
        wanted.add("args.user == ticket.requester.email");
        assert!(wanted.ticket && wanted.requester && !wanted.sensitivity);
    }
}
