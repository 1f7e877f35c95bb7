//! Is the ticket still this client's to work on? Asked wherever something is about to happen.

use super::state::Event;
use crate::api::reason::Reason;
use crate::halopsa::types;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    Ours,
    Closed,
    /// It belongs to another HaloPSA client now.
    Moved,
    /// HaloPSA does not have it.
    Deleted,
}

/// What HaloPSA says now, for the agent of this HaloPSA client.
pub fn still_ours(ticket: Option<&types::Ticket>, halo_client_id: i64) -> Ownership {
    match ticket {
        None => Ownership::Deleted,
        Some(ticket) if ticket.client_id != Some(halo_client_id) => Ownership::Moved,
        Some(ticket) if ticket.hasbeenclosed => Ownership::Closed,
        Some(_) => Ownership::Ours,
    }
}

impl Ownership {
    /// Nothing may be written on it. A closed ticket still takes the note of the agent that
    /// closed it.
    pub fn is_gone(self) -> bool {
        matches!(self, Ownership::Moved | Ownership::Deleted)
    }

    /// One sentence, the same wherever it is asked.
    pub fn sentence(self) -> &'static str {
        match self {
            Ownership::Ours => "the ticket is open and belongs to this client",
            Ownership::Closed => "the ticket is closed in HaloPSA",
            Ownership::Moved => "the ticket was moved to another client in HaloPSA",
            Ownership::Deleted => "the ticket no longer exists in HaloPSA",
        }
    }

    pub fn reason(self) -> Option<Reason> {
        match self {
            Ownership::Ours => None,
            Ownership::Closed => Some(Reason::Closed),
            Ownership::Moved => Some(Reason::Moved),
            Ownership::Deleted => Some(Reason::Deleted),
        }
    }

    /// The event that ends work on a ticket that is not ours; none: it is ours.
    pub fn ignored(self) -> Option<Event> {
        Some(Event::Ignored {
            reason: self.reason()?,
            message: self.sentence().into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_it_is() {
        let ticket = |client, closed| types::Ticket {
            client_id: Some(client),
            hasbeenclosed: closed,
            ..types::Ticket::default()
        };
        for (ticket, is) in [
            (Some(ticket(12, false)), Ownership::Ours),
            (Some(ticket(12, true)), Ownership::Closed),
            (Some(ticket(13, false)), Ownership::Moved),
            (Some(ticket(13, true)), Ownership::Moved),
            (Some(types::Ticket::default()), Ownership::Moved),
            (None, Ownership::Deleted),
        ] {
            assert_eq!(still_ours(ticket.as_ref(), 12), is);
            assert_eq!(is.ignored().is_none(), is == Ownership::Ours);
        }
    }
}
