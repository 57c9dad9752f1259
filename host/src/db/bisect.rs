//! Finding the row that spoils a batch: a range that fails on its data is split until the bad one stands alone.

use super::fault::Fault;
use std::ops::Range;

/// The ranges of a batch still to be tried, and the answers so far.
pub(super) struct Bisection<A> {
    answers: Vec<Option<A>>,
    todo: Vec<Range<usize>>,
}

impl<A> Bisection<A> {
    /// A batch of `len`, first tried as a whole.
    pub fn new(len: usize) -> Self {
        let todo = Vec::from_iter((len > 0).then_some(0..len));
        Bisection { answers: (0..len).map(|_| None).collect(), todo }
    }

    /// The next range to try, from the left: of two rows with one id the first must stay the first.
    pub fn next(&mut self) -> Option<Range<usize>> {
        self.todo.pop()
    }

    /// What a range answered. Fails on what is not the data's fault; answers the index and fault of a single bad row.
    pub fn tried(
        &mut self,
        range: Range<usize>,
        result: Result<Vec<A>, Fault>,
    ) -> Result<Option<(usize, Fault)>, Fault> {
        match result {
            Ok(answers) => {
                if answers.len() != range.len() {
                    return Err(Fault::Defect(format!("{} answers for {} rows", answers.len(), range.len())));
                }
                for (slot, answer) in self.answers[range].iter_mut().zip(answers) {
                    *slot = Some(answer);
                }
                Ok(None)
            }
            Err(fault) if !fault.is_about_data() => Err(fault),
            Err(fault) if range.len() == 1 => Ok(Some((range.start, fault))),
            Err(_) => {
                let middle = range.start + range.len() / 2;
                self.todo.push(middle..range.end);
                self.todo.push(range.start..middle);
                Ok(None)
            }
        }
    }

    /// The answer for a single bad row.
    pub fn answer(&mut self, index: usize, answer: A) {
        self.answers[index] = Some(answer);
    }

    /// Every answer, in order.
    pub fn finish(self) -> Result<Vec<A>, Fault> {
        self.answers.into_iter().collect::<Option<Vec<A>>>().ok_or_else(|| Fault::Defect("a row without answer".into()))
    }
}

/// Answers a batch of so many: tries it as a whole, and halves of what fails on its data. A single bad row is answered with the reason.
macro_rules! bisected {
    ($len:expr, |$range:ident| $attempt:expr, $refused:expr) => {{
        let mut bisection = $crate::db::bisect::Bisection::new($len);
        while let Some(range) = bisection.next() {
            let $range = range.clone();
            let result = $attempt;
            if let Some((index, fault)) = bisection.tried(range, result)? {
                bisection.answer(index, $refused(fault.reason()));
            }
        }
        bisection.finish()
    }};
}
pub(super) use bisected;

#[cfg(test)]
mod tests {
    use super::*;

    /// Try a batch in which the rows of `bad` spoil their range; answers the answers and how many ranges were tried.
    fn run(len: usize, bad: &[usize]) -> (Vec<Result<usize, usize>>, usize) {
        let mut bisection = Bisection::new(len);
        let mut tries = 0;
        while let Some(range) = bisection.next() {
            tries += 1;
            let result = match range.clone().any(|i| bad.contains(&i)) {
                true => Err(Fault::Data("bad".into())),
                false => Ok(range.clone().map(Ok).collect()),
            };
            if let Some((index, _)) = bisection.tried(range, result).unwrap() {
                bisection.answer(index, Err(index));
            }
        }
        (bisection.finish().unwrap(), tries)
    }

    #[test]
    fn a_good_batch_is_tried_once() {
        assert_eq!(run(256, &[]), ((0..256).map(Ok).collect(), 1));
        assert_eq!(run(0, &[]), (vec![], 0));
    }

    #[test]
    fn a_bad_row_fails_alone_and_is_found_in_few_steps() {
        for bad in [0, 100, 255] {
            let (answers, tries) = run(256, &[bad]);
            assert_eq!(answers[bad], Err(bad));
            assert_eq!(answers.iter().filter(|a| a.is_err()).count(), 1);
            assert_eq!(tries, 17);
        }
    }

    #[test]
    fn a_batch_of_bad_rows_still_ends() {
        let (answers, _) = run(7, &[0, 1, 2, 3, 4, 5, 6]);
        assert!(answers.iter().all(Result::is_err));
    }

    #[test]
    fn a_fault_of_the_connection_is_not_bisected() {
        let mut bisection = Bisection::<()>::new(4);
        let range = bisection.next().unwrap();
        assert!(bisection.tried(range, Err(Fault::Sql(sqlx::Error::PoolTimedOut))).is_err());
    }
}
