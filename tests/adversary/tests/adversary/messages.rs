//! Messages that would break whoever reads them: letters for the dead, and no crashes.

use std::time::Duration;

use adversary::Table;
use adversary::process::Process;
use adversary::vigil::Vigil;
use e2e::amqp::Outgoing;
use e2e::invariants::{self, Expected};
use e2e::{Mode, Site, Task, eventually};
use serde_json::json;

use crate::attacks::{ECHO, setup};

/// By how much resident memory may rise for a message, in KiB.
const RISE: u64 = 64 << 10;

fn bodies() -> Vec<(&'static str, Outgoing)> {
    let input = |input: &str| Outgoing::json(format!(r#"{{"plugin": "{ECHO}", "input": {input}}}"#));
    let nested = |open: &str, close: &str, deep: usize| input(&format!("{}1{}", open.repeat(deep), close.repeat(deep)));
    vec![
        ("lists 100,000 deep", nested("[", "]", 100_000)),
        ("objects 100,000 deep", nested("{\"a\":", "}", 100_000)),
        ("lists 400,000 deep that never end", input(&"[".repeat(400_000))),
        ("a key of 900 KB", Outgoing::json(format!(r#"{{"{}": 1}}"#, "k".repeat(900_000)))),
        (
            "a plugin's name of 900 KB",
            Outgoing::json(format!(r#"{{"plugin": "{}", "input": 1}}"#, "p".repeat(900_000))),
        ),
        (
            "escapes in a plugin's name",
            Outgoing::json(r#"{"plugin": "\u001b[2J\n1999-12-31T23:59:59.999999Z", "input": 1}"#),
        ),
        ("2 MiB", input(&format!("\"{}\"", "x".repeat(2 << 20)))),
        ("15 MiB", input(&format!("\"{}\"", "x".repeat(15 << 20)))),
        ("a header of 90 KB", input("1").header("agentry-plugin", &"h".repeat(90_000))),
        (
            "options 50,000 deep",
            Outgoing::json("1").header("agentry-plugin", ECHO).header("agentry-options", &"[".repeat(50_000)),
        ),
        ("half a pair in bytes", Outgoing::json(*b"{\"plugin\": \"echo\", \"input\": \"\xed\xa0\x80\"}")),
    ]
}

#[tokio::test]
async fn a_message_that_would_break_its_reader_is_a_dead_letter() {
    let _beside = adversary::MACHINE.read().await;
    let site = Site::new(Mode::Services).await;
    let daemon = setup(&site, &[]).start().await;
    let (process, vigil) = (Process(daemon.pid()), Vigil::over(daemon.http().base()));
    process.bound(2_048);
    let database = site.database().await;
    let mut table = Table::new("messages");
    let mut ids = Vec::new();
    for (count, (what, message)) in bodies().into_iter().enumerate() {
        let watch = process.watch();
        let body = message.body.len() as u64 >> 10;
        site.amqp().publish(site.prefix(), "default", [message]).await;
        let letters = eventually(&format!("{what} is a dead letter"), async || {
            let letters = database.dead_letters().await;
            if letters.len() > count {
                Ok(letters)
            } else {
                Err(format!("{} letters; {}", letters.len(), daemon.said()))
            }
        })
        .await;
        let honest = Task::new(ECHO, json!(count));
        site.publish(std::slice::from_ref(&honest)).await;
        assert_eq!(daemon.http().ended(honest.id).await["output"], count);
        ids.push(honest.id);
        let (letter, rise) = (letters.last().expect("a letter"), watch.rise());
        let mut wrong = vigil.take().bad;
        // The body may be there a few times: as it came, as it is kept, on its way on.
        if rise > RISE + 8 * body {
            wrong.push(format!("memory rose by {} MiB", rise >> 10));
        }
        if letter.detail.len() > 8 << 10 || letter.reason.len() > 100 {
            wrong.push(format!("a detail of {} bytes", letter.detail.len()));
        }
        table.row(what, &format!("dead letter: {}", letter.reason), &format!("{:>+5} MiB", rise >> 10), &wrong);
    }
    table.hold();
    assert!(!daemon.said().contains('\u{1b}'), "the daemon's own log");
    drop(vigil);
    let expected = Expected { dead_letters: bodies().len(), all_complete: true, ..Expected::default() };
    invariants::hold(&site, daemon, &ids, expected).await;
}

#[tokio::test]
async fn inputs_and_labels_at_the_edge_of_what_is_allowed_are_run() {
    let _beside = adversary::MACHINE.read().await;
    let site = Site::new(Mode::Services).await;
    let limits = [("hostcall_kib", 2_048), ("output_kib", 2_048)];
    adversary::install::install(
        &site.folder().join("plugins"),
        "large",
        &limits,
        &adversary::install::bytes(&adversary::guest::Guest::default().into()),
    );
    let daemon = setup(&site, &[]).start().await;
    let labels: serde_json::Map<_, _> =
        (0..16).map(|n| (format!("{n:0>64}"), json!("\u{1}\u{1b}\u{7f}é".repeat(12)))).collect();
    let tasks = [
        Task::new("large", json!("x".repeat((1 << 20) - 300))),
        Task::new("large", json!("\u{0}\u{1b}[2J\u{202e}")),
        Task::new("large", serde_json::from_str(&format!("{}1{}", "[".repeat(100), "]".repeat(100))).expect("JSON")),
        Task::new(ECHO, json!(1)).option("labels", labels),
    ];
    for task in &tasks {
        site.publish(std::slice::from_ref(task)).await;
        let ended = daemon.http().ended(task.id).await;
        assert_eq!(ended["state"], "completed", "{}", ended["failure"]);
        assert!(ended["output"] == task.input, "what was echoed is what was sent");
    }
    let ids = e2e::task::ids(&tasks);
    tokio::time::timeout(
        Duration::from_secs(600),
        invariants::hold(&site, daemon, &ids, Expected { all_complete: true, ..Expected::default() }),
    )
    .await
    .expect("they hold");
}
