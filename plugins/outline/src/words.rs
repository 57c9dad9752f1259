//! Words of a text that comes in pieces.

/// Counts words: runs of anything but white space that hold a letter or a digit. Markup within a word (`**b**old`) does
/// not split it, because its pieces follow each other without a [break](Words::end).
#[derive(Default)]
pub struct Words {
    count: usize,
    /// The word that is being read already counts.
    counted: bool,
}

impl Words {
    /// The next piece.
    pub fn read(&mut self, text: &str) {
        for c in text.chars() {
            if c.is_whitespace() {
                self.counted = false;
            } else if !self.counted && c.is_alphanumeric() {
                self.counted = true;
                self.count += 1;
            }
        }
    }

    /// Between blocks and lines: what follows is another word.
    pub fn end(&mut self) {
        self.counted = false;
    }

    /// How many so far.
    pub fn count(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(pieces: &[&str]) -> usize {
        let mut words = Words::default();
        pieces.iter().for_each(|piece| words.read(piece));
        words.count()
    }

    #[test]
    fn a_word_in_pieces_is_one_word() {
        assert_eq!(counted(&["b", "old and sn", "_", "ake"]), 3);
    }

    #[test]
    fn a_break_ends_a_word() {
        let mut words = Words::default();
        words.read("one");
        words.end();
        words.read("two");
        assert_eq!(words.count(), 2);
    }

    #[test]
    fn what_nobody_reads_aloud_is_no_word() {
        assert_eq!(counted(&["a – b | * ", "→", " 2nd"]), 3);
    }
}
