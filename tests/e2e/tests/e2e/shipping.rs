//! The binary that ships has no faults on demand.

use e2e::variables;

/// What only the build for tests of faults has: its variables, and the name of a point.
const MARKS: [&str; 4] = ["AGENTRY_FAILPOINTS", "AGENTRY_LEDGER", "AGENTRY_WITHOUT", "s7.acknowledged"];

#[test]
fn the_shipping_binary_has_no_fail_points() {
    let shipping = std::fs::read(variables::binary()).expect("the binary is readable");
    let faulty = std::fs::read(variables::faulty_binary()).expect("the binary is readable");
    for mark in MARKS {
        let found = |binary: &[u8]| binary.windows(mark.len()).any(|part| part == mark.as_bytes());
        assert!(found(&faulty), "{mark} would be found if it were there");
        assert!(!found(&shipping), "{mark} is in the shipping binary");
    }
}

#[tokio::test]
async fn the_shipping_binary_does_not_know_their_variables() {
    let site = e2e::Site::new(e2e::Mode::Embedded).await;
    let setup = |name| site.setup().variable(name, "s6.settled=abort");
    for name in ["AGENTRY_FAILPOINTS", "AGENTRY_LEDGER", "AGENTRY_WITHOUT"] {
        setup(name).run_to_end().await.expect(2, &[name, "unknown variable"]);
    }
}
