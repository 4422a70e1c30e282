//! The operations on sessions, each written once.

use super::convert;
use super::records::{self, Kind, Record};
use crate::codec;
use crate::engine::access::{Reader, Writer};
use crate::error::Result;
use crate::stores::codlet::row::SessionRow;
use crate::stores::form_token::row::TokenKey;
use crate::stores::length::check_len;
use ::codlet::store::{SessionRecord, StoredSession};
use ::codlet::{SessionId, SubjectId};

/// Stores a session, to be kept for `retention_ms` from its expiry.
pub(super) fn insert(
    tx: &mut dyn Writer,
    session: &SessionRecord,
    retention_ms: u64,
) -> Result<()> {
    let key = TokenKey::encode(&convert::lookup_key(&session.lookup_key))?;
    check_len("the session id", session.id.as_str())?;
    check_len("the key version", session.key_version.as_str())?;
    check_len("the subject", session.subject.as_str())?;
    let row = SessionRow {
        key_version: session.key_version.as_str().into(),
        subject: session.subject.as_str().into(),
        created_at: session.created_at,
        expires_at: session.expires_at,
        last_seen_at: None,
        revoked_at: None,
    };
    let lives = (session.created_at, session.expires_at);
    let record = Record {
        lookup_key: key.as_bytes().to_vec(),
        keep_until: records::keep_until(lives, &tx.moment(), retention_ms),
        content: codec::encode(&row)?,
    };
    records::insert(tx, Kind::Session, session.id.as_str(), &record)
}

/// The first of `candidates` that is kept, whatever became of it.
pub(super) fn lookup(
    rows: &mut dyn Reader,
    candidates: &[TokenKey],
) -> Result<Option<StoredSession>> {
    for key in candidates {
        let Some((id, record)) = records::find(rows, Kind::Session, key)? else { continue };
        let row = SessionRow::decode(&record)?;
        return Ok(Some(StoredSession {
            id: SessionId::new(id),
            subject: SubjectId::new(row.subject),
            created_at: row.created_at,
            expires_at: row.expires_at,
            last_seen_at: row.last_seen_at,
            revoked_at: row.revoked_at,
        }));
    }
    Ok(None)
}

/// Revokes a session. The first revocation holds.
pub(super) fn revoke(tx: &mut dyn Writer, id: &SessionId, now: u64) -> Result<()> {
    change(tx, id, |row| {
        row.revoked_at.get_or_insert(now);
    })
}

/// Notes that a session was used.
pub(super) fn touch(tx: &mut dyn Writer, id: &SessionId, now: u64) -> Result<()> {
    change(tx, id, |row| row.last_seen_at = Some(now))
}

/// Changes a session that is kept; stages nothing when that made no difference.
fn change(tx: &mut dyn Writer, id: &SessionId, change: impl FnOnce(&mut SessionRow)) -> Result<()> {
    check_len("the session id", id.as_str())?;
    let Some(mut record) = records::get(tx, Kind::Session, id.as_str())? else { return Ok(()) };
    let mut row = SessionRow::decode(&record)?;
    change(&mut row);
    let content = codec::encode(&row)?;
    if content != record.content {
        record.content = content;
        records::update(tx, Kind::Session, id.as_str(), &record)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_row_round_trips_in_frozen_bytes() {
        let row = SessionRow {
            key_version: "v1".into(),
            subject: "u".into(),
            created_at: 7,
            expires_at: 300,
            last_seen_at: Some(9),
            revoked_at: None,
        };
        let bytes = codec::encode(&row).unwrap();
        assert_eq!(bytes, b"\x02v1\x01u\x07\xfb\x2c\x01\x01\x09\x00");
        assert_eq!(codec::decode::<SessionRow>(&bytes), Ok(row.clone()));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x80;
            assert_ne!(codec::decode::<SessionRow>(&bad), Ok(row.clone()), "byte {at}");
        }
    }
}
