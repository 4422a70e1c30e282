//! The rows of the time line.
//!
//! | key | value |
//! |---|---|
//! | empty | the line when it was last written: [`WrittenLine`] |
//! | a zero | by which wall clock the expiry index has what ends by the wall clock, if not by that of the new room: its number |
//! | 0..4: an epoch, big-endian | the gap before it, where that is not, or may not be, what the line has of it: [`ClosedGap`] |

use super::decide::WrittenLine;
use super::gap::ClosedGap;
use crate::codec;
use crate::engine::kernel::access::{Reader, Writer};
use crate::engine::kernel::cursor::RowCursor;
use crate::error::{Error, Result};
use crate::tables::{Table, TableDef};
use serde_json::{Value, json};

/// The room's time line.
pub(crate) const TIME_LINE: Table =
    Table::new(&TableDef { number: 31, name: "time_line", is_waited_for: false });

/// The key of the row of the line itself.
pub(crate) const LINE_KEY: &[u8] = &[];

/// The key of the row of what the expiry index has.
const WALL_KEY: &[u8] = &[0];

/// The key of the row of the gap before `epoch`.
pub(super) fn gap_key(epoch: u32) -> [u8; 4] {
    epoch.to_be_bytes()
}

/// What was written of the line, if anything was, and its gaps.
pub(super) fn load(rows: &mut dyn Reader) -> Result<(Option<WrittenLine>, Vec<ClosedGap>)> {
    let line = rows.get(TIME_LINE, LINE_KEY)?;
    let line = line.map(|line| codec::decode_row(TIME_LINE.name(), &line)).transpose()?;
    let (mut cursor, mut gaps) = (RowCursor::all(TIME_LINE), Vec::new());
    while let Some((key, value)) = cursor.next(rows)? {
        if key.len() == size_of::<u32>() {
            gaps.push(codec::decode_row(TIME_LINE.name(), &value)?);
        }
    }
    Ok((line, gaps))
}

/// By which wall clock the expiry index has what ends by the wall clock.
pub(crate) fn indexed_wall(rows: &mut dyn Reader) -> Result<u32> {
    let number = rows.get(TIME_LINE, WALL_KEY)?;
    number.map_or(Ok(0), |number| codec::decode_row(TIME_LINE.name(), &number))
}

/// Notes that it has it by this one.
pub(crate) fn put_indexed_wall(tx: &mut dyn Writer, number: u32) -> Result<()> {
    tx.put(TIME_LINE, WALL_KEY, codec::encode(&number)?);
    Ok(())
}

/// Refuses a row that no line writes.
pub(crate) fn check_row(key: &[u8], value: &[u8]) -> Result<()> {
    if key.is_empty() {
        return codec::decode_row::<WrittenLine>(TIME_LINE.name(), value).map(drop);
    }
    if key == WALL_KEY {
        return codec::decode_row::<u32>(TIME_LINE.name(), value).map(drop);
    }
    let gap: ClosedGap = codec::decode_row(TIME_LINE.name(), value)?;
    if gap_key(gap.epoch) != key {
        return Err(Error::corrupted(
            format!("a key of table {}", TIME_LINE.name()),
            "another epoch than that of its row",
        ));
    }
    Ok(())
}

/// The fields of the row at `key`, by name.
pub(crate) fn dump_row(key: &[u8], value: &[u8]) -> Result<Value> {
    if key.is_empty() {
        let line: WrittenLine = codec::decode_row(TIME_LINE.name(), value)?;
        return Ok(json!({
            "epoch": line.epoch, "line_ms": line.line_ms, "wall_ms": line.wall_ms,
            "elapsed_ms": line.elapsed_ms, "is_closed": line.is_closed,
            "trusted_walls": line.trusted.number,
        }));
    }
    if key == WALL_KEY {
        let number: u32 = codec::decode_row(TIME_LINE.name(), value)?;
        return Ok(json!({ "indexed_by": number }));
    }
    let gap: ClosedGap = codec::decode_row(TIME_LINE.name(), value)?;
    Ok(json!({
        "epoch": gap.epoch, "begin_ms": gap.begin_ms, "in_line_ms": gap.in_line_ms,
        "believed_ms": gap.believed_ms, "is_doubtful": gap.is_doubtful(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::kernel::time_line::gap::Certainty;
    use crate::stores::map_tx::MapTx;

    #[test]
    fn each_gap_has_the_key_of_its_epoch() {
        assert_eq!(gap_key(0x0102_0304), [1, 2, 3, 4]);
        let gap = ClosedGap {
            epoch: 5,
            begin_ms: 1,
            in_line_ms: 2,
            believed_ms: 3,
            certainty: Certainty::Settled,
            held_ms: 4,
        };
        let value = codec::encode(&gap).unwrap();
        check_row(&gap_key(5), &value).unwrap();
        check_row(&gap_key(6), &value).unwrap_err();
        check_row(&gap_key(5), b"no gap").unwrap_err();
        check_row(LINE_KEY, &value).unwrap_err();
    }

    #[test]
    fn the_wall_clock_of_the_index_is_the_one_that_was_noted() {
        let mut tx = MapTx::at(0);
        assert_eq!(indexed_wall(&mut tx).unwrap(), 0);
        put_indexed_wall(&mut tx, 7).unwrap();
        assert_eq!(indexed_wall(&mut tx).unwrap(), 7);
    }
}
