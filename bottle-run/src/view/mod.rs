//! `bottle-run watch`: what agents ask, what they were granted and what they do, over all bottles, on one screen.
//!
//! It needs 80 columns and 24 lines and no colour. Everything on it is read from the state folders; the engine is asked
//! beside it, so that a slow one keeps nobody waiting.
//!
//! * `model`: what is known, read anew several times a second
//! * `draw`: how it looks; a pure function of the model
//! * this file: keys and the terminal

mod draw;
mod model;

use std::io::IsTerminal as _;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use bottle_plan::failure::{Failure, Result};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::ask::{self, Approval, Limits};
use crate::bottle::Home;
use crate::engine::Engine;
use crate::list::{self, Entry, Status};
use crate::work::{self, DiffRequest, Shown};
use model::{Model, Page};

/// How often the folders are read.
const LOOK: Duration = Duration::from_millis(250);
/// How often the engine is asked.
const ASK_ENGINE: Duration = Duration::from_secs(3);
/// Lines of a difference that are kept; more is nothing to read on this screen.
const MOST_LINES: usize = 10_000;
/// How far a page goes.
const SCREEN: isize = 20;
/// How long a grant lasts that was given with one key.
const USUAL_SECONDS: u64 = 600;

/// Shows it until `q` is pressed.
///
/// # Errors
/// Invalid, when there is no terminal; failed, when it cannot be used.
pub fn watch(engine: &Engine, home: &Home, by: &str) -> Result<()> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::invalid("watch needs a terminal")
            .hint("bottle-run requests --follow --json is for programs"));
    }
    let states = ask_engine(engine.clone(), home.clone());
    let mut terminal = ratatui::try_init()
        .map_err(|error| Failure::failed("cannot use the terminal").because(error))?;
    let shown = run(&mut terminal, engine, home, by, &states);
    ratatui::restore();
    shown.map_err(|error| Failure::failed("the terminal is gone").because(error))
}

fn run(
    terminal: &mut DefaultTerminal,
    engine: &Engine,
    home: &Home,
    by: &str,
    states: &Receiver<Vec<(String, Status)>>,
) -> std::io::Result<()> {
    let mut model = Model::default();
    loop {
        if let Some(newest) = states.try_iter().last() {
            model.set_states(newest);
        }
        model.read(&home.state);
        terminal.draw(|frame| draw::draw(frame, &model))?;
        let until = Instant::now() + LOOK;
        while event::poll(until.saturating_duration_since(Instant::now()))? {
            if let Event::Key(key) = event::read()?
                && key.kind == KeyEventKind::Press
                && press(&mut model, home, by, key)
            {
                return Ok(());
            }
            if let Some(slug) = model.wanted.take() {
                model.said = format!("{slug} is asked for its work");
                terminal.draw(|frame| draw::draw(frame, &model))?;
                show_work(&mut model, engine, home, &slug);
            }
            terminal.draw(|frame| draw::draw(frame, &model))?;
        }
    }
}

/// Asks again and again, until nobody listens.
fn ask_engine(engine: Engine, home: Home) -> Receiver<Vec<(String, Status)>> {
    let (send, states) = mpsc::channel();
    thread::spawn(move || {
        loop {
            let found = list::list(&engine, &home)
                .map(|list| list.bottles)
                .unwrap_or_default();
            for entry in &found {
                pause_exposed(&engine, entry);
            }
            let found = found.into_iter().map(|entry| (entry.slug, entry.status));
            if send.send(found.collect()).is_err() {
                return;
            }
            thread::sleep(ASK_ENGINE);
        }
    });
    states
}

/// Stops an agent that somebody gave another way out, until the operator has looked at it: `down` works on it as on any.
fn pause_exposed(engine: &Engine, entry: &Entry) {
    let runs = |status: &String| status.starts_with("Up") && !status.contains("(Paused)");
    if entry.status == Status::Exposed && entry.containers.get("agent").is_some_and(runs) {
        let agent = format!("bottle-{}-agent", entry.slug);
        // It may have ended in the meantime; the next look says so.
        let _ = engine.call(["pause", "--", &agent]).output();
    }
}

/// Does what a key says; true when it says to end.
fn press(model: &mut Model, home: &Home, by: &str, key: KeyEvent) -> bool {
    let ends = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
    if ends {
        return true;
    }
    match (&model.page, key.code) {
        (Page::All, KeyCode::Char('q')) => return true,
        (_, KeyCode::Esc | KeyCode::Char('q' | 'n')) => model.page = Page::All,
        (Page::Diff, KeyCode::Down | KeyCode::Char('j')) => model.scroll_by(1),
        (Page::Diff, KeyCode::Up | KeyCode::Char('k')) => model.scroll_by(-1),
        (Page::Diff, KeyCode::PageDown | KeyCode::Char(' ')) => model.scroll_by(SCREEN),
        (Page::Diff, KeyCode::PageUp) => model.scroll_by(-SCREEN),
        (_, KeyCode::Down | KeyCode::Char('j')) => model.move_by(1),
        (_, KeyCode::Up | KeyCode::Char('k')) => model.move_by(-1),
        (Page::All, KeyCode::Enter | KeyCode::Char('o')) => model.open(Page::Request),
        (Page::All | Page::Request, KeyCode::Char('a')) => model.open(Page::Approve { uses: None }),
        (Page::All | Page::Request, KeyCode::Char('1')) => {
            model.open(Page::Approve { uses: Some(1) });
        }
        (Page::All | Page::Request, KeyCode::Char('d')) => model.open(Page::Deny),
        (Page::All | Page::Request, KeyCode::Char('v')) => show_change(model, home),
        (Page::All | Page::Request, KeyCode::Char('w')) => model.wanted = model.chosen_bottle(),
        (Page::Approve { uses }, KeyCode::Char('y')) => {
            let uses = *uses;
            decide(model, |asked| approve(home, asked, uses, by));
        }
        (Page::Deny, KeyCode::Char('y')) => decide(model, |asked| {
            let (id, expect) = (&asked.request.id, Some(asked.sha256.as_str()));
            ask::deny(&home.state, id, expect, None, by).map(|decision| decision.words)
        }),
        _ => {}
    }
    false
}

/// What the request would change in the policy.
fn show_change(model: &mut Model, home: &Home) {
    model.open(Page::Request);
    let Some(asked) = &model.opened else {
        return;
    };
    let of = format!("{}: what it would change", asked.request.id);
    match ask::policy_diff(&home.state, asked) {
        Ok(text) => model.show_diff(of, text.lines().map(str::to_owned).collect()),
        Err(failure) => model.show_diff(of, vec![ask::escaped(&failure.chain())]),
    }
}

/// What the agent of a bottle has changed in its workspace.
fn show_work(model: &mut Model, engine: &Engine, home: &Home, slug: &str) {
    let mut lines = Vec::new();
    let request = DiffRequest {
        paths: &[],
        stat: false,
        committed: false,
        shown: Shown::Terminal { colour: false },
    };
    let mut more = 0;
    let mut keep = |line: &[u8]| {
        if lines.len() < MOST_LINES {
            lines.push(
                String::from_utf8_lossy(line)
                    .trim_end()
                    .replace('\t', "    "),
            );
        } else {
            more += 1;
        }
        Ok(())
    };
    let fetched = home
        .plan(slug)
        .and_then(|plan| work::diff(engine, &plan, &request, &|_| {}, &mut keep));
    match fetched {
        Err(failure) => lines = vec![ask::escaped(&failure.chain())],
        Ok(()) if lines.is_empty() => lines.push("It has changed nothing.".to_owned()),
        Ok(()) if more > 0 => lines.push(format!("{more} more lines: bottle-run diff {slug}")),
        Ok(()) => {}
    }
    model.said.clear();
    model.show_diff(format!("{slug}: its work"), lines);
}

/// Decides what is on the screen, which may be another request than a moment ago in the file.
fn decide(model: &mut Model, action: impl FnOnce(&ask::Asked) -> Result<String>) {
    if let Some(asked) = model.opened.clone() {
        model.said = match action(&asked) {
            Ok(words) => words,
            Err(failure) => ask::escaped(&failure.chain()),
        };
    }
    model.page = Page::All;
}

fn approve(home: &Home, asked: &ask::Asked, uses: Option<u64>, by: &str) -> Result<String> {
    let approval = Approval {
        limits: Limits {
            seconds: Some(USUAL_SECONDS),
            uses,
        },
        credential: false,
        note: None,
        by,
        edit: &Ok,
    };
    let expect = Some(asked.sha256.as_str());
    ask::approve(&home.state, &asked.request.id, expect, &approval).map(|decision| decision.words)
}
