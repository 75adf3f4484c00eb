//! The single texts of a plan: each ends up in a command line, a mount or a key of the compose file, and can only be what
//! it is there for.

use std::path::{Component, Path, PathBuf};

use bottle_plan::failure::Result;
use serde_json::Value;

use super::wrong;

/// The most characters of a key the plan brings along. Compose's reader of YAML gives up on one over 1024 as written, and
/// each character may be written as six.
const LONGEST_KEY: usize = 128;

/// A reference as the engine takes it, never one that a command line would read as an option.
pub(super) fn check_image(at: &str, reference: &str) -> Result<()> {
    let plain =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/' | b':' | b'@');
    let begins_well = reference
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    if begins_well && reference.len() <= 512 && reference.bytes().all(plain) {
        return Ok(());
    }
    Err(wrong(
        at,
        format_args!("is `{reference}`, which is not an image"),
    ))
}

/// `uid:gid` as numbers, in the one way to write them. A name would be looked up in the image.
pub(crate) fn check_user(at: &str, user: &str) -> Result<(u32, u32)> {
    let number = |text: &str| {
        text.parse::<u32>()
            .ok()
            .filter(|number| number.to_string() == text)
    };
    user.split_once(':')
        .and_then(|(uid, gid)| Some((number(uid)?, number(gid)?)))
        .ok_or_else(|| {
            wrong(
                at,
                format_args!("is `{user}` and not two numbers, `uid:gid`"),
            )
        })
}

/// A name that every shell can set.
pub(super) fn check_variable(at: &str, name: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.bytes().next().is_some_and(|b| !b.is_ascii_digit()) && name.bytes().all(plain) {
        return Ok(());
    }
    Err(wrong(
        at,
        format_args!("has `{name}`, which is not the name of a variable"),
    ))
}

/// No variable and no argument can hold a NUL; the kernel would end it there.
pub(super) fn check_text(at: &str, text: &str) -> Result<()> {
    if text.contains('\0') {
        Err(wrong(at, "has a NUL character"))
    } else {
        Ok(())
    }
}

pub(super) fn check_key(at: &str, key: &str) -> Result<()> {
    if key.chars().count() <= LONGEST_KEY {
        return Ok(());
    }
    Err(wrong(
        at,
        format_args!("has a key of more than {LONGEST_KEY} characters"),
    ))
}

pub(super) fn check_keys(at: &str, value: &Value) -> Result<()> {
    match value {
        Value::Array(values) => values.iter().try_for_each(|value| check_keys(at, value)),
        Value::Object(members) => members
            .iter()
            .try_for_each(|(key, value)| check_key(at, key).and_then(|()| check_keys(at, value))),
        _ => Ok(()),
    }
}

/// Absolute, and the only way to write that path: what is compared must be what is mounted.
pub(super) fn check_host_path(at: &str, path: &Path) -> Result<()> {
    let Some(text) = path.to_str() else {
        return Err(wrong(at, format_args!("is not UTF-8: {}", path.display())));
    };
    check_path(at, text)
}

pub(super) fn check_container_path(at: &str, path: &str) -> Result<()> {
    check_path(at, path)?;
    if path == "/" {
        Err(wrong(at, "is the root of the container"))
    } else {
        Ok(())
    }
}

fn check_path(at: &str, text: &str) -> Result<()> {
    let plain = |component| matches!(component, Component::RootDir | Component::Normal(_));
    let path = Path::new(text);
    let normal: PathBuf = path.components().collect();
    if !path.is_absolute()
        || !path.components().all(plain)
        || normal.as_os_str() != path.as_os_str()
    {
        return Err(wrong(
            at,
            format_args!("is `{text}` and not an absolute path without `.`, `..` and `//`"),
        ));
    }
    if text.contains(char::is_control) {
        return Err(wrong(at, format_args!("has a control character: {text:?}")));
    }
    Ok(())
}
