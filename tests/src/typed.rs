//! Commands of ours as somebody types them, wherever they are written: whether they exist, and their flags.

use std::collections::BTreeMap;

use crate::run::Call;
use crate::tools;

const TOOLS: [&str; 5] = [
    "bottle-plan",
    "bottle-ca",
    "bottle-render",
    "bottle-run",
    "bottle-snapshot",
];

/// The calls of our tools in a line, as words: each ends where the shell begins another command, or its quotation.
#[must_use]
pub fn calls(line: &str) -> Vec<Vec<String>> {
    let mut calls: Vec<Vec<String>> = Vec::new();
    let mut open = false;
    let apart = line
        .replace("\\|", "|")
        .replace('`', " ` ")
        .replace(';', " ; ")
        .replace(')', " ) ");
    for word in apart.split_whitespace() {
        let ends = matches!(
            word,
            "|" | "||" | "&&" | ";" | "&" | "`" | ")" | ">" | "<" | "--" | "#" | "\\"
        );
        let ends = ends || word.contains("$(");
        let word = word
            .trim_start_matches('"')
            .trim_start_matches("$(")
            .trim_start_matches('(');
        if TOOLS.contains(&word) {
            calls.push(vec![word.to_owned()]);
            open = true;
        } else if ends {
            open = false;
        } else if open && let Some(call) = calls.last_mut() {
            call.push(word.to_owned());
        }
    }
    calls
}

/// The help of each command, asked for once.
#[derive(Debug, Default)]
pub struct Helps(BTreeMap<Vec<String>, String>);

impl Helps {
    fn of(&mut self, path: &[String]) -> &str {
        self.0.entry(path.to_vec()).or_insert_with(|| {
            let call = Call::new(tools::tool(&path[0]));
            let words = path[1..].iter().map(String::as_str);
            call.args(words).args(["--help"]).run().stdout
        })
    }

    /// Why a call cannot be typed so, if it cannot.
    #[must_use]
    pub fn unknown(&mut self, call: &[String]) -> Option<String> {
        let mut path = vec![call[0].clone()];
        for word in &call[1..] {
            let help = self.of(&path);
            let commands = help.split("Commands:\n").nth(1).unwrap_or_default();
            let commands = commands.split("\n\n").next().unwrap_or_default();
            let mut names = commands
                .lines()
                .filter_map(|line| line.split_whitespace().next());
            if names.any(|name| name == word) {
                path.push(word.clone());
            }
        }
        let help = self.of(&path);
        call[1..].iter().find_map(|word| {
            let flag = word.split('=').next().unwrap_or_default();
            let flag = flag.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            let name = flag.trim_start_matches('-');
            let is_flag = flag != name && name.starts_with(|c: char| c.is_ascii_alphabetic());
            let known = help
                .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
                .any(|word| word == flag);
            (is_flag && !known).then(|| format!("{} has no {flag}", path.join(" ")))
        })
    }
}
