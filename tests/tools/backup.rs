//! Backups: one consistent state, whatever is written meanwhile; whole or not there; and never over
//! anything else.

use crate::all_stores::dump::{Dump, go_on};
use crate::all_stores::history::{History, new_clock};
use crate::rooms::{NOW_MS, consume, insert, names, small, state, token};
use cloakroom::cache::CacheStore;
use cloakroom::dedupe::{DedupeStore, JobState};
use cloakroom::form_token::{LookupKey, TokenConsumeOutcome};
use cloakroom::handoff::HandoffStateStore;
use cloakroom::testing::{CallKind, Fault, SimStorage};
use cloakroom::{Cloakroom, Durability, Error, ManualClock};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The smallest log there may be, so that checkpoints come often.
const LOG_CAPACITY: u64 = 64 << 10;

fn dir() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (room, backup) = (dir.path().join("edge.cloak"), dir.path().join("backup.cloak"));
    (dir, room, backup)
}

fn tiny() -> cloakroom::Builder {
    small().log_capacity(LOG_CAPACITY).cache_size(1 << 20)
}

/// A room with one state, whose number is given.
fn room_with(path: &Path, number: u64) -> Cloakroom {
    let room = tiny().open(path).unwrap();
    room.handoff().set("number", &state(number), 1_000).wait().unwrap();
    room
}

/// The number that the room at `path` has.
fn number_in(path: &Path) -> Option<u64> {
    let room = tiny().open(path).unwrap();
    number_of(&room, "number")
}

fn number_of(room: &Cloakroom, id: &str) -> Option<u64> {
    let found = room.handoff().get(id).wait().unwrap();
    found.map(|found| found.get("number").unwrap().as_u64().unwrap())
}

#[test]
fn a_backup_of_every_store_holds_what_the_room_held() {
    let (dir, _, backup) = dir();
    let mut backups = 0;
    for seed in 0..4 {
        let storage = SimStorage::new(seed);
        crate::all_stores::history::open(&storage, &new_clock()).unwrap().close().unwrap();
        let mut history = History::new(seed, &storage.process_crash_image(), false);
        let _ = fs::remove_file(&backup);
        for _ in 0..12 {
            history.run(25);
            let report = history.room.backup(&backup).unwrap();
            assert_eq!(report.lsn, history.room.engine_stats().unwrap().newest_lsn);
            assert_eq!(report.bytes, fs::metadata(&backup).unwrap().len());
            let held = Dump::of(&history.room).unwrap();
            let clock = Arc::new(ManualClock::new(*history.times_ms.last().unwrap()));
            let restored = tiny().without_threads().clock(clock).open(&backup).unwrap();
            let found = Dump::of(&restored).unwrap();
            assert!(found == held, "seed {seed}: it differs {}", found.difference(&held));
            found.check_ways(&restored, history.events).unwrap();
            go_on(&restored).unwrap();
            restored.close().unwrap();
            backups += 1;
        }
    }
    assert_eq!(backups, 48);
    assert_eq!(names(dir.path()), ["backup.cloak"]);
}

/// What one writer does over and over: counts up in two stores at once, and hands in a token of the
/// new number.
fn count_up(room: &Cloakroom, writer: usize, number: u64) {
    let done = room.atomically(|tx| {
        tx.handoff().set(&format!("counter {writer}"), &state(number), 1_000)?;
        tx.cache("counters").set(&format!("counter {writer}"), &number, 0)?;
        tx.form_tokens().insert_form_token(token(&format!("token {writer} {number}")))?;
        if number > 1 {
            let last = LookupKey::new(format!("token {writer} {}", number - 1));
            tx.form_tokens().consume_form_token(
                &last,
                &cloakroom::form_token::TokenSubject::Anonymous,
                "pay",
                None,
                1,
            )?;
        }
        Ok::<_, Error>(())
    });
    done.wait().unwrap();
}

/// Which tokens there are, and whether each is consumed.
fn tokens_of(room: &Cloakroom) -> HashMap<LookupKey, bool> {
    let (tokens, mut found, mut cursor) = (room.form_tokens(), HashMap::new(), None);
    loop {
        let page = tokens.list(cursor.as_ref(), 1_000).wait().unwrap();
        found.extend(
            page.items.into_iter().map(|entry| (entry.record.lookup_key, entry.consumed.is_some())),
        );
        cursor = page.next;
        if cursor.is_none() {
            return found;
        }
    }
}

/// Looks whether a room is one state that such writers left, and what each had counted to.
fn check_counters(room: &Cloakroom, writers: usize) -> Vec<u64> {
    let mut tokens = tokens_of(room);
    let counted = (0..writers).map(|writer| {
        let name = format!("counter {writer}");
        let number = number_of(room, &name).unwrap_or_default();
        let cached: Option<u64> = room.cache("counters").get(&name).wait().unwrap();
        assert_eq!(cached.unwrap_or_default(), number, "a transaction is there by half");
        for earlier in 1..=number {
            let consumed = tokens.remove(&LookupKey::new(format!("token {writer} {earlier}")));
            assert_eq!(consumed, Some(earlier < number), "token {earlier} of {number}");
        }
        number
    });
    let counted = counted.collect();
    assert!(tokens.is_empty(), "of later transactions: {tokens:?}");
    counted
}

#[test]
fn backups_under_writers_are_whole_transactions_with_everything_acknowledged() {
    const WRITERS: usize = 4;
    const BACKUPS: usize = 20;
    let (dir, path, backup) = dir();
    let room = tiny().open(&path).unwrap();
    let acknowledged: Vec<AtomicU64> = (0..WRITERS).map(|_| AtomicU64::new(0)).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (writer, acknowledged) in acknowledged.iter().enumerate() {
            let (room, stop) = (&room, &stop);
            scope.spawn(move || {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    count_up(room, writer, number);
                    acknowledged.store(number, Ordering::Release);
                }
            });
        }
        // Stops the writers also when something below fails.
        let stopping = StopOnDrop(&stop);
        let mut before = vec![0; WRITERS];
        for round in 0..BACKUPS {
            let at_least: Vec<_> =
                acknowledged.iter().map(|number| number.load(Ordering::Acquire)).collect();
            let report = room.backup(&backup).unwrap();
            let restored = tiny().open(&backup).unwrap();
            let found = check_counters(&restored, WRITERS);
            for writer in 0..WRITERS {
                assert!(
                    found[writer] >= at_least[writer],
                    "round {round}: an acknowledged count is missing"
                );
                assert!(
                    found[writer] >= before[writer],
                    "round {round}: a backup is older than the last one"
                );
            }
            // Each count is one transaction, so the position tells how many there are.
            assert_eq!(found.iter().sum::<u64>(), report.lsn);
            before = found;
            restored.close().unwrap();
        }
        drop(stopping);
    });
    let counted = check_counters(&room, WRITERS);
    let expected: Vec<_> =
        acknowledged.iter().map(|number| number.load(Ordering::Acquire)).collect();
    assert_eq!(counted, expected);
    assert!(room.engine_stats().unwrap().checkpoints > 0, "no checkpoint came between");
    assert_eq!(names(dir.path()), ["backup.cloak", "edge.cloak"]);
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_backup_makes_its_rows_durable_in_the_room_too() {
    let (_dir, _, backup) = dir();
    let storage = SimStorage::new(3);
    let options = || tiny().without_threads().durability(Durability::Os);
    let room = options().open_on(Arc::new(storage.clone())).unwrap();
    for number in 1..20 {
        room.handoff().set("number", &state(number), 1_000).wait().unwrap();
    }
    assert!(room.engine_stats().unwrap().durable_lsn < 19, "somebody flushed already");
    let report = room.backup(&backup).unwrap();
    assert_eq!((report.lsn, number_in(&backup)), (19, Some(19)));
    // The power fails, and takes whatever it may.
    let crashed = SimStorage::from_image(storage.crash_image(0), 4);
    let room = options().open_on(Arc::new(crashed)).unwrap();
    assert_eq!(number_of(&room, "number"), Some(19));
}

#[test]
fn a_room_in_memory_is_backed_up_to_a_file() {
    let (_dir, _, backup) = dir();
    let room = tiny().open_in_memory().unwrap();
    insert(&room.form_tokens(), "a").wait().unwrap();
    let report = room.backup(&backup).unwrap();
    let what = "a token, its place in the index of expiry, and the time line";
    assert_eq!((report.lsn, report.rows), (1, 3), "{what}");
    room.backup(&backup).unwrap();
    let restored = tiny().open(&backup).unwrap();
    assert_eq!(
        consume(&restored.form_tokens(), "a").wait().unwrap().0,
        TokenConsumeOutcome::Proceed
    );
}

#[test]
fn an_earlier_backup_is_replaced_and_anything_else_is_left_alone() {
    let (dir, path, backup) = dir();
    let room = room_with(&path, 1);
    room.backup(&backup).unwrap();
    room.handoff().set("number", &state(2), 1_000).wait().unwrap();
    room.backup(&backup).unwrap();
    assert_eq!(number_in(&backup), Some(2));

    // Another room.
    let other = dir.path().join("other.cloak");
    room_with(&other, 7).close().unwrap();
    let bytes = fs::read(&other).unwrap();
    match room.backup(&other) {
        Err(Error::DifferentRoom { path }) => assert_eq!(path, other),
        outcome => panic!("{outcome:?}"),
    }
    assert!(fs::read(&other).unwrap() == bytes);

    // Files that are no rooms.
    for content in ["a letter", &"x".repeat(20_000)] {
        let letter = dir.path().join("letter");
        fs::write(&letter, content).unwrap();
        assert!(matches!(room.backup(&letter), Err(Error::NotCloakroom { .. })));
        assert_eq!(fs::read_to_string(&letter).unwrap(), content);
        fs::remove_file(&letter).unwrap();
    }
    // An empty file is a name for a new one.
    let reserved = dir.path().join("reserved");
    fs::write(&reserved, "").unwrap();
    room.backup(&reserved).unwrap();
    assert_eq!(number_in(&reserved), Some(2));
    fs::remove_file(&reserved).unwrap();
    // A directory, and one that is not there.
    assert!(matches!(room.backup(dir.path()), Err(Error::NotCloakroom { .. })));
    assert!(matches!(room.backup(dir.path().join("none/backup.cloak")), Err(Error::Io { .. })));
    // A backup of which the superblock is gone could be anybody's.
    let damaged = dir.path().join("damaged.cloak");
    let mut content = fs::read(&backup).unwrap();
    content[100] ^= 1;
    content[4096 + 100] ^= 1;
    fs::write(&damaged, &content).unwrap();
    assert!(matches!(room.backup(&damaged), Err(Error::Corrupted { .. })));
    assert!(fs::read(&damaged).unwrap() == content);

    // An earlier backup that somebody has open.
    let opened = tiny().open(&backup).unwrap();
    match room.backup(&backup) {
        Err(Error::Locked { path }) => assert_eq!(path, backup),
        outcome => panic!("{outcome:?}"),
    }
    opened.close().unwrap();
    room.handoff().set("number", &state(3), 1_000).wait().unwrap();
    room.backup(&backup).unwrap();
    assert_eq!(number_in(&backup), Some(3));
    assert_eq!(names(dir.path()), ["backup.cloak", "damaged.cloak", "edge.cloak", "other.cloak"]);
}

#[test]
fn a_backup_never_replaces_its_own_room_under_any_name() {
    let (dir, path, _) = dir();
    let room = room_with(&path, 1);
    let mut targets = vec![path.clone(), dir.path().join(".").join("edge.cloak")];
    #[cfg(unix)]
    {
        let (hard, soft) = (dir.path().join("hard.cloak"), dir.path().join("soft.cloak"));
        fs::hard_link(&path, &hard).unwrap();
        std::os::unix::fs::symlink(&path, &soft).unwrap();
        targets.extend([hard, soft]);
    }
    for target in targets {
        let outcome = room.backup(&target);
        assert!(
            matches!(outcome, Err(Error::InvalidConfig(_))),
            "{}: {outcome:?}",
            target.display()
        );
    }
    room.handoff().set("number", &state(2), 1_000).wait().unwrap();
    room.close().unwrap();
    assert_eq!(number_in(&path), Some(2));
}

#[cfg(unix)]
#[test]
fn a_backup_is_its_owners_only_unless_an_earlier_one_was_not_and_a_link_is_followed() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, path, backup) = dir();
    let room = room_with(&path, 1);
    let mode = || fs::metadata(&backup).unwrap().permissions().mode() & 0o777;
    room.backup(&backup).unwrap();
    assert_eq!(mode(), 0o600);
    fs::set_permissions(&backup, fs::Permissions::from_mode(0o640)).unwrap();
    let link = dir.path().join("latest.cloak");
    std::os::unix::fs::symlink(&backup, &link).unwrap();
    room.handoff().set("number", &state(2), 1_000).wait().unwrap();
    room.backup(&link).unwrap();
    assert_eq!((mode(), number_in(&backup)), (0o640, Some(2)));
    assert!(link.is_symlink());
    // One that leads nowhere is not something to replace.
    let nowhere = dir.path().join("nowhere.cloak");
    std::os::unix::fs::symlink(dir.path().join("none"), &nowhere).unwrap();
    let error = room.backup(&nowhere).unwrap_err();
    assert!(error.to_string().contains("symbolic link"), "{error}");
    assert_eq!(names(dir.path()), ["backup.cloak", "edge.cloak", "latest.cloak", "nowhere.cloak"]);
}

#[test]
fn the_temporary_file_of_a_killed_backup_is_removed_by_the_next_one() {
    let (dir, path, backup) = dir();
    let room = room_with(&path, 1);
    fs::write(dir.path().join(".backup.cloak.abcdefghi1.new"), b"half a room").unwrap();
    room.backup(&backup).unwrap();
    assert_eq!(names(dir.path()), ["backup.cloak", "edge.cloak"]);
}

#[test]
fn damage_in_the_room_ends_a_backup_and_leaves_the_earlier_one() {
    let (dir, path, backup) = dir();
    let room = tiny().open(&path).unwrap();
    for number in 0..400 {
        room.handoff()
            .set(&format!("state {number}"), &crate::rooms::state_of(600), 1_000)
            .wait()
            .unwrap();
    }
    room.backup(&backup).unwrap();
    room.close().unwrap();
    let earlier = fs::read(&backup).unwrap();
    let whole = fs::read(&path).unwrap();
    let (mut ended, mut unharmed) = (0, 0);
    // One block of the B-tree at a time, behind its header.
    for block in (2..whole.len() / 4096).skip(LOG_CAPACITY as usize / 4096 + 3).step_by(5) {
        let mut damaged = whole.clone();
        damaged[block * 4096 + 77] ^= 0x10;
        fs::write(&path, damaged).unwrap();
        let Ok(room) = tiny().open(&path) else { continue };
        match room.backup(&backup) {
            Err(Error::Corrupted { .. }) => {
                ended += 1;
                assert!(fs::read(&backup).unwrap() == earlier, "block {block}");
            }
            // The block holds nothing that is reached.
            Ok(report) => {
                unharmed += 1;
                assert_eq!(report.rows, 800 + 1, "and the time line");
                fs::write(&backup, &earlier).unwrap();
            }
            Err(error) => panic!("block {block}: {error}"),
        }
        assert_eq!(names(dir.path()), ["backup.cloak", "edge.cloak"]);
    }
    assert!(ended > 5, "{ended} backups met damage, {unharmed} did not");
}

#[test]
fn a_poisoned_room_is_backed_up_as_far_as_it_is_durable() {
    let (_dir, _, backup) = dir();
    let storage = SimStorage::new(1);
    let room = tiny().without_threads().open_on(Arc::new(storage.clone())).unwrap();
    room.handoff().set("number", &state(1), 1_000).wait().unwrap();
    storage.fail_call(CallKind::Sync, 0, Fault::Eio);
    storage.fail_call(CallKind::DurableWrite, 0, Fault::Eio);
    assert!(matches!(
        room.handoff().set("number", &state(2), 1_000).wait(),
        Err(Error::OutcomeUnknown { .. })
    ));
    assert!(room.engine_stats().unwrap().poisoned);
    let report = room.backup(&backup).unwrap();
    assert_eq!((report.lsn, number_in(&backup)), (1, Some(1)));
}

#[test]
fn a_closed_room_is_not_backed_up_and_one_that_closes_meanwhile_leaves_nothing() {
    let (dir, path, backup) = dir();
    let room = room_with(&path, 1);
    let outcome = room.backup_with_progress(&backup, &mut |done, _| {
        // Before the first row.
        if done == 0 {
            room.close().unwrap();
        }
    });
    assert!(matches!(outcome, Err(Error::Closed)), "{outcome:?}");
    assert!(matches!(room.backup(&backup), Err(Error::Closed)));
    assert_eq!(names(dir.path()), ["edge.cloak"]);
}

#[test]
fn progress_rises_to_all_rows_and_writing_goes_on_in_between() {
    let (_dir, path, backup) = dir();
    let room = small().open(&path).unwrap();
    for number in 0..3_000 {
        drop(insert(&room.form_tokens(), &format!("token {number}")));
    }
    let mut told = Vec::new();
    let report = room
        .backup_with_progress(&backup, &mut |done, all| {
            told.push((done, all));
            insert(&room.form_tokens(), &format!("meanwhile {done} {all}")).wait().unwrap();
        })
        .unwrap();
    // One more is that of the time line.
    assert_eq!(report.rows, 6_001);
    assert!(told.len() > 3, "{told:?}");
    assert!(told.is_sorted() && told.iter().all(|(done, all)| done <= all), "{told:?}");
    assert_eq!(told.last(), Some(&(6_001, 6_001)));
    let restored = small().open(&backup).unwrap();
    assert_eq!(restored.form_tokens().stats().wait().unwrap().live, 3_000);
}

#[test]
fn what_was_handed_over_after_a_backup_can_be_handed_over_again_in_it_and_pending_jobs_have_failed()
{
    let (_dir, path, backup) = dir();
    let room = tiny().open(&path).unwrap();
    insert(&room.form_tokens(), "a").wait().unwrap();
    room.dedupe::<u64>("jobs").register("job").wait().unwrap();
    room.backup(&backup).unwrap();
    assert_eq!(consume(&room.form_tokens(), "a").wait().unwrap().0, TokenConsumeOutcome::Proceed);
    assert_eq!(consume(&room.form_tokens(), "a").wait().unwrap().0, TokenConsumeOutcome::Replay);

    let restored = tiny().clock(Arc::new(ManualClock::new(NOW_MS))).open(&backup).unwrap();
    assert_eq!(
        consume(&restored.form_tokens(), "a").wait().unwrap().0,
        TokenConsumeOutcome::Proceed
    );
    let jobs = restored.dedupe::<u64>("jobs").list(None, 10).wait().unwrap();
    assert!(matches!(jobs.items[0].state, JobState::Failed { .. }), "{jobs:?}");
}

#[test]
fn a_backup_is_as_small_as_its_rows() {
    let (_dir, path, backup) = dir();
    let room = small().open(&path).unwrap();
    for number in 0..20_000 {
        drop(insert(&room.form_tokens(), &format!("token {number}")));
    }
    room.checkpoint().unwrap();
    for number in 0..19_900 {
        drop(room.handoff().set("number", &state(number), 1_000));
    }
    let report = room.backup(&backup).unwrap();
    let log = cloakroom::limits::LONGEST_KEYS_LOG_CAPACITY;
    // About 150 bytes of rows for each token, in pages that are filled in order.
    assert!(report.bytes < log + (12 << 20), "{} bytes", report.bytes);
    assert!(report.bytes <= room.engine_stats().unwrap().file_bytes);
}
