//! The bounded list of lines, and the lines that have not ended yet.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::{Level, LogLine, LogSink, Stream};
use agentry_defence::Defence;

use crate::limits::Limits;

/// The logger's name of the host's own remarks in a guest's log.
const HOST_LOGGER: &str = "agentry";

/// The longest name of a logger, in bytes.
const LOGGER_BYTES: usize = 256;

/// How much of the end of standard error a trap's detail carries, in bytes.
const STDERR_TAIL_BYTES: usize = 4 << 10;

/// A line that has not ended yet.
#[derive(Default)]
struct Open {
    bytes: Vec<u8>,
    cut: bool,
}

/// Everything an attempt has logged so far.
pub(crate) struct Log {
    lines: Vec<LogLine>,
    /// Bytes kept, message and logger.
    kept: u64,
    most_bytes: u64,
    most_lines: u32,
    line_bytes: usize,
    /// The limit was reached and said so; nothing is added any more.
    full: bool,
    stdout: Open,
    stderr: Open,
    stderr_tail: Vec<u8>,
    on_log: Option<LogSink>,
}

impl Log {
    pub(crate) fn new(limits: &Limits, on_log: Option<LogSink>) -> Log {
        Log {
            lines: Vec::new(),
            kept: 0,
            most_bytes: limits.log_bytes,
            most_lines: limits.log_lines,
            line_bytes: match Defence::LogLine.stands() {
                true => usize::try_from(limits.log_line_bytes).unwrap_or(usize::MAX),
                false => usize::MAX,
            },
            full: false,
            stdout: Open::default(),
            stderr: Open::default(),
            stderr_tail: Vec::new(),
            on_log,
        }
    }

    /// A line through the logging interface. The host's own name is not a guest's to use: its remarks say what was cut.
    pub(crate) fn add_guests(&mut self, level: Level, logger: String, message: String) {
        let logger = if logger.trim() == HOST_LOGGER { format!("{HOST_LOGGER} (the guest's)") } else { logger };
        self.add(level, logger, message);
    }

    /// A line.
    pub(crate) fn add(&mut self, level: Level, mut logger: String, mut message: String) {
        if self.full {
            return;
        }
        without_nul(&mut logger);
        truncate(&mut logger, LOGGER_BYTES);
        without_nul(&mut message);
        let cut = truncate(&mut message, self.line_bytes);
        self.push(Stream::Log, level, logger, message, cut);
    }

    /// A remark of the host's in the guest's log.
    pub(crate) fn remark(&mut self, message: String) {
        self.add(Level::Warn, HOST_LOGGER.to_owned(), message);
    }

    /// Bytes that the guest wrote to a standard stream, in pieces as they come.
    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        if stream == Stream::Stderr {
            self.remember(bytes);
        }
        let mut rest = bytes;
        while !self.full && !rest.is_empty() {
            let (piece, ended, next) = match rest.iter().position(|&byte| byte == b'\n') {
                Some(at) => (&rest[..at], true, &rest[at + 1..]),
                None => (rest, false, &rest[rest.len()..]),
            };
            let line_bytes = self.line_bytes;
            let open = self.open(stream);
            let room = line_bytes.saturating_sub(open.bytes.len());
            open.bytes.extend_from_slice(&piece[..piece.len().min(room)]);
            open.cut |= piece.len() > room;
            if ended {
                self.close(stream);
            }
            rest = next;
        }
    }

    fn open(&mut self, stream: Stream) -> &mut Open {
        match stream {
            Stream::Stderr => &mut self.stderr,
            Stream::Stdout | Stream::Log => &mut self.stdout,
        }
    }

    /// The line ends here.
    fn close(&mut self, stream: Stream) {
        let line_bytes = self.line_bytes;
        let Open { mut bytes, mut cut } = std::mem::take(self.open(stream));
        if cut
            && let Err(wrong) = std::str::from_utf8(&bytes)
            && wrong.error_len().is_none()
        {
            // The cut went through a character; half of it is of no use.
            bytes.truncate(wrong.valid_up_to());
        }
        let mut message = match String::from_utf8(bytes) {
            Ok(message) => message,
            // Each bad byte becomes three, so the line may have to be cut again.
            Err(wrong) => String::from_utf8_lossy(wrong.as_bytes()).into_owned(),
        };
        without_nul(&mut message);
        cut |= truncate(&mut message, line_bytes);
        let level = if stream == Stream::Stderr { Level::Warn } else { Level::Info };
        self.push(stream, level, String::new(), message, cut);
    }

    fn push(&mut self, stream: Stream, level: Level, logger: String, message: String, cut: bool) {
        let bytes = (logger.len() + message.len()) as u64;
        if self.lines.len() as u64 >= u64::from(self.most_lines) && Defence::LogLines.stands() {
            let most = self.most_lines;
            return self.end(format!("the log was cut here: more than log_lines = {most}"));
        }
        if self.kept.saturating_add(bytes) > self.most_bytes && Defence::LogBytes.stands() {
            let most = self.most_bytes / crate::limits::KIB;
            return self.end(format!("the log was cut here: more than log_kib = {most}"));
        }
        self.kept += bytes;
        self.append(stream, level, logger, message, cut);
    }

    /// The one line over the limit, which says that there were more.
    fn end(&mut self, message: String) {
        self.full = true;
        self.stdout = Open::default();
        self.stderr = Open::default();
        self.append(Stream::Log, Level::Warn, HOST_LOGGER.to_owned(), message, true);
    }

    fn append(&mut self, stream: Stream, level: Level, logger: String, message: String, cut: bool) {
        let seq = u32::try_from(self.lines.len() + 1).unwrap_or(u32::MAX);
        let line = LogLine { seq, at: SystemTime::now(), stream, level, logger, message, cut };
        if let Some(on_log) = &self.on_log {
            on_log(&line);
        }
        self.lines.push(line);
    }

    /// Keeps the end of standard error, whatever became of the log: it is where a crash explains itself.
    fn remember(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(STDERR_TAIL_BYTES)..];
        self.stderr_tail.extend_from_slice(bytes);
        // Twice the length before it is moved, so that single bytes do not move it each time.
        if self.stderr_tail.len() > 2 * STDERR_TAIL_BYTES {
            self.stderr_tail.drain(..self.stderr_tail.len() - STDERR_TAIL_BYTES);
        }
    }

    /// The end of standard error, `None` when nothing was written to it.
    pub(crate) fn stderr_tail(&self) -> Option<String> {
        if self.stderr_tail.is_empty() {
            return None;
        }
        let from = self.stderr_tail.len().saturating_sub(STDERR_TAIL_BYTES);
        // Each bad byte becomes three, and so does a NUL when it is stored.
        let mut tail = String::from_utf8_lossy(&self.stderr_tail[from..]).replace('\0', "\u{fffd}");
        let over = tail.len().saturating_sub(STDERR_TAIL_BYTES);
        tail.drain(..tail.ceil_char_boundary(over));
        Some(tail)
    }

    /// Ends the lines that the guest left open, and gives away all lines and how many bytes they hold.
    pub(crate) fn finish(&mut self) -> (Vec<LogLine>, u64) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let open = self.open(stream);
            if !open.bytes.is_empty() || open.cut {
                self.close(stream);
            }
        }
        (std::mem::take(&mut self.lines), self.kept)
    }
}

/// No database holds this one character in a text, and whoever stores the line puts three bytes in its place: here, where they
/// still count.
fn without_nul(text: &mut String) {
    if text.contains('\0') {
        *text = text.replace('\0', "\u{fffd}");
    }
}

/// Cuts `text` to at most `most` bytes at a character's end; whether it did.
pub(crate) fn truncate(text: &mut String, most: usize) -> bool {
    if text.len() <= most {
        return false;
    }
    text.truncate(text.floor_char_boundary(most));
    true
}

/// On one line, what would steer a terminal made visible, and at most `most` bytes with a mark where it was cut.
pub(crate) fn visible(text: &str, most: usize) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        let whole = shown.len();
        if c.is_control() {
            shown.extend(c.escape_unicode())
        } else {
            shown.push(c)
        }
        if shown.len() > most {
            shown.truncate(whole.min(shown.floor_char_boundary(most - '…'.len_utf8())));
            shown.push('…');
            break;
        }
    }
    shown
}

/// Locks what a run keeps. A panic of a `LogSink` poisons its log and is a failure of that run alone; its lines are still whole.
pub(crate) fn lock<T>(kept: &Mutex<T>) -> MutexGuard<'_, T> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(most_bytes: u64, most_lines: u32, line_bytes: u64) -> Log {
        let limits =
            Limits { log_bytes: most_bytes, log_lines: most_lines, log_line_bytes: line_bytes, ..Limits::default() };
        Log::new(&limits, None)
    }

    fn messages(log: &mut Log) -> Vec<(String, bool)> {
        let (lines, _) = log.finish();
        lines.into_iter().map(|line| (line.message, line.cut)).collect()
    }

    #[test]
    fn a_nul_counts_as_what_stands_in_its_place() {
        let mut log = log(1_000, 10, 4);
        log.add(Level::Info, "a\0".to_owned(), "\0\0".to_owned());
        log.write(Stream::Stdout, b"b\0\0\n");
        assert_eq!(log.kept, 4 + 3 + 4);
        assert_eq!(messages(&mut log), [("\u{fffd}".to_owned(), true), ("b\u{fffd}".to_owned(), true)]);
    }

    #[test]
    fn lines_are_split_where_they_end_however_they_were_written() {
        let mut log = log(1_000, 10, 100);
        log.write(Stream::Stdout, b"on");
        log.write(Stream::Stderr, b"aside\n");
        log.write(Stream::Stdout, b"e\n\ntwo");
        let (lines, kept) = log.finish();
        let told: Vec<_> =
            lines.iter().map(|line| (line.seq, line.stream, line.level, line.message.as_str())).collect();
        assert_eq!(
            told,
            [
                (1, Stream::Stderr, Level::Warn, "aside"),
                (2, Stream::Stdout, Level::Info, "one"),
                (3, Stream::Stdout, Level::Info, ""),
                (4, Stream::Stdout, Level::Info, "two"),
            ]
        );
        assert_eq!(kept, 11);
    }

    #[test]
    fn a_long_line_is_cut_at_a_character_and_marked() {
        let mut log = log(1_000, 10, 4);
        log.write(Stream::Stdout, "abc€def\nok\n".as_bytes());
        log.add(Level::Info, "x".repeat(1_000), "abc€".to_owned());
        assert_eq!(log.lines[2].logger.len(), LOGGER_BYTES);
        assert_eq!(messages(&mut log), [("abc".to_owned(), true), ("ok".to_owned(), false), ("abc".to_owned(), true)]);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_and_stay_within_the_line() {
        let mut log = log(1_000, 10, 6);
        log.write(Stream::Stdout, b"a\xff\n\xff\xff\xff\n");
        assert_eq!(messages(&mut log), [("a\u{fffd}".to_owned(), false), ("\u{fffd}\u{fffd}".to_owned(), true)]);
    }

    #[test]
    fn what_comes_after_the_most_lines_is_one_marked_line() {
        let mut log = log(1_000, 2, 100);
        log.write(Stream::Stdout, b"1\n2\n3\n4\n");
        log.add(Level::Info, String::new(), "5".to_owned());
        let (lines, _) = log.finish();
        assert_eq!(lines.len(), 3);
        assert!(lines[2].cut && lines[2].message.contains("log_lines = 2"));
    }

    #[test]
    fn what_comes_after_the_most_bytes_is_one_marked_line() {
        let mut log = log(2_048, 1_000_000, 100);
        for _ in 0..1_000 {
            log.write(Stream::Stdout, b"0123456789\n");
        }
        let (lines, kept) = log.finish();
        assert!(kept <= 2_048);
        let last = lines.last().unwrap();
        assert!(last.cut && last.message.contains("log_kib = 2"));
        assert_eq!(lines.iter().filter(|line| line.cut).count(), 1);
    }

    #[test]
    fn an_endless_line_holds_no_more_than_a_line() {
        let mut log = log(1_000, 10, 64);
        for _ in 0..10_000 {
            log.write(Stream::Stdout, &[b'x'; 1_000]);
        }
        assert!(log.stdout.bytes.capacity() <= 128);
        assert_eq!(messages(&mut log), [("x".repeat(64), true)]);
    }

    #[test]
    fn only_the_host_logs_under_the_hosts_name() {
        let mut log = log(1_000, 10, 100);
        log.add_guests(Level::Warn, " agentry".to_owned(), "the log was cut here".to_owned());
        log.remark("the host".to_owned());
        let loggers: Vec<_> = log.finish().0.into_iter().map(|line| line.logger).collect();
        assert_eq!(loggers, ["agentry (the guest's)", HOST_LOGGER]);
    }

    #[test]
    fn the_end_of_standard_error_is_bounded_as_it_is_shown() {
        let mut log = log(10, 1, 8);
        for bad in [0xff, 0] {
            log.write(Stream::Stderr, &[bad; 9_000]);
            log.write(Stream::Stderr, b"the end");
            let tail = log.stderr_tail().unwrap();
            assert!(tail.len() <= STDERR_TAIL_BYTES && tail.ends_with("\u{fffd}the end"), "{}", tail.len());
        }
    }

    #[test]
    fn the_end_of_standard_error_is_kept_even_when_the_log_is_full() {
        let mut log = log(10, 1, 8);
        for n in 0..10_000 {
            log.write(Stream::Stderr, format!("line {n}\n").as_bytes());
        }
        let tail = log.stderr_tail().unwrap();
        assert!(tail.ends_with("line 9999\n") && tail.len() <= STDERR_TAIL_BYTES);
        assert!(log.stderr_tail.capacity() <= 5 * STDERR_TAIL_BYTES);
    }
}
