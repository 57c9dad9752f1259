//! Statements that write many rows at once: a batch crosses to SQLite's thread a few times, not once per row.
//!
//! A statement's text is static, so it comes in four sizes, and a batch is cut into the largest that fit. Parameters are
//! anonymous: SQLite looks up the name of a numbered one in a list, once per parameter.

use crate::task::TaskId;
use std::collections::HashMap;

/// A row of parameters, repeated.
macro_rules! repeated {
    (1 $row:literal) => {
        $row
    };
    (4 $row:literal) => {
        concat!($row, ", ", $row, ", ", $row, ", ", $row)
    };
    (16 $row:literal) => {
        concat!(repeated!(4 $row), ", ", repeated!(4 $row), ", ", repeated!(4 $row), ", ", repeated!(4 $row))
    };
    (64 $row:literal) => {
        concat!(repeated!(16 $row), ", ", repeated!(16 $row), ", ", repeated!(16 $row), ", ", repeated!(16 $row))
    };
}
pub(super) use repeated;

/// One statement for 64, 16, 4 and 1 rows.
pub(super) struct Many(pub [&'static str; 4]);

impl Many {
    const SIZES: [usize; 4] = [64, 16, 4, 1];

    /// The rows in parts, each with the statement that takes it.
    pub fn parts<'r, R>(&self, mut rows: &'r [R]) -> Vec<(&'static str, &'r [R])> {
        let mut parts = Vec::new();
        for (statement, size) in self.0.iter().zip(Many::SIZES) {
            while let Some((part, rest)) = rows.split_at_checked(size) {
                parts.push((*statement, part));
                rows = rest;
            }
        }
        parts
    }
}

/// A batch in rounds of different ids, by index: of several rows with one id, each sees what the one before it wrote.
pub(super) fn rounds(ids: impl ExactSizeIterator<Item = TaskId>) -> Vec<Vec<usize>> {
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    let mut seen: HashMap<TaskId, usize> = HashMap::with_capacity(ids.len());
    for (at, id) in ids.enumerate() {
        let round = seen.entry(id).and_modify(|round| *round += 1).or_default();
        match rounds.get_mut(*round) {
            Some(indexes) => indexes.push(at),
            None => rounds.push(vec![at]),
        }
    }
    rounds
}

/// Ids as a JSON array, for `json_each`.
pub(super) fn json_ids(ids: impl IntoIterator<Item = TaskId>) -> String {
    let mut text = String::from("[");
    for id in ids {
        if text.len() > 1 {
            text.push(',');
        }
        text.push('"');
        text.push_str(id.hyphenated().encode_lower(&mut [0; 36]));
        text.push('"');
    }
    text.push(']');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn parts_cover_every_row_once_and_in_order() {
        let many = Many(["64", "16", "4", "1"]);
        for len in [0, 1, 3, 4, 15, 63, 64, 85, 255, 256] {
            let rows: Vec<usize> = (0..len).collect();
            let parts = many.parts(&rows);
            assert!(parts.iter().all(|(size, part)| size.parse::<usize>().unwrap() == part.len()));
            assert_eq!(parts.iter().flat_map(|(_, part)| part.iter().copied()).collect::<Vec<_>>(), rows);
        }
    }

    #[test]
    fn a_statement_of_many_rows_has_as_many_rows() {
        for (text, count) in
            [(repeated!(1 "(?)"), 1), (repeated!(4 "(?)"), 4), (repeated!(16 "(?)"), 16), (repeated!(64 "(?)"), 64)]
        {
            assert_eq!(text.matches("(?)").count(), count);
        }
    }

    #[test]
    fn rows_with_one_id_are_in_different_rounds() {
        let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
        assert_eq!(rounds([a, b, a, c, a, b].into_iter()), [vec![0, 1, 3], vec![2, 5], vec![4]]);
        assert!(rounds(std::iter::empty()).is_empty());
    }

    #[test]
    fn ids_are_a_json_array() {
        assert_eq!(json_ids([]), "[]");
        let ids = [Uuid::from_u128(1), Uuid::from_u128(2)];
        assert_eq!(serde_json::from_str::<Vec<Uuid>>(&json_ids(ids)).unwrap(), ids);
    }
}
