//! List filters and paging. Unknown parameters are ignored without a word, as
//! HaloPSA does.

use crate::store::{Object, integer, number, text};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Query parameters, names in lower case.
#[derive(Debug, Default)]
pub struct Query(HashMap<String, String>);

impl Query {
    pub fn parse(query: Option<&str>) -> Self {
        let url = format!("http://x/?{}", query.unwrap_or_default());
        let pairs = reqwest::Url::parse(&url).map(|u| u.query_pairs().map(|(k, v)| (k.to_ascii_lowercase(), v.into_owned())).collect());
        Self(pairs.unwrap_or_default())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    pub fn number(&self, name: &str) -> Option<i64> {
        self.get(name).and_then(|v| integer(&Value::String(v.into())))
    }

    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|v| v.eq_ignore_ascii_case("true") || v == "1")
    }
}

/// The envelope key of a list; none for look-up lists, which come bare.
pub fn envelope(kind: &str) -> Option<&'static str> {
    match kind {
        "tickets" => Some("tickets"),
        "client" => Some("clients"),
        "site" => Some("sites"),
        "users" => Some("users"),
        "asset" => Some("assets"),
        "kbarticle" => Some("articles"),
        _ => None,
    }
}

/// Whether a row passes the filters.
pub fn passes(kind: &str, row: &Object, query: &Query) -> bool {
    for field in ["client_id", "site_id", "user_id", "agent_id", "status_id", "priority_id", "team_id", "tickettype_id", "slaid"] {
        if let Some(wanted) = query.number(field)
            && row.contains_key(field)
            && number(row, field) != Some(wanted)
        {
            return false;
        }
    }
    if let Some(ids) = query.get("client_ids")
        && !ids.split(',').any(|id| id.trim().parse().ok() == number(row, if kind == "client" { "id" } else { "client_id" }))
    {
        return false;
    }
    let truth = |field: &str| row.get(field).and_then(Value::as_bool).unwrap_or_default();
    if kind == "tickets" {
        if query.flag("open_only") && truth("hasbeenclosed") || query.flag("closed_only") && !truth("hasbeenclosed") {
            return false;
        }
    } else if kind == "agent" {
        if (truth("isapiagent") && !query.flag("includeapiagents")) || (truth("isdisabled") && !query.flag("includedisabled")) {
            return false;
        }
    } else if truth("inactive") && !query.flag("includeinactive") {
        return false;
    }
    if let Some(since) = query.get("lastupdatefromdate")
        && !text(row, "last_update").is_empty()
        && text(row, "last_update") < since.trim_end_matches('Z')
    {
        return false;
    }
    query.get("search").is_none_or(|search| found(kind, row, search, query.flag("search_phonenumbers")))
}

/// Every word of the search stands in one of the row's texts.
fn found(kind: &str, row: &Object, search: &str, phones: bool) -> bool {
    let fields: &[&str] = match kind {
        "tickets" => &["summary", "details", "user_name", "client_name", "id"],
        "users" if phones => &["phonenumber", "mobilenumber", "phonenumber_preferred", "name", "emailaddress"],
        "users" => &["name", "firstname", "surname", "emailaddress", "login"],
        "asset" => &["inventory_number", "key_field", "username", "assettype_name"],
        "kbarticle" => &["name", "description", "resolution", "tag_string"],
        _ => &["name"],
    };
    let haystack = fields.iter().map(|f| row.get(*f).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_string)).unwrap_or_default());
    let haystack = haystack.collect::<Vec<_>>().join(" ").to_lowercase();
    let digits = |s: &str| s.chars().filter(char::is_ascii_digit).collect::<String>();
    search
        .split_whitespace()
        .all(|word| haystack.contains(&word.to_lowercase()) || (phones && digits(word).len() > 5 && digits(&haystack).contains(&digits(word))))
}

/// Rows to a list reply: page or count, in an envelope or bare.
pub fn list<'a>(kind: &str, rows: impl DoubleEndedIterator<Item = &'a Object>, query: &Query) -> Value {
    // Tickets come by id, newest first; the rest by id.
    let rows: Vec<&Object> =
        if kind == "tickets" { rows.rev().filter(|r| passes(kind, r, query)).collect() } else { rows.filter(|r| passes(kind, r, query)).collect() };
    let total = rows.len();
    let page = match query.flag("pageinate") {
        true => {
            let size = query.number("page_size").unwrap_or(50).clamp(1, if kind == "tickets" { 100 } else { 500 }) as usize;
            let number = query.number("page_no").unwrap_or(1).max(1) as usize;
            rows.into_iter().skip((number - 1) * size).take(size).collect::<Vec<_>>()
        }
        false => {
            let count = query.number("count").unwrap_or(if kind == "tickets" { 50 } else { 5000 }).max(0) as usize;
            rows.into_iter().take(count).collect()
        }
    };
    let page: Vec<Value> = page.into_iter().map(|row| Value::Object(shown(kind, row))).collect();
    let Some(envelope) = envelope(kind) else { return page.into() };
    let mut reply = json!({"record_count": total, envelope: page});
    if query.flag("pageinate") {
        reply["page_no"] = query.number("page_no").unwrap_or(1).into();
        reply["page_size"] = query.number("page_size").unwrap_or(50).into();
    }
    reply
}

/// A row as HaloPSA writes it, with its number quirks and some of its many nulls.
pub fn shown(kind: &str, row: &Object) -> Map<String, Value> {
    let mut row = row.clone();
    let double = match kind {
        "users" => Some("site_id"),
        "site" => Some("client_id"),
        _ => None,
    };
    if let Some(field) = double
        && let Some(id) = number(&row, field)
    {
        row.insert(field.into(), json!(id as f64));
    }
    for null in ["third_party_id", "azure_tenant_id", "intent", "_warning", "lastcontactdate", "external_links", "xero_tenant_id", "popup_notes"] {
        row.entry(null).or_insert(Value::Null);
    }
    row
}
