//! A transaction over a map, which lets the operations of the stores be tested without an engine.

use crate::durability::Durability;
use crate::engine::access::{PageSize, Reader, RestOfRange, Row, RowPage, RowRange, Value, Writer};
use crate::engine::time_line::Moment;
use crate::error::Result;
use crate::tables::Table;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Rows in a map, and a time that a test sets. What is staged is seen at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct MapTx {
    rows: BTreeMap<(Table, Vec<u8>), Value>,
    /// The room's time.
    pub(crate) now_ms: u64,
    /// How much time passed, unseen by the line, before now, and how often that was corrected.
    gap_ms: Option<(u64, u64)>,
    /// How many rows were put or deleted.
    pub(crate) writes: usize,
}

impl MapTx {
    /// No rows, at `now_ms`.
    pub(crate) fn at(now_ms: u64) -> Self {
        Self { now_ms, ..Self::default() }
    }

    /// From now on it is in an epoch before which so much time passed, which the line does not
    /// have.
    pub(crate) fn correct(&mut self, gap_ms: u64) {
        let generation = self.gap_ms.map_or(0, |(_, generation)| generation) + 1;
        self.gap_ms = Some((gap_ms, generation));
    }

    /// The keys of `table`, in order.
    pub(crate) fn keys(&self, table: Table) -> Vec<Vec<u8>> {
        self.rows.keys().filter(|(of, _)| *of == table).map(|(_, key)| key.clone()).collect()
    }

    /// How many bytes the rows of these tables have, keys and values.
    pub(crate) fn bytes(&self, tables: &[Table]) -> u64 {
        let rows = self.rows.iter().filter(|((table, _), _)| tables.contains(table));
        rows.map(|((_, key), value)| (key.len() + value.len()) as u64).sum()
    }

    /// Everything that is stored.
    pub(crate) fn snapshot(&self) -> BTreeMap<(Table, Vec<u8>), Value> {
        self.rows.clone()
    }
}

impl Reader for MapTx {
    fn moment(&self) -> Moment {
        match self.gap_ms {
            Some((gap_ms, generation)) => Moment::behind_gap(self.now_ms, gap_ms, generation),
            None => Moment::manual(self.now_ms),
        }
    }

    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Value>> {
        Ok(self.rows.get(&(table, key.to_vec())).cloned())
    }

    fn page(&mut self, range: RowRange<'_>, size: PageSize) -> Result<RowPage> {
        let first = range.from.map(|key| (range.table, key.to_vec()));
        let first = if matches!(first, Bound::Unbounded) {
            Bound::Included((range.table, Vec::new()))
        } else {
            first
        };
        let mut rows: Vec<Row> = self
            .rows
            .range((first, Bound::Unbounded))
            .take_while(|((table, key), _)| *table == range.table && range.ends_behind(key))
            .take(size.rows() + 1)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect();
        let is_whole = rows.len() <= size.rows();
        rows.truncate(size.rows());
        let rest = if is_whole { RestOfRange::Empty } else { RestOfRange::BehindLastRow };
        Ok(RowPage { rows, rest })
    }
}

impl Writer for MapTx {
    fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.writes += 1;
        self.rows.insert((table, key.to_vec()), value.into());
    }

    fn require(&mut self, _: Durability) {}

    fn delete(&mut self, table: Table, key: &[u8]) {
        self.writes += 1;
        self.rows.remove(&(table, key.to_vec()));
    }
}
