//! The JSON Schema of every document.

use schemars::Schema;

use crate::failure::{Failure, Result};
use crate::{
    audit, diff, git, handle, manifest, plan, policy, replay, request, snapshot, supervise,
};

/// The documents there are a schema for.
pub const DOCUMENTS: [&str; 16] = [
    "manifest",
    "bottle",
    "agent",
    "provider",
    "plan",
    "policy",
    "gate",
    "handle",
    "audit",
    "snapshot",
    "diff",
    "replay",
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
        // What lies in `bottles/` and `agents/`; `manifest` is both in one file.
        "bottle" => schemars::schema_for!(manifest::Bottle),
        "agent" => schemars::schema_for!(manifest::Agent),
        "provider" => schemars::schema_for!(manifest::provider::Provider),
        "plan" => schemars::schema_for!(plan::Plan),
        "handle" => schemars::schema_for!(handle::Handle),
        "gate" => schemars::schema_for!(git::Gate),
        "policy" => schemars::schema_for!(policy::Policy),
        "snapshot" => schemars::schema_for!(snapshot::Snapshot),
        "audit" => schemars::schema_for!(audit::Record<'static>),
        "request" => schemars::schema_for!(request::Request),
        "answer" => schemars::schema_for!(request::Answer),
        "grant" => schemars::schema_for!(request::Grant),
        "supervise" => schemars::schema_for!(supervise::Settings),
        "replay" => schemars::schema_for!(replay::Replay),
        "diff" => schemars::schema_for!(diff::Diff),
        _ => {
            return Err(
                Failure::invalid(format!("there is no document `{document}`"))
                    .hint(format!("one of {}", DOCUMENTS.join(", "))),
            );
        }
    };
    crate::state::to_json(&schema)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_document_is_bound_to_its_tag() {
        for document in DOCUMENTS {
            let schema = schema(document).expect(document);
            let schema: Value = serde_json::from_str(&schema).expect("JSON");
            let tag = &schema["properties"]["schema"];
            // A manifest may go without; what it may not have is another document's.
            let only = tag["const"].as_str().or_else(|| tag["enum"][0].as_str());
            let only = only.unwrap_or_else(|| panic!("{document}: any tag will do: {tag}"));
            let said = tag["description"].as_str().unwrap_or_default();
            assert!(said.contains(only), "{document}: {only} is told as: {said}");
        }
    }
}
