//! Sign-ins and the request limit under many callers at once.

use crate::{config, sim};
use futures::StreamExt;
use halopsa_operator::halopsa::{Client, Priority};
use proptest::prelude::*;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const CALLS: usize = 1000;

/// What happens after so many answered calls.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// Every token ends.
    Expiry,
    /// So many requests are told 401 though their token is good.
    Unauthorized(u32),
    /// So many requests are told 429, with `Retry-After`.
    Limited(u32),
}

fn trouble() -> impl Strategy<Value = (usize, Trouble)> {
    let kinds = prop_oneof![
        3 => Just(Trouble::Expiry),
        2 => (1u32..20).prop_map(Trouble::Unauthorized),
        1 => (1u32..5).prop_map(Trouble::Limited),
    ];
    (0..CALLS, kinds)
}

async fn run(schedule: Vec<(usize, Trouble)>, limit: u32, background: bool) {
    let sim = sim().await;
    let mut config = config(&sim);
    config.requests = limit;
    config.max_wait = Duration::from_secs(4);
    let halo = Client::new(config).unwrap();
    let answered = Arc::new(AtomicUsize::new(0));
    let shared = sim.shared.clone();
    let mut signs = 1u64;
    let mut schedule = schedule;
    schedule.sort_by_key(|(after, _)| *after);
    let begin = |trouble: Trouble| match trouble {
        Trouble::Expiry => {
            shared.auth.forget_tokens();
            1
        }
        Trouble::Unauthorized(times) | Trouble::Limited(times) => {
            let kind = if matches!(trouble, Trouble::Limited(_)) {
                "rate_limited"
            } else {
                "unauthorized"
            };
            let next =
                serde_json::from_value(json!({"kind": kind, "times": times, "path": "/api/"}))
                    .unwrap();
            shared.engine().faults.next.push(next);
            if kind == "unauthorized" {
                u64::from(times)
            } else {
                0
            }
        }
    };
    let priority = if background {
        Priority::Background
    } else {
        Priority::Ticket
    };
    let calls = futures::stream::iter(0..CALLS).map(|_| {
        let (halo, answered) = (halo.clone(), answered.clone());
        async move {
            let outcome = halo.get("/Agent/me", &[], priority).await;
            answered.fetch_add(1, Ordering::Relaxed);
            outcome
        }
    });
    let mut calls = calls.buffer_unordered(CALLS);
    let mut done = Vec::new();
    for (after, trouble) in schedule {
        while done.len() < after {
            done.push(calls.next().await.unwrap());
        }
        signs += begin(trouble);
    }
    done.extend(calls.collect::<Vec<_>>().await);
    let counts = sim.shared.auth.counts();
    assert_eq!(done.len(), CALLS);
    assert!(
        counts.tokens <= signs,
        "{} sign-ins, {signs} reasons for one",
        counts.tokens
    );
    let may = if background { limit - limit / 5 } else { limit };
    assert!(
        counts.requests <= u64::from(may),
        "{} requests, {may} allowed",
        counts.requests
    );
    for outcome in done {
        if let Err(error) = outcome {
            // No room in time; or its renewed token was refused as well, or the second 429 in a row.
            assert!(
                ["rate_limited", "forbidden"].contains(&error.kind()),
                "{error}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 20, ..ProptestConfig::default() })]
    #[test]
    fn no_storm_of_sign_ins_and_never_above_the_limit(
        schedule in prop::collection::vec(trouble(), 0..12),
        limit in prop_oneof![Just(300u32), Just(1_010), Just(5_000)],
        background in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(run(schedule, limit, background));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_wait_for_room_instead_of_failing() {
    let sim = sim().await;
    sim.shared.auth.set_limit(halosim::auth::Limit {
        requests: 50,
        window_seconds: 2,
        retry_after: true,
        named: true,
    });
    let mut config = config(&sim);
    // The client believes in more than there is, and learns it.
    config.requests = 80;
    config.window = Duration::from_secs(2);
    config.name = "msp/waits".into();
    config.max_wait = Duration::from_secs(60);
    let metrics = std::sync::Arc::<halopsa_operator::metrics::Metrics>::default();
    config.observer = Some(metrics.clone());
    let halo = Client::new(config).unwrap();
    metrics.watch_window("msp/waits", halo.limiter());
    let all =
        futures::future::join_all((0..160).map(|_| halo.get("/Agent/me", &[], Priority::Ticket)))
            .await;
    let failed: Vec<String> = all
        .into_iter()
        .filter_map(|r| r.err().map(|e| e.to_string()))
        .collect();
    assert!(failed.is_empty(), "{} failed: {}", failed.len(), failed[0]);
    let text = metrics.text();
    assert!(
        text.contains("halopsa_request_window_limit{connection=\"msp/waits\"}"),
        "{text}"
    );
    assert!(
        text.contains("halopsa_requests_total{method=\"GET\",path=\"/Agent/me\",status=\"429\"}"),
        "{text}"
    );
}
