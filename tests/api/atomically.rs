//! Several stores in one transaction: together, or not at all.

use crate::rooms::{consume, insert, small, state, token};
use cloakroom::form_token::{LookupKey, TokenConsumeOutcome, TokenSubject};
use cloakroom::handoff::HandoffStateStore;
use cloakroom::{Cloakroom, Error};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// A room with the token `t` and the state `s` in it.
fn furnished() -> Cloakroom {
    let room = small().open_in_memory().unwrap();
    insert(&room.form_tokens(), "t").wait().unwrap();
    room.handoff().set("s", &state(1), 600).wait().unwrap();
    room
}

/// Everything that a transaction here may change.
fn contents(
    room: &Cloakroom,
) -> (Vec<cloakroom::form_token::Entry>, Vec<cloakroom::handoff::Entry>, u64) {
    let tokens = room.form_tokens().list(None, 100).wait().unwrap().items;
    let states = room.handoff().list(None, 100).wait().unwrap().items;
    (tokens, states, room.engine_stats().unwrap().newest_lsn)
}

/// Changes both stores in every way.
fn change_everything(tx: &mut cloakroom::Transaction<'_>) -> Result<(), Error> {
    let (key, subject) = (LookupKey::new("t"), TokenSubject::Anonymous);
    tx.form_tokens().insert_form_token(token("new"))?;
    let (outcome, _) = tx.form_tokens().consume_form_token(&key, &subject, "pay", None, 1_000)?;
    assert_eq!(outcome, TokenConsumeOutcome::Proceed);
    tx.form_tokens().set_token_result(&key, "receipt")?;
    tx.handoff().set("new", &state(2), 600)?;
    assert!(tx.handoff().get_and_delete("s")?.is_some());
    Ok(())
}

#[test]
fn both_stores_change_together_in_one_frame() {
    let room = furnished();
    let before = room.engine_stats().unwrap().newest_lsn;
    room.atomically(change_everything).wait().unwrap();
    assert_eq!(room.engine_stats().unwrap().newest_lsn, before + 1);
    assert_eq!(
        consume(&room.form_tokens(), "t").wait().unwrap(),
        (TokenConsumeOutcome::Replay, Some("receipt".to_owned()))
    );
    assert_eq!(consume(&room.form_tokens(), "new").wait().unwrap().0, TokenConsumeOutcome::Proceed);
    assert_eq!(room.handoff().get("s").wait().unwrap(), None);
    assert_eq!(room.handoff().get("new").wait().unwrap(), Some(state(2)));
}

#[test]
fn a_transaction_sees_what_it_has_done() {
    let room = furnished();
    let answer = room.atomically(|tx| {
        tx.handoff().set("s", &state(5), 600)?;
        assert_eq!(tx.handoff().get("s")?, Some(state(5)));
        let claim = tx.handoff().claim("s", Duration::from_secs(9))?.expect("it is free");
        assert_eq!(tx.handoff().get("s")?, None);
        assert!(tx.handoff().claim("s", Duration::from_secs(9))?.is_none());
        assert!(tx.handoff().release(&claim.id)?);
        assert!(!tx.handoff().ack(&claim.id)?);
        assert_eq!(tx.handoff().get_and_delete("s")?, Some(state(5)));
        assert_eq!(tx.handoff().get("s")?, None);
        tx.handoff().set("s", &state(6), 600)?;
        tx.handoff().delete("s")?;
        assert_eq!(tx.handoff().get("s")?, None);

        let mut tokens = tx.form_tokens();
        tokens.insert_form_token(token("mine"))?;
        assert!(matches!(tokens.insert_form_token(token("mine")), Err(Error::AlreadyExists)));
        let key = LookupKey::new("mine");
        let mut outcomes = Vec::new();
        for _ in 0..2 {
            outcomes
                .push(tokens.consume_form_token(&key, &TokenSubject::Anonymous, "pay", None, 1)?.0);
        }
        Ok::<_, Error>(outcomes)
    });
    assert_eq!(answer.wait().unwrap(), [TokenConsumeOutcome::Proceed, TokenConsumeOutcome::Replay]);
    assert_eq!(room.handoff().get("s").wait().unwrap(), None);
}

#[test]
fn the_answer_and_the_error_of_the_closure_come_back_in_its_own_types() {
    #[derive(Debug, PartialEq)]
    enum Own {
        NotToday,
        Room(String),
    }
    impl From<Error> for Own {
        fn from(error: Error) -> Self {
            Own::Room(error.to_string())
        }
    }
    let room = furnished();
    assert_eq!(room.atomically(|_| Ok::<_, Own>(42)).wait(), Ok(42));
    assert_eq!(room.atomically(|_| Err::<(), _>(Own::NotToday)).wait(), Err(Own::NotToday));
    room.close().unwrap();
    let closed = room.atomically(|_| Ok::<_, Own>(42)).wait().unwrap_err();
    assert_eq!(closed, Own::Room(Error::Closed.to_string()));
}

#[test]
fn an_error_leaves_nothing() {
    let room = furnished();
    let before = contents(&room);
    let answer = room.atomically(|tx| {
        change_everything(tx)?;
        Err::<(), _>(Error::Encode("on second thought".into()))
    });
    assert!(matches!(answer.wait(), Err(Error::Encode(said)) if said == "on second thought"));
    assert_eq!(contents(&room), before);
    room.atomically(change_everything).wait().unwrap();
}

#[test]
fn a_panic_leaves_nothing_and_the_room_goes_on() {
    let room = furnished();
    let before = contents(&room);
    for round in 0..3 {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            room.atomically(|tx| -> Result<(), Error> {
                change_everything(tx)?;
                panic!("round {round}")
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(contents(&room), before);
    }
    // From this thread and from others.
    room.atomically(change_everything).wait().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| insert(&room.form_tokens(), "other").wait().unwrap());
    });
    assert!(!room.engine_stats().unwrap().poisoned);
}

#[test]
fn an_operation_that_fails_leaves_the_rest_of_its_transaction() {
    let room = furnished();
    let answer = room.atomically(|tx| {
        assert!(matches!(
            tx.form_tokens().insert_form_token(token("t")),
            Err(Error::AlreadyExists)
        ));
        assert!(matches!(tx.handoff().claim("s", Duration::ZERO), Err(Error::InvalidConfig(_))));
        assert!(matches!(
            tx.handoff().set(&"x".repeat(cloakroom::limits::MAX_KEY_LEN + 1), &state(1), 1),
            Err(Error::TooLarge { .. })
        ));
        tx.handoff().set("s", &state(9), 600)
    });
    answer.wait().unwrap();
    assert_eq!(room.handoff().get("s").wait().unwrap(), Some(state(9)));
    assert_eq!(consume(&room.form_tokens(), "t").wait().unwrap().0, TokenConsumeOutcome::Proceed);
}

#[test]
fn writes_through_a_handle_inside_a_transaction_are_refused_instead_of_waiting_for_themselves() {
    let room = furnished();
    let before = contents(&room);
    let answer = room.atomically(|_| {
        let nested =
            |answer: Result<(), Error>| assert!(matches!(answer, Err(Error::NestedTransaction)));
        nested(room.atomically(|_| Ok::<(), Error>(())).wait());
        nested(room.handoff().set("s", &state(3), 600).wait());
        nested(room.handoff().get_and_delete("s").wait().map(drop));
        nested(insert(&room.form_tokens(), "other").wait());
        nested(consume(&room.form_tokens(), "t").wait().map(drop));
        nested(room.checkpoint());
        nested(room.close());
        Ok::<_, Error>(())
    });
    answer.wait().unwrap();
    assert_eq!(contents(&room), before);
    room.handoff().set("s", &state(3), 600).wait().unwrap();
}

#[test]
fn reads_through_a_handle_inside_a_transaction_see_what_was_before_it() {
    let room = furnished();
    let answer = room.atomically(|tx| {
        tx.handoff().set("s", &state(3), 600)?;
        assert_eq!(room.handoff().get("s").wait()?, Some(state(1)));
        tx.handoff().get("s")
    });
    assert_eq!(answer.wait().unwrap(), Some(state(3)));
}

#[test]
fn transactions_of_two_rooms_nest_but_not_back_into_the_first() {
    let (a, b) = (furnished(), furnished());
    let answer = a.atomically(|in_a| {
        in_a.handoff().set("s", &state(10), 600)?;
        let inner = b.atomically(|in_b| {
            in_b.handoff().set("s", &state(20), 600)?;
            let back = a.handoff().set("s", &state(30), 600).wait();
            assert!(matches!(back, Err(Error::NestedTransaction)));
            Ok::<_, Error>(())
        });
        inner.wait()?;
        let again = a.handoff().delete("s").wait();
        assert!(matches!(again, Err(Error::NestedTransaction)));
        Ok::<_, Error>(())
    });
    answer.wait().unwrap();
    assert_eq!(a.handoff().get("s").wait().unwrap(), Some(state(10)));
    assert_eq!(b.handoff().get("s").wait().unwrap(), Some(state(20)));
}

#[test]
fn others_see_nothing_before_the_end_and_everything_after() {
    let room = furnished();
    let (inside, is_inside) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    thread::scope(|scope| {
        let in_room = &room;
        let writer = scope.spawn(move || {
            in_room
                .atomically(|tx| {
                    change_everything(tx)?;
                    inside.send(()).unwrap();
                    may_go_on.recv().unwrap();
                    Ok::<_, Error>(())
                })
                .wait()
        });
        is_inside.recv().unwrap();
        // The closure stands still in the middle, and readers do not wait for it.
        assert_eq!(room.handoff().get("s").wait().unwrap(), Some(state(1)));
        assert_eq!(room.handoff().get("new").wait().unwrap(), None);
        assert_eq!(room.form_tokens().list(None, 10).wait().unwrap().items.len(), 1);
        go_on.send(()).unwrap();
        writer.join().unwrap().unwrap();
    });
    assert_eq!(room.handoff().get("s").wait().unwrap(), None);
    assert_eq!(room.handoff().get("new").wait().unwrap(), Some(state(2)));
    assert_eq!(room.form_tokens().list(None, 10).wait().unwrap().items.len(), 2);
}

#[test]
fn a_read_never_sees_half_of_a_transaction() {
    let room = small().open_in_memory().unwrap();
    // So many rows that a reader often comes while they are made visible.
    let ids: Vec<String> = (0..150).map(|number| format!("s{number}")).collect();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 1..=300 {
                let write = |tx: &mut cloakroom::Transaction<'_>| {
                    ids.iter().try_for_each(|id| tx.handoff().set(id, &state(round), 600 + round))
                };
                drop(room.atomically::<_, Error>(write));
                if round % 100 == 0 {
                    room.checkpoint().unwrap();
                }
            }
        });
        while !writer.is_finished() {
            let page = room.handoff().list(None, 200).wait().unwrap().items;
            let ends: Vec<u64> = page.iter().map(|entry| entry.expires_at_ms).collect();
            assert!(ends.is_empty() || ends.len() == ids.len(), "{ends:?}");
            assert!(ends.windows(2).all(|pair| pair[0] == pair[1]), "{ends:?}");
        }
        writer.join().unwrap();
    });
}

#[test]
fn a_transaction_without_writes_takes_no_place_in_the_log() {
    let room = furnished();
    let before = room.engine_stats().unwrap();
    let seen = room.atomically(|tx| tx.handoff().get("s")).wait().unwrap();
    assert_eq!(seen, Some(state(1)));
    assert_eq!(room.engine_stats().unwrap().newest_lsn, before.newest_lsn);
}

#[cfg(feature = "testing")]
mod on_a_simulated_disk {
    use super::*;
    use cloakroom::testing::{CallKind, Fault, SimStorage};
    use std::sync::Arc;

    #[test]
    fn an_error_that_depends_on_undurable_rows_waits_for_the_flush() {
        let sim = SimStorage::new(3);
        let room = small().without_threads().open_on(Arc::new(sim.clone())).unwrap();
        let first = insert(&room.form_tokens(), "t");
        sim.fail_call(CallKind::DurableWrite, 0, Fault::Eio);
        // "It exists" would be wrong after a crash now, and so would be the closure's own
        // conclusion from it.
        let second = insert(&room.form_tokens(), "t");
        let concluded = room.atomically(|tx| {
            assert!(matches!(
                tx.form_tokens().insert_form_token(token("t")),
                Err(Error::AlreadyExists)
            ));
            Err::<(), _>(Error::Encode("it exists".into()))
        });
        assert!(!second.is_ready() && !concluded.is_ready());
        assert!(matches!(second.wait(), Err(Error::OutcomeUnknown { .. })));
        assert!(matches!(concluded.wait(), Err(Error::OutcomeUnknown { .. })));
        assert!(matches!(first.wait(), Err(Error::OutcomeUnknown { .. })));
    }

    #[test]
    fn an_error_that_depends_on_durable_rows_answers_without_a_flush() {
        let sim = SimStorage::new(3);
        let room = small().without_threads().open_on(Arc::new(sim.clone())).unwrap();
        insert(&room.form_tokens(), "t").wait().unwrap();
        let events = sim.events();
        let second = insert(&room.form_tokens(), "t");
        assert!(second.is_ready());
        assert!(matches!(second.wait(), Err(Error::AlreadyExists)));
        assert_eq!(sim.events(), events);
    }

    #[test]
    fn a_crash_keeps_a_transaction_whole_or_not_at_all() {
        let whole = |seed| {
            let sim = SimStorage::new(seed);
            let room = small().without_threads().open_on(Arc::new(sim.clone())).unwrap();
            insert(&room.form_tokens(), "t").wait().unwrap();
            room.handoff().set("s", &state(1), 600).wait().unwrap();
            sim.stop_after(sim.events());
            assert!(room.atomically(change_everything).wait().is_err());
            let image = SimStorage::from_image(sim.crash_image(seed), seed);
            let room = small().without_threads().open_on(Arc::new(image)).unwrap();
            let consumed = room.form_tokens().stats().wait().unwrap().consumed;
            let new = room.handoff().get("new").wait().unwrap();
            let taken = room.handoff().get("s").wait().unwrap().is_none();
            let inserted = room.form_tokens().list(None, 9).wait().unwrap().items.len() == 2;
            assert_eq!(
                (consumed, new.is_some(), inserted),
                (u64::from(taken), taken, taken),
                "seed {seed}"
            );
            // The rows that are derived came with them.
            let findings = room.verify().unwrap().findings;
            assert!(findings.is_empty(), "seed {seed}: {findings:?}");
            taken
        };
        let kept = (0..24).filter(|seed| whole(*seed)).count();
        // Both ends occur, or the test looks at nothing.
        assert!(kept > 0 && kept < 24, "{kept}");
    }
}
