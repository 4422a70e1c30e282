//! The pages of the B-tree, read without redb: which pages a commit reaches, the rows of an intact
//! leaf, and what a damaged page loses.
//!
//! redb returns nothing below a page that it cannot read, and does not say where its pages are.
//! Three tools need that: compaction (which pages are at the end of the file, and a key for each),
//! the verifier (every block in use) and salvage (every row that is readable). The bytes are those
//! of redb's file format 3, from its design document and [its
//! source](https://github.com/cberner/redb). Tests compare the rows read here with those that redb
//! reads, and the bytes with those that redb writes (`redb_layout_tests`).
//!
#![doc = include_str!("../../docs/tables/redb-pages.md")]
//!
//! Ends are offsets in the page, and are absent when all keys or values have one width. A branch's
//! key i is an inclusive upper bound of the keys below child i.

pub(super) mod node;

use super::layout::{BLOCK, HEADER_LEN, HeaderCopy, REGION_BLOCKS, to_usize};
use super::redb_tables::{LSN_KEY, META};
use super::window::Window;
use crate::error::{Error, Result};
use crate::limits::BLOCK_SIZE;
use crate::storage::Storage;
use node::{Node, Widths, u32_at, u64_at};
use redb::TableHandle;
use std::sync::Arc;

/// The version of redb's file format that is read here.
const FILE_FORMAT: u8 = 3;

const NORMAL_TABLE: u8 = 3;

/// The deepest tree. Each level at least doubles the pages, so no file has more levels.
pub(super) const MAX_DEPTH: usize = 64;

/// The largest order of a page: redb's regions have 2^20 blocks.
const MAX_ORDER: u32 = 20;

/// The position of a page: its first block and its number of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PageSpan {
    pub(crate) block: u64,
    pub(crate) blocks: u64,
}

impl PageSpan {
    /// The block after the page.
    pub(crate) fn end(self) -> u64 {
        self.block + self.blocks
    }
}

/// A range of keys: greater than the first bound and at most the second. `None` is no bound.
pub(crate) type KeyRange = (Option<Vec<u8>>, Option<Vec<u8>>);

/// What a walk shows.
pub(crate) enum Visit<'a> {
    /// A branch or a leaf.
    Page {
        place: PageSpan,
        is_leaf: bool,
        /// Every key below it is greater than this one.
        after: Option<&'a [u8]>,
    },
    /// A row, in a walk over rows, in key order.
    Row { key: &'a [u8], value: &'a [u8] },
    /// A page that cannot be read. Everything in this range of keys is lost with it.
    Lost { place: Option<PageSpan>, error: Error, keys: KeyRange },
}

/// How deep a walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// To the numbers of the leaves, which are not read.
    LeafNumbers,
    /// Every page is read, the leaves too.
    Leaves,
    /// Every row is shown.
    Rows,
}

/// A table of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableRoot {
    pub(crate) name: String,
    /// The number of rows that its definition records.
    pub(crate) rows: u64,
    root: Option<u64>,
    widths: Widths,
}

impl TableRoot {
    /// The number of the page at its root, if it has rows. `None` when its keys or its values have
    /// a fixed width.
    pub(super) fn root_of_any_width(&self) -> Option<Option<u64>> {
        (self.widths == Widths::default()).then_some(self.root)
    }
}

/// The roots of one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Roots {
    user: Option<u64>,
    system: Option<u64>,
    region_header_bytes: u64,
    region_bytes: u64,
}

impl Roots {
    /// The roots of the commit that redb's header names.
    pub(super) fn of(header: &[u8; HEADER_LEN]) -> Result<Roots> {
        const GOD_BYTE: usize = 9;
        const REGION_HEADER_PAGES: usize = 16;
        const SLOTS: usize = 64;
        const SLOT_LEN: usize = 128;
        let damaged = |detail: &str| Error::corrupted("header of the B-tree", detail);
        let god = header.get(GOD_BYTE).copied().unwrap_or_default();
        let slot = header.get(SLOTS + SLOT_LEN * usize::from(god & 1)..).unwrap_or_default();
        let [format, has_user, has_system, ..] = *slot else {
            return Err(damaged("it ends inside a commit slot"));
        };
        if format != FILE_FORMAT {
            return Err(damaged(&format!(
                "redb's file format is {format} instead of {FILE_FORMAT}"
            )));
        }
        let pages = |at| u32_at(header, at).map(u64::from).unwrap_or_default();
        let region_header_bytes = pages(REGION_HEADER_PAGES) * BLOCK;
        let root = |has: u8, at| (has != 0).then(|| u64_at(slot, at)).flatten();
        Ok(Roots {
            user: root(has_user, 8),
            system: root(has_system, 40),
            region_header_bytes,
            region_bytes: region_header_bytes + pages(REGION_BLOCKS.start) * BLOCK,
        })
    }

    /// The position of the page with this number.
    pub(super) fn place(&self, number: u64) -> Option<PageSpan> {
        let order = u32::try_from(number >> 59).ok().filter(|order| *order <= MAX_ORDER)?;
        let index = number & (0xF_FFFF >> order);
        let region = (number >> 20) & 0xF_FFFF;
        let blocks = 1 << order;
        let at =
            BLOCK + region * self.region_bytes + self.region_header_bytes + index * blocks * BLOCK;
        Some(PageSpan { block: at / BLOCK, blocks })
    }
}

/// The B-tree of a file that may be damaged, read without redb and without writing to the file.
pub(crate) struct Tree {
    window: Window,
    roots: Roots,
}

impl Tree {
    /// The states of the B-tree that `storage` has from `offset` on, the newest first: at most two,
    /// and one when both copies of the header are the same. The file may have been cut off.
    ///
    /// # Errors
    /// [`Error::Io`] when the headers cannot be read.
    pub(crate) fn open(storage: &Arc<dyn Storage>, offset: u64) -> Result<Vec<Tree>> {
        let mut trees: Vec<Tree> = Vec::new();
        for slot in 0..2 {
            let window = Window::open_copy(storage.clone(), offset, slot)
                .map_err(|error| super::fault::from_io(error).into_error())?;
            let Some(window) = window else { continue };
            // An invalid header counts as none.
            let Ok(roots) = Roots::of(&window.header()) else { continue };
            if trees.iter().all(|tree| tree.window.sequence() != window.sequence()) {
                trees.push(Tree { window, roots });
            }
        }
        trees.sort_by_key(|tree| std::cmp::Reverse(tree.window.sequence()));
        Ok(trees)
    }

    /// Its pages.
    pub(crate) fn pages(&self) -> Pages<'_> {
        Pages::new(&self.window, self.roots)
    }

    /// The LSN that it had reached: every frame up to it is in the tables. `None` when the row with
    /// the LSN is lost.
    pub(crate) fn lsn(&self) -> Result<Option<u64>> {
        let pages = self.pages();
        pages.lsn(&pages.tables(Tables::User, &mut |_| Ok(()))?)
    }
}

/// The pages of one commit.
pub(crate) struct Pages<'a> {
    window: &'a Window,
    roots: Roots,
}

/// Whether a block holds an intact copy of the header of a B-tree.
pub(crate) fn header_at(block: &[u8]) -> bool {
    HeaderCopy::decode(block).is_some()
}

/// One of redb's two lists of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tables {
    /// The tables of this crate.
    User,
    /// redb's own. A walk over them must not overlap with a commit.
    System,
}

impl<'a> Pages<'a> {
    /// The pages that these roots reach. Their commit must be the newest one, or one that a
    /// snapshot holds, so that its pages are not freed during the walk.
    pub(super) fn new(window: &'a Window, roots: Roots) -> Pages<'a> {
        Pages { window, roots }
    }

    /// The pages of the newest commit. Nothing is committed while they are walked.
    pub(super) fn newest(window: &'a Window) -> Result<Pages<'a>> {
        Ok(Pages { window, roots: Roots::of(&window.header())? })
    }

    /// The LSN of this commit, which has these tables. `None` when the row with the LSN is lost.
    pub(super) fn lsn(&self, tables: &[TableRoot]) -> Result<Option<u64>> {
        let mut lsn = None;
        for meta in tables.iter().filter(|table| table.name == META.name()) {
            self.visit(meta, Depth::Rows, &mut |visit| {
                if let Visit::Row { key, value } = visit
                    && key == LSN_KEY.as_bytes()
                {
                    lsn = u64_at(value, 0);
                }
                Ok(())
            })?;
        }
        Ok(lsn)
    }

    /// How many bytes of redb's storage the file has space for.
    pub(super) fn present_len(&self) -> u64 {
        self.window.present_len()
    }

    /// The tables. `visitor` gets the pages of the tree that lists them, and what is lost of it.
    pub(crate) fn tables(
        &self,
        of: Tables,
        visitor: &mut dyn FnMut(Visit<'_>) -> Result<()>,
    ) -> Result<Vec<TableRoot>> {
        let root = match of {
            Tables::User => self.roots.user,
            Tables::System => self.roots.system,
        };
        let mut tables = Vec::new();
        self.walk(root, Widths::default(), Depth::Rows, &mut |visit| match visit {
            Visit::Row { key, value } => match table_root(key, value) {
                Some(table) => {
                    tables.push(table);
                    Ok(())
                }
                None => {
                    let name = String::from_utf8_lossy(key).into_owned();
                    let error = Error::corrupted(
                        "B-tree",
                        format!("the definition of table {name:?} is invalid"),
                    );
                    visitor(Visit::Lost { place: None, error, keys: (None, None) })
                }
            },
            other => visitor(other),
        })?;
        Ok(tables)
    }

    /// Shows `visitor` everything below the root of `table`. An error of the visitor ends the walk.
    pub(crate) fn visit(
        &self,
        table: &TableRoot,
        depth: Depth,
        visitor: &mut dyn FnMut(Visit<'_>) -> Result<()>,
    ) -> Result<()> {
        self.walk(table.root, table.widths, depth, visitor)
    }

    fn walk(
        &self,
        root: Option<u64>,
        widths: Widths,
        depth: Depth,
        visitor: &mut dyn FnMut(Visit<'_>) -> Result<()>,
    ) -> Result<()> {
        let Some(root) = root else { return Ok(()) };
        // All leaves have the same depth, so they are recognized without reading them.
        let leaf_level = match depth {
            Depth::LeafNumbers => self.height(root, widths, 0),
            Depth::Leaves | Depth::Rows => None,
        };
        Walk { pages: self, widths, depth, leaf_level, visitor }.page(root, 0, &(None, None))
    }

    /// The number of levels of branches above the leaves, from the first readable path.
    fn height(&self, number: u64, widths: Widths, level: usize) -> Option<usize> {
        let (_, page) = self.read(number, widths).ok()?;
        match Node::of(&page, widths)? {
            Node::Leaf(_) => Some(level),
            Node::Branch(_) if level == MAX_DEPTH => None,
            Node::Branch(branch) => {
                branch.children().find_map(|(child, _)| self.height(child, widths, level + 1))
            }
        }
    }

    /// A page that is whole.
    fn read(
        &self,
        number: u64,
        widths: Widths,
    ) -> Result<(PageSpan, Vec<u8>), (Option<PageSpan>, Error)> {
        let Some(place) = self.roots.place(number) else {
            return Err((
                None,
                Error::corrupted("B-tree", format!("page number {number:#x} is impossible")),
            ));
        };
        let fail = |error| (Some(place), error);
        let end = place.end().checked_mul(BLOCK).filter(|end| *end <= self.window.data_len());
        if end.is_none() {
            let detail =
                format!("the page of blocks {} to {} is beyond its end", place.block, place.end());
            return Err(fail(Error::corrupted("B-tree", detail)));
        }
        let mut page = vec![0; to_usize(place.blocks) * BLOCK_SIZE];
        self.window.read_blocks(place.block, &mut page).map_err(fail)?;
        if Node::of(&page, widths).is_some_and(|node| node.is_whole()) {
            return Ok((place, page));
        }
        Err(fail(Error::corrupted(
            self.window.location(place.block),
            "the page is neither a valid leaf nor a valid branch",
        )))
    }
}

struct Walk<'a, 'v> {
    pages: &'a Pages<'a>,
    widths: Widths,
    depth: Depth,
    leaf_level: Option<usize>,
    visitor: &'v mut dyn FnMut(Visit<'_>) -> Result<()>,
}

impl Walk<'_, '_> {
    fn page(&mut self, number: u64, level: usize, keys: &KeyRange) -> Result<()> {
        let after = keys.0.as_deref();
        if self.leaf_level == Some(level)
            && let Some(place) = self.pages.roots.place(number)
        {
            return (self.visitor)(Visit::Page { place, is_leaf: true, after });
        }
        let (place, page) = match self.pages.read(number, self.widths) {
            Ok(read) if level <= MAX_DEPTH => read,
            Ok((place, _)) => {
                let error = Error::corrupted("B-tree", "its pages form a cycle");
                return (self.visitor)(Visit::Lost {
                    place: Some(place),
                    error,
                    keys: keys.clone(),
                });
            }
            Err((place, error)) => {
                return (self.visitor)(Visit::Lost { place, error, keys: keys.clone() });
            }
        };
        match Node::of(&page, self.widths) {
            Some(Node::Leaf(leaf)) => {
                (self.visitor)(Visit::Page { place, is_leaf: true, after })?;
                if self.depth == Depth::Rows {
                    for (key, value) in leaf.rows() {
                        (self.visitor)(Visit::Row { key, value })?;
                    }
                }
                Ok(())
            }
            Some(Node::Branch(branch)) => {
                (self.visitor)(Visit::Page { place, is_leaf: false, after })?;
                let mut from = keys.0.clone();
                for (child, to) in branch.children() {
                    let to = to.map(<[u8]>::to_vec).or_else(|| keys.1.clone());
                    self.page(child, level + 1, &(from, to.clone()))?;
                    from = to;
                }
                Ok(())
            }
            // A page that is whole is one of the two.
            None => Ok(()),
        }
    }
}

fn table_root(name: &[u8], definition: &[u8]) -> Option<TableRoot> {
    let name = std::str::from_utf8(name).ok()?.to_owned();
    let (&[kind], rest) = definition.split_first_chunk::<1>()?;
    let (rows, rest) = rest.split_first_chunk::<8>()?;
    let (&[has_root], rest) = rest.split_first_chunk::<1>()?;
    let (root, rest) = rest.split_first_chunk::<32>()?;
    let root = (has_root != 0).then(|| u64_at(root, 0)).flatten();
    if kind != NORMAL_TABLE || (has_root != 0) != root.is_some() {
        return None;
    }
    let width = |at: usize| match rest.get(at)? {
        0 => Some(None),
        _ => usize::try_from(u32_at(rest, at + 1)?).ok().map(Some),
    };
    let widths = Widths { key: width(0)?, value: width(5)? };
    Some(TableRoot { name, rows: u64::from_le_bytes(*rows), root, widths })
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the numbers of these tests are small")]
mod tests;
