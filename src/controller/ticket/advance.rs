//! The transitions that are due on a ticket without anybody doing anything. [`decide`] is pure.

use super::{Error, Pass, verification};
use crate::api::reason::Reason;
use crate::api::ticket::{Phase, REOPEN_ANNOTATION, Ticket};
use crate::api::{HaloPSAConnection, ImportedClient};
use crate::metrics::VerificationOutcome;
use crate::ticket::state::{self, Event};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

/// Transitions in one pass. A few may follow each other, from stored to waiting for an agent.
const TRANSITIONS: usize = 4;

/// What the cluster knows that matters to a ticket.
struct Facts<'a> {
    connection: &'a HaloPSAConnection,
    client: Option<&'a ImportedClient>,
}

impl Pass {
    /// Makes the transitions that are due, and reports whether there were any.
    pub(super) async fn advance(&mut self) -> Result<bool, Error> {
        let mut advanced = false;
        for _ in 0..TRANSITIONS {
            let facts = Facts {
                connection: &self.connection,
                client: self.client.as_deref(),
            };
            let Some(mut event) = decide(&self.ticket, &facts, Timestamp::now()) else {
                break;
            };
            if event == Event::Accepted
                && let Some(first) = Box::pin(verification::start(self)).await?
            {
                event = first;
            }
            let verifies = matches!(event, Event::VerificationStarted { .. });
            self.transition(&[event]).await?;
            if verifies {
                verification::count(self, VerificationOutcome::Started);
            }
            advanced = true;
        }
        Ok(advanced)
    }
}

/// The next event that is due.
fn decide(ticket: &Ticket, facts: &Facts<'_>, now: Timestamp) -> Option<Event> {
    let status = ticket.status.clone().unwrap_or_default();
    if status.phase.is_terminal() {
        // Cut as it is stored: an annotation of any length reopens once.
        let request = ticket.annotations().get(REOPEN_ANNOTATION)?;
        let request: String = request.chars().take(100).collect();
        return (status.reopened.as_ref() != Some(&request)).then_some(Event::Reopened { request });
    }
    if ticket.spec.closed {
        return Some(Event::Ignored {
            reason: Reason::Closed,
            message: "the ticket was closed or deleted in HaloPSA".into(),
        });
    }
    let Some(client) = facts.client else {
        return Some(Event::Ignored {
            reason: Reason::ClientNotImported,
            message: "its ImportedClient is gone; import the client to have its tickets handled"
                .into(),
        });
    };
    let resolved = client.status.as_ref().and_then(|s| s.halo_client_id);
    if let (Some(now), Some(own)) = (ticket.spec.halo_client_id, resolved)
        && now != own
    {
        return Some(Event::Ignored {
            reason: Reason::Moved,
            message: format!(
                "the ticket was moved to HaloPSA client {now}, whose agent takes over if it has one"
            ),
        });
    }
    if facts.connection.spec.suspend {
        return None;
    }
    if let Some(event) = state::due(&status, now) {
        return Some(event);
    }
    (status.phase == Phase::Received).then_some(Event::Accepted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::TicketSpec;
    use crate::api::client::ImportedClientStatus;

    fn reason(event: Option<Event>) -> Reason {
        match event {
            Some(Event::Ignored { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    }

    fn ticket(now: Timestamp) -> Ticket {
        let mut ticket = Ticket::new(
            "acme-1",
            TicketSpec {
                ticket_id: 1,
                halo_client_id: Some(12),
                ..TicketSpec::default()
            },
        );
        ticket.status = Some(state::received(now));
        ticket
    }

    #[test]
    fn decisions() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let mut connection = HaloPSAConnection::new("halo", Default::default());
        let mut client = ImportedClient::new("acme", Default::default());
        client.status = Some(ImportedClientStatus {
            halo_client_id: Some(12),
            ..Default::default()
        });
        let ticket = ticket(now);
        let facts = Facts {
            connection: &connection,
            client: Some(&client),
        };
        assert_eq!(decide(&ticket, &facts, now), Some(Event::Accepted));
        let orphaned = Facts {
            connection: &connection,
            client: None,
        };
        assert_eq!(
            reason(decide(&ticket, &orphaned, now)),
            Reason::ClientNotImported
        );
        let mut moved = ticket.clone();
        moved.spec.halo_client_id = Some(13);
        assert_eq!(reason(decide(&moved, &facts, now)), Reason::Moved);
        let mut closed = ticket.clone();
        closed.spec.closed = true;
        assert_eq!(reason(decide(&closed, &facts, now)), Reason::Closed);

        let mut done = ticket.clone();
        done.status.as_mut().unwrap().phase = Phase::Done;
        assert_eq!(decide(&done, &facts, now), None);
        done.annotations_mut()
            .insert(REOPEN_ANNOTATION.into(), "1".into());
        assert_eq!(
            decide(&done, &facts, now),
            Some(Event::Reopened {
                request: "1".into()
            })
        );
        done.status.as_mut().unwrap().reopened = Some("1".into());
        assert_eq!(decide(&done, &facts, now), None);
        let long = "x".repeat(500);
        done.annotations_mut()
            .insert(REOPEN_ANNOTATION.into(), long.clone());
        done.status.as_mut().unwrap().reopened = Some(long[..100].into());
        assert_eq!(decide(&done, &facts, now), None, "reopened once already");

        connection.spec.suspend = true;
        let facts = Facts {
            connection: &connection,
            client: Some(&client),
        };
        assert_eq!(
            decide(&ticket, &facts, now),
            None,
            "suspended: nothing starts"
        );
        assert_eq!(
            reason(decide(&moved, &facts, now)),
            Reason::Moved,
            "but what is over is over"
        );
    }
}
