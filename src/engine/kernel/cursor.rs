//! Reading a range row by row, however large it is.

use super::access::{PageSize, Reader, RestOfRange, Row, RowRange, Value};
use crate::codec::key::prefix_end;
use crate::error::Result;
use crate::tables::Table;
use std::borrow::Cow;
use std::ops::Bound;
use std::vec;

/// The rows of the first page. Most callers want a few rows; a walk is in large pages soon.
const FIRST_PAGE_ROWS: usize = 8;

/// The rows of a range of a table, in key order, read page by page.
///
/// The reader is given to each call, so that the caller may use it between two rows. What a
/// transaction stages meanwhile behind the last row of the page that was read is seen; of rows that
/// were read already, the cursor gives what they were. A page is never larger than about a megabyte
/// ([`PageSize`]). The first one is small, and each is twice as large as the one before: a caller
/// that stops after a few rows has read a few, and a long walk, or one through rows that
/// are all hidden by tombstones, needs few searches.
///
/// After an error the cursor stands behind the last row that it gave, and tries again.
#[derive(Debug)]
pub(crate) struct RowCursor<'k> {
    table: Table,
    /// Where the next page begins.
    from: Bound<Cow<'k, [u8]>>,
    to: Bound<Cow<'k, [u8]>>,
    size: PageSize,
    /// How many rows it may still give.
    left: usize,
    page: vec::IntoIter<Row>,
    /// Whether no page follows.
    is_last: bool,
}

impl RowCursor<'static> {
    /// Every row of `table`.
    pub(crate) fn all(table: Table) -> Self {
        Self::new(table, Bound::Unbounded, Bound::Unbounded)
    }
}

impl<'k> RowCursor<'k> {
    fn new(table: Table, from: Bound<Cow<'k, [u8]>>, to: Bound<Cow<'k, [u8]>>) -> Self {
        Self {
            table,
            from,
            to,
            size: PageSize::of_rows(FIRST_PAGE_ROWS),
            left: usize::MAX,
            page: Vec::new().into_iter(),
            is_last: false,
        }
    }

    /// The rows of `table` between two keys.
    pub(crate) fn range(table: Table, from: Bound<&'k [u8]>, to: Bound<&'k [u8]>) -> Self {
        Self::new(table, from.map(Cow::Borrowed), to.map(Cow::Borrowed))
    }

    /// The rows of `table` whose keys begin with `prefix`.
    pub(crate) fn prefix(table: Table, prefix: &'k [u8]) -> Self {
        let end = prefix_end(prefix).map_or(Bound::Unbounded, |end| Bound::Excluded(end.into()));
        Self::new(table, Bound::Included(prefix.into()), end)
    }

    /// Only the rows behind `key`, which is not before the range. `None` changes nothing.
    pub(crate) fn after(mut self, key: Option<impl Into<Cow<'k, [u8]>>>) -> Self {
        if let Some(key) = key {
            self.from = Bound::Excluded(key.into());
        }
        self
    }

    /// Only the rows up to `key`, which is not behind the range. `None` changes nothing.
    pub(crate) fn to(mut self, key: Option<impl Into<Cow<'k, [u8]>>>) -> Self {
        if let Some(key) = key {
            self.to = Bound::Included(key.into());
        }
        self
    }

    /// Only the first `rows` rows. The caller will take them all, so the first page is as large.
    pub(crate) fn up_to(mut self, rows: usize) -> Self {
        (self.left, self.size) = (rows, PageSize::of_rows(rows));
        self
    }

    /// The next row; `None` behind the last one.
    ///
    /// # Errors
    /// Those of [`Reader::page`].
    pub(crate) fn next(&mut self, rows: &mut dyn Reader) -> Result<Option<Row>> {
        while self.left > 0 {
            if let Some(row) = self.page.next() {
                self.left -= 1;
                return Ok(Some(row));
            }
            if self.is_last {
                break;
            }
            self.read_page(rows)?;
        }
        Ok(None)
    }

    fn read_page(&mut self, rows: &mut dyn Reader) -> Result<()> {
        let (from, to) = (self.from.as_ref().map(|key| &**key), self.to.as_ref().map(|key| &**key));
        let page = rows.page(RowRange { table: self.table, from, to }, self.size)?;
        let behind = match page.rest {
            RestOfRange::Empty => None,
            // What follows is not wanted.
            _ if page.rows.len() >= self.left => None,
            RestOfRange::BehindLastRow => page.rows.last().map(|(key, _)| key.clone()),
            RestOfRange::Behind(key) => Some(key),
        };
        match behind {
            Some(key) => self.from = Bound::Excluded(key.into()),
            None => self.is_last = true,
        }
        self.size = self.size.doubled();
        self.page = page.rows.into_iter();
        Ok(())
    }

    /// The remaining rows, all in memory.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub(crate) fn collect(mut self, rows: &mut dyn Reader) -> Result<Vec<Row>> {
        let mut found = Vec::new();
        while let Some(row) = self.next(rows)? {
            found.push(row);
        }
        Ok(found)
    }
}

/// The rows of a table, each with the row of its satellite under the same key.
///
/// Both are read as ranges: a look-up for each row would cost more. A row of the satellite that has
/// none in the main table is passed over.
#[derive(Debug)]
pub(crate) struct RowJoin<'k> {
    main: RowCursor<'k>,
    satellite: RowCursor<'k>,
    /// The next row of the satellite.
    ahead: Option<Row>,
}

/// A row of a table and the value of the satellite's row under the same key.
pub(crate) type JoinedRow = (Row, Option<Value>);

impl<'k> RowJoin<'k> {
    /// Every row of `main` behind `after`, or from the first one on, with those of `satellite`.
    pub(crate) fn all(main: Table, satellite: Table, after: Option<&'k [u8]>) -> Self {
        let behind = |table| RowCursor::all(table).after(after);
        Self { main: behind(main), satellite: behind(satellite), ahead: None }
    }

    /// The next row; `None` behind the last one.
    ///
    /// # Errors
    /// As [`RowCursor::next`].
    pub(crate) fn next(&mut self, rows: &mut dyn Reader) -> Result<Option<JoinedRow>> {
        let Some(row) = self.main.next(rows)? else { return Ok(None) };
        while self.ahead.as_ref().is_none_or(|(key, _)| *key < row.0) {
            self.ahead = self.satellite.next(rows)?;
            if self.ahead.is_none() {
                break;
            }
        }
        let value = self.ahead.take_if(|(key, _)| *key == row.0).map(|(_, value)| value);
        Ok(Some((row, value)))
    }
}

#[cfg(test)]
mod tests;
