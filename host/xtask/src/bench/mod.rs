//! `cargo xtask bench`: the goals for speed in one run, beside Dramatiq and a bare loop over the same parts.
//!
//! ```text
//! stage (services with fsync, release builds, tools) ─▶ rows, each a goal, a measurement and a verdict ─▶ table | JSON | svg
//! ```
//!
//! Rows that are compared are measured in alternation, and ratios are taken within a round: machines change their speed while
//! a run lasts.

mod conditions;
mod daemon;
mod flood;
mod growth;
mod latency;
mod picture;
mod rest;
mod row;
mod sandbox;
mod stage;
mod start;
mod waiting;

use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;

use self::row::Row;
use self::stage::Stage;
use crate::workspace;
use crate::{Ending, services};

/// The names of the rows, in the order in which they are measured.
const NAMES: [&str; 9] = ["flood", "latency", "sandbox", "waiting", "start", "growth", "rest", "binary", "cold"];

#[derive(clap::Args)]
pub struct Args {
    /// Measure only these: flood, latency, sandbox, waiting, start, growth, rest, binary, cold.
    #[arg(long, num_args = 1.., value_name = "ROW", value_parser = NAMES)]
    only: Vec<String>,
    /// Rounds of what is compared.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    rounds: u8,
    /// Also measure the growth to a million rows.
    #[arg(long)]
    long: bool,
    /// Also measure from a fresh clone to the demo's end, which takes minutes.
    #[arg(long)]
    cold: bool,
    /// Print JSON after the table.
    #[arg(long)]
    json: bool,
    /// The picture of the throughput beside Dramatiq.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// As root on Debian: install PostgreSQL and RabbitMQ if they are missing.
    #[arg(long)]
    install: bool,
}

impl Args {
    fn wants(&self, name: &str) -> bool {
        if self.only.is_empty() { name != "cold" || self.cold } else { self.only.iter().any(|only| only == name) }
    }
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let found = services::find(args.install)?; // before minutes of building
    let stage = Stage::set(&found)?;
    let conditions = conditions::read(&stage)?;
    println!("\n{}\n", conditions.text());
    let mut rows = Vec::new();
    let mut floods = None;
    for name in NAMES.iter().filter(|name| args.wants(name)) {
        let measured = match *name {
            "flood" => flood::measure(&stage, args.rounds).map(|(rows, bars)| {
                floods = Some(bars);
                rows
            }),
            "latency" => latency::measure(&stage, args.rounds),
            "sandbox" => sandbox::measure(&stage, args.rounds),
            "waiting" => waiting::measure(&stage),
            "start" => start::measure(&stage),
            "growth" => growth::measure(&stage, args.long),
            "rest" => rest::idle(&stage),
            "binary" => rest::binary(&stage),
            _ => rest::cold(),
        };
        // One row that fails must not hide the others; a signal ends all.
        let measured = match measured {
            Ok(rows) => rows,
            Err(error) if error.downcast_ref::<Ending>().is_some() => return Err(error),
            Err(error) => vec![Row::failed(name, &error)],
        };
        measured.iter().for_each(|row| println!("{}", row.line()));
        rows.extend(measured);
    }
    println!("\n{}\n", conditions.text());
    print!("{}", row::table(&rows));
    if let Some(bars) = &floods {
        println!("\n{}", bars.counts());
        let whole = args.only.is_empty().then(|| workspace::root().join("host/bench.svg"));
        if let Some(path) = args.svg.clone().or(whole) {
            std::fs::write(&path, picture::draw(bars, &conditions))
                .with_context(|| format!("failed to write {}", path.display()))?;
            println!("picture: {}", path.display());
        }
    }
    if args.json {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        println!("{:#}", json!({"conditions": conditions.json(), "rows": rows}));
    }
    if rows.iter().any(Row::is_broken) { Err(Ending::Failed.into()) } else { Ok(()) }
}
