//! What a run may spend, held against its own limits and against what outlasts it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use agentry_defence::Defence;
use serde_json::json;

use crate::access::{BudgetError, Budgets, Spending};
use crate::calls::{Calls, Over};

/// The allowances beyond the run, and the records of it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Allowance {
    pub(crate) calls: Arc<Mutex<Calls>>,
    budgets: Option<Arc<dyn Budgets>>,
}

impl Allowance {
    pub(crate) fn new(calls: Arc<Mutex<Calls>>, budgets: Option<Arc<dyn Budgets>>) -> Allowance {
        Allowance { calls, budgets }
    }

    /// Takes before it is spent, all or nothing.
    pub(crate) async fn take(&self, amounts: &[(Spending, u64)]) -> Result<(), BudgetError> {
        match &self.budgets {
            Some(budgets) => budgets.take(amounts).await,
            None => Ok(()),
        }
    }

    /// Puts right what was taken.
    pub(crate) async fn correct(&self, spending: Spending, taken: u64, spent: u64) {
        if let Some(budgets) = &self.budgets
            && taken != spent
        {
            budgets.correct(spending, taken, spent).await;
        }
    }

    /// Records that something is used up, or that nobody could say whether it is.
    pub(crate) fn refused(&self, capability: &'static str, operation: &str, target: &str, why: &BudgetError) {
        let result = match why {
            BudgetError::Exhausted(what) => {
                Calls::exhausted(&self.calls, what);
                "budget_exceeded"
            }
            // Later it may be known: nothing is used up for that.
            BudgetError::Unavailable(_) => "unavailable",
        };
        let over = Over { result, detail: json!({ "reason": why.to_string() }), ..Over::default() };
        Calls::begin(&self.calls, capability, operation, target).over(over);
    }
}

/// So many in one run.
#[derive(Debug)]
pub(crate) struct Count {
    /// Its name is the limit's.
    limit: Defence,
    most: u32,
    used: AtomicU32,
}

impl Count {
    pub(crate) fn new(limit: Defence, most: u32) -> Count {
        Count { limit, most, used: AtomicU32::new(0) }
    }

    /// One more; or the limit in words.
    pub(crate) fn one(&self) -> Result<(), BudgetError> {
        match self.used.fetch_add(1, Ordering::Relaxed) < self.most || !self.limit.stands() {
            true => Ok(()),
            false => Err(BudgetError::Exhausted(format!("{} = {} is used up", self.limit.name(), self.most))),
        }
    }
}
