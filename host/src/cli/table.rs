//! Tables that fit the terminal. What is too wide is cut with `…`, then columns are left out by rank, and at last each row becomes a
//! record. In a pipe every column is there in full.

use super::screen::{Screen, Tone};
use std::borrow::Cow;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Between two columns.
const GAP: &str = "  ";

/// One column.
#[derive(Clone, Copy)]
pub struct Column {
    name: &'static str,
    /// Width to which its cells may be cut; `None`: never cut.
    least: Option<usize>,
    /// Left out in the order of ranks, the highest first; 0: never.
    rank: u8,
}

impl Column {
    /// A column that is always there, in full.
    pub const fn new(name: &'static str) -> Column {
        Column { name, least: None, rank: 0 }
    }

    /// The same, whose cells may be cut to this width.
    pub const fn least(self, width: usize) -> Column {
        Column { least: Some(width), ..self }
    }

    /// The same, which may be left out.
    pub const fn rank(self, rank: u8) -> Column {
        Column { rank, ..self }
    }
}

/// Text of one cell.
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// Text with a meaning.
    pub fn toned(text: impl Into<String>, tone: Tone) -> Cell {
        Cell { text: text.into(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell::toned(text, Tone::Plain)
    }
}

/// Rows below a heading.
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: &[Column]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row with a cell for each column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as text, with a line break at its end.
    pub fn render(&self, screen: &Screen) -> String {
        let natural = self.widths();
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let Some(width) = screen.width else { return self.lines(&shown, &natural, screen) };
        loop {
            if let Some(widths) = self.fit(&shown, &natural, width) {
                return self.lines(&shown, &widths, screen) + &self.left_out(&shown, screen);
            }
            let dropped = shown.iter().copied().max_by_key(|at| self.columns[*at].rank);
            match dropped.filter(|at| self.columns[*at].rank > 0) {
                Some(at) => shown.retain(|other| *other != at),
                None => return self.records(width, screen),
            }
        }
    }

    /// The widest cell of each column.
    fn widths(&self) -> Vec<usize> {
        let of = |(at, column): (usize, &Column)| {
            let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.text.width());
            cells.chain([column.name.width()]).max().unwrap_or_default()
        };
        self.columns.iter().enumerate().map(of).collect()
    }

    /// Widths with which these columns fit, if they do: the widest that may be cut give way first.
    fn fit(&self, shown: &[usize], natural: &[usize], width: usize) -> Option<Vec<usize>> {
        let mut widths = natural.to_vec();
        let gaps = GAP.len() * shown.len().saturating_sub(1);
        loop {
            let used: usize = shown.iter().map(|at| widths[*at]).sum::<usize>() + gaps;
            if used <= width {
                return Some(widths);
            }
            let least = |at: usize| self.columns[at].least.map(|least| least.max(self.columns[at].name.width()));
            let spare = |at: &usize| least(*at).is_some_and(|least| widths[*at] > least);
            let widest = shown.iter().copied().filter(spare).max_by_key(|at| widths[*at])?;
            widths[widest] -= 1;
        }
    }

    fn lines(&self, shown: &[usize], widths: &[usize], screen: &Screen) -> String {
        let mut text = String::new();
        let heading: Vec<Cell> = self.columns.iter().map(|column| Cell::toned(column.name, Tone::Faint)).collect();
        for row in std::iter::once(&heading).chain(&self.rows) {
            let mut line = String::new();
            let mut pad = 0;
            for at in shown {
                let Some(cell) = row.get(*at) else { continue };
                line.extend(std::iter::repeat_n(' ', pad));
                let cut = cut(&cell.text, widths[*at]);
                pad = widths[*at].saturating_sub(cut.width()) + GAP.len();
                line += &screen.paint(cell.tone, &cut);
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }

    fn left_out(&self, shown: &[usize], screen: &Screen) -> String {
        let hidden = (0..self.columns.len()).filter(|at| !shown.contains(at));
        let names: Vec<&str> = hidden.map(|at| self.columns[at].name).collect();
        if names.is_empty() || self.rows.is_empty() {
            return String::new();
        }
        let note = format!("(not shown: {}; see --json)", names.join(", "));
        screen.paint(Tone::Faint, &cut(&note, screen.width.unwrap_or(usize::MAX))) + "\n"
    }

    /// Each row as a block of `name value` lines, which wrap at the terminal's edge.
    fn records(&self, width: usize, screen: &Screen) -> String {
        let names = self.columns.iter().map(|column| column.name.width()).max().unwrap_or_default();
        let room = width.saturating_sub(names + 1).max(1);
        let mut text = String::new();
        for (n, row) in self.rows.iter().enumerate() {
            if n > 0 {
                text.push('\n');
            }
            for (column, cell) in self.columns.iter().zip(row).filter(|(_, cell)| !matches!(&*cell.text, "" | "-")) {
                for (n, part) in wrapped(&cell.text, room).iter().enumerate() {
                    let name = if n == 0 { column.name } else { "" };
                    let padding = " ".repeat(names - name.width() + 1);
                    text += &format!("{}{padding}{}\n", screen.paint(Tone::Faint, name), screen.paint(cell.tone, part));
                }
            }
        }
        text
    }
}

/// The text, cut to a width, with `…` for what is missing.
pub fn cut(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return text.into();
    }
    let mut used = 1;
    let kept = text.chars().take_while(|c| {
        used += c.width().unwrap_or_default();
        used <= width
    });
    let kept: String = kept.collect();
    format!("{}…", kept.trim_end()).into()
}

/// The text in parts of a width at most.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let (mut parts, mut used) = (vec![String::new()], 0);
    for c in text.chars() {
        let wide = c.width().unwrap_or_default();
        if used + wide > width && used > 0 {
            parts.push(String::new());
            used = 0;
        }
        used += wide;
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(width: usize) -> Screen {
        Screen { width: Some(width), ..Screen::PIPE }
    }

    fn table() -> Table {
        let mut table = Table::new(&[
            Column::new("id"),
            Column::new("state"),
            Column::new("plugin").least(8),
            Column::new("queue").rank(2),
            Column::new("created").rank(1),
        ]);
        table.row([
            "1".into(),
            Cell::toned("failed", Tone::Bad),
            "a-plugin-with-a-long-name".into(),
            "default".into(),
            "3m ago".into(),
        ]);
        table.row(["100".into(), "running".into(), "日本語".into(), "-".into(), "now".into()]);
        table
    }

    #[test]
    fn a_pipe_has_every_column_in_full() {
        insta::assert_snapshot!(table().render(&Screen::PIPE), @r"
        id   state    plugin                     queue    created
        1    failed   a-plugin-with-a-long-name  default  3m ago
        100  running  日本語                     -        now
        ");
    }

    #[test]
    fn a_narrow_terminal_cuts_then_leaves_out_then_stacks() {
        insta::assert_snapshot!(table().render(&screen(50)), @r"
        id   state    plugin              queue    created
        1    failed   a-plugin-with-a-l…  default  3m ago
        100  running  日本語              -        now
        ");
        insta::assert_snapshot!(table().render(&screen(34)), @r"
        id   state    plugin       created
        1    failed   a-plugin-w…  3m ago
        100  running  日本語       now
        (not shown: queue; see --json)
        ");
        insta::assert_snapshot!(table().render(&screen(20)), @r"
        id      1
        state   failed
        plugin  a-plugin-wit
                h-a-long-nam
                e
        queue   default
        created 3m ago

        id      100
        state   running
        plugin  日本語
        created now
        ");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in 20..120 {
            for line in table().render(&screen(width)).lines() {
                assert!(line.width() <= width, "{width}: {line:?}");
            }
        }
    }

    #[test]
    fn colours_take_no_room() {
        let colours = Screen { colours: true, ..screen(80) };
        let text = table().render(&colours);
        assert!(text.contains("\u{1b}[1m\u{1b}[31mfailed\u{1b}[0m   a-plugin"), "{text:?}");
    }
}
