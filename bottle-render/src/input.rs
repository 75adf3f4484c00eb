//! Reading a plan that may come from anywhere.

use bottle_plan::failure::{Failure, Result};
use bottle_plan::manifest::meant;
use bottle_plan::plan::{PLAN_SCHEMA, Plan};
use serde::Deserializer;
use serde_json::Value;

use crate::check::check;

const HINT: &str =
    "make the plan with `bottle-plan NAME`; `bottle-plan schema plan` prints what it may hold";

/// A plan from JSON text, checked.
///
/// # Errors
/// When it is not JSON, not a plan, of another version, or has something [`check()`] refuses.
pub fn plan_from_json(text: &str) -> Result<Plan> {
    let value: Value = serde_json::from_str(text).map_err(|error| {
        Failure::invalid("the plan is not JSON")
            .because(error)
            .hint(HINT)
    })?;
    check_schema(&value)?;
    // From the text once more and not from the value: that one has forgotten keys written twice, and the place of an error.
    let mut reader = serde_json::Deserializer::from_str(text);
    let plan = typed(&mut reader)?;
    check(&plan)?;
    Ok(plan)
}

/// The same for a document that something else has parsed.
pub(crate) fn plan_from_value(value: Value) -> Result<Plan> {
    check_schema(&value)?;
    let plan = typed(value)?;
    check(&plan)?;
    Ok(plan)
}

/// Before anything else: of a plan of another version, the first unknown key is not what its reader needs to hear.
fn check_schema(value: &Value) -> Result<()> {
    if !value.is_object() {
        return Err(Failure::invalid("this is not a plan: it is not an object").hint(HINT));
    }
    match value.get("schema") {
        Some(Value::String(schema)) if schema == PLAN_SCHEMA => Ok(()),
        Some(Value::String(schema)) => {
            Err(Failure::other_document(schema, PLAN_SCHEMA, Some(HINT)))
        }
        Some(_) => Err(Failure::invalid("this is not a plan: its schema is not a text").hint(HINT)),
        None => Err(Failure::invalid("this is not a plan: it names no schema").hint(HINT)),
    }
}

/// An error says where in the plan it is: `egress.routes[2].tls`.
fn typed<'de, D>(from: D) -> Result<Plan>
where
    D: Deserializer<'de, Error = serde_json::Error>,
{
    serde_path_to_error::deserialize(from).map_err(|error| {
        let at = error.path().to_string();
        let message = if at == "." {
            "the plan is wrong".to_owned()
        } else {
            format!("the plan is wrong at `{at}`")
        };
        let hint = meant(&error.inner().to_string()).unwrap_or_else(|| HINT.to_owned());
        Failure::invalid(message)
            .because(error.into_inner())
            .hint(hint)
    })
}
