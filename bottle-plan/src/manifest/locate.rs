//! Turns what the YAML reader says into `file:line: message` with a suggestion.

use std::path::Path;

use crate::failure::Failure;

/// Keys that bot-bottle once had, and what took their place.
const MOVED: &[(&str, &str)] = &[
    ("git", "repositories are under `git-gate: {repos: …}`"),
    ("ssh", "repositories are under `git-gate: {repos: …}`"),
    (
        "tokens",
        "credentials are under `egress: {routes: [{auth: {token_ref: …}}]}`",
    ),
    (
        "cred_proxy",
        "credentials are under `egress: {routes: [{auth: {token_ref: …}}]}`",
    ),
    (
        "allowlist",
        "destinations are under `egress: {routes: [{host: …}]}`",
    ),
    (
        "path_allowlist",
        "paths are under `egress: {routes: [{matches: [{paths: …}]}]}`",
    ),
    (
        "pipelock",
        "it is gone: TLS is inspected unless a route says `tls: passthrough`",
    ),
    ("role", "routes have no roles: remove the key"),
    (
        "identity",
        "the key is under `key: {provider: static, path: …}`",
    ),
    (
        "provisioned_key",
        "the key is under `key: {provider: gitea, forge_token_env: …}`",
    ),
    (
        "ExtraHosts",
        "names are not pinned: allow the host and, for a private address, `private: [CIDR]`",
    ),
];

/// The failure for a YAML error in `text`, which begins `skipped_lines` lines into the file at `path`.
pub(super) fn yaml_failure(
    path: &Path,
    text: &str,
    error: &serde_path_to_error::Error<serde_yaml::Error>,
) -> Failure {
    let inner = error.inner();
    let mut message = inner.to_string();
    // The position is given once, in front, in the form editors jump to.
    if let Some(at) = message.rfind(" at line ") {
        message.truncate(at);
    }
    let place = error.path().to_string();
    if place != "." && !place.contains('?') && !message.starts_with(&place) {
        message = format!("{place}: {message}");
    }
    let unknown = unknown_key(&message);
    let line = unknown
        .as_ref()
        .and_then(|(key, _)| line_of_key(text, key))
        .or_else(|| inner.location().map(|at| at.line()));
    let failure = Failure::invalid(at(path, line, &message));
    match unknown {
        Some((key, known)) => failure.hint(suggestion(&key, &known)),
        None if message.contains("expected a string") => {
            failure.hint("put the value in quotes: YAML reads it as a number or a truth value")
        }
        None => failure,
    }
}

/// `path:line: message`, the line left out when it is not known.
pub(super) fn at(path: &Path, line: Option<usize>, message: &str) -> String {
    match line {
        Some(line) => format!("{}:{line}: {message}", path.display()),
        None => format!("{}: {message}", path.display()),
    }
}

/// The first line of `text` on which `value` stands as a whole word.
pub(super) fn line_of(text: &str, value: &str) -> Option<usize> {
    let word = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '*' | '/');
    text.lines()
        .position(|line| line.split(|c| !word(c)).any(|token| token == value))
        .map(|index| index + 1)
}

fn line_of_key(text: &str, key: &str) -> Option<usize> {
    text.lines()
        .position(|line| {
            let line = line.trim_start_matches([' ', '-', '{', ',']);
            line.strip_prefix(key)
                .is_some_and(|rest| rest.trim_start().starts_with(':'))
        })
        .or_else(|| line_of(text, key).map(|line| line - 1))
        .map(|index| index + 1)
}

/// Serde says: unknown field `x`, expected one of `a`, `b` (or: expected `a`; or: there are no fields).
fn unknown_key(message: &str) -> Option<(String, Vec<String>)> {
    let rest = &message[message.find("unknown field `")? + "unknown field `".len()..];
    let (key, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).map(str::to_owned);
    Some((key.to_owned(), known.collect()))
}

fn suggestion(key: &str, known: &[String]) -> String {
    if let Some((_, instead)) = MOVED.iter().find(|(old, _)| *old == key) {
        return (*instead).to_owned();
    }
    let best = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(key, name), name))
        .min();
    match best {
        Some((distance, name)) if distance <= 2.max(name.len() / 3) => {
            format!("did you mean `{name}`?")
        }
        _ => format!("the keys here are: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serde_still_words_unknown_fields_the_way_we_read_them() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code)]
        struct Two {
            egress: u8,
            image: u8,
        }
        let text = "egres: 1\nimage: 2\n";
        let error =
            serde_path_to_error::deserialize::<_, Two>(serde_yaml::Deserializer::from_str(text))
                .expect_err("unknown key");
        let failure = yaml_failure(Path::new("m.yaml"), text, &error);
        assert!(
            failure.chain().starts_with("m.yaml:1: "),
            "{}",
            failure.chain()
        );
        assert_eq!(failure.hint_text(), Some("did you mean `egress`?"));
    }

    #[test]
    fn keys_of_the_past_say_where_they_went() {
        assert!(suggestion("role", &["host".into()]).contains("no roles"));
        assert!(suggestion("zzz", &["host".into()]).contains("host"));
    }
}
