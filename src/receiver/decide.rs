//! What an event asks to be done: pure.

use crate::api::ticket::{Phase, Ticket};
use crate::halopsa::webhook::{Event, Kind};
use crate::k8s::index::ClientEntry;
use kube::ResourceExt;

/// What the cluster knows that matters to an event.
#[derive(Debug, Default)]
pub struct Known<'a> {
    /// The HaloPSA agent we act as.
    pub api_agent: Option<i64>,
    /// The ImportedClient of the event's client.
    pub client: Option<ClientEntry>,
    /// Every Ticket that stands for the event's ticket.
    pub tickets: Vec<&'a Ticket>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A new Ticket; without a client the controller finds out whose it is.
    Create {
        client: Option<ClientEntry>,
    },
    /// News about a Ticket that is there. `reopen`: it was left because it was
    /// closed or somebody else's, and now it is open and ours again.
    Update {
        ticket: String,
        halo_client_id: Option<i64>,
        closed: Option<bool>,
        reopen: bool,
    },
    /// Something happened on a ticket that waits for a technician: its replies are to be read.
    Look {
        ticket: String,
    },
    NotImported {
        client_id: i64,
    },
}

pub fn decide(event: &Event, known: &Known<'_>) -> Vec<Step> {
    // What we did ourselves is no news, and never work.
    if event.actor_agent.is_some() && event.actor_agent == known.api_agent {
        return Vec::new();
    }
    let gone = matches!(event.kind, Kind::Closed | Kind::Deleted);
    let mut steps: Vec<Step> = known
        .tickets
        .iter()
        .filter_map(|ticket| {
            let halo_client_id = event
                .client_id
                .filter(|id| ticket.spec.halo_client_id != Some(*id));
            let closed = Some(gone).filter(|gone| ticket.spec.closed != *gone);
            let reopen = !gone
                && was_left(ticket)
                && known.client.as_ref().is_some_and(|c| is_of(ticket, c));
            (halo_client_id.is_some() || closed.is_some()).then(|| Step::Update {
                ticket: ticket.name_any(),
                halo_client_id,
                closed,
                reopen,
            })
        })
        .collect();
    let waits = |t: &&&Ticket| {
        t.status
            .as_ref()
            .is_some_and(|s| s.phase == Phase::AwaitingApproval || s.phase == Phase::Refused)
    };
    if !gone {
        steps.extend(known.tickets.iter().filter(waits).map(|t| Step::Look {
            ticket: t.name_any(),
        }));
    }
    if !matches!(event.kind, Kind::New | Kind::Updated) && !moved(event, known) {
        return steps;
    }
    if gone {
        return steps;
    }
    match (event.client_id, &known.client) {
        (Some(_), Some(client)) if client.suspended => {}
        (Some(_), Some(client)) => {
            if !known.tickets.iter().any(|t| is_of(t, client)) {
                steps.push(Step::Create {
                    client: Some(client.clone()),
                });
            }
        }
        (Some(client_id), None) => steps.push(Step::NotImported { client_id }),
        (None, _) if known.tickets.is_empty() => steps.push(Step::Create { client: None }),
        (None, _) => {}
    }
    steps
}

fn is_of(ticket: &Ticket, client: &ClientEntry) -> bool {
    ticket
        .spec
        .client_ref
        .as_ref()
        .is_some_and(|c| c.name == client.name)
}

/// Left unfinished, for a reason that may go away.
fn was_left(ticket: &Ticket) -> bool {
    let status = ticket.status.as_ref();
    status.is_some_and(|s| {
        s.phase == Phase::Ignored && matches!(s.reason.as_deref(), Some("Moved" | "Closed"))
    })
}

/// A ticket that we know under another client: its new client's agent takes it over.
fn moved(event: &Event, known: &Known<'_>) -> bool {
    event.client_id.is_some()
        && known
            .tickets
            .iter()
            .any(|t| t.spec.halo_client_id.is_some() && t.spec.halo_client_id != event.client_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::LocalRef;
    use crate::api::client::{ImportedClient, ImportedClientSpec};
    use crate::api::ticket::{TicketSpec, TicketStatus};
    use crate::k8s::index::ClientIndex;

    fn entry(name: &str, id: i64, suspend: bool) -> ClientEntry {
        let index = ClientIndex::default();
        let spec = ImportedClientSpec {
            halo_client_id: Some(id),
            suspend,
            connection_ref: LocalRef {
                name: "halo".into(),
            },
            ..Default::default()
        };
        let mut client = ImportedClient::new(name, spec);
        client.metadata.namespace = Some("msp".into());
        index.observe(&kube::runtime::watcher::Event::Apply(client));
        index.find("msp", "halo", id).unwrap()
    }

    fn ticket(client: &str, id: i64) -> Ticket {
        Ticket::new(
            &format!("{client}-7"),
            TicketSpec {
                client_ref: Some(LocalRef {
                    name: client.into(),
                }),
                ticket_id: 7,
                halo_client_id: Some(id),
                ..TicketSpec::default()
            },
        )
    }

    fn event(kind: Kind, client_id: Option<i64>) -> Event {
        Event {
            ticket_id: 7,
            kind,
            client_id,
            ..Event::default()
        }
    }

    #[test]
    fn table() {
        let acme = entry("acme", 12, false);
        let asleep = entry("acme", 12, true);
        let stored = ticket("acme", 12);
        let with = |client: Option<&ClientEntry>, tickets: Vec<&'static Ticket>| Known {
            api_agent: Some(31),
            client: client.cloned(),
            tickets,
        };
        let stored: &'static Ticket = Box::leak(Box::new(stored));
        let create = || {
            vec![Step::Create {
                client: Some(acme.clone()),
            }]
        };
        assert_eq!(
            decide(&event(Kind::New, Some(12)), &with(Some(&acme), vec![])),
            create()
        );
        assert_eq!(
            decide(&event(Kind::Updated, Some(12)), &with(Some(&acme), vec![])),
            create()
        );
        assert_eq!(
            decide(&event(Kind::Changed, Some(12)), &with(Some(&acme), vec![])),
            [],
            "a new status starts no work"
        );
        assert_eq!(
            decide(
                &event(Kind::New, Some(12)),
                &with(Some(&acme), vec![stored])
            ),
            [],
            "a repeat"
        );
        assert_eq!(
            decide(&event(Kind::New, Some(99)), &with(None, vec![])),
            [Step::NotImported { client_id: 99 }]
        );
        assert_eq!(
            decide(&event(Kind::New, None), &with(None, vec![])),
            [Step::Create { client: None }],
            "the controller asks whose it is"
        );
        assert_eq!(
            decide(&event(Kind::New, None), &with(None, vec![stored])),
            []
        );
        assert_eq!(
            decide(&event(Kind::New, Some(12)), &with(Some(&asleep), vec![])),
            [],
            "a suspended client takes nothing new"
        );
        assert_eq!(
            decide(
                &event(Kind::Closed, Some(12)),
                &with(Some(&acme), vec![stored])
            ),
            [Step::Update {
                ticket: "acme-7".into(),
                halo_client_id: None,
                closed: Some(true),
                reopen: false
            }]
        );
        assert_eq!(
            decide(&event(Kind::Closed, Some(12)), &with(Some(&acme), vec![])),
            []
        );
        assert_eq!(
            decide(&event(Kind::Deleted, None), &with(None, vec![stored])).len(),
            1
        );
        let own = Event {
            actor_agent: Some(31),
            ..event(Kind::Updated, Some(12))
        };
        assert_eq!(
            decide(&own, &with(Some(&acme), vec![])),
            [],
            "what we did ourselves"
        );
    }

    #[test]
    fn a_moved_ticket_leaves_one_client_and_comes_to_the_other() {
        let blue = entry("blue", 13, false);
        let stored = ticket("acme", 12);
        let known = Known {
            api_agent: None,
            client: Some(blue.clone()),
            tickets: vec![&stored],
        };
        for kind in [Kind::Updated, Kind::Changed] {
            assert_eq!(
                decide(&event(kind, Some(13)), &known),
                [
                    Step::Update {
                        ticket: "acme-7".into(),
                        halo_client_id: Some(13),
                        closed: None,
                        reopen: false
                    },
                    Step::Create {
                        client: Some(blue.clone())
                    }
                ]
            );
        }
        // And back again: it was left unfinished, so it is work again.
        let acme = entry("acme", 12, false);
        let mut left = ticket("acme", 13);
        left.status = Some(TicketStatus {
            phase: Phase::Ignored,
            reason: Some("Moved".into()),
            ..TicketStatus::default()
        });
        let back = Known {
            api_agent: None,
            client: Some(acme.clone()),
            tickets: vec![&left],
        };
        let reopened = |ticket: &str, halo_client_id, closed| {
            vec![Step::Update {
                ticket: ticket.into(),
                halo_client_id,
                closed,
                reopen: true,
            }]
        };
        assert_eq!(
            decide(&event(Kind::Changed, Some(12)), &back),
            reopened("acme-7", Some(12), None)
        );
        // Closed before the agent came, and opened again.
        let mut closed = ticket("acme", 12);
        closed.spec.closed = true;
        closed.status = Some(TicketStatus {
            phase: Phase::Ignored,
            reason: Some("Closed".into()),
            ..TicketStatus::default()
        });
        let open = Known {
            api_agent: None,
            client: Some(acme.clone()),
            tickets: vec![&closed],
        };
        assert_eq!(
            decide(&event(Kind::Changed, Some(12)), &open),
            reopened("acme-7", None, Some(false))
        );
        // What is done stays done.
        closed.status = Some(TicketStatus {
            phase: Phase::Done,
            reason: Some("Completed".into()),
            ..TicketStatus::default()
        });
        let done = Known {
            api_agent: None,
            client: Some(acme),
            tickets: vec![&closed],
        };
        assert!(matches!(
            decide(&event(Kind::Changed, Some(12)), &done)[..],
            [Step::Update { reopen: false, .. }]
        ));
        let nobody = Known {
            api_agent: None,
            client: None,
            tickets: vec![&stored],
        };
        assert_eq!(
            decide(&event(Kind::Updated, Some(99)), &nobody),
            [
                Step::Update {
                    ticket: "acme-7".into(),
                    halo_client_id: Some(99),
                    closed: None,
                    reopen: false
                },
                Step::NotImported { client_id: 99 }
            ]
        );
    }
}
