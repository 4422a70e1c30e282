//! The views of handles in a transaction have the handles' options, and only those of the same
//! room.

use crate::rooms::{NOW_MS, block_on, insert, state, token, until};
use cloakroom::adaptive_rate_limit::{AdaptiveConfig, AdaptiveRateLimitStore, Priority};
use cloakroom::cache::CacheStore;
use cloakroom::dedupe::DedupeStore;
use cloakroom::form_token::{LookupKey, TokenConsumeOutcome, TokenSubject};
use cloakroom::handoff::HandoffStateStore;
use cloakroom::rate_limit::{RateLimitConfig, RateLimitStore};
use cloakroom::state::{Identity, StateError, StateStore};
use cloakroom::{Cloakroom, Error, ManualClock};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

fn room() -> (Cloakroom, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(NOW_MS));
    let builder = Cloakroom::builder().clock(clock.clone()).sweep_interval(None);
    (builder.open_in_memory().unwrap(), clock)
}

#[test]
fn a_bounded_cache_stays_bounded() {
    let (room, _) = room();
    let pages = room.cache::<u64>("http").with_max_entries(2);
    let done = room.atomically(|tx| {
        (0..5).try_for_each(|number| pages.within(tx).set(&number.to_string(), &number, 0))
    });
    done.wait().unwrap();
    assert_eq!(pages.stats().wait().unwrap().live, 2);
    let small = room.cache::<String>("http").with_max_entry_bytes(4);
    room.atomically(|tx| small.within(tx).set("long", &"12345".into(), 0)).wait().unwrap();
    assert_eq!(small.get("long").wait().unwrap(), None);
    assert_eq!(small.stats().wait().unwrap().oversized, 1);
}

#[test]
fn graces_maxima_and_timeouts_follow() {
    let (room, clock) = room();
    let tokens = room.form_tokens().with_replay_grace(Duration::from_secs(5));
    insert(&tokens, "00").wait().unwrap();
    let (key, subject) = (LookupKey::new("00"), TokenSubject::Anonymous);
    let consume = |now| {
        room.atomically(|tx| tokens.within(tx).consume_form_token(&key, &subject, "pay", None, now))
            .wait()
            .unwrap()
            .0
    };
    let end = token("00").expires_at;
    assert_eq!(consume(end - 1), TokenConsumeOutcome::Proceed);
    assert_eq!(consume(end + 4), TokenConsumeOutcome::Replay);
    assert_eq!(consume(end + 5), TokenConsumeOutcome::Invalid);

    let small = room.handoff().with_max_state_bytes(2);
    let answer = room.atomically(|tx| small.within(tx).set("s", &state(1), 60)).wait();
    assert!(matches!(answer, Err(Error::TooLarge { limit: 2, .. })), "{answer:?}");

    let jobs = room.dedupe::<u8>("d").with_job_timeout(Duration::from_secs(7));
    room.atomically(|tx| jobs.within(tx).register("h")).wait().unwrap();
    clock.advance(Duration::from_millis(6_999));
    assert!(jobs.is_in_progress("h").wait().unwrap());
    clock.advance(Duration::from_millis(1));
    assert!(!jobs.is_in_progress("h").wait().unwrap());

    let config = RateLimitConfig { limit: 1, window: Duration::from_secs(60) };
    let limiter = room.rate_limit("r", config).unwrap();
    let acquire = || room.atomically(|tx| limiter.within(tx).acquire("x")).wait().unwrap();
    assert_eq!([acquire(), acquire()], [true, false]);
    assert!(!limiter.acquire("x").wait().unwrap());
    let adaptive = room.adaptive_rate_limit("a", config, AdaptiveConfig::default()).unwrap();
    let status = room.atomically(|tx| adaptive.within(tx).status("x")).wait().unwrap();
    assert_eq!(status.limit, 1);
    let user = Priority::User;
    assert!(room.atomically(|tx| adaptive.within(tx).acquire("x", user)).wait().unwrap());
    assert!(!adaptive.acquire("x", user).wait().unwrap());
}

#[test]
fn a_handle_of_another_room_is_refused_and_the_transaction_goes_on() {
    let ((room, _), (other, _)) = (room(), room());
    let foreign = |answer: Result<(), Error>| {
        assert!(matches!(answer, Err(Error::ForeignTransaction)), "{answer:?}");
    };
    let config = RateLimitConfig::default();
    let done = room.atomically(|tx| {
        let tokens = other.form_tokens();
        foreign(tokens.within(tx).insert_form_token(token("00")));
        foreign(other.handoff().within(tx).set("s", &state(1), 60));
        foreign(other.handoff().within(tx).get("s").map(drop));
        foreign(other.cache::<u8>("c").within(tx).set("h", &1, 0));
        foreign(other.cache::<u8>("c").within(tx).clear(None));
        foreign(other.dedupe::<u8>("d").within(tx).register("h").map(drop));
        foreign(other.rate_limit("r", config)?.within(tx).set_cooldown("o", 9));
        let adaptive = other.adaptive_rate_limit("a", config, AdaptiveConfig::default())?;
        foreign(adaptive.within(tx).clear());
        let identity = Identity::new("t", "u", "s", "");
        let answer = other.state().within(tx).delete(&identity, "k");
        let is_foreign = matches!(answer, Err(StateError::Store(Error::ForeignTransaction)));
        assert!(is_foreign, "{answer:?}");
        room.handoff().within(tx).set("s", &state(2), 60)
    });
    done.wait().unwrap();
    assert_eq!(room.handoff().get("s").wait().unwrap(), Some(state(2)));
    assert_eq!(other.handoff().get("s").wait().unwrap(), None);

    let closed = room.state();
    closed.close().wait().unwrap();
    let answer =
        room.atomically(|tx| closed.within(tx).list_kind_bounded(Default::default(), "k", 1));
    assert!(matches!(answer.wait(), Err(StateError::StoreClosed)));
}

#[test]
fn a_guard_works_in_and_around_transactions() {
    use cloakroom::dedupe::Job;
    let (room, _) = room();
    let jobs = room.dedupe::<u64>("d");
    let job = room.atomically(|tx| jobs.within(tx).own_or_join("h")).wait().unwrap();
    let Job::Owner(guard) = job else { panic!("no one else owns it") };
    let Job::Joiner(waiting) =
        room.atomically(|tx| tx.dedupe::<u64>("d").own_or_join("h")).wait().unwrap()
    else {
        panic!("it has an owner")
    };
    let Job::Joiner(mut task) =
        room.atomically(|tx| jobs.within(tx).own_or_join("h")).wait().unwrap()
    else {
        panic!("it has an owner")
    };
    let mut context = Context::from_waker(Waker::noop());
    assert!(!task.is_ready());
    assert!(Pin::new(&mut task).poll(&mut context).is_pending() && !task.is_ready());
    let job_id = guard.job_id();
    room.atomically(|tx| jobs.within(tx).complete_owned("h", &job_id, &7)).wait().unwrap();
    drop(guard);
    assert_eq!(waiting.wait().unwrap(), Some(7));
    until("its answer is durable", || task.is_ready());
    assert_eq!(block_on(task).unwrap(), Some(7));
    assert_eq!(jobs.wait_for("h").wait().unwrap(), Some(7), "the guard changed a job that is over");

    // A transaction that is not kept leaves no job, and its guard nothing to fail.
    let lost = room.atomically(|tx| -> Result<(), Error> {
        drop(jobs.within(tx).own_or_join("lost")?);
        Err(Error::AlreadyExists)
    });
    assert!(matches!(lost.wait(), Err(Error::AlreadyExists)));
    assert!(!jobs.is_in_progress("lost").wait().unwrap());

    // A guard that is dropped inside a transaction fails its job as soon as that has ended.
    let Job::Owner(guard) = jobs.own_or_join("inside").wait().unwrap() else { panic!("it is new") };
    let waiting = jobs.wait_for("inside");
    room.atomically(|_| -> Result<(), Error> {
        drop(guard);
        Ok(())
    })
    .wait()
    .unwrap();
    assert_eq!(waiting.wait().unwrap(), None);

    // In a closed room a guard is harmless, and so is a value that cannot be stored.
    let floats = room.dedupe::<f64>("f");
    let Job::Owner(guard) = floats.own_or_join("h").wait().unwrap() else { panic!("it is new") };
    let waiting = floats.wait_for("h");
    let answer = guard.complete(&f64::NAN).wait();
    assert!(matches!(answer, Err(Error::Encode(_))), "{answer:?}");
    assert_eq!(waiting.wait().unwrap(), None, "a job that cannot be completed must fail");
    let Job::Owner(guard) = jobs.own_or_join("last").wait().unwrap() else { panic!("it is new") };
    room.close().unwrap();
    drop(guard);
    assert!(matches!(jobs.own_or_join("last").wait(), Err(Error::Closed)));
}

#[test]
fn listings_say_when_values_and_jobs_were_made() {
    let (room, clock) = room();
    let cache = room.cache::<u8>("c");
    cache.set("old", &1, 0).wait().unwrap();
    let jobs = room.dedupe::<u8>("d");
    jobs.register("old").wait().unwrap();
    clock.advance(Duration::from_secs(5));
    cache.set("new", &1, 60).wait().unwrap();
    jobs.complete("old", &1).wait().unwrap();
    jobs.register("new").wait().unwrap();
    let stored = cache.list(None, 9).wait().unwrap().items;
    let stored: Vec<_> = stored.iter().map(|entry| (&*entry.hash, entry.created_at_ms)).collect();
    assert_eq!(stored, [("new", NOW_MS + 5_000), ("old", NOW_MS)]);
    let listed = jobs.list(None, 9).wait().unwrap().items;
    let listed: Vec<_> = listed.iter().map(|job| (&*job.hash, job.created_at_ms)).collect();
    assert_eq!(listed, [("new", NOW_MS + 5_000), ("old", NOW_MS)]);
}

#[test]
fn a_fence_in_a_transaction_sees_what_it_did() {
    use cloakroom::state::{SlotExpectation, StateRecord};
    let (room, _) = room();
    let whose = Identity::new("t", "u", "s", "");
    let record = StateRecord::new(whose.clone(), "lease", *b"x");
    let mine = SlotExpectation::current(whose, "lease", record.id.clone());
    let ran = room.atomically(|tx| {
        tx.state().save(record.clone())?;
        let mut ran = 0;
        tx.state().fence_if(&mine, || -> Result<(), StateError> {
            ran += 1;
            Ok(())
        })?;
        Ok::<_, StateError>(ran)
    });
    assert_eq!(ran.wait().unwrap(), 1);
    let nested = room.state().fence_if(&mine, || {
        room.handoff().set("s", &state(1), 60).wait()?;
        Ok::<_, Error>(())
    });
    assert!(matches!(nested.wait(), Err(Error::NestedTransaction)));
}

#[cfg(feature = "testing")]
#[test]
fn a_durable_handle_makes_the_transaction_durable() {
    use cloakroom::Durability;
    use cloakroom::testing::SimStorage;
    let sim = SimStorage::new(5);
    let builder = crate::rooms::small().without_threads().durability(Durability::Os);
    let room = builder.open_on(Arc::new(sim.clone())).unwrap();
    let set = |durability: Option<Durability>| {
        let before = sim.syncs() + sim.durable_writes();
        let states = room.handoff().with_durability(durability.unwrap_or(Durability::Os));
        room.atomically(|tx| states.within(tx).set("s", &state(1), 60)).wait().unwrap();
        sim.syncs() + sim.durable_writes() > before
    };
    assert!(!set(None));
    assert!(set(Some(Durability::Sync)));
    assert!(!set(Some(Durability::Interval(Duration::from_secs(3_600)))));
}
