//! The operations on form tokens, each written once.
//!
//! Invariants, which the operations keep:
//!
//! 1. The row of a token never changes. A consume adds a use row under the same key.
//! 2. There is no use row without the token's own row.
//! 3. A token has exactly one row in the expiry index: at its expiry, or, once a sweeper has found
//!    it consumed, at its expiry plus the grace of its use row.

use super::record::{
    FormTokenEntry, FormTokenRecord, FormTokenStats, TokenConsumeOutcome, TokenSubject, TokenUse,
    classify_token_consume,
};
use super::row::{self, Phase, SubjectRow, TokenKey, TokenRow, UseRow};
use crate::engine::access::{Reader, Value, Writer};
use crate::engine::cursor::RowJoin;
use crate::error::{Error, Result};
use crate::observe;
use crate::stores::expiry;
use crate::stores::length::check_len;
use crate::stores::page::{Cursor, Page, check_limit, page_of};
use crate::tables::Table;

/// What a token was bound to, as the caller of a consume names it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Binding<'a> {
    pub(crate) subject: &'a TokenSubject,
    pub(crate) purpose: &'a str,
    pub(crate) bound_resource: Option<&'a str>,
}

impl Binding<'_> {
    fn is_of(&self, row: &TokenRow<'_>) -> bool {
        row.subject == SubjectRow::from(self.subject)
            && row.purpose == self.purpose
            && row.bound_resource == self.bound_resource
    }
}

/// The bytes of a token's two rows. Nothing when the token has none.
pub(super) fn load(rows: &mut dyn Reader, key: &[u8]) -> Result<Option<(Value, Option<Value>)>> {
    let Some(token) = rows.get(Table::FORM_TOKEN, key)? else { return Ok(None) };
    Ok(Some((token, rows.get(Table::FORM_TOKEN_USE, key)?)))
}

pub(super) fn decode_use(bytes: Option<&Value>) -> Result<Option<UseRow<'_>>> {
    bytes.map(|bytes| UseRow::decode(bytes)).transpose()
}

/// Stores a token, unless one lives under its lookup key. What is left of an ended one is replaced.
pub(crate) fn insert(tx: &mut dyn Writer, record: &FormTokenRecord) -> Result<()> {
    let key = TokenKey::encode(&record.lookup_key)?;
    let now = tx.moment();
    let new = TokenRow::of(record, &now)?;
    let value = new.encode()?;

    let mut indexed_at = None;
    if let Some((old, consumed)) = load(tx, key.as_bytes())? {
        let old = TokenRow::decode(&old)?;
        let consumed = decode_use(consumed.as_ref())?;
        if old.phase(consumed.as_ref(), now.wall_ms().into()) != Phase::Absent {
            return Err(Error::AlreadyExists);
        }
        indexed_at = Some(old.ends_at);
        if let Some(consumed) = consumed {
            tx.delete(Table::FORM_TOKEN_USE, key.as_bytes());
            // A sweep within the grace period has indexed it there.
            let rescheduled_at = old.grace_ends_at(&consumed);
            if rescheduled_at != old.ends_at {
                expiry::delete(tx, rescheduled_at, Table::FORM_TOKEN, key.as_bytes());
            }
            // A sweep may have removed the index row at the expiry, so the new row gets a new one.
            expiry::delete(tx, old.ends_at, Table::FORM_TOKEN, key.as_bytes());
            indexed_at = None;
        }
    }
    tx.put(Table::FORM_TOKEN, key.as_bytes(), value);
    expiry::move_to(tx, indexed_at, new.ends_at, Table::FORM_TOKEN, key.as_bytes());
    Ok(())
}

/// What a consume answers, and what it changes.
struct ConsumeDecision<'a> {
    outcome: TokenConsumeOutcome,
    /// What a replay answers.
    result_ref: Option<String>,
    /// The token to consume, if the outcome is `Proceed`.
    consumes: Option<&'a TokenKey>,
}

impl<'a> ConsumeDecision<'a> {
    /// Decides about the first of `candidates` that exists at `now`, in seconds since the Unix
    /// epoch by the caller's clock. Changes nothing.
    fn make(
        rows: &mut dyn Reader,
        candidates: &'a [TokenKey],
        binding: Binding<'_>,
        now: u64,
    ) -> Result<Self> {
        row::check_binding(binding.subject.into(), binding.purpose, binding.bound_resource)?;
        let now_ms = u128::from(now) * 1_000;
        for key in candidates {
            let Some((token, consumed)) = load(rows, key.as_bytes())? else { continue };
            let token = TokenRow::decode(&token)?;
            let consumed = decode_use(consumed.as_ref())?;
            let phase = token.phase(consumed.as_ref(), now_ms);
            if phase == Phase::Absent {
                continue;
            }
            let binding_ok = binding.is_of(&token);
            let consumes = (phase == Phase::Unconsumed && binding_ok).then_some(key);
            let already_consumed = phase == Phase::Consumed;
            let changed = usize::from(consumes.is_some());
            let outcome = classify_token_consume(changed, true, already_consumed, binding_ok);
            let result_ref = match outcome {
                TokenConsumeOutcome::Replay => {
                    consumed.and_then(|used| used.result_ref).map(Into::into)
                }
                _ => None,
            };
            return Ok(Self { outcome, result_ref, consumes });
        }
        let outcome = classify_token_consume(0, false, false, false);
        Ok(Self { outcome, result_ref: None, consumes: None })
    }
}

/// Consumes the first of `candidates` that exists at `now`, in seconds since the Unix epoch by the
/// caller's clock.
pub(crate) fn consume(
    tx: &mut dyn Writer,
    candidates: &[TokenKey],
    binding: Binding<'_>,
    now: u64,
    grace_ms: u64,
) -> Result<(TokenConsumeOutcome, Option<String>)> {
    let decision = ConsumeDecision::make(tx, candidates, binding, now)?;
    if let Some(key) = decision.consumes {
        let used = UseRow { consumed_at: now, grace_ms, result_ref: None };
        tx.put(Table::FORM_TOKEN_USE, key.as_bytes(), used.encode()?);
    }
    observe::consumed(label(decision.outcome));
    Ok((decision.outcome, decision.result_ref))
}

/// What [`consume`] would answer.
pub(crate) fn peek(
    rows: &mut dyn Reader,
    candidates: &[TokenKey],
    binding: Binding<'_>,
    now: u64,
) -> Result<(TokenConsumeOutcome, Option<String>)> {
    let decision = ConsumeDecision::make(rows, candidates, binding, now)?;
    Ok((decision.outcome, decision.result_ref))
}

/// What an outcome is called where outcomes are counted.
fn label(outcome: TokenConsumeOutcome) -> &'static str {
    match outcome {
        TokenConsumeOutcome::Proceed => "proceed",
        TokenConsumeOutcome::Replay => "replay",
        TokenConsumeOutcome::Invalid => "invalid",
    }
}

/// Stores what a replay answers, at the first of `candidates` that is consumed and within its
/// grace.
pub(crate) fn set_result(
    tx: &mut dyn Writer,
    candidates: &[TokenKey],
    result_ref: &str,
) -> Result<()> {
    check_len("the result", result_ref)?;
    for key in candidates {
        let Some((token, Some(consumed))) = load(tx, key.as_bytes())? else { continue };
        let consumed = UseRow::decode(&consumed)?;
        if TokenRow::decode(&token)?.phase(Some(&consumed), tx.wall_ms().into()) != Phase::Consumed
        {
            continue;
        }
        let value = UseRow { result_ref: Some(result_ref), ..consumed }.encode()?;
        tx.put(Table::FORM_TOKEN_USE, key.as_bytes(), value);
        return Ok(());
    }
    Ok(())
}

/// A page of the live tokens behind `cursor`.
pub(crate) fn list(
    rows: &mut dyn Reader,
    cursor: Option<&Cursor>,
    limit: usize,
) -> Result<Page<FormTokenEntry>> {
    check_limit(limit)?;
    let after = Cursor::position(cursor, Table::FORM_TOKEN, &[])?;
    let now_ms = u128::from(rows.wall_ms());
    let mut tokens = RowJoin::all(Table::FORM_TOKEN, Table::FORM_TOKEN_USE, after);
    page_of(Table::FORM_TOKEN, limit, || {
        while let Some(((key, token), used)) = tokens.next(rows)? {
            let row = TokenRow::decode(&token)?;
            let used = decode_use(used.as_ref())?;
            if row.phase(used.as_ref(), now_ms) == Phase::Absent {
                continue;
            }
            let record = row.to_record(row::decode_key(&key)?);
            let consumed = used.map(|used| TokenUse {
                consumed_at: used.consumed_at,
                result_ref: used.result_ref.map(Into::into),
            });
            return Ok(Some((key, FormTokenEntry { record, consumed })));
        }
        Ok(None)
    })
}

/// Counts every token.
pub(crate) fn stats(rows: &mut dyn Reader) -> Result<FormTokenStats> {
    let now_ms = u128::from(rows.wall_ms());
    let mut stats = FormTokenStats::default();
    let mut tokens = RowJoin::all(Table::FORM_TOKEN, Table::FORM_TOKEN_USE, None);
    while let Some(((key, token), used)) = tokens.next(rows)? {
        stats.bytes += (key.len() + token.len()) as u64;
        stats.bytes += used.as_ref().map_or(0, |used| key.len() + used.len()) as u64;
        match TokenRow::decode(&token)?.phase(decode_use(used.as_ref())?.as_ref(), now_ms) {
            Phase::Unconsumed => stats.live += 1,
            Phase::Consumed => stats.consumed += 1,
            Phase::Absent => stats.expired += 1,
        }
    }
    Ok(stats)
}

#[cfg(test)]
mod tests;
