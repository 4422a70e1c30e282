//! The rows of one table at one position, in pages of bounded size.

use super::access::Row;
use super::view::View;
use crate::error::Result;
use crate::tables::Table;
use std::cmp::Ordering;
use std::ops::Bound;

/// The most rows of one page.
const PAGE_ROWS: usize = 1_024;

/// How many bytes of keys and values end a page: it holds at most one row more.
const PAGE_BYTES: usize = 1 << 20;

/// Where a walk through one table has come to.
#[derive(Debug)]
pub(super) struct Pages {
    table: Table,
    /// The last key that was looked at.
    after: Option<Vec<u8>>,
    ended: bool,
}

impl Pages {
    /// The beginning of `table`.
    pub(super) fn of(table: Table) -> Self {
        Self { table, after: None, ended: false }
    }

    /// The next rows at `lsn`, or `None` behind the last ones. A page may be empty. The same view
    /// and position are to be given each time.
    pub(super) fn next(&mut self, view: &View, lsn: u64) -> Result<Option<Vec<Row>>> {
        if self.ended {
            return Ok(None);
        }
        let table = self.table;
        let from = self.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let (below, exhausted) = view.btree.page(table, from, PAGE_ROWS, PAGE_BYTES)?;
        let mut below = below.into_iter().peekable();
        let mut above = view.next_in_memory(table, from, Bound::Unbounded, lsn);
        let (mut rows, mut bytes, mut last) = (Vec::new(), 0, None);
        while rows.len() < PAGE_ROWS && bytes < PAGE_BYTES {
            let order = match (below.peek(), &above) {
                // More may follow in the B-tree; it comes with the next page.
                (None, _) if !exhausted => break,
                (None, None) => {
                    self.ended = true;
                    break;
                }
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((below, _)), Some((above, _))) => below.as_slice().cmp(above),
            };
            let mut row = if order.is_le() { below.next() } else { None };
            if order.is_ge()
                && let Some((key, found)) = above.take()
            {
                // What is in memory hides what is below.
                above = view.next_in_memory(table, Bound::Excluded(&key), Bound::Unbounded, lsn);
                row = found.value.map(|value| (key.to_vec(), value));
                last = Some(key.into_vec());
            } else {
                last = row.as_ref().map(|(key, _)| key.clone());
            }
            if let Some(row) = row {
                bytes += row.0.len() + row.1.len();
                rows.push(row);
            }
        }
        if last.is_some() {
            self.after = last;
        }
        Ok(Some(rows))
    }
}
