//! Records that are found by their id and by their lookup key: codes and sessions.
//!
//! Invariants, which the operations keep:
//!
//! 1. The row under a lookup key holds the id of a record whose row names that lookup key, and no
//!    record is without.
//! 2. A record has exactly one row in the expiry index, at the time until which it is kept. That
//!    time is fixed when the record is inserted, so that every reader and the sweeper agree,
//!    whatever their handles say.
//! 3. A record past that time is absent to every answer.

use crate::codec;
use crate::engine::access::{Reader, Writer};
use crate::engine::time_line::{Deadline, Moment};
use crate::error::{Error, Result};
pub(super) use crate::stores::codlet::row::{Record, RecordKind as Kind};
use crate::stores::codlet::sweep::{load_record as load, remove_record as remove};
use crate::stores::expiry;
use crate::stores::form_token::row::TokenKey;

/// By how much the caller's clock and the room's differ before one of them must be wrong.
const DISAGREEMENT_MS: u64 = 24 * 60 * 60 * 1_000;

/// Until when a record is kept that was created and expires at these seconds of the caller's clock:
/// `retention_ms` from its expiry. From now, when the caller's clock is so far behind the room's
/// that it would be gone at once. Where the two clocks differ by more than a day, the record is
/// kept for as long as it lives by the caller's, because the room's may stand in 1970.
pub(super) fn keep_until(
    (created_at, expires_at): (u64, u64),
    now: &Moment,
    retention_ms: u64,
) -> Deadline {
    let [created_ms, expires_ms] = [created_at, expires_at].map(|at| at.saturating_mul(1_000));
    let disagree = created_at > 0 && created_ms.abs_diff(now.wall_ms()) > DISAGREEMENT_MS;
    let since_ms = if disagree { created_ms } else { now.wall_ms() };
    let left_ms = expires_ms.saturating_sub(since_ms);
    now.deadline_in(left_ms.saturating_add(retention_ms))
}

/// The record with this id.
pub(super) fn get(rows: &mut dyn Reader, kind: Kind, id: &str) -> Result<Option<Record>> {
    let now = rows.moment();
    Ok(load(rows, kind, id.as_bytes())?.filter(|record| !now.has_passed(record.keep_until)))
}

/// The record with this lookup key, and its id.
pub(super) fn find(
    rows: &mut dyn Reader,
    kind: Kind,
    key: &TokenKey,
) -> Result<Option<(String, Record)>> {
    let Some(id) = rows.get(kind.by_key(), key.as_bytes())? else { return Ok(None) };
    let damaged =
        |detail| Error::corrupted(format!("a row of table {}", kind.by_key().name()), detail);
    let record = load(rows, kind, &id)?.ok_or_else(|| damaged("it leads to no record"))?;
    if rows.moment().has_passed(record.keep_until) {
        return Ok(None);
    }
    let id = std::str::from_utf8(&id).map_err(|_| damaged("an id that is not UTF-8"))?;
    Ok(Some((id.to_owned(), record)))
}

/// Stores a record, unless one that is kept has its id or its lookup key. What is left of others is
/// replaced.
pub(super) fn insert(tx: &mut dyn Writer, kind: Kind, id: &str, record: &Record) -> Result<()> {
    let value = codec::encode(record)?;
    let now = tx.moment();
    let mut ended = Vec::new();
    let same_key = tx.get(kind.by_key(), &record.lookup_key)?;
    for old_id in [Some(id.as_bytes()), same_key.as_deref()].into_iter().flatten() {
        if let Some(old) = load(tx, kind, old_id)? {
            if !now.has_passed(old.keep_until) {
                return Err(Error::AlreadyExists);
            }
            ended.push((old_id.to_vec(), old));
        }
    }
    for (old_id, old) in ended {
        remove(tx, kind, &old_id, &old);
    }
    tx.put(kind.by_id(), id.as_bytes(), value);
    tx.put(kind.by_key(), &record.lookup_key, id.as_bytes().to_vec());
    expiry::put(tx, record.keep_until, kind.by_id(), id.as_bytes());
    Ok(())
}

/// Stores other content in a record that [`get`] gave.
pub(super) fn update(tx: &mut dyn Writer, kind: Kind, id: &str, record: &Record) -> Result<()> {
    tx.put(kind.by_id(), id.as_bytes(), codec::encode(record)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::codlet::sweep::sweep_record as sweep;
    use crate::stores::form_token::LookupKey;
    use crate::stores::map_tx::MapTx;
    use crate::tables::Table;

    fn key(text: &str) -> TokenKey {
        TokenKey::encode(&LookupKey::new(text)).unwrap()
    }

    fn record(lookup_key: &str, keep_until_ms: u64) -> Record {
        let keep_until = Deadline::at(keep_until_ms);
        Record { lookup_key: key(lookup_key).as_bytes().to_vec(), keep_until, content: vec![7] }
    }

    #[test]
    fn a_record_round_trips_in_frozen_bytes() {
        let record = record("00ff", 300);
        let bytes = codec::encode(&record).unwrap();
        assert_eq!(bytes, b"\x03\x01\x00\xff\0\xfb\x2c\x01\x01\x07");
        assert_eq!(codec::decode::<Record>(&bytes), Ok(record.clone()));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x80;
            assert_ne!(codec::decode::<Record>(&bad), Ok(record.clone()), "byte {at}");
        }
    }

    #[test]
    fn a_record_has_three_rows_and_sweeping_removes_them_all() {
        for kind in [Kind::Code, Kind::Session] {
            let mut tx = MapTx::at(10);
            insert(&mut tx, kind, "a", &record("0a", 100)).unwrap();
            assert_eq!(tx.snapshot().len(), 3);
            tx.now_ms = 99;
            assert!(!sweep(&mut tx, kind, b"a").unwrap());
            assert!(get(&mut tx, kind, "a").unwrap().is_some());
            tx.now_ms = 100;
            assert!(get(&mut tx, kind, "a").unwrap().is_none());
            assert!(find(&mut tx, kind, &key("0a")).unwrap().is_none());
            assert!(sweep(&mut tx, kind, b"a").unwrap());
            assert!(!sweep(&mut tx, kind, b"a").unwrap());
            assert!(tx.snapshot().is_empty());
        }
    }

    #[test]
    fn ids_and_lookup_keys_are_unique_while_they_are_kept() {
        let mut tx = MapTx::at(10);
        insert(&mut tx, Kind::Code, "a", &record("0a", 100)).unwrap();
        insert(&mut tx, Kind::Code, "b", &record("0b", 100)).unwrap();
        let before = tx.snapshot();
        for (id, lookup_key) in [("a", "0c"), ("c", "0a"), ("a", "0b")] {
            let refused = insert(&mut tx, Kind::Code, id, &record(lookup_key, 200));
            assert!(matches!(refused, Err(Error::AlreadyExists)));
        }
        assert_eq!(tx.snapshot(), before);
        insert(&mut tx, Kind::Session, "a", &record("0a", 100)).unwrap();
    }

    #[test]
    fn what_is_left_of_ended_records_is_replaced_whole() {
        let mut tx = MapTx::at(10);
        insert(&mut tx, Kind::Code, "a", &record("0a", 100)).unwrap();
        insert(&mut tx, Kind::Code, "b", &record("0b", 100)).unwrap();
        tx.now_ms = 100;
        // It takes the id of one and the lookup key of the other.
        insert(&mut tx, Kind::Code, "a", &record("0b", 200)).unwrap();
        assert_eq!(tx.snapshot().len(), 3);
        assert_eq!(
            find(&mut tx, Kind::Code, &key("0b")).unwrap(),
            Some(("a".into(), record("0b", 200)))
        );
        assert!(find(&mut tx, Kind::Code, &key("0a")).unwrap().is_none());
    }

    #[test]
    fn a_lookup_key_that_leads_nowhere_is_damage() {
        let mut tx = MapTx::at(10);
        tx.put(Table::CODLET_CODE_KEY, key("0a").as_bytes(), b"a".to_vec());
        assert!(matches!(find(&mut tx, Kind::Code, &key("0a")), Err(Error::Corrupted { .. })));
    }

    #[test]
    fn a_record_is_kept_from_its_expiry_or_from_now_without_overflow() {
        let now = |ms| Moment::manual(ms);
        assert_eq!(keep_until((0, 5), &now(1_000), 10), Deadline::at(5_010));
        assert_eq!(keep_until((0, 0), &now(1_000), 10), Deadline::at(1_010));
        assert_eq!(keep_until((1, 5), &now(2_000), 10), Deadline::at(5_010));
        assert_eq!(keep_until((0, u64::MAX), &now(0), u64::MAX), Deadline::at(u64::MAX));
    }

    #[test]
    fn a_record_of_another_day_is_kept_for_its_span_by_the_clock_of_its_caller() {
        let day = DISAGREEMENT_MS / 1_000;
        let behind = Moment::manual(20_000);
        let (created_at, expires_at) = (400 * day, 400 * day + 60);
        assert_eq!(keep_until((created_at, expires_at), &behind, 10), Deadline::at(80_010));
        let ahead = Moment::manual((900 * day) * 1_000);
        let kept = keep_until((created_at, expires_at), &ahead, 10);
        assert_eq!(kept, Deadline::at(900 * day * 1_000 + 60_010));
        // Within a day the room's clock counts.
        let close = Moment::manual((created_at + day) * 1_000);
        let kept = keep_until((created_at, expires_at), &close, 10);
        assert_eq!(kept, Deadline::at((created_at + day) * 1_000 + 10));
    }

    #[test]
    fn records_have_the_rows_that_are_derived() {
        crate::stores::derived::tests::histories(|tx, random| {
            let kind = *random.choice(&[Kind::Code, Kind::Session]).unwrap();
            let id = *random.choice(&["", "a", "b"]).unwrap();
            match random.u8(0..4) {
                0 | 1 => {
                    let record = record(
                        random.choice(&["0a", "", "z"]).unwrap(),
                        tx.now_ms + random.u64(0..9_000),
                    );
                    // One that is taken is refused and leaves everything as it was.
                    let _ = insert(tx, kind, id, &record);
                }
                2 => {
                    if let Some(mut record) = get(tx, kind, id).unwrap() {
                        record.content.push(1);
                        update(tx, kind, id, &record).unwrap();
                    }
                }
                _ => drop(sweep(tx, kind, id.as_bytes()).unwrap()),
            }
        });
    }
}
