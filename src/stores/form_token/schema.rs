//! The tables of form tokens.

use super::row::{Phase, SubjectRow, TokenKey, TokenRow, UseRow, decode_key};
use super::{lines, sweep};
use crate::error::Result;
use crate::stores::lines::EntryLines;
use crate::stores::owner::{Owner, StoreKind};
use crate::stores::row_check::RowCheck;
use crate::stores::schema::EntryState;
use crate::stores::schema::{
    Constraints, CountEntry, Derived, Ends, EntryCounting, Lines, LossSchema, Numbers, Overwrite,
    Role, StoreSchema, TableSchema,
};
use crate::stores::state::Identity;
use crate::stores::watch::{ChangeKind, ChangedRow};
use crate::tables::{Table, TableDef};
use serde_json::{Value, json};

impl Table {
    /// Form tokens by lookup key.
    pub(crate) const FORM_TOKEN: Table =
        Table::new(&TableDef { number: 1, name: "form_token", is_waited_for: false });

    /// What happened to a consumed form token, by the same key. Apart from the token, so that a
    /// consume writes a few bytes into a dense table instead of rewriting the token's row.
    pub(crate) const FORM_TOKEN_USE: Table =
        Table::new(&TableDef { number: 2, name: "form_token_use", is_waited_for: false });
}

impl StoreKind {
    /// Form tokens ([`Cloakroom::form_tokens`](crate::Cloakroom::form_tokens)).
    pub const FORM_TOKENS: StoreKind = StoreKind::new(1, "form_tokens", "form tokens");
}

pub(crate) const STORE: StoreSchema =
    StoreSchema { kinds: &[StoreKind::FORM_TOKENS], tables: &[&TOKENS, &USES] };

const TOKENS: TableSchema = TableSchema {
    table: Table::FORM_TOKEN,
    role: Role::Primary,
    owner: |key| Owner::unnamed(StoreKind::FORM_TOKENS, key),
    check: |row| {
        check_lookup_key(row, row.key)?;
        check_token(row, &TokenRow::decode(row.value)?)
    },
    derived: Derived::None,
    constraints: Constraints::None,
    numbers: Numbers::None,
    ends: Ends::AtOrLater {
        at: |token| Ok(Some(TokenRow::decode(token)?.ends_at)),
        // As soon as a sweeper has found it, a token that was consumed stands under the end of its
        // grace.
        later: |token, used| Ok(TokenRow::decode(token)?.grace_ends_at(&UseRow::decode(used)?)),
        sweep: |tx, due, _| sweep::sweep(tx, due),
    },
    change: |row| Some(row.of_entry()),
    shown_key,
    counted: EntryCounting::Entries(counter),
    lines: Lines::Entries(EntryLines {
        write: lines::write,
        reader: Some(lines::reader),
        imported: None,
    }),
    dump_key,
    dump_value: |_, value| dump_token(value),
    loss: LossSchema { meaning: "such tokens are unknown", unsure: None, left_out: None },
};

const USES: TableSchema = TableSchema {
    table: Table::FORM_TOKEN_USE,
    role: Role::Satellite { of: Table::FORM_TOKEN, called: "its form token" },
    owner: |key| Owner::unnamed(StoreKind::FORM_TOKENS, key),
    check: |row| {
        check_lookup_key(row, row.key)?;
        row.short(UseRow::decode(row.value)?.result_ref.unwrap_or_default())
    },
    derived: Derived::None,
    constraints: Constraints::None,
    numbers: Numbers::None,
    ends: Ends::Never,
    change: changed_use,
    shown_key,
    counted: EntryCounting::RowsOnly,
    lines: Lines::OfOthers(Overwrite::Fine),
    dump_key,
    dump_value: |_, value| dump_use(value),
    loss: LossSchema {
        meaning: "tokens that were consumed are unconsumed again",
        unsure: Some(
            "it is unconsumed in the new file, but that it was consumed may be what is lost",
        ),
        left_out: None,
    },
};

/// Refuses a lookup key that is encoded as none is.
pub(crate) fn check_lookup_key(row: &RowCheck<'_>, bytes: &[u8]) -> Result<()> {
    let lookup_key = decode_key(bytes)?;
    if TokenKey::encode(&lookup_key).is_ok_and(|key| key.as_bytes() == bytes) {
        return Ok(());
    }
    Err(row.bad_key("a lookup key that is encoded as none is"))
}

fn check_token(row: &RowCheck<'_>, token: &TokenRow<'_>) -> Result<()> {
    let subject = match token.subject {
        SubjectRow::Authenticated(id) | SubjectRow::Flow(id) => id,
        SubjectRow::Anonymous => "",
    };
    let parts =
        [token.key_version, subject, token.purpose, token.bound_resource.unwrap_or_default()];
    parts.into_iter().try_for_each(|part| row.short(part))
}

fn changed_use(row: &ChangedRow<'_>) -> Option<ChangeKind> {
    // It goes with its token.
    match UseRow::decode(row.value?) {
        Ok(UseRow { result_ref: Some(_), .. }) => Some(ChangeKind::ResultSet),
        _ => Some(ChangeKind::Consumed),
    }
}

fn shown_key(key: &[u8]) -> (String, Option<Identity>) {
    let shown = decode_key(key).map(|key| key.as_str().to_owned());
    (shown.unwrap_or_else(|_| String::from_utf8_lossy(key).into_owned()), None)
}

fn counter() -> CountEntry {
    Box::new(|rows, row| {
        let used = row.satellite.map(UseRow::decode).transpose()?;
        let phase = TokenRow::decode(row.value)?.phase(used.as_ref(), rows.wall_ms().into());
        Ok(match phase {
            Phase::Unconsumed => EntryState::Live,
            Phase::Consumed => EntryState::Taken,
            Phase::Absent => EntryState::Expired,
        })
    })
}

/// The parts of a lookup key.
pub(crate) fn dump_key(key: &[u8]) -> Result<Value> {
    Ok(json!({ "lookup_key": decode_key(key)?.as_str() }))
}

fn dump_token(value: &[u8]) -> Result<Value> {
    let row = TokenRow::decode(value)?;
    let subject = row.subject.into();
    let (subject_kind, subject_id) = lines::subject_parts(&subject);
    Ok(json!({
        "key_version": row.key_version, "subject_kind": subject_kind, "subject_id": subject_id,
        "purpose": row.purpose, "bound_resource": row.bound_resource,
        "issued_at": row.issued_at, "expires_at": row.expires_at,
    }))
}

fn dump_use(value: &[u8]) -> Result<Value> {
    let row = UseRow::decode(value)?;
    Ok(json!({
        "consumed_at": row.consumed_at, "grace_ms": row.grace_ms, "result_ref": row.result_ref,
    }))
}
