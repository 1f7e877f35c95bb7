//! A list of namespaces, watched as one.

use crate::harness::eventually;
use halopsa_operator::api::{LocalRef, Ticket, TicketSpec};
use halopsa_operator::k8s::key::Key;
use halopsa_operator::k8s::namespaces::Namespaces;
use halopsa_operator::k8s::watches::{Hooks, Watches};
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;
use std::time::Duration;

async fn namespace(kube: &Client, name: &str) {
    let object = json!({"metadata": {"name": name, "labels": {"rallied.ai/test": "integration"}}});
    let object: Namespace = serde_json::from_value(object).unwrap();
    Api::all(kube.clone())
        .create(&PostParams::default(), &object)
        .await
        .unwrap();
}

async fn ticket(kube: &Client, namespace: &str, name: &str) {
    let spec = TicketSpec {
        connection_ref: LocalRef {
            name: "none".into(),
        },
        ticket_id: 1,
        ..TicketSpec::default()
    };
    Api::namespaced(kube.clone(), namespace)
        .create(&PostParams::default(), &Ticket::new(name, spec))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn those_on_the_list_are_watched_and_no_other() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kube = Client::try_default()
        .await
        .expect("a cluster: run make integration");
    let run = rand::random::<u32>() & 0xff_ffff;
    let names = ["a", "b", "c"].map(|name| format!("it-list-{name}-{run:06x}"));
    let [first, second, other] = &names;
    for name in &names {
        namespace(&kube, name).await;
        ticket(&kube, name, "one").await;
    }
    let watches = Watches::default();
    let stores = watches.stores();
    let listed = Namespaces::new([first.clone(), second.clone()]);
    let _tasks = watches.run(&kube, &listed, Hooks::default());
    tokio::time::timeout(Duration::from_secs(30), stores.filled())
        .await
        .unwrap();
    let seen = || {
        let tickets = stores.tickets.state();
        let mut keys: Vec<Key> = tickets.iter().map(|t| Key::of(&**t)).collect();
        keys.sort();
        keys
    };
    let key = |namespace: &String, name: &str| Key::new(namespace, name);
    assert_eq!(seen(), [key(first, "one"), key(second, "one")]);
    for name in [second, other] {
        ticket(&kube, name, "two").await;
    }
    Api::<Ticket>::namespaced(kube.clone(), first)
        .delete("one", &DeleteParams::default())
        .await
        .unwrap();
    let expected = [key(second, "one"), key(second, "two")];
    eventually("a new Ticket, and one that is gone", || async {
        (seen() == expected).then_some(())
    })
    .await;
    for name in &names {
        let _ = Api::<Namespace>::all(kube.clone())
            .delete(name, &DeleteParams::background())
            .await;
    }
}
