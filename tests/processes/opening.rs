//! Opening and creating a room: who may, what is refused, and that a refusal leaves everything as
//! it was.

use crate::rooms::{consume, insert, names, small, state};
use cloakroom::form_token::TokenConsumeOutcome;
use cloakroom::handoff::HandoffStateStore;
use cloakroom::limits::{
    BLOCK_SIZE, DEFAULT_MAX_STATE_BYTES, LONGEST_KEYS_LOG_CAPACITY, MAX_LOG_CAPACITY,
    MIN_LOG_CAPACITY,
};
use cloakroom::{Cloakroom, Error};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

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

    /// A closed room with one state in it, and its bytes.
    fn with_room(self) -> (Self, Vec<u8>) {
        let room = small().open(self.path()).unwrap();
        room.handoff().set("kept", &state(7), 600).wait().unwrap();
        room.close().unwrap();
        let bytes = fs::read(self.path()).unwrap();
        (self, bytes)
    }
}

fn holds_the_state(room: &Cloakroom) {
    assert_eq!(room.handoff().get("kept").wait().unwrap(), Some(state(7)));
}

/// What must not change when a file is refused.
fn picture(path: &Path) -> (Vec<u8>, SystemTime, u32) {
    use std::os::unix::fs::PermissionsExt;
    let metadata = fs::metadata(path).unwrap();
    (fs::read(path).unwrap(), metadata.modified().unwrap(), metadata.permissions().mode())
}

/// Opens a file that must be refused, and checks that no one touched it or left anything beside it.
fn refused(path: &Path) -> Error {
    let before = picture(path);
    let names_before = names(path.parent().unwrap());
    let error = Cloakroom::open(path).expect_err("it must be refused");
    assert!(picture(path) == before, "the refused file was touched: {error}");
    assert_eq!(names(path.parent().unwrap()), names_before, "{error}");
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "the error names the file: {error}"
    );
    // A refusal does not keep the lock.
    File::open(path).unwrap().try_lock().unwrap();
    error
}

/// Recomputes the checksum of a superblock copy.
fn seal(copy: &mut [u8]) {
    let crc = crc32fast::hash(&copy[..BLOCK_SIZE - 4]);
    copy[BLOCK_SIZE - 4..BLOCK_SIZE].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_missing_file_is_created_and_an_existing_one_is_opened() {
    let place = Place::new();
    let room = Cloakroom::open(place.path()).unwrap();
    room.handoff().set("kept", &state(7), 600).wait().unwrap();
    room.close().unwrap();
    holds_the_state(&Cloakroom::open(place.path()).unwrap());
}

#[cfg(unix)]
#[test]
fn a_new_file_can_be_read_by_its_owner_only() {
    let place = Place::new();
    let _room = small().open(place.path()).unwrap();
    assert_eq!(picture(&place.path()).2 & 0o777, 0o600);
}

#[test]
fn no_other_file_ever_lies_beside_the_room() {
    let place = Place::new();
    let alone = || assert_eq!(names(place.dir.path()), ["edge.cloak"]);
    let room = small().open(place.path()).unwrap();
    alone();
    room.handoff().set("kept", &state(7), 600).wait().unwrap();
    alone();
    room.checkpoint().unwrap();
    alone();
    // What a process that was killed now would leave.
    let killed = tempfile::tempdir().unwrap();
    let copy = killed.path().join("edge.cloak");
    fs::copy(place.path(), &copy).unwrap();
    room.close().unwrap();
    alone();
    let room = small().open(place.path()).unwrap();
    insert(&room.form_tokens(), "t").wait().unwrap();
    drop(room);
    alone();
    let recovered = small().open(&copy).unwrap();
    holds_the_state(&recovered);
    drop(recovered);
    assert_eq!(names(killed.path()), ["edge.cloak"]);
}

#[test]
fn a_second_opener_gets_an_error_that_names_the_locked_file() {
    let place = Place::new();
    let room = small().open(place.path()).unwrap();
    let error = small().open(place.path()).unwrap_err();
    assert!(matches!(&error, Error::Locked { path } if *path == place.path()), "{error}");
    assert!(error.to_string().contains("edge.cloak"), "{error}");
    // The lock is the file's, whatever it is called by.
    let link = place.dir.path().join("link");
    std::os::unix::fs::symlink(place.path(), &link).unwrap();
    assert!(matches!(small().open(&link), Err(Error::Locked { path }) if path == link));
    room.handoff().set("kept", &state(7), 600).wait().unwrap();
}

#[test]
fn closing_frees_the_lock_while_old_handles_and_answers_live() {
    let place = Place::new();
    let room = small().open(place.path()).unwrap();
    let (clone, handoff, tokens) = (room.clone(), room.handoff(), room.form_tokens());
    let pending = handoff.set("kept", &state(7), 600);
    room.close().unwrap();
    let next = small().open(place.path()).unwrap();
    holds_the_state(&next);
    pending.wait().unwrap();
    // The old handles stay closed, and do not disturb the new room.
    assert!(matches!(handoff.set("kept", &state(8), 600).wait(), Err(Error::Closed)));
    assert!(matches!(consume(&tokens, "t").wait(), Err(Error::Closed)));
    assert!(matches!(clone.engine_stats(), Err(Error::Closed)));
    drop((room, clone, handoff, tokens));
    assert!(matches!(small().open(place.path()), Err(Error::Locked { .. })));
    holds_the_state(&next);
}

#[test]
fn dropping_the_last_handle_frees_the_lock_and_no_earlier() {
    let place = Place::new();
    let room = small().open(place.path()).unwrap();
    let handoff = room.handoff();
    drop(room);
    assert!(matches!(small().open(place.path()), Err(Error::Locked { .. })));
    handoff.set("kept", &state(7), 600).wait().unwrap();
    drop(handoff);
    holds_the_state(&small().open(place.path()).unwrap());
}

#[test]
fn foreign_files_are_refused_untouched() {
    let place = Place::new();
    let sqlite = [b"SQLite format 3\0".to_vec(), vec![0; 8_176]].concat();
    let text = b"Dear diary, today I opened a file.\n".repeat(1_000);
    let other_magic = [b"CLOAKRX\0".to_vec(), vec![0xAB; 100_000]].concat();
    for content in [&b"x"[..], b"CLOAKRM", &[0; 1 << 20], &text, &sqlite, &other_magic] {
        fs::write(place.path(), content).unwrap();
        let error = refused(&place.path());
        assert!(
            matches!(&error, Error::NotCloakroom { path, .. } if *path == place.path()),
            "{error}"
        );
    }
}

#[test]
fn a_directory_is_refused() {
    let place = Place::new();
    fs::create_dir(place.path()).unwrap();
    let error = Cloakroom::open(place.path()).unwrap_err();
    assert!(
        matches!(&error, Error::NotCloakroom { reason, .. } if reason.contains("directory")),
        "{error}"
    );
    assert!(names(&place.path()).is_empty());
}

#[test]
fn a_missing_directory_is_an_error_that_names_the_path() {
    let place = Place::new();
    let path = place.dir.path().join("no/edge.cloak");
    let error = Cloakroom::open(&path).unwrap_err();
    assert!(
        matches!(error, Error::Io { .. }) && error.to_string().contains("no/edge.cloak"),
        "{error}"
    );
    assert!(names(place.dir.path()).is_empty());
}

#[test]
fn a_newer_format_is_refused_untouched() {
    for copies in [&[0][..], &[1], &[0, 1]] {
        let (place, mut bytes) = Place::new().with_room();
        for copy in copies {
            let block = &mut bytes[copy * BLOCK_SIZE..(copy + 1) * BLOCK_SIZE];
            block[8..12].copy_from_slice(&77_u32.to_le_bytes());
            seal(block);
        }
        fs::write(place.path(), &bytes).unwrap();
        let error = refused(&place.path());
        assert!(
            matches!(&error, Error::UnsupportedVersion { path, found: 77, supported } if *path == place.path() && *supported < 77),
            "{error}"
        );
    }
}

#[test]
fn a_truncated_file_is_corrupted_and_untouched() {
    let (place, bytes) = Place::new().with_room();
    let btree = BLOCK_SIZE * 2 + LONGEST_KEYS_LOG_CAPACITY as usize;
    for len in [
        8,
        100,
        4_095,
        4_096,
        8_191,
        8_192,
        8_193,
        1 << 20,
        btree - 1,
        btree,
        btree + 4_096,
        btree + 16_384,
    ] {
        fs::write(place.path(), &bytes[..len]).unwrap();
        let error = refused_somehow(&place.path());
        assert!(matches!(error, Error::Corrupted { .. }), "cut at {len}: {error}");
    }
    let last = bytes.len() - 1;
    fs::write(place.path(), &bytes[..last]).unwrap();
    let error = refused_somehow(&place.path());
    assert!(matches!(error, Error::Corrupted { .. }), "cut at {last}: {error}");
}

/// As [`refused`], for damage inside, where the error names the place in the file.
fn refused_somehow(path: &Path) -> Error {
    let before = picture(path);
    let error = small().open(path).expect_err("it must be refused");
    assert!(picture(path) == before, "the refused file was touched: {error}");
    error
}

#[test]
fn a_flipped_byte_in_one_superblock_is_repaired_from_the_other() {
    let (place, bytes) = Place::new().with_room();
    for copy in [0, BLOCK_SIZE] {
        for at in [0, 7, 8, 12, 16, 33, 40, 48, 56, 64, 72, 2_000, 4_091, 4_092, 4_095] {
            let mut damaged = bytes.clone();
            damaged[copy + at] ^= 0x40;
            fs::write(place.path(), &damaged).unwrap();
            let room = small()
                .open(place.path())
                .unwrap_or_else(|error| panic!("byte {}: {error}", copy + at));
            holds_the_state(&room);
            drop(room);
            assert_eq!(
                fs::read(place.path()).unwrap()[..2 * BLOCK_SIZE],
                bytes[..2 * BLOCK_SIZE],
                "byte {at}"
            );
        }
    }
}

#[test]
fn damage_to_both_superblocks_is_refused_untouched() {
    let (place, bytes) = Place::new().with_room();
    for (a, b) in [(8, 8), (40, 56), (16, 4_095), (0, 100), (2_000, 2_000)] {
        let mut damaged = bytes.clone();
        damaged[a] ^= 1;
        damaged[BLOCK_SIZE + b] ^= 1;
        fs::write(place.path(), &damaged).unwrap();
        let error = refused(&place.path());
        assert!(matches!(error, Error::Corrupted { .. }), "bytes {a} and {b}: {error}");
    }
}

/// Whether this process may write where permission bits forbid it, as root may.
#[cfg(unix)]
fn permissions_do_not_bind(dir: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let probe = dir.join("probe");
    fs::write(&probe, b"").unwrap();
    fs::set_permissions(&probe, PermissionsExt::from_mode(0o400)).unwrap();
    let free = File::options().write(true).open(&probe).is_ok();
    fs::remove_file(&probe).unwrap();
    free
}

#[cfg(unix)]
#[test]
fn a_read_only_file_is_refused_with_advice() {
    use std::os::unix::fs::PermissionsExt;
    let (place, _) = Place::new().with_room();
    if permissions_do_not_bind(place.dir.path()) {
        return;
    }
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o400)).unwrap();
    let error = refused(&place.path());
    assert!(
        matches!(error, Error::Io { .. }) && error.to_string().contains("permission"),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn a_read_only_directory_takes_no_new_room_and_still_opens_an_old_one() {
    use std::os::unix::fs::PermissionsExt;
    let (place, _) = Place::new().with_room();
    if permissions_do_not_bind(place.dir.path()) {
        return;
    }
    fs::set_permissions(place.dir.path(), PermissionsExt::from_mode(0o500)).unwrap();
    holds_the_state(&small().open(place.path()).unwrap());
    let new = place.dir.path().join("new.cloak");
    let error = small().open(&new).unwrap_err();
    assert!(
        matches!(error, Error::Io { .. }) && error.to_string().contains("new.cloak"),
        "{error}"
    );
    fs::set_permissions(place.dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(names(place.dir.path()), ["edge.cloak"]);
}

#[cfg(unix)]
#[test]
fn a_symbolic_link_leads_to_the_room() {
    let (place, _) = Place::new().with_room();
    let link = place.dir.path().join("link.cloak");
    std::os::unix::fs::symlink("edge.cloak", &link).unwrap();
    holds_the_state(&small().open(&link).unwrap());
    assert!(link.is_symlink());
    // One that leads nowhere is not replaced.
    let dangling = place.dir.path().join("dangling.cloak");
    std::os::unix::fs::symlink("nowhere.cloak", &dangling).unwrap();
    let error = small().open(&dangling).unwrap_err();
    assert!(error.to_string().contains("dangling.cloak"), "{error}");
    assert!(dangling.is_symlink());
    assert!(!place.dir.path().join("nowhere.cloak").exists());
}

#[test]
fn a_log_capacity_out_of_range_is_invalid_and_creates_nothing() {
    let place = Place::new();
    for (bytes, valid) in [
        (0, false),
        (MIN_LOG_CAPACITY - 1, false),
        (MIN_LOG_CAPACITY, true),
        (MAX_LOG_CAPACITY + 1, false),
        (u64::MAX, false),
    ] {
        let outcome = Cloakroom::builder().log_capacity(bytes).open(place.path());
        assert_eq!(outcome.is_ok(), valid, "{bytes}");
        if let Err(error) = outcome {
            assert!(
                matches!(&error, Error::InvalidConfig(said) if said.contains(&bytes.to_string())),
                "{error}"
            );
            assert!(names(place.dir.path()).is_empty() || bytes > MIN_LOG_CAPACITY);
            assert!(matches!(
                Cloakroom::builder().log_capacity(bytes).open_in_memory(),
                Err(Error::InvalidConfig(_))
            ));
        }
    }
}

#[test]
fn any_cache_size_works() {
    for bytes in [0, 1, 4_096, u64::MAX] {
        let room = small().cache_size(bytes).open_in_memory().unwrap();
        room.handoff().set("kept", &state(7), 600).wait().unwrap();
        room.checkpoint().unwrap();
        holds_the_state(&room);
    }
}

#[test]
fn an_uneven_log_capacity_is_rounded_up_to_whole_blocks() {
    let place = Place::new();
    let room = small().log_capacity(LONGEST_KEYS_LOG_CAPACITY + 1).open(place.path()).unwrap();
    room.handoff().set("kept", &state(7), 600).wait().unwrap();
    drop(room);
    assert_eq!(segment_size(&place.path()) % BLOCK_SIZE as u64, 0);
    assert!(2 * segment_size(&place.path()) > LONGEST_KEYS_LOG_CAPACITY);
    holds_the_state(&small().open(place.path()).unwrap());
}

/// The size of a log segment as the superblock records it.
fn segment_size(path: &Path) -> u64 {
    u64::from_le_bytes(fs::read(path).unwrap()[40..48].try_into().unwrap())
}

#[test]
fn an_existing_file_keeps_the_log_it_was_created_with() {
    let (place, bytes) = Place::new().with_room();
    let room = small().log_capacity(8 * LONGEST_KEYS_LOG_CAPACITY).open(place.path()).unwrap();
    holds_the_state(&room);
    // A maximum that the wanted log could hold does not fit the one that is there.
    assert!(matches!(
        room.handoff().with_max_state_bytes(LONGEST_KEYS_LOG_CAPACITY).get("s").wait(),
        Err(Error::InvalidConfig(_))
    ));
    room.close().unwrap();
    assert_eq!(segment_size(&place.path()), LONGEST_KEYS_LOG_CAPACITY / 2);
    assert_eq!(fs::read(place.path()).unwrap()[..BLOCK_SIZE], bytes[..BLOCK_SIZE]);
}

#[test]
fn a_default_maximum_shrinks_to_a_small_log_and_one_that_was_asked_for_must_fit() {
    let room = small().open_in_memory().unwrap();
    let state = crate::rooms::state_of(DEFAULT_MAX_STATE_BYTES as usize);
    let error = room.handoff().set("big", &state, 600).wait().unwrap_err();
    assert!(
        matches!(error, Error::TooLarge { limit, .. } if limit < LONGEST_KEYS_LOG_CAPACITY / 2 && limit > 100_000),
        "{error}"
    );
    assert!(matches!(
        room.handoff().with_max_state_bytes(DEFAULT_MAX_STATE_BYTES).get("s").wait(),
        Err(Error::InvalidConfig(_))
    ));
    let zero = room.handoff().with_max_state_bytes(0).get("s").wait();
    assert!(matches!(zero, Err(Error::InvalidConfig(_))), "{zero:?}");
    // The default log holds the default maximum, asked for or not.
    let room = Cloakroom::builder().open_in_memory().unwrap();
    room.handoff().set("big", &state, 600).wait().unwrap();
    room.handoff().with_max_state_bytes(DEFAULT_MAX_STATE_BYTES).get("big").wait().unwrap();
}

#[test]
fn reopening_after_a_drop_without_close_finds_everything_acknowledged() {
    let place = Place::new();
    let room = small().open(place.path()).unwrap();
    let tokens = room.form_tokens();
    for number in 0..200 {
        insert(&tokens, &format!("{number:04x}")).wait().unwrap();
    }
    room.checkpoint().unwrap();
    let pending: Vec<_> =
        (0..100).map(|number| consume(&tokens, &format!("{number:04x}"))).collect();
    for pending in pending {
        assert_eq!(pending.wait().unwrap().0, TokenConsumeOutcome::Proceed);
    }
    // What a process that was killed here would leave, and what a drop leaves.
    let killed = place.dir.path().join("killed.cloak");
    fs::copy(place.path(), &killed).unwrap();
    drop((room, tokens));
    for path in [killed, place.path()] {
        let room = small().open(&path).unwrap();
        assert_eq!(room.form_tokens().stats().wait().unwrap().consumed, 100);
        for number in 0..200 {
            let expected = if number < 100 {
                TokenConsumeOutcome::Replay
            } else {
                TokenConsumeOutcome::Proceed
            };
            let outcome = consume(&room.form_tokens(), &format!("{number:04x}")).wait().unwrap().0;
            assert_eq!(outcome, expected, "{number} in {}", path.display());
        }
    }
}

/// What a child process does, by the name in the environment. As a test of its own it does nothing.
#[test]
fn child() {
    let Ok(task) = std::env::var("CLOAKROOM_TEST_CHILD") else { return };
    let path = std::env::var("CLOAKROOM_TEST_PATH").unwrap();
    let said = match (task.as_str(), small().open(&path)) {
        (_, Err(error)) => format!("said {error:?}"),
        ("open", Ok(room)) => {
            room.handoff().set("kept", &state(7), 600).wait().unwrap();
            "said opened".to_owned()
        }
        (_, Ok(room)) => {
            room.handoff().set("kept", &state(7), 600).wait().unwrap();
            println!("said holding");
            std::io::stdout().flush().unwrap();
            // Holds it until it is killed, or its parent is gone.
            let _ = std::io::stdin().lines().next();
            "said done".to_owned()
        }
    };
    println!("{said}");
}

fn spawn(task: &str, path: &Path, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "opening::child", "--nocapture", "--test-threads=1"])
        .env("CLOAKROOM_TEST_CHILD", task)
        .env("CLOAKROOM_TEST_PATH", path)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The next thing that a child says.
fn said(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let said =
        lines.find_map(|line| line.unwrap().split_once("said ").map(|(_, said)| said.to_owned()));
    said.expect("the child says something")
}

#[test]
fn a_second_process_is_refused_while_the_file_is_open() {
    let place = Place::new();
    let room = small().open(place.path()).unwrap();
    let mut child = spawn("open", &place.path(), place.dir.path());
    let answer = said(&mut child);
    assert!(answer.starts_with("Locked") && answer.contains("edge.cloak"), "{answer}");
    child.wait().unwrap();
    room.close().unwrap();
    let mut child = spawn("open", &place.path(), place.dir.path());
    assert_eq!(said(&mut child), "opened");
    child.wait().unwrap();
}

#[test]
fn the_lock_of_a_killed_process_is_free_and_its_acknowledged_writes_are_there() {
    let place = Place::new();
    let mut child = spawn("hold", &place.path(), place.dir.path());
    assert_eq!(said(&mut child), "holding");
    assert!(matches!(small().open(place.path()), Err(Error::Locked { .. })));
    child.kill().unwrap();
    child.wait().unwrap();
    holds_the_state(&small().open(place.path()).unwrap());
    assert_eq!(names(place.dir.path()), ["edge.cloak"]);
}

#[test]
fn a_bare_name_is_a_file_in_the_current_directory() {
    let place = Place::new();
    for _ in 0..2 {
        let mut child = spawn("open", Path::new("edge.cloak"), place.dir.path());
        assert_eq!(said(&mut child), "opened");
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(names(place.dir.path()), ["edge.cloak"]);
    holds_the_state(&small().open(place.path()).unwrap());
}
