//! Connections: where to, and with which settings.

use super::super::flight::{Line, acquire_timeout};
use super::super::{DbError, DbOptions, PoolFacts};
use super::address::destination;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Postgres, query};
use std::sync::Arc;
use std::time::Duration;

statements! {
    /// Settings of one connection. Every plan is made for the values at hand: a plan that was cached while a table was
    /// empty would scan it when it is full, and a null filter folds away; planning is a few per cent of a batch. And every
    /// statement here finds its rows by an index: a scan would only ever look cheap while a table is small or not analysed.
    SETTINGS = "SELECT set_config('search_path', $1, false), set_config('statement_timeout', $2, false),
        set_config('lock_timeout', $2, false), set_config('idle_in_transaction_session_timeout', $3, false),
        set_config('default_transaction_isolation', 'read committed', false),
        set_config('plan_cache_mode', 'force_custom_plan', false), set_config('jit', 'off', false),
        set_config('enable_seqscan', 'off', false), set_config('timezone', 'UTC', false)";
}

/// Connections apart by use, so that one use cannot take those of another: reads that take long, or guests that wait for each
/// other, would otherwise keep the lease from being renewed.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    /// The path of tasks, the duties and what operators do: `database.pool`.
    pub path: Line<Postgres>,
    /// The lease: two, since one that falls silent while it is given back is missed until TCP gives up.
    pub lease: Line<Postgres>,
    /// Reads of the API.
    pub reads: Line<Postgres>,
    /// Stores and budgets of guests.
    pub stores: Line<Postgres>,
}

impl Lines {
    /// Each by its use.
    pub fn facts(&self) -> Vec<PoolFacts> {
        let Lines { path, lease, reads, stores } = self;
        [("path", path), ("lease", lease), ("reads", reads), ("stores", stores)]
            .map(|(name, line)| line.facts(name))
            .into()
    }
}

/// Connections for reads of the API, and as many for what guests keep. `database.pool` in `config.default.toml` names the sum.
pub(super) const BESIDES: u32 = 4;

/// Connections for the lease.
pub(super) const OF_LEASE: u32 = 2;

/// How long an operation may take that is not on the path of a task: half of `database.timeout_seconds`, and not less than five
/// seconds where that allows them.
pub(super) fn shorter(timeout: Duration) -> Duration {
    (timeout / 2).max(timeout.min(Duration::from_secs(5)))
}

pub(super) fn lines(url: &str, options: &DbOptions) -> Result<Lines, DbError> {
    let connect = destination(url)?.application_name(super::super::storable::cut(&options.name, 63).as_ref());
    let short = shorter(options.timeout);
    Ok(Lines {
        path: line(&connect, options, options.max_connections, options.timeout),
        lease: line(&connect, options, OF_LEASE, options.timeout),
        reads: line(&connect, options, BESIDES, short),
        stores: line(&connect, options, BESIDES, short),
    })
}

fn line(connect: &PgConnectOptions, options: &DbOptions, connections: u32, timeout: Duration) -> Line<Postgres> {
    let search_path = format!("\"{}\"", options.schema);
    // It catches a transaction whose process was stopped in the middle: between two statements of one that goes on there are moments. Those that
    // wait for its locks have as long as an operation, so that they get them when it is ended.
    let idle = (timeout / 2).as_millis().max(1).to_string();
    let limit = timeout.as_millis().to_string();
    let place = match connect.get_socket() {
        Some(socket) => format!("{}@{}", connect.get_username(), socket.display()),
        None => format!("{}@{}:{}", connect.get_username(), connect.get_host(), connect.get_port()),
    };
    let place = format!("{place}/{}", connect.get_database().unwrap_or_default()).into();
    let pool = PgPoolOptions::new()
        .max_connections(connections.max(1))
        .acquire_timeout(acquire_timeout(timeout))
        .idle_timeout(Duration::from_secs(300))
        // By `flight`, where it is needed.
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            let (search_path, limit, idle) = (search_path.clone(), limit.clone(), idle.clone());
            Box::pin(async move {
                query(SETTINGS).bind(search_path).bind(limit).bind(idle).execute(connection).await.map(drop)
            })
        })
        .connect_lazy_with(connect.clone());
    Line { pool, place, waiting: Arc::default() }
}
