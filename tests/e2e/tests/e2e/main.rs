//! Black box: see the library.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
