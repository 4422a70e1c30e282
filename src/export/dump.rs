//! Rows in a form that can be read: for people who look into a file.

use super::encoding::{to_base64, to_hex};
use super::kinds::job::opening_text;
use super::kinds::limit::{Place, kind_of, kind_text};
use super::kinds::token::subject_parts;
use super::kinds::ulid_text;
use super::kinds::window::reason_text;
use super::write::{slice_of, walk};
use crate::codec::{self, key};
use crate::engine::access::Reader;
use crate::error::{Error, Result};
use crate::stores::adaptive_rate_limit::ops::ResourceRow;
use crate::stores::cache::json;
use crate::stores::cache::row::{CacheRow, NEVER, TagsRow};
use crate::stores::codlet::row::{CodeRow, FailuresRow, Record, SessionRow};
use crate::stores::dedupe::row::{JobRow, Progress};
use crate::stores::derived::is_derived;
use crate::stores::expiry;
use crate::stores::form_token::row::{TokenRow, UseRow, decode_key};
use crate::stores::handoff::row::{ClaimRow, StateRow as HandoffRow};
use crate::stores::rate_limit::limiter::{ConfigRow, CooldownRow, LAST_ID_KEY, StoreRow};
use crate::stores::rate_limit::ops::WindowRow;
use crate::stores::schema::catalogue;
use crate::stores::state::row::{
    Slot, StateRow, decode_kind_key, decode_slot_key, decode_tenant_kind_key,
};
use crate::tables::Table;
use serde_json::{Value, json};
use std::ops::Bound;

/// A table of a room, and how much is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableInfo {
    /// The number of the table in the log.
    pub number: u8,
    /// Its name.
    pub name: &'static str,
    /// Whether its rows follow from those of other tables, as an index does.
    pub is_derived: bool,
    /// How many rows it has, those of what has expired and was not swept yet included.
    pub rows: u64,
    /// How many bytes their keys and values have.
    pub bytes: u64,
}

/// A row of a table, decoded.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DumpRow {
    /// The parts of the key, by name.
    pub key: Value,
    /// The fields of the value, by name.
    pub value: Value,
    /// What is wrong with the row, when its key or value does not decode. What does not is an
    /// object with one field, `hex`.
    pub note: Option<String>,
}

impl DumpRow {
    /// The row as one object, with a field `note` when there is one.
    ///
    /// ```
    /// use cloakroom::Cloakroom;
    /// use cloakroom::handoff::HandoffStateStore;
    /// let room = Cloakroom::builder().open_in_memory()?;
    /// room.handoff().set("order-7", &Default::default(), 0).wait()?;
    /// room.handoff().set("order-8", &Default::default(), 600).wait()?;
    /// room.dump("handoff", &mut |row| {
    ///     assert_eq!(row.to_json()["key"]["state_id"], "order-8");
    ///     true
    /// })?;
    /// # Ok::<(), cloakroom::Error>(())
    /// ```
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut row = serde_json::Map::new();
        row.insert("key".into(), self.key.clone());
        row.insert("value".into(), self.value.clone());
        if let Some(note) = &self.note {
            row.insert("note".into(), note.as_str().into());
        }
        Value::Object(row)
    }

    fn decode(table: Table, key: &[u8], value: &[u8]) -> Self {
        let mut note = None;
        let mut or_hex = |decoded: Result<Value>, bytes: &[u8]| {
            decoded.unwrap_or_else(|error| {
                note.get_or_insert(error.to_string());
                json!({ "hex": to_hex(bytes) })
            })
        };
        let (key, value) =
            (or_hex(key_of(table, key), key), or_hex(value_of(table, key, value), value));
        Self { key, value, note }
    }
}

/// The table with this name.
pub(super) fn table_called(name: &str) -> Result<Table> {
    catalogue().all().iter().copied().find(|table| table.name() == name).ok_or_else(|| {
        let names: Vec<_> = catalogue().all().iter().map(|table| table.name()).collect();
        Error::InvalidConfig(format!("no table is called {name:?}; there are {}", names.join(", ")))
    })
}

/// Every table.
pub(super) fn tables(rows: &mut dyn Reader) -> Result<Vec<TableInfo>> {
    let tables = catalogue().all().iter().map(|&table| {
        let (number, name, is_derived) = (table.number(), table.name(), is_derived(table));
        let mut info = TableInfo { number, name, is_derived, rows: 0, bytes: 0 };
        walk(rows, table, |_, key, value| {
            info.rows += 1;
            info.bytes += (key.len() + value.len()) as u64;
            Ok(())
        })?;
        Ok(info)
    });
    tables.collect()
}

/// Shows `each` the rows of a table, until it answers `false`.
pub(super) fn rows(
    rows: &mut dyn Reader,
    table: Table,
    each: &mut dyn FnMut(DumpRow) -> bool,
) -> Result<u64> {
    let slice = slice_of(table);
    let (mut shown, mut after): (u64, Option<Vec<u8>>) = (0, None);
    loop {
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let found = rows.scan(table, from, Bound::Unbounded, slice)?;
        for (key, value) in &found {
            shown += 1;
            if !each(DumpRow::decode(table, key, value)) {
                return Ok(shown);
            }
        }
        if found.len() < slice {
            return Ok(shown);
        }
        after = found.into_iter().next_back().map(|(key, _)| key);
    }
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| no_key("it is not UTF-8"))
}

fn no_key(detail: &str) -> Error {
    Error::corrupted("the key", detail)
}

/// The string parts of a key, the last one as it stands.
fn parts<const N: usize>(mut key: &[u8], names: [&str; N]) -> Result<Value> {
    let mut parts = serde_json::Map::new();
    for (index, name) in names.into_iter().enumerate() {
        let part = match index + 1 == N {
            true => key.to_vec(),
            false => key::take_bytes(&mut key).ok_or_else(|| no_key("a part has no end"))?,
        };
        parts.insert(name.into(), text(&part)?.into());
    }
    Ok(Value::Object(parts))
}

fn slot(slot: &Slot) -> Value {
    let identity = &slot.identity;
    json!({
        "tenant": identity.tenant, "user": identity.user, "session": identity.session, "run": identity.run,
        "kind": slot.kind,
    })
}

fn place(table: Table, key: &[u8], of: &str) -> Result<Value> {
    let place = Place::decode(table, key)?;
    Ok(json!({ "limiter_kind": kind_text(place.kind), "limiter": place.limiter, of: place.of }))
}

/// The parts of a key.
fn key_of(table: Table, key: &[u8]) -> Result<Value> {
    Ok(match table {
        Table::FORM_TOKEN
        | Table::FORM_TOKEN_USE
        | Table::CODLET_CODE_KEY
        | Table::CODLET_SESSION_KEY => {
            json!({ "lookup_key": decode_key(key)?.as_str() })
        }
        Table::HANDOFF | Table::HANDOFF_CLAIM => json!({ "state_id": text(key)? }),
        Table::EXPIRY => {
            // Nothing is filed about the index itself; a damaged key must not say so over and over.
            let parts = expiry::decode_key(key).filter(|(_, table, _)| *table != Table::EXPIRY);
            let (time_ms, table, primary) =
                parts.ok_or_else(|| no_key("no time, table and key"))?;
            json!({ "time_ms": time_ms, "table": table.name(), "key": key_of(table, primary)? })
        }
        Table::CACHE | Table::CACHE_TAGS => parts(key, ["cache", "hash"])?,
        Table::CACHE_BY_TAG => parts(key, ["cache", "tag", "hash"])?,
        Table::DEDUPE_JOB => parts(key, ["store", "hash"])?,
        Table::RATE_LIMIT | Table::RATE_LIMIT_CONFIG | Table::ADAPTIVE_RATE_LIMIT => {
            place(table, key, "resource")?
        }
        Table::RATE_LIMIT_COOLDOWN => place(table, key, "origin")?,
        Table::RATE_LIMIT_REQUEST => request_key(key).ok_or_else(|| no_key("no four numbers"))?,
        Table::RATE_LIMIT_STORE => match key.split_first() {
            None => json!({ "counter": "last_window" }),
            Some((&number, limiter)) => {
                let kind = kind_of(number).ok_or_else(|| no_key("no known kind of limiter"))?;
                json!({ "limiter_kind": kind_text(kind), "limiter": text(limiter)? })
            }
        },
        Table::STATE => slot(&decode_slot_key(key)?),
        Table::STATE_EVENT => json!({ "event_id": text(key)? }),
        Table::STATE_KIND => slot(&decode_kind_key(key)?),
        Table::STATE_TENANT_KIND => slot(&decode_tenant_kind_key(key)?),
        Table::CODLET_CODE | Table::CODLET_SESSION => json!({ "id": text(key)? }),
        Table::CODLET_FAILURES => json!({ "key": text(key)? }),
        _ => return Err(no_key("no store has this table")),
    })
}

fn request_key(mut key: &[u8]) -> Option<Value> {
    let window = key::take_u64(&mut key)?;
    let (lane, mut rest) = key.split_first()?;
    let (epoch, time_ms) = (key::take_u64(&mut rest)?, key::take_u64(&mut rest)?);
    rest.is_empty()
        .then(|| json!({ "window": window, "lane": lane, "epoch": epoch, "time_ms": time_ms }))
}

/// JSON as a row holds it, or a note of what it holds instead.
fn stored(bytes: &[u8]) -> Value {
    json::decode(bytes).unwrap_or_else(|| json!({ "not_json_hex": to_hex(bytes) }))
}

/// The fields of a value.
fn value_of(table: Table, key: &[u8], value: &[u8]) -> Result<Value> {
    let name = table.name();
    Ok(match table {
        Table::FORM_TOKEN => {
            let row = TokenRow::decode(value)?;
            let subject = row.subject.into();
            let (subject_kind, subject_id) = subject_parts(&subject);
            json!({
                "key_version": row.key_version, "subject_kind": subject_kind, "subject_id": subject_id,
                "purpose": row.purpose, "bound_resource": row.bound_resource,
                "issued_at": row.issued_at, "expires_at": row.expires_at,
            })
        }
        Table::FORM_TOKEN_USE => {
            let row = UseRow::decode(value)?;
            json!({
                "consumed_at": row.consumed_at, "grace_ms": row.grace_ms, "result_ref": row.result_ref,
            })
        }
        Table::HANDOFF => {
            let row = HandoffRow::decode(value)?;
            json!({ "expires_at_ms": row.expires_at_ms, "state": stored(row.json) })
        }
        Table::HANDOFF_CLAIM => {
            let row = ClaimRow::decode(value)?;
            json!({ "ulid": ulid_text(row.ulid), "lease_until_ms": row.lease_until_ms })
        }
        Table::CACHE => {
            let row = CacheRow::decode(value)?;
            let expires_at_ms = Some(row.expires_at_ms).filter(|time_ms| *time_ms != NEVER);
            json!({
                "expires_at_ms": expires_at_ms, "stored_at_ms": row.stored_at_ms, "is_tagged": row.tagged,
                "value": stored(row.json),
            })
        }
        Table::CACHE_TAGS => json!({ "tags": TagsRow::decode(value)?.tags }),
        Table::DEDUPE_JOB => job(&JobRow::decode(value)?),
        Table::RATE_LIMIT => {
            let row = WindowRow::decode(value)?;
            json!({
                "clears": row.clears, "window": row.id, "keep_ms": row.keep_ms, "indexed_at_ms": row.indexed_at_ms,
                "history": row.history.to_json(),
            })
        }
        Table::ADAPTIVE_RATE_LIMIT => adaptive(&ResourceRow::decode(value)?),
        Table::RATE_LIMIT_REQUEST => {
            json!({ "requests_before": codec::decode_row::<u64>(name, value)? })
        }
        Table::RATE_LIMIT_STORE if key == LAST_ID_KEY => {
            json!({ "last": codec::decode_row::<u64>(name, value)? })
        }
        Table::RATE_LIMIT_STORE => {
            json!({ "clears": codec::decode_row::<StoreRow>(name, value)?.clears })
        }
        Table::RATE_LIMIT_CONFIG => {
            let row: ConfigRow = codec::decode_row(name, value)?;
            json!({
                "limit": row.limit, "window_seconds": row.window_seconds, "window_nanos": row.window_nanos,
            })
        }
        Table::RATE_LIMIT_COOLDOWN => {
            let row: CooldownRow = codec::decode_row(name, value)?;
            json!({ "clears": row.clears, "until_ms": row.until_ms })
        }
        Table::STATE => {
            let row = StateRow::decode(value)?;
            json!({
                "event_id": row.event_id, "version": row.version, "updated_at_ms": row.updated_at_ms,
                "bytes_base64": to_base64(row.bytes),
            })
        }
        Table::STATE_EVENT => slot(&decode_slot_key(value)?),
        Table::CODLET_CODE => code(&Record::decode(table, value)?)?,
        Table::CODLET_SESSION => session(&Record::decode(table, value)?)?,
        Table::CODLET_CODE_KEY | Table::CODLET_SESSION_KEY => json!({ "id": text(value)? }),
        Table::CODLET_FAILURES => {
            let row = FailuresRow::decode(value)?;
            let runs: Vec<_> = row.runs.iter().map(|run| json!([run.at_ms, run.count])).collect();
            json!({ "window_ms": row.window_ms, "runs": runs })
        }
        Table::EXPIRY | Table::CACHE_BY_TAG | Table::STATE_KIND | Table::STATE_TENANT_KIND
            if value.is_empty() =>
        {
            json!({})
        }
        Table::EXPIRY | Table::CACHE_BY_TAG | Table::STATE_KIND | Table::STATE_TENANT_KIND => {
            return Err(Error::corrupted(
                format!("a row of table {name}"),
                "a value where there is none",
            ));
        }
        _ => return Err(no_key("no store has this table")),
    })
}

fn job(row: &JobRow<'_>) -> Value {
    let (status, value, error) = match row.progress {
        Progress::Pending => ("pending", Value::Null, None),
        Progress::Completed(json) => ("completed", stored(json), None),
        Progress::Failed(error) => ("failed", Value::Null, Some(error)),
    };
    json!({
        "job_id": ulid_text(row.job), "opening_id": opening_text(row.opening_id), "ends_at_ms": row.ends_at_ms,
        "status": status, "value": value, "error": error,
    })
}

fn adaptive(row: &ResourceRow) -> Value {
    let capacity = row.capacity.map(|capacity| {
        json!({
            "computed_at_ms": capacity.computed_at_ms, "limit": capacity.limit,
            "user_reserved": capacity.user_reserved, "background_max": capacity.background_max,
            "recent_user_requests": capacity.recent, "reason": reason_text(capacity.reason),
        })
    });
    json!({
        "clears": row.clears, "window": row.id, "keep_ms": row.keep_ms, "indexed_at_ms": row.indexed_at_ms,
        "user": row.user.to_json(), "background": row.background.to_json(), "admitted": row.admitted.to_json(),
        "capacity": capacity,
    })
}

fn code(record: &Record) -> Result<Value> {
    let row = CodeRow::decode(record)?;
    Ok(json!({
        "lookup_key": decode_key(&record.lookup_key)?.as_str(), "keep_until_ms": record.keep_until_ms,
        "key_version": row.key_version, "purpose": row.purpose, "scope": row.scope, "grant": row.grant,
        "created_at": row.created_at, "expires_at": row.expires_at,
        "used": row.used.map(|used| json!({ "at": used.at, "by": used.by })), "revoked_at": row.revoked_at,
    }))
}

fn session(record: &Record) -> Result<Value> {
    let row = SessionRow::decode(record)?;
    Ok(json!({
        "lookup_key": decode_key(&record.lookup_key)?.as_str(), "keep_until_ms": record.keep_until_ms,
        "key_version": row.key_version, "subject": row.subject, "created_at": row.created_at,
        "expires_at": row.expires_at, "last_seen_at": row.last_seen_at, "revoked_at": row.revoked_at,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_does_not_decode_is_shown_as_it_is() {
        let row = DumpRow::decode(Table::HANDOFF, b"order-7", b"\xff\x01");
        assert_eq!(row.key, json!({ "state_id": "order-7" }));
        assert_eq!(row.value, json!({ "hex": "ff01" }));
        let note = row.note.clone().unwrap();
        assert!(note.contains("a row of table handoff"), "{note}");
        assert_eq!(row.to_json()["note"], note.as_str());

        let row = DumpRow::decode(Table::CACHE_TAGS, b"no end", b"\x01\x03odd");
        assert_eq!(row.key, json!({ "hex": "6e6f20656e64" }));
        assert_eq!(row.value, json!({ "tags": ["odd"] }));
        assert!(row.note.is_some());

        let row = DumpRow::decode(Table::STATE_KIND, b"k\0\0t\0\0u\0\0s\0\0", b"x");
        assert_eq!(row.key["kind"], "k");
        assert_eq!(row.value, json!({ "hex": "78" }));
    }

    #[test]
    fn stored_text_that_is_no_json_is_shown_as_hex() {
        let row = CacheRow { expires_at_ms: NEVER, stored_at_ms: 5, tagged: false, json: b"[" };
        let row = DumpRow::decode(Table::CACHE, b"primes\0\0third", &row.encode().unwrap());
        assert_eq!(row.key, json!({ "cache": "primes", "hash": "third" }));
        assert_eq!(row.value["value"], json!({ "not_json_hex": "5b" }));
        assert_eq!((row.value["expires_at_ms"].clone(), row.note), (Value::Null, None));
    }

    #[test]
    fn a_key_of_the_index_that_names_the_index_over_and_over_is_damage() {
        let key = [0, 0, 0, 0, 0, 0, 0, 1, Table::EXPIRY.number()].repeat(100_000);
        assert!(DumpRow::decode(Table::EXPIRY, &key, b"").note.is_some());
    }

    proptest! {
        #[test]
        fn any_row_of_any_table_is_shown(
            table in prop::sample::select(catalogue().all()),
            key in prop::collection::vec(0u8..4, 0..30), value in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let row = DumpRow::decode(table, &key, &value);
            let is_hex = |part: &Value| part.get("hex").is_some();
            prop_assert_eq!(row.note.is_some(), is_hex(&row.key) || is_hex(&row.value));
        }
    }
}
