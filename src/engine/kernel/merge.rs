//! The merge of all that holds rows: what a transaction staged, the in-memory tables, the B-tree.

use super::access::{PageSize, RestOfRange, Row, RowPage, RowRange, Value};
use super::staged::Staged;
use super::view::View;
use crate::error::Result;
use crate::memtable::{Memtable, VersionFound};
use crate::tables::Table;
use std::collections::btree_map;
use std::ops::Bound;
use std::vec;

/// Reads the first rows of `range` at `lsn`, over what is `staged`. `depends_on_lsn` becomes the
/// greatest position among the versions touched, tombstones too.
///
/// Each page is one read of the B-tree.
pub(in crate::engine) fn read_page(
    view: &View,
    lsn: u64,
    staged: Option<&Staged>,
    range: RowRange<'_>,
    size: PageSize,
    depends_on_lsn: &mut u64,
) -> Result<RowPage> {
    let RowRange { table, from, to } = range;
    let (below, is_whole) = view.btree.page(table, (from, to), (size.rows(), size.bytes()), lsn)?;
    // The newest first.
    let in_memory = [&view.active].into_iter().chain(view.full.iter().rev()).chain(&view.frozen);
    let mut layers: Vec<_> = staged
        .map(|staged| Layer::staged(staged, range))
        .into_iter()
        .chain(in_memory.map(|table| Layer::memory(table, range, lsn)))
        .chain([Layer::Btree { rows: below.into_iter(), is_whole }])
        .collect();
    let (mut rows, mut bytes, mut looked_at, mut hidden) = (Vec::new(), 0, 0, None);
    while looked_at < size.rows() && bytes < size.bytes() {
        if layers.iter().any(Layer::is_cut_off) {
            break;
        }
        let layer = layers
            .iter_mut()
            .filter(|layer| layer.key().is_some())
            // The first of the least ones, which is the newest.
            .min_by(|a, b| a.key().cmp(&b.key()));
        // What follows the last row of the page is not looked for: in memory that may take long.
        let goes_on = looked_at + 1 < size.rows();
        let Some((key, value)) = layer.and_then(|layer| layer.take(depends_on_lsn, goes_on)) else {
            return Ok(RowPage { rows, rest: RestOfRange::Empty });
        };
        for older in &mut layers {
            if older.key() == Some(&*key) {
                older.take(depends_on_lsn, goes_on);
            }
        }
        looked_at += 1;
        match value {
            Some(value) => {
                bytes += key.len() + value.len();
                rows.push((key, value));
                hidden = None;
            }
            None => hidden = Some(key),
        }
    }
    let rest = hidden.map_or(RestOfRange::BehindLastRow, RestOfRange::Behind);
    Ok(RowPage { rows, rest })
}

/// The rows of a range in one of the tables that together hold every row.
enum Layer<'a> {
    Staged {
        range: RowRange<'a>,
        next: Option<(&'a [u8], &'a Option<Value>)>,
        rest: btree_map::Range<'a, (Table, Vec<u8>), Option<Value>>,
    },
    Memory {
        table: &'a Memtable,
        range: RowRange<'a>,
        lsn: u64,
        next: Option<(Box<[u8]>, VersionFound)>,
    },
    Btree {
        rows: vec::IntoIter<Row>,
        /// Whether no more rows follow in the B-tree.
        is_whole: bool,
    },
}

impl<'a> Layer<'a> {
    fn staged(staged: &'a Staged, range: RowRange<'a>) -> Self {
        let first = match range.from {
            Bound::Included(key) => Bound::Included((range.table, key.to_vec())),
            Bound::Excluded(key) => Bound::Excluded((range.table, key.to_vec())),
            Bound::Unbounded => Bound::Included((range.table, Vec::new())),
        };
        let mut rest = staged.range((first, Bound::Unbounded));
        Self::Staged { next: next_staged(&mut rest, range), rest, range }
    }

    fn memory(table: &'a Memtable, range: RowRange<'a>, lsn: u64) -> Self {
        Self::Memory { next: table.next(range.table, range.from, range.to, lsn), table, range, lsn }
    }

    /// The key of its next row or tombstone.
    fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Staged { next, .. } => next.map(|(key, _)| key),
            Self::Memory { next, .. } => next.as_ref().map(|(key, _)| &**key),
            Self::Btree { rows, .. } => rows.as_slice().first().map(|(key, _)| key.as_slice()),
        }
    }

    /// Whether its next row was not read, so that no layer's row is known to be the next one.
    fn is_cut_off(&self) -> bool {
        matches!(self, Self::Btree { rows, is_whole: false } if rows.as_slice().is_empty())
    }

    /// Takes its next row, or the absence of one. Unless it `goes_on`, no other is taken.
    fn take(
        &mut self,
        depends_on_lsn: &mut u64,
        goes_on: bool,
    ) -> Option<(Vec<u8>, Option<Value>)> {
        match self {
            Self::Staged { range, next, rest } => {
                let (key, value) = next.take()?;
                *next = next_staged(rest, *range);
                Some((key.to_vec(), value.clone()))
            }
            Self::Memory { table, range, lsn, next } => {
                let (key, found) = next.take()?;
                *depends_on_lsn = (*depends_on_lsn).max(found.lsn);
                if goes_on {
                    *next = table.next(range.table, Bound::Excluded(&key), range.to, *lsn);
                }
                Some((key.into_vec(), found.value))
            }
            Self::Btree { rows, .. } => rows.next().map(|(key, value)| (key, Some(value))),
        }
    }
}

fn next_staged<'a>(
    rest: &mut btree_map::Range<'a, (Table, Vec<u8>), Option<Value>>,
    range: RowRange<'_>,
) -> Option<(&'a [u8], &'a Option<Value>)> {
    let ((table, key), value) = rest.next()?;
    (*table == range.table && range.ends_behind(key)).then_some((key.as_slice(), value))
}
