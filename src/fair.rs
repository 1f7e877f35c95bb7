//! Places that many callers share, so that none of them takes all. Knows nothing of what is done
//! there.
//!
//! - [`Fair`]: so many at once in all, and so many at once per key
//! - [`Rates`]: so many per second and key

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// At least this long before one who was turned away comes again.
const TURNED_AWAY: Duration = Duration::from_millis(50);
/// Those of one key who were turned away come again one after the other, this far apart.
const APART: Duration = Duration::from_millis(2);
/// Nobody is sent away for longer.
const LONGEST: Duration = Duration::from_secs(30);

/// Places, of which no key has more than its share.
///
/// Whoever waits, waits in the queue of its own key first: at most a share of one key stands in
/// the queue that all have in common.
#[derive(Debug)]
pub struct Fair<K> {
    places: Arc<Semaphore>,
    share: usize,
    keys: Mutex<HashMap<K, Weak<Semaphore>>>,
    turns: Mutex<HashMap<K, Instant>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    _own: OwnedSemaphorePermit,
    _common: OwnedSemaphorePermit,
}

impl<K: Hash + Eq> Fair<K> {
    /// So many places, and of them so many for one key.
    pub fn new(places: usize, share: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places.max(1))),
            share: share.max(1),
            keys: Mutex::default(),
            turns: Mutex::default(),
        }
    }

    /// A place, if there is one now.
    pub fn try_enter(&self, key: K) -> Option<Place> {
        let own = self.of(key).try_acquire_owned().ok()?;
        let common = self.places.clone().try_acquire_owned().ok()?;
        Some(Place {
            _own: own,
            _common: common,
        })
    }

    /// Waits for a place.
    pub async fn enter(&self, key: K) -> Place {
        let own = self.of(key).acquire_owned().await;
        let common = self.places.clone().acquire_owned().await;
        match (own, common) {
            (Ok(own), Ok(common)) => Place {
                _own: own,
                _common: common,
            },
            // A semaphore that nobody closes does not fail.
            _ => std::future::pending().await,
        }
    }

    /// When one who was turned away may come again. Many of one key are given one time after the
    /// other, so that a thousand of them cost no more than a few.
    pub fn come_again(&self, key: K) -> Duration {
        let now = Instant::now();
        let mut turns = locked(&self.turns);
        if !turns.contains_key(&key) {
            turns.retain(|_, turn| *turn > now);
        }
        let turn = turns.entry(key).or_insert(now);
        *turn = (*turn + APART).clamp(now + TURNED_AWAY, now + LONGEST);
        turn.duration_since(now)
            .mul_f64(rand::random_range(1.0..1.25))
    }

    fn of(&self, key: K) -> Arc<Semaphore> {
        let mut keys = locked(&self.keys);
        if let Some(known) = keys.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        // Only those that somebody is at or waits at are kept.
        keys.retain(|_, of| of.strong_count() > 0);
        let new = Arc::new(Semaphore::new(self.share));
        keys.insert(key, Arc::downgrade(&new));
        new
    }
}

/// How often something may happen per key: a bucket of tokens each.
#[derive(Debug)]
pub struct Rates<K> {
    per_second: f64,
    burst: f64,
    buckets: Mutex<HashMap<K, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn tokens(&self, now: Instant, per_second: f64, burst: f64) -> f64 {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        (self.tokens + since * per_second).min(burst)
    }
}

/// Above this many keys the buckets that are full again are forgotten.
const MANY: usize = 1024;

impl<K: Hash + Eq> Rates<K> {
    pub fn new(per_second: f64, burst: u32) -> Self {
        Self {
            per_second: per_second.max(0.001),
            burst: f64::from(burst.max(1)),
            buckets: Mutex::default(),
        }
    }

    /// Takes one, or says how long until there is one.
    pub fn take(&self, key: K) -> Result<(), Duration> {
        self.take_at(key, Instant::now())
    }

    fn take_at(&self, key: K, now: Instant) -> Result<(), Duration> {
        let (rate, burst) = (self.per_second, self.burst);
        let mut buckets = locked(&self.buckets);
        if buckets.len() >= MANY && !buckets.contains_key(&key) {
            buckets.retain(|_, bucket| bucket.tokens(now, rate, burst) < burst);
        }
        let full = Bucket {
            tokens: burst,
            at: now,
        };
        let bucket = buckets.entry(key).or_insert(full);
        let tokens = bucket.tokens(now, rate, burst);
        if tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - tokens) / rate));
        }
        *bucket = Bucket {
            tokens: tokens - 1.0,
            at: now,
        };
        Ok(())
    }
}

/// A panic elsewhere leaves the maps intact: every change here is one insert or remove.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[tokio::test]
    async fn one_that_holds_its_share_leaves_places_to_others() {
        let fair = Arc::new(Fair::new(4, 2));
        let held = [fair.try_enter("a"), fair.try_enter("a")];
        assert!(held.iter().all(Option::is_some));
        assert!(fair.try_enter("a").is_none(), "no more than its share");
        // A thousand of them wait, and stand in nobody's way.
        let waiting: Vec<_> = (0..1000)
            .map(|_| {
                let fair = fair.clone();
                tokio::spawn(async move { fair.enter("a").await })
            })
            .collect();
        tokio::task::yield_now().await;
        let other = tokio::time::timeout(Duration::from_secs(1), fair.enter("b")).await;
        assert!(other.is_ok(), "the other one is served at once");
        drop(held);
        for waits in waiting {
            drop(waits.await.unwrap());
        }
        assert!(fair.try_enter("a").is_some(), "every place was given back");
    }

    #[test]
    fn keys_that_are_done_are_forgotten() {
        let fair = Fair::new(4, 2);
        for key in 0..1000 {
            assert!(fair.try_enter(key).is_some());
        }
        assert!(locked(&fair.keys).len() <= 2);
    }

    #[test]
    fn those_turned_away_come_one_after_the_other() {
        let fair = Fair::new(1, 1);
        let times: Vec<Duration> = (0..1000).map(|_| fair.come_again("a")).collect();
        assert!(times[0] >= TURNED_AWAY && times[0] < TURNED_AWAY * 2);
        assert!(times[999] > APART * 900 && times[999] <= LONGEST.mul_f64(1.25));
        assert!(fair.come_again("b") < TURNED_AWAY * 2, "another's is short");
    }

    #[test]
    fn a_burst_and_then_a_rate() {
        let (rates, now) = (Rates::new(2.0, 3), Instant::now());
        for _ in 0..3 {
            assert_eq!(rates.take_at("a", now), Ok(()));
        }
        let wait = rates.take_at("a", now).unwrap_err();
        assert_eq!(wait, Duration::from_millis(500));
        assert_eq!(rates.take_at("b", now), Ok(()), "another's bucket is full");
        assert_eq!(rates.take_at("a", now + wait), Ok(()));
    }

    proptest! {
        #[test]
        fn no_key_has_more_than_its_share_nor_all_more_than_there_is(
            places in 1usize..10,
            share in 1usize..5,
            steps in prop::collection::vec((0usize..4, any::<bool>()), 1..200),
        ) {
            let fair = Fair::new(places, share);
            let mut held: Vec<(usize, Place)> = Vec::new();
            for (key, enters) in steps {
                let own = held.iter().filter(|(k, _)| *k == key).count();
                if enters {
                    let entered = fair.try_enter(key);
                    let may = own < share && held.len() < places;
                    prop_assert_eq!(entered.is_some(), may);
                    held.extend(entered.map(|place| (key, place)));
                } else if let Some(at) = held.iter().position(|(k, _)| *k == key) {
                    held.swap_remove(at);
                }
            }
        }

        #[test]
        fn no_key_is_let_through_more_often_than_its_rate(
            burst in 1u32..10,
            steps in prop::collection::vec(0u64..500, 1..200),
        ) {
            let rates = Rates::new(4.0, burst);
            let start = Instant::now();
            let (mut now, mut taken) = (start, 0.0);
            for step in steps {
                now += Duration::from_millis(step);
                if rates.take_at((), now).is_ok() {
                    taken += 1.0;
                }
                let most = f64::from(burst) + 4.0 * now.duration_since(start).as_secs_f64();
                prop_assert!(taken <= most + 0.001, "{} of {}", taken, most);
            }
        }
    }
}
