//! How it looks.

use bottle_plan::audit::Left;
use bottle_plan::request::Ask;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Paragraph, Wrap};

use super::model::{Model, Page};
use crate::ask::{self, Asked, escaped};

/// Draws the page that is open.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let [main, foot] =
        Layout::vertical([Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
    match (model.page, &model.opened) {
        (Page::Diff, _) => draw_diff(frame, model, main),
        (Page::All, _) | (_, None) => draw_all(frame, model, main),
        (page, Some(asked)) => draw_request(frame, page, asked, main),
    }
    let keys = match model.page {
        Page::All if !model.said.is_empty() => model.said.as_str(),
        Page::All => {
            "j/k move  enter open  a approve 10m  1 once  d deny  v change  w work  q quit"
        }
        Page::Request => "a approve 10m  1 once  d deny  v change  w work  esc back",
        Page::Diff => "j/k move  space next page  esc back",
        Page::Approve { .. } | Page::Deny => "y yes  n no",
    };
    frame.render_widget(
        Paragraph::new(keys).style(Style::new().add_modifier(Modifier::REVERSED)),
        foot,
    );
}

fn draw_all(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let rows = |count: usize, most: usize| u16::try_from(count.clamp(1, most)).unwrap_or(1) + 1;
    let [requests, grants, bottles, traffic] = Layout::vertical([
        Constraint::Length(rows(model.requests.len(), 7)),
        Constraint::Length(rows(model.grants.len(), 4)),
        Constraint::Length(rows(model.bottles.len(), 4)),
        Constraint::Min(2),
    ])
    .areas(area);
    let lines = model.requests.iter().enumerate().map(|(at, asked)| {
        let line = Line::from(format!(
            "{} {}",
            if at == model.chosen { ">" } else { " " },
            request_line(asked)
        ));
        if at == model.chosen {
            line.style(Style::new().add_modifier(Modifier::BOLD))
        } else {
            line
        }
    });
    // The chosen one is always among those that fit.
    let first = model.chosen.saturating_sub(6);
    list(
        frame,
        requests,
        &format!("Requests: {} waiting", model.requests.len()),
        lines.skip(first),
        "nobody asks for anything",
    );
    let lines = model.grants.iter().map(|entry| {
        // What matters most stands where 80 columns show it.
        Line::from(format!(
            "  {} {}: {} may {}",
            entry.grant.id,
            entry.end,
            escaped(&entry.grant.bottle),
            entry.words
        ))
    });
    list(
        frame,
        grants,
        "Grants",
        lines,
        "nothing is granted beyond the plans",
    );
    let lines = model.bottles.iter().map(|bottle| {
        let left = bottle.left.map_or_else(String::new, in_words);
        Line::from(format!(
            "  {:20} {:8} {} allowed {} denied{left}",
            bottle.slug, bottle.state, bottle.allowed, bottle.denied
        ))
    });
    list(frame, bottles, "Bottles", lines, "there are none");
    let room = usize::from(traffic.height.saturating_sub(1));
    let first = model.traffic.len().saturating_sub(room);
    let lines = model
        .traffic
        .iter()
        .skip(first)
        .map(|line| Line::from(format!("  {} {} {}", line.time, line.slug, line.text)));
    list(frame, traffic, "Traffic", lines, "nothing yet");
}

/// What is left of a budget, short enough for the end of a line.
fn in_words(left: Left) -> String {
    let requests = left.requests.map(|left| format!(" {left} requests"));
    let bytes = left.bytes_out.map(|left| match left {
        0..10_000 => format!(" {left} B"),
        10_000..10_000_000 => format!(" {} kB", left / 1000),
        _ => format!(" {} MB", left / 1_000_000),
    });
    match (requests, bytes) {
        (None, None) => String::new(),
        (requests, bytes) => format!(
            ", left{}{}",
            requests.unwrap_or_default(),
            bytes.unwrap_or_default()
        ),
    }
}

fn list<'a>(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &str,
    lines: impl Iterator<Item = Line<'a>>,
    empty: &'a str,
) {
    let mut lines: Vec<Line<'_>> = lines.collect();
    if lines.is_empty() {
        lines.push(Line::from(format!("  {empty}")));
    }
    let block = Block::new()
        .borders(Borders::TOP)
        .title(format!(" {title} "));
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn request_line(asked: &Asked) -> String {
    let table = ask::requests_table(std::slice::from_ref(asked));
    table.lines().nth(1).unwrap_or_default().to_owned()
}

fn draw_request(frame: &mut Frame<'_>, page: Page, asked: &Asked, area: Rect) {
    let mut text = ask::request_page(asked);
    let question = matches!(asked.request.ask, Ask::Question { .. });
    match page {
        Page::Approve { .. } if question => {
            text.push_str(&format!(
                "\nA question is answered with: bottle-run answer {} TEXT\n",
                asked.request.id
            ));
        }
        Page::Approve { uses } => {
            let once = if uses.is_some() { ", once" } else { "" };
            text.push_str(&format!(
                "\nApprove? {} may then {} for 10 minutes{once}.\n",
                asked.slug, asked.words
            ));
        }
        Page::Deny => text.push_str(&format!("\nDeny it? {} is told no.\n", asked.slug)),
        Page::All | Page::Request | Page::Diff => {}
    }
    let block = Block::new()
        .borders(Borders::TOP)
        .title(format!(" {} ", asked.request.id));
    frame.render_widget(
        Paragraph::new(text).wrap(Wrap { trim: false }).block(block),
        area,
    );
}

fn draw_diff(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let (of, lines, above) = &model.diff;
    let room = usize::from(area.height.saturating_sub(1));
    let shown = lines.iter().skip(*above).take(room);
    let lines: Vec<Line<'_>> = shown.map(|line| Line::from(line.as_str())).collect();
    let block = Block::new().borders(Borders::TOP).title(format!(" {of} "));
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    #[test]
    fn an_empty_screen_says_so_at_80_by_24() {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("a terminal");
        terminal
            .draw(|frame| draw(frame, &Model::default()))
            .expect("drawn");
        let screen = terminal.backend().to_string();
        for text in [
            "Requests: 0 waiting",
            "nobody asks",
            "Grants",
            "Bottles",
            "Traffic",
            "q quit",
        ] {
            assert!(screen.contains(text), "{text}: {screen}");
        }
    }

    #[test]
    fn a_small_terminal_does_no_harm() {
        for (width, height) in [(1, 1), (10, 3), (20, 5)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
            terminal
                .draw(|frame| draw(frame, &Model::default()))
                .expect("drawn");
        }
    }
}
