//! Statement texts: static, named, and all of them listed, so that a test can prepare each one on its database.

/// Declare statements as constants, and list them in `ALL`.
macro_rules! statements {
    ($($(#[$meta:meta])* $name:ident = $text:expr;)*) => {
        $($(#[$meta])* pub(super) const $name: &str = $text;)*
        /// Every statement of this file.
        #[cfg(test)]
        pub(in crate::db) const ALL: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}

/// The keys of a page. `found`: keys and bytes of the rows of a list, one more than asked for. `page`: the keys, each with the
/// number of rows and bytes up to it. Only the lengths of large columns are read here.
///
/// A statement then reads the rows of the page: by their key where it is one column, otherwise by the same condition with the
/// page's length as the limit. A join by several columns may compare each key with each row if few rows are expected.
macro_rules! page {
    ($keys:literal, $order:literal, $found:literal) => {
        concat!(
            "WITH found AS (",
            $found,
            "), page AS (SELECT ",
            $keys,
            ", row_number() OVER w AS n, sum(bytes) OVER w AS total FROM found WINDOW w AS (ORDER BY ",
            $order,
            ")) "
        )
    };
}

/// Whether this build can read the row `t` of a task, as far as a newer one may have written what it cannot. Sweeps pass over the others: as
/// many of them as one sweep takes would be taken again and again.
macro_rules! readable {
    () => {
        " AND (t.waiting_code IS NULL OR t.waiting_code IN ('scheduled', 'backoff', 'snoozed', 'not_published', 'unroutable',
            'no_consumer', 'no_plugin', 'plugin_broken', 'paused', 'queued', 'no_slot', 'held', 'isolation'))
        AND t.burnt < 4294967296 AND t.attempt < 4294967296 AND t.max_attempts < 4294967296 AND t.snoozes < 4294967296
        AND t.host_losses < 4294967296 AND t.child_losses < 4294967296 "
    };
}

#[cfg(test)]
mod tests {
    use crate::task::WaitCode;

    #[test]
    fn readable_codes_are_those_of_this_build() {
        let known = readable!().split('\'').skip(1).step_by(2);
        assert!(known.eq(WaitCode::ALL.map(WaitCode::as_str)));
    }
}
