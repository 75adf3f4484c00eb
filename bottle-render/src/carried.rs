//! The plan inside the Compose file: put in at `x-bottle`, taken out unchanged.

use bottle_plan::failure::{Failure, Result};
use bottle_plan::plan::{PLAN_SCHEMA, Plan};
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::compose::model::serialize_doubled;
use crate::input::plan_from_value;

/// The top-level key that holds the plan.
const KEY: &str = "x-bottle";

/// The plan as it rides in the document, values with each `$` doubled: Compose interpolates below `x-` like anywhere
/// else, and there too leaves keys alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Carried(Value);

impl Carried {
    pub(crate) fn new(plan: &Plan) -> Result<Self> {
        serde_json::to_value(plan)
            .map(Self)
            .map_err(|error| Failure::invalid("the plan cannot be written as JSON").because(error))
    }
}

impl Serialize for Carried {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Doubled(&self.0).serialize(serializer)
    }
}

struct Doubled<'a>(&'a Value);

impl Serialize for Doubled<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::String(text) => serialize_doubled(text, serializer),
            Value::Array(values) => {
                let mut list = serializer.serialize_seq(Some(values.len()))?;
                for value in values {
                    list.serialize_element(&Doubled(value))?;
                }
                list.end()
            }
            Value::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (key, value) in members {
                    map.serialize_entry(key, &Doubled(value))?;
                }
                map.end()
            }
            other => other.serialize(serializer),
        }
    }
}

/// The plan that a Compose file carries, checked. `document` is the parsed file, YAML or JSON.
///
/// # Errors
/// When there is none, or it is not one that this version understands.
pub fn plan_from_compose(document: &Value) -> Result<Plan> {
    let Some(carried) = document.get(KEY) else {
        if document.get("schema").and_then(Value::as_str) == Some(PLAN_SCHEMA) {
            return Err(Failure::invalid("this is a plan, and no rendered file")
                .hint("bottle-plan NAME | bottle-render | bottle-run up"));
        }
        return Err(
            Failure::invalid(format!("the document carries no plan: it has no `{KEY}`"))
                .hint("a rendered file has one: bottle-plan NAME | bottle-render | bottle-run up"),
        );
    };
    plan_from_value(undouble(carried)?)
        .map_err(|failure| failure.while_doing(format!("reading `{KEY}`")))
}

fn undouble(value: &Value) -> Result<Value> {
    Ok(match value {
        Value::String(text) => Value::String(undouble_text(text)?),
        Value::Array(values) => Value::Array(values.iter().map(undouble).collect::<Result<_>>()?),
        Value::Object(members) => Value::Object(
            members
                .iter()
                .map(|(key, value)| Ok((key.clone(), undouble(value)?)))
                .collect::<Result<_>>()?,
        ),
        other => other.clone(),
    })
}

/// A single `$` is one that Compose would have replaced: whoever wrote it meant another text than we would read.
fn undouble_text(text: &str) -> Result<String> {
    let halved = text.replace("$$", "$");
    if halved.replace('$', "$$") == text {
        return Ok(halved);
    }
    Err(Failure::invalid(format!(
        "`{KEY}` has a `$` that is not doubled, in `{text}`"
    ))
    .hint("Compose would replace it by a variable; render the plan again with bottle-render"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn doubling_and_back_is_nothing_and_keys_stay() {
        for value in [
            json!({"a$b": "$", "$$": ["$$", "x${Y}z", {"$": "$$$"}], "n": 1, "f": 0.5, "t": true, "z": null}),
            json!("plain"),
            json!([]),
        ] {
            let written = serde_json::to_value(Doubled(&value)).expect("JSON");
            assert_eq!(undouble(&written).expect("doubled"), value);
        }
        assert_eq!(
            serde_json::to_value(Doubled(&json!({"a$b": "c$d"}))).expect("JSON"),
            json!({"a$b": "c$$d"})
        );
    }

    #[test]
    fn a_single_dollar_is_refused() {
        for text in ["$", "$X", "a$$$", "${X}", "$$$X"] {
            assert_eq!(
                undouble_text(text).expect_err("single").kind().code(),
                2,
                "{text}"
            );
        }
    }

    #[test]
    fn a_document_without_a_plan_says_so() {
        let failure = plan_from_compose(&json!({"services": {}})).expect_err("no plan");
        assert!(failure.chain().contains("x-bottle"));
        assert!(failure.hint_text().is_some());
        let failure = plan_from_compose(&json!({"schema": PLAN_SCHEMA})).expect_err("a plan");
        assert!(failure.chain().contains("this is a plan"));
    }
}
