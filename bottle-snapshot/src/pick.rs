//! Asking which bottle is meant, at the terminal: stdin and stdout may be anything.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Write as _};

use bottle_plan::failure::{Failure, Result};
use bottle_run::bottle::Home;
use bottle_run::containers::{self, Labels};
use bottle_run::engine::Engine;

/// Wrong answers that are asked about again.
const TRIES: usize = 3;

/// The running bottle the user chooses.
///
/// # Errors
/// Invalid, with the names there are, when there is no terminal to ask on or no answer; not found, when nothing runs.
pub fn bottle(engine: &Engine, home: &Home) -> Result<String> {
    let running = running(engine, home)?;
    if running.is_empty() {
        return Err(Failure::not_found("no bottle is running")
            .hint("start one: bottle-plan NAME | bottle-render | bottle-run up"));
    }
    let unnamed = || {
        Failure::invalid("no bottle is named").hint(format!(
            "bottle-snapshot commit SLUG; there are: {}",
            running.join(", ")
        ))
    };
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty");
    let mut terminal = terminal.map_err(|_| unnamed())?;
    let mut answers = BufReader::new(terminal.try_clone().map_err(|_| unnamed())?);
    for (number, slug) in running.iter().enumerate() {
        writeln!(terminal, "  {}  {slug}", number + 1).map_err(|_| unnamed())?;
    }
    for _ in 0..TRIES {
        write!(terminal, "freeze which bottle? [1-{}] ", running.len()).map_err(|_| unnamed())?;
        let mut answer = String::new();
        if answers.read_line(&mut answer).map_err(|_| unnamed())? == 0 {
            break;
        }
        if let Some(slug) = chosen(answer.trim(), &running) {
            return Ok(slug.clone());
        }
    }
    Err(unnamed())
}

/// By number or by name.
fn chosen<'a>(answer: &str, running: &'a [String]) -> Option<&'a String> {
    let by_number = answer.parse::<usize>().ok();
    by_number
        .and_then(|number| running.get(number.checked_sub(1)?))
        .or_else(|| running.iter().find(|slug| *slug == answer))
}

fn running(engine: &Engine, home: &Home) -> Result<Vec<String>> {
    let found = containers::list(engine, &Labels::of_home(&home.label))?;
    let mut slugs: Vec<String> = found
        .iter()
        .filter(|one| one.role() == "agent" && matches!(one.state.as_str(), "running" | "paused"))
        .map(|one| one.slug().to_owned())
        .collect();
    slugs.sort();
    Ok(slugs)
}

#[cfg(test)]
mod tests {
    use super::chosen;

    #[test]
    fn a_number_or_a_name() {
        let running = ["a".to_owned(), "b".to_owned()];
        assert_eq!(chosen("2", &running).map(String::as_str), Some("b"));
        assert_eq!(chosen("a", &running).map(String::as_str), Some("a"));
        assert_eq!(
            (
                chosen("0", &running),
                chosen("3", &running),
                chosen("", &running)
            ),
            (None, None, None)
        );
    }
}
