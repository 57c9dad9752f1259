//! Tests that need a package of Debian, or a right, which not every machine has. Run by themselves they fail without it; here they are
//! skipped by name.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::services::{debian_packages, is_root};

/// One need, and the tests that have it, by their whole names.
struct Need {
    tests: &'static [&'static str],
    is_met: fn() -> bool,
    reason: &'static str,
    /// The package that `--install` installs; `None`: it installs none.
    package: Option<&'static str>,
}

const NEEDS: [Need; 7] = [
    Need {
        tests: &[
            "db::postgres::tests::poolers::a_pooler_in_session_mode_serves_with_its_defaults",
            "db::postgres::tests::poolers::a_pooler_in_transaction_or_statement_mode_is_refused_by_name_and_nothing_is_set",
            "db::postgres::tests::poolers::a_database_that_the_pooler_does_not_know_and_a_parameter_that_it_rejects_are_refused",
            "poolers::fifty_tasks_run_through_a_pooler_in_session_mode",
            "poolers::a_pooler_in_transaction_mode_ends_the_start_in_one_line",
        ],
        is_met: || Path::new("/usr/sbin/pgbouncer").exists() || Path::new("/usr/bin/pgbouncer").exists(),
        reason: "pgbouncer is not installed",
        package: Some("pgbouncer"),
    },
    Need {
        tests: &["metrics::a_real_prometheus_reads_the_endpoint_the_rules_and_the_dashboard"],
        is_met: || Path::new("/usr/bin/prometheus").exists() && Path::new("/usr/bin/promtool").exists(),
        reason: "prometheus is not installed",
        package: Some("prometheus"),
    },
    Need {
        tests: &["producers::kombu_publishes_with_its_own_properties"],
        is_met: || runs("/usr/bin/python3", &["-c", "import kombu"]),
        reason: "python3-kombu is not installed",
        package: Some("python3-kombu"),
    },
    Need {
        tests: &["producers::bunny_publishes_with_its_own_properties"],
        is_met: || runs("/usr/bin/ruby", &["-e", "require 'bunny'"]),
        reason: "ruby-bunny is not installed",
        package: Some("ruby-bunny"),
    },
    Need {
        tests: &["producers::the_java_client_publishes_with_its_own_properties"],
        is_met: || Path::new("/usr/share/java/amqp-client.jar").exists() && Path::new("/usr/bin/javac").exists(),
        reason: "librabbitmq-client-java and default-jdk-headless are not installed",
        package: None,
    },
    Need {
        tests: &["producers::the_go_client_publishes_with_its_own_properties"],
        is_met: || Path::new("/usr/bin/go").exists() && Path::new("/usr/share/gocode/src/github.com/rabbitmq").exists(),
        reason: "golang-github-rabbitmq-amqp091-go-dev and golang-go are not installed",
        package: None,
    },
    Need {
        tests: &[
            "daemon::data_folder::tests::root_without_the_capability_to_use_files_of_others_is_told_so",
            "tools::user::tests::capabilities_are_looked_at_and_not_the_user_alone",
        ],
        is_met: is_root,
        reason: "only root has the capabilities that it drops",
        package: None,
    },
];

/// Installs what `install` allows, and answers with the tests that cannot run, each of which is said with its reason. `filters`: those
/// of the run.
pub fn lacking(filters: &[String], install: bool) -> Vec<String> {
    let wanted = |test: &str| filters.is_empty() || filters.iter().any(|filter| test.contains(filter.as_str()));
    let needs = NEEDS.iter().filter(|need| need.tests.iter().any(|test| wanted(test)) && !(need.is_met)());
    let unmet: Vec<&Need> = needs.collect();
    let packages: Vec<&str> = unmet.iter().filter_map(|need| need.package).collect();
    if install && is_root() && !packages.is_empty() {
        // What cannot be installed is skipped by name like what may not be.
        if let Err(error) = debian_packages(&packages) {
            println!("install: {error:#}");
        }
    }
    let mut skipped = Vec::new();
    for need in unmet.into_iter().filter(|need| !(need.is_met)()) {
        for test in need.tests.iter().filter(|test| wanted(test)) {
            println!("skipped: {test}: {}", need.reason);
            skipped.push((*test).to_owned());
        }
    }
    skipped
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_with_a_need_exist_under_their_names() {
        let root = crate::workspace::root();
        let sources = [
            "host/src/db/postgres/tests/poolers.rs",
            "tests/e2e/tests/e2e/poolers.rs",
            "tests/e2e/tests/e2e/producers.rs",
            "tests/e2e/tests/e2e/metrics.rs",
            "host/src/daemon/data_folder.rs",
            "host/outbound/src/tools/user.rs",
        ];
        let text: String = sources.iter().map(|path| std::fs::read_to_string(root.join(path)).unwrap()).collect();
        for test in NEEDS.iter().flat_map(|need| need.tests) {
            let name = test.rsplit("::").next().unwrap();
            assert!(text.contains(&format!("fn {name}(")), "{test}");
        }
    }

    #[test]
    fn tests_that_are_not_wanted_are_not_said() {
        assert!(lacking(&["no::such::test".to_owned()], false).is_empty());
    }
}
