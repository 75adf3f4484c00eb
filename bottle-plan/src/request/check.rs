//! Whether a request, what it asks for, or a grant can be one of ours.

use super::{
    Ask, GRANT_SCHEMA, Grant, MAX_NAME, MAX_OPTIONS, MAX_PATHS, MAX_QUESTION, MAX_REASON, METHODS,
    REQUEST_SCHEMA, Request, is_id, time_of,
};
use crate::host::Host;
use crate::policy::{PathKind, PathMatch};

impl Request {
    /// Whether it can be what a sidecar of ours wrote. Both sides ask: the sidecar before it writes, the host before
    /// it believes.
    ///
    /// # Errors
    /// What is wrong, for the agent and for people.
    pub fn check(&self) -> Result<(), String> {
        if self.schema != REQUEST_SCHEMA {
            return Err(format!("`schema` is not {REQUEST_SCHEMA}"));
        }
        if !is_id(&self.id, 'r') {
            return Err("`id` is no request's".into());
        }
        if time_of(&self.created_at).is_none() || time_of(&self.deadline).is_none() {
            return Err("its times are none".into());
        }
        bounded("reason", &self.reason, MAX_REASON)?;
        self.ask.check()
    }
}

impl Ask {
    fn check(&self) -> Result<(), String> {
        match self {
            Self::Egress {
                host,
                port,
                methods,
                paths,
                denial,
                ..
            } => {
                let normal = Host::parse(host).map_err(|error| error.to_string())?;
                if normal.as_str() != host {
                    return Err(format!("write the host as `{normal}`"));
                }
                if *port == 0 {
                    return Err("`port` is 0".into());
                }
                if let Some(other) = methods.iter().find(|m| !METHODS.contains(&m.as_str())) {
                    let known = METHODS.join(", ");
                    return Err(format!("`methods`: {other:?} is none of {known}"));
                }
                check_paths(paths)?;
                optional_name("denial", denial.as_deref())
            }
            Self::Push {
                repo,
                reference,
                object,
            } => {
                name("repo", repo)?;
                name("ref", reference)?;
                if !reference.starts_with("refs/") {
                    return Err("`ref` is a full one, such as refs/heads/agent/fix".into());
                }
                optional_name("object", object.as_deref())
            }
            Self::Question { text, options } => {
                if text.trim().is_empty() {
                    return Err("`text` is empty".into());
                }
                bounded("text", text, MAX_QUESTION)?;
                if options.len() > MAX_OPTIONS.0 {
                    return Err(format!("more than {} `options`", MAX_OPTIONS.0));
                }
                options
                    .iter()
                    .try_for_each(|option| bounded("options", option, MAX_OPTIONS.1))
            }
        }
    }
}

impl Grant {
    /// Whether it could be the file that was found under the name `id`.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.schema != GRANT_SCHEMA {
            return Err(format!("`schema` is not {GRANT_SCHEMA}"));
        }
        if !is_id(&self.id, 'g') || !is_id(&self.request, 'r') {
            return Err("its ids are none".into());
        }
        if self
            .ends_at
            .as_deref()
            .is_some_and(|at| time_of(at).is_none())
        {
            return Err("`ends_at` is no time".into());
        }
        Ok(())
    }
}

fn check_paths(paths: &[PathMatch]) -> Result<(), String> {
    if paths.len() > MAX_PATHS.0 {
        return Err(format!("more than {} `paths`", MAX_PATHS.0));
    }
    for path in paths {
        if path.kind == PathKind::Regex {
            return Err("a `regex` cannot be asked for; `exact` or `prefix` can".into());
        }
        let plain = path.value.bytes().all(|b| (b'!'..=b'~').contains(&b));
        if path.value.len() > MAX_PATHS.1 || !path.value.starts_with('/') || !plain {
            return Err(format!(
                "a path begins with `/`, holds no blank and no more than {} printable characters",
                MAX_PATHS.1
            ));
        }
    }
    Ok(())
}

fn bounded(what: &str, text: &str, most: usize) -> Result<(), String> {
    if text.chars().count() > most {
        return Err(format!("`{what}` has more than {most} characters"));
    }
    Ok(())
}

/// Printable, without blanks, and not long: what can be the name of something.
fn name(what: &str, text: &str) -> Result<(), String> {
    let plain = text.bytes().all(|b| (b'!'..=b'~').contains(&b));
    if text.is_empty() || text.len() > MAX_NAME || !plain {
        return Err(format!("`{what}` is not a name of printable characters"));
    }
    Ok(())
}

fn optional_name(what: &str, text: Option<&str>) -> Result<(), String> {
    text.map_or(Ok(()), |text| name(what, text))
}
