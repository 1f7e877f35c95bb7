//! A time as users write it: `90s`, `1h30m`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::str::FromStr;

/// The longest time there is. A longer one counts as this: nothing the apiserver admits, now or
/// in an object of an older version, may make a time that cannot be added to another.
pub const MAX: std::time::Duration = std::time::Duration::from_secs(720 * 3600);
/// What the schema admits, in characters.
const MAX_LENGTH: usize = 16;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(std::time::Duration);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not a time like 90s, 15m or 1h30m")]
pub struct Invalid;

impl From<std::time::Duration> for Duration {
    fn from(time: std::time::Duration) -> Self {
        Self(time.min(MAX))
    }
}

impl From<Duration> for std::time::Duration {
    fn from(time: Duration) -> Self {
        time.0
    }
}

impl FromStr for Duration {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut rest = text;
        let mut seconds = 0.0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
            let (number, tail) = rest.split_at(digits.ok_or(Invalid)?);
            let units = tail.find(|c: char| !c.is_ascii_lowercase());
            let (unit, tail) = tail.split_at(units.unwrap_or(tail.len()));
            let factor = match unit {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(Invalid),
            };
            seconds += number.parse::<f64>().map_err(|_| Invalid)? * factor;
            rest = tail;
        }
        if text.is_empty() {
            return Err(Invalid);
        }
        // Infinite or too large is the longest: the parse is total over the schema's pattern.
        let bounded = seconds.clamp(0.0, MAX.as_secs_f64());
        Ok(Self(std::time::Duration::from_millis(
            (bounded * 1000.0).round() as u64,
        )))
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ms = self.0.as_millis();
        if ms.is_multiple_of(1000) {
            serializer.collect_str(&format_args!("{}s", ms / 1000))
        } else {
            serializer.collect_str(&format_args!("{ms}ms"))
        }
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$",
            "maxLength": MAX_LENGTH,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times() {
        for (text, seconds) in [
            ("90s", 90.0),
            ("1h30m", 5400.0),
            ("250ms", 0.25),
            ("0.5h", 1800.0),
            ("720h", 2_592_000.0),
            ("80000000h", 2_592_000.0),
            ("99999999999999999999h", 2_592_000.0),
        ] {
            let time: Duration = text.parse().unwrap();
            assert_eq!(
                std::time::Duration::from(time).as_secs_f64(),
                seconds,
                "{text}"
            );
        }
        for text in ["", "5", "s", "5 s", "-5s", "5d", "1..5s", "1h30", "é"] {
            assert_eq!(text.parse::<Duration>(), Err(Invalid), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_schema_admits_is_a_bounded_time(
            text in "([0-9]{1,400}(\\.[0-9]{1,20})?(ms|s|m|h)){1,8}",
        ) {
            let time = std::time::Duration::from(text.parse::<Duration>().unwrap());
            prop_assert!(time <= MAX);
        }

        #[test]
        fn a_time_survives_being_written(ms in 0u64..2_592_000_000) {
            let time = Duration::from(std::time::Duration::from_millis(ms));
            let json = serde_json::to_string(&time).unwrap();
            prop_assert_eq!(serde_json::from_str::<Duration>(&json).unwrap(), time);
        }

        #[test]
        fn any_text_is_taken(text in "\\PC{0,40}") {
            let _ = text.parse::<Duration>();
        }
    }
}
