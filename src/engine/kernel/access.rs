//! What a store operation may do: read rows at one position, and stage writes.

use super::time_line::Moment;
use crate::durability::Durability;
use crate::error::Result;
use crate::tables::Table;
pub(crate) use crate::tables::{Row, Value};
use std::ops::Bound;

/// Reads of rows, all at the same position of the serial order (and, in a transaction, over what it
/// has staged).
pub(crate) trait Reader {
    /// The room's time when the operation began: spans are measured by it.
    fn moment(&self) -> Moment;

    /// What the wall clock showed then, in milliseconds since the Unix epoch, for points in time
    /// that callers give or get.
    fn wall_ms(&self) -> u64 {
        self.moment().wall_ms()
    }

    /// The row at `key`.
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Value>>;

    /// The first rows of the range, in key order, as many as `size` allows. To read a range, use
    /// [`RowCursor`](super::cursor::RowCursor), which reads page after page.
    fn page(&mut self, range: RowRange<'_>, size: PageSize) -> Result<RowPage>;
}

/// A transaction: what it stages becomes one frame of the log when it ends well, and nothing when
/// it does not.
pub(crate) trait Writer: Reader {
    /// Stages a row.
    fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>);

    /// Stages the absence of a row.
    fn delete(&mut self, table: Table, key: &[u8]);

    /// Makes the transaction at least as durable as this.
    fn require(&mut self, durability: Durability);

    /// Stages a row that no caller put: the entry is what it was, and only how it is kept changes.
    /// The change feed does not show it.
    fn rewrite(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.put(table, key, value);
    }

    /// Stages the absence of a row whose entry was gone before, by a reset or a clear that the
    /// change feed has shown. It does not show this.
    fn delete_gone(&mut self, table: Table, key: &[u8]) {
        self.delete(table, key);
    }
}

/// A transaction in which every row that is put is a [rewrite](Writer::rewrite): that of a sweeper,
/// or of an operation that only changes how an entry is kept.
pub(crate) struct Rewrites<'a>(pub(crate) &'a mut dyn Writer);

impl Reader for Rewrites<'_> {
    fn moment(&self) -> Moment {
        self.0.moment()
    }

    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Value>> {
        self.0.get(table, key)
    }

    fn page(&mut self, range: RowRange<'_>, size: PageSize) -> Result<RowPage> {
        self.0.page(range, size)
    }
}

impl Writer for Rewrites<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.0.rewrite(table, key, value);
    }

    fn delete(&mut self, table: Table, key: &[u8]) {
        self.0.delete(table, key);
    }

    fn delete_gone(&mut self, table: Table, key: &[u8]) {
        self.0.delete_gone(table, key);
    }

    fn require(&mut self, durability: Durability) {
        self.0.require(durability);
    }
}

/// The most that a row takes in a frame in addition to its key and value: its table and its
/// lengths.
const FRAME_ROW_OVERHEAD: usize = 16;

/// The most that a row of this many bytes, key and value together, takes in a frame.
pub(crate) const fn row_cost(bytes: usize) -> usize {
    bytes + FRAME_ROW_OVERHEAD
}

/// The rows of a table whose keys lie between two bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowRange<'k> {
    pub(crate) table: Table,
    pub(crate) from: Bound<&'k [u8]>,
    pub(crate) to: Bound<&'k [u8]>,
}

impl RowRange<'_> {
    /// Whether a key that is not before the range lies in it.
    pub(crate) fn ends_behind(&self, key: &[u8]) -> bool {
        match self.to {
            Bound::Included(end) => key <= end,
            Bound::Excluded(end) => key < end,
            Bound::Unbounded => true,
        }
    }
}

/// The most rows of a page.
const MAX_PAGE_ROWS: usize = 1_024;

/// How many bytes of keys and values a page has for each row that it may hold. A page ends with the
/// row that uses them up, so the largest page has a megabyte and one row.
const PAGE_BYTES_PER_ROW: usize = 1_024;

/// How much one page may hold: a number of rows, and a KiB for each of them.
///
/// Rows that are hidden by a tombstone or a newer version count too, so that the work for a page is
/// bounded as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageSize {
    rows: usize,
}

impl PageSize {
    /// A page of `rows` rows, at least one and at most 1,024.
    pub(crate) fn of_rows(rows: usize) -> Self {
        Self { rows: rows.clamp(1, MAX_PAGE_ROWS) }
    }

    /// Twice as large, up to the largest page.
    pub(crate) fn doubled(self) -> Self {
        Self::of_rows(self.rows.saturating_mul(2))
    }

    /// The most rows.
    pub(crate) fn rows(self) -> usize {
        self.rows
    }

    /// How many bytes of keys and values end a page.
    pub(crate) fn bytes(self) -> usize {
        self.rows * PAGE_BYTES_PER_ROW
    }
}

/// Some rows of a range, in key order.
#[derive(Debug)]
pub(crate) struct RowPage {
    /// May be empty although more rows follow, when all that was looked at is hidden.
    pub(crate) rows: Vec<Row>,
    pub(crate) rest: RestOfRange,
}

/// Where the rows that a page does not hold begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RestOfRange {
    /// There are none.
    Empty,
    /// Behind the last row of the page.
    BehindLastRow,
    /// Behind this key, which has no row that can be seen.
    Behind(Vec<u8>),
}
