//! The operations on one-time codes, each written once.

use super::convert;
use super::records::{self, Kind, Record};
use crate::codec;
use crate::engine::access::{Reader, Writer};
use crate::engine::cursor::RowCursor;
use crate::error::{Error, Result};
use crate::stores::codlet::row::{CodeRow, Use};
use crate::stores::form_token::row::TokenKey;
use crate::stores::length::check_len;
use ::codlet::admin::{CodeListFilter, CodeMeta};
use ::codlet::store::{ClaimRequest, CodeRecord, StoredCode};
use ::codlet::{ClaimOutcome, CodeId, KeyVersion, SubjectId, classify_claim};

impl CodeRow {
    /// Whether a caller that names `scope`, or none, may see it.
    fn is_in(&self, scope: Option<&str>) -> bool {
        scope.is_none_or(|scope| self.scope.as_deref() == Some(scope))
    }

    fn is_for(&self, purpose: Option<&str>) -> bool {
        purpose.is_none_or(|purpose| self.purpose.as_deref() == Some(purpose))
    }

    /// Neither claimed nor revoked.
    fn is_open(&self) -> bool {
        self.used.is_none() && self.revoked_at.is_none()
    }

    fn into_stored(self, id: String) -> StoredCode {
        StoredCode {
            id: CodeId::new(id),
            key_version: KeyVersion::new(self.key_version),
            grant: self.grant,
            purpose: self.purpose,
            scope: self.scope,
            expires_at: self.expires_at,
            used_at: self.used.map(|used| used.at),
            revoked_at: self.revoked_at,
        }
    }

    fn into_meta(self, id: String) -> CodeMeta {
        let (used_at, used_by) = self.used.map(|used| (used.at, SubjectId::new(used.by))).unzip();
        CodeMeta {
            id: CodeId::new(id),
            key_version: KeyVersion::new(self.key_version),
            purpose: self.purpose,
            scope: self.scope,
            grant: self.grant,
            created_at: Some(self.created_at),
            expires_at: self.expires_at,
            used_at,
            used_by,
            revoked_at: self.revoked_at,
        }
    }
}

/// Stores a code, to be kept for `retention_ms` from its expiry.
pub(super) fn insert(tx: &mut dyn Writer, code: &CodeRecord, retention_ms: u64) -> Result<()> {
    let key = TokenKey::encode(&convert::lookup_key(&code.lookup_key))?;
    check_len("the code id", code.id.as_str())?;
    check_len("the key version", code.key_version.as_str())?;
    check_len("the purpose", code.purpose.as_deref().unwrap_or_default())?;
    check_len("the scope", code.scope.as_deref().unwrap_or_default())?;
    check_len("the grant", code.grant.as_deref().unwrap_or_default())?;
    let row = CodeRow {
        key_version: code.key_version.as_str().into(),
        purpose: code.purpose.clone(),
        scope: code.scope.clone(),
        grant: code.grant.clone(),
        created_at: code.created_at,
        expires_at: code.expires_at,
        used: None,
        revoked_at: None,
    };
    let lives = (code.created_at, code.expires_at);
    let record = Record {
        lookup_key: key.as_bytes().to_vec(),
        keep_until: records::keep_until(lives, &tx.moment(), retention_ms),
        content: codec::encode(&row)?,
    };
    records::insert(tx, Kind::Code, code.id.as_str(), &record)
}

/// The first of `candidates` that is kept, and in `scope` when one is named, whatever became of it.
pub(super) fn lookup(
    rows: &mut dyn Reader,
    candidates: &[TokenKey],
    scope: Option<&str>,
) -> Result<Option<StoredCode>> {
    for key in candidates {
        let Some((id, record)) = records::find(rows, Kind::Code, key)? else { continue };
        let row = CodeRow::decode(&record)?;
        if row.is_in(scope) {
            return Ok(Some(row.into_stored(id)));
        }
    }
    Ok(None)
}

/// Claims a code, if it is open, unexpired by the caller's time and of the purpose and scope that
/// are named.
pub(super) fn claim(tx: &mut dyn Writer, request: &ClaimRequest<'_>) -> Result<ClaimOutcome> {
    let id = request.code_id.as_str();
    check_len("the code id", id)?;
    check_len("the subject", request.subject.as_str())?;
    let Some(mut record) = records::get(tx, Kind::Code, id)? else { return Ok(classify_claim(0)) };
    let mut row = CodeRow::decode(&record)?;
    let may = row.is_open()
        && row.expires_at > request.now
        && row.is_for(request.purpose)
        && row.is_in(request.scope);
    if !may {
        return Ok(classify_claim(0));
    }
    row.used = Some(Use { at: request.now, by: request.subject.as_str().into() });
    record.content = codec::encode(&row)?;
    records::update(tx, Kind::Code, id, &record)?;
    Ok(classify_claim(1))
}

/// Revokes a code that is open, and in `scope` when one is named.
pub(super) fn revoke(
    tx: &mut dyn Writer,
    id: &CodeId,
    scope: Option<&str>,
    now: u64,
) -> Result<()> {
    check_len("the code id", id.as_str())?;
    let Some(mut record) = records::get(tx, Kind::Code, id.as_str())? else { return Ok(()) };
    let mut row = CodeRow::decode(&record)?;
    if row.is_open() && row.is_in(scope) {
        row.revoked_at = Some(now);
        record.content = codec::encode(&row)?;
        records::update(tx, Kind::Code, id.as_str(), &record)?;
    }
    Ok(())
}

/// What is known of a code but its lookup key.
pub(super) fn meta(rows: &mut dyn Reader, id: &CodeId) -> Result<Option<CodeMeta>> {
    check_len("the code id", id.as_str())?;
    let Some(record) = records::get(rows, Kind::Code, id.as_str())? else { return Ok(None) };
    Ok(Some(CodeRow::decode(&record)?.into_meta(id.as_str().into())))
}

/// The codes that `filter` lets through, those that end last first. Reads every code there is.
pub(super) fn list(
    rows: &mut dyn Reader,
    filter: &CodeListFilter,
    now: u64,
) -> Result<Vec<CodeMeta>> {
    let table = Kind::Code.by_id();
    let moment = rows.moment();
    let scope = filter.scope.as_ref().map(::codlet::ScopeKey::as_str);
    let mut found = Vec::new();
    let mut codes = RowCursor::all(table);
    while let Some((id, value)) = codes.next(rows)? {
        let record = Record::decode(table, &value)?;
        let row = CodeRow::decode(&record)?;
        if moment.has_passed(record.keep_until) || !row.is_in(scope) {
            continue;
        }
        let id = std::str::from_utf8(&id).map_err(|_| {
            Error::corrupted(format!("a key of table {}", table.name()), "not UTF-8")
        })?;
        let meta = row.into_meta(id.into());
        if !filter.active_only || meta.is_redeemable_at(now) {
            found.push(meta);
        }
    }
    found.sort_by_key(|code| std::cmp::Reverse(code.expires_at));
    found.truncate(filter.limit.unwrap_or(usize::MAX));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_row_round_trips_in_frozen_bytes() {
        let row = CodeRow {
            key_version: "v1".into(),
            purpose: Some("join".into()),
            scope: None,
            grant: Some("g".into()),
            created_at: 7,
            expires_at: 300,
            used: Some(Use { at: 9, by: "u".into() }),
            revoked_at: None,
        };
        let bytes = codec::encode(&row).unwrap();
        assert_eq!(bytes, b"\x02v1\x01\x04join\x00\x01\x01g\x07\xfb\x2c\x01\x01\x09\x01u\x00");
        assert_eq!(codec::decode::<CodeRow>(&bytes), Ok(row.clone()));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x80;
            assert_ne!(codec::decode::<CodeRow>(&bad), Ok(row.clone()), "byte {at}");
        }
    }
}
