//! Everything the other modules do not speak of, compared as JSON: no key is forgotten.

use serde_json::Value;

use super::{Change, Changes, Effect};

/// Compared by what they mean, elsewhere.
const ELSEWHERE: [(&str, &str); 12] = [
    ("", "sources"),
    ("", "workspace"),
    ("", "isolation"),
    ("/egress", "routes"),
    ("/egress", "slots"),
    ("/egress", "log"),
    ("/egress", "mode"),
    ("/agent", "env"),
    ("/agent", "resources"),
    ("/agent", "image"),
    ("/agent/hardening", "cap_add"),
    ("/agent/hardening", "read_only"),
];

/// Keys with a text of somebody's own: that it differs is said, the text is not.
const TEXTS: [&str; 4] = ["prompt", "text", "settings", "literal"];

/// Longer values say less than that they differ.
const SHOWN: usize = 80;

/// `old` and `new` are what the digests are made of.
pub(super) fn changes(mut old: Value, mut new: Value) -> Vec<Change> {
    for (place, key) in ELSEWHERE {
        for value in [&mut old, &mut new] {
            let object = value.pointer_mut(place).and_then(Value::as_object_mut);
            object.map(|object| object.remove(key));
        }
    }
    for value in [&mut old, &mut new] {
        without_pushes(value);
    }
    let mut changes = Changes::of("other");
    compare(&mut changes, "", &old, &new);
    changes.list
}

/// Name, URL and refs of a repository are told as what can be pushed.
fn without_pushes(plan: &mut Value) {
    let repos = plan.pointer_mut("/git_gate/repos");
    for repo in repos.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(repo) = repo.as_object_mut() {
            repo.remove("url");
            repo.remove("refs");
        }
    }
}

fn compare(changes: &mut Changes, path: &str, old: &Value, new: &Value) {
    if old == new {
        return;
    }
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                compare(changes, &path, &old[key], &new[key]);
            }
        }
        (Value::Array(_), Value::Array(_)) if is_named(old) && is_named(new) => {
            compare(changes, path, &by_name(old), &by_name(new));
        }
        _ => changes.add(Effect::Changes, in_words(path, old, new)),
    }
}

/// What a key is called where people read it.
fn plain(path: &str) -> &str {
    match path {
        "agent.command" => "what `attach` and `run` start",
        "agent.name" => "the agent's name",
        "git_gate" => "git-gate, its settings",
        "supervise" => "supervise, its settings",
        "provision" => "what is done to the agent's container before it starts",
        other => other,
    }
}

/// A list of words as they are typed.
fn list(value: &Value) -> Option<String> {
    let words = value.as_array()?.iter().map(Value::as_str);
    let words: Option<Vec<&str>> = words.collect();
    words
        .filter(|words| words.iter().all(|word| !word.contains(' ')))
        .map(|words| words.join(" "))
}

fn in_words(path: &str, old: &Value, new: &Value) -> String {
    let key = path.rsplit('.').next().unwrap_or(path);
    let path = plain(path);
    let shown = |value: &Value| match value {
        Value::Null => Some("not set".to_owned()),
        Value::String(text) if text.len() <= SHOWN => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(_) if value.to_string().len() <= SHOWN => {
            Some(list(value).unwrap_or_else(|| value.to_string()))
        }
        _ => None,
    };
    match (shown(old), shown(new)) {
        _ if TEXTS.contains(&key) => path.to_owned(),
        (Some(old), Some(new)) => format!("{path}: {old} -> {new}"),
        _ if old.is_null() => format!("{path} is new"),
        _ if new.is_null() => format!("{path} is gone"),
        _ => path.to_owned(),
    }
}

/// Whether it is a list of things with names, so that their order means nothing.
fn is_named(list: &Value) -> bool {
    let all = list.as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().all(|value| name(value).is_some())
}

fn name(value: &Value) -> Option<&str> {
    ["name", "path"].iter().find_map(|key| value[*key].as_str())
}

fn by_name(list: &Value) -> Value {
    let all = list.as_array().into_iter().flatten();
    all.filter_map(|value| Some((name(value)?.to_owned(), value.clone())))
        .collect()
}
