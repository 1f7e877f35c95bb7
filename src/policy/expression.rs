//! A rule's `when`: CEL over the call, bounded before it is run.
//!
//! Bounds: the expression's length (schema), macros nested at most twice, the size of
//! the arguments, and the work of one evaluation (`cost`). Patterns of `matches` are
//! written in the expression: they are compiled once, and are small.
//!
//! Compiled expressions are cached in a static. To callers the functions are still
//! pure: the cache makes an answer faster, but the same input gives the same answer.

use super::cost::{self, Input, MAX_ENTRIES};
use super::facts::TicketFacts;
use cel::common::ast::{EntryExpr, Expr, IdedExpr};
use cel::extractors::This;
use cel::{Context, DeclarationError, Env, ExecutionError, Program, Value};
use regex::{Regex, RegexBuilder};
use serde_json::Map;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Names an expression may use.
pub const VARIABLES: [&str; 4] = ["args", "ticket", "tool", "client"];
const MAX_LENGTH: usize = 1024;
const MAX_NESTING: usize = 2;
/// Weight of an input: its bytes, and one for every value in it.
const MAX_WEIGHT: u64 = 64 * 1024;
/// Compiled expressions that are kept; a pattern counts as several.
const MAX_CACHED: usize = 1000;
const PATTERN_COUNTS: usize = 4;
/// Patterns in one expression.
const MAX_PATTERNS: usize = 4;
/// Memory of a compiled pattern, in bytes, and of what it remembers while it is matched.
const PATTERN_SIZE: usize = 64 * 1024;
const PATTERN_CACHE: usize = 256 * 1024;

/// The patterns of an expression, by their text.
type Patterns = Arc<BTreeMap<String, Regex>>;

struct Expression {
    program: Program,
    patterns: Patterns,
}

type Compiled = Arc<Result<Expression, String>>;

/// What was compiled, by its source.
#[derive(Default)]
struct Cache {
    compiled: HashMap<String, Compiled>,
    /// What is in it, patterns counted more.
    size: usize,
}

static CACHE: LazyLock<Mutex<Cache>> = LazyLock::new(Mutex::default);
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// Checks that an expression can be used; the error says why not.
pub fn check(source: &str) -> Result<(), String> {
    match &*compiled(source) {
        Ok(_) => Ok(()),
        Err(why) => Err(why.clone()),
    }
}

fn compiled(source: &str) -> Compiled {
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = cache.compiled.get(source) {
        return known.clone();
    }
    let fresh: Compiled = Arc::new(compile(source));
    let patterns = fresh.as_ref().as_ref().map_or(0, |e| e.patterns.len());
    if cache.size >= MAX_CACHED {
        *cache = Cache::default();
    }
    cache.size += 1 + PATTERN_COUNTS * patterns;
    cache.compiled.insert(source.to_string(), fresh.clone());
    fresh
}

fn compile(source: &str) -> Result<Expression, String> {
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
    let unknown = program
        .references()
        .variables()
        .into_iter()
        .find(|name| !VARIABLES.contains(name) && !scopes.iter().any(|s| s == name))
        .map(str::to_string);
    if let Some(unknown) = unknown {
        return Err(format!(
            "there is no variable {unknown}; use one of {}",
            VARIABLES.join(", ")
        ));
    }
    let mut patterns = BTreeMap::new();
    collect_patterns(program.expression(), &mut patterns)?;
    cost::check(program.expression(), None)?;
    Ok(Expression {
        program,
        patterns: Arc::new(patterns),
    })
}

/// Compiles the patterns of an expression's `matches`.
fn collect_patterns(node: &IdedExpr, patterns: &mut BTreeMap<String, Regex>) -> Result<(), String> {
    if let Expr::Call(call) = &node.expr
        && call.func_name.trim_start_matches('.') == "matches"
    {
        let Some(pattern) = call.args.last().and_then(cost::text_of) else {
            return Err("matches() needs a pattern that is written as a text, like '^a+$'".into());
        };
        if !patterns.contains_key(pattern) {
            if patterns.len() >= MAX_PATTERNS {
                return Err(format!("it has more than {MAX_PATTERNS} patterns"));
            }
            patterns.insert(pattern.to_string(), pattern_of(pattern)?);
        }
    }
    parts(node)
        .into_iter()
        .try_for_each(|part| collect_patterns(part, patterns))
}

fn pattern_of(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .size_limit(PATTERN_SIZE)
        .dfa_size_limit(PATTERN_CACHE)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => format!(
                "a pattern takes more than {} KiB; use [a-z] rather than \\w, and smaller counts",
                PATTERN_SIZE / 1024
            ),
            _ => "a pattern of matches() is not a regular expression".to_string(),
        })
}

/// The parts that a part of an expression is made of.
fn parts(node: &IdedExpr) -> Vec<&IdedExpr> {
    match &node.expr {
        Expr::Call(call) => call
            .target
            .as_deref()
            .into_iter()
            .chain(&call.args)
            .collect(),
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Select(select) => vec![&*select.operand],
        Expr::Map(map) => map
            .entries
            .iter()
            .flat_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
                EntryExpr::StructField(field) => vec![&field.value],
            })
            .collect(),
        Expr::Comprehension(c) => vec![
            &c.iter_range,
            &c.accu_init,
            &c.loop_cond,
            &c.loop_step,
            &c.result,
        ],
        _ => Vec::new(),
    }
}

/// How deep macros are nested. Collects the names they define.
fn nesting(node: &IdedExpr, scopes: &mut Vec<String>) -> usize {
    let mut own = 0;
    if let Expr::Comprehension(c) = &node.expr {
        scopes.extend([c.iter_var.clone(), c.accu_var.clone()]);
        scopes.extend(c.iter_var2.clone());
        own = 1;
    }
    let inside = parts(node).into_iter().map(|part| nesting(part, scopes));
    own + inside.max().unwrap_or(0)
}

/// Whether the expression holds for a call; an error if that cannot be told. Without facts nothing
/// about the ticket can be told.
pub fn holds(
    source: &str,
    tool: &str,
    client: &str,
    arguments: &Map<String, serde_json::Value>,
    ticket: Option<&TicketFacts>,
) -> Result<bool, String> {
    let compiled = compiled(source);
    let expression = compiled.as_ref().as_ref().map_err(String::clone)?;
    let references = expression.program.references();
    let mut inputs: Vec<Input> = Vec::new();
    for name in VARIABLES {
        if !references.has_variable(name) {
            continue;
        }
        let value = match name {
            "args" => arguments_of(arguments)?,
            "ticket" => ticket
                .ok_or("what is known about the ticket cannot be told now")?
                .as_json(),
            "tool" => tool.into(),
            _ => client.into(),
        };
        inputs.push((name, value));
    }
    cost::check(expression.program.expression(), Some(&inputs))?;
    let context = context(&inputs, &expression.patterns)?;
    match catch_unwind(AssertUnwindSafe(|| expression.program.execute(&context))) {
        Ok(Ok(Value::Bool(holds))) => Ok(holds),
        Ok(Ok(_)) => Err("it does not evaluate to true or false".into()),
        Ok(Err(error)) => Err(crate::text::one_line(&error.to_string(), 200)),
        Err(_) => Err("it cannot be evaluated".into()),
    }
}

fn arguments_of(
    arguments: &Map<String, serde_json::Value>,
) -> Result<serde_json::Value, &'static str> {
    let fits = arguments.len() <= MAX_ENTRIES
        && arguments.values().all(|v| small(v, 0))
        && arguments.values().map(cost::weight).sum::<u64>() <= MAX_WEIGHT;
    match fits {
        true => Ok(serde_json::Value::Object(arguments.clone())),
        false => Err("the arguments are too large for an expression"),
    }
}

fn context(inputs: &[Input], patterns: &Patterns) -> Result<Context<'static, 'static>, String> {
    let mut context = Context::with_env(ENVIRONMENT.clone());
    for (name, value) in inputs {
        let value = cel::to_value(value).map_err(|e| e.to_string())?;
        context.add_variable_from_value(*name, value);
    }
    add_functions(&mut context, patterns.clone()).map_err(|e| e.to_string())?;
    Ok(context)
}

/// The functions besides CEL's own.
fn add_functions(
    context: &mut Context<'static, 'static>,
    patterns: Patterns,
) -> Result<(), DeclarationError> {
    // CEL's own would compile the pattern each time, without a limit.
    let matches = move |This(text): This<Arc<String>>,
                        pattern: Arc<String>|
          -> Result<bool, ExecutionError> {
        match patterns.get(pattern.as_str()) {
            Some(pattern) => Ok(pattern.is_match(&text)),
            None => Err(ExecutionError::function_error(
                "matches",
                "the pattern is not written in the expression",
            )),
        }
    };
    let lower = |This(text): This<Arc<String>>| -> String { text.to_ascii_lowercase() };
    context.add_function("matches", matches)?;
    context.add_function("lowerAscii", lower)
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
    use super::super::facts::Requester;
    use super::*;
    use serde_json::json;

    fn evaluate(source: &str, arguments: serde_json::Value) -> Result<bool, String> {
        let ticket = TicketFacts {
            id: 7,
            client_id: 12,
            priority: "High".into(),
            status: "New".into(),
            requester: Requester {
                id: Some(9),
                name: "Kim Lee".into(),
                email: Some("kim@acme.example".into()),
                verified: Some(true),
            },
            sensitivity: Some(vec!["mfa-reset".into()]),
            ..TicketFacts::default()
        };
        let arguments = arguments.as_object().unwrap();
        holds(source, "t", "acme", arguments, Some(&ticket))
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
            (
                "matches(args.text, '^[0-9]+$')",
                json!({"text": "abc"}),
                false,
            ),
            (
                "args.user.lowerAscii() == ticket.requester.email",
                json!({"user": "KIM@acme.example"}),
                true,
            ),
            (
                "ticket.requester.verified && ticket.requester.id == args.user",
                json!({"user": 9}),
                true,
            ),
            ("'mfa-reset' in ticket.sensitivity", json!({}), true),
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
    fn without_facts_nothing_is_told_about_the_ticket() {
        let ask = |source, facts| holds(source, "t", "acme", &Map::new(), facts);
        for source in [
            "ticket.priority == 'Critical'",
            "has(ticket.priority)",
            "true || ticket.id == 1",
        ] {
            assert!(ask(source, None).is_err(), "{source}");
        }
        assert_eq!(ask("client == 'acme'", None), Ok(true));
        // What was not looked up is not there.
        let facts = TicketFacts::default();
        for source in [
            "ticket.requester.email == 'x'",
            "ticket.requester.verified",
            "'x' in ticket.sensitivity",
        ] {
            assert!(ask(source, Some(&facts)).is_err(), "{source}");
        }
    }

    #[test]
    fn costly_expressions_are_refused() {
        let list = format!("[{}]", vec!["1"; 200].join(","));
        for source in [
            r"'x'.matches('((((\\w{50}){20})?)?)?')".to_string(),
            format!("{list}.all(x, {list}.all(y, x == y))"),
            "args.text.matches(args.pattern)".into(),
            "args.text.matches('a' + 'b')".into(),
            "args.text.matches('(')".into(),
            (0..5)
                .map(|n| format!("args.text.matches('{n}')"))
                .collect::<Vec<_>>()
                .join(" || "),
        ] {
            assert!(check(&source).is_err(), "{source}");
            assert!(evaluate(&source, json!({"text": "x"})).is_err(), "{source}");
        }
        let started = std::time::Instant::now();
        let text = json!({"text": "x".repeat(60_000), "list": vec!["x"; 100]});
        let _ = evaluate("args.text.matches('(x+x+)+y')", text.clone());
        let _ = evaluate("args.list.all(a, args.list.all(b, a == b))", text);
        assert!(started.elapsed() < std::time::Duration::from_secs(10));
        let huge = json!({"text": "x".repeat(70_000)});
        assert!(evaluate("args.text == 'x'", huge).is_err());
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
