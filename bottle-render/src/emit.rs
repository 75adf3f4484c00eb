//! The document as text that Compose reads back as exactly that document.

use std::fmt::Write as _;

use bottle_plan::failure::{Failure, Result};

use crate::compose::model::Compose;

/// YAML, every string quoted.
///
/// The emitter and the option are both chosen by measurement: others write `1_000` or `2026-11-23` bare, which Compose
/// reads as a number and a date.
///
/// # Errors
/// When the emitter fails; no plan is known that makes it.
pub fn to_yaml(compose: &Compose) -> Result<String> {
    let options = serde_saphyr::ser_options! { quote_all: true };
    let mut yaml = String::new();
    serde_saphyr::to_fmt_writer_with_options(&mut yaml, compose, options).map_err(|error| {
        Failure::failed("cannot write the Compose file as YAML").because(error.to_string())
    })?;
    Ok(yaml)
}

/// JSON, which Compose reads as YAML.
///
/// # Errors
/// When the serializer fails; no plan is known that makes it.
pub fn to_json(compose: &Compose) -> Result<String> {
    let json = serde_json::to_string_pretty(compose)
        .map_err(|error| Failure::failed("cannot write the Compose file as JSON").because(error))?;
    let mut text = String::with_capacity(json.len() + 1);
    // JSON leaves these characters as they are; YAML refuses some and takes others for the end of a line. They can only
    // stand inside a string, because all else in JSON is printable ASCII.
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => {
                let _ = write!(text, "\\u{:04x}", c as u32);
            }
            _ => text.push(c),
        }
    }
    text.push('\n');
    Ok(text)
}
