//! The table of docs/attacks.md names tests that are there, and every attack is in it.

// The lint knows tests by their attribute, and helpers have none.
#![allow(clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The rows as `(number, file, test)`.
fn rows(table: &str) -> Vec<(String, PathBuf, String)> {
    let cells = table.lines().filter_map(|line| line.strip_prefix("| "));
    let cells = cells.map(|line| line.split(" | ").map(str::to_owned).collect::<Vec<_>>());
    cells
        .filter(|cells| cells[0].parse::<u32>().is_ok())
        .map(|cells| {
            let test = cells[2].trim_matches('`');
            let (file, name) = test.split_once("::").expect("file::test");
            let file = if file.contains('/') {
                root().join(file)
            } else {
                root().join("tests/tests/attacks").join(file)
            };
            (cells[0].clone(), file, name.to_owned())
        })
        .collect()
}

#[test]
fn every_row_names_a_test_that_is_there() {
    let table = fs::read_to_string(root().join("docs/attacks.md")).expect("the table");
    let rows = rows(&table);
    assert!(rows.len() > 50, "{} rows", rows.len());
    for (number, file, name) in &rows {
        let text = fs::read_to_string(file).unwrap_or_default();
        assert!(
            text.contains(&format!("fn {name}(")),
            "row {number}: no {name} in {}",
            file.display()
        );
        if name.starts_with("row_") {
            assert!(
                name.starts_with(&format!("row_{number}_")),
                "row {number}: {name}"
            );
        }
    }
    let suite = root().join("tests/tests/attacks/main.rs");
    let suite = fs::read_to_string(suite).expect("the suite");
    for line in suite.lines().map(str::trim) {
        let case = line
            .strip_suffix(',')
            .and_then(|line| line.split_once("::row_"));
        if let Some((_, rest)) = case {
            let name = format!("row_{rest}");
            assert!(
                rows.iter().any(|(.., test)| *test == name),
                "{name} is not in the table"
            );
        }
    }
}
