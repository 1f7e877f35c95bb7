//! `make bench`: how fast webhooks are accepted, compared with how fast the apiserver alone
//! creates Tickets, and how soon a warm agent has a ticket, also while others misbehave. Prints,
//! asserts nothing.

#[path = "../integration/harness.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod harness;

use futures::StreamExt;
use halopsa_operator::api::{HaloPSAConnection, LocalRef, Ticket, TicketSpec};
use harness::{ACME, Harness};
use kube::api::PostParams;
use serde_json::json;
use std::future::Future;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

const TICKETS: i64 = 3000;
const CONNECTIONS: usize = 32;
const CLAIMS: i64 = 300;
/// An agent's Pod may claim so often at once.
const CLAIMS_PER_POD: i64 = 100;
/// Connections to the public listener that send one byte per second and no credentials.
const SLOW: usize = 300;
/// Connections of the namespace to a HaloPSA that takes requests and never answers.
const HANGING: usize = 16;

/// Runs `count` calls, `CONNECTIONS` concurrently, and prints how long they took.
/// Returns calls per second.
async fn measure<F: Future<Output = ()>>(what: &str, count: i64, call: impl Fn(i64) -> F) -> f64 {
    let started = Instant::now();
    let call = &call;
    let timed = |n| async move {
        let at = Instant::now();
        call(n).await;
        at.elapsed()
    };
    let mut took: Vec<Duration> = futures::stream::iter(0..count)
        .map(timed)
        .buffer_unordered(CONNECTIONS)
        .collect()
        .await;
    let rate = count as f64 / started.elapsed().as_secs_f64();
    println!("{what}: {rate:.0} per second, {}", percentiles(&mut took));
    rate
}

fn percentiles(took: &mut [Duration]) -> String {
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    format!(
        "p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms ({} calls)",
        at(0.5),
        at(0.99),
        at(1.0),
        took.len()
    )
}

#[tokio::main]
async fn main() {
    let harness = Harness::start("bench").await;
    harness.ready(&[ACME]).await;
    println!("{CONNECTIONS} connections, everything on this machine");
    let alone = tickets_created(&harness).await;
    let taken = webhooks_taken(&harness).await;
    println!("ratio: {:.0} %", taken / alone * 100.0);
    harness.stop().await;

    let harness = Harness::start("claims").await;
    harness.ready(&[ACME]).await;
    claims(
        &harness,
        "webhook to claimed, context read, by a warm agent",
    )
    .await;
    let misbehaving = misbehave(&harness).await;
    let what = format!("the same, with {SLOW} slow connections and {HANGING} HaloPSAs that hang");
    claims(&harness, &what).await;
    for task in misbehaving {
        task.abort();
    }
    harness.stop().await;
}

/// Slow connections without credentials to the public listener, and connections whose HaloPSA
/// hangs.
async fn misbehave(harness: &Harness) -> Vec<tokio::task::JoinHandle<()>> {
    let address = harness.webhooks.replace("https://localhost", "127.0.0.1");
    let mut tasks: Vec<_> = (0..SLOW)
        .map(|_| tokio::spawn(slow(address.clone())))
        .collect();
    let hole = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = hole.local_addr().expect("an address").port();
    tasks.push(tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = hole.accept().await {
            held.push(stream);
        }
    }));
    for n in 0..HANGING {
        let name = format!("hangs-{n}");
        let mut connection = harness.connection(&[ACME]);
        connection["metadata"]["name"] = name.as_str().into();
        connection["spec"]["instanceURL"] = format!("https://localhost:{port}").into();
        harness.apply::<HaloPSAConnection>(&name, &connection).await;
    }
    // Until they are all waiting for an answer.
    tokio::time::sleep(Duration::from_secs(3)).await;
    tasks
}

/// Begins a TLS handshake and sends a byte per second. Whoever is turned away comes again.
async fn slow(address: String) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(&address).await {
            while stream.write_all(&[0x16]).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn tickets_created(harness: &Harness) -> f64 {
    let api = harness.api::<Ticket>();
    let spec = |id| TicketSpec {
        connection_ref: LocalRef {
            name: "none".into(),
        },
        client_ref: Some(LocalRef {
            name: "none".into(),
        }),
        ticket_id: id,
        subject: Some("Printer on the second floor is offline again".into()),
        ..TicketSpec::default()
    };
    let create = |n| {
        let (api, ticket) = (api.clone(), Ticket::new(&format!("bench-{n}"), spec(n + 1)));
        async move {
            api.create(&PostParams::default(), &ticket)
                .await
                .expect("created");
        }
    };
    measure("the apiserver alone creates Tickets", TICKETS, create).await
}

async fn webhooks_taken(harness: &Harness) -> f64 {
    let (username, password) = harness.webhook_login().await;
    let (http, url) = (
        harness.http(),
        format!("{}/webhooks/{}/halo", harness.webhooks, harness.namespace),
    );
    let post = |id: i64| {
        let body = json!({"event": "new ticket logged", "object_id": id, "ticket": {"id": id, "summary": "Printer on the second floor is offline again", "client_id": ACME}});
        http.post(&url)
            .basic_auth(&username, Some(&password))
            .json(&body)
            .send()
    };
    let webhook = |n: i64| {
        let sent = post(1_000_000 + n);
        async move {
            assert!(sent.await.expect("answered").status().is_success());
        }
    };
    measure(
        "webhooks accepted (while the controller works on them)",
        TICKETS,
        webhook,
    )
    .await
}

/// Every ticket is one of the simulator's, so that the gateway can gather its context.
async fn claims(harness: &Harness, what: &str) {
    let mut agent = harness.agent_gateway("acme-dental-group").await;
    let mut took = Vec::new();
    for n in 0..CLAIMS {
        if n % CLAIMS_PER_POD == CLAIMS_PER_POD - 1 {
            agent = harness.agent_gateway("acme-dental-group").await;
        }
        let claim = {
            let agent = agent.clone();
            tokio::spawn(async move { agent.claim().await })
        };
        tokio::time::sleep(Duration::from_millis(30)).await;
        let at = Instant::now();
        harness.open_ticket(ACME, &format!("Printer {n} is offline"));
        let work = claim
            .await
            .expect("joined")
            .expect("claimed")
            .expect("a ticket");
        // The simulator waits 20 ms before it posts.
        took.push(at.elapsed().saturating_sub(Duration::from_millis(20)));
        agent.release(&work).await.expect("released");
        // So that the next claim does not get it.
        let _ = harness
            .api::<Ticket>()
            .delete(&work.ticket, &Default::default())
            .await;
    }
    println!("{what}: {}", percentiles(&mut took));
}
