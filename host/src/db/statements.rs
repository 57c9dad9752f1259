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
