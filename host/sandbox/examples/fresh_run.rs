//! What one run costs: a fresh store, instantiation, the call, the drop.
//!
//! ```text
//! cargo run --release -p agentry-sandbox --example fresh_run -- plugin.wasm '{"text":"a b c"}' [tasks] [workers] [cache]
//! ```
//!
//! Measure with more than one worker, too: what costs little on one thread may be a lock that all threads share. `cache` is a
//! folder for compiled code: a component with an interpreter in it takes a minute to compile.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agentry_sandbox::{Grants, Invocation, Limits, Outcome, Plugin, Sandbox, SandboxConfig};
use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;

/// CPU time of the whole process, the ticker and the runtime included.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(file), Some(input)) = (args.next(), args.next()) else {
        return Err("usage: fresh_run COMPONENT INPUT [TASKS] [WORKERS]".into());
    };
    let tasks: u32 = args.next().map_or(Ok(100_000), |text| text.parse())?;
    let workers: usize = args.next().map_or(Ok(1), |text| text.parse())?;
    let cache_dir = args.next().map(PathBuf::from);

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    runtime.block_on(async {
        let compile_timeout = Duration::from_secs(600);
        let sandbox = Sandbox::new(SandboxConfig { cache_dir, compile_timeout, ..SandboxConfig::default() })?;
        let began = Instant::now();
        let plugin = sandbox
            .load(std::fs::read(file)?.into(), &Grants::default())
            .await?;
        println!("load {:?}", began.elapsed());

        let input: Arc<str> = input.into();
        let ran = plugin.run(invocation(&input)).await;
        println!("first {:?}: {:?}", ran.usage.wall, ran.outcome);
        if !matches!(ran.outcome, Outcome::Output(_)) {
            return Err("the first run did not return an output".into());
        }

        let (began, used) = (Instant::now(), cpu());
        let each = tasks / u32::try_from(workers)?;
        let running: Vec<_> = (0..workers)
            .map(|_| tokio::spawn(worker(plugin.clone(), input.clone(), each)))
            .collect();
        let mut instantiate = Duration::ZERO;
        for worker in running {
            instantiate += worker.await?;
        }
        let (took, used, ran) = (began.elapsed(), cpu() - used, each * u32::try_from(workers)?);
        println!(
            "{ran} runs in {took:?} on {workers} workers: {:?} each per worker, of it {:?} to instantiate; {:?} of CPU; {:.0} per \
             second",
            took * u32::try_from(workers)? / ran,
            instantiate / ran,
            used / ran,
            f64::from(ran) / took.as_secs_f64(),
        );
        Ok(())
    })
}

async fn worker(plugin: Plugin, input: Arc<str>, runs: u32) -> Duration {
    let mut instantiate = Duration::ZERO;
    for _ in 0..runs {
        instantiate += plugin.run(invocation(&input)).await.usage.instantiate;
    }
    instantiate
}

fn invocation(input: &Arc<str>) -> Invocation {
    Invocation {
        task_id: "01920c3e-0000-7000-8000-000000000000".to_owned(),
        attempt: 1,
        max_attempts: 3,
        input: input.clone(),
        plugin_name: "bench".into(),
        plugin_version: "0.1.0".into(),
        labels: Vec::new(),
        limits: Limits::default(),
        memory: None,
        turn: None,
        deadline: None,
        stop: CancellationToken::new(),
        on_log: None,
        access: agentry_sandbox::Access::default(),
        bodies: agentry_sandbox::Bodies::default(),
    }
}
