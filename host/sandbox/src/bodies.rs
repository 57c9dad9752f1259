//! Bodies of calls: copied while they pass, as far as the operator asked for them, and not at all otherwise.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::streams::lock;

/// Of which capabilities' calls the bodies are kept, and how much of them; by default of none. Only whoever runs a component
/// says so, never the component.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bodies {
    /// Chats with language models.
    pub llm: bool,
    /// Calls of tools.
    pub tools: bool,
    /// HTTP requests.
    pub http: bool,
    /// The most that is kept of one body, in bytes.
    pub body_bytes: u64,
    /// The most that is kept of all bodies of a run, in bytes. Whoever comes first has it.
    pub run_bytes: u64,
}

impl Bodies {
    fn are_kept_of(self, capability: &str) -> bool {
        match capability {
            "llm" => self.llm,
            "tools" => self.tools,
            "http" => self.http,
            _ => false,
        }
    }
}

/// What was kept of a body. It is the guest's own words and what it was answered: it may hold any byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// Its beginning.
    pub bytes: Vec<u8>,
    /// How long it was, or had become when the run was over.
    pub size: u64,
}

/// Makes the copies of one run.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    of: Bodies,
    /// What is left of `run_bytes`.
    left: Arc<AtomicU64>,
}

impl Copies {
    pub(crate) fn new(of: Bodies) -> Copies {
        Copies { of, left: Arc::new(AtomicU64::new(of.run_bytes)) }
    }

    /// For one body; `None`: nobody asked for it.
    pub(crate) fn of(&self, capability: &str) -> Option<Copied> {
        let room = self.of.are_kept_of(capability).then_some(self.of.body_bytes)?;
        let taking = Taking { bytes: Vec::new(), size: 0, room, left: self.left.clone() };
        Some(Copied(Arc::new(Mutex::new(taking))))
    }
}

/// The copy of one body. Cheap to clone: whoever passes the body on fills it, and the record of the call reads it when the run
/// is over, however the call ended.
#[derive(Clone, Debug)]
pub(crate) struct Copied(Arc<Mutex<Taking>>);

#[derive(Debug)]
struct Taking {
    bytes: Vec<u8>,
    size: u64,
    room: u64,
    left: Arc<AtomicU64>,
}

impl Copied {
    /// A piece of the body passes.
    pub(crate) fn pass(&self, piece: &[u8]) {
        let mut taking = lock(&self.0);
        taking.size += piece.len() as u64;
        let wanted = taking.room.min(piece.len() as u64);
        if wanted == 0 {
            return;
        }
        let mut taken = 0;
        // Answers an error only where the closure does.
        let _ = taking.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            taken = wanted.min(left);
            Some(left - taken)
        });
        // What did not fit is missing, so nothing that follows may stand in its place.
        taking.room = if taken < wanted { 0 } else { taking.room - taken };
        taking.bytes.extend_from_slice(&piece[..taken as usize]);
    }

    /// What there is of it; `None`: nothing passed. What passes later is not kept.
    pub(crate) fn take(&self) -> Option<Body> {
        let mut taking = lock(&self.0);
        taking.room = 0;
        let (mut bytes, size) = (std::mem::take(&mut taking.bytes), taking.size);
        if (bytes.len() as u64) < size
            && let Err(error) = std::str::from_utf8(&bytes)
            && error.error_len().is_none()
        {
            // Cut within a character, a text would not be one any more.
            bytes.truncate(error.valid_up_to());
        }
        (size > 0).then_some(Body { bytes, size })
    }

    /// It is not to be kept after all, and leaves its room to others.
    pub(crate) fn forget(&self) {
        let mut taking = lock(&self.0);
        taking.room = 0;
        let freed = std::mem::take(&mut taking.bytes).len() as u64;
        taking.left.fetch_add(freed, Ordering::Relaxed);
    }
}

/// What is written for the record alone needs no memory beyond what is kept of it.
impl io::Write for Copied {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.pass(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copies(body_bytes: u64, run_bytes: u64) -> Copies {
        Copies::new(Bodies { http: true, body_bytes, run_bytes, ..Bodies::default() })
    }

    fn kept(copied: &Copied) -> (Vec<u8>, u64) {
        copied.take().map(|body| (body.bytes, body.size)).unwrap()
    }

    #[test]
    fn only_what_was_asked_for_is_copied() {
        let copies = copies(4, 4);
        assert!(copies.of("http").is_some());
        for other in ["llm", "tools", "keyvalue", "memory", "config"] {
            assert!(copies.of(other).is_none(), "{other}");
        }
        assert!(Copies::default().of("http").is_none());
    }

    #[test]
    fn a_body_is_cut_at_its_bound_and_says_how_long_it_was() {
        let copied = copies(4, 100).of("http").unwrap();
        for piece in [&b"ab"[..], b"", b"cde", b"f"] {
            copied.pass(piece);
        }
        assert_eq!(kept(&copied), (b"abcd".to_vec(), 6));
        copied.pass(b"later");
        assert_eq!(kept(&copied).0, b"", "nobody reads it any more");
    }

    #[test]
    fn a_body_of_the_very_bound_is_whole() {
        let copied = copies(4, 4).of("http").unwrap();
        copied.pass(b"abcd");
        assert_eq!(kept(&copied), (b"abcd".to_vec(), 4));
    }

    #[test]
    fn nothing_passed_and_nothing_is_kept() {
        assert_eq!(copies(4, 4).of("http").unwrap().take(), None);
    }

    #[test]
    fn all_bodies_of_a_run_share_one_bound() {
        let copies = copies(4, 6);
        let [first, second, third] = [0; 3].map(|_| copies.of("http").unwrap());
        first.pass(b"abcd");
        second.pass(b"efg");
        third.pass(b"i");
        assert_eq!(kept(&third), (b"".to_vec(), 1), "how long it was is known all the same");
        first.forget();
        second.pass(b"h");
        assert_eq!(kept(&second), (b"ef".to_vec(), 4), "what is missing is never skipped");
    }

    #[test]
    fn what_is_forgotten_leaves_its_room() {
        let copies = copies(4, 4);
        let (first, second) = (copies.of("http").unwrap(), copies.of("http").unwrap());
        first.pass(b"abcd");
        first.forget();
        second.pass(b"efgh");
        assert_eq!(kept(&second), (b"efgh".to_vec(), 4));
    }

    #[test]
    fn a_text_is_cut_between_characters_and_bytes_anywhere() {
        let text = copies(4, 100).of("http").unwrap();
        text.pass("abcé".as_bytes());
        assert_eq!(kept(&text), (b"abc".to_vec(), 5));
        let bytes = copies(4, 100).of("http").unwrap();
        bytes.pass(b"\xffbc\xc3\xa9");
        assert_eq!(kept(&bytes), (b"\xffbc\xc3".to_vec(), 5));
        let whole = copies(4, 100).of("http").unwrap();
        whole.pass(b"a\xc3");
        assert_eq!(kept(&whole), (b"a\xc3".to_vec(), 2), "whole, it is what it is");
    }
}
