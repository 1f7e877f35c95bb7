//! The HaloPSA client against the simulator's worst days. No cluster is needed.

#![allow(clippy::unwrap_used)]

mod faults;
mod limits;
mod memory;

use halopsa_operator::halopsa::{Client, Config};
use halopsa_operator::net::{Guard, Rules};
use halosim::{Options, Sim};
use std::time::Duration;

pub async fn sim() -> Sim {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Sim::start(Options {
        rate_limit: 100_000,
        ..Options::default()
    })
    .await
    .unwrap()
}

pub fn config(sim: &Sim) -> Config {
    config_of(sim.url.clone(), sim.shared.ca_pem.clone())
}

pub fn config_of(instance_url: String, ca: String) -> Config {
    Config {
        name: "test/halo".into(),
        instance_url,
        tenant: None,
        client_id: halosim::seed::CLIENT_ID.into(),
        client_secret: halosim::seed::CLIENT_SECRET.to_string().into(),
        ca: Some(ca),
        requests: 100_000,
        window: Duration::from_secs(300),
        share: 1.0,
        timeout: Duration::from_secs(4),
        max_wait: Duration::from_secs(5),
        addresses: Guard::new(Rules {
            loopback: true,
            ..Rules::default()
        }),
        resolve: None,
        observer: None,
    }
}

pub fn client(sim: &Sim) -> Client {
    Client::new(config(sim)).unwrap()
}
