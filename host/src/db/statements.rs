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
