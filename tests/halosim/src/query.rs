//! List filters, order and paging. Unknown parameters are silently ignored, as in
//! HaloPSA; the admin API lists them.

use crate::fields::{self, Depth};
use crate::store::rows::Row;
use crate::store::{Object, Store, integer, number};
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

/// Query parameters, names in lower case.
#[derive(Debug, Default)]
pub struct Query {
    values: HashMap<String, String>,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl Query {
    pub fn parse(query: Option<&str>) -> Self {
        Self::of(pairs(query.unwrap_or_default()))
    }

    pub fn of(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let values = pairs
            .into_iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .collect();
        Self {
            values,
            asked: RefCell::default(),
        }
    }

    pub fn get(&self, name: &'static str) -> Option<&str> {
        self.asked.borrow_mut().insert(name);
        self.values
            .get(name)
            .map(String::as_str)
            .filter(|v| !v.is_empty())
    }

    pub fn number(&self, name: &'static str) -> Option<i64> {
        self.get(name)
            .and_then(|v| integer(&Value::String(v.into())))
    }

    pub fn flag(&self, name: &'static str) -> bool {
        self.get(name)
            .is_some_and(|v| v.eq_ignore_ascii_case("true") || v == "1")
    }

    /// Comma-separated numbers, with or without brackets.
    fn numbers(&self, name: &'static str) -> Option<Vec<i64>> {
        let list = self.get(name)?.trim_matches(['[', ']']);
        Some(
            list.split(',')
                .filter_map(|n| n.trim().parse().ok())
                .collect(),
        )
    }

    /// Parameters that were never read.
    pub fn ignored(&self) -> Vec<String> {
        let asked = self.asked.borrow();
        self.values
            .keys()
            .filter(|name| !asked.contains(name.as_str()))
            .cloned()
            .collect()
    }
}

/// Names and values of a query, or of a form, which is encoded the same way.
pub fn pairs(text: &str) -> Vec<(String, String)> {
    let url = reqwest::Url::parse(&format!("http://x/?{text}"));
    url.map(|url| url.query_pairs().into_owned().collect())
        .unwrap_or_default()
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
        "attachment" => Some("attachments"),
        "toplevel" => Some("tree"),
        _ => None,
    }
}

type Test<'a> = Box<dyn Fn(&Row<'_>) -> bool + 'a>;

/// The fields a search covers.
fn searched(kind: &str, phones: bool) -> &'static [&'static str] {
    match kind {
        "tickets" => &[
            "summary",
            "details",
            "user_name",
            "client_name",
            "reportedby",
            "id",
        ],
        "users" if phones => &[
            "phonenumber",
            "mobilenumber",
            "phonenumber_preferred",
            "homenumber",
            "name",
            "emailaddress",
        ],
        "users" => &[
            "name",
            "firstname",
            "surname",
            "emailaddress",
            "email2",
            "email3",
            "login",
        ],
        "asset" => &[
            "inventory_number",
            "key_field",
            "key_field2",
            "username",
            "assettype_name",
        ],
        "kbarticle" => &["name", "description", "resolution", "tag_string"],
        "outcome" => &["outcome", "buttonname"],
        _ => &["name"],
    }
}

/// Every word of the search must appear in one of the row's fields.
fn search<'a>(fields: &'static [&'static str], words: &str, phones: bool) -> Test<'a> {
    let words: Vec<(String, String)> = words
        .split_whitespace()
        .map(|word| {
            (
                word.to_lowercase(),
                if phones { digits(word) } else { String::new() },
            )
        })
        .map(|(word, digits)| (word.trim_start_matches('#').to_string(), digits))
        .collect();
    Box::new(move |row| {
        words.iter().all(|(word, number)| {
            fields.iter().any(|field| {
                let text = row.text(field);
                contains(&text, word)
                    || (number.len() > 5 && digits(&text).contains(number.as_str()))
            })
        })
    })
}

/// Ignores case.
fn contains(text: &str, word: &str) -> bool {
    if text.is_ascii() && word.is_ascii() {
        let (text, word) = (text.as_bytes(), word.as_bytes());
        return word.is_empty()
            || (text.len() >= word.len()
                && text
                    .windows(word.len())
                    .any(|part| part.eq_ignore_ascii_case(word)));
    }
    text.to_lowercase().contains(word)
}

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

/// What the query requires of each row; `Err` for an advanced search HaloPSA refuses.
fn tests<'a>(kind: &str, query: &'a Query) -> Result<Vec<Test<'a>>, &'static str> {
    let mut tests = Vec::new();
    ids(query, &mut tests);
    id_lists(kind, query, &mut tests);
    match kind {
        "tickets" => ticket_filters(query, &mut tests),
        "agent" => agent_filters(query, &mut tests),
        _ => activity(query, &mut tests),
    }
    last_update(query, &mut tests);
    searches(kind, query, &mut tests);
    if let Some(filters) = query.get("advanced_search") {
        advanced(filters, &mut tests)?;
    }
    Ok(tests)
}

/// Parameters with one id. A row without the field passes.
fn ids<'a>(query: &'a Query, tests: &mut Vec<Test<'a>>) {
    let same_name = [
        "client_id",
        "site_id",
        "user_id",
        "agent_id",
        "status_id",
        "priority_id",
        "team_id",
        "tickettype_id",
        "slaid",
        "parent_id",
        "ticket_id",
        "action_id",
        "lookupid",
        "type_id",
    ]
    .map(|field| (field, field));
    for (name, field) in same_name
        .into_iter()
        .chain([("requesttype_id", "tickettype_id")])
    {
        if let Some(wanted) = query.number(name) {
            tests.push(Box::new(move |row| {
                !row.has(field) || row.number(field) == Some(wanted)
            }));
        }
    }
}

/// Parameters with several ids.
fn id_lists<'a>(kind: &str, query: &'a Query, tests: &mut Vec<Test<'a>>) {
    let of_tickets = [
        ("agent", "agent_id"),
        ("team", "team_id"),
        ("status", "status_id"),
        ("requesttype", "tickettype_id"),
        ("priority", "priority_id"),
        ("ticketids", "id"),
    ];
    let client = if kind == "client" { "id" } else { "client_id" };
    for (name, field) in of_tickets
        .into_iter()
        .filter(|_| kind == "tickets")
        .chain([("client_ids", client)])
    {
        if let Some(wanted) = query.numbers(name) {
            tests.push(Box::new(move |row| {
                row.number(field).is_some_and(|n| wanted.contains(&n))
            }));
        }
    }
}

fn ticket_filters<'a>(query: &'a Query, tests: &mut Vec<Test<'a>>) {
    let (open, closed) = (query.flag("open_only"), query.flag("closed_only"));
    if open || closed {
        tests.push(Box::new(move |row| {
            !(open && row.flag("hasbeenclosed") || closed && !row.flag("hasbeenclosed"))
        }));
    }
    for category in ["category_1", "category_2", "category_3", "category_4"] {
        if let Some(wanted) = query.get(category) {
            tests.push(Box::new(move |row| {
                row.text(category).eq_ignore_ascii_case(wanted)
            }));
        }
    }
    if query.flag("withattachments") {
        tests.push(Box::new(|row| {
            row.number("attachment_count").unwrap_or_default() > 0
        }));
    }
    dates(query, tests);
}

fn agent_filters<'a>(query: &'a Query, tests: &mut Vec<Test<'a>>) {
    let (api, disabled) = (
        query.flag("includeapiagents"),
        query.flag("includedisabled"),
    );
    tests.push(Box::new(move |row| {
        (api || !row.flag("isapiagent")) && (disabled || !row.flag("isdisabled"))
    }));
    if let Some(team) = query.get("team") {
        tests.push(Box::new(move |row| {
            row.text("team").eq_ignore_ascii_case(team)
        }));
    }
}

/// Active and inactive rows.
fn activity<'a>(query: &'a Query, tests: &mut Vec<Test<'a>>) {
    let activity = query
        .get("activeinactive")
        .map(|v| v.split(',').map(|s| s.trim() == "true").collect::<Vec<_>>());
    let inactive =
        query.flag("includeinactive") || activity.as_ref().is_some_and(|a| a.get(1) == Some(&true));
    let active = query.get("includeactive").is_none_or(|v| v != "false")
        && activity.is_none_or(|a| a.first() != Some(&false));
    tests.push(Box::new(move |row| {
        if row.flag("inactive") {
            inactive
        } else {
            active
        }
    }));
}

fn last_update<'a>(query: &'a Query, tests: &mut Vec<Test<'a>>) {
    for (name, from) in [("lastupdatefromdate", true), ("lastupdatetodate", false)] {
        if let Some(at) = query.get(name) {
            let at = at.trim_end_matches('Z').to_string();
            tests.push(Box::new(move |row| {
                let updated = row.text("last_update");
                updated.is_empty()
                    || if from {
                        *updated >= *at
                    } else {
                        *updated <= *at
                    }
            }));
        }
    }
}

/// The search of all texts, and those of one field.
fn searches<'a>(kind: &str, query: &'a Query, tests: &mut Vec<Test<'a>>) {
    let phones = query.flag("search_phonenumbers");
    if let Some(words) = query.get("search") {
        tests.push(search(searched(kind, phones), words, phones));
    }
    for (name, fields) in [
        ("search_summary", &["summary"]),
        ("search_details", &["details"]),
        ("search_user_name", &["user_name"]),
        ("search_reportedby", &["reportedby"]),
    ] {
        if let Some(words) = query.get(name) {
            tests.push(search(fields, words, false));
        }
    }
}

/// `startdate` and `enddate`, applied to the date that `datesearch` names.
fn dates<'a>(query: &'a Query, tests: &mut Vec<Test<'a>>) {
    let field = match query
        .get("datesearch")
        .map(str::to_ascii_lowercase)
        .as_deref()
    {
        Some("dateclosed") => "dateclosed",
        Some("lastactiondate") => "lastactiondate",
        Some("last_update") => "last_update",
        _ => "dateoccurred",
    };
    for (name, from) in [("startdate", true), ("enddate", false)] {
        if let Some(at) = query.get(name) {
            // A date without a time means the whole day.
            let at = match at.contains('T') {
                true => at.trim_end_matches('Z').to_string(),
                false if from => format!("{at}T00:00:00"),
                false => format!("{at}T23:59:59.999"),
            };
            tests.push(Box::new(move |row| {
                let date = row.text(field);
                if from { *date >= *at } else { *date <= *at }
            }));
        }
    }
}

/// `[{"filter_name": "azureoid", "filter_type": 2, "filter_value": "..."}]`: 2 equals, 4 contains.
fn advanced<'a>(filters: &str, tests: &mut Vec<Test<'a>>) -> Result<(), &'static str> {
    const ALLOWED: [&str; 10] = [
        "azureoid",
        "name",
        "emailaddress",
        "login",
        "firstname",
        "surname",
        "summary",
        "client_name",
        "inventory_number",
        "key_field",
    ];
    let bad = "Invalid advanced search parameter";
    let filters: Vec<Value> = serde_json::from_str(filters).map_err(|_| bad)?;
    for filter in filters.iter().take(20) {
        let name = filter
            .get("filter_name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let field = ALLOWED
            .iter()
            .find(|a| a.eq_ignore_ascii_case(name))
            .ok_or(bad)?;
        let value = filter
            .get("filter_value")
            .and_then(Value::as_str)
            .ok_or(bad)?
            .to_lowercase();
        let equal = filter.get("filter_type").and_then(integer) != Some(4);
        tests.push(Box::new(move |row| {
            let text = row.text(field).to_lowercase();
            if equal {
                text == value
            } else {
                text.contains(&value)
            }
        }));
    }
    Ok(())
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Sorted {
    Number(i64),
    Text(String),
}

/// The matching rows, in order. Tickets come newest id first, the rest by id, unless
/// `order` says otherwise.
pub fn select<'a>(
    kind: &str,
    rows: impl Iterator<Item = Row<'a>>,
    query: &Query,
) -> Result<Vec<Row<'a>>, &'static str> {
    let tests = tests(kind, query)?;
    let mut rows: Vec<Row<'a>> = rows
        .filter(|row| tests.iter().all(|test| test(row)))
        .collect();
    let order = query
        .get("order")
        .map(str::to_ascii_lowercase)
        .filter(|o| o != "id");
    let descending = query.flag("orderdesc")
        || (order.is_none() && kind == "tickets" && query.get("orderdesc").is_none());
    if let Some(order) = order {
        rows.sort_by_cached_key(|row| match row.number(&order) {
            Some(number) => Sorted::Number(number),
            None => Sorted::Text(row.text(&order).to_lowercase()),
        });
    }
    if descending {
        rows.reverse();
    }
    Ok(rows)
}

/// Rows to a list reply: page or count, in an envelope or bare.
pub fn list<'a>(
    kind: &str,
    rows: impl Iterator<Item = Row<'a>>,
    query: &Query,
) -> Result<Value, &'static str> {
    let rows = select(kind, rows, query)?;
    let total = rows.len();
    let (size, number) = (query.number("page_size"), query.number("page_no"));
    let page: Vec<Row> = match query.flag("pageinate") {
        true => {
            let size =
                size.unwrap_or(50)
                    .clamp(1, if kind == "tickets" { 100 } else { 500 }) as usize;
            let number = number.unwrap_or(1).max(1) as usize;
            rows.into_iter()
                .skip((number - 1).saturating_mul(size))
                .take(size)
                .collect()
        }
        // Without pageinate the page size is ignored.
        false => {
            let count = query
                .number("count")
                .unwrap_or(if kind == "tickets" { 50 } else { 5000 })
                .clamp(0, 100_000) as usize;
            rows.into_iter().take(count).collect()
        }
    };
    let page: Vec<Value> = match query.flag("idonly") || query.flag("ticketidonly") {
        true => page
            .into_iter()
            .map(|row| json!({"id": row.id()}))
            .collect(),
        false => page
            .into_iter()
            .map(|row| Value::Object(shown(kind, Depth::List, row.whole())))
            .collect(),
    };
    let Some(envelope) = envelope(kind) else {
        return Ok(page.into());
    };
    let mut reply = json!({"record_count": total, envelope: page});
    if query.flag("pageinate") {
        reply["page_no"] = number.unwrap_or(1).into();
        reply["page_size"] = size.unwrap_or(50).into();
    }
    Ok(reply)
}

/// A row as HaloPSA writes it, with its number quirks and its many nulls.
pub fn shown(kind: &str, depth: Depth, mut row: Object) -> Map<String, Value> {
    let double = match kind {
        "users" => Some("site_id"),
        "site" => Some("client_id"),
        _ => None,
    };
    if let Some(field) = double
        && let Some(id) = number(&row, field)
    {
        row.insert(field.into(), json!(id as f64));
        if kind == "users" {
            row.insert("site_id_int".into(), id.into());
        }
    }
    if kind == "attachment" {
        row.remove("data_base64");
    }
    if depth == Depth::List {
        for heavy in ["details_html", "closure_agent_id"] {
            row.remove(heavy);
        }
    }
    fields::fill(kind, depth, &mut row);
    row
}

/// What a single ticket carries with `includedetails=true`.
pub fn with_details(store: &Store, ticket: &mut Object) {
    let id = number(ticket, "id").unwrap_or_default();
    let attachments: Vec<Value> = store
        .rows("attachment")
        .filter(|a| a.number("ticket_id") == Some(id))
        .map(|a| Value::Object(shown("attachment", Depth::List, a.whole())))
        .collect();
    ticket.insert("attachments".into(), attachments.into());
    for list in ["approvers", "assets", "popup_notes", "customfields"] {
        ticket.entry(list).or_insert(json!([]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::{self, Seed};

    fn ids(kind: &str, query: &str) -> Vec<i64> {
        let store = seed::make(&Seed::Demo);
        select(kind, store.rows(kind), &Query::parse(Some(query)))
            .unwrap()
            .iter()
            .map(Row::id)
            .collect()
    }

    #[test]
    fn searches_find_what_a_person_expects() {
        let all = ids("tickets", "");
        assert!(all.windows(2).all(|w| w[0] > w[1]), "newest first");
        for (query, some) in [
            ("search=PRINTER%20offline", true),
            ("search=kim%20printer", true),
            ("search=unicorn", false),
            ("search=%234000", true),
            ("search_summary=outlook&client_id=12", true),
            ("search_summary=nobody%20can%20print", false),
            ("search_details=nobody%20can%20print", true),
            ("closed_only=true&startdate=2020-01-01", true),
            ("open_only=true", false),
            ("agent=3,4&status=9", true),
            ("agent=4", false),
            ("startdate=2090-01-01", false),
        ] {
            assert_eq!(!ids("tickets", query).is_empty(), some, "{query}");
        }
        assert_eq!(ids("users", "search=kim.lee@acmedental.example").len(), 1);
        assert_eq!(
            ids("users", "search=15550170100&search_phonenumbers=true").len(),
            1
        );
        assert_eq!(ids("users", "advanced_search=[{\"filter_name\":\"login\",\"filter_type\":2,\"filter_value\":\"kim.lee\"}]").len(), 1);
        assert_eq!(ids("client", "client_ids=12,13"), [12, 13]);
        assert_eq!(ids("client", "order=name&orderdesc=true").last(), Some(&12));
    }

    #[test]
    fn what_is_not_looked_at_is_told() {
        let store = seed::make(&Seed::Demo);
        let query = Query::parse(Some("open_onyl=true&client_id=12&count=1"));
        list("tickets", store.rows("tickets"), &query).unwrap();
        assert_eq!(query.ignored(), ["open_onyl"]);
        let refused = Query::parse(Some(
            "advanced_search=[{\"filter_name\":\"password\",\"filter_value\":\"x\"}]",
        ));
        assert!(list("users", store.rows("users"), &refused).is_err());
    }
}
