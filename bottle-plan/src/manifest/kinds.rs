//! What the YAML reader says of a value of the wrong kind, for people who write YAML and not Rust.

/// The reader's words for kinds of values, and a person's.
const WORDS: &[(&str, &str)] = &[
    ("expected a sequence", "expected a list"),
    ("expected a map", "expected a mapping"),
    ("type: sequence", "type: a list"),
    ("type: map", "type: a mapping"),
    ("type: unit value", "type: nothing"),
    (
        "deserializing from YAML containing more than one document is not supported",
        "there is more than one YAML document in it",
    ),
];

/// `message` without the names of our types.
pub(super) fn in_plain_words(message: &str) -> String {
    let mut text = message.to_owned();
    for (theirs, plain) in WORDS {
        text = text.replace(theirs, plain);
    }
    if let Some((front, rest)) = text.split_once("expected struct ") {
        let after = rest.trim_start_matches(char::is_alphanumeric);
        text = format!("{front}expected a mapping{after}");
    }
    text
}

/// What to write instead, at `place`; nothing when the message says it.
pub(super) fn hint(place: &str, message: &str) -> Option<String> {
    let key = place.rsplit('.').next().unwrap_or_default();
    let key = key.split('[').next().unwrap_or_default();
    if message.contains("found a tab") {
        return Some("YAML is indented with spaces; there is a tab on that line".to_owned());
    }
    if message.contains("more than one document") {
        return Some(
            "a manifest is one document: take the line `---` and what follows it out".to_owned(),
        );
    }
    if message.contains("expected a sequence") {
        return given(message).map(|value| {
            let words = value.split_whitespace().collect::<Vec<_>>().join(", ");
            format!("write it as a list: `{key}: [{words}]`")
        });
    }
    if message.contains("expected struct ") {
        let value = given(message)?;
        return match key {
            "routes" => Some(format!("write it as `- host: {value}`")),
            "workspace" => Some(format!("write it as `workspace: {{from: {value}}}`")),
            "agent_provider" => Some(format!(
                "write it as `agent_provider: {{template: {value}}}`"
            )),
            _ => None,
        };
    }
    if message.contains("expected a boolean") {
        return Some("write true or false, without quotes".to_owned());
    }
    if message.contains("expected a string") {
        let what = match message {
            text if text.contains("type: sequence") => "one value is expected here, not a list",
            text if text.contains("type: map") => "one value is expected here, not a mapping",
            _ => "put the value in quotes: YAML reads it as a number or a truth value",
        };
        return Some(what.to_owned());
    }
    None
}

/// The value in `invalid type: string "x", expected …`, or of a number.
fn given(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("invalid type: ")?;
    let (value, _) = rest.split_once(", expected ")?;
    let (_, value) = value.split_once(['"', '`'])?;
    Some(value.trim_end_matches(['"', '`']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_value_is_shown_as_the_list_it_should_be() {
        let said = "command: invalid type: string \"bash -l\", expected a sequence";
        assert_eq!(
            in_plain_words(said),
            "command: invalid type: string \"bash -l\", expected a list"
        );
        assert_eq!(
            hint("command", said).as_deref(),
            Some("write it as a list: `command: [bash, -l]`")
        );
        let said = "egress.routes[0].ports: invalid type: integer `443`, expected a sequence";
        assert_eq!(
            hint("egress.routes[0].ports", said).as_deref(),
            Some("write it as a list: `ports: [443]`")
        );
    }

    #[test]
    fn no_name_of_a_type_of_ours_is_shown() {
        let said =
            "egress.routes[0]: invalid type: string \"a.example.com\", expected struct Route";
        assert_eq!(
            in_plain_words(said),
            "egress.routes[0]: invalid type: string \"a.example.com\", expected a mapping"
        );
        assert_eq!(
            hint("egress.routes[0]", said).as_deref(),
            Some("write it as `- host: a.example.com`")
        );
    }
}
