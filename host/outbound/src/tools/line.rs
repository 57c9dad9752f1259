//! Lines that are whole, or too long.

use agentry_defence::Defence;
use std::io;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Reads lines. A read that is dropped half-way goes on where it was.
pub(super) struct Lines<R> {
    stream: BufReader<R>,
    line: Vec<u8>,
    /// The line was handed out.
    done: bool,
    most: usize,
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// A line without its end.
    Whole(&'a [u8]),
    /// A line of more than `most` bytes; the rest of the stream is of no use.
    TooLong {
        /// The most that a line may have.
        most: usize,
    },
    /// The stream ended. What came after the last line's end is no message.
    End,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Lines of at most so many bytes.
    pub(super) fn new(stream: R, most: usize) -> Lines<R> {
        Lines { stream: BufReader::with_capacity(64 << 10, stream), line: Vec::new(), done: false, most }
    }

    /// The next line. Memory never holds more than the longest line and one buffer.
    pub(super) async fn next(&mut self) -> io::Result<Line<'_>> {
        if std::mem::take(&mut self.done) {
            self.line.clear();
            // One large message must not be paid for until the session ends.
            self.line.shrink_to(64 << 10);
        }
        loop {
            let read = self.stream.fill_buf().await?;
            if read.is_empty() {
                return Ok(Line::End);
            }
            let end = read.iter().position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(read.len());
            if self.line.len() + taken > self.most && Defence::ToolMessage.stands() {
                return Ok(Line::TooLong { most: self.most });
            }
            self.line.extend_from_slice(&read[..taken]);
            self.stream.consume(taken + usize::from(end.is_some()));
            if end.is_some() {
                self.done = true;
                return Ok(Line::Whole(self.line.strip_suffix(b"\r").unwrap_or(&self.line)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_may_be_as_long_as_allowed_and_no_longer() {
        let mut lines = Lines::new(&b"abcd\nef\r\n\nabcde\n"[..], 4);
        assert_eq!(lines.next().await.unwrap(), Line::Whole(b"abcd"));
        assert_eq!(lines.next().await.unwrap(), Line::Whole(b"ef"));
        assert_eq!(lines.next().await.unwrap(), Line::Whole(b""));
        assert_eq!(lines.next().await.unwrap(), Line::TooLong { most: 4 });
    }

    #[tokio::test]
    async fn what_has_no_line_end_is_no_line() {
        let mut lines = Lines::new(&b"ab\ncd"[..], 4);
        assert_eq!(lines.next().await.unwrap(), Line::Whole(b"ab"));
        assert_eq!(lines.next().await.unwrap(), Line::End);
    }

    #[tokio::test]
    async fn a_read_that_is_dropped_loses_nothing() {
        use tokio::io::AsyncWriteExt;
        let (mut writer, reader) = tokio::io::duplex(64);
        let mut lines = Lines::new(reader, 64);
        writer.write_all(b"half").await.unwrap();
        let dropped = futures_util::FutureExt::now_or_never(lines.next());
        assert!(dropped.is_none());
        writer.write_all(b" and half\n").await.unwrap();
        assert_eq!(lines.next().await.unwrap(), Line::Whole(b"half and half"));
    }
}
