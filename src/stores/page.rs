//! Listings in pages.

mod parse;

use crate::error::{Error, Result};
use crate::limits::MAX_LIST_LIMIT;
use crate::tables::Table;
use std::fmt;

/// Marks the string form of a cursor, and its version.
const CURSOR_VERSION: u8 = 1;

/// Stands in the string form where the number of a table would, in a cursor of a driver from
/// outside. No table has it.
const NO_TABLE: u8 = 0;

/// One page of a listing, in key order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows of this page.
    pub items: Vec<T>,
    /// Where the next page begins, or `None` when this is the last one.
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// A page of `items`, and where the next page begins, as a driver answers it.
    #[must_use]
    pub fn new(items: Vec<T>, next: Option<Cursor>) -> Self {
        Self { items, next }
    }
}

/// A place in a listing, opaque to the caller. It outlives the room, and has a string form that
/// [`FromStr`](std::str::FromStr) takes back.
///
/// A listing goes on after the row at the cursor, whether or not that row still exists.
///
/// The author of another driver makes cursors with [`of_driver`](Self::of_driver).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The table of a room that is listed, or `None` in a listing of a driver from outside.
    table: Option<Table>,
    key: Vec<u8>,
}

/// Why a string is no [`Cursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CursorParseError {
    /// The string is not one that a cursor prints; pass back exactly what it printed.
    #[error("not the string form of a cursor; pass back exactly what the cursor printed")]
    Malformed,
    /// The string was shortened or altered.
    #[error(
        "the cursor was altered (its checksum does not match); pass back exactly what it printed"
    )]
    Altered,
}

impl Cursor {
    /// A cursor at the row at `key` of `table`.
    pub(crate) fn new(table: Table, key: Vec<u8>) -> Self {
        Self { table: Some(table), key }
    }

    /// A cursor in a listing of a driver that is not of this crate. `position` is the driver's own:
    /// it comes back from [`driver_position`](Self::driver_position), also after a trip through the
    /// string form, which notices when it was altered. No listing of a room takes such a cursor.
    ///
    /// Two drivers cannot tell each other's cursors apart, nor one driver its listings', unless
    /// `position` does. So it should hold what was asked (the name of the listing, and of
    /// [`scan_kind_for_tenant`](crate::state::StateStore::scan_kind_for_tenant) the tenant and the
    /// prefix) and the row where the page ended. It is not encrypted: every holder of the cursor
    /// can read it.
    ///
    /// ```
    /// use cloakroom::page::Cursor;
    /// let cursor = Cursor::of_driver("page ends at row 7");
    /// let back: Cursor = cursor.to_string().parse()?;
    /// assert_eq!(back.driver_position(), Some(&b"page ends at row 7"[..]));
    /// # Ok::<(), cloakroom::page::CursorParseError>(())
    /// ```
    #[must_use]
    pub fn of_driver(position: impl Into<Vec<u8>>) -> Self {
        Self { table: None, key: position.into() }
    }

    /// What [`of_driver`](Self::of_driver) was given. `None` when the cursor is of a listing of
    /// this crate, which a driver refuses as it refuses one of another question.
    #[must_use]
    pub fn driver_position(&self) -> Option<&[u8]> {
        self.table.is_none().then_some(self.key.as_slice())
    }

    /// The key that a listing of `table` goes on behind.
    pub(crate) fn key_in(&self, table: Table) -> Result<&[u8]> {
        if self.table != Some(table) {
            return Err(Self::foreign());
        }
        Ok(&self.key)
    }

    /// The key that a listing of the rows of `table` whose keys begin with `prefix` goes on behind.
    pub(crate) fn position<'c>(
        cursor: Option<&'c Self>,
        table: Table,
        prefix: &[u8],
    ) -> Result<Option<&'c [u8]>> {
        let Some(cursor) = cursor else { return Ok(None) };
        let key = cursor.key_in(table)?;
        // A cursor of another store in the same table would begin outside.
        if key.starts_with(prefix) { Ok(Some(key)) } else { Err(Self::foreign()) }
    }

    /// The error of a listing that is given a cursor of another one.
    pub(crate) fn foreign() -> Error {
        Error::InvalidConfig(
            "the cursor is of another store; pass one that a page of this listing gave".into(),
        )
    }
}

/// Refuses a page of no rows or of more than [`MAX_LIST_LIMIT`].
pub(crate) fn check_limit(limit: usize) -> Result<()> {
    if (1..=MAX_LIST_LIMIT).contains(&limit) {
        return Ok(());
    }
    Err(Error::InvalidConfig(format!("a page holds 1 to {MAX_LIST_LIMIT} rows, not {limit}")))
}

/// Makes one page of a listing of `table` of the next `limit` rows that `next` answers, which are
/// keys and what is shown of them.
pub(crate) fn page_of<T, E>(
    table: Table,
    limit: usize,
    mut next: impl FnMut() -> Result<Option<(Vec<u8>, T)>, E>,
) -> Result<Page<T>, E> {
    let (mut items, mut last) = (Vec::new(), None);
    while let Some((key, item)) = next()? {
        if items.len() == limit {
            return Ok(Page { items, next: last.map(|key| Cursor::new(table, key)) });
        }
        items.push(item);
        last = Some(key);
    }
    Ok(Page { items, next: None })
}

/// The string form is lowercase hex of: version (1 byte), table (1 byte, 0 for a driver from
/// outside), key, CRC-32 of all that (little-endian).
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![CURSOR_VERSION, self.table.map_or(NO_TABLE, Table::number)];
        bytes.extend_from_slice(&self.key);
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Cursor {
    /// Keeps the key to itself: it may be a lookup key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listing = self.table.map_or("driver", Table::name);
        write!(f, "Cursor({listing}, {} bytes)", self.key.len())
    }
}

/// The bytes of lowercase hex. `None` when `text` is anything else.
pub(crate) fn decode_hex(text: &str) -> Option<Vec<u8>> {
    /// What a digit stands for, or a number above fifteen.
    fn digit(byte: u8) -> u8 {
        let (number, letter) = (byte.wrapping_sub(b'0'), byte.wrapping_sub(b'a'));
        match (number, letter) {
            (0..10, _) => number,
            (_, 0..6) => letter + 10,
            _ => u8::MAX,
        }
    }
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    // This is on the way of every consume: nothing is decided before the end, so that several
    // digits are decoded at once. There is space for the tag of a token's key.
    let (mut bytes, mut all) = (Vec::with_capacity(pairs.len() + 1), 0);
    bytes.extend(pairs.iter().map(|&[high, low]| {
        let (high, low) = (digit(high), digit(low));
        all |= high | low;
        (high << 4) | (low & 0xF)
    }));
    (all <= 0xF).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::registry::catalogue;

    #[test]
    fn a_cursor_round_trips_in_a_frozen_string() {
        let cursor = Cursor::new(Table::HANDOFF, b"k\xff".to_vec());
        assert_eq!(cursor.to_string(), "01036bffc15bb530");
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
    }

    #[test]
    fn a_cursor_of_a_driver_round_trips_in_a_frozen_string() {
        let cursor = Cursor::of_driver(*b"k\xff");
        assert_eq!(cursor.to_string(), "01006bff98e5f332");
        let back: Cursor = cursor.to_string().parse().unwrap();
        assert_eq!(back.driver_position(), Some(&b"k\xff"[..]));
        assert_eq!(Cursor::of_driver([]).to_string().parse(), Ok(Cursor::of_driver([])));
        assert_eq!(catalogue().numbered(NO_TABLE), None);
    }

    #[test]
    fn rooms_and_drivers_refuse_each_others_cursors() {
        for &table in catalogue().all() {
            assert!(matches!(
                Cursor::of_driver(*b"key").key_in(table),
                Err(Error::InvalidConfig(_))
            ));
            assert_eq!(Cursor::new(table, b"key".to_vec()).driver_position(), None);
        }
    }

    #[test]
    fn an_altered_cursor_is_refused() {
        for cursor in [Cursor::new(Table::HANDOFF, b"key".to_vec()), Cursor::of_driver(*b"key")] {
            let text = cursor.to_string();
            for at in 0..text.len() {
                let mut altered = text.clone().into_bytes();
                altered[at] = if altered[at] == b'0' { b'1' } else { b'0' };
                assert!(String::from_utf8(altered).unwrap().parse::<Cursor>().is_err());
                assert!(text[..at].parse::<Cursor>().is_err());
            }
        }
        let text = Cursor::new(Table::HANDOFF, b"key".to_vec()).to_string();
        for foreign in ["", "xyz", "é", "01", &text.to_uppercase()] {
            assert!(foreign.parse::<Cursor>().is_err());
        }
    }

    #[test]
    fn a_cursor_of_another_store_is_refused() {
        let cursor = Cursor::new(Table::HANDOFF, b"key".to_vec());
        assert_eq!(cursor.key_in(Table::HANDOFF).unwrap(), b"key");
        assert!(matches!(cursor.key_in(Table::FORM_TOKEN), Err(Error::InvalidConfig(_))));
    }

    #[test]
    fn a_cursor_does_not_print_its_key_when_debugged() {
        assert_eq!(
            format!("{:?}", Cursor::new(Table::FORM_TOKEN, vec![1, 2])),
            "Cursor(form_token, 2 bytes)"
        );
        assert_eq!(format!("{:?}", Cursor::of_driver([1, 2])), "Cursor(driver, 2 bytes)");
    }

    #[test]
    fn pages_hold_one_row_to_the_limit() {
        for (limit, allowed) in
            [(0, false), (1, true), (MAX_LIST_LIMIT, true), (MAX_LIST_LIMIT + 1, false)]
        {
            assert_eq!(check_limit(limit).is_ok(), allowed, "{limit}");
        }
    }
}
