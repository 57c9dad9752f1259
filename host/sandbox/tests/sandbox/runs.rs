//! What a run gives back.

use std::time::Duration;

use agentry_sandbox::Outcome;
use tokio::time::Instant;

use crate::guest::{CONTEXT, Guest, SLEEP, handle, quoted, returns};
use crate::house::*;

#[tokio::test]
async fn an_output_is_returned_byte_for_byte() {
    let ran = run(&returns(" {\"b\":1, \"a\": 1.0} ")).await;
    assert_eq!(ran.outcome, Outcome::Output(" {\"b\":1, \"a\": 1.0} ".to_owned()));
    assert!(ran.usage.wall > Duration::ZERO && ran.usage.cpu > Duration::ZERO);
    assert!(ran.usage.instantiate > Duration::ZERO && ran.usage.instantiate < ran.usage.wall);
    assert_eq!(ran.usage.peak_memory, 64 << 10);
    assert_eq!(ran.usage.host_calls, 0);
}

#[tokio::test]
async fn the_guest_is_given_the_whole_task() {
    // Writes `["<id>",<attempt>,<max-attempts>]`, each number one digit.
    let guest = Guest {
        core: "(data (i32.const 1024) \"[\\22\")".to_owned(),
        ..handle(
            "(memory.copy (i32.const 1026) (local.get $id) (local.get $id-len))
             (i32.store8 (i32.add (i32.const 1026) (local.get $id-len)) (i32.const 0x22))
             (i32.store8 (i32.add (i32.const 1027) (local.get $id-len)) (i32.const 0x2c))
             (i32.store8 (i32.add (i32.const 1028) (local.get $id-len)) (i32.add (i32.const 0x30) (local.get $attempt)))
             (i32.store8 (i32.add (i32.const 1029) (local.get $id-len)) (i32.const 0x2c))
             (i32.store8 (i32.add (i32.const 1030) (local.get $id-len)) (i32.add (i32.const 0x30) (local.get $max-attempts)))
             (i32.store8 (i32.add (i32.const 1031) (local.get $id-len)) (i32.const 0x5d))
             (call $ok (i32.const 1024) (i32.add (i32.const 8) (local.get $id-len)))",
        )
    };
    let plugin = load(&guest).await;
    let mut invocation = invocation("null");
    invocation.attempt = 2;
    let id = invocation.task_id.clone();
    assert_eq!(plugin.run(invocation).await.outcome, Outcome::Output(format!("[\"{id}\",2,3]")));
}

/// A guest that returns a failure: the bytes of `result<string, failure>` from offset 4 on.
fn fails(fields: &[(u32, u32)]) -> Guest {
    let mut body = "(i32.store8 (i32.const 512) (i32.const 1))".to_owned();
    for (offset, value) in fields {
        body += &format!("(i32.store (i32.const {}) (i32.const {value}))", 512 + offset);
    }
    Guest {
        core: format!("(data (i32.const 1024) {})", quoted("later{\"n\":1}")),
        ..handle(&(body + "(i32.const 512)"))
    }
}

#[tokio::test]
async fn what_the_guest_says_on_purpose_is_the_outcome() {
    let message = [(8, 1024), (12, 5)];
    let code = [(16, 1), (20, 1024), (24, 5)];
    let data = [(28, 1), (32, 1029), (36, 7)];
    let retry = [&[(4, 0)][..], &message, &code, &data, &[(40, 1), (44, 2_500)]].concat();
    assert_eq!(
        run(&fails(&retry)).await.outcome,
        Outcome::Retry {
            message: "later".to_owned(),
            code: Some("later".to_owned()),
            data: Some("{\"n\":1}".to_owned()),
            after: Some(Duration::from_millis(2_500)),
        }
    );
    let permanent = [&[(4, 1)][..], &message].concat();
    assert_eq!(
        run(&fails(&permanent)).await.outcome,
        Outcome::Permanent { message: "later".to_owned(), code: None, data: None }
    );
    let invalid = [&[(4, 2)][..], &message].concat();
    assert_eq!(
        run(&fails(&invalid)).await.outcome,
        Outcome::InvalidInput { message: "later".to_owned(), pointer: None }
    );
    let snooze = [&[(4, 3)][..], &message, &[(16, 1)]].concat();
    assert_eq!(
        run(&fails(&snooze)).await.outcome,
        Outcome::Snooze { message: "later".to_owned(), after: Duration::from_secs(1) }
    );
}

#[tokio::test]
async fn every_run_sees_a_fresh_instance() {
    // Returns what is in memory and in a global, and changes both, and writes over its own code's data.
    let guest = Guest {
        core: "(global $seen (mut i32) (i32.const 0)) (data (i32.const 1024) \"00\")".to_owned(),
        ..handle(
            "(i32.store8 (i32.const 2048) (i32.add (i32.load8_u (i32.const 1024)) (global.get $seen)))
             (i32.store8 (i32.const 1024) (i32.const 0x39))
             (i32.store8 (i32.const 60000) (i32.const 0x39))
             (global.set $seen (i32.const 1))
             (call $ok (i32.const 2048) (i32.const 1))",
        )
    };
    let plugin = load(&guest).await;
    for _ in 0..50 {
        assert_eq!(plugin.run(invocation("null")).await.outcome, Outcome::Output("0".to_owned()));
    }
}

#[tokio::test]
async fn a_slot_that_was_used_holds_nothing_of_the_last_guest() {
    // One writes all over its memory after growing it, the other looks for anything but zeroes.
    let writer = Guest {
        core: "(data (i32.const 1024) \"null\")".to_owned(),
        ..handle(
            "(drop (memory.grow (i32.const 99)))
             (memory.fill (i32.const 4096) (i32.const 0x41) (i32.const 6549504))
             (call $ok (i32.const 1024) (i32.const 4))",
        )
    };
    let reader = Guest {
        core: "(data (i32.const 1024) \"null\")".to_owned(),
        ..handle(
            "(local $at i32)
             (drop (memory.grow (i32.const 99)))
             (local.set $at (i32.const 65536))
             (loop $next
               (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then unreachable))
               (local.set $at (i32.add (local.get $at) (i32.const 8)))
               (br_if $next (i32.lt_u (local.get $at) (i32.const 6553600))))
             (call $ok (i32.const 1024) (i32.const 4))",
        )
    };
    let (writer, reader) = (load(&writer).await, load(&reader).await);
    for _ in 0..20 {
        assert_eq!(writer.run(invocation("null")).await.outcome, Outcome::Output("null".to_owned()));
        assert_eq!(reader.run(invocation("null")).await.outcome, Outcome::Output("null".to_owned()));
    }
}

#[tokio::test]
async fn a_guest_that_is_stopped_ends_as_stopped() {
    for guest in [handle("(loop $l (br $l)) unreachable"), sleeps()] {
        let plugin = load(&guest).await;
        let invocation = invocation("null");
        let stop = invocation.stop.clone();
        let running = tokio::spawn(async move { plugin.run(invocation).await });
        tokio::task::yield_now().await;
        stop.cancel();
        let ran = tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap();
        assert_eq!(ran.outcome, Outcome::Stopped);
    }
    honest().await;
}

/// Waits for ever in a host call.
pub fn sleeps() -> Guest {
    handle("(call $block (call $subscribe (i64.const -1))) unreachable").with(SLEEP)
}

#[tokio::test]
async fn a_guest_that_computes_lets_others_run_on_the_same_thread() {
    let (busy, honest) = (load(&handle("(loop $l (br $l)) unreachable")).await, load(&Guest::default()).await);
    let invocation_of_busy = invocation("null");
    let stop = invocation_of_busy.stop.clone();
    let running = tokio::spawn(async move { busy.run(invocation_of_busy).await });
    for _ in 0..10 {
        tokio::task::yield_now().await;
        assert_eq!(honest.run(invocation("1")).await.outcome, Outcome::Output("1".to_owned()));
    }
    stop.cancel();
    assert_eq!(running.await.unwrap().outcome, Outcome::Stopped);
}

#[tokio::test]
async fn a_run_that_is_dropped_gives_its_place_back() {
    for _ in 0..3 {
        let plugin = load(&sleeps()).await;
        let mut running: Vec<_> = (0..SLOTS).map(|_| Box::pin(plugin.run(invocation("null")))).collect();
        for run in &mut running {
            assert!(poll_once(run).is_none());
        }
        drop(running);
    }
    honest().await;
}

/// Polls a future once.
fn poll_once<F: Future>(future: &mut std::pin::Pin<Box<F>>) -> Option<F::Output> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut cx) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_slots_run_at_once_and_one_more_waits_for_a_place() {
    let plugin = load(&handle(
        "(call $block (call $subscribe (i64.const 100000000))) (call $ok (local.get $input) (local.get $input-len))",
    ).with(SLEEP))
    .await;
    let began = Instant::now();
    let runs: Vec<_> = (0..SLOTS + 1)
        .map(|n| {
            let plugin = plugin.clone();
            tokio::spawn(async move { (n, plugin.run(invocation(&n.to_string())).await) })
        })
        .collect();
    for run in runs {
        let (n, ran) = run.await.unwrap();
        assert_eq!(ran.outcome, Outcome::Output(n.to_string()));
    }
    // One after the other they would take 25 seconds.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_guest_can_ask_about_its_attempt() {
    // `[remaining > 0, name, version, first label's key, first label's value]`, as addresses and lengths of the host's.
    let guest = Guest {
        core: "(func $put (param $to i32) (param $from i32) (result i32)
                 (i32.store8 (local.get $to) (i32.const 0x22))
                 (memory.copy (i32.add (local.get $to) (i32.const 1)) (i32.load (local.get $from)) (i32.load offset=4 (local.get $from)))
                 (local.set $to (i32.add (i32.add (local.get $to) (i32.const 1)) (i32.load offset=4 (local.get $from))))
                 (i32.store8 (local.get $to) (i32.const 0x22))
                 (i32.store8 offset=1 (local.get $to) (i32.const 0x2c))
                 (i32.add (local.get $to) (i32.const 2)))"
            .to_owned(),
        ..handle(
            "(local $to i32)
             (if (i32.eqz (call $remaining-ms)) (then unreachable))
             (if (i32.gt_u (call $remaining-ms) (i32.const 60000)) (then unreachable))
             (i32.store8 (i32.const 1024) (i32.const 0x5b))
             (call $plugin-name (i32.const 64))
             (local.set $to (call $put (i32.const 1025) (i32.const 64)))
             (call $plugin-version (i32.const 64))
             (local.set $to (call $put (local.get $to) (i32.const 64)))
             (call $labels (i32.const 64))
             (local.set $to (call $put (local.get $to) (i32.load (i32.const 64))))
             (local.set $to (call $put (local.get $to) (i32.add (i32.load (i32.const 64)) (i32.const 8))))
             (i32.store8 (i32.sub (local.get $to) (i32.const 1)) (i32.const 0x5d))
             (call $ok (i32.const 1024) (i32.sub (local.get $to) (i32.const 1024)))",
        )
    }
    .with(CONTEXT);
    let plugin = load(&guest).await;
    let mut invocation = invocation("null");
    invocation.labels = vec![("z".to_owned(), "last".to_owned()), ("a".to_owned(), "first".to_owned())];
    let ran = plugin.run(invocation).await;
    assert_eq!(ran.outcome, Outcome::Output("[\"guest\",\"0.1.0\",\"a\",\"first\"]".to_owned()));
    assert_eq!(ran.usage.host_calls, 5);
}
