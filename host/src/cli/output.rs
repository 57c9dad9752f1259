//! Printing: data to standard output, all else to standard error. A reader that went away is no error.

use super::Failed;
use super::screen::Screen;
use super::table::{Cell, Column, Table};
use serde_json::Value;
use std::io::{self, ErrorKind, IsTerminal, Write};

/// Lines for a person or a program, on standard output.
pub fn data(text: &str) -> Result<(), Failed> {
    written(text).map(drop)
}

/// The same; returns false if the reader is gone, after which nothing more need be made.
pub fn written(text: &str) -> Result<bool, Failed> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| match text.ends_with('\n') {
        true => out.flush(),
        false => out.write_all(b"\n").and_then(|()| out.flush()),
    });
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failed::usage(format!("failed to write to standard output: {error}")))
        }
        Err(_) => Ok(false),
        Ok(()) => Ok(true),
    }
}

/// JSON, indented, on standard output.
pub fn json(value: &Value) -> Result<(), Failed> {
    data(&serde_json::to_string_pretty(value).unwrap_or_default())
}

/// A line on standard error. Nobody there to read it is no reason to stop.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// How far it is, on a terminal alone: each line takes the place of the one before; an empty one clears it.
pub fn progress(line: &str) {
    let mut err = io::stderr().lock();
    if err.is_terminal() {
        let _ = write!(err, "\r\x1b[K{line}").and_then(|()| err.flush());
    }
}

/// Columns, aligned, two spaces apart; nothing for no rows but the heading. At a terminal the widest cells of the last column are cut.
pub fn table(heading: &[&'static str], rows: &[Vec<String>]) -> String {
    let last = heading.len().saturating_sub(1);
    let column = |(at, name): (usize, &&'static str)| match at == last {
        true => Column::new(name).least(12),
        false => Column::new(name),
    };
    let mut table = Table::new(&heading.iter().enumerate().map(column).collect::<Vec<_>>());
    rows.iter().for_each(|row| table.row(row.iter().map(|cell| Cell::from(cell.as_str()))));
    table.render(&Screen::stdout())
}

/// A field of an answer as text; absent or `null`: a dash.
pub fn field(value: &Value, name: &str) -> String {
    match &value[name] {
        Value::Null => "-".into(),
        Value::String(text) => super::escape::line(text),
        other => super::escape::line(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_do_not_trail() {
        let text = table(&["id", "state"], &[vec!["1".into(), "failed".into()], vec!["100".into(), String::new()]]);
        assert_eq!(text, "id   state\n1    failed\n100\n");
    }
}
