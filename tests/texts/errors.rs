//! Errors as conditions, Events and logs show them.

use halopsa_operator::halopsa;
use halopsa_operator::halopsa_pool;
use halopsa_operator::k8s::refs;
use halopsa_operator::ticket::approval::WhyNot;
use halopsa_operator::ticket::ownership::Ownership;
use halopsa_operator::verify;
use std::time::Duration;

fn lines<T: std::fmt::Display>(all: impl IntoIterator<Item = T>) -> String {
    let lines = all.into_iter().map(|error| error.to_string());
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn halopsa_errors() {
    use halopsa::Error;
    let (host, call, detail) = (
        || "halo.example.com".to_string(),
        || "GET /Tickets/{id}".to_string(),
        || "what HaloPSA said".to_string(),
    );
    insta::assert_snapshot!(lines([
        Error::Unreachable {
            host: host(),
            detail: detail()
        },
        Error::Timeout {
            host: host(),
            call: call(),
            seconds: 30
        },
        Error::Broken {
            host: host(),
            call: call(),
            detail: detail()
        },
        Error::InvalidClient { detail: detail() },
        Error::Revoked { detail: detail() },
        Error::InvalidScope { detail: detail() },
        Error::SignIn {
            status: 503,
            detail: detail()
        },
        Error::Forbidden {
            call: call(),
            status: 403,
            detail: detail()
        },
        Error::NotFound { call: call() },
        Error::RateLimited {
            wait: Duration::from_secs(42)
        },
        Error::Rejected {
            call: call(),
            status: 400,
            detail: detail()
        },
        Error::Server {
            call: call(),
            status: 500,
            detail: detail()
        },
        Error::Answer {
            call: call(),
            detail: detail()
        },
    ]));
}

#[test]
fn reference_errors() {
    let missing = || refs::Error::Missing {
        kind: "Secret",
        name: "halopsa".into(),
    };
    let no_key = || refs::Error::NoKey {
        kind: "ConfigMap",
        name: "halopsa-ca".into(),
        key: "ca.crt".into(),
    };
    insta::assert_snapshot!(lines([missing(), no_key()]));
    insta::assert_snapshot!(lines([
        halopsa_pool::Error::Credentials(missing()),
        halopsa_pool::Error::Ca(no_key()),
    ]));
}

#[test]
fn verification_errors() {
    insta::assert_snapshot!(lines([
        verify::Error::Unreachable("connection refused".into()),
        verify::Error::Refused(401),
        verify::Error::Answer("it is not JSON".into()),
    ]));
}

#[test]
fn why_a_reply_does_not_count() {
    insta::assert_snapshot!(lines([
        WhyNot::Nobody,
        WhyNot::Integration,
        WhyNot::Email,
        WhyNot::Public,
        WhyNot::NotAssigned,
        WhyNot::Reassigned,
        WhyNot::AnotherNote,
        WhyNot::Between,
        WhyNot::TooSoon,
        WhyNot::CodeNeeded,
        WhyNot::WrongNumber,
        WhyNot::WrongCode,
        WhyNot::TooMany,
    ]));
}

#[test]
fn whose_ticket_it_is() {
    let all = [
        Ownership::Ours,
        Ownership::Closed,
        Ownership::Moved,
        Ownership::Deleted,
    ];
    insta::assert_snapshot!(lines(all.map(Ownership::sentence)));
}
