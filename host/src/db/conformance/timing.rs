//! How long the hot path takes. Not a test of a limit: prints, for a person who asks.

use super::subject::*;
use crate::db::ClaimAnswer;
use std::time::{Duration, Instant};

/// Claim and settle batches of 256, and print the median of each.
pub async fn timing(s: &Subject, name: &str) {
    let host = s.host().await;
    let (mut claims, mut settles) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        let arrivals: Vec<_> = (0..256).map(|_| arrival()).collect();
        let start = Instant::now();
        let answers = s.db.claim(steady(host), &arrivals).await.unwrap();
        claims.push(start.elapsed());
        let batch: Vec<_> = arrivals
            .iter()
            .zip(&answers)
            .map(|(arrival, answer)| match answer {
                ClaimAnswer::Run(claimed) => {
                    let mut settlement = settlement(arrival, claimed, completed());
                    settlement.logs = vec![line(1, "", "counted")];
                    settlement
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let start = Instant::now();
        s.db.settle(host, &batch).await.unwrap();
        settles.push(start.elapsed());
    }
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let (claim, settle) = (median(claims), median(settles));
    let rate = 256.0 / (claim + settle).as_secs_f64();
    eprintln!(
        "{name}: claim of 256 {claim:?}, settle of 256 {settle:?} with a log line each: {rate:.0} tasks/s in turn"
    );
}
