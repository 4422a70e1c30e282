use super::*;
use crate::engine::time_line::Deadline;
use crate::limits::{MAX_KEY_LEN, MAX_LIST_LIMIT};
use crate::stores::form_token::{FormTokensTx, LookupKey};
use crate::stores::map_tx::MapTx;
use TokenConsumeOutcome::{Invalid, Proceed, Replay};
use std::time::Duration;

const START: u64 = 1_000;
const END: u64 = 1_600;
const GRACE: u64 = 100;

fn room() -> MapTx {
    MapTx::at(START * 1_000)
}

fn tokens(tx: &mut MapTx) -> FormTokensTx<'_> {
    FormTokensTx::new(tx).with_replay_grace(Duration::from_secs(GRACE))
}

fn token(lookup_key: &str) -> FormTokenRecord {
    FormTokenRecord {
        lookup_key: LookupKey::new(lookup_key),
        key_version: "v1".into(),
        subject: TokenSubject::Authenticated("ada".into()),
        purpose: "pay".into(),
        bound_resource: None,
        issued_at: START,
        expires_at: END,
    }
}

fn insert(tx: &mut MapTx, record: &FormTokenRecord) {
    tokens(tx).insert_form_token(record.clone()).unwrap();
}

fn consume_as(
    tx: &mut MapTx,
    record: &FormTokenRecord,
    candidates: &[&str],
    now: u64,
) -> (TokenConsumeOutcome, Option<String>) {
    let candidates: Vec<_> = candidates.iter().copied().map(LookupKey::new).collect();
    let bound_resource = record.bound_resource.as_deref();
    tokens(tx)
        .consume_form_token_any(&candidates, &record.subject, &record.purpose, bound_resource, now)
        .unwrap()
}

fn consume(
    tx: &mut MapTx,
    record: &FormTokenRecord,
    now: u64,
) -> (TokenConsumeOutcome, Option<String>) {
    consume_as(tx, record, &[record.lookup_key.as_str()], now)
}

fn set_result(tx: &mut MapTx, lookup_key: &str, result_ref: &str) {
    tokens(tx).set_token_result(&LookupKey::new(lookup_key), result_ref).unwrap();
}

fn expiry_key(time_ms: u64, lookup_key: &str) -> Vec<u8> {
    let key = TokenKey::encode(&LookupKey::new(lookup_key)).unwrap();
    expiry::encode_key(Deadline::at(time_ms), Table::FORM_TOKEN, key.as_bytes())
}

#[test]
fn an_unknown_key_is_invalid() {
    let mut tx = room();
    assert_eq!(consume(&mut tx, &token("aa"), START), (Invalid, None));
    assert_eq!(tx.writes, 0);
}

#[test]
fn a_consume_is_one_put_beside_the_token_and_happens_once() {
    let mut tx = room();
    let record = token("aa");
    insert(&mut tx, &record);
    let (before, writes) = (tx.snapshot(), tx.writes);
    assert_eq!(consume(&mut tx, &record, START), (Proceed, None));
    assert_eq!(tx.writes, writes + 1);
    assert_eq!(tx.keys(Table::FORM_TOKEN_USE), [b"\x01\xaa"]);
    for (key, value) in before {
        assert_eq!(tx.get(key.0, &key.1).unwrap(), Some(value), "an existing row changed");
    }
    assert_eq!(consume(&mut tx, &record, START), (Replay, None));
    assert_eq!(tx.writes, writes + 1, "a replay wrote something");
}

#[test]
fn an_unconsumed_token_ends_at_its_expiry() {
    let mut tx = room();
    let record = token("aa");
    insert(&mut tx, &record);
    assert_eq!(consume(&mut tx, &record, END), (Invalid, None));
    assert_eq!(consume(&mut tx, &record, END - 1), (Proceed, None));
}

#[test]
fn a_consumed_token_replays_its_last_result_until_its_grace_is_over() {
    let mut tx = room();
    let record = token("aa");
    insert(&mut tx, &record);
    consume(&mut tx, &record, START);
    for result_ref in ["r1", "r2"] {
        set_result(&mut tx, "aa", result_ref);
        assert_eq!(consume(&mut tx, &record, END + GRACE - 1), (Replay, Some(result_ref.into())));
    }
    assert_eq!(consume(&mut tx, &record, END + GRACE), (Invalid, None));
}

#[test]
fn the_grace_is_that_of_the_handle_that_consumed() {
    let mut tx = room();
    let record = token("aa");
    insert(&mut tx, &record);
    consume(&mut tx, &record, START);
    let mut other = FormTokensTx::new(&mut tx).with_replay_grace(Duration::MAX);
    let answer = other.consume_form_token(
        &record.lookup_key,
        &record.subject,
        &record.purpose,
        None,
        END + GRACE,
    );
    assert_eq!(answer.unwrap(), (Invalid, None));
}

#[test]
fn a_binding_that_differs_is_invalid_and_changes_nothing() {
    let mut tx = room();
    let record = token("aa");
    insert(&mut tx, &record);
    let others = [
        FormTokenRecord { subject: TokenSubject::Authenticated("bob".into()), ..token("aa") },
        FormTokenRecord { subject: TokenSubject::Flow("ada".into()), ..token("aa") },
        FormTokenRecord { subject: TokenSubject::Anonymous, ..token("aa") },
        FormTokenRecord { purpose: "refund".into(), ..token("aa") },
        FormTokenRecord { bound_resource: Some(String::new()), ..token("aa") },
    ];
    let writes = tx.writes;
    for other in &others {
        assert_eq!(consume(&mut tx, other, START), (Invalid, None), "{other:?}");
    }
    assert_eq!(tx.writes, writes);
    assert_eq!(consume(&mut tx, &record, START), (Proceed, None));
    set_result(&mut tx, "aa", "secret");
    for other in &others {
        assert_eq!(consume(&mut tx, other, START), (Invalid, None), "{other:?}");
    }
}

#[test]
fn a_live_key_exists_and_keeps_its_record() {
    let mut tx = room();
    let record = token("aa");
    insert(&mut tx, &record);
    let before = tx.snapshot();
    let answer = tokens(&mut tx)
        .insert_form_token(FormTokenRecord { purpose: "refund".into(), ..token("aa") });
    assert!(matches!(answer, Err(Error::AlreadyExists)));
    assert_eq!(tx.snapshot(), before);

    consume(&mut tx, &record, START);
    tx.now_ms = (END + GRACE) * 1_000 - 1;
    let before = tx.snapshot();
    assert!(matches!(tokens(&mut tx).insert_form_token(record), Err(Error::AlreadyExists)));
    assert_eq!(tx.snapshot(), before);
}

#[test]
fn an_expired_token_is_replaced_with_its_index_row() {
    let mut tx = room();
    insert(&mut tx, &token("aa"));
    tx.now_ms = END * 1_000;
    insert(&mut tx, &FormTokenRecord { expires_at: END + 9, ..token("aa") });
    assert_eq!(tx.keys(Table::EXPIRY), [expiry_key((END + 9) * 1_000, "aa")]);
}

#[test]
fn a_token_past_its_grace_is_replaced_with_use_and_index_rows_whether_rescheduled_or_not() {
    for rescheduled in [false, true] {
        for expires_at in [END, END + GRACE, END + 3 * GRACE] {
            let mut tx = room();
            let record = token("aa");
            insert(&mut tx, &record);
            consume(&mut tx, &record, START);
            if rescheduled {
                tx.delete(Table::EXPIRY, &expiry_key(END * 1_000, "aa"));
                tx.put(Table::EXPIRY, &expiry_key((END + GRACE) * 1_000, "aa"), Vec::new());
            }
            tx.now_ms = (END + GRACE) * 1_000;
            let next = FormTokenRecord { expires_at, ..token("aa") };
            insert(&mut tx, &next);
            assert_eq!(tx.keys(Table::EXPIRY), [expiry_key(expires_at * 1_000, "aa")]);
            assert!(tx.keys(Table::FORM_TOKEN_USE).is_empty());
            assert_eq!(consume(&mut tx, &next, START), (Proceed, None));
        }
    }
}

#[test]
fn a_result_for_an_unknown_unconsumed_or_ended_token_changes_nothing() {
    let mut tx = room();
    let record = token("aa");
    set_result(&mut tx, "aa", "unknown");
    insert(&mut tx, &record);
    let writes = tx.writes;
    set_result(&mut tx, "aa", "unconsumed");
    assert_eq!(tx.writes, writes);
    consume(&mut tx, &record, START);
    tx.now_ms = (END + GRACE) * 1_000;
    let writes = tx.writes;
    set_result(&mut tx, "aa", "ended");
    assert_eq!(tx.writes, writes);
}

#[test]
fn the_first_candidate_that_exists_decides() {
    let mut tx = room();
    let expired = FormTokenRecord { expires_at: START, ..token("ee") };
    let first = FormTokenRecord { purpose: "refund".into(), ..token("aa") };
    let second = token("bb");
    for record in [&expired, &first, &second] {
        insert(&mut tx, record);
    }
    let candidates = ["00", "ee", "aa", "bb"];
    assert_eq!(consume_as(&mut tx, &second, &candidates, START), (Invalid, None));
    assert_eq!(consume_as(&mut tx, &first, &candidates, START), (Proceed, None));
    assert_eq!(consume_as(&mut tx, &first, &candidates, START), (Replay, None));
    assert_eq!(consume_as(&mut tx, &second, &[], START), (Invalid, None));
    assert_eq!(consume(&mut tx, &second, START), (Proceed, None));
}

#[test]
fn a_result_goes_to_the_first_consumed_candidate() {
    let mut tx = room();
    for key in ["aa", "bb", "cc"] {
        insert(&mut tx, &token(key));
    }
    consume(&mut tx, &token("bb"), START);
    consume(&mut tx, &token("cc"), START);
    let candidates = ["00", "aa", "bb", "cc"].map(LookupKey::new);
    tokens(&mut tx).set_token_result_any(&candidates, "r").unwrap();
    tokens(&mut tx).set_token_result_any(&[], "none").unwrap();
    assert_eq!(consume(&mut tx, &token("bb"), START), (Replay, Some("r".into())));
    assert_eq!(consume(&mut tx, &token("cc"), START), (Replay, None));
}

#[test]
fn a_string_over_the_limit_is_too_large_and_stages_nothing() {
    let mut tx = room();
    insert(&mut tx, &token("aa"));
    consume(&mut tx, &token("aa"), START);
    let writes = tx.writes;
    let long = "x".repeat(MAX_KEY_LEN + 1);
    for record in [
        token(&long),
        FormTokenRecord { key_version: long.clone(), ..token("bb") },
        FormTokenRecord { subject: TokenSubject::Flow(long.clone()), ..token("bb") },
        FormTokenRecord { subject: TokenSubject::Authenticated(long.clone()), ..token("bb") },
        FormTokenRecord { purpose: long.clone(), ..token("bb") },
        FormTokenRecord { bound_resource: Some(long.clone()), ..token("bb") },
    ] {
        assert!(matches!(tokens(&mut tx).insert_form_token(record), Err(Error::TooLarge { .. })));
    }
    let (key, long_key) = (LookupKey::new("aa"), LookupKey::new(&*long));
    let subject = TokenSubject::Anonymous;
    let mut store = tokens(&mut tx);
    for answer in [
        store.consume_form_token(&long_key, &subject, "pay", None, START),
        store.consume_form_token(&key, &TokenSubject::Flow(long.clone()), "pay", None, START),
        store.consume_form_token(&key, &subject, &long, None, START),
        store.consume_form_token(&key, &subject, "pay", Some(&long), START),
        store.consume_form_token_any(
            &[key.clone(), long_key.clone()],
            &subject,
            "pay",
            None,
            START,
        ),
    ] {
        assert!(matches!(answer, Err(Error::TooLarge { .. })));
    }
    assert!(matches!(store.set_token_result(&long_key, "r"), Err(Error::TooLarge { .. })));
    assert!(matches!(store.set_token_result(&key, &long), Err(Error::TooLarge { .. })));
    assert_eq!(tx.writes, writes);
}

#[test]
fn a_listing_has_the_live_tokens_in_pages_and_a_count_has_them_all() {
    let mut tx = room();
    for index in 0..600_u64 {
        // Every third has ended by the time of the listing; of those, every other was consumed and
        // has its grace.
        let ends = if index % 3 == 0 { START + 1 } else { END };
        let record = FormTokenRecord { expires_at: ends, ..token(&format!("{index:04x}")) };
        insert(&mut tx, &record);
        if index % 2 == 0 {
            assert_eq!(consume(&mut tx, &record, START), (Proceed, None));
        }
    }
    set_result(&mut tx, "0004", "r4");
    tx.now_ms = (START + 1) * 1_000;
    let stats = stats(&mut tx).unwrap();
    assert_eq!((stats.live, stats.consumed, stats.expired), (200, 300, 100));
    assert_eq!(stats.bytes, tx.bytes(&[Table::FORM_TOKEN, Table::FORM_TOKEN_USE]));

    let expected: Vec<String> = (0..600)
        .filter(|index| index % 3 != 0 || index % 2 == 0)
        .map(|index| format!("{index:04x}"))
        .collect();
    for limit in [1, 7, 250, 500, MAX_LIST_LIMIT] {
        let (mut listed, mut cursor) = (Vec::new(), None);
        loop {
            let page = list(&mut tx, cursor.as_ref(), limit).unwrap();
            assert!(page.items.len() == limit || page.next.is_none());
            listed.extend(page.items);
            let Some(next) = page.next else { break };
            cursor = Some(next.to_string().parse().unwrap());
        }
        let keys: Vec<_> = listed.iter().map(|entry| entry.record.lookup_key.to_string()).collect();
        assert_eq!(keys, expected, "pages of {limit}");
        let fifth = listed.iter().find(|entry| entry.record.lookup_key.as_str() == "0004").unwrap();
        assert_eq!(fifth.record, token("0004"));
        let used = TokenUse { consumed_at: START, result_ref: Some("r4".into()) };
        assert_eq!(fifth.consumed, Some(used));
    }
}

#[test]
fn a_listing_refuses_limits_and_cursors_that_are_not_its_own() {
    let mut tx = room();
    let foreign = Cursor::new(Table::HANDOFF, Vec::new());
    for answer in [
        list(&mut tx, None, 0),
        list(&mut tx, None, MAX_LIST_LIMIT + 1),
        list(&mut tx, Some(&foreign), 1),
    ] {
        assert!(matches!(answer, Err(Error::InvalidConfig(_))));
    }
}

#[test]
fn a_damaged_row_is_corruption_and_stages_nothing() {
    let mut tx = room();
    insert(&mut tx, &token("aa"));
    consume(&mut tx, &token("aa"), START);
    for table in [Table::FORM_TOKEN_USE, Table::FORM_TOKEN] {
        tx.put(table, b"\x01\xaa", vec![0xff]);
        let writes = tx.writes;
        let key = LookupKey::new("aa");
        let mut store = tokens(&mut tx);
        let subject = TokenSubject::Anonymous;
        assert!(matches!(store.insert_form_token(token("aa")), Err(Error::Corrupted { .. })));
        let consumed = store.consume_form_token(&key, &subject, "pay", None, START);
        assert!(matches!(consumed, Err(Error::Corrupted { .. })));
        assert!(matches!(store.set_token_result(&key, "r"), Err(Error::Corrupted { .. })));
        assert_eq!(tx.writes, writes);
    }
}
