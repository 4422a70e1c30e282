//! Rooms that are opened for reading only: they answer what a writing opener would, and the file
//! stays as it is.

use crate::rooms::{consume, insert, names, small, state};
use cloakroom::adaptive_rate_limit::{AdaptiveConfig, AdaptiveRateLimitStore, Priority};
use cloakroom::cache::CacheStore;
use cloakroom::dedupe::DedupeStore;
use cloakroom::form_token::{FormTokenStore, LookupKey};
use cloakroom::handoff::HandoffStateStore;
use cloakroom::limits::{BLOCK_SIZE, LONGEST_KEYS_LOG_CAPACITY};
use cloakroom::rate_limit::{RateLimitConfig, RateLimitStore};
use cloakroom::state::{Identity, StateError, StateRecord, StateStore};
use cloakroom::{Cloakroom, Durability, Error};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, SystemTime};

const MINUTE: RateLimitConfig = RateLimitConfig { limit: 20, window: Duration::from_secs(60) };

fn rates(room: &Cloakroom) -> cloakroom::rate_limit::RateLimit {
    room.rate_limit("api", MINUTE).unwrap()
}

fn adaptive(room: &Cloakroom) -> cloakroom::adaptive_rate_limit::AdaptiveRateLimit {
    room.adaptive_rate_limit("api", MINUTE, AdaptiveConfig::default()).unwrap()
}

fn whose() -> Identity {
    Identity::new("acme", "ada", "session-1", "")
}

/// Something in every store, part of it in the B-tree and part of it in the log alone.
fn fill(room: &Cloakroom) {
    for number in 0..40_u64 {
        insert(&room.form_tokens(), &format!("token-{number:02}")).wait().unwrap();
        room.handoff().set(&format!("state-{number:02}"), &state(number), 600).wait().unwrap();
        if number == 30 {
            room.checkpoint().unwrap();
        }
    }
    consume(&room.form_tokens(), "token-03").wait().unwrap();
    room.cache::<String>("http").set("page", &"hello".to_owned(), 600).wait().unwrap();
    assert!(room.dedupe::<String>("jobs").register_or_join("job").wait().unwrap().is_owner);
    room.state().save(StateRecord::new(whose(), "plan", *b"step 1")).wait().unwrap();
    rates(room).record("search").wait().unwrap();
    for _ in 0..5 {
        adaptive(room).record("search", Priority::User).wait().unwrap();
    }
}

/// What the room of [`fill`] answers, in words, as an order-preserving list.
fn answers(room: &Cloakroom) -> Vec<String> {
    let (tokens, handoff, cache) =
        (room.form_tokens(), room.handoff(), room.cache::<String>("http"));
    let mut said = vec![
        format!("{:?}", tokens.list(None, 100).wait().unwrap().items),
        format!("{:?}", tokens.stats().wait().unwrap()),
        format!("{:?}", handoff.list(None, 100).wait().unwrap().items),
        format!("{:?}", handoff.stats().wait().unwrap()),
        format!("{:?}", cache.get("page").wait().unwrap()),
        format!("{:?}", cache.list(None, 100).wait().unwrap().items),
        // The process that had the job is gone, so it counts as failed for its waiters.
        format!("{:?}", room.dedupe::<String>("jobs").wait_for("job").wait().unwrap()),
        format!("{:?}", room.state().load(&whose(), "plan").wait().unwrap()),
        format!("{:?}", rates(room).status("search").wait().unwrap()),
        format!("{:?}", adaptive(room).status("search").wait().unwrap()),
        format!("{:?}", adaptive(room).can_proceed("search", Priority::Background).wait().unwrap()),
        format!("{:?}", adaptive(room).wait_time("search", Priority::Background).wait().unwrap()),
    ];
    said.extend(
        (0..40).map(|number| format!("{:?}", handoff.get(&format!("state-{number:02}")).wait())),
    );
    said
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("edge.cloak")
    }

    /// A closed room of [`fill`].
    fn filled(self) -> Self {
        let room = small().open(self.path()).unwrap();
        fill(&room);
        room.close().unwrap();
        self
    }

    fn read(&self) -> Cloakroom {
        small().read_only(true).open(self.path()).unwrap()
    }
}

/// What must not change.
fn picture(path: &Path) -> (Vec<u8>, SystemTime) {
    (fs::read(path).unwrap(), fs::metadata(path).unwrap().modified().unwrap())
}

#[test]
fn reading_and_closing_leave_every_byte_and_the_time_of_the_file() {
    let place = Place::new().filled();
    let before = picture(&place.path());
    let room = place.read();
    let read = answers(&room);
    assert!(room.engine_stats().unwrap().newest_lsn > 0);
    room.close().unwrap();
    drop(room);
    drop(place.read());
    assert!(picture(&place.path()) == before, "the file was touched");
    assert_eq!(names(place.dir.path()), ["edge.cloak"]);
    assert_eq!(answers(&small().open(place.path()).unwrap()), read);
}

#[test]
fn a_read_only_room_is_closed_like_any_other() {
    let place = Place::new().filled();
    let room = place.read();
    let handoff = room.handoff();
    room.close().unwrap();
    room.close().unwrap();
    assert!(matches!(handoff.get("state-01").wait(), Err(Error::Closed)));
    assert!(matches!(handoff.set("state-01", &state(1), 600).wait(), Err(Error::Closed)));
    assert!(matches!(room.checkpoint(), Err(Error::Closed)));
    assert!(matches!(adaptive(&room).status("search").wait(), Err(Error::Closed)));
    drop(small().open(place.path()).unwrap());
}

#[test]
fn every_changing_call_on_a_read_only_room_is_refused() {
    let place = Place::new().filled();
    let before = picture(&place.path());
    let room = place.read();
    let read = answers(&room);
    let (tokens, handoff, cache) =
        (room.form_tokens(), room.handoff(), room.cache::<String>("http"));
    let (jobs, key) = (room.dedupe::<String>("jobs"), LookupKey::new("token-03"));
    let refusals = [
        insert(&tokens, "another").wait().err(),
        consume(&tokens, "token-01").wait().err(),
        // Also what would find nothing to change.
        consume(&tokens, "absent").wait().err(),
        tokens.set_token_result(&key, "receipt").wait().err(),
        handoff.set("state-01", &state(9), 600).wait().err(),
        handoff.get_and_delete("state-01").wait().err(),
        handoff.delete("state-01").wait().err(),
        handoff.claim("state-01", Duration::from_secs(60)).wait().err(),
        cache.set("page", &"bye".to_owned(), 600).wait().err(),
        cache.delete("page").wait().err(),
        cache.clear(None).wait().err(),
        jobs.register_or_join("job").wait().err(),
        jobs.clear(None).wait().err(),
        rates(&room).acquire("search").wait().err(),
        rates(&room).clear().wait().err(),
        adaptive(&room).acquire("search", Priority::User).wait().err(),
        room.atomically(|tx| tx.handoff().get("state-01")).wait().err(),
        room.checkpoint().err(),
        room.sweep().err(),
        room.compact().err(),
    ];
    for (number, refusal) in refusals.into_iter().enumerate() {
        assert!(matches!(refusal, Some(Error::ReadOnly)), "call {number} answered {refusal:?}");
    }
    let refusal = room.state().save(StateRecord::new(whose(), "plan", *b"step 2")).wait();
    assert!(matches!(refusal, Err(StateError::Store(Error::ReadOnly))), "{refusal:?}");
    assert_eq!(answers(&room), read);
    room.close().unwrap();
    assert!(picture(&place.path()) == before, "the file was touched");
}

#[test]
fn many_readers_at_once_keep_writers_out_and_a_writer_keeps_readers_out() {
    let place = Place::new().filled();
    let expected = answers(&place.read());
    let (first, second) = (place.read(), place.read());
    let gate = Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                gate.wait();
                assert_eq!(answers(&place.read()), expected);
            });
        }
    });
    drop(first);
    let error = small().open(place.path()).expect_err("a reader has it");
    assert!(matches!(&error, Error::Locked { path } if *path == place.path()), "{error}");
    assert_eq!(answers(&second), expected);
    second.close().unwrap();
    let writer = small().open(place.path()).unwrap();
    let error = Cloakroom::open_read_only(place.path()).expect_err("a writer has it");
    assert!(matches!(&error, Error::Locked { path } if *path == place.path()), "{error}");
    writer.handoff().set("state-01", &state(1), 600).wait().unwrap();
}

#[test]
fn a_file_that_is_missing_is_said_to_be_missing_and_is_not_created() {
    let place = Place::new();
    let error = Cloakroom::open_read_only(place.path()).expect_err("there is no file");
    match &error {
        Error::Io { source, .. } => assert_eq!(source.kind(), io::ErrorKind::NotFound),
        other => panic!("{other}"),
    }
    assert!(error.to_string().contains("edge.cloak"), "{error}");
    assert!(names(place.dir.path()).is_empty());
    assert!(matches!(small().read_only(true).open_in_memory(), Err(Error::InvalidConfig(_))));
}

#[test]
fn foreign_and_newer_files_are_refused_as_for_writing_and_empty_ones_for_reading() {
    let place = Place::new().filled();
    let whole = fs::read(place.path()).unwrap();
    let refusal = |bytes: &[u8]| {
        fs::write(place.path(), bytes).unwrap();
        let before = picture(&place.path());
        let read = Cloakroom::open_read_only(place.path()).expect_err("it is refused");
        let written = Cloakroom::open(place.path()).expect_err("it is refused");
        assert_eq!(read.to_string(), written.to_string());
        assert!(picture(&place.path()) == before, "the file was touched");
        read
    };
    // For writing, an empty file becomes a room.
    fs::write(place.path(), b"").unwrap();
    let error = Cloakroom::open_read_only(place.path()).expect_err("it holds no room");
    assert!(matches!(error, Error::NotCloakroom { .. }), "{error}");
    assert_eq!(fs::metadata(place.path()).unwrap().len(), 0, "the file was touched");
    assert!(matches!(refusal(b"#!/bin/sh\n"), Error::NotCloakroom { .. }));
    let mut newer = whole.clone();
    newer[8..12].copy_from_slice(&99_u32.to_le_bytes());
    let crc = crc32fast::hash(&newer[..BLOCK_SIZE - 4]);
    newer[BLOCK_SIZE - 4..BLOCK_SIZE].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(refusal(&newer), Error::UnsupportedVersion { found: 99, .. }));
    let mut damaged = whole;
    damaged[100] ^= 1;
    damaged[BLOCK_SIZE + 100] ^= 1;
    assert!(matches!(refusal(&damaged), Error::Corrupted { .. }));
    let error = Cloakroom::open_read_only(place.dir.path()).expect_err("a directory");
    assert!(matches!(error, Error::NotCloakroom { .. }), "{error}");
}

#[test]
fn a_copy_of_the_superblock_that_decayed_is_read_around_and_not_repaired() {
    let place = Place::new().filled();
    let expected = answers(&place.read());
    let mut bytes = fs::read(place.path()).unwrap();
    bytes[100] ^= 1;
    fs::write(place.path(), &bytes).unwrap();
    let before = picture(&place.path());
    assert_eq!(answers(&place.read()), expected);
    assert!(picture(&place.path()) == before, "the file was touched");
}

/// What a process that was killed leaves: frames in the log that no checkpoint has moved, some of
/// them not covered by a later durable LSN. Then the last frames are torn as a power failure would.
#[test]
fn a_read_only_opening_recovers_a_crash_in_memory_only() {
    let place = Place::new();
    let images = {
        let room = small().open(place.path()).unwrap();
        fill(&room);
        let relaxed = room.handoff().with_durability(Durability::Os);
        for number in 0..200_u64 {
            relaxed.set(&format!("late-{number}"), &state(number), 600).wait().unwrap();
        }
        let image = fs::read(place.path()).unwrap();
        room.close().unwrap();
        let torn = torn(&image);
        [image, torn]
    };
    let mut late = Vec::new();
    for image in images {
        let (crashed, copy) = (Place::new(), Place::new());
        fs::write(crashed.path(), &image).unwrap();
        fs::write(copy.path(), &image).unwrap();
        let before = picture(&crashed.path());
        let room = crashed.read();
        let read = (answers(&room), room.handoff().list(None, 1_000).wait().unwrap().items);
        room.close().unwrap();
        assert!(picture(&crashed.path()) == before, "the file was touched");
        let writer = small().open(copy.path()).unwrap();
        let written = (answers(&writer), writer.handoff().list(None, 1_000).wait().unwrap().items);
        assert_eq!(read, written);
        writer.close().unwrap();
        assert!(fs::read(copy.path()).unwrap() != image, "there was something to settle");
        late.push(read.1.len());
    }
    assert!(late[0] == 240 && (40..240).contains(&late[1]), "{late:?}");
}

/// The image with one of the last frames overwritten, and whole ones behind it.
fn torn(image: &[u8]) -> Vec<u8> {
    let mut torn = image.to_vec();
    let at = image
        .windows(8)
        .rposition(|window| window == b"late-150")
        .expect("the frame is in the log");
    torn[at] ^= 0xFF;
    torn
}

#[cfg(unix)]
#[test]
fn a_file_and_a_directory_that_may_not_be_written_are_enough() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let place = Place::new().filled();
    let expected = answers(&place.read());
    let mode =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(&place.path(), 0o400);
    mode(place.dir.path(), 0o500);
    let before = picture(&place.path());
    let read = answers(&place.read());
    // The superuser may write whatever the permissions are.
    let refused = (fs::metadata(place.path()).unwrap().uid() != 0)
        .then(|| Cloakroom::open(place.path()).err());
    mode(place.dir.path(), 0o700);
    assert_eq!(read, expected);
    assert!(picture(&place.path()) == before, "the file was touched");
    if let Some(error) = refused {
        assert!(
            matches!(&error, Some(Error::Io { source, .. })
            if source.kind() == io::ErrorKind::PermissionDenied),
            "{error:?}"
        );
    }
}

/// Every read of a file that is damaged answers as for a writing opener.
#[test]
fn a_damaged_row_is_an_error_for_its_readers_alone() {
    let place = Place::new();
    let room = small().open(place.path()).unwrap();
    for number in 0..400_u64 {
        let padded =
            serde_json::from_str(&format!(r#"{{"n": {number}, "pad": "{}"}}"#, "x".repeat(300)));
        room.handoff().set(&format!("state-{number:03}"), &padded.unwrap(), 600).wait().unwrap();
    }
    room.close().unwrap();
    let mut bytes = fs::read(place.path()).unwrap();
    // In the B-tree, where pages that were replaced may hold the row as well.
    let log_end = 2 * BLOCK_SIZE + usize::try_from(LONGEST_KEYS_LOG_CAPACITY).unwrap();
    let row = br#""n":200,"#;
    let places: Vec<_> =
        (log_end..bytes.len()).filter(|&at| bytes[at..].starts_with(row)).collect();
    places.iter().for_each(|&at| bytes[at + 4] ^= 1);
    fs::write(place.path(), &bytes).unwrap();
    let before = picture(&place.path());
    let room = place.read();
    let outcomes = (0..400).map(|number| room.handoff().get(&format!("state-{number:03}")).wait());
    let (mut intact, mut damaged) = (0, 0);
    for outcome in outcomes {
        match outcome {
            Ok(Some(_)) => intact += 1,
            Err(Error::Corrupted { .. }) => damaged += 1,
            other => panic!("{other:?}"),
        }
    }
    room.close().unwrap();
    assert!(damaged > 0 && intact > 200, "{intact} intact, {damaged} damaged");
    assert!(picture(&place.path()) == before, "the file was touched");
}
