//! What a guest logs, and how much of it.

use std::sync::{Arc, Mutex};

use agentry_sandbox::{Level, Outcome, Stream};

use crate::guest::{Guest, LOGGING, STREAMS, handle};
use crate::house::*;

#[tokio::test]
async fn lines_of_all_three_streams_are_kept_in_order() {
    let guest = Guest {
        core: "(data (i32.const 1024) \"nullout\\nerr\\0a\\fflogger\")".to_owned(),
        ..handle(
            "(call $write (call $stdout) (i32.const 1028) (i32.const 4) (i32.const 64))
             (call $log (i32.const 4) (i32.const 1037) (i32.const 6) (i32.const 1024) (i32.const 4))
             (call $write (call $stderr) (i32.const 1032) (i32.const 5) (i32.const 64))
             (call $ok (i32.const 1024) (i32.const 4))",
        )
    }
    .with(LOGGING)
    .with(STREAMS);
    let plugin = load(&guest).await;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let mut invocation = invocation("null");
    let sink = heard.clone();
    invocation.on_log = Some(Arc::new(move |line| sink.lock().unwrap().push(line.clone())));
    let ran = plugin.run(invocation).await;
    assert_eq!(ran.outcome, Outcome::Output("null".to_owned()));
    let told: Vec<_> = ran
        .logs
        .iter()
        .map(|line| (line.seq, line.stream, line.level, line.logger.as_str(), line.message.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (1, Stream::Stdout, Level::Info, "", "out"),
            (2, Stream::Log, Level::Error, "logger", "null"),
            (3, Stream::Stderr, Level::Warn, "", "err"),
            (4, Stream::Stderr, Level::Warn, "", "\u{fffd}"),
        ]
    );
    assert_eq!(*heard.lock().unwrap(), ran.logs);
    assert_eq!(ran.usage.log_bytes, 3 + 10 + 3 + 3);
}

/// Writes 4 KiB to standard output, some thousand times.
fn floods(byte: u8) -> Guest {
    Guest {
        core: "(data (i32.const 1024) \"null\")".to_owned(),
        ..handle(&format!(
            "(local $n i32) (local $out i32)
             (memory.fill (i32.const 4096) (i32.const {byte}) (i32.const 4096))
             (local.set $out (call $stdout))
             (local.set $n (i32.const 5000))
             (loop $l
               (call $write (local.get $out) (i32.const 4096) (i32.const 4096) (i32.const 64))
               (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
             (call $ok (i32.const 1024) (i32.const 4))"
        ))
    }
    .with(STREAMS)
}

#[tokio::test]
async fn one_endless_line_is_one_cut_line() {
    let ran = run(&floods(b'x')).await;
    assert_eq!(ran.outcome, Outcome::Output("null".to_owned()), "a cut log is no failure");
    assert_eq!(ran.logs.len(), 1);
    assert!(ran.logs[0].cut);
    assert_eq!(ran.logs[0].message.len(), 8 << 10);
    assert_eq!(ran.usage.log_bytes, 8 << 10);
}

#[tokio::test]
async fn twenty_million_lines_end_in_one_that_says_so() {
    let ran = run(&floods(b'\n')).await;
    assert_eq!(ran.outcome, Outcome::Output("null".to_owned()));
    assert_eq!(ran.logs.len(), 2_001);
    let last = ran.logs.last().unwrap();
    assert!(last.cut && last.message.contains("log_lines = 2000"), "{last:?}");
    assert!(ran.logs[..2_000].iter().all(|line| !line.cut));
}
