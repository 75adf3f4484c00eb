//! A command line that could not be read, told as all other failures are: what the parser says, in our words.

use crate::failure::Failure;

/// What people type who know docker's command line, and what it is called here.
const ELSEWHERE: &[(&str, &str)] = &[
    ("start", "up"),
    ("stop", "down"),
    ("rm", "down"),
    ("kill", "down"),
    ("ps", "list"),
    ("shell", "attach"),
];

/// `text` is what the parser said.
pub(super) fn failure(tool: &str, text: &str) -> Failure {
    let text = text.trim().trim_start_matches("error: ");
    let (message, rest) = text.split_once("\n\n").unwrap_or((text, ""));
    // One line, with names in backticks as everywhere.
    let words: Vec<&str> = message.split_whitespace().collect();
    let message = words.join(" ").replace('\'', "`");
    if message.contains("requires a subcommand") {
        return Failure::invalid("a command is missing").hint(format!("{tool} --help lists them"));
    }
    let failure = Failure::invalid(&*message);
    let tip = rest
        .lines()
        .find_map(|line| line.trim().strip_prefix("tip: "));
    let usage = rest.lines().find(|line| line.starts_with("Usage: "));
    if let Some(hint) = instead(tool, &message, usage) {
        return failure.hint(hint);
    }
    match (tip, usage) {
        (Some(tip), _) => failure.hint(meant(tip)),
        // What the environment gives is not asked for.
        (None, Some(usage)) => failure.hint(usage.replace(" --home <DIR>", "")),
        (None, None) => failure.hint(format!("{tool} --help shows what there is")),
    }
}

/// What was meant by a word that is well known, elsewhere or as a file.
fn instead(tool: &str, message: &str, usage: Option<&str>) -> Option<String> {
    if let Some(word) = message.strip_prefix("unrecognized subcommand ") {
        let word = word.trim_matches('`');
        // The filters read their document from stdin; other programs are given its name.
        if matches!(tool, "bottle-ca" | "bottle-render") && word.contains(['.', '/']) {
            return Some(format!("a plan comes on stdin: {tool} < {word}"));
        }
        let known = ELSEWHERE.iter().find(|(theirs, _)| *theirs == word);
        return known
            .filter(|_| tool == "bottle-run")
            .map(|(_, ours)| format!("here it is called `{tool} {ours}`"));
    }
    let word = message
        .strip_prefix("unexpected argument `")?
        .strip_suffix("` found")?;
    let is_start = ["up", "run"].iter().any(|command| {
        usage.is_some_and(|usage| usage.starts_with(&format!("Usage: bottle-run {command} ")))
    });
    let is_file = is_start && !word.starts_with('-') && word.contains(['.', '/']);
    is_file.then(|| format!("a file is given with a flag: --file {word}"))
}

/// `a similar argument exists: '--slug'`, as we ask it; other tips stay as they are.
fn meant(tip: &str) -> String {
    let Some((_, names)) = tip
        .split_once(": ")
        .filter(|(front, _)| front.contains("similar"))
    else {
        return tip.replace('\'', "`");
    };
    // A command that is in no help is not offered.
    let names: Vec<String> = names
        .split(", ")
        .map(|name| name.replace('\'', "`"))
        .filter(|name| name != "`man`")
        .collect();
    format!("did you mean {}?", names.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(tool: &str, text: &str) -> (String, String) {
        let failure = failure(tool, text);
        let hint = failure.hint_text().unwrap_or_default().to_owned();
        (failure.chain(), hint)
    }

    #[test]
    fn what_the_parser_says_is_one_line_and_a_hint() {
        let missing = "error: the following required arguments were not provided:\n  <OLD>\n  <NEW>\n\n\
            Usage: bottle-plan diff --home <DIR> <OLD> <NEW>\n\nFor more information, try '--help'.\n";
        assert_eq!(
            said("bottle-plan", missing),
            (
                "the following required arguments were not provided: <OLD> <NEW>".to_owned(),
                "Usage: bottle-plan diff <OLD> <NEW>".to_owned()
            )
        );
        let flag = "error: unexpected argument '--slgu' found\n\n  tip: a similar argument exists: '--slug'\n\nUsage: x\n";
        assert_eq!(
            said("bottle-plan", flag),
            (
                "unexpected argument `--slgu` found".to_owned(),
                "did you mean `--slug`?".to_owned()
            )
        );
        let command = "error: unrecognized subcommand 'mnit'\n\n  tip: some similar subcommands exist: 'man', 'mint'\n";
        assert_eq!(said("bottle-ca", command).1, "did you mean `mint`?");
    }

    #[test]
    fn what_is_known_elsewhere_is_told_as_it_is_here() {
        let usage = "\n\nUsage: bottle-run up [OPTIONS]\n";
        let hint = |tool, text: &str| said(tool, &format!("error: {text}{usage}")).1;
        assert_eq!(
            hint("bottle-render", "unrecognized subcommand 'plan.json'"),
            "a plan comes on stdin: bottle-render < plan.json"
        );
        assert_eq!(
            hint("bottle-run", "unrecognized subcommand 'ps'"),
            "here it is called `bottle-run list`"
        );
        assert_eq!(
            hint("bottle-run", "unexpected argument 'x.yml' found"),
            "a file is given with a flag: --file x.yml"
        );
        assert!(hint("bottle-run", "unexpected argument 'x' found").starts_with("Usage: "));
    }
}
