//! A rule's `when`: CEL over the call, bounded before it is run.
//!
//! Bounds: the expression's length (schema), macros nested at most twice, lists
//! and maps in the arguments of at most 100 entries. The regular expression
//! engine runs in linear time.
//!
//! Compiled expressions are cached in a static. To callers the functions are still
//! pure: the cache makes an answer faster, but the same input gives the same answer.

use super::facts::TicketFacts;
use cel::common::ast::{EntryExpr, Expr, IdedExpr};
use cel::extractors::This;
use cel::{Context, Program, Value};
use serde_json::{Map, json};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Names an expression may use.
pub const VARIABLES: [&str; 4] = ["args", "ticket", "tool", "client"];
const MAX_LENGTH: usize = 1024;
const MAX_NESTING: usize = 2;
const MAX_ENTRIES: usize = 100;
/// Compiled expressions that are kept.
const MAX_CACHED: usize = 1000;

type Compiled = Arc<Result<Program, String>>;

static CACHE: LazyLock<Mutex<HashMap<String, Compiled>>> = LazyLock::new(Mutex::default);

/// Checks that an expression can be used; the error says why not.
pub fn check(source: &str) -> Result<(), String> {
    match &*compiled(source) {
        Ok(_) => Ok(()),
        Err(why) => Err(why.clone()),
    }
}

fn compiled(source: &str) -> Compiled {
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = cache.get(source) {
        return known.clone();
    }
    let fresh: Compiled = Arc::new(compile(source));
    if cache.len() >= MAX_CACHED {
        cache.clear();
    }
    cache.insert(source.to_string(), fresh.clone());
    fresh
}

fn compile(source: &str) -> Result<Program, String> {
    if source.len() > MAX_LENGTH {
        return Err(format!("it is longer than {MAX_LENGTH} characters"));
    }
    // The parser is third-party code: a panic in it must not end the process.
    let program = catch_unwind(|| Program::compile(source))
        .map_err(|_| "it cannot be parsed".to_string())?
        .map_err(|e| {
            let text = e.to_string();
            format!(
                "it cannot be parsed: {}",
                text.lines()
                    .map(str::trim)
                    .find(|l| !l.is_empty())
                    .unwrap_or("syntax error")
            )
        })?;
    let mut scopes = Vec::new();
    if nesting(program.expression(), &mut scopes) > MAX_NESTING {
        return Err(format!(
            "macros like all() and exists() are nested more than {MAX_NESTING} deep"
        ));
    }
    let references = program.references();
    if let Some(unknown) = references
        .variables()
        .into_iter()
        .find(|name| !VARIABLES.contains(name) && !scopes.iter().any(|s| s == name))
    {
        return Err(format!(
            "there is no variable {unknown}; use one of {}",
            VARIABLES.join(", ")
        ));
    }
    Ok(program)
}

/// How deep macros are nested. Collects the names they define.
fn nesting(expression: &IdedExpr, scopes: &mut Vec<String>) -> usize {
    let mut deepest = |all: &mut dyn Iterator<Item = &IdedExpr>| {
        all.map(|e| nesting(e, scopes)).max().unwrap_or(0)
    };
    match &expression.expr {
        Expr::Call(call) => deepest(&mut call.target.iter().map(|t| &**t).chain(call.args.iter())),
        Expr::List(list) => deepest(&mut list.elements.iter()),
        Expr::Select(select) => nesting(&select.operand, scopes),
        Expr::Map(map) => map
            .entries
            .iter()
            .map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    nesting(&entry.key, scopes).max(nesting(&entry.value, scopes))
                }
                EntryExpr::StructField(field) => nesting(&field.value, scopes),
            })
            .max()
            .unwrap_or(0),
        Expr::Comprehension(c) => {
            scopes.extend([c.iter_var.clone(), c.accu_var.clone()]);
            scopes.extend(c.iter_var2.clone());
            let parts = [
                &c.iter_range,
                &c.accu_init,
                &c.loop_cond,
                &c.loop_step,
                &c.result,
            ];
            1 + parts
                .into_iter()
                .map(|e| nesting(e, scopes))
                .max()
                .unwrap_or(0)
        }
        _ => 0,
    }
}

/// Whether the expression holds for a call; an error if it cannot be evaluated.
pub fn holds(
    source: &str,
    tool: &str,
    client: &str,
    arguments: &Map<String, serde_json::Value>,
    ticket: &TicketFacts,
) -> Result<bool, String> {
    let program = compiled(source);
    let program = program.as_ref().as_ref().map_err(String::clone)?;
    if !arguments.values().all(|v| small(v, 0)) {
        return Err("the arguments are too large for an expression".into());
    }
    let mut context = Context::default();
    context
        .add_function("lowerAscii", lower_ascii)
        .map_err(|e| e.to_string())?;
    let facts = json!({
        "id": ticket.id,
        "clientId": ticket.client_id,
        "priority": ticket.priority,
        "status": ticket.status,
        "type": ticket.kind,
        "category": ticket.category,
    });
    for (name, value) in [
        ("args", serde_json::Value::Object(arguments.clone())),
        ("ticket", facts),
        ("tool", tool.into()),
        ("client", client.into()),
    ] {
        let value = cel::to_value(value).map_err(|e| e.to_string())?;
        context.add_variable_from_value(name, value);
    }
    match catch_unwind(AssertUnwindSafe(|| program.execute(&context))) {
        Ok(Ok(Value::Bool(holds))) => Ok(holds),
        Ok(Ok(_)) => Err("it does not evaluate to true or false".into()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it cannot be evaluated".into()),
    }
}

/// `args.user.lowerAscii() == 'ceo@acme.example'`: what another server ignores the case of.
fn lower_ascii(This(text): This<Arc<String>>) -> Value {
    Value::from(text.to_ascii_lowercase())
}

fn small(value: &serde_json::Value, depth: usize) -> bool {
    match value {
        serde_json::Value::Array(items) => {
            depth < 8 && items.len() <= MAX_ENTRIES && items.iter().all(|v| small(v, depth + 1))
        }
        serde_json::Value::Object(map) => {
            depth < 8 && map.len() <= MAX_ENTRIES && map.values().all(|v| small(v, depth + 1))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluate(source: &str, arguments: serde_json::Value) -> Result<bool, String> {
        let ticket = TicketFacts {
            id: 7,
            client_id: 12,
            priority: "High".into(),
            status: "New".into(),
            ..TicketFacts::default()
        };
        holds(source, "t", "acme", arguments.as_object().unwrap(), &ticket)
    }

    #[test]
    fn expressions_see_call_and_ticket() {
        for (source, arguments, holds) in [
            ("args.status == 'Closed'", json!({"status": "Closed"}), true),
            ("args.status == 'Closed'", json!({"status": "New"}), false),
            ("has(args.minutes) && args.minutes > 60", json!({}), false),
            ("args.minutes > 60", json!({"minutes": 90}), true),
            (
                "ticket.priority in ['High', 'Critical'] && client == 'acme'",
                json!({}),
                true,
            ),
            ("tool.startsWith('t') && ticket.id == 7", json!({}), true),
            (
                "args.user.lowerAscii() == 'ceo@acme.example'",
                json!({"user": "CEO@Acme.Example"}),
                true,
            ),
            (
                "args.to.all(a, a.endsWith('@acme.example'))",
                json!({"to": ["x@acme.example", "y@evil.example"]}),
                false,
            ),
            (
                "args.text.matches('^[a-z ]+$')",
                json!({"text": "abc"}),
                true,
            ),
        ] {
            assert_eq!(evaluate(source, arguments), Ok(holds), "{source}");
        }
    }

    #[test]
    fn what_cannot_be_evaluated_is_an_error() {
        assert!(evaluate("args.missing == 1", json!({})).is_err());
        assert!(evaluate("args.text", json!({"text": "x"})).is_err());
        assert!(evaluate("args.n.lowerAscii() == ''", json!({"n": 1})).is_err());
        assert!(evaluate("args.list.exists(x, x == 1)", json!({"list": vec![0; 101]})).is_err());
    }

    #[test]
    fn expressions_are_checked_before_use() {
        assert_eq!(check("args.a == 1 && ticket.id > 2"), Ok(()));
        assert!(check("args.a ==").unwrap_err().contains("parsed"));
        assert!(
            check("request.user == 'x'")
                .unwrap_err()
                .contains("no variable request")
        );
        assert!(
            check("args.a.all(x, args.b.all(y, args.c.all(z, x == y && y == z)))")
                .unwrap_err()
                .contains("nested")
        );
        assert!(check("args.a.all(x, args.b.exists(y, x == y))").is_ok());
        assert!(check(&"a".repeat(2000)).is_err());
        assert!(check("((((((((").is_err() && check("").is_err());
    }
}
