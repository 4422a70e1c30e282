//! Looking up one row of a commit, past redb.
//!
//! Most reads of the B-tree ask for one row by a key that is a hash. redb takes a lock and two
//! hashes for every page on the way, and for one that is not in its cache it throws another one
//! out. Here the pages of a commit that were read once are a tree of their own in memory, that no
//! one locks: all branches, and as many leaves as the budget has space for. A leaf beyond is read
//! from the file into a buffer of the thread. Every block is verified when it is read.
//!
//! Whatever is not as expected (a page that cannot be read or is damaged, a database that was
//! reopened) is left to redb, which is asked the same and says what is wrong. So this answers
//! rightly or not at all.
//!
//! A commit's pages are not written again while its snapshot, which is one of redb's, is held. The
//! tree in memory ends with the snapshot: a checkpoint of a busy room writes most leaves anew, and
//! in a quiet one there are few checkpoints.

use super::layout::{BLOCK, to_usize};
use super::pages::{PageSpan, Pages, Roots, Tables, Visit};
use super::window::Window;
use crate::limits::BLOCK_SIZE;
use crate::tables::{Catalogue, Table, Value};
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

const LEAF: u8 = 1;
const BRANCH: u8 = 2;

/// A page beyond this many blocks has a value that is read by redb.
const MAX_LEAF_BLOCKS: u64 = 16;

thread_local! {
    /// The leaf that is being read.
    static LEAF_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How many leaves may be in memory: the same number for all commits of one database together.
#[derive(Debug)]
pub(super) struct LeafBudget {
    left: AtomicUsize,
}

impl LeafBudget {
    /// A budget of so many bytes.
    pub(super) fn of(bytes: usize) -> Self {
        Self { left: AtomicUsize::new(bytes / BLOCK_SIZE) }
    }

    fn take(&self) -> bool {
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        taken.is_ok()
    }

    fn give_back(&self, leaves: usize) {
        self.left.fetch_add(leaves, Ordering::Relaxed);
    }
}

/// The tables of one commit, by the number of the table.
pub(super) struct DirectTables {
    window: Window,
    roots: Roots,
    tables: Vec<Option<DirectTable>>,
    budget: Arc<LeafBudget>,
    /// How many leaves are in memory.
    leaves: AtomicUsize,
}

struct DirectTable {
    /// Its root, if it has rows.
    root: Option<DirectPage>,
    /// How many levels of branches there are above the leaves. `None` when that cannot be read.
    levels: OnceLock<Option<usize>>,
}

/// A page, and what was read of it once.
struct DirectPage {
    number: u64,
    branch: OnceLock<Option<Box<DirectBranch>>>,
    leaf: OnceLock<Box<[u8]>>,
}

impl DirectPage {
    fn unread(number: u64) -> Self {
        Self { number, branch: OnceLock::new(), leaf: OnceLock::new() }
    }
}

/// A branch that was read once.
struct DirectBranch {
    page: Vec<u8>,
    keys: usize,
    /// The first bytes of each key. Most look-ups are decided by them.
    prefixes: Box<[u64]>,
    children: Box<[DirectPage]>,
}

impl DirectTables {
    /// The tables of the newest commit, of which a snapshot is held and which has this LSN. Nothing
    /// is committed meanwhile. `None` where redb is to say what is wrong.
    pub(super) fn newest(
        window: &Window,
        budget: &Arc<LeafBudget>,
        catalogue: Catalogue,
        lsn: u64,
    ) -> Option<Self> {
        let roots = Roots::of(&window.header()).ok()?;
        let pages = Pages::new(window, roots);
        if pages.lsn().ok()? != Some(lsn) {
            return None;
        }
        let found = pages.tables(Tables::User, &mut |visit| match visit {
            Visit::Lost { error, .. } => Err(error),
            Visit::Page { .. } | Visit::Row { .. } => Ok(()),
        });
        let found = found.ok()?;
        let mut tables = Vec::new();
        for &table in catalogue.all() {
            let place = found.iter().find(|place| place.name == table.name());
            let place = place.filter(|place| place.has_rows_of_any_width());
            tables.resize_with(usize::from(table.number()), || None);
            tables.push(place.map(|place| DirectTable {
                root: place.root().map(DirectPage::unread),
                levels: OnceLock::new(),
            }));
        }
        let (window, budget) = (window.clone(), Arc::clone(budget));
        Some(Self { window, roots, tables, budget, leaves: AtomicUsize::new(0) })
    }

    /// The value at `key`. `None` where redb is to be asked.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Option<Option<Value>> {
        // One that is missing here may be damaged.
        let table = self.tables.get(usize::from(table.number()))?.as_ref()?;
        let Some(mut page) = table.root.as_ref() else { return Some(None) };
        let pages = Pages::new(&self.window, self.roots);
        let levels = (*table.levels.get_or_init(|| pages.levels(page.number)))?;
        for _ in 0..levels {
            let branch = page.branch.get_or_init(|| self.branch(page.number)).as_deref()?;
            page = branch.child_for(key)?;
        }
        self.in_leaf(page, key)
    }

    fn branch(&self, number: u64) -> Option<Box<DirectBranch>> {
        let place = self.roots.place(number).filter(|place| place.blocks <= MAX_LEAF_BLOCKS)?;
        let mut page = vec![0; to_usize(place.blocks) * BLOCK_SIZE];
        self.read(place, &mut page)?;
        DirectBranch::parse(page).map(Box::new)
    }

    fn in_leaf(&self, page: &DirectPage, key: &[u8]) -> Option<Option<Value>> {
        if let Some(leaf) = page.leaf.get() {
            return find_in_leaf(leaf, key);
        }
        let place = self.roots.place(page.number)?;
        match place.blocks {
            1 if self.budget.take() => {
                let mut leaf = vec![0; BLOCK_SIZE].into_boxed_slice();
                let read = self.read(place, &mut leaf);
                let found = read.and_then(|()| find_in_leaf(&leaf, key));
                if found.is_some() && page.leaf.set(leaf).is_ok() {
                    self.leaves.fetch_add(1, Ordering::Relaxed);
                } else {
                    // It is damaged, or another thread has read it just now.
                    self.budget.give_back(1);
                }
                found
            }
            1..=MAX_LEAF_BLOCKS => LEAF_BUFFER.with_borrow_mut(|buffer| {
                let len = to_usize(place.blocks) * BLOCK_SIZE;
                if buffer.len() < len {
                    buffer.resize(len, 0);
                }
                let leaf = buffer.get_mut(..len)?;
                self.read(place, leaf)?;
                find_in_leaf(leaf, key)
            }),
            _ => None,
        }
    }

    fn read(&self, place: PageSpan, page: &mut [u8]) -> Option<()> {
        let end = place.end().checked_mul(BLOCK)?;
        (end <= self.window.data_len()).then_some(())?;
        self.window.read_blocks(place.block, page).ok()
    }
}

impl Drop for DirectTables {
    fn drop(&mut self) {
        self.budget.give_back(*self.leaves.get_mut());
    }
}

impl DirectBranch {
    fn parse(page: Vec<u8>) -> Option<Self> {
        let [BRANCH, _, low, high, ..] = *page else { return None };
        let keys = usize::from(u16::from_le_bytes([low, high]));
        let mut branch = Self { page, keys, prefixes: Box::default(), children: Box::default() };
        let prefixes = (0..keys).map(|index| branch.key(index).map(prefix_of));
        branch.prefixes = prefixes.collect::<Option<_>>()?;
        let children = (0..=keys).map(|child| {
            let number = u64_at(&branch.page, 8 + 16 * (keys + 1) + 8 * child)?;
            Some(DirectPage::unread(number))
        });
        branch.children = children.collect::<Option<_>>()?;
        Some(branch)
    }

    /// The upper bound of the keys below child `index`.
    fn key(&self, index: usize) -> Option<&[u8]> {
        let ends_at = 8 + 24 * (self.keys + 1);
        let end = |index: usize| u32_at(&self.page, ends_at + 4 * index);
        let from = match index.checked_sub(1) {
            None => ends_at + 4 * self.keys,
            Some(before) => end(before)?,
        };
        self.page.get(from..end(index)?)
    }

    fn child_for(&self, key: &[u8]) -> Option<&DirectPage> {
        let prefix = prefix_of(key);
        let mut low = self.prefixes.partition_point(|&of_child| of_child < prefix);
        // Those with the same first bytes are looked at whole.
        let same = self.prefixes.get(low..)?.partition_point(|&of_child| of_child == prefix);
        let mut high = low + same;
        while low < high {
            let middle = low + (high - low) / 2;
            if self.key(middle)? < key { low = middle + 1 } else { high = middle }
        }
        self.children.get(low)
    }
}

/// The first bytes of a key as a number, of which a greater one is of a greater key.
fn prefix_of(key: &[u8]) -> u64 {
    let mut first = [0; 8];
    for (to, from) in first.iter_mut().zip(key) {
        *to = *from;
    }
    u64::from_be_bytes(first)
}

/// The value at `key` in a leaf whose keys and values have no fixed width. `None` for a page that
/// is no such leaf.
fn find_in_leaf(page: &[u8], key: &[u8]) -> Option<Option<Value>> {
    let [LEAF, _, low, high, ..] = *page else { return None };
    let rows = usize::from(u16::from_le_bytes([low, high]));
    let last = rows.checked_sub(1)?;
    let key_end = |row: usize| u32_at(page, 4 + 4 * row);
    let value_end = |row: usize| u32_at(page, 4 + 4 * rows + 4 * row);
    let key_at = |row: usize| {
        let from = if row == 0 { 4 + 8 * rows } else { key_end(row - 1)? };
        page.get(from..key_end(row)?)
    };
    let (mut low, mut high) = (0, rows);
    while low < high {
        let middle = low + (high - low) / 2;
        if key_at(middle)? < key { low = middle + 1 } else { high = middle }
    }
    if low > last || key_at(low)? != key {
        return Some(None);
    }
    let from = if low == 0 { key_end(last)? } else { value_end(low - 1)? };
    Some(Some(Value::from(page.get(from..value_end(low)?)?)))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?)).ok()
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
