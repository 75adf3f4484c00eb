//! Values that people write in more than one way: sizes, durations, lists of one.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::policy::{PathKind, PathMatch};

/// `name` or `[name, …]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(with = "OneOrManySchema")]
pub struct OneOrMany(pub Vec<String>);

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only its schema is used")]
enum OneOrManySchema {
    One(String),
    Many(Vec<String>),
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = OneOrMany;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or a list of names")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![name.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<OneOrMany, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = items.next_element()? {
                    names.push(name);
                }
                Ok(OneOrMany(names))
            }
        }
        deserializer.deserialize_any(Names)
    }
}

/// `/prefix`, or a mapping with `type` and `value`.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "PathRuleSchema")]
pub struct PathRule(pub PathMatch);

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only its schema is used")]
enum PathRuleSchema {
    Prefix(String),
    Full(PathMatch),
}

impl<'de> Deserialize<'de> for PathRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Rule;
        impl<'de> Visitor<'de> for Rule {
            type Value = PathRule;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path such as /v1/ or a mapping with `type` and `value`")
            }
            fn visit_str<E: de::Error>(self, path: &str) -> Result<PathRule, E> {
                Ok(PathRule(PathMatch {
                    kind: PathKind::Prefix,
                    value: path.to_owned(),
                }))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PathRule, A::Error> {
                PathMatch::deserialize(de::value::MapAccessDeserializer::new(map)).map(PathRule)
            }
        }
        deserializer.deserialize_any(Rule)
    }
}

/// A number of bytes: `512`, `64k`, `10m`, `4g`, `1t` (powers of 1024).
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "NumberOrText")]
pub struct ByteSize(pub u64);

/// The same, for memory.
pub type Memory = ByteSize;

/// A duration: `30` (seconds), `30s`, `10m`, `1h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "NumberOrText")]
pub struct Seconds(pub u64);

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only its schema is used")]
enum NumberOrText {
    Number(u64),
    Text(String),
}

const SIZES: &[(&str, u64)] = &[
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
];
const DURATIONS: &[(&str, u64)] = &[("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(WithUnit("a size such as 512m or 4g", SIZES))
            .map(Self)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(WithUnit("a duration such as 30s, 10m or 1h", DURATIONS))
            .map(Self)
    }
}

/// A duration as in manifests, in seconds.
#[must_use]
pub fn parse_seconds(text: &str) -> Option<u64> {
    parse_with_unit(text, DURATIONS)
}

struct WithUnit(&'static str, &'static [(&'static str, u64)]);

impl Visitor<'_> for WithUnit {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
        Ok(number)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        parse_with_unit(text, self.1)
            .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

/// A whole number and one of `units`; without a unit the number itself.
fn parse_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let number: u64 = digits.parse().ok()?;
    if unit.is_empty() {
        return Some(number);
    }
    let factor = units
        .iter()
        .find(|(name, _)| *name == unit || unit.strip_suffix('b') == Some(name))?
        .1;
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations() {
        assert_eq!(parse_with_unit("4g", SIZES), Some(4 << 30));
        assert_eq!(parse_with_unit("512MB", SIZES), Some(512 << 20));
        assert_eq!(parse_with_unit("12", SIZES), Some(12));
        assert_eq!(parse_with_unit("1h", DURATIONS), Some(3600));
        for bad in ["", "g", "-1", "1.5g", "4 g", "4x", "99999999999t"] {
            assert_eq!(parse_with_unit(bad, SIZES), None, "{bad}");
        }
    }
}
