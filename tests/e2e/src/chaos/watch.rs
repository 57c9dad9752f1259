//! Somebody who remembers: what had ended while faults were at work must be found as it was.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::stage::Stage;
use crate::database::Database;
use crate::invariants::{self, Ends};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(10);

/// A look at what has ended, again and again.
pub struct Watch {
    seen: Arc<Mutex<Ends>>,
    watching: JoinHandle<()>,
}

impl Watch {
    /// Starts looking, until [`Watch::finish`].
    pub fn start(stage: &Stage) -> Self {
        let seen = Arc::<Mutex<Ends>>::default();
        let watching = tokio::spawn(watch(seen.clone(), stage.site.database_url()));
        Self { seen, watching }
    }

    /// How each task was when it was first seen to have ended.
    pub fn finish(self) -> Ends {
        self.watching.abort();
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn watch(seen: Arc<Mutex<Ends>>, url: String) {
    let database = Database::postgres(&url).await;
    loop {
        tokio::time::sleep(EVERY).await;
        // An error is a fault at work; the next look tells.
        let Ok(ends) = invariants::ends(&database).await else { continue };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, end) in ends {
            seen.entry(id).or_insert(end);
        }
    }
}
