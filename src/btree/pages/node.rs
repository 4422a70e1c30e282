//! The bytes of a page: a leaf's rows, and a branch's children.

const LEAF: u8 = 1;
const BRANCH: u8 = 2;

/// The width that all keys, or all values, of a table have, if they have one width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::btree) struct Widths {
    pub(super) key: Option<usize>,
    pub(super) value: Option<usize>,
}

/// A page. What it says of its own bytes may be wrong: each answer is `None` where it points
/// beyond them.
#[derive(Debug, Clone, Copy)]
pub(in crate::btree) enum Node<'a> {
    Leaf(Leaf<'a>),
    Branch(Branch<'a>),
}

/// Rows, in the order of their keys.
#[derive(Debug, Clone, Copy)]
pub(in crate::btree) struct Leaf<'a> {
    page: &'a [u8],
    rows: usize,
    widths: Widths,
}

/// The numbers of pages, one more than there are keys between them.
#[derive(Debug, Clone, Copy)]
pub(in crate::btree) struct Branch<'a> {
    page: &'a [u8],
    pub(in crate::btree) keys: usize,
    key_width: Option<usize>,
}

impl<'a> Node<'a> {
    /// The page as what it says it is.
    pub(in crate::btree) fn of(page: &'a [u8], widths: Widths) -> Option<Node<'a>> {
        let [kind, _, low, high, ..] = *page else { return None };
        let count = usize::from(u16::from_le_bytes([low, high]));
        match kind {
            LEAF => Some(Node::Leaf(Leaf { page, rows: count, widths })),
            BRANCH => Some(Node::Branch(Branch { page, keys: count, key_width: widths.key })),
            _ => None,
        }
    }

    /// Whether each of its rows or children can be read: none may be lost silently.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Node::Leaf(leaf) => leaf.rows().count() == leaf.rows,
            Node::Branch(branch) => branch.children().count() == branch.keys + 1,
        }
    }
}

impl<'a> Leaf<'a> {
    pub(super) fn rows(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        (0..self.rows).map_while(move |row| Some((self.key(row)?, self.value(row)?)))
    }

    /// The value at `key`, if there is one. `None` for a page that is not whole.
    pub(in crate::btree) fn find(self, key: &[u8]) -> Option<Option<&'a [u8]>> {
        let (mut low, mut high) = (0, self.rows);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.key(middle)? < key { low = middle + 1 } else { high = middle }
        }
        if low == self.rows || self.key(low)? != key {
            return Some(None);
        }
        self.value(low).map(Some)
    }

    fn key(self, row: usize) -> Option<&'a [u8]> {
        let from = if row == 0 { self.keys_at() } else { self.key_end(row - 1)? };
        self.page.get(from..self.key_end(row)?)
    }

    fn value(self, row: usize) -> Option<&'a [u8]> {
        let from = match row.checked_sub(1) {
            None => self.values_at()?,
            Some(before) => self.value_end(before)?,
        };
        self.page.get(from..self.value_end(row)?)
    }

    /// The length of the list of ends. Keys or values of one width have no list.
    fn ends_len(self, width: Option<usize>) -> usize {
        if width.is_some() { 0 } else { 4 * self.rows }
    }

    fn keys_at(self) -> usize {
        4 + self.ends_len(self.widths.key) + self.ends_len(self.widths.value)
    }

    fn values_at(self) -> Option<usize> {
        self.key_end(self.rows.checked_sub(1)?)
    }

    fn key_end(self, row: usize) -> Option<usize> {
        match self.widths.key {
            Some(width) => width.checked_mul(row + 1)?.checked_add(self.keys_at()),
            None => end_at(self.page, 4 + 4 * row),
        }
    }

    fn value_end(self, row: usize) -> Option<usize> {
        match self.widths.value {
            Some(width) => width.checked_mul(row + 1)?.checked_add(self.values_at()?),
            None => end_at(self.page, 4 + self.ends_len(self.widths.key) + 4 * row),
        }
    }
}

impl<'a> Branch<'a> {
    /// Page numbers, each with the upper bound of the keys below it. The last has none.
    pub(super) fn children(self) -> impl Iterator<Item = (u64, Option<&'a [u8]>)> {
        (0..=self.keys).map_while(move |child| {
            let key = if child == self.keys { None } else { Some(self.key(child)?) };
            Some((self.child(child)?, key))
        })
    }

    /// The number of a child's page.
    pub(in crate::btree) fn child(self, child: usize) -> Option<u64> {
        u64_at(self.page, 8 + 16 * (self.keys + 1) + 8 * child)
    }

    /// The upper bound of the keys below a child that is not the last one.
    pub(in crate::btree) fn key(self, child: usize) -> Option<&'a [u8]> {
        let ends_at = 8 + 24 * (self.keys + 1);
        let end = |child: usize| match self.key_width {
            Some(width) => width.checked_mul(child + 1)?.checked_add(ends_at),
            None => end_at(self.page, ends_at + 4 * child),
        };
        let from = match child.checked_sub(1) {
            None => ends_at + if self.key_width.is_some() { 0 } else { 4 * self.keys },
            Some(before) => end(before)?,
        };
        self.page.get(from..end(child)?)
    }
}

fn end_at(page: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32_at(page, at)?).ok()
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
