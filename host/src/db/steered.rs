//! Rows of brakes and of recorded changes, alike from both databases.

use super::cells::{Cells, need};
use super::fault::Fault;
use super::plan::BrakeRow;
use super::{AuditRow, Brake, BrakeKind, News, WaitingByQueue};

/// Columns: `id` of a task that is to end, or the columns of `brakes` with whether it is `held`.
pub(super) fn news<R: Cells>(rows: &[R]) -> Result<News, Fault> {
    let mut news = News::default();
    for row in rows {
        if let Some(id) = row.id("id")? {
            news.to_end.push(id);
            continue;
        }
        news.brakes.change = news.brakes.change.max(need(row.int("change")?, "change")?);
        let kind = need(row.text("kind")?, "kind")?;
        // A newer build may know other kinds.
        let Some(kind) = BrakeKind::parse(&kind).filter(|_| matches!(row.flag("held"), Ok(true))) else { continue };
        news.brakes.held.push(Brake {
            kind,
            target: need(row.text("target")?, "target")?,
            by: need(row.text("actor")?, "actor")?,
            reason: row.text("reason")?,
            since: need(row.time("set_at")?, "set_at")?,
        });
    }
    news.brakes.held.sort_by(|a, b| (a.kind, &a.target).cmp(&(b.kind, &b.target)));
    Ok(news)
}

/// Columns: those of `brakes`, all null where there is no row.
pub(super) fn brake_row(row: &impl Cells) -> Result<Option<BrakeRow>, Fault> {
    let Some(actor) = row.text("actor")? else { return Ok(None) };
    Ok(Some(BrakeRow {
        actor,
        reason: row.text("reason")?,
        set_at: need(row.time("set_at")?, "set_at")?,
        released_at: row.time("released_at")?,
    }))
}

pub(super) fn audit(row: &impl Cells) -> Result<AuditRow, Fault> {
    Ok(AuditRow {
        id: need(row.int("id")?, "id")?,
        at: need(row.time("at")?, "at")?,
        actor: need(row.text("actor")?, "actor")?,
        action: need(row.text("action")?, "action")?,
        target: need(row.text("target")?, "target")?,
        count: row.int("count")?,
        reason: row.text("reason")?,
    })
}

/// Columns: `queue`, `waiting`.
pub(super) fn waiting_of<R: Cells>(rows: &[R], limit: u32) -> Result<WaitingByQueue, Fault> {
    let counted = |row: &R| Ok::<_, Fault>((need(row.text("queue")?, "queue")?, need(row.int("waiting")?, "waiting")?));
    let queues = rows.iter().map(counted).collect::<Result<Vec<_>, _>>()?;
    let more = queues.iter().map(|(_, waiting)| waiting).sum::<i64>() >= i64::from(limit);
    Ok(WaitingByQueue { queues, more })
}
