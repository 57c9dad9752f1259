//! Printing: data to standard output, all else to standard error. A reader that went away is no error.

use super::Failed;
use serde_json::Value;
use std::io::{self, ErrorKind, IsTerminal, Write};

/// Lines for a person or a program, on standard output.
pub fn data(text: &str) -> Result<(), Failed> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| match text.ends_with('\n') {
        true => out.flush(),
        false => out.write_all(b"\n").and_then(|()| out.flush()),
    });
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failed::usage(format!("failed to write to standard output: {error}")))
        }
        _ => Ok(()),
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

/// Columns, aligned, two spaces apart; nothing for no rows but the heading.
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            text += &format!("{cell:<width$}  ");
        }
        format!("{}\n", text.trim_end())
    };
    let mut text = line(&mut heading.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
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
