//! What an attempt left besides its end: log lines, calls and their bodies.

use super::super::super::cells::stamp;
use super::super::super::fault::Fault;
use super::super::super::plan::{self, Outcome, call_detail, counted};
use super::super::super::storable;
use super::{Ended, json};
use sqlx::{SqliteConnection, query};

statements! {
    /// The lines of all attempts at once.
    LOGS = "INSERT INTO task_logs (task_id, seq, at, attempt, stream, level, logger, message, cut)
        SELECT l.value ->> 0, l.value ->> 1, l.value ->> 2, l.value ->> 3, l.value ->> 4, l.value ->> 5, l.value ->> 6,
            l.value ->> 7, l.value ->> 8
        FROM json_each(?1) l";
    /// The calls of all attempts at once.
    CALLS = "INSERT INTO task_calls (task_id, fence, attempt, seq, at, capability, operation, target, duration_us,
            request_bytes, response_bytes, result, detail)
        SELECT c.value ->> '$[0][0]', c.value ->> '$[0][1]', c.value ->> '$[0][2]', c.value ->> '$[0][3]',
            c.value ->> '$[0][4]', c.value ->> '$[1][0]', c.value ->> '$[1][1]', c.value ->> '$[1][2]',
            c.value ->> '$[1][3]', c.value ->> '$[1][4]', c.value ->> '$[1][5]', c.value ->> '$[1][6]',
            c.value ->> '$[1][7]'
        FROM json_each(?1) c";
    BODIES = "INSERT INTO task_call_bodies (task_id, fence, seq, request_body_bytes, response_body_bytes, request_body,
            response_body)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
}

/// Write them; most attempts have none.
pub(super) async fn write(connection: &mut SqliteConnection, ended: &[(&Outcome<'_>, Ended)]) -> Result<(), Fault> {
    let mut lines = Vec::new();
    for (outcome, row) in ended {
        let before = row.log_seq - outcome.logs.len() as i64;
        for (line, seq) in outcome.logs.iter().zip(before + 1..) {
            let (logger, message) = (storable::text(&line.logger), storable::text(&line.message));
            let text = (line.stream, line.level, logger, message);
            lines.push((outcome.id, seq, stamp(line.at), row.attempt, text.0, text.1, text.2, text.3, line.cut));
        }
    }
    if !lines.is_empty() {
        query(LOGS).bind(json(&lines)?).execute(&mut *connection).await?;
    }
    let mut calls = Vec::new();
    for (outcome, row) in ended {
        for (call, seq) in outcome.calls.iter().zip(1i64..) {
            let words =
                (storable::text(&call.capability), storable::text(&call.operation), storable::text(&call.target));
            let counts = (counted(call.duration_us), counted(call.request_bytes), counted(call.response_bytes));
            let end = (storable::text(&call.result), call_detail(call));
            calls.push((
                (outcome.id, outcome.fence, row.attempt, seq, stamp(call.at)),
                (words.0, words.1, words.2, counts.0, counts.1, counts.2, end.0, end.1),
            ));
        }
    }
    if !calls.is_empty() {
        query(CALLS).bind(json(&calls)?).execute(&mut *connection).await?;
    }
    // JSON holds no bytes, so these go one by one.
    for (outcome, _) in ended {
        for (call, seq) in outcome.calls.iter().zip(1i64..).filter(|(call, _)| plan::has_body(call)) {
            query(BODIES)
                .bind(outcome.id.hyphenated())
                .bind(outcome.fence)
                .bind(seq)
                .bind(plan::body_bytes(&call.request_body))
                .bind(plan::body_bytes(&call.response_body))
                .bind(plan::body(&call.request_body))
                .bind(plan::body(&call.response_body))
                .execute(&mut *connection)
                .await?;
        }
    }
    Ok(())
}
