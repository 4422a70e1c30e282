//! Files of this format version that earlier builds wrote, and of older versions: both are opened,
//! answer as they did, and go on.
//!
//! `tests/golden` holds a file of each version, as text: a line for every 32 bytes that are not all
//! zero. It was left by a process that was killed, so half of its rows are in the log. Beside it is
//! what an export of it answers. A file is written once, with the release of its version, and never
//! changed: a build that reads it differently is wrong. `CLOAKROOM_GOLDEN=write cargo test
//! --all-features --test tools -- --ignored` writes those of the present version.

use crate::all_stores::dump::{Dump, event_id, go_on};
use crate::all_stores::ops::{Op, identity, issue, kind, lookup_key, name};
use crate::rooms::{block_on, names};
use cloakroom::adaptive_rate_limit::Priority;
use cloakroom::cache::CacheStore;
use cloakroom::dedupe::{DedupeStore, JobState};
use cloakroom::form_token::{FormTokenStore, TokenConsumeOutcome, TokenSubject};
use cloakroom::handoff::HandoffStateStore;
use cloakroom::rate_limit::{RateLimitConfig, RateLimitStore};
use cloakroom::state::{StateRecord, StateStore};
use cloakroom::testing::{SimStorage, write_version_1};
use cloakroom::{Cloakroom, Durability, Error, ManualClock};
use codlet::store::{ClaimRequest, CodeRecord, CodeStore, SessionRecord, SessionStore};
use codlet::{
    ClaimOutcome, CodeId, KeyVersion, RateLimitKey, RateLimitOutcome, RateLimitPolicy,
    RateLimitUnavailable, SecretDomain, SecretHasher, SessionId, StaticKeyProvider, SubjectId,
};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// When the file was written, in milliseconds since the Unix epoch.
const WRITTEN_MS: u64 = 1_700_000_000_000;
const WRITTEN: u64 = WRITTEN_MS / 1_000;
const LOG_CAPACITY: u64 = 64 << 10;
/// How many bytes a line of a golden file stands for.
const LINE: usize = 32;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn options(now_ms: u64) -> cloakroom::Builder {
    let clock = Arc::new(ManualClock::new(now_ms));
    Cloakroom::builder()
        .without_threads()
        .log_capacity(LOG_CAPACITY)
        .cache_size(1 << 20)
        .clock(clock)
}

fn save(user: u8, state_kind: u8, event: u64, bytes: &str) -> Op {
    let mut record = StateRecord::new(identity(user, ""), kind(state_kind), bytes);
    record.id = event_id(event);
    Op::Save(record)
}

fn state_of(number: u64) -> cloakroom::handoff::JsonObject {
    crate::rooms::state(number)
}

fn code(id: &str) -> CodeRecord {
    CodeRecord {
        id: CodeId::new(id.into()),
        lookup_key: codlet_key(id),
        key_version: KeyVersion::new("1"),
        purpose: Some("invite".into()),
        scope: None,
        grant: Some("guest".into()),
        created_at: WRITTEN,
        expires_at: WRITTEN + 3_600,
    }
}

fn session(id: &str) -> SessionRecord {
    SessionRecord {
        id: SessionId::new(id.into()),
        lookup_key: codlet_key(id),
        key_version: KeyVersion::new("1"),
        subject: SubjectId::new("ada".into()),
        created_at: WRITTEN,
        expires_at: WRITTEN + 3_600,
    }
}

fn codlet_key(id: &str) -> codlet::LookupKey {
    let hasher =
        SecretHasher::new(StaticKeyProvider::new("1".to_owned(), vec![1; 32], vec![]).unwrap());
    hasher.lookup_key(SecretDomain::Code, id).unwrap().0
}

fn guesses() -> RateLimitPolicy {
    RateLimitPolicy {
        max_failures: 2,
        window: Duration::from_secs(300),
        unavailable: RateLimitUnavailable::FailClosed,
    }
}

fn make(room: &Cloakroom, ops: Vec<Op>) {
    for op in ops {
        issue(room, &op, Durability::Sync)()
            .map(drop)
            .unwrap_or_else(|failure| panic!("{op:?}: {failure:?}"));
    }
}

/// What is in the B-tree of the golden file.
fn fill(room: &Cloakroom) {
    let value = |text: &str| text.to_owned();
    let config = RateLimitConfig { limit: 3, window: Duration::from_secs(40) };
    let expires_at = WRITTEN + 3_600;
    make(
        room,
        vec![
            Op::Insert { key: 0, serial: 10, expires_at },
            Op::Insert { key: 1, serial: 11, expires_at },
            Op::Insert { key: 2, serial: 12, expires_at },
            Op::Consume { key: 1, now: WRITTEN },
            Op::SetResult { key: 1, serial: 21 },
            Op::Set { id: 0, value: state_of(0), ttl_seconds: 3_600 },
            Op::Set { id: 1, value: state_of(1), ttl_seconds: 3_600 },
            Op::Set { id: 2, value: state_of(2), ttl_seconds: 3_600 },
            Op::Claim { id: 1, lease_ms: 60_000 },
            Op::CacheTagged {
                cache: 0,
                hash: 0,
                value: value("tagged"),
                ttl_seconds: 600,
                tags: vec![0, 1],
            },
            Op::CacheSet { cache: 0, hash: 1, value: value("for ever"), ttl_seconds: 0 },
            Op::CacheSet { cache: 0, hash: 2, value: value("deleted later"), ttl_seconds: 0 },
            Op::CacheTagged {
                cache: 1,
                hash: 3,
                value: value("limited"),
                ttl_seconds: 0,
                tags: vec![2],
            },
            Op::Register { job: 0 },
            Op::Register { job: 1 },
            Op::Complete { job: 1, value: value("done") },
            Op::Register { job: 2 },
            Op::Fail { job: 2, serial: 5 },
            Op::Acquire { resource: 0 },
            Op::Record { resource: 1 },
            Op::Configure { resource: 1, config },
            Op::Cooldown { origin: 0, until: WRITTEN_MS + 50_000 },
            Op::AdaptiveAcquire { resource: 0, priority: Priority::User },
            Op::AdaptiveRecord { resource: 1, priority: Priority::Background },
            Op::AdaptiveConfigure { resource: 1, config },
            Op::AdaptiveCooldown { origin: 1, until: WRITTEN_MS + 60_000 },
            save(0, 0, 1, "first"),
            save(0, 1, 2, "second"),
            save(1, 0, 3, "third"),
        ],
    );
    let codlet = room.codlet();
    block_on(codlet.insert_code(code("code a"))).unwrap();
    block_on(codlet.insert_code(code("code b"))).unwrap();
    block_on(codlet.insert_session(session("session a"))).unwrap();
    block_on(codlet::RateLimitStore::record_failure(&codlet, &guest(), &guesses())).unwrap();
}

/// What is in its log alone: rows beside those, over those, and the absence of some.
fn go_over(room: &Cloakroom) {
    let value = |text: &str| text.to_owned();
    make(
        room,
        vec![
            Op::Insert { key: 3, serial: 13, expires_at: WRITTEN + 7_200 },
            Op::Consume { key: 0, now: WRITTEN + 1 },
            Op::Take { id: 2 },
            Op::Set { id: 3, value: state_of(3), ttl_seconds: 7_200 },
            Op::CacheTagged {
                cache: 0,
                hash: 0,
                value: value("again"),
                ttl_seconds: 900,
                tags: vec![1, 2],
            },
            Op::CacheDelete { cache: 0, hash: 2 },
            Op::CacheTagged {
                cache: 1,
                hash: 4,
                value: value("second"),
                ttl_seconds: 0,
                tags: vec![2],
            },
            Op::Complete { job: 0, value: value("late") },
            Op::Register { job: 3 },
            Op::Acquire { resource: 0 },
            Op::AdaptiveRecord { resource: 0, priority: Priority::User },
            save(0, 0, 4, "first again"),
            Op::DeleteState { identity: identity(1, ""), kind: kind(0) },
            save(1, 1, 5, "fifth"),
        ],
    );
    let codlet = room.codlet();
    block_on(codlet.revoke_code(&CodeId::new("code b".into()), None, WRITTEN)).unwrap();
    block_on(codlet.insert_session(session("session b"))).unwrap();
    block_on(codlet::RateLimitStore::record_failure(&codlet, &guest(), &guesses())).unwrap();
}

fn guest() -> RateLimitKey {
    RateLimitKey::new("203.0.113.7")
}

/// The bytes that a process leaves which fills a room and is killed.
fn left_by_a_process() -> Vec<u8> {
    let storage = SimStorage::new(1);
    let room = options(WRITTEN_MS).open_on(Arc::new(storage.clone())).unwrap();
    fill(&room);
    let replaced = StateRecord::new(identity(1, "late"), kind(0), *b"step 0").with_id("late");
    let states = room.state().with_late_window(Duration::from_secs(600));
    states.save(replaced.clone()).wait().unwrap();
    states.delete(&replaced.identity, &replaced.kind).wait().unwrap();
    room.checkpoint().unwrap();
    go_over(&room);
    storage.process_crash_image()
}

fn as_text(bytes: &[u8]) -> String {
    let mut text = format!("length {}\n", bytes.len());
    for (number, line) in bytes.chunks(LINE).enumerate() {
        let end = line.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if end > 0 {
            write!(text, "{:x} ", number * LINE).unwrap();
            line[..end].iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
            text.push('\n');
        }
    }
    text
}

fn from_text(text: &str) -> Vec<u8> {
    let mut lines = text.lines();
    let length = lines.next().unwrap().strip_prefix("length ").unwrap();
    let mut bytes = vec![0; length.parse().unwrap()];
    for line in lines {
        let (offset, content) = line.split_once(' ').unwrap();
        let offset = usize::from_str_radix(offset, 16).unwrap();
        for (place, pair) in content.as_bytes().chunks(2).enumerate() {
            bytes[offset + place] =
                u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        }
    }
    bytes
}

fn export(room: &Cloakroom) -> String {
    let mut lines = Vec::new();
    room.export(&mut lines).unwrap();
    String::from_utf8(lines).unwrap()
}

/// A copy of the golden file in a directory of its own.
fn copy_of_golden() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.cloak");
    fs::write(&path, from_text(&fs::read_to_string(golden("version-2.hex")).unwrap())).unwrap();
    (dir, path)
}

/// The answers that the writer of the file would have had, one or more of every store.
fn check_answers(room: &Cloakroom) {
    let (tokens, subject) = (room.form_tokens(), TokenSubject::Anonymous);
    let consume = |key| {
        tokens
            .consume_form_token(&lookup_key(key), &subject, "pay", None, WRITTEN + 2)
            .wait()
            .unwrap()
    };
    assert_eq!(consume(0), (TokenConsumeOutcome::Replay, None));
    assert_eq!(consume(1), (TokenConsumeOutcome::Replay, Some("result 21".into())));
    assert_eq!(consume(2).0, TokenConsumeOutcome::Proceed);
    assert_eq!(consume(3).0, TokenConsumeOutcome::Proceed);

    let handoff = room.handoff();
    let taken = |id| handoff.get_and_delete(&name(id)).wait().unwrap();
    let claim = handoff.claim(&name(1), Duration::from_secs(1)).wait().unwrap();
    assert!(claim.is_none(), "the lease of another claim runs: {claim:?}");
    assert_eq!([taken(0), taken(2), taken(3)], [Some(state_of(0)), None, Some(state_of(3))]);

    let cache = room.cache::<String>("free");
    let cached = |hash| cache.get(&name(hash)).wait().unwrap();
    assert_eq!(
        [cached(0), cached(1), cached(2)],
        [Some("again".into()), Some("for ever".into()), None]
    );
    assert_eq!(cache.invalidate_by_tag(&name(0)).wait().unwrap(), 0);
    assert_eq!(cache.invalidate_by_tag(&name(2)).wait().unwrap(), 1);

    let jobs = room.dedupe::<String>("jobs");
    let done = |job| jobs.wait_for(&name(job)).wait().unwrap();
    assert_eq!([done(0), done(1)], [Some("late".to_owned()), Some("done".to_owned())]);
    let listed = jobs.list(None, 10).wait().unwrap().items;
    let failed = |job: u8| {
        let entry = listed.iter().find(|entry| entry.hash == name(job)).unwrap();
        matches!(&entry.state, JobState::Failed { error } if (job == 2) == (error == "error 5"))
    };
    assert!(failed(2) && failed(3), "one failed, and one was left pending: {listed:?}");

    let rates = crate::all_stores::ops::rates(room, Durability::Sync);
    assert_eq!(rates.status(&name(0)).wait().unwrap().remaining, 3);
    assert_eq!(rates.cooldown(&name(0)).wait().unwrap(), Some(WRITTEN_MS + 50_000));
    let config = RateLimitConfig { limit: 3, window: Duration::from_secs(40) };
    assert_eq!(rates.resource_config(&name(1)).wait().unwrap(), config);

    let states = room.state();
    let saved = |user, state_kind| states.load(&identity(user, ""), &kind(state_kind)).wait();
    assert_eq!(saved(0, 0).unwrap().id, event_id(4));
    assert!(saved(1, 0).is_err());
    assert_eq!(states.load_by_event_id(&event_id(5)).wait().unwrap().identity, identity(1, ""));
    assert!(states.load_by_event_id(&event_id(1)).wait().is_err());

    let codlet = room.codlet();
    let found = |id: &str| block_on(codlet.lookup_code(&[codlet_key(id)], None)).unwrap().unwrap();
    let ada = SubjectId::new("ada".into());
    let claim = |id: &str| {
        let code_id = found(id).id;
        let request = ClaimRequest {
            code_id: &code_id,
            subject: &ada,
            now: WRITTEN + 2,
            purpose: Some("invite"),
            scope: None,
        };
        block_on(codlet.claim_code(&request)).unwrap()
    };
    assert!(matches!(claim("code a"), ClaimOutcome::Won));
    assert!(!matches!(claim("code b"), ClaimOutcome::Won), "it was revoked");
    for id in ["session a", "session b"] {
        assert!(block_on(codlet.lookup_session(&[codlet_key(id)])).unwrap().is_some());
    }
    let guess = block_on(codlet::RateLimitStore::check(&codlet, &guest(), &guesses())).unwrap();
    assert!(!matches!(guess, RateLimitOutcome::Allow), "two guesses failed");
}

#[test]
fn a_file_of_version_2_opens_and_answers_as_it_did() {
    let (dir, path) = copy_of_golden();
    let room = options(WRITTEN_MS).open(&path).unwrap();
    let stats = room.engine_stats().unwrap();
    assert!(stats.checkpoint_lsn > 20 && stats.newest_lsn > stats.checkpoint_lsn + 10, "{stats:?}");
    let empty: Vec<_> =
        room.tables().unwrap().into_iter().filter(|table| table.rows == 0).collect();
    assert!(empty.is_empty(), "{empty:?}");

    // A room that this build fills in the same way holds the same.
    let fresh = SimStorage::from_image(left_by_a_process(), 2);
    let fresh = options(WRITTEN_MS).open_on(Arc::new(fresh)).unwrap();
    let (found, expected) = (Dump::of(&room).unwrap(), Dump::of(&fresh).unwrap());
    assert!(found == expected, "it differs {}", found.difference(&expected));
    let answers = fs::read_to_string(golden("version-2.jsonl")).unwrap();
    assert_eq!(export(&room), answers);
    check_answers(&room);

    // Writing goes on, and is there when it is opened once more.
    Dump::of(&room).unwrap().check_ways(&room, 5).unwrap();
    go_on(&room).unwrap();
    let before = Dump::of(&room).unwrap();
    room.close().unwrap();
    let room = options(WRITTEN_MS).open(&path).unwrap();
    let after = Dump::of(&room).unwrap();
    assert!(after == before, "opened again it differs {}", after.difference(&before));
    assert_eq!(names(dir.path()), ["edge.cloak"]);
}

#[test]
fn a_file_of_version_2_can_be_read_without_a_change_and_backed_up() {
    let (dir, path) = copy_of_golden();
    let before = fs::read(&path).unwrap();
    let room = options(WRITTEN_MS).read_only(true).open(&path).unwrap();
    let answers = fs::read_to_string(golden("version-2.jsonl")).unwrap();
    assert_eq!(export(&room), answers);
    let backup = dir.path().join("backup.cloak");
    room.backup(&backup).unwrap();
    room.close().unwrap();
    assert!(fs::read(&path).unwrap() == before);
    let restored = options(WRITTEN_MS).open(&backup).unwrap();
    assert_eq!(export(&restored), answers);
    check_answers(&restored);
}

#[test]
fn the_text_of_a_file_is_the_file() {
    let mut bytes = vec![0; 3 * LINE + 5];
    assert_eq!(as_text(&bytes), "length 101\n");
    bytes[LINE] = 1;
    bytes[LINE + 2] = 0xAB;
    bytes[3 * LINE + 4] = 7;
    assert_eq!(as_text(&bytes), "length 101\n20 0100ab\n60 0000000007\n");
    assert_eq!(from_text(&as_text(&bytes)), bytes);
}

/// A room of version 1 in a directory of its own, and what the room it was made of exports.
fn version_1() -> (tempfile::TempDir, PathBuf, String) {
    let (dir, path) = copy_of_golden();
    let answers = fs::read_to_string(golden("version-2.jsonl")).unwrap();
    let old = dir.path().join("old.cloak");
    write_version_1(&path, &old).unwrap();
    fs::remove_file(&path).unwrap();
    (dir, old, answers)
}

#[test]
fn a_file_of_a_made_up_older_version_is_brought_up_to_date_when_it_is_opened() {
    let (dir, path, answers) = version_1();
    assert_eq!(fs::read(&path).unwrap()[8], 1);
    let room = options(WRITTEN_MS).open(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap()[8], 2);
    assert_eq!(names(dir.path()), ["old.cloak"]);
    assert_eq!(export(&room), answers);
    check_answers(&room);
    Dump::of(&room).unwrap().check_ways(&room, 5).unwrap();
    go_on(&room).unwrap();
    let dump = Dump::of(&room).unwrap();
    room.close().unwrap();
    let room = options(WRITTEN_MS).open(&path).unwrap();
    let again = Dump::of(&room).unwrap();
    assert!(again == dump, "opened again it differs {}", again.difference(&dump));
}

#[test]
fn an_older_file_is_not_touched_by_reading_and_is_replaced_by_a_backup_of_the_same_room() {
    let (dir, path, _) = version_1();
    let before = fs::read(&path).unwrap();
    match options(WRITTEN_MS).read_only(true).open(&path).map(drop) {
        Err(error @ Error::OutdatedVersion { found: 1, current: 2, .. }) => {
            assert!(error.to_string().contains("once for writing"), "{error}");
        }
        outcome => panic!("{outcome:?}"),
    }
    assert!(fs::read(&path).unwrap() == before);

    let earlier = dir.path().join("backup.cloak");
    fs::copy(&path, &earlier).unwrap();
    let room = options(WRITTEN_MS).open(&path).unwrap();
    room.backup(&earlier).unwrap();
    let restored = options(WRITTEN_MS).open(&earlier).unwrap();
    assert_eq!(export(&restored), export(&room));
    assert_eq!(names(dir.path()), ["backup.cloak", "old.cloak"]);
}

#[cfg(unix)]
#[test]
fn an_older_file_that_cannot_have_a_second_one_beside_it_stays_as_it_is() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, path, answers) = version_1();
    let before = fs::read(&path).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).unwrap();
    let outcome = options(WRITTEN_MS).open(&path);
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    // Who may do anything may write there all the same.
    if let Err(error) = outcome.map(drop) {
        assert!(error.to_string().contains("the file is as it was"), "{error}");
        assert!(fs::read(&path).unwrap() == before);
    }
    let room = options(WRITTEN_MS).open(&path).unwrap();
    assert_eq!(export(&room), answers);
    assert_eq!(names(dir.path()), ["old.cloak"]);
}

#[test]
#[ignore = "writes the golden files"]
fn write_the_golden_files() {
    match std::env::var("CLOAKROOM_GOLDEN").as_deref() {
        Ok("write") => {
            fs::create_dir_all(golden("")).unwrap();
            fs::write(golden("version-2.hex"), as_text(&left_by_a_process())).unwrap();
        }
        // Of the file that is there, when only what an export says has changed.
        Ok("answers") => {}
        _ => return,
    }
    let (_dir, path) = copy_of_golden();
    let room = options(WRITTEN_MS).open(&path).unwrap();
    fs::write(golden("version-2.jsonl"), export(&room)).unwrap();
}
