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
use super::pages::node::{Branch, Leaf, Node, Widths};
use super::pages::{MAX_DEPTH, PageSpan, Pages, Roots, Tables, Visit};
use super::window::Window;
use crate::limits::BLOCK_SIZE;
use crate::tables::{Catalogue, Table, Value};
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// A page of more blocks has a value that is read by redb.
const MAX_BLOCKS: u64 = 16;

thread_local! {
    /// The page that is being read.
    static PAGE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
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

    /// How many leaves more may be in memory.
    #[cfg(test)]
    pub(super) fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }

    fn give_back(&self, leaves: usize) {
        self.left.fetch_add(leaves, Ordering::Relaxed);
    }
}

/// The tables of one commit.
pub(super) struct DirectTables {
    window: Window,
    roots: Roots,
    /// By the number of the table. `None` is a table that redb is asked for.
    tables: Vec<Option<DirectTable>>,
    budget: Arc<LeafBudget>,
    /// How many leaves are in memory.
    leaves: AtomicUsize,
}

struct DirectTable {
    /// `None` when it has no rows.
    root: Option<DirectPage>,
}

/// A page, and what was read of it once.
struct DirectPage {
    number: u64,
    kept: OnceLock<KeptPage>,
}

/// What a page was that was read just now.
enum FirstLook {
    /// A branch, which is kept.
    Branch,
    /// A leaf, with the value at the key in question.
    Leaf(Option<Value>),
}

enum KeptPage {
    Branch(Box<KeptBranch>),
    Leaf(Box<[u8]>),
}

struct KeptBranch {
    page: Box<[u8]>,
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
        let found = pages.tables(Tables::User, &mut |visit| match visit {
            Visit::Lost { error, .. } => Err(error),
            Visit::Page { .. } | Visit::Row { .. } => Ok(()),
        });
        let found = found.ok()?;
        if pages.lsn(&found).ok()? != Some(lsn) {
            return None;
        }
        let mut tables = Vec::new();
        for &table in catalogue.all() {
            let place = found.iter().find(|place| place.name == table.name());
            let root = place.and_then(|place| place.root_of_any_width());
            tables.resize_with(usize::from(table.number()), || None);
            tables.push(root.map(|root| DirectTable { root: root.map(DirectPage::unread) }));
        }
        let (window, budget) = (window.clone(), Arc::clone(budget));
        Some(Self { window, roots, tables, budget, leaves: AtomicUsize::new(0) })
    }

    /// The value at `key`. `None` where redb is to be asked.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Option<Option<Value>> {
        // One that is missing here may be damaged.
        let table = self.tables.get(usize::from(table.number()))?.as_ref()?;
        let Some(mut page) = table.root.as_ref() else { return Some(None) };
        for _ in 0..=MAX_DEPTH {
            let branch = match page.kept.get() {
                Some(KeptPage::Branch(branch)) => branch,
                Some(KeptPage::Leaf(leaf)) => {
                    let Node::Leaf(leaf) = Node::of(leaf, Widths::default())? else { return None };
                    return value_in(leaf, key);
                }
                None => {
                    let place = self.roots.place(page.number)?;
                    match self.with_page(place, |bytes| self.first_look(page, bytes, key))? {
                        FirstLook::Leaf(found) => return Some(found),
                        FirstLook::Branch => continue,
                    }
                }
            };
            page = branch.child_for(key)?;
        }
        None
    }

    /// Keeps a page that was read, if there is space for it. `None` for one that is no page.
    fn first_look(&self, page: &DirectPage, bytes: &[u8], key: &[u8]) -> Option<FirstLook> {
        match Node::of(bytes, Widths::default())? {
            Node::Branch(branch) => {
                let kept = KeptBranch::of(bytes, branch)?;
                // Another thread may have kept the same.
                let _ = page.kept.set(KeptPage::Branch(Box::new(kept)));
                Some(FirstLook::Branch)
            }
            Node::Leaf(leaf) => {
                let found = value_in(leaf, key)?;
                if bytes.len() == BLOCK_SIZE && self.budget.take() {
                    match page.kept.set(KeptPage::Leaf(bytes.into())) {
                        Ok(()) => _ = self.leaves.fetch_add(1, Ordering::Relaxed),
                        Err(_) => self.budget.give_back(1),
                    }
                }
                Some(FirstLook::Leaf(found))
            }
        }
    }

    /// Calls `look` with the bytes of a page, which are in a buffer of the thread.
    fn with_page<T>(&self, place: PageSpan, look: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        let end = place.end().checked_mul(BLOCK)?;
        (place.blocks <= MAX_BLOCKS && end <= self.window.data_len()).then_some(())?;
        let len = to_usize(place.blocks) * BLOCK_SIZE;
        let read = PAGE.try_with(|buffer| {
            let mut buffer = buffer.try_borrow_mut().ok()?;
            if buffer.len() < len {
                buffer.resize(len, 0);
            }
            let page = buffer.get_mut(..len)?;
            self.window.read_blocks(place.block, page).ok()?;
            look(page)
        });
        read.ok().flatten()
    }
}

impl Drop for DirectTables {
    fn drop(&mut self) {
        self.budget.give_back(*self.leaves.get_mut());
    }
}

impl DirectPage {
    fn unread(number: u64) -> Self {
        Self { number, kept: OnceLock::new() }
    }
}

impl KeptBranch {
    fn of(page: &[u8], branch: Branch<'_>) -> Option<Self> {
        let prefixes = (0..branch.keys).map(|child| branch.key(child).map(prefix_of));
        let children = (0..=branch.keys).map(|child| branch.child(child).map(DirectPage::unread));
        let (prefixes, children) =
            (prefixes.collect::<Option<_>>()?, children.collect::<Option<_>>()?);
        Some(Self { page: page.into(), prefixes, children })
    }

    fn child_for(&self, key: &[u8]) -> Option<&DirectPage> {
        let prefix = prefix_of(key);
        let mut low = self.prefixes.partition_point(|&of_child| of_child < prefix);
        // Those with the same first bytes are looked at whole.
        let same = self.prefixes.get(low..)?.partition_point(|&of_child| of_child == prefix);
        if same > 0 {
            let Node::Branch(branch) = Node::of(&self.page, Widths::default())? else {
                return None;
            };
            let mut high = low + same;
            while low < high {
                let middle = low + (high - low) / 2;
                if branch.key(middle)? < key { low = middle + 1 } else { high = middle }
            }
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

fn value_in(leaf: Leaf<'_>, key: &[u8]) -> Option<Option<Value>> {
    leaf.find(key).map(|found| found.map(Value::from))
}
