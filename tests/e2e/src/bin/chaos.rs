//! The program behind `cargo xtask chaos`: `chaos faults SECONDS SEED RATE`, or `chaos soak TASKS RATE`. It starts its
//! broker and its database itself, since it kills them.

#![allow(clippy::print_stdout, reason = "its output is its answer")]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use e2e::chaos::{self, Plan, soak};

// One thread: whatever it starts ends with the thread that started it.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let good = match words.as_slice() {
        ["faults", seconds, seed, rate] => {
            let plan = Plan::full(Duration::from_secs(seconds.parse()?), seed.parse()?, rate.parse()?);
            let report = chaos::run(plan).await;
            println!("{report}");
            report.violations().is_empty()
        }
        ["soak", tasks, rate] => {
            let soaked = soak::run(tasks.parse()?, rate.parse()?).await;
            println!("{soaked}");
            soaked.is_complete() && soaked.is_flat()
        }
        _ => bail!("usage: chaos faults SECONDS SEED RATE | chaos soak TASKS RATE"),
    };
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
