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

/// What is looked for under `runtime` by those who have had it elsewhere: a part of its name, and what to do here.
const RUNTIMES: &[(&str, &str)] = &[
    ("macos", ON_A_MAC),
    ("apple", ON_A_MAC),
    ("smol", A_MACHINE_OF_ITS_OWN),
    ("krun", A_MACHINE_OF_ITS_OWN),
    ("firecracker", A_MACHINE_OF_ITS_OWN),
    ("gvisor", "gVisor is called `runsc`"),
    ("docker", "the engine is always Docker: remove the key"),
];

const ON_A_MAC: &str = "bottles run on Linux alone: on a Mac, run the tools inside a Linux virtual machine with Docker in it, \
     and remove the key";

const A_MACHINE_OF_ITS_OWN: &str =
    "`runtime: kata` is a virtual machine for the agent, where the engine has Kata Containers";

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
    // Part of the place may be in front already.
    let is_placed = message
        .split_once(": ")
        .is_some_and(|(front, _)| place.starts_with(front));
    if place != "." && !place.contains('?') && !is_placed {
        message = format!("{place}: {message}");
    }
    let unknown = named(&message, "unknown field `");
    let line = unknown
        .as_ref()
        .and_then(|(key, _)| line_of_key(text, key))
        .or_else(|| inner.location().map(|at| at.line()));
    let hint = if let Some((key, known)) = unknown {
        Some(suggestion(&key, &known))
    } else if let Some((value, known)) = named(&message, "unknown variant `") {
        other_value(&place, &value, &known)
    } else if message.contains("expected a string") {
        Some("put the value in quotes: YAML reads it as a number or a truth value".to_owned())
    } else {
        None
    };
    let failure = Failure::invalid(at(path, line, &message));
    match hint {
        Some(hint) => failure.hint(hint),
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

/// Serde says: unknown field `x`, expected one of `a`, `b` (or: expected `a`; or: there are no fields), and the same of a
/// variant. `before` is what stands before `x`.
fn named(message: &str, before: &str) -> Option<(String, Vec<String>)> {
    let rest = &message[message.find(before)? + before.len()..];
    let (name, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).map(str::to_owned);
    Some((name.to_owned(), known.collect()))
}

fn suggestion(key: &str, known: &[String]) -> String {
    if let Some((_, instead)) = MOVED.iter().find(|(old, _)| *old == key) {
        return (*instead).to_owned();
    }
    let is_route = known.iter().any(|name| name == "matches");
    if is_route && matches!(key, "method" | "methods" | "path" | "paths" | "headers") {
        return "what a route allows is a list of rules: `matches: [{methods: [GET], paths: [/v1/]}]`".to_owned();
    }
    close_one(key, known).unwrap_or_else(|| format!("the keys here are: {}", known.join(", ")))
}

/// The message names all values there are already.
fn other_value(place: &str, value: &str, known: &[String]) -> Option<String> {
    let value = value.to_ascii_lowercase();
    // Of a value that is none, the path ends with a question mark.
    let key = place.trim_end_matches(".?").rsplit('.').next();
    let is_runtime = key == Some("runtime");
    let instead = RUNTIMES
        .iter()
        .find(|(part, _)| is_runtime && value.contains(part));
    match instead {
        Some((_, instead)) => Some((*instead).to_owned()),
        None => close_one(&value, known),
    }
}

fn close_one(given: &str, known: &[String]) -> Option<String> {
    let (distance, name) = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(given, name), name))
        .min()?;
    (distance <= 2.max(name.len() / 3)).then(|| format!("did you mean `{name}`?"))
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
    fn a_runtime_of_another_system_says_what_to_do_here() {
        let known = ["auto", "runc", "runsc", "kata"].map(str::to_owned);
        let hint = |place, value| other_value(place, value, &known).unwrap_or_default();
        assert!(hint("runtime", "macos-container").contains("Linux virtual machine"));
        assert!(hint("bottle.runtime.?", "smolmachines").contains("`runtime: kata`"));
        assert_eq!(hint("runtime", "gVisor"), "gVisor is called `runsc`");
        assert_eq!(hint("runtime", "runcs"), "did you mean `runc`?");
        assert_eq!(hint("isolation", "macos"), "");
    }

    #[test]
    fn keys_of_the_past_say_where_they_went() {
        assert!(suggestion("role", &["host".into()]).contains("no roles"));
        assert!(suggestion("zzz", &["host".into()]).contains("host"));
        let route = ["host", "matches"].map(str::to_owned);
        assert!(suggestion("methods", &route).contains("matches: [{methods: [GET]"));
        assert!(!suggestion("methods", &["host".into()]).contains("matches"));
    }
}
