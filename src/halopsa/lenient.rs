//! HaloPSA writes the same id as `3`, `3.0`, `"3"` and `"3.0"`, and "never" as
//! a date in 1899 or 1900. These readers accept them all.

use k8s_openapi::jiff::{Timestamp, civil, tz::TimeZone};
use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::fmt;

/// The longest name that is kept, in characters.
const MAX_NAME: usize = 255;

/// One value; an array or an object is read over, and counts as none: a tree of any size in
/// place of a text costs nothing.
struct Scalar;

impl<'de> Visitor<'de> for Scalar {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }
}

fn scalar<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    deserializer.deserialize_any(Scalar)
}

/// A value as it is; an array or an object counts as none.
pub fn opt_scalar<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Ok(Some(scalar(deserializer)?).filter(|value| !value.is_null()))
}

/// A whole number in any of its spellings.
pub fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(n) => n.as_i64().or_else(|| {
            let f = n.as_f64()?;
            (f.fract() == 0.0 && f.abs() < 9e15).then_some(f as i64)
        }),
        Value::String(s) => {
            let s = s.trim();
            s.parse().ok().or_else(|| {
                let (whole, fraction) = s.split_once('.')?;
                fraction
                    .bytes()
                    .all(|b| b == b'0')
                    .then(|| whole.parse().ok())?
            })
        }
        _ => None,
    }
}

/// A boolean: JSON's, a number, or a word.
pub fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(b) => Some(*b),
        Value::Number(n) => n.as_f64().map(|n| n != 0.0),
        Value::String(s) => match s.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" => Some(true),
            "false" | "0" | "no" | "" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// A time. Without a zone it is UTC; before 1901 it means never.
pub fn time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let parsed = text.parse::<Timestamp>().ok().or_else(|| {
        let local: civil::DateTime = text.parse().ok()?;
        local.to_zoned(TimeZone::UTC).ok().map(|z| z.timestamp())
    })?;
    (parsed.as_second() >= -2_177_452_800).then_some(parsed)
}

pub fn opt_i64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Ok(integer(&scalar(deserializer)?))
}

/// Like [`i64`], for an id type.
pub fn id<'de, D: Deserializer<'de>, T: From<i64>>(deserializer: D) -> Result<T, D::Error> {
    i64(deserializer).map(T::from)
}

/// Like [`opt_i64`], for an id type.
pub fn opt_id<'de, D: Deserializer<'de>, T: From<i64>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(opt_i64(deserializer)?.map(T::from))
}

pub fn i64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    integer(&scalar(deserializer)?).ok_or_else(|| serde::de::Error::custom("not a whole number"))
}

pub fn bool<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(boolean(&scalar(deserializer)?).unwrap_or_default())
}

/// Text; null and absent are empty, numbers are written out.
pub fn string<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match scalar(deserializer)? {
        Value::String(s) => s,
        Value::Number(n) => n.to_string(),
        _ => String::new(),
    })
}

/// Text that is kept for long, so it is cut.
pub fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(string(deserializer)?.chars().take(MAX_NAME).collect())
}

pub fn opt_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Ok(scalar(deserializer)?.as_str().and_then(time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn integers() {
        for value in [json!(3), json!(3.0), json!("3"), json!("3.0"), json!(" 3 ")] {
            assert_eq!(integer(&value), Some(3), "{value}");
        }
        for value in [
            json!(3.5),
            json!("3.5"),
            json!("x"),
            json!(null),
            json!(true),
            json!(1e300),
        ] {
            assert_eq!(integer(&value), None, "{value}");
        }
    }

    #[test]
    fn times() {
        let expected: Timestamp = "2026-10-06T04:19:13.287Z".parse().unwrap();
        for text in [
            "2026-10-06T04:19:13.287",
            "2026-10-06T04:19:13.287Z",
            "2026-10-06T04:19:13.2870000Z",
            "2026-10-06T06:19:13.287+02:00",
        ] {
            assert_eq!(time(text), Some(expected), "{text}");
        }
        for never in ["1900-01-01T00:00:00", "1899-12-30T00:00:00", "", "soon"] {
            assert_eq!(time(never), None, "{never}");
        }
    }
}
