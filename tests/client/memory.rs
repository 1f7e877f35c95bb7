//! What a hostile HaloPSA may answer costs little memory. The peak is the process's: the test is
//! run once more as a process of its own.

use halopsa_operator::halopsa::client::check_answer;
use halopsa_operator::halopsa::reply::Reply;
use halopsa_operator::halopsa::types::{Action, Agent, HaloClient, Ticket};

/// As long as an answer may be.
const LENGTH: usize = 4 * 1024 * 1024;
/// The process itself, the longest answer, and a little. As a tree of values one of these alone
/// would take 64 MiB and more.
const MOST: usize = 80 * 1024 * 1024;

/// The most memory this process has had, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

fn filled(start: &str, part: &str, end: &str) -> Vec<u8> {
    let times = (LENGTH - start.len() - end.len()) / part.len();
    let mut body = String::with_capacity(LENGTH);
    body.push_str(start);
    for _ in 0..times {
        body.push_str(part);
    }
    body.push_str(end);
    body.into_bytes()
}

fn read(body: Vec<u8>) {
    let call = "GET /Tickets";
    let _ = check_answer(200, &body, call);
    let reply = Reply::new(call, body);
    let _ = reply.rows::<Ticket>("tickets");
    let _ = reply.rows::<Action>("actions");
    let _ = reply.rows::<HaloClient>("clients");
    let _ = reply.one::<Ticket>();
    let _ = reply.one::<Agent>();
    let _ = (reply.id(), reply.is_bare(), reply.explained());
}

#[test]
fn a_hostile_answer_costs_little_memory() {
    if std::env::var("TEST_MEMORY").is_err() {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "memory::a_hostile_answer_costs_little_memory",
                "--nocapture",
            ])
            .env("TEST_MEMORY", "1")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    for (start, part, end) in [
        ("[", "0,", "0]"),
        ("[", "[],", "0]"),
        ("[", "{},", "{}]"),
        ("{\"id\":1,\"details\":[", "0,", "0]}"),
        ("{\"id\":1,\"x\":", "[", "0"),
        ("[{\"id\":1,\"summary\":", "{\"a\":", "1"),
        ("{\"record_count\":1,\"tickets\":[", "{\"id\":1},", "0]}"),
        ("{\"tickets\":[", "{\"id\":[0,0,0]},", "0]}"),
        ("{", "\"a\":[],", "\"id\":1}"),
        ("\"", "x", "\""),
    ] {
        read(filled(start, part, end));
        let most = peak();
        assert!(most < MOST, "{start} {part}: {} MiB", most >> 20);
    }
}
