//! How many agents a client needs. Pure.

use crate::k8s::index::Load;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// Tickets per agent before another is started.
const TICKETS_PER_AGENT: usize = 4;

/// The wanted number, and when to check again even if nothing happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    pub replicas: i32,
    pub recheck_at: Option<Timestamp>,
}

/// None while idle, one as soon as a ticket waits, more when many do. Never
/// fewer while there is work: the Pod that ends might be the one that works.
pub fn wanted(load: &Load, current: i32, max: i32, idle: Duration, now: Timestamp) -> Scale {
    let busy = load.waiting + load.working;
    if busy > 0 {
        let agents = busy.div_ceil(TICKETS_PER_AGENT) as i32;
        return Scale {
            replicas: agents.max(current).clamp(1, max.max(1)),
            recheck_at: None,
        };
    }
    let idle = SignedDuration::try_from(idle).unwrap_or(SignedDuration::ZERO);
    match load.last_change.map(|at| at + idle) {
        Some(until) if current > 0 && now < until => Scale {
            replicas: current.min(max),
            recheck_at: Some(until),
        },
        _ => Scale {
            replicas: 0,
            recheck_at: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn table() {
        let idle = Duration::from_secs(600);
        let load = |waiting, working, last| Load {
            waiting,
            working,
            paused: 0,
            last_change: last,
        };
        for (load, current, replicas, again, why) in [
            (load(0, 0, None), 0, 0, None, "nothing ever"),
            (
                load(1, 0, Some(at(0))),
                0,
                1,
                None,
                "a ticket starts the agent",
            ),
            (load(9, 0, Some(at(0))), 0, 3, None, "many start more"),
            (load(100, 0, Some(at(0))), 1, 3, None, "up to the maximum"),
            (
                load(1, 1, Some(at(0))),
                3,
                3,
                None,
                "none is stopped while there is work",
            ),
            (
                load(0, 0, Some(at(900))),
                2,
                2,
                Some(at(1500)),
                "stays warm",
            ),
            (
                load(0, 0, Some(at(400))),
                2,
                0,
                None,
                "is stopped when idle",
            ),
            (
                load(0, 0, Some(at(900))),
                0,
                0,
                None,
                "is not started by finished work",
            ),
        ] {
            assert_eq!(
                wanted(&load, current, 3, idle, at(1000)),
                Scale {
                    replicas,
                    recheck_at: again
                },
                "{why}"
            );
        }
        // A ticket that waits for a human needs no agent.
        let paused = Load {
            paused: 1,
            ..Load::default()
        };
        assert_eq!(wanted(&paused, 0, 3, idle, at(1000)).replicas, 0);
    }
}
