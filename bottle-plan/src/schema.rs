//! The JSON Schema of every document.

use schemars::Schema;

use crate::failure::{Failure, Result};
use crate::{audit, git, handle, manifest, plan, policy};

/// The documents there are a schema for.
pub const DOCUMENTS: [&str; 7] = [
    "manifest", "provider", "plan", "policy", "gate", "handle", "audit",
];

/// The schema of `document` as pretty JSON.
///
/// # Errors
/// When there is no such document.
pub fn schema(document: &str) -> Result<String> {
    let schema: Schema = match document {
        "manifest" => schemars::schema_for!(manifest::SingleFile),
        "provider" => schemars::schema_for!(manifest::provider::Provider),
        "plan" => schemars::schema_for!(plan::Plan),
        "handle" => schemars::schema_for!(handle::Handle),
        "gate" => schemars::schema_for!(git::Gate),
        "policy" => schemars::schema_for!(policy::Policy),
        "audit" => schemars::schema_for!(audit::Record<'static>),
        _ => {
            return Err(
                Failure::invalid(format!("there is no document `{document}`"))
                    .hint(format!("one of {}", DOCUMENTS.join(", "))),
            );
        }
    };
    crate::state::to_json(&schema)
}
