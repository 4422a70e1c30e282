//! The pages of the B-tree, read without redb: which pages a commit reaches, what the rows of an
//! intact leaf are, and what is lost with a damaged page.
//!
//! redb answers nothing behind a page that it cannot read, and says nothing about where its pages
//! lie. Three tools need just that: compaction (which pages lie at the end of the file, and which
//! key leads to each), the verifier (every block that is in use) and salvage (every row that is
//! still there). The bytes are those of redb's file format 3, as its design document and [its
//! source](https://github.com/cberner/redb) have them; a test compares what is read here with what
//! redb answers.
//!
#![doc = include_str!("../../docs/tables/redb-pages.md")]
//!
//! Ends are offsets in the page, and are left out where all keys or values have one width. A
//! branch's key i is an upper bound, inclusive, of what is below child i.

use super::layout::{BLOCK, HEADER_LEN, HeaderCopy, REGION_BLOCKS, to_usize};
use super::window::Window;
use super::{LSN_KEY, META};
use crate::error::{Error, Result};
use crate::limits::BLOCK_SIZE;
use crate::storage::Storage;
use redb::TableHandle;
use std::sync::Arc;

/// redb's file format that is read here.
const FILE_FORMAT: u8 = 3;

const LEAF: u8 = 1;
const BRANCH: u8 = 2;
const NORMAL_TABLE: u8 = 3;

/// The deepest tree that is followed. Each level at least doubles the pages, so no file has more.
const MAX_DEPTH: usize = 64;

/// The largest order of a page: redb's regions have 2^20 blocks.
const MAX_ORDER: u32 = 20;

/// Where a page lies: the number of its first block and how many it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) block: u64,
    pub(crate) blocks: u64,
}

impl Place {
    /// The block behind the page.
    pub(crate) fn end(self) -> u64 {
        self.block + self.blocks
    }
}

/// Keys: those greater than the first bound and not greater than the second, `None` being no bound.
pub(crate) type KeyRange = (Option<Vec<u8>>, Option<Vec<u8>>);

/// What a walk meets.
pub(crate) enum Visit<'a> {
    /// A page that inner pages, or the leaves of a walk over pages, are.
    Page {
        place: Place,
        is_leaf: bool,
        /// Every key below it is greater than this one.
        after: Option<&'a [u8]>,
    },
    /// A row, of a walk over rows. They come in key order.
    Row { key: &'a [u8], value: &'a [u8] },
    /// A page that cannot be read, and with it everything in this range of keys.
    Lost { place: Option<Place>, error: Error, keys: KeyRange },
}

/// How far a walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// To the numbers of the leaves, which are not read.
    LeafNumbers,
    /// Every page is read, the leaves too.
    Leaves,
    /// Every row is shown.
    Rows,
}

/// A table as a commit has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableRoot {
    pub(crate) name: String,
    /// How many rows it says it has.
    pub(crate) rows: u64,
    root: Option<u64>,
    widths: Widths,
}

/// The one length that all keys, or all values, of a table have, if they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Widths {
    key: Option<usize>,
    value: Option<usize>,
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
            return Err(damaged(&format!("redb's file format {format} instead of {FILE_FORMAT}")));
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

    /// Where the page with this number lies.
    fn place(&self, number: u64) -> Option<Place> {
        let order = u32::try_from(number >> 59).ok().filter(|order| *order <= MAX_ORDER)?;
        let index = number & (0xF_FFFF >> order);
        let region = (number >> 20) & 0xF_FFFF;
        let blocks = 1 << order;
        let at =
            BLOCK + region * self.region_bytes + self.region_header_bytes + index * blocks * BLOCK;
        Some(Place { block: at / BLOCK, blocks })
    }
}

/// The B-tree of a file that may be damaged: read without redb, and without writing to the file.
pub(crate) struct Tree {
    window: Window,
    roots: Roots,
}

impl Tree {
    /// The states of the B-tree that can be found in `storage` from `offset` on, the newest one
    /// first: at most two, and one when both copies of the header have the same. The file may be
    /// shorter than it was.
    ///
    /// # Errors
    /// [`Error::Io`] when not even the headers can be read.
    pub(crate) fn open(storage: &Arc<dyn Storage>, offset: u64) -> Result<Vec<Tree>> {
        let mut trees: Vec<Tree> = Vec::new();
        for slot in 0..2 {
            let window = Window::open_copy(storage.clone(), offset, slot)
                .map_err(|error| super::fault::from_io(error).into_error())?;
            let Some(window) = window else { continue };
            // A header that makes no sense is as good as none.
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

    /// The LSN that it had reached: every frame up to it is in the tables. `None` when that is
    /// lost.
    pub(crate) fn lsn(&self) -> Result<Option<u64>> {
        let pages = self.pages();
        let mut lsn = None;
        let tables = pages.tables(Tables::User, &mut |_| Ok(()))?;
        for meta in tables.iter().filter(|table| table.name == META.name()) {
            pages.visit(meta, Depth::Rows, &mut |visit| {
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

/// Which of redb's two trees of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tables {
    /// Ours.
    User,
    /// What redb keeps for itself. A walk over them must not overlap with a commit.
    System,
}

impl<'a> Pages<'a> {
    /// The pages that these roots reach. They must be of a commit whose pages nobody frees during
    /// the walk: the newest one, or one that a snapshot holds.
    pub(super) fn new(window: &'a Window, roots: Roots) -> Pages<'a> {
        Pages { window, roots }
    }

    /// The pages of the newest commit. Nothing is committed while they are walked.
    pub(super) fn newest(window: &'a Window) -> Result<Pages<'a>> {
        Ok(Pages { window, roots: Roots::of(&window.header())? })
    }

    /// How many bytes of redb's storage the file has room for.
    pub(super) fn present_len(&self) -> u64 {
        self.window.present_len()
    }

    /// The tables. `visitor` is shown the pages of the tree that lists them, and what of it is
    /// lost.
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
                        format!("the root of table {name:?} makes no sense"),
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
        // All leaves are equally deep, so that they need not be read to know them.
        let leaf_level = match depth {
            Depth::LeafNumbers => self.height(root, widths, 0),
            Depth::Leaves | Depth::Rows => None,
        };
        Walk { pages: self, widths, depth, leaf_level, visitor }.page(root, 0, &(None, None))
    }

    /// How many levels of branches are above the leaves, by the first path that can be read.
    fn height(&self, number: u64, widths: Widths, level: usize) -> Option<usize> {
        match self.read(number, widths).ok()?.1 {
            Node::Leaf(_) => Some(level),
            Node::Branch(_) if level == MAX_DEPTH => None,
            Node::Branch(branch) => {
                branch.children.iter().find_map(|(child, _)| self.height(*child, widths, level + 1))
            }
        }
    }

    fn read(&self, number: u64, widths: Widths) -> Result<(Place, Node), (Option<Place>, Error)> {
        let Some(place) = self.roots.place(number) else {
            return Err((
                None,
                Error::corrupted("B-tree", format!("there can be no page {number:#x}")),
            ));
        };
        let fail = |error| (Some(place), error);
        let end = place.end().checked_mul(BLOCK).filter(|end| *end <= self.window.data_len());
        if end.is_none() {
            let detail =
                format!("a page of blocks {} to {} lies past its end", place.block, place.end());
            return Err(fail(Error::corrupted("B-tree", detail)));
        }
        let mut page = vec![0; to_usize(place.blocks) * BLOCK_SIZE];
        self.window.read_blocks(place.block, &mut page).map_err(fail)?;
        let node = Node::parse(page, widths).ok_or_else(|| {
            fail(Error::corrupted(self.window.location(place.block), "the page makes no sense"))
        })?;
        Ok((place, node))
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
        let (place, node) = match self.pages.read(number, self.widths) {
            Ok(read) if level <= MAX_DEPTH => read,
            Ok((place, _)) => {
                let error = Error::corrupted("B-tree", "its pages form a circle");
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
        match node {
            Node::Leaf(leaf) => {
                (self.visitor)(Visit::Page { place, is_leaf: true, after })?;
                if self.depth == Depth::Rows {
                    for (key, value) in leaf.rows() {
                        (self.visitor)(Visit::Row { key, value })?;
                    }
                }
                Ok(())
            }
            Node::Branch(branch) => {
                (self.visitor)(Visit::Page { place, is_leaf: false, after })?;
                let mut from = keys.0.clone();
                for (child, to) in branch.children {
                    let to = to.or_else(|| keys.1.clone());
                    self.page(child, level + 1, &(from, to.clone()))?;
                    from = to;
                }
                Ok(())
            }
        }
    }
}

enum Node {
    Leaf(Leaf),
    Branch(Branch),
}

struct Leaf {
    page: Vec<u8>,
    rows: usize,
    widths: Widths,
}

struct Branch {
    /// Page numbers, each with the upper bound of the keys below it; the last has none.
    children: Vec<(u64, Option<Vec<u8>>)>,
}

impl Node {
    fn parse(page: Vec<u8>, widths: Widths) -> Option<Node> {
        let [kind, _, low, high, ..] = *page else { return None };
        let count = usize::from(u16::from_le_bytes([low, high]));
        match kind {
            LEAF => {
                let leaf = Leaf { page, rows: count, widths };
                // So that no row is lost without a word.
                (leaf.rows().count() == count).then_some(Node::Leaf(leaf))
            }
            BRANCH => Branch::parse(&page, count, widths.key).map(Node::Branch),
            _ => None,
        }
    }
}

impl Leaf {
    fn rows(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        (0..self.rows).map_while(|row| {
            let key_from = if row == 0 { self.keys_at() } else { self.key_end(row - 1)? };
            let value_from =
                if row == 0 { self.key_end(self.rows - 1)? } else { self.value_end(row - 1)? };
            let key = self.page.get(key_from..self.key_end(row)?)?;
            Some((key, self.page.get(value_from..self.value_end(row)?)?))
        })
    }

    /// How many bytes the ends take of what has no one width.
    fn ends_len(&self, width: Option<usize>) -> usize {
        if width.is_some() { 0 } else { 4 * self.rows }
    }

    fn keys_at(&self) -> usize {
        4 + self.ends_len(self.widths.key) + self.ends_len(self.widths.value)
    }

    fn key_end(&self, row: usize) -> Option<usize> {
        match self.widths.key {
            Some(width) => width.checked_mul(row + 1)?.checked_add(self.keys_at()),
            None => usize::try_from(u32_at(&self.page, 4 + 4 * row)?).ok(),
        }
    }

    fn value_end(&self, row: usize) -> Option<usize> {
        match self.widths.value {
            Some(width) => {
                width.checked_mul(row + 1)?.checked_add(self.key_end(self.rows.checked_sub(1)?)?)
            }
            None => {
                usize::try_from(u32_at(&self.page, 4 + self.ends_len(self.widths.key) + 4 * row)?)
                    .ok()
            }
        }
    }
}

impl Branch {
    fn parse(page: &[u8], keys: usize, key_width: Option<usize>) -> Option<Branch> {
        let children = keys + 1;
        let (numbers_at, ends_at) = (8 + 16 * children, 8 + 24 * children);
        let end = |index: usize| match key_width {
            Some(width) => width.checked_mul(index + 1)?.checked_add(ends_at),
            None => usize::try_from(u32_at(page, ends_at + 4 * index)?).ok(),
        };
        let keys_at = ends_at + if key_width.is_some() { 0 } else { 4 * keys };
        let children = (0..children).map(|child| {
            let number = u64_at(page, numbers_at + 8 * child)?;
            if child == keys {
                return Some((number, None));
            }
            let from = if child == 0 { keys_at } else { end(child - 1)? };
            Some((number, Some(page.get(from..end(child)?)?.to_vec())))
        });
        Some(Branch { children: children.collect::<Option<_>>()? })
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

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the numbers of these tests are small")]
mod tests;
