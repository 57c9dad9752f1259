//! Each defence is taken away in turn, and something that holds with it must break: a defence that no test misses is not
//! tested.
//!
//! In `--full` only. The names come from the daemon itself, so that none is forgotten. A daemon without a defence is bounded
//! from outside: by lower ceilings, and in what memory it may have.
//!
//! `AGENTRY_TEST_DEFENCES=cpu,yield` takes away only these.

use std::net::TcpListener;
use std::process::Stdio;

use adversary::cases::files::{self, CEILINGS, Refused};
use adversary::outside::{self, Attack};
use adversary::{Case, Stage, Table, cases, guest, install, oracle};
use e2e::{Mode, Setup, Site, daemon, plugin, variables};

use crate::attacks::{ECHO, served, setup};
use crate::{bomb, scenes};

/// Defences that another stands before, so that nothing changes when they alone are gone.
const BEHIND: &[(&str, &str)] = &[
    (
        "component_size",
        "the registry reads no more of a file than component_mib before the sandbox sees it; shown in the sandbox's own tests",
    ),
    ("memory_matches", "the database answers with no more than 100 entries either"),
];

#[tokio::test]
#[ignore = "one daemon for each defence"]
async fn no_defence_is_missed_by_nobody() {
    let _beside = adversary::MACHINE.read().await;
    let door = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = door.local_addr().expect("its address").port();
    let cases: Vec<Case> = cases::all().into_iter().chain([cases::network(port)]).collect();
    let files = files::all(b"\x7fELF".to_vec());
    let mut table = Table::new("without each defence");
    let granted = outside::all();
    for defence in asked(known().await) {
        let name = defence.as_str();
        let change = |setup: Setup| setup.faulty().variable("AGENTRY_WITHOUT", name);
        let mut shown = 0;
        let mut add = |what: &str, red: Vec<String>| {
            shown += 1;
            let missed = if red.is_empty() { vec!["nobody misses it".to_owned()] } else { Vec::new() };
            table.row(name, &oracle::cut(&format!("{what}: {}", red.join("; "))), "", &missed);
        };
        for case in cases.iter().filter(|case| case.shows.contains(&name)) {
            add(case.id, attacked(case, name).await);
        }
        for refused in files.iter().filter(|refused| refused.shows.contains(&name)) {
            add(refused.id, loaded(refused, name).await);
        }
        let through: Vec<Attack> = granted.iter().filter(|attack| attack.shows.contains(&name)).cloned().collect();
        if !through.is_empty() {
            for (id, red) in crate::granted::play(&through, &change).await {
                // Whether the next one completes is told, and no attack of its own.
                if through.iter().any(|attack| attack.id == id) {
                    add(id, red);
                }
            }
        }
        for run in outside::by_hand().iter().filter(|run| run.limit == name) {
            add("a run by hand", crate::granted::by_hand(run, Some(name)).await);
        }
        match name {
            "yield" => add("a crowd that computes", scenes::crowd(&change).await),
            "stop" => add("a loop that is called off", scenes::called_off(&change).await),
            "compiled_code" => add("compiled code of another", scenes::stolen_code(&change).await),
            "panics" => add("the host panics in a guest", scenes::host_panics(&change).await),
            "budget" => add("many that grow together", scenes::together(&change).await),
            "compile_time" => add("a component that takes long", bomb::long(&change).await),
            "compile_memory" => add("a component that takes much", bomb::large(&change).await),
            _ => {}
        }
        if shown == 0 {
            let behind = BEHIND.iter().find(|(known, _)| *known == name).map(|(_, reason)| *reason);
            match behind {
                Some(reason) => table.row(name, reason, "", &[]),
                None => table.row(name, "", "", &["no case shows it".to_owned()]),
            }
        }
    }
    table.hold();
}

/// Those that are to be taken away: every one, unless `AGENTRY_TEST_DEFENCES` names some.
fn asked(known: Vec<String>) -> Vec<String> {
    let names = std::env::var("AGENTRY_TEST_DEFENCES").unwrap_or_default();
    if names.is_empty() {
        return known;
    }
    let asked: Vec<String> = names.split(',').map(|name| name.trim().to_owned()).collect();
    // Of a name that is none nothing would be shown, and that would read as passed.
    let none = asked.iter().find(|name| !known.contains(name));
    assert_eq!(none, None, "AGENTRY_TEST_DEFENCES names what is no defence; known are {}", known.join(", "));
    asked
}

/// Every defence, as the daemon with faults on demand names them.
async fn known() -> Vec<String> {
    let site = scenes::site_for_settings().await;
    let mut command = std::process::Command::new(variables::faulty_binary());
    command.env_clear().current_dir(site.folder()).stdin(Stdio::null()).env("AGENTRY_WITHOUT", "nonesuch");
    command.arg("run").arg(plugin::built("probe")).args(["--input", "{}"]);
    let ended = daemon::run_command(&mut command).await;
    ended.expect(2, &["known are "]);
    let names = ended.stderr.split("known are ").nth(1).expect("a list").lines().next().unwrap_or_default();
    names.split(',').map(|name| name.trim().to_owned()).collect()
}

fn weakened(setup: Setup, defence: &str) -> Setup {
    setup.faulty().variable("AGENTRY_WITHOUT", defence)
}

/// What is wrong when a case is played without a defence.
async fn attacked(case: &Case, defence: &str) -> Vec<String> {
    let site = Site::new(Mode::Services).await;
    // What the ceiling lets through is more than what the case allows, and no danger.
    let setup = setup(&site, std::slice::from_ref(case)).set("limits.max.memory_mib", 128);
    let daemon = weakened(setup, defence).start().await;
    let mut stage = Stage::new(&site, &daemon, ECHO);
    crate::attacks::warm(&mut stage).await;
    let seen = stage.play(case).await;
    oracle::violations(case, &seen)
}

/// What is wrong when a file is put where plugins belong without a defence.
async fn loaded(refused: &Refused, defence: &str) -> Vec<String> {
    let site = Site::new(Mode::Services).await;
    let plugins = site.folder().join("plugins");
    let setup = CEILINGS.iter().fold(setup(&site, &[]), |setup, (name, value)| setup.set(name, *value));
    let daemon = weakened(setup, defence).start().await;
    let stage = Stage::new(&site, &daemon, ECHO);
    install::install(&plugins, "kept", install::LIMITS, &install::bytes(&guest::Guest::default().into()));
    served(&daemon, "kept").await;
    refused.put(&plugins, refused.id, "0.1.0");
    crate::files::cause(&stage, refused, refused.id).await.into_iter().collect()
}
