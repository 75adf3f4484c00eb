//! git-gate and supervise, compared by what the agent can push and ask.

use serde_json::Value;

use super::{Change, Changes, Effect};

/// `old` and `new` are what the digests are made of.
pub(super) fn changes(old: &Value, new: &Value) -> Vec<Change> {
    let mut git = Changes::of("git");
    git.sets(&pushes(old), &pushes(new));
    let mut supervise = Changes::of("supervise");
    match (old["supervise"].is_null(), new["supervise"].is_null()) {
        (true, false) => supervise.add(Effect::Gains, "asking the operator for more"),
        (false, true) => supervise.add(Effect::Loses, "asking the operator for more"),
        _ => {}
    }
    [git.list, supervise.list].concat()
}

/// One text a repository and ref.
fn pushes(plan: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let mut pushes = Vec::new();
    for repo in list(&plan["git_gate"]["repos"]) {
        let place = format!("{} ({})", text(&repo["name"]), text(&repo["url"]));
        pushes.push(format!("git fetch from {place}, through git-gate"));
        let seen = if repo["push"]["review"] == true {
            " and after the operator has looked"
        } else {
            ""
        };
        for reference in list(&repo["refs"]) {
            let reference = text(&reference);
            pushes.push(format!(
                "git push to {reference} of {place}, through git-gate{seen}"
            ));
        }
    }
    pushes
}
