//! One agent that runs wild takes nothing from the others.

use crate::harness::{ACME, BLUE, Harness};
use reqwest::StatusCode;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How many of the answers had which status.
async fn statuses(
    answers: Vec<tokio::task::JoinHandle<reqwest::Result<reqwest::Response>>>,
) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        let answer = answer.await.unwrap().unwrap();
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            let wait = answer.headers()["retry-after"].to_str().unwrap();
            assert!(wait.parse::<u64>().unwrap() >= 1, "{wait}");
        }
        *counts.entry(answer.status().as_u16()).or_default() += 1;
    }
    counts
}

fn post(
    http: &reqwest::Client,
    url: String,
    token: &str,
) -> tokio::task::JoinHandle<reqwest::Result<reqwest::Response>> {
    let request = http
        .post(url)
        .bearer_auth(token)
        .json(&serde_json::json!({}));
    tokio::spawn(request.send())
}

/// The other client's ticket is claimed, and soon.
async fn blue_is_served(harness: &Harness) {
    let blue = harness.agent_gateway("blue-harbor-logistics").await;
    let id = harness.open_ticket(BLUE, "Printer is offline");
    harness
        .ticket_in(&format!("blue-harbor-logistics-{id}"), "Ready")
        .await;
    let started = Instant::now();
    let work = blue.claim().await.unwrap().expect("a ticket waits");
    let took = started.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    blue.release(&work).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_agent_with_many_requests_delays_no_other() {
    let harness = Harness::start("wild").await;
    harness.ready(&[ACME, BLUE]).await;
    let wild = harness.agent_gateway("acme-dental-group").await;
    let token = std::fs::read_to_string(&wild.token_file).unwrap();
    let http = harness.http();
    let claims: Vec<_> = (0..300)
        .map(|_| post(&http, format!("{}/v1/work/claim", harness.gateway), &token))
        .collect();
    let beats: Vec<_> = (0..600)
        .map(|_| {
            let url = format!("{}/v1/work/none/heartbeat", harness.gateway);
            post(&http, url, &token)
        })
        .collect();
    blue_is_served(&harness).await;
    let counts = statuses(beats).await;
    assert!(counts[&429] > 100, "{counts:?}");
    let counts = statuses(claims).await;
    // One waits for its ticket in vain, the others are told to come again.
    assert!(counts[&429] >= 290 && counts[&204] >= 1, "{counts:?}");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_unknown_tokens_do_not_keep_the_apiserver_busy() {
    let harness = Harness::start("tokens").await;
    harness.ready(&[ACME, BLUE]).await;
    let known = harness.agent_gateway("blue-harbor-logistics").await;
    // It is known from now on.
    let id = harness.open_ticket(BLUE, "Printer is offline");
    harness
        .ticket_in(&format!("blue-harbor-logistics-{id}"), "Ready")
        .await;
    let work = known.claim().await.unwrap().expect("a ticket waits");
    let http = harness.http();
    let bad: Vec<_> = (0..400)
        .map(|n| {
            let url = format!("{}/v1/work/claim", harness.gateway);
            post(&http, url, &format!("not-a-token-{n}"))
        })
        .collect();
    known.heartbeat(&work).await.unwrap();
    let counts = statuses(bad).await;
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [401, 429]);
    assert!(counts[&429] > 200, "{counts:?}");
    known.release(&work).await.unwrap();
    harness.stop().await;
}
