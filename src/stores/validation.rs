//! Whether a row is one that a store could have written: its key and its bytes, without a look at
//! any other row.

use super::adaptive_rate_limit::ops::ResourceRow;
use super::cache::json;
use super::cache::row::{CacheRow, TagsRow, split_key, split_tag_key};
use super::codlet::row::{CodeRow, FailuresRow, Record, SessionRow};
use super::dedupe::row::{JobRow, Progress};
use super::expiry;
use super::form_token::row::{self as token_row, SubjectRow, TokenKey, TokenRow, UseRow};
use super::handoff::row::{ClaimRow, StateRow as HandoffRow};
use super::rate_limit::history::check_row;
use super::rate_limit::limiter::{ConfigRow, CooldownRow, Kind, StoreRow};
use super::rate_limit::ops::WindowRow;
use super::state::row::{self as state_row, StateRow};
use crate::codec::{self, key};
use crate::error::{Error, Result};
use crate::limits::MAX_KEY_LEN;
use crate::tables::Table;
use serde::de::IgnoredAny;

/// Refuses what no store writes: a key or bytes that do not decode, a part of a key over its limit,
/// an order or a value that the operations never leave behind.
pub(crate) fn row(table: Table, key: &[u8], value: &[u8]) -> Result<()> {
    let row = RowCheck { table, key, value };
    match table {
        Table::FORM_TOKEN => {
            row.lookup_key(key)?;
            row.token(&TokenRow::decode(value)?)
        }
        Table::FORM_TOKEN_USE => {
            row.lookup_key(key)?;
            row.short(UseRow::decode(value)?.result_ref.unwrap_or_default())
        }
        Table::HANDOFF => {
            row.text(key)?;
            HandoffRow::decode(value)?.state().map(drop)
        }
        Table::HANDOFF_CLAIM => {
            row.text(key)?;
            ClaimRow::decode(value).map(drop)
        }
        Table::EXPIRY => {
            expiry::decode_key(key).ok_or_else(|| row.bad_key("not a time, a table and a key"))?;
            row.empty()
        }
        Table::CACHE => {
            let (_, hash) = split_key(table, key)?;
            row.name_and(hash)?;
            row.json(CacheRow::decode(value)?.json)
        }
        Table::CACHE_TAGS => {
            let (_, hash) = split_key(table, key)?;
            row.name_and(hash)?;
            let tags = TagsRow::decode(value)?.tags;
            if tags.is_empty() || !tags.is_sorted_by(|a, b| a < b) {
                return Err(row.bad("tags that are not in order, each once"));
            }
            tags.iter().try_for_each(|tag| row.short(tag))
        }
        Table::CACHE_BY_TAG => {
            let (_, tag, hash) = split_tag_key(key)?;
            row.short(&tag)?;
            row.name_and(hash)?;
            row.empty()
        }
        Table::DEDUPE_JOB => {
            let (_, hash) = split_key(table, key)?;
            row.name_and(hash)?;
            match JobRow::decode(value)?.progress {
                Progress::Completed(json) => row.json(json),
                Progress::Failed(error) => row.short(error),
                Progress::Pending => Ok(()),
            }
        }
        Table::RATE_LIMIT => {
            row.limiter_key(&[Kind::Plain])?;
            WindowRow::decode(value).map(drop)
        }
        Table::ADAPTIVE_RATE_LIMIT => {
            row.limiter_key(&[Kind::Adaptive])?;
            ResourceRow::decode(value).map(drop)
        }
        Table::RATE_LIMIT_REQUEST => check_row(key, value),
        Table::RATE_LIMIT_STORE => match key.split_first() {
            None => codec::decode_row::<u64>(table.name(), value).map(drop),
            Some((&kind, name)) => {
                row.kind(kind, &[Kind::Plain, Kind::Adaptive])?;
                row.text(name)?;
                codec::decode_row::<StoreRow>(table.name(), value).map(drop)
            }
        },
        Table::RATE_LIMIT_CONFIG => {
            row.limiter_key(&[Kind::Plain, Kind::Adaptive])?;
            let config: ConfigRow = codec::decode_row(table.name(), value)?;
            if config.window_nanos >= 1_000_000_000
                || (config.window_seconds, config.window_nanos) == (0, 0)
            {
                return Err(row.bad("a window that is none"));
            }
            Ok(())
        }
        Table::RATE_LIMIT_COOLDOWN => {
            row.limiter_key(&[Kind::Plain, Kind::Adaptive])?;
            codec::decode_row::<CooldownRow>(table.name(), value).map(drop)
        }
        Table::STATE => {
            row.slot(&state_row::decode_slot_key(key)?)?;
            row.short(StateRow::decode(value)?.event_id)
        }
        Table::STATE_EVENT => {
            row.text(key)?;
            row.slot(&state_row::decode_slot_key(value)?)
        }
        Table::STATE_KIND => {
            row.slot(&state_row::decode_kind_key(key)?)?;
            row.empty()
        }
        Table::STATE_TENANT_KIND => {
            row.slot(&state_row::decode_tenant_kind_key(key)?)?;
            row.empty()
        }
        Table::CODLET_CODE => {
            row.text(key)?;
            let record = Record::decode(table, value)?;
            row.lookup_key(&record.lookup_key)?;
            CodeRow::decode(&record).map(drop)
        }
        Table::CODLET_SESSION => {
            row.text(key)?;
            let record = Record::decode(table, value)?;
            row.lookup_key(&record.lookup_key)?;
            SessionRow::decode(&record).map(drop)
        }
        Table::CODLET_CODE_KEY | Table::CODLET_SESSION_KEY => {
            row.lookup_key(key)?;
            row.text(value)
        }
        Table::CODLET_FAILURES => {
            row.text(key)?;
            let runs = FailuresRow::decode(value)?.runs;
            if runs.is_empty() || !runs.is_sorted_by(|a, b| a.at_ms <= b.at_ms) {
                return Err(row.bad("failures that are not in order"));
            }
            Ok(())
        }
        _ => Err(row.bad("no store has this table")),
    }
}

/// A row that is looked at.
struct RowCheck<'a> {
    table: Table,
    key: &'a [u8],
    value: &'a [u8],
}

impl RowCheck<'_> {
    fn bad(&self, detail: &str) -> Error {
        Error::corrupted(format!("a row of table {}", self.table.name()), detail)
    }

    fn bad_key(&self, detail: &str) -> Error {
        Error::corrupted(format!("a key of table {}", self.table.name()), detail)
    }

    /// Refuses a text that is longer than a store takes.
    fn short(&self, text: &str) -> Result<()> {
        if text.len() > MAX_KEY_LEN {
            return Err(self.bad("a text that is over the limit of a key"));
        }
        Ok(())
    }

    /// Refuses bytes that are no text, or too long a one.
    fn text(&self, bytes: &[u8]) -> Result<()> {
        self.short(std::str::from_utf8(bytes).map_err(|_| self.bad_key("not UTF-8"))?)
    }

    /// The name that a key begins with and the `rest` behind it.
    fn name_and(&self, rest: &str) -> Result<()> {
        let name =
            key::take_bytes(&mut &*self.key).ok_or_else(|| self.bad_key("it has no name"))?;
        self.text(&name)?;
        self.short(rest)
    }

    fn lookup_key(&self, bytes: &[u8]) -> Result<()> {
        let lookup_key = token_row::decode_key(bytes)?;
        if TokenKey::encode(&lookup_key).is_ok_and(|key| key.as_bytes() == bytes) {
            return Ok(());
        }
        Err(self.bad_key("a lookup key that is encoded as none is"))
    }

    fn token(&self, token: &TokenRow<'_>) -> Result<()> {
        let subject = match token.subject {
            SubjectRow::Authenticated(id) | SubjectRow::Flow(id) => id,
            SubjectRow::Anonymous => "",
        };
        let parts =
            [token.key_version, subject, token.purpose, token.bound_resource.unwrap_or_default()];
        parts.into_iter().try_for_each(|part| self.short(part))
    }

    fn empty(&self) -> Result<()> {
        if self.value.is_empty() { Ok(()) } else { Err(self.bad("bytes where none belong")) }
    }

    fn json(&self, json: &[u8]) -> Result<()> {
        let _: IgnoredAny =
            json::decode(json).ok_or_else(|| self.bad("a value that is not JSON"))?;
        Ok(())
    }

    fn kind(&self, kind: u8, allowed: &[Kind]) -> Result<()> {
        if allowed.iter().any(|allowed| *allowed as u8 == kind) {
            return Ok(());
        }
        Err(self.bad_key("an unknown kind of limiter"))
    }

    /// A kind, a name and a resource or an origin.
    fn limiter_key(&self, allowed: &[Kind]) -> Result<()> {
        let (&kind, mut rest) =
            self.key.split_first().ok_or_else(|| self.bad_key("it is empty"))?;
        self.kind(kind, allowed)?;
        let name = key::take_bytes(&mut rest).ok_or_else(|| self.bad_key("it has no name"))?;
        self.text(&name)?;
        self.text(rest)
    }

    fn slot(&self, slot: &state_row::Slot) -> Result<()> {
        let identity = &slot.identity;
        let parts =
            [&identity.tenant, &identity.user, &identity.session, &identity.run, &slot.kind];
        parts.into_iter().try_for_each(|part| self.short(part))
    }
}
