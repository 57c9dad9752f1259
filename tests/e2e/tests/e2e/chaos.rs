//! A short chaos run: every fault once, each while work is in flight. The long one is `cargo xtask chaos`.

use e2e::chaos::{self, Plan};

#[tokio::test]
async fn a_short_run_with_every_fault_loses_nothing_and_doubles_nothing() {
    let report = chaos::run(Plan::short(1)).await;
    assert!(report.violations().is_empty(), "{report}");
    assert_eq!(report.short_of(), Vec::<String>::new(), "{report}");
}
