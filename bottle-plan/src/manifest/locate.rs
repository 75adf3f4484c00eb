//! Turns what the YAML reader says into `file:line: message` with a suggestion.

use std::path::Path;

use super::kinds;
use crate::failure::Failure;
use crate::plan::Source;

/// What to read when nothing nearer can be said of the file at `path`.
fn all_keys(path: &Path) -> String {
    let (page, schema) = match path.file_name().is_some_and(|name| name == "provider.yaml") {
        true => ("providers", "provider"),
        false => ("manifest", "bottle"),
    };
    format!("docs/{page}.md has every key; `bottle-plan schema {schema}` prints them for an editor")
}

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
    let twice = named(&message, "duplicate field `").map(|(key, _)| key);
    let line = match (&unknown, &twice) {
        (Some((key, _)), _) => line_of_key(text, key),
        (None, Some(key)) => last_line_of_key(text, key),
        (None, None) => None,
    }
    .or_else(|| inner.location().map(|at| at.line()));
    let hint = if let Some((key, known)) = unknown {
        suggestion(&key, &known)
    } else if let Some((value, known)) = named(&message, "unknown variant `") {
        other_value(&place, &value, &known).unwrap_or_else(|| all_keys(path))
    } else if twice.is_some() {
        "a key is written once: keep one of them".to_owned()
    } else {
        kinds::hint(&place, &message).unwrap_or_else(|| all_keys(path))
    };
    Failure::invalid(at(path, line, &kinds::in_plain_words(&message))).hint(hint)
}

/// `path:line: message`, the line left out when it is not known.
pub(super) fn at(path: &Path, line: Option<usize>, message: &str) -> String {
    match line {
        Some(line) => format!("{}:{line}: {message}", path.display()),
        None => format!("{}: {message}", path.display()),
    }
}

/// The first line of `text` on which `value` stands as a whole word, or else at all.
pub(super) fn line_of(text: &str, value: &str) -> Option<usize> {
    let word = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '*' | '/');
    text.lines()
        .position(|line| line.split(|c| !word(c)).any(|token| token == value))
        .or_else(|| text.lines().position(|line| line.contains(value)))
        .map(|index| index + 1)
}

/// The failure of a manifest that can be read and makes no plan, with the file in front of its message, and the line of
/// the key that the message begins with. `sources` are the files that were read, children before parents.
pub(crate) fn placed(failure: Failure, sources: &[Source]) -> Failure {
    let message = failure.chain();
    match place(&message, sources) {
        Some(place) => failure.in_front(&place),
        None => failure,
    }
}

fn place(message: &str, sources: &[Source]) -> Option<String> {
    let front = message.split([':', ' ']).next().unwrap_or_default();
    let keys: Vec<&str> = front.split('.').map(|key| key.trim_matches('`')).collect();
    let found = sources.iter().find_map(|source| {
        // A route brings its line and the name of its file; the folder is missing.
        if source.path.file_name().is_some_and(|name| name == front) {
            return source
                .path
                .parent()
                .map(|folder| format!("{}/", folder.display()));
        }
        let text = std::fs::read_to_string(&source.path).ok()?;
        line_of_path(&text, &keys).map(|line| at(&source.path, Some(line), ""))
    });
    let whole = || sources.iter().find(|source| source.role != "agent");
    found.or_else(|| match message.starts_with("bottle `") {
        true => whole().map(|source| at(&source.path, None, "")),
        false => None,
    })
}

/// The line of the last of `keys`, each looked for below the one before.
fn line_of_path(text: &str, keys: &[&str]) -> Option<usize> {
    let mut above = 0;
    for key in keys {
        // On the same line too: `resources: {memory: 1k}`.
        above += text
            .lines()
            .skip(above)
            .position(|line| has_key(line, key))?;
    }
    Some(above + 1)
}

fn has_key(line: &str, key: &str) -> bool {
    let word = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    let code = line.split(" #").next().unwrap_or_default();
    !code.trim_start().starts_with('#')
        && code.match_indices(key).any(|(start, _)| {
            let (before, after) = (&code[..start], &code[start + key.len()..]);
            !before.ends_with(word) && after.trim_start_matches(['"', '\'', ' ']).starts_with(':')
        })
}

fn last_line_of_key(text: &str, key: &str) -> Option<usize> {
    let last = text
        .lines()
        .enumerate()
        .filter(|(_, line)| has_key(line, key))
        .last();
    last.map(|(index, _)| index + 1)
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

/// `did you mean …`, from what a reader says of an unknown key or value in a document of ours.
#[must_use]
pub fn meant(message: &str) -> Option<String> {
    let (given, known) =
        named(message, "unknown field `").or_else(|| named(message, "unknown variant `"))?;
    close_one(&given, &known)
}

fn suggestion(key: &str, known: &[String]) -> String {
    if let Some((_, instead)) = MOVED.iter().find(|(old, _)| *old == key) {
        return (*instead).to_owned();
    }
    let knows = |name: &str| known.iter().any(|known| known == name);
    if knows("bottle") && knows("agent") {
        return "with --manifest, what a bottle says stands below `bottle:`; or put the file into bottles/ and plan it by name"
            .to_owned();
    }
    if knows("extends") && matches!(key, "bottle" | "agent") {
        return "`bottle:` and `agent:` are for one file given with --manifest; here its keys stand by themselves".to_owned();
    }
    if knows("matches") && matches!(key, "method" | "methods" | "path" | "paths" | "headers") {
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
    if distance <= 2.max(name.len() / 3) {
        return Some(format!("did you mean `{name}`?"));
    }
    // `mem` and `token` are nearer to `pids` and `user` than to what they begin.
    let mut longer = known
        .iter()
        .filter(|name| given.len() > 2 && name.starts_with(given));
    match (longer.next(), longer.next()) {
        (Some(name), None) => Some(format!("did you mean `{name}`?")),
        _ => None,
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
        let single = ["schema", "bottle", "agent"].map(str::to_owned);
        assert!(suggestion("image", &single).contains("below `bottle:`"));
        let bottle = ["extends", "image"].map(str::to_owned);
        assert!(suggestion("bottle", &bottle).contains("--manifest"));
    }

    #[test]
    fn the_beginning_of_a_key_is_enough_where_it_is_the_only_one() {
        let keys = ["memory", "cpus", "pids", "disk"].map(str::to_owned);
        assert_eq!(suggestion("mem", &keys), "did you mean `memory`?");
        let keys = ["scheme", "header", "token_ref", "user"].map(str::to_owned);
        assert_eq!(suggestion("token", &keys), "did you mean `token_ref`?");
    }

    #[test]
    fn a_key_has_its_line_also_within_braces_and_not_in_a_comment() {
        let text = "# resources: none\nimage: x\nresources: {cpus: 1, memory: 1k}\nenv:\n  memory: a\n  'A-B': c\n";
        assert_eq!(line_of_path(text, &["resources", "memory"]), Some(3));
        assert_eq!(line_of_path(text, &["env", "memory"]), Some(5));
        assert_eq!(line_of_path(text, &["env", "A-B"]), Some(6));
        assert_eq!(line_of_path(text, &["resources", "pids"]), None);
        assert_eq!(line_of_path(text, &["cannot"]), None);
        assert_eq!(last_line_of_key(text, "memory"), Some(5));
    }
}
