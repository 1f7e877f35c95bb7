//! What an event asks for: pure.

use crate::api::reason::Reason;
use crate::api::ticket::{Phase, Ticket};
use crate::halopsa::webhook::{Event, Kind};
use crate::ids::TechnicianId;
use crate::k8s::index::ClientEntry;
use kube::ResourceExt;

/// What the cluster knows about an event's ticket and client.
#[derive(Debug, Default)]
pub struct Known<'a> {
    /// The API agent we act as.
    pub api_agent: Option<TechnicianId>,
    /// The ImportedClient of the event's client.
    pub client: Option<ClientEntry>,
    /// Every Ticket of the event's HaloPSA ticket.
    pub tickets: Vec<&'a Ticket>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A new Ticket. Without a client the controller finds out whose it is.
    Create {
        client: Option<ClientEntry>,
    },
    /// News about an existing Ticket. `reopen`: work on it had ended because it was
    /// closed or another client's, and now it is open and ours again.
    Update {
        ticket: String,
        halo_client_id: Option<i64>,
        closed: Option<bool>,
        reopen: bool,
    },
    /// Something happened on a ticket that waits for a technician: read its replies.
    Poll {
        ticket: String,
    },
    NotImported {
        client_id: i64,
    },
}

pub fn decide(event: &Event, known: &Known<'_>) -> Vec<Step> {
    // What we did ourselves is not news, and never work.
    if event.actor_agent.is_some() && event.actor_agent == known.api_agent {
        return Vec::new();
    }
    let gone = matches!(event.kind, Kind::Closed | Kind::Deleted);
    let mut steps: Vec<Step> = known
        .tickets
        .iter()
        .filter_map(|ticket| update(ticket, event, gone, known))
        .collect();
    if gone {
        return steps;
    }
    let waiting = known.tickets.iter().filter(|t| waits(t));
    steps.extend(waiting.map(|t| Step::Poll {
        ticket: t.name_any(),
    }));
    if matches!(event.kind, Kind::New | Kind::Updated) || moved(event, known) {
        steps.extend(create(event, known));
    }
    steps
}

fn update(ticket: &Ticket, event: &Event, gone: bool, known: &Known<'_>) -> Option<Step> {
    let halo_client_id = event
        .client_id
        .filter(|id| ticket.spec.halo_client_id != Some(*id));
    let closed = Some(gone).filter(|gone| ticket.spec.closed != *gone);
    if halo_client_id.is_none() && closed.is_none() {
        return None;
    }
    let is_ours = known.client.as_ref().is_some_and(|c| is_of(ticket, c));
    Some(Step::Update {
        ticket: ticket.name_any(),
        halo_client_id,
        closed,
        reopen: !gone && is_ours && was_left(ticket),
    })
}

fn create(event: &Event, known: &Known<'_>) -> Option<Step> {
    match (event.client_id, &known.client) {
        (Some(_), Some(client)) => {
            let is_new = !known.tickets.iter().any(|t| is_of(t, client));
            (is_new && !client.suspended).then(|| Step::Create {
                client: Some(client.clone()),
            })
        }
        (Some(client_id), None) => Some(Step::NotImported { client_id }),
        (None, _) => known
            .tickets
            .is_empty()
            .then_some(Step::Create { client: None }),
    }
}

fn is_of(ticket: &Ticket, client: &ClientEntry) -> bool {
    ticket
        .spec
        .client_ref
        .as_ref()
        .is_some_and(|c| c.name == client.name)
}

fn waits(ticket: &Ticket) -> bool {
    let status = ticket.status.as_ref();
    status.is_some_and(|s| matches!(s.phase, Phase::AwaitingApproval | Phase::Refused))
}

/// Unfinished, for a reason that may go away.
fn was_left(ticket: &Ticket) -> bool {
    let status = ticket.status.as_ref();
    let reason = status.and_then(|s| s.reason.as_ref());
    status.is_some_and(|s| s.phase == Phase::Ignored)
        && reason.is_some_and(|r| *r == Reason::Moved || *r == Reason::Closed)
}

/// A ticket that we know under another client. Its new client's agent takes it over.
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

    fn left(client: &str, id: i64, phase: Phase, reason: Reason) -> Ticket {
        let mut ticket = ticket(client, id);
        ticket.spec.closed = reason == Reason::Closed;
        ticket.status = Some(TicketStatus {
            phase,
            reason: Some(reason.as_str().into()),
            ..TicketStatus::default()
        });
        ticket
    }

    fn new_for(client: &ClientEntry) -> Step {
        Step::Create {
            client: Some(client.clone()),
        }
    }

    /// An event of HaloPSA's ticket 7.
    struct Case {
        about: &'static str,
        kind: Kind,
        client_id: Option<i64>,
        client: Option<ClientEntry>,
        /// The Ticket acme-7 exists.
        stored: bool,
        steps: Vec<Step>,
    }

    impl Case {
        fn check(self) {
            let stored = ticket("acme", 12);
            let known = Known {
                api_agent: Some(TechnicianId(31)),
                client: self.client,
                tickets: self.stored.then_some(&stored).into_iter().collect(),
            };
            let steps = decide(&event(self.kind, self.client_id), &known);
            assert_eq!(steps, self.steps, "{}", self.about);
        }
    }

    #[test]
    fn new_tickets() {
        let acme = entry("acme", 12, false);
        let case = |about| Case {
            about,
            kind: Kind::New,
            client_id: Some(12),
            client: Some(acme.clone()),
            stored: false,
            steps: Vec::new(),
        };
        for case in [
            Case {
                steps: vec![new_for(&acme)],
                ..case("a new ticket")
            },
            Case {
                kind: Kind::Updated,
                steps: vec![new_for(&acme)],
                ..case("an update of a ticket we do not have")
            },
            Case {
                kind: Kind::Changed,
                ..case("a new status starts no work")
            },
            Case {
                stored: true,
                ..case("a repeat")
            },
            Case {
                client_id: Some(99),
                client: None,
                steps: vec![Step::NotImported { client_id: 99 }],
                ..case("a client that is not imported")
            },
            Case {
                client_id: None,
                client: None,
                steps: vec![Step::Create { client: None }],
                ..case("the controller asks whose it is")
            },
            Case {
                client_id: None,
                client: None,
                stored: true,
                ..case("a repeat that does not name the client")
            },
            Case {
                client: Some(entry("acme", 12, true)),
                ..case("a suspended client gets nothing new")
            },
        ] {
            case.check();
        }
    }

    #[test]
    fn closed_and_deleted_tickets() {
        let acme = entry("acme", 12, false);
        let closed = Step::Update {
            ticket: "acme-7".into(),
            halo_client_id: None,
            closed: Some(true),
            reopen: false,
        };
        for case in [
            Case {
                about: "closed",
                kind: Kind::Closed,
                client_id: Some(12),
                client: Some(acme.clone()),
                stored: true,
                steps: vec![closed.clone()],
            },
            Case {
                about: "closed, and not ours",
                kind: Kind::Closed,
                client_id: Some(12),
                client: Some(acme),
                stored: false,
                steps: vec![],
            },
            Case {
                about: "deleted",
                kind: Kind::Deleted,
                client_id: None,
                client: None,
                stored: true,
                steps: vec![closed],
            },
        ] {
            case.check();
        }
    }

    #[test]
    fn what_we_did_ourselves_is_not_news() {
        let own = Event {
            actor_agent: Some(TechnicianId(31)),
            ..event(Kind::Updated, Some(12))
        };
        let known = Known {
            api_agent: Some(TechnicianId(31)),
            client: Some(entry("acme", 12, false)),
            tickets: vec![],
        };
        assert_eq!(decide(&own, &known), []);
    }

    #[test]
    fn a_moved_ticket_leaves_one_client_and_comes_to_the_other() {
        let blue = entry("blue", 13, false);
        let stored = ticket("acme", 12);
        let known = |client: Option<&ClientEntry>| Known {
            api_agent: None,
            client: client.cloned(),
            tickets: vec![&stored],
        };
        let moved = |to| Step::Update {
            ticket: "acme-7".into(),
            halo_client_id: Some(to),
            closed: None,
            reopen: false,
        };
        for kind in [Kind::Updated, Kind::Changed] {
            assert_eq!(
                decide(&event(kind, Some(13)), &known(Some(&blue))),
                [moved(13), new_for(&blue)]
            );
        }
        assert_eq!(
            decide(&event(Kind::Updated, Some(99)), &known(None)),
            [moved(99), Step::NotImported { client_id: 99 }],
            "to a client that is not imported"
        );
    }

    #[test]
    fn a_ticket_that_comes_back_is_work_again() {
        let acme = entry("acme", 12, false);
        let step = |left: Ticket| {
            let known = Known {
                api_agent: None,
                client: Some(acme.clone()),
                tickets: vec![&left],
            };
            decide(&event(Kind::Changed, Some(12)), &known)
        };
        let update = |halo_client_id, closed, reopen| Step::Update {
            ticket: "acme-7".into(),
            halo_client_id,
            closed,
            reopen,
        };
        assert_eq!(
            step(left("acme", 13, Phase::Ignored, Reason::Moved)),
            [update(Some(12), None, true)],
            "moved away and back"
        );
        assert_eq!(
            step(left("acme", 12, Phase::Ignored, Reason::Closed)),
            [update(None, Some(false), true)],
            "closed before the agent came, and reopened"
        );
        let mut done = left("acme", 12, Phase::Done, Reason::Completed);
        done.spec.closed = true;
        assert_eq!(
            step(done),
            [update(None, Some(false), false)],
            "what is done stays done"
        );
    }
}
