//! What must be known of a table.
//!
//! # How to add a store
//! A store is one folder and one line of the [registry](super::registry). In its folder,
//! `schema.rs` declares each table as a constant of [`Table`] and as a [`TableSchema`], and its
//! kind as a constant of [`StoreKind`](super::StoreKind). The sweeper, the verification, salvage,
//! export, import, dump, statistics and the change feed are loops over the registry. No field of a
//! schema has a default: the compiler names what a declaration lacks.

use super::lines::{EntryLines, Problem};
use super::owner::{Owner, StoreKind};
use super::row_check::{RowCheck, StoredRow};
use super::state::Identity;
use super::sweep::{Due, SweepTurn, Verdict};
use super::watch::{ChangeKind, ChangedRow};
use crate::engine::access::{Reader, Writer};
use crate::engine::cursor::{JoinedRow, RowCursor, RowJoin};
use crate::engine::time_line::Deadline;
use crate::error::Result;
use crate::tables::Table;

/// What a store says of itself.
pub(crate) struct StoreSchema {
    /// The kinds of entries that callers know it by.
    pub(crate) kinds: &'static [StoreKind],
    pub(crate) tables: &'static [&'static TableSchema],
}

/// What a table says of itself.
pub(crate) struct TableSchema {
    /// Its number, its name, and what else the floors below the stores know.
    pub(crate) table: Table,
    /// What its rows are to those of other tables.
    pub(crate) role: Role,
    /// The store of the row at a key. `None` for a key that no store writes, and for a row of which
    /// its key does not say.
    pub(crate) owner: for<'a> fn(&'a [u8]) -> Option<Owner<'a>>,
    /// Refuses what no store writes, without a look at another row: a key or bytes that do not
    /// decode, a part over its limit, an order or a value that no operation leaves behind.
    pub(crate) check: fn(&RowCheck<'_>) -> Result<()>,
    /// The rows that are derived from one of its rows, those of the expiry index aside.
    pub(crate) derived: Derived,
    /// What else must be beside a row.
    pub(crate) constraints: Constraints,
    /// The numbers by which rows of other tables name its rows.
    pub(crate) numbers: Numbers,
    /// How its entries end.
    pub(crate) ends: Ends,
    /// What a change of a row means to a watcher; `None` when another row says it.
    pub(crate) change: fn(&ChangedRow<'_>) -> Option<ChangeKind>,
    /// The key of an entry as callers know it, from the key of an [`Owner`], and whose it is.
    pub(crate) shown_key: fn(&[u8]) -> (String, Option<Identity>),
    /// How entries are counted.
    pub(crate) counted: EntryCounting,
    /// How its rows are exported and imported.
    pub(crate) lines: Lines,
    /// The parts of a key, by name, for people who look into a file.
    pub(crate) dump_key: fn(&[u8]) -> Result<serde_json::Value>,
    /// The fields of the value at a key, by name.
    pub(crate) dump_value: fn(&[u8], &[u8]) -> Result<serde_json::Value>,
    /// What it means that rows are lost, and which rows a salvage leaves out.
    pub(crate) loss: LossSchema,
}

/// What the rows of a table are to those of other tables.
#[derive(Clone, Copy)]
pub(crate) enum Role {
    /// Each says something of its own.
    Primary,
    /// Each stands beside the row of another table under the same key. A table has at most one
    /// satellite.
    Satellite {
        of: Table,
        /// What that row is to this one, such as "its form token".
        called: &'static str,
    },
    /// Each has in its key the number that a row of one of these tables gives itself, by which that
    /// row cannot be found.
    Numbered {
        by: &'static [Table],
        number: fn(&[u8]) -> Result<u64>,
        /// Where a row counts of which the numbered one is gone.
        store: StoreKind,
        /// What the numbered row is called, such as "a window".
        called: &'static str,
    },
    /// Each follows from a row of another table.
    Derived,
}

/// Takes rows of derived tables: table, key, value.
pub(crate) type EmitDerived<'a> = dyn FnMut(Table, Vec<u8>, Vec<u8>) + 'a;

/// The rows of derived tables that belong to a row, those of the expiry index aside.
#[derive(Clone, Copy)]
pub(crate) enum Derived {
    /// There are none.
    None,
    /// Shows every one that belongs to the row with this key and value.
    Rows(fn(&[u8], &[u8], &mut EmitDerived<'_>) -> Result<()>),
}

/// A row that is missing, or there and should not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    /// Where.
    pub(crate) table: Table,
    /// Its key.
    pub(crate) key: Vec<u8>,
    /// What is wrong, in words that follow "the row".
    pub(crate) problem: String,
}

/// Takes what is wrong beside a row.
pub(crate) type ReportBroken<'a> = dyn FnMut(Broken) + 'a;

/// See [`Constraints::Misplaced`].
pub(crate) type Misplaced = fn(&mut dyn Reader, &[u8], &[u8]) -> Result<Option<String>>;

/// See [`Constraints::Beside`].
pub(crate) type LacksBeside =
    fn(&mut dyn Reader, &[u8], &[u8], &mut ReportBroken<'_>) -> Result<()>;

/// What must be beside a row, apart from what follows from [`Role`], [`Derived`] and [`Ends`].
#[derive(Clone, Copy)]
pub(crate) enum Constraints {
    /// Nothing more.
    None,
    /// Why the row at a key with this value should not be there, if it should not: for derived
    /// tables and satellites.
    Misplaced(Misplaced),
    /// Shows what is missing or wrong beside the row at a key with this value.
    Beside(LacksBeside),
}

/// Numbers by which rows of other tables name rows of a table. All tables of a room share them.
#[derive(Clone, Copy)]
pub(crate) enum Numbers {
    /// No row has one.
    None,
    /// Each row has one in its value.
    Given(fn(&[u8]) -> Result<u64>),
    /// The row at this key has the greatest one that was given to a row.
    Greatest {
        key: &'static [u8],
        /// What such a row is called, such as "a window".
        called: &'static str,
        decode: fn(&[u8]) -> Result<u64>,
        encode: fn(u64) -> Result<Vec<u8>>,
    },
}

impl Numbers {
    /// The number of the row with this value, if it gives itself one.
    pub(crate) fn of(self, value: &[u8]) -> Result<Option<u64>> {
        match self {
            Numbers::Given(number) => number(value).map(Some),
            Numbers::None | Numbers::Greatest { .. } => Ok(None),
        }
    }
}

/// Removes an entry that is due, in a transaction.
pub(crate) type SweepEntry = fn(&mut dyn Writer, &Due<'_>, SweepTurn<'_>) -> Result<Verdict>;

/// How the entries of a table end. What has ended is found through the expiry index.
#[derive(Clone, Copy)]
pub(crate) enum Ends {
    /// They do not, or they end with those of another table.
    Never,
    /// The index has a row at the time that the value says, if it says one.
    At { at: fn(&[u8]) -> Result<Option<Deadline>>, sweep: SweepEntry },
    /// The same, or at a later time, to which a sweeper moves it, that the value and the
    /// satellite's say. An index row at the first time is canonical: it never comes too late.
    AtOrLater {
        at: fn(&[u8]) -> Result<Option<Deadline>>,
        later: fn(&[u8], &[u8]) -> Result<Deadline>,
        sweep: SweepEntry,
    },
    /// The index may have any number of rows at times of which the row says nothing.
    Hinted {
        /// Whether a salvage has a sweeper look at the row with this key.
        sweep_after_salvage: fn(&[u8]) -> bool,
        sweep: SweepEntry,
    },
}

/// The rows of a table, each with the one beside it in the satellite, if the table has one.
pub(crate) enum Entries {
    Alone(RowCursor<'static>),
    Joined(RowJoin<'static>),
}

impl Entries {
    /// Every row of the table.
    pub(crate) fn of(schema: &TableSchema) -> Self {
        match schema.satellite() {
            Some(satellite) => Self::Joined(RowJoin::all(schema.table, satellite, None)),
            None => Self::Alone(RowCursor::all(schema.table)),
        }
    }

    /// The next row; `None` behind the last one.
    ///
    /// # Errors
    /// As [`RowCursor::next`].
    pub(crate) fn next(&mut self, rows: &mut dyn Reader) -> Result<Option<JoinedRow>> {
        match self {
            Entries::Alone(cursor) => Ok(cursor.next(rows)?.map(|row| (row, None))),
            Entries::Joined(join) => join.next(rows),
        }
    }
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryState {
    /// It is there.
    Live,
    /// It is there, and taken.
    Taken,
    /// It has ended and waits for the sweeper.
    Expired,
}

impl EntryState {
    pub(crate) fn live_if(live: bool) -> Self {
        if live { EntryState::Live } else { EntryState::Expired }
    }
}

/// Tells what an entry is, row after row in key order. It may remember what it read.
pub(crate) type CountEntry = Box<dyn FnMut(&mut dyn Reader, StoredRow<'_>) -> Result<EntryState>>;

/// How the entries of a store are counted.
#[derive(Clone, Copy)]
pub(crate) enum EntryCounting {
    /// Each row is an entry.
    Entries(fn() -> CountEntry),
    /// The rows count for entries of other tables.
    RowsOnly,
}

/// How the rows of a table are exported and imported.
#[derive(Clone, Copy)]
pub(crate) enum Lines {
    /// Each row is an entry with lines of its own.
    Entries(EntryLines),
    /// The rows are in the lines of others, or follow from them.
    OfOthers(Overwrite),
}

/// See [`Overwrite::Unless`].
pub(crate) type OverwriteRefusal = fn(Option<&[u8]>, &[u8]) -> Result<Option<Problem>>;

/// What an import does where a row of an entry stands already.
#[derive(Clone, Copy)]
pub(crate) enum Overwrite {
    /// It writes the row, which is of the same entry.
    Fine,
    /// This says why it may not: what is there, and what is to be written.
    Unless(OverwriteRefusal),
}

/// What it means that rows are lost.
#[derive(Clone, Copy)]
pub(crate) struct LossSchema {
    /// In a sentence.
    pub(crate) meaning: &'static str,
    /// What is unknown of a row of the table that this one is a satellite of, when its satellite
    /// may be among lost ones; `None` when it need not be said.
    pub(crate) unsure: Option<&'static str>,
    /// Why the row at a key with this value, which decodes, is left out by a salvage, if it is. A
    /// row of a satellite whose other row is left out is left out in any case.
    pub(crate) left_out: Option<LeftOut>,
}

/// See [`LossSchema::left_out`].
pub(crate) type LeftOut = fn(&mut dyn Reader, &[u8], &[u8]) -> Result<Option<String>>;

impl TableSchema {
    /// Whether its rows follow from those of other tables.
    pub(crate) fn is_derived(&self) -> bool {
        matches!(self.role, Role::Derived)
    }

    /// Refuses a row that no store writes. See [`check`](Self::check).
    pub(crate) fn check_row(&self, key: &[u8], value: &[u8]) -> Result<()> {
        (self.check)(&RowCheck { table: self.table, key, value })
    }

    /// Whether there is a row at `key` that a store could have written.
    pub(crate) fn is_kept(&self, rows: &mut dyn Reader, key: &[u8]) -> Result<bool> {
        let row = rows.get(self.table, key)?;
        Ok(row.is_some_and(|value| self.check_row(key, &value).is_ok()))
    }

    /// Every time at which a sound file may have a row in the expiry index; it has it at exactly
    /// one of them. The first is the canonical one. `satellite` is the row beside it.
    pub(crate) fn may_be_indexed_at(
        &self,
        value: &[u8],
        satellite: Option<&[u8]>,
    ) -> Result<Vec<Deadline>> {
        let mut times: Vec<Deadline> = self.indexed_at(value)?.into_iter().collect();
        if let (Ends::AtOrLater { later, .. }, Some(satellite)) = (self.ends, satellite) {
            let later = later(value, satellite)?;
            if times.first().is_some_and(|at| *at != later) {
                times.push(later);
            }
        }
        Ok(times)
    }

    /// Every time at which the index may have the row at `key`, as
    /// [`may_be_indexed_at`](Self::may_be_indexed_at), with the row beside it looked up.
    pub(crate) fn index_times(
        &self,
        rows: &mut dyn Reader,
        key: &[u8],
        value: &[u8],
    ) -> Result<Vec<Deadline>> {
        let satellite = match (self.ends, self.satellite()) {
            (Ends::AtOrLater { .. }, Some(beside)) => rows.get(beside, key)?,
            _ => None,
        };
        self.may_be_indexed_at(value, satellite.as_deref())
    }

    /// The canonical time of the expiry index for a row. `None` for what does not stand in the
    /// index, or at a time of its own.
    pub(crate) fn indexed_at(&self, value: &[u8]) -> Result<Option<Deadline>> {
        match self.ends {
            Ends::At { at, .. } | Ends::AtOrLater { at, .. } => at(value),
            Ends::Never | Ends::Hinted { .. } => Ok(None),
        }
    }
}

/// The key of an entry that is the text that its callers gave. Stores write nothing but text.
pub(crate) fn text_key(key: &[u8]) -> (String, Option<Identity>) {
    (String::from_utf8_lossy(key).into_owned(), None)
}

/// Why a salvage leaves a row out: what belongs to it is lost.
pub(crate) fn lost(what: &str) -> String {
    format!("{what} is lost, so it was left out")
}
