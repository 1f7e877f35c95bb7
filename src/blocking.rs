//! Work that costs time on a processor, away from the threads that everything else runs on.

use crate::fair::Fair;
use std::sync::LazyLock;
use std::time::Duration;

/// How many pieces of work run at once, and of them for one namespace: a second one always finds
/// a place.
const PLACES: usize = 2;
const SHARE: usize = 1;
/// The longest wait for a place and the result.
const TIMEOUT: Duration = Duration::from_secs(20);

static RUNNING: LazyLock<Fair<String>> = LazyLock::new(|| Fair::new(PLACES, SHARE));

#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "the ticket's text could not be worked through within {} s; will retry; if it persists, look \
     for very large tickets or patterns in this namespace",
    TIMEOUT.as_secs()
)]
pub struct Busy;

/// Runs work for a namespace on a thread of its own. The place is kept until the work has ended,
/// also if nobody waits for it any longer: it cannot be stopped, and there are never more.
pub async fn run<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Busy> {
    let all = async {
        let place = RUNNING.enter(namespace.to_string()).await;
        tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        })
        .await
    };
    match tokio::time::timeout(TIMEOUT, all).await {
        Ok(Ok(done)) => Ok(done),
        // It panicked, which its hook has logged; or it took too long.
        Ok(Err(_)) | Err(_) => Err(Busy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn slow_work_of_one_namespace_delays_no_other() {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let slow = tokio::spawn(run("slow", move || wait.recv().is_ok()));
        let queued = tokio::spawn(run("slow", || 2));
        let other = tokio::time::timeout(Duration::from_secs(5), run("other", || 3)).await;
        assert_eq!(other.unwrap().unwrap(), 3);
        assert!(!queued.is_finished());
        go.send(()).unwrap();
        assert!(slow.await.unwrap().unwrap());
        assert_eq!(queued.await.unwrap().unwrap(), 2);
    }

    #[tokio::test]
    async fn a_panic_gives_the_place_back() {
        let panics = || -> u8 { panic!("as a bug would") };
        assert!(run("panics", panics).await.is_err());
        assert_eq!(run("panics", || 1).await.unwrap(), 1);
    }
}
