//! The answer of a call: ways to wait for it, and not to.

use crate::rooms::{Wakes, block_on, consume, insert, small, state, until};
use cloakroom::form_token::{FormTokenStore, TokenConsumeOutcome};
use cloakroom::handoff::HandoffStateStore;
use cloakroom::{Cloakroom, Error, Pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;

/// A room in a file, so that a flush takes a moment, with tokens `0..tokens` in it.
fn room_with(tokens: usize) -> (Cloakroom, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let room = small().open(dir.path().join("edge.cloak")).unwrap();
    let pending: Vec<_> =
        (0..tokens).map(|number| insert(&room.form_tokens(), &format!("{number:06x}"))).collect();
    pending.into_iter().for_each(|pending| pending.wait().unwrap());
    (room, dir)
}

fn poll<T, E>(pending: &mut Pending<T, E>, waker: &Waker) -> Poll<Result<T, E>> {
    Pin::new(pending).poll(&mut Context::from_waker(waker))
}

#[test]
fn an_answer_can_be_sent_moved_and_kept() {
    fn anywhere<T: Send + Unpin + 'static>() {}
    anywhere::<Pending<()>>();
    anywhere::<Pending<Option<cloakroom::handoff::JsonObject>>>();
    anywhere::<Pending<String, Box<dyn std::error::Error + Send + Sync>>>();

    fn shared<T: Send + Sync + Clone + 'static>() {}
    shared::<Cloakroom>();
    shared::<cloakroom::form_token::FormTokens>();
    shared::<cloakroom::handoff::Handoff>();
    shared::<Arc<dyn FormTokenStore>>();
    shared::<Arc<dyn HandoffStateStore>>();
}

#[test]
fn an_answer_outlives_the_handles_and_the_thread_that_asked() {
    let (room, _dir) = room_with(1);
    let store: Arc<dyn FormTokenStore> = Arc::new(room.form_tokens());
    drop(room);
    let pending = thread::spawn(move || consume(&store, "000000")).join().unwrap();
    assert_eq!(pending.wait().unwrap().0, TokenConsumeOutcome::Proceed);
}

#[test]
fn waiting_and_awaiting_give_the_same_answer() {
    let (room, _dir) = room_with(2);
    let tokens = room.form_tokens();
    let proceed = (TokenConsumeOutcome::Proceed, None);
    assert_eq!(consume(&tokens, "000000").wait().unwrap(), proceed);
    assert_eq!(block_on(consume(&tokens, "000001")).unwrap(), proceed);
    let both = block_on(async {
        let set = room.handoff().set("s", &state(1), 600);
        set.await?;
        room.handoff().get_and_delete("s").await
    });
    assert_eq!(both.unwrap(), Some(state(1)));
    assert!(matches!(block_on(insert(&tokens, "000000")), Err(Error::AlreadyExists)));
    assert_eq!(room.engine_stats().unwrap().durable_lsn, room.engine_stats().unwrap().newest_lsn);
}

#[test]
fn many_tasks_and_threads_wait_at_once_and_everybody_is_answered() {
    let (room, _dir) = room_with(800);
    let tokens = room.form_tokens();
    thread::scope(|scope| {
        for worker in 0..8 {
            let tokens = &tokens;
            scope.spawn(move || {
                for number in (worker..800).step_by(8) {
                    let pending = consume(tokens, &format!("{number:06x}"));
                    let answer = if worker % 2 == 0 { pending.wait() } else { block_on(pending) };
                    assert_eq!(answer.unwrap().0, TokenConsumeOutcome::Proceed);
                }
            });
        }
    });
    assert_eq!(tokens.stats().wait().unwrap().consumed, 800);
}

#[test]
fn an_answer_can_be_polled_often_and_by_changing_tasks() {
    let (room, _dir) = room_with(1);
    let mut pending = consume(&room.form_tokens(), "000000");
    let (first, second) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
    let wakers = [Waker::from(first.clone()), Waker::from(second.clone())];
    let mut answer = poll(&mut pending, &wakers[0]);
    for _ in 0..3 {
        if answer.is_pending() {
            answer = poll(&mut pending, &wakers[1]);
        }
    }
    until("the answer", || {
        if answer.is_pending() && second.count() > 0 {
            // The woken task gets the answer at its next poll.
            answer = poll(&mut pending, &wakers[1]);
            assert!(answer.is_ready());
        }
        answer.is_ready()
    });
    assert!(matches!(answer, Poll::Ready(Ok((TokenConsumeOutcome::Proceed, None)))));
    assert!(second.count() <= 1, "a task is woken once");
}

#[test]
fn polling_again_after_the_answer_panics() {
    let (room, _dir) = room_with(0);
    let mut pending = room.handoff().get("absent");
    assert!(pending.is_ready());
    let waker = Waker::noop();
    assert!(matches!(poll(&mut pending, waker), Poll::Ready(Ok(None))));
    assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut pending, waker))).is_err());
}

#[test]
fn a_dropped_answer_does_not_undo_the_change_and_it_becomes_durable_by_itself() {
    let (room, _dir) = room_with(1);
    let before = room.engine_stats().unwrap();
    drop(consume(&room.form_tokens(), "000000"));
    let newest = room.engine_stats().unwrap().newest_lsn;
    assert_eq!(newest, before.newest_lsn + 1);
    until("the dropped write is durable", || room.engine_stats().unwrap().durable_lsn >= newest);
    assert_eq!(
        consume(&room.form_tokens(), "000000").wait().unwrap().0,
        TokenConsumeOutcome::Replay
    );
}

#[test]
fn an_answer_dropped_after_a_poll_is_forgotten_and_the_others_are_answered() {
    let (room, _dir) = room_with(3);
    let tokens = room.form_tokens();
    let wakes = Arc::new(Wakes::default());
    let mut dropped = consume(&tokens, "000000");
    let _ = poll(&mut dropped, &Waker::from(wakes));
    let kept = consume(&tokens, "000001");
    drop(dropped);
    assert_eq!(kept.wait().unwrap().0, TokenConsumeOutcome::Proceed);
    assert_eq!(block_on(consume(&tokens, "000002")).unwrap().0, TokenConsumeOutcome::Proceed);
    assert_eq!(tokens.stats().wait().unwrap().consumed, 3);
}

#[test]
fn a_thousand_consumes_in_flight_share_a_few_flushes() {
    let (room, _dir) = room_with(1_000);
    let tokens = room.form_tokens();
    for awaited in [false, true] {
        let before = room.engine_stats().unwrap().flushes;
        let pending: Vec<_> =
            (0..1_000).map(|number| consume(&tokens, &format!("{number:06x}"))).collect();
        for pending in pending {
            let _ = if awaited { block_on(pending) } else { pending.wait() }.unwrap();
        }
        let flushes = room.engine_stats().unwrap().flushes - before;
        assert!(flushes <= 100, "{flushes} flushes");
    }
}

#[test]
fn each_call_sees_the_calls_before_it_without_waiting() {
    let (room, _dir) = room_with(1);
    let (tokens, handoff) = (room.form_tokens(), room.handoff());
    let consumes = [consume(&tokens, "000000"), consume(&tokens, "000000")];
    let result =
        tokens.set_token_result(&cloakroom::form_token::LookupKey::new("000000"), "receipt");
    let third = consume(&tokens, "000000");
    let set = handoff.set("s", &state(1), 600);
    let (first_take, second_take) = (handoff.get_and_delete("s"), handoff.get_and_delete("s"));
    // Waited for in another order than called.
    assert_eq!(second_take.wait().unwrap(), None);
    assert_eq!(third.wait().unwrap(), (TokenConsumeOutcome::Replay, Some("receipt".to_owned())));
    assert_eq!(first_take.wait().unwrap(), Some(state(1)));
    let outcomes = consumes.map(|consume| consume.wait().unwrap().0);
    assert_eq!(outcomes, [TokenConsumeOutcome::Proceed, TokenConsumeOutcome::Replay]);
    set.wait().unwrap();
    result.wait().unwrap();
}

#[test]
fn answers_from_before_a_close_are_good_and_calls_after_it_are_refused() {
    let (room, _dir) = room_with(4);
    let (tokens, handoff) = (room.form_tokens(), room.handoff());
    let waited = consume(&tokens, "000000");
    let awaited = consume(&tokens, "000001");
    let mut polled = consume(&tokens, "000002");
    let wakes = Arc::new(Wakes::default());
    let early = poll(&mut polled, &Waker::from(wakes.clone()));
    room.close().unwrap();

    assert_eq!(waited.wait().unwrap().0, TokenConsumeOutcome::Proceed);
    assert_eq!(block_on(awaited).unwrap().0, TokenConsumeOutcome::Proceed);
    if early.is_pending() {
        assert_eq!(wakes.count(), 1);
        assert_eq!(block_on(polled).unwrap().0, TokenConsumeOutcome::Proceed);
    }

    let closed =
        |answer: Result<(), Error>| assert!(matches!(answer, Err(Error::Closed)), "{answer:?}");
    closed(consume(&tokens, "000003").wait().map(drop));
    closed(insert(&tokens, "new").wait());
    closed(
        tokens.set_token_result(&cloakroom::form_token::LookupKey::new("000000"), "late").wait(),
    );
    closed(tokens.list(None, 1).wait().map(drop));
    closed(tokens.stats().wait().map(drop));
    closed(handoff.set("s", &state(1), 1).wait());
    closed(block_on(handoff.get("s")).map(drop));
    closed(handoff.get_and_delete("s").wait().map(drop));
    closed(handoff.delete("s").wait());
    closed(handoff.claim("s", std::time::Duration::from_secs(1)).wait().map(drop));
    closed(room.atomically(|_| Ok(())).wait());
    closed(room.checkpoint());
    closed(room.engine_stats().map(drop));
}

#[test]
fn closing_twice_is_fine_in_turn_and_at_once() {
    let (room, dir) = room_with(1);
    let pending = consume(&room.form_tokens(), "000000");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                room.close().unwrap();
                // Whichever closer this was, the file is closed when its call returns.
                assert!(matches!(room.engine_stats(), Err(Error::Closed)));
            });
        }
    });
    room.close().unwrap();
    assert_eq!(pending.wait().unwrap().0, TokenConsumeOutcome::Proceed);
    let room = small().open(dir.path().join("edge.cloak")).unwrap();
    assert_eq!(
        consume(&room.form_tokens(), "000000").wait().unwrap().0,
        TokenConsumeOutcome::Replay
    );
}

#[test]
fn dropping_the_last_handle_makes_all_calls_durable() {
    let (room, dir) = room_with(1);
    let pending = consume(&room.form_tokens(), "000000");
    drop(consume(&room.form_tokens(), "000000"));
    drop(room);
    let image = dir.path().join("after the drop.cloak");
    std::fs::copy(dir.path().join("edge.cloak"), &image).unwrap();
    assert!(pending.is_ready());
    assert_eq!(pending.wait().unwrap().0, TokenConsumeOutcome::Proceed);
    let room = small().open(image).unwrap();
    assert_eq!(room.form_tokens().stats().wait().unwrap().consumed, 1);
}

#[cfg(feature = "testing")]
mod on_a_disk_that_is_slow_to_close {
    use super::*;
    use cloakroom::testing::{SimStorage, Storage, StorageView};
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[derive(Debug, Clone)]
    struct SlowToClose {
        inner: SimStorage,
        begun: Arc<AtomicBool>,
        closed: Arc<AtomicBool>,
    }

    impl Storage for SlowToClose {
        fn len(&self) -> io::Result<u64> {
            self.inner.len()
        }

        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            self.inner.read_at(offset, buf)
        }

        fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.inner.write_at(offset, data)
        }

        fn write_at_durable(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.inner.write_at_durable(offset, data)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.inner.sync_data()
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.inner.set_len(len)
        }

        fn view(&self, offset: u64, len: usize) -> io::Result<StorageView> {
            self.inner.view(offset, len)
        }

        fn close(&self) {
            self.begun.store(true, Ordering::SeqCst);
            // Time enough for a second closer that does not wait to be done first.
            for _ in 0..20_000 {
                thread::yield_now();
            }
            self.closed.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn every_closer_returns_to_a_closed_file() {
        let disk = SlowToClose {
            inner: SimStorage::new(1),
            begun: Arc::default(),
            closed: Arc::default(),
        };
        let room = small().without_threads().open_on(Arc::new(disk.clone())).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| room.close().unwrap());
            until("the first closer is at it", || disk.begun.load(Ordering::SeqCst));
            room.close().unwrap();
            assert!(
                disk.closed.load(Ordering::SeqCst),
                "the second closer did not wait for the first"
            );
        });
    }
}

#[test]
fn a_driver_answers_later_from_any_thread() {
    let (answer, pending) = Pending::<u32>::channel();
    assert!(answer.is_wanted() && !pending.is_ready());
    let driver = thread::spawn(move || {
        thread::sleep(std::time::Duration::from_millis(20));
        answer.send(Ok(7));
    });
    assert_eq!(pending.wait().unwrap(), 7);
    driver.join().unwrap();

    let (answer, pending) = Pending::<u32>::channel();
    let driver = thread::spawn(move || answer.send(Err(Error::AlreadyExists)));
    assert!(matches!(block_on(pending), Err(Error::AlreadyExists)));
    driver.join().unwrap();

    let (answer, pending) = Pending::<u32>::channel();
    answer.send(Ok(8));
    assert!(pending.is_ready());
    assert_eq!(block_on(pending).unwrap(), 8);
}

#[test]
fn the_task_that_polled_last_is_woken_once_and_no_other() {
    let (first, last) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
    let (answer, mut pending) = Pending::<u32>::channel();
    for wakes in [&first, &first, &last, &last] {
        assert!(poll(&mut pending, &Waker::from(Arc::clone(wakes))).is_pending());
    }
    answer.send(Ok(7));
    assert_eq!([first.count(), last.count()], [0, 1]);
    assert!(pending.is_ready());
    assert!(matches!(poll(&mut pending, &Waker::from(first)), Poll::Ready(Ok(7))));
    // A waker whose task is gone is not kept, and neither end keeps the other.
    let (answer, mut pending) = Pending::<u32>::channel();
    assert!(poll(&mut pending, &Waker::from(Arc::clone(&last))).is_pending());
    assert_eq!(Arc::strong_count(&last), 2);
    drop(pending);
    assert_eq!(Arc::strong_count(&last), 1);
    assert!(!answer.is_wanted());
    answer.send(Ok(7));
    assert_eq!(last.count(), 1);
}

#[test]
fn an_answer_that_is_dropped_is_an_error_and_never_a_hang() {
    let unanswered = |answer| assert!(matches!(answer, Err(Error::Unanswered)), "{answer:?}");
    let (answer, pending) = Pending::<u32>::channel();
    drop(answer);
    unanswered(pending.wait());

    let (answer, pending) = Pending::<u32>::channel();
    let driver = thread::spawn(move || {
        let _answer = answer;
        panic!("as planned");
    });
    unanswered(pending.wait());
    assert!(driver.join().is_err());

    let wakes = Arc::new(Wakes::default());
    let (answer, mut pending) = Pending::<u32>::channel();
    assert!(poll(&mut pending, &Waker::from(Arc::clone(&wakes))).is_pending());
    drop(answer);
    assert_eq!(wakes.count(), 1);
    unanswered(block_on(pending));

    use cloakroom::state::StateError;
    let (answer, pending) = Pending::<u32, StateError>::channel();
    drop(answer);
    assert!(matches!(pending.wait(), Err(StateError::Store(Error::Unanswered))));
}

#[test]
fn an_answer_can_be_changed_whatever_it_waits_for() {
    let (room, _dir) = room_with(2);
    let tokens = room.form_tokens();
    let outcome = |key| consume(&tokens, key).map(|(outcome, _)| outcome);
    assert_eq!(outcome("000000").wait().unwrap(), TokenConsumeOutcome::Proceed);
    assert_eq!(block_on(outcome("000001")).unwrap(), TokenConsumeOutcome::Proceed);
    assert_eq!(Pending::<u32>::ready(Ok(7)).map(|seven| seven + 1).wait().unwrap(), 8);

    let (answer, pending) = Pending::<u32>::channel();
    let mut changed = pending.map(|number| number + 1).then(|number| match number {
        Ok(8) => Err("eight"),
        other => other.map_err(|_| "an error"),
    });
    let wakes = Arc::new(Wakes::default());
    assert!(poll(&mut changed, &Waker::from(Arc::clone(&wakes))).is_pending());
    assert!(!changed.is_ready());
    answer.send(Ok(7));
    assert_eq!(wakes.count(), 1);
    assert!(changed.is_ready());
    assert_eq!(block_on(changed), Err("eight"));

    // A change whose `Pending` was dropped is not made, and what it holds is dropped.
    let held = Arc::new(());
    let (answer, pending) = Pending::<u32>::channel();
    let kept = Arc::clone(&held);
    drop(pending.map(move |_| drop(kept)));
    assert_eq!(Arc::strong_count(&held), 1);
    assert!(!answer.is_wanted());
}
