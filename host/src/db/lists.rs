//! Lists that one of several filters selects. Each filter is read by its own statement, which leads with the index that it has; the
//! pages are merged here. All are read from one snapshot, so that a task that changes its state meanwhile is listed once.

use super::{PAGE_BYTES, Page, TaskCursor, TaskFilter, TaskRow};

/// The limit of the filters, which is the same for all.
pub(super) fn limit(any: &[TaskFilter]) -> u32 {
    any.iter().map(|filter| filter.limit).min().unwrap_or_default()
}

/// Merges pages of filters that exclude each other, each read without input and output.
pub(super) fn merge(pages: Vec<Page<TaskRow>>, limit: u32) -> Page<TaskRow> {
    // Behind the last row of a page that was cut, rows of its filter are missing: nothing behind it may be listed.
    let cut = pages.iter().filter(|page| page.more).filter_map(|page| page.rows.last()).map(TaskCursor::from).max();
    let mut more = cut.is_some();
    let mut rows: Vec<TaskRow> = pages.into_iter().flat_map(|page| page.rows).collect();
    rows.sort_by_cached_key(|row| std::cmp::Reverse(TaskCursor::from(row)));
    if let Some(cut) = cut {
        rows.retain(|row| TaskCursor::from(row) >= cut);
    }
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    more |= rows.len() > most;
    rows.truncate(most);
    Page { rows, more }
}

/// Replaces the row at a place by the same with input or output. Returns false once the page has its [`PAGE_BYTES`] and ends before
/// this row.
pub(super) fn put(page: &mut Page<TaskRow>, at: usize, row: Option<TaskRow>, bytes: &mut usize) -> bool {
    // Within one snapshot no row is deleted.
    let Some(row) = row else { return true };
    *bytes += [&row.input, &row.output].into_iter().flatten().map(String::len).sum::<usize>();
    if at > 0 && *bytes > usize::try_from(PAGE_BYTES).unwrap_or(usize::MAX) {
        page.rows.truncate(at);
        page.more = true;
        return false;
    }
    page.rows[at] = row;
    true
}
