//! Rooms against a model of what they promise, and callers that count what they were answered.

use crate::scale::scaled;
use cloakroom::form_token::{
    FormTokenRecord, FormTokenStore, LookupKey, TokenConsumeOutcome, TokenSubject,
};
use cloakroom::fuzzing::model::{Ending, ModelOp, ModelRun, Reopening, StoreOp};
use cloakroom::handoff::{HandoffStateStore, JsonObject};
use cloakroom::{Cloakroom, Error};
use proptest::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

fn key() -> impl Strategy<Value = u8> {
    // Few, so that operations meet; now and then one of the longest.
    prop_oneof![30 => 0u8..8, 4 => 64u8..70, 1 => Just(10u8), 1 => Just(12u8)]
}

fn candidates() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => prop::collection::vec(key(), 1), 1 => prop::collection::vec(key(), 0..4)]
}

fn binding() -> impl Strategy<Value = u8> {
    prop_oneof![20 => Just(0u8), 4 => 0u8..32, 1 => Just(255u8)]
}

fn store_op() -> impl Strategy<Value = StoreOp> {
    let ttl = || prop_oneof![4 => 1u8..90, 1 => Just(0u8), 1 => Just(255u8)];
    prop_oneof![
        6 => (key(), binding(), ttl())
            .prop_map(|(key, binding, ttl_seconds)| StoreOp::Insert { key, binding, ttl_seconds }),
        6 => (candidates(), binding(), prop_oneof![3 => Just(0i8), 1 => any::<i8>()], 0u8..4).prop_map(
            |(candidates, binding, skew_seconds, grace)| StoreOp::Consume {
                candidates, binding, skew_seconds, grace,
            }
        ),
        3 => (candidates(), any::<u8>())
            .prop_map(|(candidates, result)| StoreOp::SetResult { candidates, result }),
        6 => (key(), any::<u8>(), ttl()).prop_map(|(id, body, ttl_seconds)| StoreOp::Set { id, body, ttl_seconds }),
        3 => key().prop_map(|id| StoreOp::Get { id }),
        2 => key().prop_map(|id| StoreOp::Take { id }),
        1 => key().prop_map(|id| StoreOp::Delete { id }),
        4 => (key(), prop_oneof![8 => 1u16..30_000, 1 => Just(0u16)])
            .prop_map(|(id, lease_ms)| StoreOp::Claim { id, lease_ms }),
        2 => any::<u8>().prop_map(|nth| StoreOp::Ack { nth }),
        2 => any::<u8>().prop_map(|nth| StoreOp::Release { nth }),
    ]
}

fn op() -> impl Strategy<Value = ModelOp> {
    let ending =
        prop_oneof![3 => Just(Ending::Commit), 1 => Just(Ending::Err), 1 => Just(Ending::Panic)];
    let reopening = prop_oneof![
        Just(Reopening::Close),
        Just(Reopening::Drop),
        Just(Reopening::Kill),
        any::<u8>().prop_map(Reopening::PowerCut),
    ];
    prop_oneof![
        24 => store_op().prop_map(ModelOp::Store),
        2 => store_op().prop_map(ModelOp::Forget),
        5 => (prop::collection::vec(store_op(), 0..6), ending)
            .prop_map(|(ops, ending)| ModelOp::Together(ops, ending)),
        3 => Just(ModelOp::Settle),
        3 => (0u16..20_000).prop_map(ModelOp::Advance),
        1 => Just(ModelOp::Checkpoint),
        2 => Just(ModelOp::Sweep),
        1 => any::<u8>().prop_map(ModelOp::Compare),
        2 => reopening.prop_map(ModelOp::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: scaled(48, 96), max_shrink_iters: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_room_on_a_simulated_disk_answers_as_its_model(ops in prop::collection::vec(op(), 1..120)) {
        ModelRun::in_memory(false).check(&ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_room_with_background_threads_answers_as_its_model(ops in prop::collection::vec(op(), 1..120)) {
        ModelRun::in_memory(true).check(&ops);
    }

    #[test]
    fn a_room_in_a_file_answers_as_its_model(ops in prop::collection::vec(op(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        ModelRun::in_file(dir.path().join("model.cloak")).check(&ops);
    }
}

const THREADS: usize = 16;

/// Small segments, so that checkpoints happen all the while.
fn small_room(dir: &tempfile::TempDir) -> Cloakroom {
    Cloakroom::builder().log_capacity(1_280 << 10).open(dir.path().join("count.cloak")).unwrap()
}

fn record(lookup_key: String, purpose: &str) -> FormTokenRecord {
    FormTokenRecord {
        lookup_key: LookupKey::new(lookup_key),
        key_version: "1".into(),
        subject: TokenSubject::Anonymous,
        purpose: purpose.into(),
        bound_resource: None,
        issued_at: 0,
        expires_at: u64::MAX,
    }
}

fn counter(value: u64) -> JsonObject {
    JsonObject::from_iter([("value".to_owned(), value.into())])
}

fn value(state: &JsonObject) -> u64 {
    state["value"].as_u64().unwrap()
}

#[test]
fn every_token_and_every_state_has_exactly_one_taker() {
    const ITEMS: usize = 320;
    let dir = tempfile::tempdir().unwrap();
    let room = small_room(&dir);
    let inserts: Vec<_> = (0..ITEMS)
        .map(|item| {
            let token = room.form_tokens().insert_form_token(record(format!("{item:08x}"), "pay"));
            (token, room.handoff().set(&format!("state-{item}"), &counter(item as u64), 3_600))
        })
        .collect();
    for (token, state) in inserts {
        token.wait().unwrap();
        state.wait().unwrap();
    }

    let zeros = || -> Vec<AtomicUsize> { (0..ITEMS).map(|_| AtomicUsize::new(0)).collect() };
    let (proceeded, replayed, taken) = (zeros(), zeros(), zeros());
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (room, proceeded, replayed, taken) = (&room, &proceeded, &replayed, &taken);
            scope.spawn(move || {
                let (tokens, handoff) = (room.form_tokens(), room.handoff());
                // Neighbours begin near each other and go in different directions, and every batch
                // is in flight together.
                let order: Vec<usize> = (0..ITEMS)
                    .map(|step| if thread % 2 == 0 { step } else { ITEMS - 1 - step })
                    .map(|item| (item + thread / 4 * 80) % ITEMS)
                    .collect();
                for batch in order.chunks(1 + thread * 3) {
                    let answers: Vec<_> = batch
                        .iter()
                        .map(|&item| {
                            let key = LookupKey::new(format!("{item:08x}"));
                            let anonymous = TokenSubject::Anonymous;
                            let consumed =
                                tokens.consume_form_token(&key, &anonymous, "pay", None, 1);
                            let id = format!("state-{item}");
                            // Some take at once and some in two phases, some of those inside a
                            // transaction.
                            let state = match thread % 4 {
                                0 => handoff.get_and_delete(&id),
                                1 => room.atomically(|tx| tx.handoff().get_and_delete(&id)),
                                _ => room.atomically(|tx| {
                                    let claim =
                                        tx.handoff().claim(&id, Duration::from_secs(3_600))?;
                                    let Some(claim) = claim else { return Ok(None) };
                                    assert!(tx.handoff().ack(&claim.id)?);
                                    Ok::<_, Error>(Some(claim.state))
                                }),
                            };
                            (item, consumed, state)
                        })
                        .collect();
                    for (item, consumed, state) in answers {
                        match consumed.wait().unwrap().0 {
                            TokenConsumeOutcome::Proceed => &proceeded[item],
                            TokenConsumeOutcome::Replay => &replayed[item],
                            TokenConsumeOutcome::Invalid => panic!("token {item} is invalid"),
                        }
                        .fetch_add(1, Ordering::Relaxed);
                        if let Some(state) = state.wait().unwrap() {
                            assert_eq!(value(&state), item as u64);
                            taken[item].fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    if thread == 0 {
                        room.checkpoint().unwrap();
                    }
                }
            });
        }
    });
    let counts = |counts: &[AtomicUsize]| -> Vec<usize> {
        counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    };
    assert_eq!(counts(&proceeded), [1; ITEMS]);
    assert_eq!(counts(&replayed), [THREADS - 1; ITEMS]);
    assert_eq!(counts(&taken), [1; ITEMS]);

    drop(room);
    let room = small_room(&dir);
    assert_eq!(room.form_tokens().stats().wait().unwrap().consumed, ITEMS as u64);
    assert_eq!(room.handoff().stats().wait().unwrap().live, 0);
}

#[test]
fn a_claim_has_one_holder_who_alone_can_end_it() {
    const STATES: usize = 64;
    let dir = tempfile::tempdir().unwrap();
    let room = small_room(&dir);
    let handoff = room.handoff();
    for item in 0..STATES {
        drop(handoff.set(&format!("state-{item}"), &counter(0), 3_600));
    }
    // Each holder gives the state back one higher, and the one that finds it at the last value
    // keeps it.
    let last = THREADS as u64 - 1;
    let finished = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for item in 0..STATES {
                    let id = format!("state-{item}");
                    // Everybody comes until it was served once.
                    let claim = loop {
                        match handoff.claim(&id, Duration::from_secs(3_600)).wait().unwrap() {
                            Some(claim) => break claim,
                            None => thread::yield_now(),
                        }
                    };
                    assert_eq!(handoff.claim(&id, Duration::from_secs(1)).wait().unwrap(), None);
                    let next = value(&claim.state) + 1;
                    if next > last {
                        assert!(handoff.ack(&claim.id).wait().unwrap());
                        finished.fetch_add(1, Ordering::Relaxed);
                    } else {
                        // A `set` ends the claim, so the release after it must not.
                        handoff.set(&id, &counter(next), 3_600).wait().unwrap();
                    }
                    assert!(!handoff.release(&claim.id).wait().unwrap());
                }
            });
        }
    });
    assert_eq!(finished.into_inner(), STATES);
    assert_eq!(handoff.stats().wait().unwrap().live, 0);
}

/// Why a transfer was given up.
#[derive(Debug)]
enum Abandoned {
    Asked,
    Refused(Error),
}

impl From<Error> for Abandoned {
    fn from(error: Error) -> Self {
        Abandoned::Refused(error)
    }
}

#[test]
fn transfers_keep_the_total_and_leave_one_receipt_each_or_nothing() {
    const ACCOUNTS: u64 = 10;
    const TOTAL: u64 = ACCOUNTS * 1_000;
    const TRANSFERS: usize = 150;
    struct OnPurpose;

    let dir = tempfile::tempdir().unwrap();
    let room = small_room(&dir);
    for account in 0..ACCOUNTS {
        room.handoff().set(&format!("account-{account}"), &counter(1_000), 3_600).wait().unwrap();
    }
    let total = || {
        room.atomically(|tx| {
            let mut total = 0;
            for account in 0..ACCOUNTS {
                total += tx.handoff().get(&format!("account-{account}"))?.as_ref().map_or(0, value);
            }
            Ok::<_, Error>(total)
        })
        .wait()
        .unwrap()
    };
    let committed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (room, total, committed) = (&room, &total, &committed);
            scope.spawn(move || {
                for number in 0..TRANSFERS {
                    let dice = number * 31 + thread * 17;
                    let (from, to) = (dice as u64 % ACCOUNTS, (dice as u64 / 3 + 1) % ACCOUNTS);
                    let transfer = |tx: &mut cloakroom::Transaction<'_>| {
                        let amount = 1 + dice as u64 % 7;
                        // The receipt comes first, so that giving up has something to take back.
                        let receipt = format!("{thread:04x}{number:04x}");
                        tx.form_tokens().insert_form_token(record(receipt, "receipt"))?;
                        let (from, to) = (format!("account-{from}"), format!("account-{to}"));
                        let source = tx.handoff().get_and_delete(&from)?.as_ref().map_or(0, value);
                        let Some(left) = source.checked_sub(amount) else {
                            return Err(Abandoned::Asked);
                        };
                        tx.handoff().set(&from, &counter(left), 3_600)?;
                        if dice % 5 == 0 {
                            return Err(Abandoned::Asked);
                        }
                        if dice % 11 == 0 {
                            resume_unwind(Box::new(OnPurpose));
                        }
                        let target = tx.handoff().get_and_delete(&to)?.as_ref().map_or(0, value);
                        tx.handoff().set(&to, &counter(target + amount), 3_600)?;
                        Ok(())
                    };
                    match catch_unwind(AssertUnwindSafe(|| room.atomically(transfer)))
                        .map(|answer| answer.wait())
                    {
                        Ok(Ok(())) => drop(committed.fetch_add(1, Ordering::Relaxed)),
                        Ok(Err(Abandoned::Asked)) => {}
                        Ok(Err(Abandoned::Refused(error))) => panic!("{error}"),
                        Err(panic) => assert!(panic.is::<OnPurpose>()),
                    }
                    if number % 16 == 0 {
                        assert_eq!(total(), TOTAL);
                    }
                }
            });
        }
    });
    assert_eq!(total(), TOTAL);
    let committed = committed.into_inner() as u64;
    assert!(committed > 0 && committed < (THREADS * TRANSFERS) as u64);
    assert_eq!(room.form_tokens().stats().wait().unwrap().live, committed);

    room.close().unwrap();
    drop(room);
    let room = small_room(&dir);
    assert_eq!(room.form_tokens().stats().wait().unwrap().live, committed);
    let states = room.handoff().list(None, 1_000).wait().unwrap().items;
    let sum: u64 = states
        .iter()
        .map(|entry| value(&room.handoff().get(&entry.state_id).wait().unwrap().unwrap()))
        .sum();
    assert_eq!((states.len() as u64, sum), (ACCOUNTS, TOTAL));
}
