//! What an expression may cost, told before it is run, and whether it compares like with like.
//!
//! The interpreter has no limits of its own. So every expression is walked once with
//! the sizes of what it will be given: what each part may at most weigh, how often
//! it may run. Work counts bytes that are looked at, and `NODE` for each part.
//!
//! CEL says `false` when it compares a number with a text. Then an agent could evade
//! a rule by an argument of another type, so here that is an error, which fails closed.

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators,
};
use serde_json::Value as Json;

/// Rounds of all(), exists() and the like in one evaluation.
const MAX_ITERATIONS: u64 = 10_000;
/// About a second, at the worst.
const MAX_WORK: u64 = 20_000_000;
/// Work of a part of an expression, besides the bytes it looks at.
const NODE: u64 = 20;
/// Work per byte that a pattern is matched against.
const PATTERN: u64 = 200;
/// Entries of a list or map in the arguments.
pub const MAX_ENTRIES: usize = 100;
/// Entries, and weight of each, of what is not known yet.
const UNKNOWN: u64 = MAX_ENTRIES as u64;

/// Which types of value are possible, as a set of bits. `ANY`: cannot be told.
type Kinds = u8;
const BOOL: Kinds = 1;
const NUMBER: Kinds = 2;
const TEXT: Kinds = 4;
const LIST: Kinds = 8;
const MAP: Kinds = 16;
const NULL: Kinds = 32;
const ANY: Kinds = u8::MAX;

/// A variable and its value.
pub type Input = (&'static str, Json);

/// Checks an expression. Without inputs, as it is before any call is known.
pub fn check(expression: &IdedExpr, inputs: Option<&[Input]>) -> Result<(), String> {
    let mut walk = Walk {
        inputs,
        scopes: Vec::new(),
    };
    let (_, cost) = walk.node(expression)?;
    if cost.iterations > MAX_ITERATIONS {
        return Err(format!(
            "its loops may run {} times, more than {MAX_ITERATIONS}; shorten its lists, or nest \
             fewer loops",
            cost.iterations
        ));
    }
    if cost.work > MAX_WORK {
        return Err(
            "it takes too much work; use fewer loops or patterns, or a shorter text".into(),
        );
    }
    Ok(())
}

/// What a value weighs: its bytes, and one for every value in it.
pub fn weight(value: &Json) -> u64 {
    let inside: u64 = match value {
        Json::String(text) => text.len() as u64,
        Json::Array(items) => items.iter().map(weight).sum(),
        Json::Object(map) => map.iter().map(|(k, v)| k.len() as u64 + weight(v)).sum(),
        _ => 0,
    };
    inside + 1
}

fn kind(value: &Json) -> Kinds {
    match value {
        Json::Null => NULL,
        Json::Bool(_) => BOOL,
        Json::Number(_) => NUMBER,
        Json::String(_) => TEXT,
        Json::Array(_) => LIST,
        Json::Object(_) => MAP,
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    work: u64,
    iterations: u64,
}

impl Cost {
    fn plus(self, other: Cost) -> Cost {
        Cost {
            work: self.work.saturating_add(other.work),
            iterations: self.iterations.saturating_add(other.iterations),
        }
    }

    fn work(self, work: u64) -> Cost {
        self.plus(Cost {
            work,
            iterations: 0,
        })
    }

    /// As the body of a loop.
    fn times(self, count: u64) -> Cost {
        Cost {
            work: self.work.saturating_mul(count),
            iterations: self.iterations.max(1).saturating_mul(count),
        }
    }
}

/// What is known about a value before it is computed; each number is the largest it may be.
#[derive(Clone, Debug)]
struct Shape<'a> {
    weight: u64,
    entries: u64,
    /// Weight of one entry.
    entry: u64,
    kinds: Kinds,
    /// Of its entries; of a map, of its keys.
    entry_kinds: Kinds,
    /// The values it may be, if it is a part of an input.
    known: Option<Vec<&'a Json>>,
}

impl<'a> Shape<'a> {
    /// A value without entries.
    fn plain(weight: u64, kinds: Kinds) -> Self {
        Self {
            weight,
            entries: weight,
            entry: weight,
            kinds,
            entry_kinds: ANY,
            known: None,
        }
    }

    fn flag() -> Self {
        Self::plain(1, BOOL)
    }

    fn unknown() -> Self {
        Self::plain(UNKNOWN, ANY)
    }

    fn literal(literal: &LiteralValue) -> Self {
        match literal {
            LiteralValue::Boolean(_) => Self::flag(),
            LiteralValue::Double(_) | LiteralValue::Int(_) | LiteralValue::UInt(_) => {
                Self::plain(1, NUMBER)
            }
            LiteralValue::String(text) => Self::plain(text.inner().len() as u64 + 1, TEXT),
            LiteralValue::Bytes(bytes) => Self::plain(bytes.inner().len() as u64 + 1, ANY),
            // A comparison with a written null is a question about absence, not about a type.
            LiteralValue::Null => Self::plain(1, ANY),
        }
    }

    fn known(values: Vec<&'a Json>) -> Self {
        let mut shape = Self {
            weight: 0,
            entries: 0,
            entry: 0,
            kinds: 0,
            entry_kinds: 0,
            known: None,
        };
        for value in &values {
            shape.weight = shape.weight.max(weight(value));
            shape.kinds |= kind(value);
            match value {
                Json::Array(items) => {
                    shape.entries = shape.entries.max(items.len() as u64);
                    for item in items {
                        shape.entry = shape.entry.max(weight(item));
                        shape.entry_kinds |= kind(item);
                    }
                }
                Json::Object(map) => {
                    shape.entries = shape.entries.max(map.len() as u64);
                    for (key, item) in map {
                        shape.entry = shape.entry.max(weight(item) + key.len() as u64);
                        shape.entry_kinds |= TEXT;
                    }
                }
                _ => {}
            }
        }
        shape.known = Some(values);
        shape
    }

    /// Any one of its entries.
    fn inside(&self) -> Self {
        Self::plain(self.entry, ANY)
    }

    fn field(&self, name: &str) -> Self {
        match &self.known {
            Some(values) => Self::known(values.iter().filter_map(|v| v.get(name)).collect()),
            None => self.inside(),
        }
    }

    /// What a loop's variable stands for.
    fn each(&self) -> Self {
        let Some(values) = &self.known else {
            return Self {
                kinds: self.entry_kinds,
                ..self.inside()
            };
        };
        if self.kinds & !LIST != 0 {
            return self.inside();
        }
        let items = values.iter().filter_map(|v| v.as_array()).flatten();
        Self::known(items.collect())
    }

    /// This or the other.
    fn or(&self, other: &Self) -> Self {
        Self {
            weight: self.weight.max(other.weight),
            entries: self.entries.max(other.entries),
            entry: self.entry.max(other.entry),
            kinds: self.kinds | other.kinds,
            entry_kinds: self.entry_kinds | other.entry_kinds,
            known: None,
        }
    }

    /// This and the other in one.
    fn and(&self, other: &Self) -> Self {
        let kinds = if self.kinds == other.kinds {
            self.kinds
        } else {
            ANY
        };
        Self {
            weight: self.weight.saturating_add(other.weight),
            entries: self.entries.saturating_add(other.entries),
            kinds,
            ..self.or(other)
        }
    }
}

type Walked<'a> = Result<(Shape<'a>, Cost), String>;

struct Walk<'a> {
    inputs: Option<&'a [Input]>,
    /// The variables of loops, innermost last.
    scopes: Vec<(String, Shape<'a>)>,
}

impl<'a> Walk<'a> {
    fn node(&mut self, node: &IdedExpr) -> Walked<'a> {
        let (shape, cost) = match &node.expr {
            Expr::Literal(literal) => (Shape::literal(literal), Cost::default()),
            Expr::Ident(name) => (self.variable(name), Cost::default()),
            Expr::Select(select) => {
                let (of, cost) = self.node(&select.operand)?;
                match select.test {
                    true => (Shape::flag(), cost),
                    false => (of.field(&select.field), cost),
                }
            }
            Expr::List(list) => {
                let (mut shape, cost) = self.entries(list.elements.iter())?;
                shape.kinds = LIST;
                (shape, cost)
            }
            Expr::Map(map) => self.map(map.entries.iter().map(|entry| &entry.expr))?,
            Expr::Call(call) => self.call(call)?,
            Expr::Comprehension(comprehension) => self.comprehension(comprehension)?,
            Expr::Struct(_) | Expr::Unspecified => {
                return Err("it has a part that is not supported".into());
            }
        };
        Ok((shape, cost.work(NODE)))
    }

    fn variable(&self, name: &str) -> Shape<'a> {
        let mut scopes = self.scopes.iter().rev();
        if let Some((_, shape)) = scopes.find(|(n, _)| n == name) {
            return shape.clone();
        }
        let Some(inputs) = self.inputs else {
            return Shape::unknown();
        };
        let input = inputs.iter().find(|(n, _)| *n == name);
        Shape::known(input.map(|(_, value)| value).into_iter().collect())
    }

    /// A collection of these.
    fn entries<'e>(&mut self, parts: impl Iterator<Item = &'e IdedExpr>) -> Walked<'a> {
        let mut shape = Shape {
            weight: 1,
            entries: 0,
            entry: 0,
            kinds: ANY,
            entry_kinds: 0,
            known: None,
        };
        let mut cost = Cost::default();
        for part in parts {
            let (entry, its) = self.node(part)?;
            cost = cost.plus(its).work(entry.weight);
            shape.weight = shape.weight.saturating_add(entry.weight);
            shape.entries += 1;
            shape.entry = shape.entry.max(entry.weight);
            shape.entry_kinds |= entry.kinds;
        }
        Ok((shape, cost))
    }

    fn map<'e>(&mut self, entries: impl Iterator<Item = &'e EntryExpr>) -> Walked<'a> {
        let parts = entries.flat_map(|entry| match entry {
            EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
            EntryExpr::StructField(field) => vec![&field.value],
        });
        let (mut shape, cost) = self.entries(parts)?;
        (shape.kinds, shape.entry_kinds) = (MAP, ANY);
        Ok((shape, cost))
    }

    fn call(&mut self, call: &CallExpr) -> Walked<'a> {
        let mut parts = Vec::new();
        let mut cost = Cost::default();
        for part in call.target.as_deref().into_iter().chain(&call.args) {
            let (shape, its) = self.node(part)?;
            cost = cost.plus(its).work(shape.weight);
            parts.push(shape);
        }
        let name = call.func_name.as_str();
        let shape = match (name, parts.as_slice()) {
            (operators::EQUALS | operators::NOT_EQUALS, [a, b]) => {
                comparable(a.kinds, b.kinds)?;
                Shape::flag()
            }
            (operators::IN, [a, b]) => {
                comparable(a.kinds, b.entry_kinds)?;
                Shape::flag()
            }
            (operators::INDEX, [of, _]) => match call.args.get(1).and_then(text_of) {
                Some(key) => of.field(key),
                None => of.inside(),
            },
            (operators::OPT_INDEX | operators::OPT_SELECT, [of, _]) => of.inside(),
            (operators::CONDITIONAL, [_, a, b]) => a.or(b),
            (operators::ADD, [a, b]) => a.and(b),
            (
                operators::SUBSTRACT
                | operators::MULTIPLY
                | operators::DIVIDE
                | operators::MODULO
                | operators::NEGATE
                | "size",
                _,
            ) => Shape::plain(1, NUMBER),
            _ if is_flag(name) => {
                if name == "matches" {
                    let looked_at = |all: u64, part: &Shape<'_>| all.saturating_add(part.weight);
                    let looked_at = parts.iter().fold(0, looked_at);
                    cost = cost.work(looked_at.saturating_mul(PATTERN));
                }
                Shape::flag()
            }
            _ => {
                // A number as text is longer than its weight.
                let all = parts
                    .iter()
                    .fold(Shape::plain(32, ANY), |all, part| all.and(part));
                let kinds = match name {
                    "string" | "lowerAscii" => TEXT,
                    _ => ANY,
                };
                Shape {
                    entry: all.weight,
                    kinds,
                    entry_kinds: ANY,
                    ..all
                }
            }
        };
        Ok((shape, cost))
    }

    fn comprehension(&mut self, of: &ComprehensionExpr) -> Walked<'a> {
        let (range, mut cost) = self.node(&of.iter_range)?;
        let (first, its) = self.node(&of.accu_init)?;
        cost = cost.plus(its);
        let (depth, count) = (self.scopes.len(), range.entries);
        self.scopes.push((of.iter_var.clone(), range.each()));
        if let Some(second) = &of.iter_var2 {
            self.scopes.push((second.clone(), range.inside()));
        }
        // What one round adds is seen best on a result that weighs nothing.
        let empty = Shape {
            weight: 0,
            entries: 0,
            ..first.clone()
        };
        self.scopes.push((of.accu_var.clone(), empty));
        let (_, condition) = self.node(&of.loop_cond)?;
        let (step, its) = self.node(&of.loop_step)?;
        let round = condition.plus(its).work(range.entry);
        cost = cost.plus(round.times(count));
        let last = Shape {
            weight: first
                .weight
                .saturating_add(step.weight.saturating_mul(count)),
            entries: first
                .entries
                .saturating_add(step.entries.saturating_mul(count)),
            ..step.or(&first)
        };
        self.scopes.truncate(depth);
        self.scopes.push((of.accu_var.clone(), last));
        let (result, its) = self.node(&of.result)?;
        self.scopes.truncate(depth);
        Ok((result, cost.plus(its)))
    }
}

/// A text that is written in the expression.
pub fn text_of(node: &IdedExpr) -> Option<&str> {
    match &node.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

fn comparable(a: Kinds, b: Kinds) -> Result<(), String> {
    if a == ANY || b == ANY || (a | b).count_ones() <= 1 {
        return Ok(());
    }
    Err("it compares values of different types".into())
}

/// Whether a function or operator says true or false.
fn is_flag(name: &str) -> bool {
    matches!(
        name,
        operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS
            | operators::LOGICAL_AND
            | operators::LOGICAL_OR
            | operators::LOGICAL_NOT
            | operators::NOT_STRICTLY_FALSE
            | "contains"
            | "startsWith"
            | "endsWith"
            | "matches"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use cel::Program;
    use serde_json::json;

    fn before(source: &str) -> Result<(), String> {
        check(Program::compile(source).unwrap().expression(), None)
    }

    fn with(source: &str, arguments: Json) -> Result<(), String> {
        let inputs = [("args", arguments)];
        check(
            Program::compile(source).unwrap().expression(),
            Some(&inputs),
        )
    }

    fn list(count: usize) -> String {
        format!("[{}]", vec!["1"; count].join(","))
    }

    #[test]
    fn loops_are_counted() {
        let (long, short) = (list(200), list(90));
        for (source, fine) in [
            (format!("{long}.all(x, {long}.all(y, x == y))"), false),
            (format!("{short}.all(x, {short}.all(y, x == y))"), true),
            ("args.a.all(x, args.b.exists(y, x == y))".into(), true),
            (format!("args.a.all(x, {long}.exists(y, x == y))"), false),
            (format!("{long}.all(x, x == 1)"), true),
            (
                "args.a.map(x, [x, x, x]).all(y, y.size() == 3)".into(),
                true,
            ),
        ] {
            assert_eq!(before(&source).is_ok(), fine, "{source}");
        }
    }

    #[test]
    fn work_is_bounded_by_what_is_looked_at() {
        let text = |bytes: usize| json!({"text": "x".repeat(bytes), "list": vec!["x"; 100]});
        assert!(with("args.text.matches('a+b')", text(60_000)).is_ok());
        assert!(with("args.list.all(x, args.text.contains(x))", text(60_000)).is_ok());
        assert!(with("args.list.all(x, args.text.matches('a+b'))", text(60_000)).is_err());
        assert!(with("args.list.all(x, args.text.matches('a+b'))", text(500)).is_ok());
        // A text that grows by its own length in every round.
        let doubling = "args.list.map(x, args.text + args.text + args.text).map(y, y + y + y + y)";
        assert!(with(doubling, text(60_000)).is_err());
        assert!(with(&format!("{doubling}.size() == 1"), text(10)).is_ok());
    }

    #[test]
    fn only_like_is_compared_with_like() {
        for (source, arguments, fine) in [
            ("args.a == 'x'", json!({"a": "y"}), true),
            ("args.a == 'x'", json!({"a": 5}), false),
            ("args.a == 'x'", json!({"a": null}), false),
            ("args.a == 'x'", json!({"a": ["x"]}), false),
            ("args.a != 'x'", json!({"a": true}), false),
            ("args['a'] != 'x'", json!({"a": true}), false),
            ("args.a == null", json!({"a": "x"}), true),
            ("args.a == 5", json!({"a": 5.5}), true),
            ("args.a in ['x', 'y']", json!({"a": "z"}), true),
            ("args.a in ['x', 'y']", json!({"a": 1}), false),
            ("'x' in args.a", json!({"a": [1]}), false),
            ("'x' in args.a", json!({"a": []}), true),
            ("'x' in args.a", json!({"a": {"x": 1}}), true),
            ("args.a == args.b", json!({"a": "x", "b": 1}), false),
            ("args.a.b == 'x'", json!({"a": {"b": 1}}), false),
            ("args.a.exists(x, x == 'x')", json!({"a": ["y", 1]}), false),
            (
                "args.a.exists(x, x.b == 'x')",
                json!({"a": [{"b": 1}]}),
                false,
            ),
            ("args.a.exists(x, x == 'x')", json!({"a": ["y"]}), true),
            ("args.a.map(x, x + 1) == [1]", json!({"a": [0]}), true),
            ("size(args.a) == 1", json!({"a": "x"}), true),
            // What does not exist is for CEL to say.
            ("args.missing == 'x'", json!({}), true),
        ] {
            let compared = with(source, arguments.clone());
            assert_eq!(compared.is_ok(), fine, "{source} {arguments}");
        }
        assert!(before("1 == 'x'").is_err());
    }
}
