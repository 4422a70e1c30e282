//! What a sweeper does to form tokens.

use super::ops::{decode_use, load};
use super::row::{Phase, TokenRow, ends_at};
use crate::engine::access::Writer;
use crate::error::Result;
use crate::stores::expiry;
use crate::stores::sweep::{Due, Verdict};
use crate::tables::Table;

/// Removes the token that is due, with its use, when it is absent by the wall clock and by the
/// trusted one. One that is consumed stays until its grace ends.
pub(crate) fn sweep(tx: &mut dyn Writer, due: &Due<'_>) -> Result<Verdict> {
    let Some((token, used)) = load(tx, due.key)? else { return Ok(Verdict::Stale) };
    let token = TokenRow::decode(&token)?;
    let used = decode_use(used.as_ref())?;
    let grace_ends_at = used.as_ref().map(|used| token.grace_ends_at(used));
    let now_ms = tx.moment().sure_wall_ms();
    if token.phase(used.as_ref(), now_ms.into()) != Phase::Absent {
        return Ok(Verdict::Keep { until: grace_ends_at.unwrap_or(token.ends_at) });
    }
    tx.delete(Table::FORM_TOKEN, due.key);
    if used.is_some() {
        tx.delete(Table::FORM_TOKEN_USE, due.key);
    }
    if grace_ends_at != Some(due.at) {
        // The index has it at its expiry, or its time is not known.
        due.unindex(tx, token.ends_at);
        if let Some(grace_ends_at) = grace_ends_at.filter(|_| token.ends_at != due.at) {
            due.unindex(tx, grace_ends_at);
        }
    }
    Ok(Verdict::Removed)
}

/// Indexes the token under its end as the trusted wall clock has it now.
pub(crate) fn follow_wall(tx: &mut dyn Writer, key: &[u8]) -> Result<()> {
    let Some((token, used)) = load(tx, key)? else { return Ok(()) };
    let mut row = TokenRow::decode(&token)?;
    let ends_at = ends_at(row.expires_at, &tx.moment());
    if ends_at != row.ends_at {
        expiry::delete(tx, row.ends_at, Table::FORM_TOKEN, key);
        if let Some(used) = decode_use(used.as_ref())? {
            expiry::delete(tx, row.grace_ends_at(&used), Table::FORM_TOKEN, key);
        }
        row.ends_at = ends_at;
        tx.put(Table::FORM_TOKEN, key, row.encode()?);
        expiry::put(tx, ends_at, Table::FORM_TOKEN, key);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::StoreKind;
    use crate::stores::form_token::ops::{Binding, consume, insert};
    use crate::stores::form_token::row::TokenKey;
    use crate::stores::form_token::{
        FormTokenRecord, LookupKey, TokenConsumeOutcome, TokenSubject,
    };
    use crate::stores::map_tx::MapTx;
    use crate::stores::sweep::sweep_all;

    const BINDING: Binding<'_> =
        Binding { subject: &TokenSubject::Anonymous, purpose: "pay", bound_resource: None };

    fn token(expires_at: u64) -> FormTokenRecord {
        FormTokenRecord {
            lookup_key: LookupKey::new("0a"),
            key_version: "1".into(),
            subject: TokenSubject::Anonymous,
            purpose: "pay".into(),
            bound_resource: None,
            issued_at: 0,
            expires_at,
        }
    }

    fn consume_at(tx: &mut MapTx, now: u64, grace_ms: u64) -> TokenConsumeOutcome {
        let key = TokenKey::encode(&LookupKey::new("0a")).unwrap();
        consume(tx, &[key], BINDING, now, grace_ms).unwrap().0
    }

    #[test]
    fn a_token_goes_at_its_end_and_not_before() {
        let mut tx = MapTx::at(0);
        insert(&mut tx, &token(10)).unwrap();
        tx.now_ms = 9_999;
        assert_eq!(sweep_all(&mut tx).total(), 0);
        assert_eq!(tx.snapshot().len(), 2);
        tx.now_ms = 10_000;
        assert_eq!(sweep_all(&mut tx).removed(StoreKind::FORM_TOKENS), 1);
        assert!(tx.snapshot().is_empty());
    }

    #[test]
    fn a_consumed_token_is_filed_again_under_the_end_of_its_grace() {
        let mut tx = MapTx::at(0);
        insert(&mut tx, &token(10)).unwrap();
        assert_eq!(consume_at(&mut tx, 5, 7_000), TokenConsumeOutcome::Proceed);
        tx.now_ms = 16_999;
        let report = sweep_all(&mut tx);
        assert_eq!((report.removed(StoreKind::FORM_TOKENS), report.rescheduled), (0, 1));
        assert_eq!(consume_at(&mut tx, 16, 7_000), TokenConsumeOutcome::Replay);
        assert_eq!(tx.keys(Table::EXPIRY).len(), 1);
        assert_eq!(sweep_all(&mut tx).rescheduled, 0, "it is met again only when it is due");
        tx.now_ms = 17_000;
        assert_eq!(sweep_all(&mut tx).removed(StoreKind::FORM_TOKENS), 1);
        assert!(tx.snapshot().is_empty());
    }

    #[test]
    fn a_consumed_token_that_was_never_filed_again_goes_whole() {
        let mut tx = MapTx::at(0);
        insert(&mut tx, &token(10)).unwrap();
        consume_at(&mut tx, 5, 7_000);
        tx.now_ms = 17_000;
        assert_eq!(sweep_all(&mut tx).removed(StoreKind::FORM_TOKENS), 1);
        assert!(tx.snapshot().is_empty());
    }

    #[test]
    fn an_insert_over_a_token_that_was_filed_again_leaves_one_index_row() {
        let mut tx = MapTx::at(0);
        insert(&mut tx, &token(10)).unwrap();
        consume_at(&mut tx, 5, 7_000);
        tx.now_ms = 11_000;
        sweep_all(&mut tx);
        tx.now_ms = 17_000;
        insert(&mut tx, &token(30)).unwrap();
        assert_eq!(tx.keys(Table::EXPIRY).len(), 1);
        assert_eq!(sweep_all(&mut tx).total(), 0);
        tx.now_ms = 30_000;
        sweep_all(&mut tx);
        assert!(tx.snapshot().is_empty());
    }

    #[test]
    fn a_grace_without_end_is_never_met_again() {
        let mut tx = MapTx::at(0);
        insert(&mut tx, &token(10)).unwrap();
        consume_at(&mut tx, 5, u64::MAX);
        tx.now_ms = 11_000;
        assert_eq!(sweep_all(&mut tx).rescheduled, 1);
        tx.now_ms = u64::MAX;
        let report = sweep_all(&mut tx);
        assert_eq!((report.total(), report.rescheduled), (0, 0));
        assert_eq!(tx.keys(Table::FORM_TOKEN_USE).len(), 1);
    }
}
