//! Who waits for a client's tickets is woken when one of them changes, and not by all others.

use super::cache::Remembered;
use super::key::Key;
use crate::api::ticket::Ticket;
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use tokio::sync::watch;

/// Those who wait, by ImportedClient.
#[derive(Debug, Default)]
pub struct Wakeups(Remembered<Key, watch::Sender<()>>);

impl Wakeups {
    /// Moves whenever a Ticket of this client has changed, once the store has it.
    pub fn of(&self, client: Key) -> watch::Receiver<()> {
        let mut waiting = self.0.lock();
        if let Some(sender) = waiting.get(&client) {
            return sender.subscribe();
        }
        waiting.retain(|_, sender| !sender.is_closed());
        let (sender, receiver) = watch::channel(());
        waiting.insert(client, sender);
        receiver
    }

    /// Call it once the store has the change.
    pub fn wake(&self, event: &Event<Ticket>) {
        let ticket = match event {
            Event::Apply(ticket) | Event::Delete(ticket) => ticket,
            Event::InitDone => {
                for sender in self.0.lock().values() {
                    sender.send_replace(());
                }
                return;
            }
            // The store takes them over with the last of them.
            Event::Init | Event::InitApply(_) => return,
        };
        let Some(client) = &ticket.spec.client_ref else {
            return;
        };
        let client = Key::new(ticket.namespace().unwrap_or_default(), &client.name);
        if let Some(sender) = self.0.lock().get(&client) {
            sender.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::LocalRef;
    use crate::api::ticket::TicketSpec;

    fn ticket(namespace: &str, client: &str) -> Ticket {
        let client_ref = Some(LocalRef {
            name: client.into(),
        });
        let spec = TicketSpec {
            client_ref,
            ..TicketSpec::default()
        };
        let mut ticket = Ticket::new("t", spec);
        ticket.metadata.namespace = Some(namespace.into());
        ticket
    }

    #[test]
    fn only_who_waits_for_the_client_is_woken() {
        let wakeups = Wakeups::default();
        let mut acme = wakeups.of(Key::new("msp", "acme"));
        let mut blue = wakeups.of(Key::new("msp", "blue"));
        let mut other = wakeups.of(Key::new("other", "acme"));
        wakeups.wake(&Event::Apply(ticket("msp", "acme")));
        assert!(acme.has_changed().unwrap());
        assert!(!blue.has_changed().unwrap() && !other.has_changed().unwrap());
        acme.borrow_and_update();
        wakeups.wake(&Event::InitDone);
        for woken in [&mut acme, &mut blue, &mut other] {
            assert!(woken.has_changed().unwrap());
        }
    }

    #[test]
    fn nobody_who_left_is_kept() {
        let wakeups = Wakeups::default();
        for client in 0..100 {
            drop(wakeups.of(Key::new("msp", client.to_string())));
        }
        assert_eq!(wakeups.0.lock().len(), 1);
    }
}
