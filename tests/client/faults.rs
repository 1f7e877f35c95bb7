//! Each fault against each use of the client: the result is right or the error is
//! clear, nothing is written twice, and no call hangs.

use crate::{client, sim};
use futures::StreamExt;
use halopsa_operator::halopsa::api::{EVENTS, WebhookSpec};
use halopsa_operator::halopsa::{Client, Error};
use halosim::Sim;
use halosim::faults::Kind;
use serde_json::json;
use std::fmt::Debug;
use std::time::{Duration, Instant};

/// What the operator does with the client.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Use {
    Validate,
    RegisterWebhook,
    ListClients,
    ReadTicket,
    PostNote,
}

const USES: [Use; 5] = [
    Use::Validate,
    Use::RegisterWebhook,
    Use::ListClients,
    Use::ReadTicket,
    Use::PostNote,
];
const TICKET: i64 = 4000;
const MARKER: &str = "rallied-matrix-0-plan";
const HOOK: WebhookSpec<'_> = WebhookSpec {
    name: "Rallied",
    url: "https://receiver.example/x",
    username: "u",
    password: "hook-password",
};

impl Use {
    /// Where the fault hits.
    fn request(self) -> (&'static str, &'static str) {
        match self {
            Use::Validate => ("GET", "/api/agent/me"),
            Use::RegisterWebhook => ("POST", "/api/webhook"),
            Use::ListClients => ("GET", "/api/client"),
            Use::ReadTicket => ("GET", "/api/tickets/4000"),
            Use::PostNote => ("POST", "/api/actions"),
        }
    }

    fn writes(self) -> bool {
        self.request().0 == "POST"
    }

    /// Does it once; the result is checked against what the simulator holds.
    async fn run(self, halo: &Client) -> Result<(), Error> {
        match self {
            Use::Validate => {
                assert_eq!(halo.sign_in().await?.len(), 3);
                assert_eq!(halo.me().await?.name, "Rallied Agent");
            }
            Use::RegisterWebhook => {
                let hook = halo.put_webhook(None, &HOOK).await?;
                halo.subscribe(&hook.id, &EVENTS).await?;
                assert_eq!(halo.notifications(&hook.id).await?.len(), EVENTS.len());
            }
            Use::ListClients => {
                let ids: Vec<i64> = halo.clients().await?.iter().map(|c| c.id).collect();
                assert_eq!(ids, [1, 12, 13, 14]);
            }
            Use::ReadTicket => {
                let ticket = halo.ticket(TICKET).await?;
                assert_eq!(
                    (ticket.id, ticket.summary.as_str()),
                    (TICKET, "Printer on reception is offline")
                );
            }
            Use::PostNote => {
                let id = halo
                    .post_internal_note(TICKET, "Private Note", 7, &format!("<p>{MARKER}</p>"))
                    .await?;
                assert!(
                    halo.actions(TICKET, 10)
                        .await?
                        .iter()
                        .any(|a| a.id == id && a.note == MARKER)
                );
            }
        }
        Ok(())
    }

    /// What was written so far.
    fn written(self, sim: &Sim) -> usize {
        let store = sim.shared.store();
        match self {
            Use::RegisterWebhook => store.webhooks.len(),
            Use::PostNote => store
                .actions(TICKET)
                .iter()
                .filter(|a| a["note"] == MARKER)
                .count(),
            _ => 0,
        }
    }

    /// As the operator does it: looks for the write before it writes again.
    async fn again(self, halo: &Client) -> Result<(), Error> {
        let there = match self {
            Use::RegisterWebhook => halo.webhooks().await?.iter().any(|w| w.name == HOOK.name),
            Use::PostNote => halo
                .actions(TICKET, 100)
                .await?
                .iter()
                .any(|a| a.note.contains(MARKER)),
            _ => false,
        };
        if there { Ok(()) } else { self.run(halo).await }
    }
}

/// Whether a use comes through when the fault hits once.
fn comes_through(kind: Kind, of: Use) -> bool {
    match kind {
        // Certainly not carried out, or just slow.
        Kind::Unauthorized | Kind::RateLimited | Kind::SlowBody => true,
        // Whether it was carried out is not known; a question is asked again, a write is not.
        Kind::Http500
        | Kind::Http502
        | Kind::Http503
        | Kind::Http504
        | Kind::Exception
        | Kind::Reset
        | Kind::HalfBody
        | Kind::Hang => !of.writes(),
        // Not understood, and asked again later; and a minute is more than this connection's max_wait.
        Kind::HtmlPage
        | Kind::ErrorIn200
        | Kind::Empty
        | Kind::Endless
        | Kind::Redirect
        | Kind::RateLimitedSilently => false,
    }
}

fn is_clear(error: &Error, what: &dyn Debug) {
    let line = error.to_string();
    assert!(!line.contains('\n') && line.len() < 400, "{what:?}: {line}");
    assert!(
        line.contains("HaloPSA") && !line.contains("elsewhere.example"),
        "{what:?}: {line}"
    );
    for secret in [
        halosim::seed::CLIENT_SECRET,
        "hook-password",
        MARKER,
        "Printer on reception",
        "Bearer ",
    ] {
        assert!(
            !line.contains(secret) && !format!("{error:?}").contains(secret),
            "{what:?}: {line}"
        );
    }
    assert!(!error.kind().is_empty());
}

async fn case(kind: Kind, of: Use, carried_out: bool, forever: bool) -> String {
    let what = (
        kind,
        of,
        if carried_out {
            "carried out"
        } else {
            "not carried out"
        },
        if forever { "always" } else { "once" },
    );
    let sim = sim().await;
    let halo = client(&sim);
    let (method, path) = of.request();
    let times = if forever { 1_000_000 } else { 1 };
    let next = json!({"next": [{"kind": kind, "times": times, "method": method, "path": path, "carried_out": carried_out}]});
    sim.shared.set_faults(serde_json::from_value(next).unwrap());
    let started = Instant::now();
    let outcome = tokio::time::timeout(Duration::from_secs(60), of.run(&halo))
        .await
        .unwrap_or_else(|_| panic!("{what:?}: it hangs"));
    let took = started.elapsed();
    let written = of.written(&sim);
    assert!(written <= 1, "{what:?}: written {written} times");
    match &outcome {
        Ok(()) => assert!(
            !of.writes() || written == 1,
            "{what:?}: said to be written, and is not"
        ),
        Err(error) => {
            is_clear(error, &what);
            // What a refusing HaloPSA wrote all the same is not a refusal.
            assert!(
                !error.definitely_not_applied() || written == 0 || carried_out,
                "{what:?}: said to be refused, and is written"
            );
        }
    }
    match forever {
        false => assert_eq!(
            outcome.is_ok(),
            comes_through(kind, of),
            "{what:?}: {outcome:?}"
        ),
        true => assert!(outcome.is_err() || kind == Kind::SlowBody, "{what:?}"),
    }
    // Once HaloPSA is well again, another process finishes the work, and nothing is there twice.
    sim.shared.set_faults(halosim::Faults::default());
    of.again(&client(&sim))
        .await
        .unwrap_or_else(|e| panic!("{what:?}: afterwards: {e}"));
    assert!(
        !of.writes() || of.written(&sim) == 1,
        "{what:?}: {} afterwards",
        of.written(&sim)
    );
    let said = outcome.map_or_else(
        |error| format!("{}: {error}", error.kind()),
        |()| "right".into(),
    );
    format!(
        "{kind:?}, {of:?}, {}, {}: {said} ({:.1} s)",
        what.2,
        what.3,
        took.as_secs_f64()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_in_every_use() {
    let mut cases = Vec::new();
    for kind in Kind::ALL {
        for of in USES {
            for forever in [false, true] {
                cases.push((kind, of, false, forever));
                // HaloPSA may have written what it then answers with an error; a refusal it has not.
                let refusal = matches!(
                    kind,
                    Kind::Unauthorized | Kind::RateLimited | Kind::RateLimitedSilently
                );
                if of.writes() && !refusal {
                    cases.push((kind, of, true, forever));
                }
            }
        }
    }
    let count = cases.len();
    let mut lines: Vec<String> = futures::stream::iter(cases)
        .map(|(kind, of, carried_out, forever)| case(kind, of, carried_out, forever))
        .buffer_unordered(48)
        .collect()
        .await;
    lines.sort();
    println!("{count} cases\n{}", lines.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_in_that_fails_is_tried_once_for_all() {
    let sim = sim().await;
    sim.shared.set_faults(
        serde_json::from_value(
            json!({"next": [{"kind": "unauthorized", "times": 1000, "path": "/auth/token"}]}),
        )
        .unwrap(),
    );
    let halo = client(&sim);
    let calls = futures::future::join_all((0..200).map(|_| halo.me())).await;
    for call in calls {
        assert_eq!(call.unwrap_err().kind(), "invalid_client");
    }
    assert_eq!(
        sim.shared.engine().hits,
        1,
        "two hundred callers, one sign-in"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_regenerated_secret_is_recognised() {
    let sim = sim().await;
    let halo = client(&sim);
    halo.me().await.unwrap();
    sim.shared
        .change_application(halosim::seed::CLIENT_ID, |a| {
            a.client_secret = "another".into()
        });
    sim.shared.auth.forget_tokens();
    let error = halo.me().await.unwrap_err();
    assert_eq!(error.kind(), "invalid_client");
    assert!(
        error
            .to_string()
            .contains("accepted this Client Secret before and rejects it now"),
        "{error}"
    );
    // One that was never taken is just wrong.
    let error = client(&sim).me().await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("HaloPSA rejected the sign-in"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_and_unknown_cas_are_refused() {
    let sim = sim().await;
    let mut plain = crate::config(&sim);
    plain.instance_url = sim.url.replace("https", "http");
    assert!(matches!(Client::new(plain), Err(Error::Setup(_))));
    let mut unknown_ca = crate::config(&sim);
    unknown_ca.ca = Some(self::sim().await.shared.ca_pem.clone());
    let error = Client::new(unknown_ca).unwrap().me().await.unwrap_err();
    assert_eq!(error.kind(), "unreachable");
    is_clear(&error, &"a CA of somebody else");
}

/// A proxy that passes on what is asked with CONNECT, and whom for.
async fn proxy(
    to: std::net::SocketAddr,
) -> (
    std::net::SocketAddr,
    std::sync::Arc<std::sync::Mutex<Vec<String>>>,
) {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let keep = asked.clone();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let keep = keep.clone();
            tokio::spawn(async move {
                let mut near = BufReader::new(near);
                let (mut first, mut line) = (String::new(), String::new());
                near.read_line(&mut first).await?;
                while near.read_line(&mut line).await? > 2 {
                    line.clear();
                }
                keep.lock().unwrap().push(first);
                near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                let mut far = tokio::net::TcpStream::connect(to).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    (address, asked)
}

/// The environment is the process's: this test is run once more as a process of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_from_the_environment_is_used() {
    if let Ok(url) = std::env::var("TEST_HALOPSA_URL") {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = crate::config_of(url, std::env::var("TEST_HALOPSA_CA").unwrap());
        config.timeout = Duration::from_secs(10);
        assert_eq!(
            Client::new(config).unwrap().me().await.unwrap().name,
            "Rallied Agent"
        );
        return;
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    // A name that only the proxy knows the way to.
    let options = halosim::Options {
        names: vec!["halo.msp.example".into()],
        ..halosim::Options::default()
    };
    let sim = Sim::start(options).await.unwrap();
    let (proxy, asked) = proxy(sim.url.trim_start_matches("https://").parse().unwrap()).await;
    let (url, ca) = (
        "https://halo.msp.example".to_string(),
        sim.shared.ca_pem.clone(),
    );
    let run = move || {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "faults::a_proxy_from_the_environment_is_used"])
            .env("TEST_HALOPSA_URL", url)
            .env("TEST_HALOPSA_CA", ca)
            .env("HTTPS_PROXY", format!("http://{proxy}"))
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .output()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(asked.lock().unwrap()[0].starts_with("CONNECT halo.msp.example:443 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_changes_underneath_is_read_anew() {
    let sim = sim().await;
    {
        let mut store = sim.shared.store();
        for id in 1000..1250 {
            store.put(
                "client",
                halosim::store::object(
                    json!({"id": id, "name": format!("C{id}"), "inactive": false}),
                ),
            );
        }
    }
    let halo = client(&sim);
    let before = halo.clients().await.unwrap().len();
    assert_eq!(before, 254);
    // While it reads, a client of the first page is deleted: the rest moves up.
    sim.shared
        .set_faults(serde_json::from_value(json!({"latency_ms": 150})).unwrap());
    let reading = tokio::spawn(async move { halo.clients().await });
    tokio::time::sleep(Duration::from_millis(400)).await;
    sim.shared.store().remove("client", 1000).unwrap();
    let after = reading.await.unwrap().unwrap();
    assert_eq!(after.len(), 253);
    assert!(
        after.iter().any(|c| c.id == 1100),
        "the one at the edge of a page"
    );
}
