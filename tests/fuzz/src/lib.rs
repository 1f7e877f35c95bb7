//! What bytes from outside go through, and what must hold whatever they are.
//!
//! `make fuzz` runs each for a minute. An input that broke something is kept under
//! `crashes/` and replayed by `cargo test` from then on.

use halopsa_operator::halopsa::reply::Reply;
use halopsa_operator::halopsa::types::{Action, Agent, HaloClient, Ticket, User, Webhook};
use halopsa_operator::halopsa::{client, webhook};
use halopsa_operator::text;
use halopsa_operator::ticket::reply;

/// The body of a webhook.
pub fn webhook(data: &[u8]) {
    match webhook::parse(data) {
        Ok(events) => {
            assert!(!events.is_empty() && events.len() <= 500);
            assert!(
                events
                    .iter()
                    .all(|e| e.ticket_id > 0 && e.ticket_id <= i64::from(i32::MAX))
            );
        }
        Err(error) => one_line(&error.to_string()),
    }
}

/// HaloPSA's reply: a status, then the body.
pub fn reply(data: &[u8]) {
    let Some((status, body)) = data.split_first() else {
        return;
    };
    let status = [200, 201, 204, 302, 400, 401, 403, 404, 429, 500, 503][usize::from(*status) % 11];
    let call = "GET /Tickets/{id}";
    if let Err(error) = client::check_answer(status, body, call) {
        return one_line(&error.to_string());
    }
    let reply = Reply::new(call, body.to_vec());
    let lines = [
        reply.one::<Ticket>().map(drop),
        reply.one::<User>().map(drop),
        reply.one::<Webhook>().map(drop),
        reply.one::<Agent>().map(drop),
        reply.rows::<Ticket>("tickets").map(drop),
        reply.rows::<Action>("actions").map(drop),
        reply.rows::<HaloClient>("clients").map(drop),
    ];
    let _ = (reply.is_bare(), reply.id());
    for error in lines.into_iter().filter_map(Result::err) {
        one_line(&error.to_string());
    }
}

/// HTML of a note: to text, to a verdict, and to the page of a person.
pub fn html(data: &[u8]) {
    let html = String::from_utf8_lossy(data);
    let plain = text::from_html(&html);
    assert!(
        plain.len() <= html.len().saturating_mul(8) + 4096,
        "{} bytes from {}",
        plain.len(),
        html.len()
    );
    let verdict = reply::classify_html(&html);
    assert!(verdict.reason.len() < 1000);
    let clean = halosim::web::page::clean(&html).into_string();
    harmless(&clean);
    // Whatever a browser makes of it when it reads it anew.
    harmless(&halosim::web::page::clean(&clean).into_string());
}

fn harmless(clean: &str) {
    for tag in tags(clean) {
        let tag = tag.to_ascii_lowercase();
        let name: String = tag
            .trim_start_matches('/')
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect();
        let forbidden = [
            "script", "style", "iframe", "object", "form", "input", "img", "svg", "math", "link",
            "meta", "base",
        ];
        assert!(!forbidden.contains(&name.as_str()), "<{tag}> in {clean}");
        let names: String = tag.split('"').step_by(2).collect::<Vec<_>>().join(" ");
        assert!(
            !names.split_whitespace().any(|name| name.starts_with("on")),
            "<{tag}> in {clean}"
        );
        let squeezed: String = tag
            .chars()
            .filter(|c| !c.is_whitespace() && !c.is_control())
            .collect();
        assert!(
            !squeezed.contains("href=\"javascript:") && !squeezed.contains("href=\"data:"),
            "<{tag}> in {clean}"
        );
    }
}

/// What stands between `<` and `>` in cleaned HTML, where values are in quotes.
fn tags(html: &str) -> Vec<&str> {
    let mut tags = Vec::new();
    let mut rest = html;
    while let Some((_, after)) = rest.split_once('<') {
        let mut quoted = false;
        let end = after.find(|c| {
            quoted ^= c == '"';
            c == '>' && !quoted
        });
        let Some(end) = end else { break };
        tags.push(&after[..end]);
        rest = &after[end + 1..];
    }
    tags
}

fn one_line(text: &str) {
    assert!(
        !text.is_empty() && text.len() < 4000 && !text.contains('\n') && !text.contains('\r'),
        "{text:?}"
    );
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    fn replay(target: &str, run: fn(&[u8])) -> usize {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folders = ["seeds", "crashes"].map(|kind| root.join(kind).join(target));
        let files = folders
            .iter()
            .flat_map(|folder| std::fs::read_dir(folder).unwrap())
            .map(|file| file.unwrap().path());
        files
            .filter(|file| file.file_name().is_some_and(|n| n != ".keep"))
            .map(|file| run(&std::fs::read(file).unwrap()))
            .count()
    }

    #[test]
    fn what_was_found_before() {
        assert!(replay("webhook", super::webhook) > 0);
        assert!(replay("reply", super::reply) > 0);
        assert!(replay("html", super::html) > 0);
    }
}
