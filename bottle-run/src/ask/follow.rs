//! `requests --follow`: one line for every request, and one more for what became of it.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use bottle_plan::failure::Result;
use bottle_plan::state::StateHome;
use bottle_plan::{failure::Failure, tool};

use super::{Asked, Status, requests, requests_table};

/// How often the folders are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Prints until it is interrupted or nobody reads any more. What is waiting at the beginning is printed; with `all` also
/// what is over.
///
/// # Errors
/// When stdout cannot be written to.
pub fn follow(home: &StateHome, all: bool, json: bool) -> Result<()> {
    let mut seen: HashMap<String, Status> = HashMap::new();
    let mut first = true;
    loop {
        for asked in requests(home, true) {
            let before = seen.insert(asked.request.id.clone(), asked.status);
            let is_news = before != Some(asked.status);
            let is_old = first && !all && asked.status != Status::Waiting;
            if is_news && !is_old && !emit(&asked, json)? {
                return Ok(());
            }
        }
        first = false;
        if crate::interrupt::signal().is_some() {
            return Ok(());
        }
        thread::sleep(LOOK);
    }
}

/// Whether anybody still reads.
fn emit(asked: &Asked, json: bool) -> Result<bool> {
    let text = if json {
        serde_json::to_string(asked)
            .map_err(|error| Failure::failed("cannot write a request as JSON").because(error))?
            + "\n"
    } else {
        let table = requests_table(std::slice::from_ref(asked));
        table
            .lines()
            .skip(1)
            .map(|line| format!("{line}\n"))
            .collect()
    };
    tool::emit_open(&text)
}
