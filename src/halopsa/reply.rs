//! What HaloPSA answered, read without building more than is asked for: a long answer of a tenant
//! must not cost the memory of all. The text is parsed row by row, each into its own type.

use super::error::{self, Error};
use super::lenient;
use crate::fair::Place;
use serde::Deserialize;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::fmt;

/// Rows of one answer. HaloPSA sends at most 100 per page, and a few hundred where it knows none.
const MAX_ROWS: usize = 10_000;
/// An answer longer than this explains nothing.
const MAX_EXPLANATION: usize = 8 * 1024;

/// The body of a successful answer.
pub struct Reply {
    /// Like `GET /Tickets/{id}`.
    call: String,
    body: Vec<u8>,
    /// The place a large one takes in memory.
    place: Option<Place>,
}

/// Ticket text stays out of logs.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (length, large) = (self.body.len(), self.place.is_some());
        write!(f, "Reply({}, {length} bytes, large: {large})", self.call)
    }
}

/// The rows of a list, unread, and the total HaloPSA reports.
pub struct Listed<'a> {
    pub rows: Vec<&'a RawValue>,
    pub total: Option<i64>,
}

/// An object's id, in any of its spellings.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Identified {
    #[serde(deserialize_with = "lenient::opt_i64")]
    id: Option<i64>,
}

/// An object's id, whatever it is.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
}

/// The id of a row; none: it has none, or it is no object.
pub fn id_of(row: &RawValue) -> Option<i64> {
    read::<Identified>(row)?.id
}

impl Reply {
    pub fn new(call: impl Into<String>, body: Vec<u8>) -> Self {
        Self {
            call: call.into(),
            body,
            place: None,
        }
    }

    /// Keeps this place until it is dropped.
    pub fn holding(self, place: Option<Place>) -> Self {
        Self { place, ..self }
    }

    /// The readable rows of a list; others are skipped.
    pub fn rows<T: DeserializeOwned>(&self, envelope: &str) -> Result<Vec<T>, Error> {
        let listed = self.listed(envelope)?;
        Ok(listed.rows.iter().filter_map(|row| read(row)).collect())
    }

    /// The rows of a list: a bare array, or an array in an envelope. Anything else is not a
    /// list, least of all an empty one: HaloPSA also reports errors with HTTP 200.
    pub fn listed(&self, envelope: &str) -> Result<Listed<'_>, Error> {
        let body = self.body.trim_ascii();
        let (rows, total) = match body.first() {
            Some(b'[') => (Some(body), None),
            Some(b'{') => {
                let found = serde_json::Deserializer::from_slice(body)
                    .deserialize_map(Envelope(envelope))
                    .map_err(|_| self.unexpected(body))?;
                (found.rows().map(|r| r.get().as_bytes()), found.total)
            }
            _ => (None, None),
        };
        let rows = rows.ok_or_else(|| self.unexpected(body))?;
        let rows = serde_json::Deserializer::from_slice(rows)
            .deserialize_seq(Rows)
            .map_err(|_| Error::Answer {
                call: self.call.clone(),
                detail: format!("it is no list, or has more than {MAX_ROWS} rows"),
            })?;
        Ok(Listed { rows, total })
    }

    /// The object, which must have an id, even if it comes as an array of one.
    pub fn one<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let object = self.first();
        if named(object).is_some_and(|named| named.id.is_some()) {
            return serde_json::from_slice(object).map_err(|_| Error::Answer {
                call: self.call.clone(),
                detail: "its fields are not as expected".into(),
            });
        }
        Err(Error::Answer {
            call: self.call.clone(),
            detail: format!("it has no id: {}", explained(object)),
        })
    }

    /// The id of the object, in any of its spellings.
    pub fn id(&self) -> Option<i64> {
        let object = self.first();
        named(object)?;
        serde_json::from_slice::<Identified>(object).ok()?.id
    }

    /// An object without an id that explains nothing: there is no such record.
    pub fn is_bare(&self) -> bool {
        let object = self.first();
        named(object).is_some_and(|named| named.id.is_none()) && !explains(object)
    }

    /// What an answer other than the expected one says.
    pub fn explained(&self) -> String {
        explained(self.first())
    }

    /// The object, even if it comes as an array of one.
    fn first(&self) -> &[u8] {
        let body = self.body.trim_ascii();
        if body.first() != Some(&b'[') {
            return body;
        }
        let first = serde_json::Deserializer::from_slice(body).deserialize_seq(First);
        first
            .ok()
            .flatten()
            .map_or(body, |first| first.get().as_bytes())
    }

    fn unexpected(&self, body: &[u8]) -> Error {
        Error::Answer {
            call: self.call.clone(),
            detail: explained(body),
        }
    }
}

/// A row of this type; none: it is not one.
pub fn read<T: DeserializeOwned>(row: &RawValue) -> Option<T> {
    // A derived type would take an array for its fields in order.
    let is_object = row.get().starts_with('{');
    is_object
        .then(|| serde_json::from_str(row.get()).ok())
        .flatten()
}

/// An object with its id, if it has one; none: it is no object.
fn named(object: &[u8]) -> Option<Named<'_>> {
    (object.first() == Some(&b'{'))
        .then(|| serde_json::from_slice(object).ok())
        .flatten()
}

fn short(body: &[u8]) -> Option<Value> {
    (body.len() <= MAX_EXPLANATION)
        .then(|| serde_json::from_slice(body).ok())
        .flatten()
}

fn explains(body: &[u8]) -> bool {
    short(body).is_some_and(|value| error::explains(&value))
}

fn explained(body: &[u8]) -> String {
    if body.is_empty() {
        return error::explained(&Value::Null);
    }
    match short(body) {
        Some(value) => error::explained(&value),
        None => "a response without an explanation".into(),
    }
}

/// The rows of an array, up to [`MAX_ROWS`].
struct Rows;

impl<'de> Visitor<'de> for Rows {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of at most {MAX_ROWS} rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(row) = rows.next_element::<&RawValue>()? {
            if found.len() >= MAX_ROWS {
                return Err(serde::de::Error::custom("too many rows"));
            }
            found.push(row);
        }
        Ok(found)
    }
}

/// The first element of an array; what follows is read over.
struct First;

impl<'de> Visitor<'de> for First {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Self::Value, A::Error> {
        let first = rows.next_element()?;
        while rows.next_element::<serde::de::IgnoredAny>()?.is_some() {}
        Ok(first)
    }
}

/// The object around a list. Its array goes by this name, in any case; with `record_count`, by any.
struct Envelope<'e>(&'e str);

#[derive(Default)]
struct Enveloped<'a> {
    named: Option<&'a RawValue>,
    other: Option<&'a RawValue>,
    is_counted: bool,
    total: Option<i64>,
}

impl<'a> Enveloped<'a> {
    fn rows(&self) -> Option<&'a RawValue> {
        self.named.or(self.other.filter(|_| self.is_counted))
    }
}

impl<'de> Visitor<'de> for Envelope<'_> {
    type Value = Enveloped<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list in an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut found = Enveloped::default();
        while let Some(name) = fields.next_key_seed(Name)? {
            let value: &'de RawValue = fields.next_value()?;
            let is_array = value.get().starts_with('[');
            if name.eq_ignore_ascii_case(self.0) && is_array {
                found.named = Some(value);
            } else if name == "record_count" {
                found.is_counted = true;
                let number = serde_json::from_str::<Value>(value.get()).ok();
                found.total = number.as_ref().and_then(lenient::integer);
            } else if is_array && found.other.is_none() {
                found.other = Some(value);
            }
        }
        Ok(found)
    }
}

/// A field's name, cut where no name that is looked for is longer.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<String, E> {
        Ok(name.chars().take(64).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::{Agent, HaloClient};
    use super::*;
    use serde_json::json;

    fn reply(body: &Value) -> Reply {
        Reply::new("GET /Client", body.to_string().into_bytes())
    }

    #[test]
    fn lists_come_bare_or_wrapped() {
        for body in [
            json!([{"id": 1}]),
            json!({"record_count": 1, "clients": [{"id": "1.0"}]}),
            json!({"Clients": [{"id": 1.0}]}),
            json!({"record_count": 1, "rows": [{"id": 1}]}),
        ] {
            let clients: Vec<HaloClient> = reply(&body).rows("clients").unwrap();
            assert_eq!(clients[0].id, 1, "{body}");
        }
        let counted = reply(&json!({"record_count": "7", "clients": []}));
        assert_eq!(counted.listed("clients").unwrap().total, Some(7));
    }

    #[test]
    fn anything_but_a_list_is_an_error_not_an_empty_list() {
        for (body, why) in [
            (r#"{"error": "x"}"#, "is not shown"),
            (
                r#"{"resultCode": 4, "errorMessage": "no licence", "errors": []}"#,
                "a licence is missing",
            ),
            ("null", "it is empty"),
            ("  ", "it is empty"),
            (r#""down for Maintenance""#, "down for maintenance"),
        ] {
            let reply = Reply::new("GET /Client", body.into());
            let error = reply.rows::<HaloClient>("clients").unwrap_err().to_string();
            assert!(
                error.contains(why) && error.contains("GET /Client"),
                "{error}"
            );
        }
        let empty = reply(&json!({"record_count": 0, "list": []}));
        assert!(empty.rows::<HaloClient>("clients").unwrap().is_empty());
    }

    #[test]
    fn objects_come_bare_or_in_an_array() {
        for body in [json!({"id": 1}), json!([{"id": 1}])] {
            assert_eq!(reply(&body).one::<Agent>().unwrap().id.0, 1);
            assert_eq!(reply(&body).id(), Some(1));
        }
        for body in [json!({}), json!({"id": null}), json!([]), json!(7)] {
            assert!(reply(&body).one::<Agent>().is_err(), "{body}");
        }
        assert!(reply(&json!([{"id": null}])).is_bare());
        assert!(!reply(&json!({"error": "no licence"})).is_bare());
    }

    #[test]
    fn a_list_without_end_is_refused_and_rows_that_are_none_are_skipped() {
        let many = format!("[{}0]", "0,".repeat(2_000_000));
        let reply = Reply::new("GET /Client", many.into_bytes());
        let error = reply.rows::<HaloClient>("clients").unwrap_err();
        assert!(
            error.to_string().contains("more than 10000 rows"),
            "{error}"
        );
        let some = format!("[{}{{\"id\": 1}}]", "0,".repeat(5000));
        let reply = Reply::new("GET /Client", some.into_bytes());
        assert_eq!(reply.rows::<HaloClient>("clients").unwrap().len(), 1);
    }

    #[test]
    fn a_field_that_is_a_whole_tree_is_read_over() {
        let name = format!("[{}0]", "[0],".repeat(500_000));
        let body = format!("{{\"id\": 1, \"name\": {name}, \"inactive\": {{\"a\": {name}}}}}");
        let client: HaloClient = Reply::new("x", body.into_bytes()).one().unwrap();
        assert_eq!((client.id, client.name.as_str()), (1, ""));
    }

    #[test]
    fn a_reply_shows_no_text_when_it_is_debugged() {
        let shown = format!("{:?}", reply(&json!({"details": "hunter2"})));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
