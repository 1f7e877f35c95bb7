//! The public listener and strangers: nothing of theirs is read before it is known who sends it,
//! and none of them is waited for.

use crate::harness::{ACME, Harness};
use reqwest::StatusCode;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

/// A body of which no byte ever comes.
fn endless() -> reqwest::Body {
    let never = futures::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    reqwest::Body::wrap_stream(never)
}

/// Clients of HTTP/1 and HTTP/2 that trust the operator.
fn clients(harness: &Harness) -> [reqwest::Client; 2] {
    let ca = reqwest::Certificate::from_pem(harness.ca.as_bytes()).unwrap();
    let builder = || {
        reqwest::Client::builder()
            .tls_certs_only([ca.clone()])
            .no_proxy()
    };
    [
        builder().http1_only().build().unwrap(),
        builder().build().unwrap(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_is_known_before_the_body_is_read() {
    let harness = Harness::start("unread").await;
    harness.ready(&[ACME]).await;
    let namespace = &harness.namespace;
    let (username, password) = harness.webhook_login().await;
    for http in clients(&harness) {
        for (path, password) in [
            (format!("webhooks/{namespace}/halo"), "wrong"),
            (format!("webhooks/{namespace}/other"), password.as_str()),
            (format!("verifications/{namespace}/none"), "any"),
        ] {
            let answer = http
                .post(format!("{}/{path}", harness.webhooks))
                .basic_auth(&username, Some(password))
                .body(endless())
                .timeout(Duration::from_secs(5))
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}");
        }
        // Even HaloPSA has to finish.
        let at = Instant::now();
        let answer = http
            .post(format!("{}/webhooks/{namespace}/halo", harness.webhooks))
            .basic_auth(&username, Some(&password))
            .body(endless())
            .timeout(Duration::from_secs(20))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(at.elapsed() < Duration::from_secs(15), "{:?}", at.elapsed());
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_that_never_finish_delay_no_webhook_and_no_agent() {
    let mut harness = Harness::start("slowly").await;
    harness.ready(&[ACME]).await;
    harness.run_agent("acme-dental-group").await;
    let address = harness.webhooks.replace("https://localhost", "127.0.0.1");
    let strangers: Vec<_> = (0..300)
        .map(|_| tokio::spawn(drip(address.clone())))
        .collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let id = harness.open_ticket(ACME, "Printer is offline");
    harness
        .ticket_in(&format!("acme-dental-group-{id}"), "Done")
        .await;
    for stranger in strangers {
        stranger.abort();
    }
    harness.stop().await;
}

/// Connects again and again, and sends a byte per second.
async fn drip(address: String) {
    loop {
        if let Ok(mut connection) = tokio::net::TcpStream::connect(&address).await {
            while connection.write_all(&[0x16]).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
