//! HaloPSA's request limit: a number of requests per rolling window.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long to wait after a 429 that does not say.
pub const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Who asks. Background work leaves part of the window to tickets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Someone is waiting: a ticket is being worked on.
    Ticket,
    /// Sweeps, imports, webhook checks.
    Background,
}

/// On whose behalf a request is sent: an ImportedClient's. None: the operator's own.
///
/// Those of one caller may be as many as there are slots left, at most: it leaves half of what the
/// others left to it, however often it asks.
pub type Caller = Option<Arc<str>>;

#[derive(Debug)]
struct Sent {
    at: Instant,
    caller: Caller,
}

/// The rolling window, without a clock.
#[derive(Debug)]
pub struct Window {
    limit: usize,
    length: Duration,
    sent: VecDeque<Sent>,
    /// How many of them are whose.
    callers: HashMap<Arc<str>, usize>,
    closed_until: Option<Instant>,
}

impl Window {
    pub fn new(limit: usize, length: Duration) -> Self {
        Self {
            limit: limit.max(1),
            length,
            sent: VecDeque::new(),
            callers: HashMap::new(),
            closed_until: None,
        }
    }

    /// Takes a slot in the window, or returns how long until there is one.
    pub fn admit(
        &mut self,
        now: Instant,
        priority: Priority,
        caller: &Caller,
    ) -> Result<(), Duration> {
        match self.wait(now, priority, caller) {
            Duration::ZERO => {
                self.sent.push_back(Sent {
                    at: now,
                    caller: caller.clone(),
                });
                if let Some(caller) = caller {
                    *self.callers.entry(caller.clone()).or_default() += 1;
                }
                Ok(())
            }
            wait => Err(wait),
        }
    }

    /// Slots taken, and how many there are.
    pub fn usage(&mut self, now: Instant) -> (usize, usize) {
        self.leave(now);
        (self.sent.len(), self.limit)
    }

    fn leave(&mut self, now: Instant) {
        while let Some(first) = self.sent.front()
            && now.duration_since(first.at) >= self.length
        {
            if let Some(caller) = self.sent.pop_front().and_then(|sent| sent.caller)
                && let Some(count) = self.callers.get_mut(&caller)
            {
                *count -= 1;
                if *count == 0 {
                    self.callers.remove(&caller);
                }
            }
        }
    }

    /// How long until there is a slot, without taking it.
    pub fn wait(&mut self, now: Instant, priority: Priority, caller: &Caller) -> Duration {
        if let Some(until) = self.closed_until.filter(|until| now < *until) {
            return until - now;
        }
        self.leave(now);
        let own = caller
            .as_ref()
            .map_or(Duration::ZERO, |caller| self.wait_for_share(now, caller));
        let limit = self.limit_for(priority);
        if self.sent.len() < limit {
            return own;
        }
        // A slot is free once the oldest request in the way has left the window.
        let blocker = &self.sent[self.sent.len() - limit];
        self.until_gone(now, blocker).max(own)
    }

    /// How long until a caller has fewer slots than are left.
    fn wait_for_share(&self, now: Instant, caller: &Arc<str>) -> Duration {
        let mut own = self.callers.get(caller).copied().unwrap_or_default();
        let mut taken = self.sent.len();
        let mut sent = self.sent.iter();
        let mut wait = Duration::ZERO;
        while own > 0 && own + taken >= self.limit {
            let Some(first) = sent.next() else {
                return wait;
            };
            taken -= 1;
            if first.caller.as_ref() == Some(caller) {
                own -= 1;
            }
            wait = self.until_gone(now, first);
        }
        wait
    }

    fn until_gone(&self, now: Instant, sent: &Sent) -> Duration {
        self.length
            .saturating_sub(now.duration_since(sent.at))
            .max(Duration::from_millis(1))
    }

    fn limit_for(&self, priority: Priority) -> usize {
        match priority {
            Priority::Ticket => self.limit,
            // A fifth of the window is kept for tickets.
            Priority::Background => (self.limit - self.limit / 5).max(1),
        }
    }

    /// HaloPSA reported that the limit is reached: nothing is sent until then.
    pub fn close(&mut self, until: Instant) {
        self.closed_until = Some(self.closed_until.map_or(until, |at| at.max(until)));
    }

    /// HaloPSA reported its limit.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.max(1);
    }
}

/// A window shared by the callers of one process.
#[derive(Debug)]
pub struct Limiter {
    window: Mutex<Window>,
    /// This process's share of the tenant's limit.
    share: f64,
}

impl Limiter {
    /// `share` is the part of the tenant's limit this process may use.
    pub fn new(requests: u32, length: Duration, share: f64) -> Self {
        let share = share.clamp(0.01, 1.0);
        Self {
            window: Mutex::new(Window::new(part(requests as usize, share), length)),
            share,
        }
    }

    /// Waits until the window has room.
    pub async fn admit(&self, priority: Priority, caller: &Caller) {
        loop {
            let wait = match self.lock().admit(Instant::now(), priority, caller) {
                Ok(()) => return,
                Err(wait) => wait,
            };
            // Jitter, so that waiting callers do not all retry at once.
            tokio::time::sleep(wait + Duration::from_millis(rand::random_range(0..50))).await;
        }
    }

    /// Handles a 429: closes the window for as long as the server says, or a minute, and takes
    /// the limit from its text. Returns the wait.
    pub fn on_429(&self, body: &str, retry_after: Option<Duration>) -> Duration {
        let wait = retry_after
            .unwrap_or(DEFAULT_RETRY_AFTER)
            .min(Duration::from_secs(600));
        let mut window = self.lock();
        if let Some(limit) = limit_in(body) {
            window.set_limit(part(limit, self.share));
        }
        window.close(Instant::now() + wait);
        wait
    }

    /// How long until there is room.
    pub fn wait(&self, priority: Priority, caller: &Caller) -> Duration {
        self.lock().wait(Instant::now(), priority, caller)
    }

    /// Requests in the window, and how many it allows.
    pub fn usage(&self) -> (usize, usize) {
        self.lock().usage(Instant::now())
    }

    fn lock(&self) -> MutexGuard<'_, Window> {
        self.window
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn part(limit: usize, share: f64) -> usize {
    ((limit as f64 * share) as usize).max(1)
}

/// The number in `Rate Limit Reached - 300 Requests per rolling 5 minute window`.
fn limit_in(body: &str) -> Option<usize> {
    let lower = body.get(..body.len().min(1000))?.to_ascii_lowercase();
    let before = lower
        .split("requests per")
        .next()
        .filter(|before| before.len() < lower.len())?;
    let number = before
        .trim_end()
        .rsplit(|c: char| !c.is_ascii_digit())
        .next()?;
    number.parse().ok().filter(|n| (1..=1_000_000).contains(n))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_limit_is_read_from_the_text() {
        assert_eq!(
            limit_in("Rate Limit Reached - 300 Requests per rolling 5 minute window"),
            Some(300)
        );
        assert_eq!(limit_in("Too many requests"), None);
        assert_eq!(limit_in("é requests per"), None);
    }

    #[test]
    fn background_work_leaves_room_for_tickets() {
        let mut window = Window::new(10, Duration::from_secs(300));
        let now = Instant::now();
        while window.admit(now, Priority::Background, &None).is_ok() {}
        assert_eq!(window.sent.len(), 8);
        assert!(window.admit(now, Priority::Ticket, &None).is_ok());
        assert!(window.admit(now, Priority::Ticket, &None).is_ok());
        assert!(window.admit(now, Priority::Ticket, &None).is_err());
    }

    #[test]
    fn one_caller_leaves_half_of_what_is_left_to_the_others() {
        let mut window = Window::new(100, Duration::from_secs(300));
        let now = Instant::now();
        let callers: [Caller; 2] = [Some("a".into()), Some("b".into())];
        let mut taken = callers.each_ref().map(|caller| {
            let mut taken = 0;
            while window.admit(now, Priority::Ticket, caller).is_ok() {
                taken += 1;
            }
            taken
        });
        assert_eq!(taken, [50, 25]);
        // The operator's own requests, like those of approved steps, may use the rest.
        while window.admit(now, Priority::Ticket, &None).is_ok() {
            taken[1] += 1;
        }
        assert_eq!(taken, [50, 50]);
        // A caller who has none yet gets the first free one.
        let later = now + Duration::from_secs(300);
        assert!(
            window
                .admit(later, Priority::Ticket, &Some("c".into()))
                .is_ok()
        );
    }

    proptest! {
        #[test]
        fn no_caller_has_more_than_its_share(
            steps in prop::collection::vec((0u64..2000, 0usize..4), 1..300),
            limit in 1usize..30,
        ) {
            let length = Duration::from_secs(5);
            let callers: [Caller; 4] = [None, Some("a".into()), Some("b".into()), Some("c".into())];
            let mut window = Window::new(limit, length);
            let mut now = Instant::now();
            for (step, who) in steps {
                now += Duration::from_millis(step);
                let caller = &callers[who];
                match window.admit(now, Priority::Ticket, caller) {
                    Ok(()) => {
                        let of = |sent: &&Sent| sent.caller == *caller;
                        let own = window.sent.iter().filter(of).count();
                        let others = window.sent.len() - own;
                        prop_assert!(
                            who == 0 || own == 1 || 2 * own <= limit - others + 1,
                            "{} of {}, {} others", own, limit, others
                        );
                    }
                    Err(wait) => {
                        prop_assert!(wait <= length);
                        now += wait;
                        prop_assert!(window.admit(now, Priority::Ticket, caller).is_ok());
                    }
                }
            }
        }

        #[test]
        fn no_window_ever_holds_more_than_the_limit(
            steps in prop::collection::vec(0u64..2000, 1..300),
            limit in 1usize..20,
        ) {
            let length = Duration::from_secs(5);
            let mut window = Window::new(limit, length);
            let mut now = Instant::now();
            let mut sent: Vec<Instant> = Vec::new();
            for step in steps {
                now += Duration::from_millis(step);
                match window.admit(now, Priority::Ticket, &None) {
                    Ok(()) => sent.push(now),
                    Err(wait) => prop_assert!(wait <= length),
                }
                let within = sent.iter().filter(|at| now.duration_since(**at) < length).count();
                prop_assert!(within <= limit);
            }
        }

        #[test]
        fn waiting_as_told_gets_a_slot(limit in 1usize..20) {
            let mut window = Window::new(limit, Duration::from_secs(5));
            let mut now = Instant::now();
            for _ in 0..limit * 3 {
                if let Err(wait) = window.admit(now, Priority::Background, &None) {
                    now += wait;
                    prop_assert!(window.admit(now, Priority::Background, &None).is_ok());
                }
            }
        }
    }
}
