//! A walk over a table and the table beside it.

use crate::engine::access::{Reader, Row, Value};
use crate::error::Result;
use crate::tables::Table;
use std::ops::Bound;

/// Shows `each` every row of `primary` behind the key `after`, in key order, with the row of
/// `beside` under the same key, until it answers `false`. Reads `slice` rows at a time.
///
/// Both tables are scanned side by side, because a point read per row would cost more than the
/// scan. No row of `beside` stands without one of `primary`, so a range has no more of them.
pub(crate) fn visit(
    rows: &mut dyn Reader,
    (primary, beside): (Table, Table),
    slice: usize,
    mut after: Option<Vec<u8>>,
    mut each: impl FnMut(&[u8], &Value, Option<&Value>) -> Result<bool>,
) -> Result<()> {
    loop {
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let found = rows.scan(primary, from, Bound::Unbounded, slice)?;
        let Some((last, _)) = found.last() else { return Ok(()) };
        let companions = rows.scan(beside, from, Bound::Included(last), found.len())?;
        let mut companions = companions.iter().peekable();
        for (key, value) in &found {
            // An orphan would break the invariant above; it must not hide the companions behind it.
            while companions.next_if(|(other, _)| other < key).is_some() {}
            let companion: Option<&Row> = companions.next_if(|(other, _)| other == key);
            if !each(key, value, companion.map(|(_, value)| value))? {
                return Ok(());
            }
        }
        if found.len() < slice {
            return Ok(());
        }
        after = found.into_iter().next_back().map(|(key, _)| key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::access::Writer;
    use crate::stores::map_tx::MapTx;

    const TABLES: (Table, Table) = (Table::Handoff, Table::HandoffClaim);

    fn ten_rows() -> MapTx {
        let mut tx = MapTx::at(0);
        for key in 0..10_u8 {
            tx.put(Table::Handoff, &[key], vec![key]);
            if key % 3 == 0 {
                tx.put(Table::HandoffClaim, &[key], vec![100 + key]);
            }
        }
        tx
    }

    #[test]
    fn every_row_is_met_once_with_its_companion_whatever_the_slice() {
        for slice in 1..=11 {
            let mut met = Vec::new();
            visit(&mut ten_rows(), TABLES, slice, None, |key, value, companion| {
                met.push((key[0], value[0], companion.map(|companion| companion[0])));
                Ok(true)
            })
            .unwrap();
            let expected: Vec<_> =
                (0..10).map(|key| (key, key, (key % 3 == 0).then_some(100 + key))).collect();
            assert_eq!(met, expected, "slices of {slice}");
        }
    }

    #[test]
    fn it_begins_behind_a_key_and_stops_when_told() {
        let mut met = Vec::new();
        visit(&mut ten_rows(), TABLES, 2, Some(vec![3]), |key, _, _| {
            met.push(key[0]);
            Ok(met.len() < 3)
        })
        .unwrap();
        assert_eq!(met, [4, 5, 6]);
    }
}
