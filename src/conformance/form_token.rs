//! What every [`FormTokenStore`] must do.

mod calls;
mod extremes;

use super::{Rule, START, run};
use crate::clock::ManualClock;
use crate::limits::DEFAULT_REPLAY_GRACE;
use crate::stores::form_token::TokenConsumeOutcome::{Invalid, Proceed, Replay};
use crate::stores::form_token::TokenSubject::{Anonymous, Authenticated, Flow};
use crate::stores::form_token::{FormTokenRecord, FormTokenStore, LookupKey, TokenSubject};
use calls::*;
use std::sync::Arc;

/// How long they answer `Replay` after that, in seconds.
const GRACE: u64 = DEFAULT_REPLAY_GRACE.as_secs();

/// Runs the whole suite on stores that `factory` makes: fresh, empty, with the default replay grace
/// of 24 hours, and with the clock that they take their time from.
///
/// # Panics
/// When a rule is broken, with the list of the broken ones.
pub fn form_token<S: FormTokenStore + 'static>(factory: impl Fn() -> (S, Arc<ManualClock>)) {
    run("form token", RULES, |check: &dyn Fn(&FormTokenDriver, &ManualClock)| {
        let (store, clock) = factory();
        check(&store, &clock);
    });
}

const RULES: &[Rule<FormTokenDriver>] = &[
    ("an unknown key is Invalid", unknown),
    ("an unconsumed token proceeds once, then replays", once),
    ("an unconsumed token is Invalid from expires_at on", expired),
    ("a replay carries the result that was stored last", replay_result),
    (
        "a consumed token replays until expires_at + grace, and is Invalid from then on",
        grace_by_callers_clock,
    ),
    (
        "a consumed token past its grace is Invalid also when the store's clock says so",
        grace_by_stores_clock,
    ),
    ("a binding that differs in one part is Invalid and changes nothing", bindings),
    ("Anonymous, Authenticated(\"\") and Flow(\"\") are three subjects", empty_subjects),
    ("a lookup key that exists is AlreadyExists, and the first record is untouched", insert_twice),
    ("a consumed token within its grace is AlreadyExists", insert_over_consumed),
    ("an expired token is replaced by an insert", insert_over_expired),
    (
        "a consumed token past its grace is replaced by an insert, result and all",
        insert_over_past_grace,
    ),
    ("a result for an unknown or unconsumed token is Ok and changes nothing", result_of_nothing),
    ("a result for a token past its grace is Ok and changes nothing", result_past_grace),
    ("of several candidates the first that exists decides", any_first_existing),
    ("of several candidates an expired one does not exist", any_skips_expired),
    ("no candidate is Invalid, and a result for none is Ok", any_empty),
    ("a result for several candidates goes to the first consumed one", result_any),
    ("a peek answers what a consume would, and changes nothing", peek_changes_nothing),
    ("a peek of a consumed token is Replay with its result, within its grace", peek_of_consumed),
    ("a peek of another binding is Invalid", peek_bindings),
    ("a peek takes the caller's time", peek_by_callers_clock),
    ("any string up to 64 KiB is a lookup key, and no two are the same", extremes::any_key),
    ("a string over 64 KiB is TooLarge and nothing changes", extremes::too_large),
    ("the greatest times do not overflow", extremes::greatest_times),
    ("a call sees every call before it, awaited or not", extremes::pipelined),
    ("dropping a Pending does not undo the change", extremes::dropped),
    ("of many concurrent consumes exactly one proceeds", extremes::race_consume),
    ("of many concurrent consumes of candidates exactly one proceeds", extremes::race_consume_any),
    ("of many concurrent inserts exactly one is accepted", extremes::race_insert),
];

fn unknown(store: &FormTokenDriver, _: &ManualClock) {
    insert(store, &token("aa"));
    assert_eq!(consume(store, &token("ab"), START), (Invalid, None));
}

fn once(store: &FormTokenDriver, _: &ManualClock) {
    let record = token("aa");
    insert(store, &record);
    assert_eq!(consume(store, &record, START), (Proceed, None));
    assert_eq!(consume(store, &record, START), (Replay, None));
    assert_eq!(consume(store, &record, START + 1), (Replay, None));
}

fn expired(store: &FormTokenDriver, _: &ManualClock) {
    let record = token("aa");
    insert(store, &record);
    for now in [END, END + 1, u64::MAX] {
        assert_eq!(consume(store, &record, now), (Invalid, None), "now = {now}");
    }
    assert_eq!(
        consume(store, &record, END - 1),
        (Proceed, None),
        "an Invalid answer changed the token"
    );
}

fn replay_result(store: &FormTokenDriver, _: &ManualClock) {
    let record = token("aa");
    insert(store, &record);
    assert_eq!(consume(store, &record, START), (Proceed, None));
    for result_ref in ["receipt-1", "receipt-2", ""] {
        set_result(store, &record, result_ref);
        assert_eq!(consume(store, &record, START), replay_of(result_ref));
    }
}

fn grace_by_callers_clock(store: &FormTokenDriver, _: &ManualClock) {
    let record = token("aa");
    insert(store, &record);
    assert_eq!(consume(store, &record, END - 1), (Proceed, None));
    set_result(store, &record, "r");
    for now in [0, END - 1, END, END + 1, END + GRACE - 1] {
        assert_eq!(consume(store, &record, now), replay_of("r"), "now = {now}");
    }
    for now in [END + GRACE, END + GRACE + 1, u64::MAX] {
        assert_eq!(consume(store, &record, now), (Invalid, None), "now = {now}");
    }
}

fn grace_by_stores_clock(store: &FormTokenDriver, clock: &ManualClock) {
    let record = token("aa");
    insert(store, &record);
    assert_eq!(consume(store, &record, START), (Proceed, None));
    set_result(store, &record, "r");
    clock.set((END + GRACE) * 1_000 - 1);
    assert_eq!(
        consume(store, &record, END + GRACE - 1),
        replay_of("r"),
        "it was swept within its grace"
    );
    clock.set((END + GRACE) * 1_000);
    assert_eq!(consume(store, &record, END + GRACE), (Invalid, None));
}

fn bindings(store: &FormTokenDriver, _: &ManualClock) {
    let record = token("aa");
    let different = |change: fn(&mut FormTokenRecord)| {
        let mut record = record.clone();
        change(&mut record);
        record
    };
    let others = [
        different(|other| other.subject = Authenticated("bob".into())),
        different(|other| other.subject = Flow("ada".into())),
        different(|other| other.subject = Anonymous),
        different(|other| other.purpose = "refund".into()),
        different(|other| other.purpose = String::new()),
        different(|other| other.bound_resource = None),
        different(|other| other.bound_resource = Some(String::new())),
        different(|other| other.bound_resource = Some("order-18".into())),
    ];
    insert(store, &record);
    for other in &others {
        assert_eq!(consume(store, other, START), (Invalid, None), "unconsumed, {other:?}");
    }
    assert_eq!(
        consume(store, &record, START),
        (Proceed, None),
        "an Invalid answer changed the token"
    );
    set_result(store, &record, "r");
    for other in &others {
        assert_eq!(consume(store, other, START), (Invalid, None), "consumed, {other:?}");
    }
    assert_eq!(
        consume(store, &record, START),
        replay_of("r"),
        "an Invalid answer changed the token"
    );

    let unbound = FormTokenRecord { bound_resource: None, ..token("bb") };
    insert(store, &unbound);
    for bound_resource in ["", "order-17"] {
        let other =
            FormTokenRecord { bound_resource: Some(bound_resource.into()), ..unbound.clone() };
        assert_eq!(
            consume(store, &other, START),
            (Invalid, None),
            "None and Some({bound_resource:?})"
        );
    }
    assert_eq!(consume(store, &unbound, START), (Proceed, None));
}

fn empty_subjects(store: &FormTokenDriver, _: &ManualClock) {
    let subjects: [TokenSubject; 3] =
        [Anonymous, Authenticated(String::new()), Flow(String::new())];
    for (index, subject) in subjects.iter().enumerate() {
        let record = FormTokenRecord { subject: subject.clone(), ..token(&format!("aa{index}")) };
        insert(store, &record);
        for other in subjects.iter().filter(|other| *other != subject) {
            let other = FormTokenRecord { subject: other.clone(), ..record.clone() };
            assert_eq!(
                consume(store, &other, START),
                (Invalid, None),
                "{subject:?} taken for {other:?}"
            );
        }
        assert_eq!(consume(store, &record, START), (Proceed, None));
    }
}

fn insert_twice(store: &FormTokenDriver, clock: &ManualClock) {
    let record = token("aa");
    insert(store, &record);
    let other = FormTokenRecord { purpose: "refund".into(), expires_at: END + 900, ..token("aa") };
    assert_exists(store, &other);
    clock.set(END * 1_000 - 1);
    assert_exists(store, &other);
    assert_eq!(consume(store, &other, START), (Invalid, None));
    assert_eq!(consume(store, &record, END), (Invalid, None), "the expiry was replaced");
    assert_eq!(consume(store, &record, START), (Proceed, None));
}

fn insert_over_consumed(store: &FormTokenDriver, clock: &ManualClock) {
    let record = token("aa");
    insert(store, &record);
    assert_eq!(consume(store, &record, START), (Proceed, None));
    set_result(store, &record, "r");
    for clock_ms in [START * 1_000, END * 1_000, (END + GRACE) * 1_000 - 1] {
        clock.set(clock_ms);
        assert_exists(store, &FormTokenRecord { expires_at: END + 2 * GRACE, ..token("aa") });
    }
    assert_eq!(consume(store, &record, END), replay_of("r"));
}

fn insert_over_expired(store: &FormTokenDriver, clock: &ManualClock) {
    insert(store, &token("aa"));
    clock.set(END * 1_000);
    let next = FormTokenRecord { purpose: "refund".into(), expires_at: END + TTL, ..token("aa") };
    insert(store, &next);
    assert_eq!(consume(store, &token("aa"), END), (Invalid, None));
    assert_eq!(consume(store, &next, END), (Proceed, None));
}

fn insert_over_past_grace(store: &FormTokenDriver, clock: &ManualClock) {
    let record = token("aa");
    insert(store, &record);
    assert_eq!(consume(store, &record, START), (Proceed, None));
    set_result(store, &record, "old");
    clock.set((END + GRACE) * 1_000);
    let next = FormTokenRecord { expires_at: END + 2 * GRACE, ..token("aa") };
    insert(store, &next);
    assert_eq!(consume(store, &next, END + GRACE), (Proceed, None));
    assert_eq!(consume(store, &next, END + GRACE), (Replay, None), "the old result came back");
}

fn result_of_nothing(store: &FormTokenDriver, _: &ManualClock) {
    let record = token("aa");
    set_result(store, &record, "before");
    insert(store, &record);
    set_result(store, &record, "unconsumed");
    assert_eq!(consume(store, &record, START), (Proceed, None));
    assert_eq!(consume(store, &record, START), (Replay, None));
}

fn result_past_grace(store: &FormTokenDriver, clock: &ManualClock) {
    let record = token("aa");
    insert(store, &record);
    assert_eq!(consume(store, &record, START), (Proceed, None));
    set_result(store, &record, "in time");
    clock.set((END + GRACE) * 1_000);
    set_result(store, &record, "too late");
    // By a caller's clock that is behind, the token may still be there; its result must be the one
    // stored in time.
    let answer = consume(store, &record, START);
    assert!(answer == replay_of("in time") || answer == (Invalid, None), "{answer:?}");
}

fn any_first_existing(store: &FormTokenDriver, _: &ManualClock) {
    let (unknown, first, second) = (token("00"), token("aa"), token("bb"));
    let candidates = [&unknown.lookup_key, &first.lookup_key, &second.lookup_key];
    insert(store, &first);
    insert(store, &second);
    let stranger = FormTokenRecord { purpose: "refund".into(), ..first.clone() };
    assert_eq!(consume_any(store, &candidates, &stranger, START), (Invalid, None));
    assert_eq!(consume_any(store, &candidates, &first, START), (Proceed, None));
    assert_eq!(consume_any(store, &candidates, &first, START), (Replay, None));
    assert_eq!(consume(store, &second, START), (Proceed, None), "a later candidate was touched");

    // The first that exists decides also when only a later one would be bound to this caller.
    let (third, fourth) =
        (FormTokenRecord { purpose: "refund".into(), ..token("cc") }, token("dd"));
    insert(store, &third);
    insert(store, &fourth);
    let candidates = [&third.lookup_key, &fourth.lookup_key];
    assert_eq!(consume_any(store, &candidates, &fourth, START), (Invalid, None));
    assert_eq!(consume(store, &fourth, START), (Proceed, None));
}

fn any_skips_expired(store: &FormTokenDriver, _: &ManualClock) {
    let expired = FormTokenRecord { expires_at: START + 1, ..token("aa") };
    let spent = FormTokenRecord { expires_at: START + 1, ..token("bb") };
    let live = FormTokenRecord { expires_at: START + 3 * GRACE, ..token("cc") };
    for record in [&expired, &spent, &live] {
        insert(store, record);
    }
    assert_eq!(consume(store, &spent, START), (Proceed, None));
    let candidates = [&expired.lookup_key, &spent.lookup_key, &live.lookup_key];
    assert_eq!(
        consume_any(store, &candidates, &live, START + 1),
        (Replay, None),
        "within its grace it exists"
    );
    assert_eq!(consume_any(store, &candidates, &live, START + 1 + GRACE), (Proceed, None));
}

fn any_empty(store: &FormTokenDriver, _: &ManualClock) {
    let record = token("aa");
    insert(store, &record);
    assert_eq!(consume_any(store, &[], &record, START), (Invalid, None));
    store.set_token_result_any(&[], "r").wait().unwrap();
}

fn result_any(store: &FormTokenDriver, _: &ManualClock) {
    let records = [token("aa"), token("bb"), token("cc")];
    let candidates: Vec<LookupKey> = ["00", "aa", "bb", "cc"].map(LookupKey::new).into();
    for record in &records {
        insert(store, record);
    }
    let [unconsumed, first, second] = &records;
    assert_eq!(consume(store, first, START), (Proceed, None));
    assert_eq!(consume(store, second, START), (Proceed, None));
    store.set_token_result_any(&candidates, "r").wait().unwrap();
    assert_eq!(consume(store, first, START), replay_of("r"));
    assert_eq!(consume(store, second, START), (Replay, None));
    assert_eq!(consume(store, unconsumed, START), (Proceed, None));
    assert_eq!(consume(store, unconsumed, START), (Replay, None));
}

fn peek_changes_nothing(store: &FormTokenDriver, _: &ManualClock) {
    let record = token("aa");
    assert_eq!(peek(store, &record, START), (Invalid, None), "an unknown token");
    insert(store, &record);
    for _ in 0..3 {
        assert_eq!(peek(store, &record, START), (Proceed, None));
    }
    assert_eq!(consume(store, &record, START), (Proceed, None), "the peek consumed it");
    assert_eq!(peek(store, &record, START), (Replay, None));
}

fn peek_of_consumed(store: &FormTokenDriver, _: &ManualClock) {
    let record = token("aa");
    insert(store, &record);
    assert_eq!(consume(store, &record, START), (Proceed, None));
    set_result(store, &record, "r");
    for now in [0, START, END + GRACE - 1] {
        assert_eq!(peek(store, &record, now), replay_of("r"), "now = {now}");
    }
    assert_eq!(peek(store, &record, END + GRACE), (Invalid, None));
    assert_eq!(consume(store, &record, START), replay_of("r"), "the peek took the result");
}

fn peek_bindings(store: &FormTokenDriver, _: &ManualClock) {
    let record = token("aa");
    insert(store, &record);
    let others = [
        FormTokenRecord { subject: Anonymous, ..record.clone() },
        FormTokenRecord { purpose: "refund".into(), ..record.clone() },
        FormTokenRecord { bound_resource: None, ..record.clone() },
    ];
    for other in &others {
        assert_eq!(peek(store, other, START), (Invalid, None), "unconsumed, {other:?}");
    }
    assert_eq!(consume(store, &record, START), (Proceed, None));
    for other in &others {
        assert_eq!(peek(store, other, START), (Invalid, None), "consumed, {other:?}");
    }
}

fn peek_by_callers_clock(store: &FormTokenDriver, _: &ManualClock) {
    let record = token("aa");
    insert(store, &record);
    assert_eq!(peek(store, &record, END - 1), (Proceed, None));
    for now in [END, END + 1, u64::MAX] {
        assert_eq!(peek(store, &record, now), (Invalid, None), "now = {now}");
    }
    assert_eq!(peek(store, &record, START), (Proceed, None));
}
