//! Places where a test can end a process. In every other build they do nothing.

/// Marks a place, like `step.sent`. With the feature `failpoints`, a test can end
/// the process here: what follows never runs, as after a `kill -9`.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub async fn hit(_namespace: &str, _name: &str) {}

#[cfg(feature = "failpoints")]
pub use armed::{arm, hit};

#[cfg(feature = "failpoints")]
mod armed {
    use std::collections::HashMap;
    use std::sync::{LazyLock, Mutex, PoisonError};
    use tokio::sync::oneshot;

    type Armed = HashMap<(String, String), (u32, oneshot::Sender<()>)>;

    static ARMED: LazyLock<Mutex<Armed>> = LazyLock::new(Mutex::default);

    /// Ends the operator of this namespace at the `nth` hit (from 1). The receiver is
    /// notified and takes the process down.
    pub fn arm(namespace: &str, name: &str, nth: u32) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        ARMED
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((namespace.into(), name.into()), (nth, sender));
        receiver
    }

    pub async fn hit(namespace: &str, name: &str) {
        let hit = {
            let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
            let key = (namespace.to_string(), name.to_string());
            match armed.get_mut(&key) {
                Some((nth, _)) if *nth > 1 => {
                    *nth -= 1;
                    None
                }
                Some(_) => armed.remove(&key),
                None => None,
            }
        };
        if let Some((_, sender)) = hit {
            let _ = sender.send(());
            // Meanwhile the test takes down the rest of the process, and its connections with it.
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            panic!("the process ends here: a test asked for it");
        }
    }
}
