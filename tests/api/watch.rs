//! The change feed: exactly the committed changes, in order, when they are durable, and a clear
//! word to slow watchers.

use crate::rooms::{NOW_MS, Wakes, block_on, consume, insert, small, state, token, until};
use cloakroom::cache::CacheStore;
use cloakroom::dedupe::DedupeStore;
use cloakroom::form_token::{FormTokenStore, LookupKey};
use cloakroom::handoff::HandoffStateStore;
use cloakroom::rate_limit::{RateLimitConfig, RateLimitStore};
use cloakroom::state::{Identity, StateRecord, StateStore};
use cloakroom::stats::StoreKind;
use cloakroom::testing::{CallKind, Fault, SimStorage};
use cloakroom::watch::{Change, ChangeKind, Filter, Watch, WatchError};
use cloakroom::{Cloakroom, Durability, Error, ManualClock};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

fn room() -> Cloakroom {
    small().without_threads().open_in_memory().unwrap()
}

/// Everything that is durable now.
fn drain(watch: &mut Watch) -> Vec<Change> {
    std::iter::from_fn(|| watch.try_recv().unwrap()).collect()
}

/// The changes as (store, name, key, what happened).
fn told(changes: &[Change]) -> Vec<(StoreKind, &str, &str, ChangeKind)> {
    let name = |change: &Change| change.name.is_some();
    changes
        .iter()
        .map(|change| {
            let named = if name(change) { change.name.as_deref().unwrap() } else { "" };
            (change.store, named, change.key.as_str(), change.kind)
        })
        .collect()
}

fn set(room: &Cloakroom, id: &str) {
    room.handoff().set(id, &state(1), 600).wait().unwrap();
}

fn record(tenant: &str, kind: &str) -> StateRecord {
    StateRecord::new(Identity::new(tenant, "u", "s", "r"), kind, b"{}".to_vec())
}

#[test]
fn every_store_reports_each_change_with_its_entry() {
    use ChangeKind::{
        Claimed, Cleared, Configured, Consumed, Paused, Put, Released, Removed, ResultSet, Resumed,
    };
    let room = room();
    let mut watch = room.watch(Filter::all()).unwrap();
    let mut expected = Vec::new();

    let tokens = room.form_tokens();
    insert(&tokens, "00ff").wait().unwrap();
    consume(&tokens, "00ff").wait().unwrap();
    consume(&tokens, "00ff").wait().unwrap();
    tokens.set_token_result(&LookupKey::new("00ff"), "r").wait().unwrap();
    expected
        .extend([Put, Consumed, ResultSet].map(|kind| (StoreKind::FORM_TOKENS, "", "00ff", kind)));

    let handoff = room.handoff();
    set(&room, "s");
    let claim = handoff.claim("s", Duration::from_secs(9)).wait().unwrap().unwrap();
    handoff.release(&claim.id).wait().unwrap();
    let claim = handoff.claim("s", Duration::from_secs(9)).wait().unwrap().unwrap();
    handoff.ack(&claim.id).wait().unwrap();
    let kinds = [Put, Claimed, Released, Claimed, Removed];
    expected.extend(kinds.map(|kind| (StoreKind::HANDOFF, "", "s", kind)));

    let cache = room.cache::<u64>("pages").with_durability(Durability::Sync);
    cache.set_with_tags("h", &1, 60, &["t", "u"]).wait().unwrap();
    cache.get("h").wait().unwrap();
    cache.invalidate_by_tag("t").wait().unwrap();
    expected.extend([Put, Removed].map(|kind| (StoreKind::CACHE, "pages", "h", kind)));

    let jobs = room.dedupe::<u64>("http").with_durability(Durability::Sync);
    jobs.register("j").wait().unwrap();
    jobs.complete("j", &1).wait().unwrap();
    jobs.clear(None).wait().unwrap();
    expected.extend([Put, Put, Removed].map(|kind| (StoreKind::DEDUPE, "http", "j", kind)));

    let config = RateLimitConfig { limit: 5, window: Duration::from_secs(60) };
    let limits = room.rate_limit("api", config).unwrap().with_durability(Durability::Sync);
    limits.record("r").wait().unwrap();
    limits.set_resource_config("r", config).wait().unwrap();
    limits.set_cooldown("o", NOW_MS + 60_000).wait().unwrap();
    limits.clear_cooldown("o").wait().unwrap();
    limits.clear().wait().unwrap();
    let limiter = |key, kind| (StoreKind::RATE_LIMIT, "api", key, kind);
    // That the window takes over its new configuration is no change of its own.
    expected.extend([limiter("r", Put), limiter("r", Configured), limiter("o", Paused)]);
    expected.extend([limiter("o", Resumed), limiter("", Cleared)]);

    let saved = record("t", "plan");
    room.state().save(saved.clone()).wait().unwrap();
    room.state().save(saved.clone()).wait().unwrap();
    room.state().delete(&saved.identity, "plan").wait().unwrap();
    expected.extend([Put, Removed].map(|kind| (StoreKind::STATE, "", "plan", kind)));

    let changes = drain(&mut watch);
    assert_eq!(told(&changes), expected);
    let states: Vec<_> = changes.iter().filter_map(|change| change.identity.clone()).collect();
    assert_eq!(states, [saved.identity.clone(), saved.identity]);
    for pair in changes.windows(2) {
        let last = pair[0].last_of_transaction;
        assert!(
            if last { pair[0].lsn < pair[1].lsn } else { pair[0].lsn == pair[1].lsn },
            "{pair:?}"
        );
    }
}

#[test]
fn expiry_is_distinguished_from_removal() {
    let clock = Arc::new(ManualClock::new(NOW_MS));
    let room = small().without_threads().clock(clock.clone()).open_in_memory().unwrap();
    let mut watch = room.watch(Filter::all()).unwrap();
    set(&room, "taken");
    set(&room, "ended");
    room.handoff().get_and_delete("taken").wait().unwrap();
    clock.advance(Duration::from_secs(600));
    assert_eq!(drain(&mut watch).len(), 3);
    room.handoff().delete("ended").wait().unwrap();
    assert_eq!(told(&drain(&mut watch)), [(StoreKind::HANDOFF, "", "ended", ChangeKind::Expired)]);
}

#[test]
fn rows_removed_by_the_sweeper_are_reported_as_expired() {
    let clock = Arc::new(ManualClock::new(NOW_MS));
    let room = small().without_threads().clock(clock.clone()).open_in_memory().unwrap();
    let tokens = room.form_tokens().with_replay_grace(Duration::from_secs(60));
    for key in ["used", "unused"] {
        let mut short = token(key);
        short.expires_at = NOW_MS / 1_000 + 10;
        tokens.insert_form_token(short).wait().unwrap();
    }
    consume(&tokens, "used").wait().unwrap();
    set(&room, "s");
    let cache = room.cache::<u64>("c").with_durability(Durability::Sync);
    cache.set_with_tags("h", &1, 5, &["t", "u"]).wait().unwrap();
    let mut watch = room.watch(Filter::all()).unwrap();
    let mut swept = |by: Duration| {
        clock.advance(by);
        room.sweep().unwrap();
        // A sweep waits for no flush; the next one who does has it flushed.
        insert(&room.form_tokens(), &format!("{}", by.as_secs())).wait().unwrap();
        let changes = drain(&mut watch);
        assert_eq!(changes.last().unwrap().kind, ChangeKind::Put);
        let swept = &changes[..changes.len() - 1];
        assert!(swept.iter().all(|change| change.kind == ChangeKind::Expired), "{swept:?}");
        swept.iter().map(|change| change.key.clone()).collect::<Vec<_>>()
    };
    // The consumed token is kept for its grace, and is then filed elsewhere, which is no change.
    assert_eq!(swept(Duration::from_secs(15)), ["unused", "h"]);
    assert_eq!(swept(Duration::from_secs(54)), [""; 0]);
    assert_eq!(swept(Duration::from_secs(1)), ["used"]);
    assert_eq!(swept(Duration::from_secs(600)), ["s"]);
}

#[test]
fn a_transaction_is_delivered_whole_as_its_net_changes() {
    let room = room();
    let mut watch = room.watch(Filter::all()).unwrap();
    set(&room, "gone");
    room.atomically(|tx| {
        tx.handoff().set("a", &state(1), 600)?;
        tx.handoff().set("a", &state(2), 600)?;
        tx.handoff().delete("gone")?;
        tx.form_tokens().insert_form_token(token("t"))?;
        tx.form_tokens().consume_form_token(
            &LookupKey::new("t"),
            &cloakroom::form_token::TokenSubject::Anonymous,
            "pay",
            None,
            1_000,
        )?;
        Ok::<_, Error>(())
    })
    .wait()
    .unwrap();
    let failed = room.atomically(|tx| {
        tx.handoff().set("never", &state(1), 600)?;
        Err::<(), _>(Error::AlreadyExists)
    });
    assert!(failed.wait().is_err());
    let changes = drain(&mut watch);
    let expected = [
        (StoreKind::HANDOFF, "", "gone", ChangeKind::Put),
        (StoreKind::FORM_TOKENS, "", "t", ChangeKind::Put),
        (StoreKind::FORM_TOKENS, "", "t", ChangeKind::Consumed),
        (StoreKind::HANDOFF, "", "a", ChangeKind::Put),
        (StoreKind::HANDOFF, "", "gone", ChangeKind::Removed),
    ];
    assert_eq!(told(&changes), expected);
    let lsns: Vec<_> =
        changes.iter().map(|change| (change.lsn, change.last_of_transaction)).collect();
    assert_eq!(lsns, [(1, true), (2, false), (2, false), (2, false), (2, true)]);
    // The last that passes the filter is the last.
    let mut tokens = room.watch(Filter::form_tokens()).unwrap();
    room.atomically(|tx| {
        tx.form_tokens().insert_form_token(token("u"))?;
        tx.handoff().set("b", &state(1), 600)
    })
    .wait()
    .unwrap();
    let changes = drain(&mut tokens);
    assert_eq!((changes.len(), changes[0].last_of_transaction), (1, true));
}

#[test]
fn a_prefix_is_literal_and_every_condition_must_hold() {
    let room = room();
    let watch = |filter: Filter| room.watch(filter).unwrap();
    let mut tokens = watch(Filter::form_tokens().prefix("00f"));
    let mut percent = watch(Filter::handoff().prefix("100%"));
    let mut every_store = watch(Filter::all().prefix("00"));
    let mut pages = watch(Filter::cache("pages").prefix("a\0"));
    let mut caches = watch(Filter::store(StoreKind::CACHE));
    let mut tenant = watch(Filter::state().tenant("t").prefix("plan."));
    let mut of_tenant = watch(Filter::all().tenant("t"));

    for key in ["00ff", "00f", "00ef", "00F0", "f00f"] {
        insert(&room.form_tokens(), key).wait().unwrap();
    }
    for id in ["100%", "100%x", "1000", "100", "00z"] {
        set(&room, id);
    }
    for (name, hash) in [("pages", "a\0b"), ("pages", "ab"), ("page", "sa\0b"), ("other", "a\0b")] {
        room.cache::<u64>(name).with_durability(Durability::Sync).set(hash, &1, 60).wait().unwrap();
    }
    for (of, kind) in
        [("t", "plan.a"), ("t", "plan"), ("t2", "plan.a"), ("T", "plan.a"), ("t", "plan.b")]
    {
        room.state().save(record(of, kind)).wait().unwrap();
    }
    let keys =
        |watch: &mut Watch| drain(watch).into_iter().map(|change| change.key).collect::<Vec<_>>();
    assert_eq!(keys(&mut tokens), ["00ff", "00f"]);
    assert_eq!(keys(&mut percent), ["100%", "100%x"]);
    assert_eq!(keys(&mut every_store), ["00ff", "00f", "00ef", "00F0", "00z"]);
    assert_eq!(keys(&mut pages), ["a\0b"]);
    assert_eq!(keys(&mut caches), ["a\0b", "ab", "sa\0b", "a\0b"]);
    assert_eq!(keys(&mut tenant), ["plan.a", "plan.b"]);
    assert_eq!(keys(&mut of_tenant), ["plan.a", "plan", "plan.b"]);
}

#[test]
fn a_watch_begins_at_its_call_and_frees_its_buffer() {
    let room = room();
    set(&room, "before");
    let figures = || {
        let stats = room.engine_stats().unwrap();
        (stats.watchers, stats.watch_buffered, stats.watch_lag)
    };
    assert_eq!(figures(), (0, 0, 0));
    let mut watch = room.watch(Filter::all()).unwrap();
    let other = room.watch(Filter::form_tokens()).unwrap();
    assert!(watch.try_recv().unwrap().is_none());
    for id in ["a", "b", "c"] {
        set(&room, id);
    }
    assert_eq!(figures(), (2, 3, 3));
    assert_eq!(watch.recv().unwrap().key, "a");
    assert_eq!(figures(), (2, 2, 2));
    drop(other);
    assert_eq!(figures(), (1, 2, 2));
    drop(watch);
    assert_eq!(figures(), (0, 0, 0));
    set(&room, "after");
    assert_eq!(figures(), (0, 0, 0));
}

#[test]
fn many_threads_are_seen_in_the_order_of_the_log_and_the_feed_is_the_room() {
    const THREADS: u64 = 6;
    const EACH: u64 = 400;
    let room = small().open_in_memory().unwrap();
    let mut watch = room.watch(Filter::handoff().buffer(1 << 20)).unwrap();
    let reader = thread::spawn(move || {
        let mut copy = BTreeMap::new();
        let (mut last_lsn, mut whole, mut seen) = (0, true, 0);
        for change in &mut watch {
            let change = change.unwrap();
            assert!(
                if whole { change.lsn > last_lsn } else { change.lsn == last_lsn },
                "{change:?}"
            );
            (last_lsn, whole) = (change.lsn, change.last_of_transaction);
            match change.kind {
                ChangeKind::Put => drop(copy.insert(change.key, change.lsn)),
                ChangeKind::Removed => {
                    assert!(copy.remove(&change.key).is_some(), "removed and not there")
                }
                other => panic!("{other:?}"),
            }
            seen += 1;
        }
        assert!(whole);
        (copy, last_lsn, seen)
    });
    let left: u64 = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|worker| {
                let room = &room;
                scope.spawn(move || {
                    let mut removed = 0;
                    for number in 0..EACH {
                        // The keys of all threads meet; only one of them takes each.
                        let (mine, theirs) = (number % 16, (number * 7 + worker) % 16);
                        let pending = room.handoff().set(&format!("{mine}"), &state(number), 600);
                        if number % 3 == 0 {
                            pending.wait().unwrap();
                        } else {
                            drop(pending);
                        }
                        let taken =
                            room.handoff().get_and_delete(&format!("{theirs}")).wait().unwrap();
                        removed += u64::from(taken.is_some());
                    }
                    removed
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    let listed: Vec<_> = room
        .handoff()
        .list(None, 100)
        .wait()
        .unwrap()
        .items
        .into_iter()
        .map(|item| item.state_id)
        .collect();
    let newest_lsn = room.engine_stats().unwrap().newest_lsn;
    room.close().unwrap();
    let (copy, last_lsn, seen) = reader.join().unwrap();
    assert_eq!(copy.into_keys().collect::<Vec<_>>(), listed);
    // Exactly the committed changes: every set, and every removal that found something.
    assert_eq!((last_lsn, seen), (newest_lsn, THREADS * EACH + left));
}

#[test]
fn nothing_is_shown_before_it_is_durable() {
    let sim = SimStorage::new(3);
    let room = small().without_threads().open_on(Arc::new(sim.clone())).unwrap();
    let mut watch = room.watch(Filter::all()).unwrap();
    let tokens = room.form_tokens().with_durability(Durability::Os);
    for number in 0..9 {
        insert(&tokens, &format!("t{number}")).wait().unwrap();
        assert!(watch.try_recv().unwrap().is_none(), "{number}: only the system has it");
    }
    // The waiter has it flushed.
    let flushes = room.engine_stats().unwrap().flushes;
    let first = watch.recv().unwrap();
    assert_eq!((first.key.as_str(), room.engine_stats().unwrap().flushes), ("t0", flushes + 1));
    assert_eq!(room.engine_stats().unwrap().durable_lsn, 9);
    let image = SimStorage::from_image(sim.crash_image(0), 0);
    let after = small().without_threads().open_on(Arc::new(image)).unwrap();
    let kept = after.form_tokens().list(None, 100).wait().unwrap().items;
    assert_eq!(kept.len(), 1 + drain(&mut watch).len());
}

#[test]
fn no_power_failure_reverts_a_delivered_change() {
    let mut shown_and_unshown = (0, 0);
    for stop_after in 0..30 {
        let sim = SimStorage::new(stop_after);
        let room = small().without_threads().open_on(Arc::new(sim.clone())).unwrap();
        let mut watch = room.watch(Filter::all()).unwrap();
        sim.stop_after(sim.events() + stop_after);
        let relaxed = room.handoff().with_durability(Durability::Os);
        let (mut shown, mut newest, mut number) = (0, 0, 0);
        let mut look = |answer: Result<Option<Change>, WatchError>| match answer {
            Ok(change) => change.is_some_and(|change| {
                shown = change.lsn;
                true
            }),
            Err(WatchError::Poisoned { .. }) => false,
            Err(error) => panic!("{error}"),
        };
        while !sim.is_crashed() {
            number += 1;
            let answer = match number % 4 {
                0 => room.handoff().set(&format!("{number}"), &state(number), 600).wait(),
                1 => room.handoff().delete(&format!("{}", number.saturating_sub(3))).wait(),
                _ => relaxed.set(&format!("{number}"), &state(number), 600).wait(),
            };
            newest = room.engine_stats().map_or(newest, |stats| stats.newest_lsn);
            if answer.is_ok() && number % 7 == 0 {
                look(watch.recv().map(Some));
            }
            if number % 11 == 0 {
                let _ = room.checkpoint();
            }
        }
        while look(watch.try_recv()) {}
        for seed in 0..6 {
            let image = SimStorage::from_image(sim.crash_image(seed), seed);
            let after = small().without_threads().open_on(Arc::new(image)).unwrap();
            let recovered = after.engine_stats().unwrap().newest_lsn;
            assert!(
                recovered >= shown,
                "stop after {stop_after}, seed {seed}: {recovered} of {shown}"
            );
        }
        shown_and_unshown.0 += u64::from(shown > 0);
        shown_and_unshown.1 += u64::from(newest > shown);
    }
    // Both must have come before the power failed, or nothing was tried.
    assert!(shown_and_unshown.0 > 20 && shown_and_unshown.1 > 5, "{shown_and_unshown:?}");
}

#[test]
fn changes_of_a_failed_flush_are_never_delivered() {
    for background in [false, true] {
        let sim = SimStorage::new(3);
        let builder = small();
        let builder = if background { builder } else { builder.without_threads() };
        let room = builder.open_on(Arc::new(sim.clone())).unwrap();
        let mut all = room.watch(Filter::all()).unwrap();
        let idle = room.watch(Filter::cache("nothing happens here")).unwrap();
        let idle = thread::spawn(move || idle.into_iter().next());
        set(&room, "durable");
        sim.fail_call(CallKind::DurableWrite, 0, Fault::Eio);
        sim.fail_call(CallKind::Sync, 0, Fault::Eio);
        assert!(room.handoff().set("lost", &state(1), 600).wait().is_err());
        // A writer that comes later is refused, and with it everybody learns.
        assert!(room.handoff().set("refused", &state(1), 600).wait().is_err());
        let shown: Vec<_> = (&mut all).take(3).collect();
        let [Ok(change), Err(WatchError::Poisoned { .. }), Err(WatchError::Poisoned { .. })] =
            &shown[..]
        else {
            panic!("background: {background}: {shown:?}");
        };
        assert_eq!(change.key, "durable");
        assert!(matches!(all.try_recv(), Err(WatchError::Poisoned { .. })));
        assert!(matches!(idle.join().unwrap(), Some(Err(WatchError::Poisoned { .. }))));
        assert!(matches!(room.watch(Filter::all()), Err(Error::Poisoned { .. })));
    }
}

#[test]
fn a_slow_watcher_learns_which_changes_it_missed_and_continues_after_them() {
    let room = room();
    let mut watch = room.watch(Filter::handoff().prefix("s").buffer(3)).unwrap();
    for number in 1..=7 {
        set(&room, &format!("s{number}"));
    }
    // No change that is missed.
    insert(&room.form_tokens(), "t").wait().unwrap();
    let mut other = room.watch(Filter::all().buffer(3)).unwrap();
    for number in 1..=3 {
        assert_eq!(watch.recv().unwrap().lsn, number);
    }
    match watch.recv() {
        Err(WatchError::Overtaken { missed_from_lsn: 4, resumes_at_lsn: 8 }) => {}
        answer => panic!("{answer:?}"),
    }
    assert!(watch.try_recv().unwrap().is_none());
    set(&room, "s9");
    assert_eq!(watch.recv().unwrap().lsn, 9);
    assert_eq!(other.recv().unwrap().lsn, 9);
    assert_eq!(room.engine_stats().unwrap().watch_overtaken, 1);
}

#[test]
fn a_transaction_over_the_buffer_is_whole_or_missed() {
    let room = room();
    let mut watch = room.watch(Filter::all().buffer(2)).unwrap();
    let five = |from: u64| {
        let sets = room.atomically(|tx| {
            (from..from + 5)
                .try_for_each(|number| tx.handoff().set(&format!("{number}"), &state(1), 600))
        });
        sets.wait().unwrap();
    };
    five(0);
    five(5);
    assert_eq!((0..5).map(|_| watch.recv().unwrap().lsn).collect::<Vec<_>>(), [1; 5]);
    assert!(matches!(
        watch.recv(),
        Err(WatchError::Overtaken { missed_from_lsn: 2, resumes_at_lsn: 3 })
    ));
    five(0);
    assert_eq!(drain(&mut watch).len(), 5);
}

#[test]
fn an_idle_watcher_keeps_no_more_than_its_buffer_and_delays_no_one() {
    let room = room();
    let watch = room.watch(Filter::all().buffer(10)).unwrap();
    for number in 0..2_000 {
        drop(room.handoff().set(&format!("{}", number % 50), &state(number), 600));
    }
    set(&room, "last");
    let stats = room.engine_stats().unwrap();
    assert_eq!((stats.watch_buffered, stats.watch_lag, stats.watch_overtaken), (10, 2_001, 1));
    drop(watch);
}

#[test]
fn closing_ends_a_watch_after_the_last_durable_change() {
    for background in [false, true] {
        let builder = small();
        let builder = if background { builder } else { builder.without_threads() };
        let room = builder.open_in_memory().unwrap();
        let mut watch = room.watch(Filter::all()).unwrap();
        let waiting = room.watch(Filter::form_tokens()).unwrap();
        let waiting = thread::spawn(move || waiting.count());
        // No one waits for it; closing makes it durable.
        drop(room.handoff().set("a", &state(1), 600));
        drop(room.cache::<u64>("c").set("b", &1, 60));
        room.close().unwrap();
        assert_eq!(waiting.join().unwrap(), 0);
        assert_eq!(
            (watch.recv().unwrap().key, watch.recv().unwrap().key),
            ("a".into(), "b".into())
        );
        for _ in 0..2 {
            assert!(matches!(watch.recv(), Err(WatchError::Closed)));
            assert!(matches!(watch.try_recv(), Err(WatchError::Closed)));
        }
        assert_eq!(watch.count(), 0);
        assert!(matches!(room.watch(Filter::all()), Err(Error::Closed)));
    }
}

#[test]
fn a_watch_does_not_keep_the_room_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("room.cloak");
    let room = small().open(&path).unwrap();
    let mut watch = room.watch(Filter::all()).unwrap();
    set(&room, "a");
    drop(room);
    assert!(small().open(&path).is_ok());
    assert_eq!(watch.recv().unwrap().key, "a");
    assert!(matches!(watch.recv(), Err(WatchError::Closed)));
}

#[test]
fn a_task_is_woken_for_a_change_and_for_nothing_else() {
    let room = room();
    let mut watch = room.watch(Filter::handoff()).unwrap();
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut context = Context::from_waker(&waker);
    {
        let mut next = pin!(watch.recv_async());
        assert!(next.as_mut().poll(&mut context).is_pending());
        insert(&room.form_tokens(), "t").wait().unwrap();
        assert_eq!(wakes.count(), 0);
        set(&room, "a");
        assert_eq!(wakes.count(), 1);
        let Poll::Ready(Ok(change)) = next.as_mut().poll(&mut context) else {
            panic!("it was woken for it")
        };
        assert_eq!(change.key, "a");
    }
    set(&room, "b");
    assert_eq!(block_on(watch.recv_async()).unwrap().key, "b");
    // A change that no one has flushed is flushed for the task.
    drop(room.handoff().set("c", &state(1), 600));
    assert_eq!(block_on(watch.recv_async()).unwrap().key, "c");
}

#[test]
fn a_relaxed_change_reaches_a_task_without_other_callers() {
    let room = small().open_in_memory().unwrap();
    let mut watch = room.watch(Filter::cache("c")).unwrap();
    for number in 0..50 {
        drop(room.cache::<u64>("c").set(&format!("{number}"), &number, 60));
        let change = if number % 2 == 0 { watch.recv() } else { block_on(watch.recv_async()) };
        assert_eq!(change.unwrap().key, format!("{number}"));
    }
}

#[test]
fn a_thread_that_sleeps_is_woken_by_the_first_change() {
    let room = small().open_in_memory().unwrap();
    let mut watch = room.watch(Filter::all()).unwrap();
    let (send, received) = mpsc::channel();
    let reader = thread::spawn(move || {
        while let Ok(change) = watch.recv() {
            send.send(change.key).unwrap();
        }
    });
    for number in 0..20 {
        let id = format!("{number}");
        set(&room, &id);
        assert_eq!(received.recv().unwrap(), id);
    }
    room.close().unwrap();
    reader.join().unwrap();
}

#[test]
fn a_wait_with_a_deadline_ends_and_loses_nothing() {
    let room = room();
    let mut watch = room.watch(Filter::all()).unwrap();
    assert!(watch.recv_timeout(Duration::from_millis(1)).unwrap().is_none());
    assert!(watch.recv_timeout(Duration::ZERO).unwrap().is_none());
    set(&room, "a");
    assert_eq!(watch.recv_timeout(Duration::MAX).unwrap().unwrap().key, "a");
    let writer = room.clone();
    let writer = thread::spawn(move || set(&writer, "b"));
    assert_eq!(watch.recv_timeout(Duration::from_secs(3_600)).unwrap().unwrap().key, "b");
    writer.join().unwrap();
    until("the watcher has nothing left", || room.engine_stats().unwrap().watch_buffered == 0);
}

#[test]
fn a_watch_inside_a_transaction_is_refused() {
    let room = room();
    let inside = room.atomically(|_| room.watch(Filter::all()).map(drop));
    assert!(matches!(inside.wait(), Err(Error::NestedTransaction)));
    assert_eq!(room.engine_stats().unwrap().watchers, 0);
}
