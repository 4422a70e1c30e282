//! The bytes of a page: a leaf's rows, and a branch's children.

const LEAF: u8 = 1;
const BRANCH: u8 = 2;

/// The width that all keys, or all values, of a table have, if they have one width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Widths {
    pub(super) key: Option<usize>,
    pub(super) value: Option<usize>,
}

pub(super) enum Node {
    Leaf(Leaf),
    Branch(Branch),
}

pub(super) struct Leaf {
    page: Vec<u8>,
    pub(super) rows: usize,
    widths: Widths,
}

pub(super) struct Branch {
    /// Page numbers, each with the upper bound of the keys below it. The last has none.
    pub(super) children: Vec<(u64, Option<Vec<u8>>)>,
}

impl Node {
    pub(super) fn parse(page: Vec<u8>, widths: Widths) -> Option<Node> {
        let [kind, _, low, high, ..] = *page else { return None };
        let count = usize::from(u16::from_le_bytes([low, high]));
        match kind {
            LEAF => {
                let leaf = Leaf { page, rows: count, widths };
                // A row that cannot be read must not be lost silently.
                (leaf.rows().count() == count).then_some(Node::Leaf(leaf))
            }
            BRANCH => Branch::parse(&page, count, widths.key).map(Node::Branch),
            _ => None,
        }
    }
}

impl Leaf {
    pub(super) fn rows(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        (0..self.rows).map_while(|row| {
            let key_from = if row == 0 { self.keys_at() } else { self.key_end(row - 1)? };
            let value_from =
                if row == 0 { self.key_end(self.rows - 1)? } else { self.value_end(row - 1)? };
            let key = self.page.get(key_from..self.key_end(row)?)?;
            Some((key, self.page.get(value_from..self.value_end(row)?)?))
        })
    }

    /// The length of the list of ends. Keys or values of one width have no list.
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

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
