//! The JSON Schema of every document.

use schemars::Schema;

use crate::failure::{Failure, Result};
use crate::{audit, handle, manifest, plan, policy, request, supervise};

/// The documents there are a schema for.
pub const DOCUMENTS: [&str; 10] = [
    "manifest",
    "provider",
    "plan",
    "policy",
    "handle",
    "audit",
    "request",
    "answer",
    "grant",
    "supervise",
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
        "policy" => schemars::schema_for!(policy::Policy),
        "audit" => schemars::schema_for!(audit::Record<'static>),
        "request" => schemars::schema_for!(request::Request),
        "answer" => schemars::schema_for!(request::Answer),
        "grant" => schemars::schema_for!(request::Grant),
        "supervise" => schemars::schema_for!(supervise::Settings),
        _ => {
            return Err(
                Failure::invalid(format!("there is no document `{document}`"))
                    .hint(format!("one of {}", DOCUMENTS.join(", "))),
            );
        }
    };
    crate::state::to_json(&schema)
}
