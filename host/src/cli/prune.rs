//! `agentry prune`.

use super::{Failed, migrate, output, settings};
use crate::daemon;
use crate::db::{AuditEntry, DbError, Halving, LOCAL, Prunable, PrunePlan, TableSize};
use chrono::SecondsFormat;
use serde_json::json;
use std::path::PathBuf;

/// Rows of one transaction: few, so that nobody waits for their locks.
const BATCH: u32 = 500;

/// Forget what is past its time (`retention.*`), as the daemon does in passing, but now and to the end.
#[derive(clap::Args)]
pub struct Prune {
    /// Say how much it would be and how large the tables are, and delete nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Prune {
    pub async fn run(self, file: Option<PathBuf>) -> Result<(), Failed> {
        let settings = settings(file, Vec::new())?;
        let db = daemon::database(&settings).await.map_err(migrate::failed)?;
        let failed = |error: DbError| migrate::failed(error.into());
        if self.dry_run {
            let plan = db.prunable(&settings.retention).await.map_err(failed)?;
            let sizes = db.sizes().await.map_err(failed)?;
            return match self.json {
                true => output::json(&json!({"prunable": plan, "tables": sizes})),
                false => output::data(&shown(&plan, &sizes)),
            };
        }
        let entry = AuditEntry {
            actor: LOCAL.into(),
            action: "prune".into(),
            target: "retention".into(),
            count: None,
            reason: None,
        };
        db.steering().audit(&entry).await.map_err(failed)?;
        // Not counted beforehand: in a table that is long overdue that alone may take longer than an operation may.
        let (mut deleted, mut size) = (0, Halving::new(BATCH as usize));
        loop {
            let batch = match db.prune(&settings.retention, size.size() as u32).await {
                Err(error) if error.is_timed_out() && size.timed_out(size.size()) => continue,
                result => result.map_err(failed)?,
            };
            if batch == 0 {
                break;
            }
            deleted += batch;
            output::progress(&format!("{deleted} deleted"));
        }
        loop {
            let changes = db.steering().prune_audit(settings.retention.audit, BATCH).await.map_err(failed)?;
            deleted += changes;
            if changes == 0 {
                break;
            }
        }
        output::progress("");
        match self.json {
            true => output::json(&json!({"deleted": deleted})),
            false => output::data(&format!("{deleted} deleted")),
        }
    }
}

fn kinds(plan: &PrunePlan) -> [(&'static str, Prunable); 4] {
    [("completed", plan.completed), ("failed", plan.failed), ("cancelled", plan.cancelled), ("dead letter", plan.dead)]
}

fn shown(plan: &PrunePlan, sizes: &[TableSize]) -> String {
    let kinds: Vec<_> = kinds(plan)
        .into_iter()
        .map(|(name, Prunable { count, oldest })| {
            let oldest = oldest.map_or("-".into(), |at| at.to_rfc3339_opts(SecondsFormat::Secs, true));
            vec![name.to_owned(), count.to_string(), oldest]
        })
        .collect();
    let tables: Vec<_> = sizes
        .iter()
        .map(|size| {
            let rows = if size.rows < 0 { "?".into() } else { size.rows.to_string() };
            let dead = size.dead.map_or("-".into(), |dead| dead.to_string());
            vec![size.table.clone(), rows, (size.bytes / 1_024).to_string(), dead]
        })
        .collect();
    let kinds = output::table(&["past its time", "count", "oldest"], &kinds);
    format!("{kinds}\n{}", output::table(&["table", "rows", "KiB", "dead"], &tables))
}
