//! What two plans grant differently, line by line, for a person.

use serde_json::Value;

use crate::digest;
use crate::failure::{Result, printable};
use crate::plan::Plan;

/// Longer values say no more to a reader.
const MAX_SHOWN: usize = 120;

/// The differences in authority from `before` to `after`: `+ path: value`, `- path: value`, `~ path: old -> new`.
///
/// # Errors
/// As [`digest::of`].
pub fn of(before: &Plan, after: &Plan) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let (mut old, mut new) = (digest::authority(before)?, digest::authority(after)?);
    for plan in [&mut old, &mut new] {
        // The hashes of the files say only that something changed; what changed is in the rest.
        if let Some(top) = plan.as_object_mut() {
            top.remove("sources");
        }
    }
    compare("", &old, &new, &mut lines);
    Ok(lines)
}

fn compare(path: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            for key in before
                .keys()
                .chain(after.keys().filter(|key| !before.contains_key(*key)))
            {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                one(&path, before.get(key), after.get(key), lines);
            }
        }
        (Value::Array(before), Value::Array(after)) => lists(path, before, after, lines),
        _ if old == new => {}
        _ => lines.push(format!("~ {path}: {} -> {}", shown(old), shown(new))),
    }
}

/// Entries of lists have no names: what is in one only is told, whatever its place.
fn lists(path: &str, before: &[Value], after: &[Value], lines: &mut Vec<String>) {
    let mut gone: Vec<&Value> = before.iter().collect();
    let mut come = Vec::new();
    for value in after {
        match gone.iter().position(|old| *old == value) {
            Some(place) => drop(gone.remove(place)),
            None => come.push(value),
        }
    }
    for value in gone {
        one(path, Some(value), None, lines);
    }
    for value in come {
        one(path, None, Some(value), lines);
    }
}

fn one(path: &str, old: Option<&Value>, new: Option<&Value>, lines: &mut Vec<String>) {
    match (old, new) {
        (Some(old), Some(new)) => compare(path, old, new, lines),
        (Some(old), None) => lines.push(format!("- {path}: {}", shown(old))),
        (None, Some(new)) => lines.push(format!("+ {path}: {}", shown(new))),
        (None, None) => {}
    }
}

fn shown(value: &Value) -> String {
    let text = printable(&value.to_string());
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_came_what_went_and_what_changed() {
        let old = json!({"a": 1, "routes": [{"host": "a"}, {"host": "b"}], "gone": true});
        let new = json!({"a": 2, "routes": [{"host": "b"}, {"host": "c"}], "new": {"x": "\u{1b}"}});
        let mut lines = Vec::new();
        compare("", &old, &new, &mut lines);
        assert_eq!(
            lines,
            [
                "~ a: 1 -> 2",
                "- gone: true",
                "- routes: {\"host\":\"a\"}",
                "+ routes: {\"host\":\"c\"}",
                "+ new: {\"x\":\"\\u001b\"}",
            ]
        );
    }
}
