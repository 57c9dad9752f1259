//! The size of batches that shrinks while their statements do not end in time.

/// A batch size: halved by each time-out, doubled by each success up to the most. A batch that cannot end in its time is not
/// sent again as it is.
#[derive(Clone, Copy, Debug)]
pub struct Halving {
    most: usize,
    size: usize,
}

impl Halving {
    /// The most at first.
    pub fn new(most: usize) -> Halving {
        Halving { most: most.max(1), size: most.max(1) }
    }

    /// The size of the next batch.
    pub fn size(&self) -> usize {
        self.size
    }

    /// A batch of so many entries timed out. Returns whether a smaller one can be tried.
    pub fn timed_out(&mut self, entries: usize) -> bool {
        let smaller = entries.min(self.size) / 2;
        self.size = smaller.max(1);
        smaller > 0
    }

    /// A batch ended in time.
    pub fn ended(&mut self) {
        self.size = self.size.saturating_mul(2).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_shrinks_to_one_and_grows_back() {
        let mut halving = Halving::new(6);
        assert!(halving.timed_out(6) && halving.size() == 3);
        assert!(halving.timed_out(2) && halving.size() == 1);
        assert!(!halving.timed_out(1) && halving.size() == 1);
        halving.ended();
        halving.ended();
        halving.ended();
        assert_eq!(halving.size(), 6);
    }
}
