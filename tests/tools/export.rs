//! Exports: an import makes the same room of them, the lines never change, and what is no export is
//! refused where it stops being one.

use crate::all_stores::dump::{Dump, go_on};
use crate::all_stores::history::{History, new_clock, open};
use crate::all_stores::ops::{HASHES, JOBS, Op, RESOURCES, TOKENS, issue};
use crate::scale::scaled;
use cloakroom::adaptive_rate_limit::{AdaptiveConfig, AdaptiveRateLimitStore, Priority};
use cloakroom::cache::{Bytes, CacheStore};
use cloakroom::dedupe::{DedupeStore, JobState};
use cloakroom::form_token::{FormTokenStore, LookupKey, TokenConsumeOutcome, TokenSubject};
use cloakroom::handoff::HandoffStateStore;
use cloakroom::rate_limit::{RateLimitConfig, RateLimitStore};
use cloakroom::state::{Identity, StateStore};
use cloakroom::testing::SimStorage;
use cloakroom::{Cloakroom, Durability, Error, ManualClock};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{self, BufReader, Read, Write};
use std::sync::Arc;
use std::time::Duration;

/// Every kind of line, with every value a field may have. Never to be changed: exports that were
/// made stay readable, and programs read them.
const LINES: &str = include_str!("../exports/golden.jsonl");

/// When the golden lines are looked at: before anything in them has expired, but for what is meant
/// to have.
const NOW_MS: u64 = 1_700_000_000_000;

fn memory(clock: &Arc<ManualClock>) -> Cloakroom {
    Cloakroom::builder().without_threads().clock(clock.clone()).open_in_memory().unwrap()
}

fn export(room: &Cloakroom) -> String {
    let mut lines = Vec::new();
    let report = room.export(&mut lines).unwrap();
    let text = String::from_utf8(lines).unwrap();
    assert_eq!(report.bytes, text.len() as u64);
    assert_eq!(report.entries + 2, text.lines().count() as u64);
    assert_eq!(report.by_kind.values().sum::<u64>(), report.entries);
    text
}

fn import(room: &Cloakroom, text: &str) -> Result<cloakroom::tools::ImportReport, Error> {
    room.import(&mut text.as_bytes())
}

/// The entries between header and end.
fn export_of(entries: &[&str]) -> String {
    let mut text = String::from("{\"cloakroom_export\":1}\n");
    for entry in entries {
        text.push_str(entry);
        text.push('\n');
    }
    text + &format!("{{\"cloakroom_export_end\":{}}}\n", entries.len())
}

fn golden_room() -> Cloakroom {
    let room = memory(&Arc::new(ManualClock::new(NOW_MS)));
    let report = import(&room, LINES).unwrap();
    assert_eq!(report.bytes, LINES.len() as u64);
    assert_eq!(report.entries + 2, LINES.lines().count() as u64);
    room
}

/// Nothing is wrong with the room, and what is swept of it is what is swept of the other.
fn check_rows(copy: &Cloakroom, room: &Cloakroom) {
    assert_eq!(copy.verify().unwrap().findings, []);
    room.sweep().unwrap();
    copy.sweep().unwrap();
    assert_eq!(copy.verify().unwrap().findings, []);
    // What was begun anew in each is called differently, and the place in the index of a window
    // tells whether it had garbage.
    let lines = |room| {
        let text = export(room);
        let entries =
            text.lines().filter(|line| line.contains("\"entry\"") && !line.contains("dedupe_job"));
        entries
            .map(|line| {
                let mut entry = entry(line);
                entry["indexed_at_ms"] = Value::Null;
                entry
            })
            .collect()
    };
    let (copied, lines): (Vec<_>, Vec<_>) = (lines(copy), lines(room));
    let differing: Vec<_> =
        copied.iter().zip(&lines).filter(|(copied, line)| copied != line).collect();
    assert!(copied == lines, "{differing:#?}");
}

/// The rows of a derived table.
fn derived(room: &Cloakroom, table: &str) -> BTreeSet<String> {
    let mut rows = BTreeSet::new();
    room.dump(table, &mut |mut row| {
        assert_eq!(row.note, None);
        if row.key["table"] == "form_token" {
            // A consumed one may have been filed again by a sweep, and is not yet in an import.
            row.key["time_ms"] = Value::Null;
        }
        // Those of limiters that a clear has forgotten are not exported.
        if !row.key["table"].as_str().is_some_and(|table| table.contains("rate_limit")) {
            rows.insert(row.to_json().to_string());
        }
        true
    })
    .unwrap();
    rows
}

/// Answers of limiters and caches that depend on more than their listings tell, and change what
/// comes after.
fn use_both(rooms: [&Cloakroom; 2], random: &mut fastrand::Rng) {
    let number = |below: u8, random: &mut fastrand::Rng| random.u8(0..below);
    let priority = if random.bool() { Priority::User } else { Priority::Background };
    let op = match random.u32(0..9) {
        0 => Op::Acquire { resource: number(RESOURCES, random) },
        1 => Op::Record { resource: number(RESOURCES, random) },
        2 => Op::AdaptiveAcquire { resource: number(RESOURCES, random), priority },
        3 => Op::AdaptiveStatus { resource: number(RESOURCES, random) },
        4 => Op::Consume { key: number(TOKENS, random), now: 1_700_000_000 },
        5 => Op::CacheSet {
            cache: 1,
            hash: number(HASHES, random),
            value: "later".into(),
            ttl_seconds: 9,
        },
        6 => Op::Register { job: number(JOBS, random) },
        7 => Op::Configure {
            resource: number(RESOURCES, random),
            config: RateLimitConfig {
                limit: random.u64(1..9),
                window: Duration::from_secs(random.u64(1..200)),
            },
        },
        _ => Op::AdaptiveRecord { resource: number(RESOURCES, random), priority },
    };
    for room in rooms {
        issue(room, &op, Durability::Sync)().unwrap();
    }
}

#[test]
fn an_import_of_any_room_is_the_same_room() {
    let mut filled = [0; 9];
    for seed in 0..16 {
        let storage = SimStorage::new(seed);
        open(&storage, &new_clock()).unwrap().close().unwrap();
        let mut history = History::new(seed, &storage.process_crash_image(), false);
        history.run(40 + usize::try_from(seed).unwrap() * 6);
        let text = export(&history.room);
        // The order of use is in memory only, so the room is compared with what it is after the
        // next opening.
        history.room.close().unwrap();
        let room = open(&history.storage, &history.clock).unwrap();
        assert_eq!(export(&room), text, "seed {seed}: closing and opening changed the export");

        let target = SimStorage::new(seed);
        let copy = open(&target, &history.clock).unwrap();
        import(&copy, &text).unwrap_or_else(|error| panic!("seed {seed}: {error}\n{text}"));
        assert_eq!(export(&copy), text, "seed {seed}");
        for table in copy.tables().unwrap().iter().filter(|table| table.is_derived) {
            assert_eq!(
                derived(&copy, table.name),
                derived(&room, table.name),
                "seed {seed}: {}",
                table.name
            );
        }
        let mut random = fastrand::Rng::with_seed(seed);
        for step in 0..40 {
            let [ours, theirs] = [&room, &copy].map(|room| Dump::of(room).unwrap());
            filled = std::array::from_fn(|at| filled[at].max(ours.filled()[at]));
            assert!(ours == theirs, "seed {seed}, step {step}: {}", theirs.difference(&ours));
            use_both([&room, &copy], &mut random);
            history.clock.advance(Duration::from_millis(random.u64(0..4_000)));
        }
        check_rows(&copy, &room);
        let text = export(&copy);
        copy.close().unwrap();
        let copy = open(&target, &history.clock).unwrap();
        assert_eq!(export(&copy), text, "seed {seed}: an import is not durable");
        let dump = Dump::of(&copy).unwrap();
        dump.check_ways(&copy, history.events)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        go_on(&copy).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    assert!(filled.iter().all(|most| *most > 0), "some store was never filled: {filled:?}");
}

#[test]
fn the_lines_are_frozen() {
    let room = golden_room();
    assert_eq!(export(&room), LINES);
    assert_eq!(room.verify().unwrap().findings, []);
    let kinds: BTreeSet<_> =
        LINES.lines().filter_map(|line| Some(entry(line)["entry"].as_str()?.to_owned())).collect();
    assert_eq!(kinds.len(), 13, "a kind of line is not among the golden ones: {kinds:?}");
}

#[test]
fn every_kind_and_field_is_documented() {
    fn fields<'a>(value: &'a Value, names: &mut BTreeSet<&'a str>) {
        for (name, value) in value.as_object().into_iter().flatten() {
            names.insert(name);
            if ["use", "claim"].contains(&name.as_str()) {
                fields(value, names);
            }
        }
    }
    let design = include_str!("../../docs/export.md");
    let entries: Vec<_> =
        LINES.lines().filter(|line| line.contains("\"entry\"")).map(entry).collect();
    for entry in &entries {
        let mut names = BTreeSet::from([entry["entry"].as_str().unwrap()]);
        fields(entry, &mut names);
        for name in
            names.into_iter().filter(|name| !["state_base64", "value_base64"].contains(name))
        {
            assert!(
                design.contains(&format!("`{name}`")),
                "`{name}` of {entry} is not in docs/export.md"
            );
        }
    }
}

fn entry(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

#[test]
fn the_golden_lines_answer_as_they_say() {
    let room = golden_room();
    let tokens = room.form_tokens();
    let consume = |key: &str, subject, resource| {
        tokens
            .consume_form_token(&LookupKey::new(key), &subject, "pay", resource, NOW_MS / 1_000)
            .wait()
            .unwrap()
    };
    let flow = TokenSubject::Flow("f-1".into());
    assert_eq!(consume("00ff", flow.clone(), Some("cart")), (TokenConsumeOutcome::Proceed, None));
    let user = TokenSubject::Authenticated("é\"\n".into());
    assert_eq!(
        consume("no hex", user, None),
        (TokenConsumeOutcome::Replay, Some("receipt".into()))
    );
    assert_eq!(consume("", TokenSubject::Anonymous, None), (TokenConsumeOutcome::Invalid, None));

    let handoff = room.handoff();
    let state = handoff.get("order-7").wait().unwrap().unwrap();
    assert_eq!(state["amount"], 12.5);
    assert_eq!(handoff.get("order-8").wait().unwrap(), None, "it is claimed");
    assert!(handoff.ack(&"01ARZ3NDEKTSV4RRFFQ69G5FAV.order-8".parse().unwrap()).wait().unwrap());
    assert_eq!(
        handoff.get("order-9").wait().unwrap().unwrap()["lines"],
        2,
        "it was stored on two lines"
    );

    let cache = room.cache::<Vec<u32>>("primes");
    assert_eq!(cache.get("b").wait().unwrap(), Some(vec![2, 3]));
    assert_eq!(cache.get("late").wait().unwrap(), None, "it has expired");
    let bytes = room.cache::<Bytes>("primes");
    assert_eq!(bytes.get("raw").wait().unwrap().as_deref(), Some(&b"\xff\0[1]"[..]));
    assert_eq!(cache.invalidate_by_tag("odd").wait().unwrap(), 2);
    assert_eq!(cache.get("b").wait().unwrap(), None);
    assert_eq!(bytes.get("raw").wait().unwrap(), None);

    let jobs = room.dedupe::<u32>("fetch");
    assert_eq!(jobs.wait_for("done").wait().unwrap(), Some(7));
    assert_eq!(jobs.wait_for("bytes").wait().unwrap(), None, "it is no number");
    let bytes = room.dedupe::<Bytes>("fetch");
    assert_eq!(bytes.wait_for("bytes").wait().unwrap(), Some(Bytes::default()));
    let listed = jobs.list(None, 9).wait().unwrap().items;
    let failed = listed.iter().find(|job| job.hash == "failed").unwrap();
    assert_eq!(failed.state, JobState::Failed { error: "no route".into() });
    // Its owner is in another process, if it still is at all.
    assert!(jobs.register_or_join("pending").wait().unwrap().is_owner);

    let config = RateLimitConfig { limit: 10, window: Duration::from_secs(60) };
    let rates = room.rate_limit("api", config).unwrap();
    assert_eq!(rates.status("search").wait().unwrap().remaining, 10 - 6);
    assert_eq!(rates.status("idle").wait().unwrap().remaining, 10);
    assert_eq!(
        rates.resource_config("upload").wait().unwrap().window,
        Duration::new(1, 500_000_000)
    );
    assert_eq!(rates.cooldown("example.org").wait().unwrap(), Some(NOW_MS + 5_000));
    let adaptive = room.adaptive_rate_limit("api", config, AdaptiveConfig::default()).unwrap();
    let status = adaptive.status("search").wait().unwrap();
    assert_eq!(
        (status.user_reserved, status.background_max, status.recent_user_activity),
        (6, 4, 3)
    );
    let listed = adaptive.list(None, 9).wait().unwrap().items;
    assert_eq!((listed[0].user_requests, listed[0].background_requests), (3, 1));

    let record = room.state().load_by_event_id(&"event-1".into()).wait().unwrap();
    assert_eq!((record.version, record.updated_at), (-3, Some(NOW_MS)));
    assert_eq!(record.bytes, b"\0\xff");
    let identity = Identity::new("t", "u", "s", "");
    assert_eq!(room.state().load(&identity, "plan").wait().unwrap(), record);
}

#[cfg(feature = "codlet")]
#[test]
fn an_export_contains_the_records_of_codlet() {
    use codlet::{CodeId, RateLimitKey, RateLimitOutcome, RateLimitPolicy, RateLimitUnavailable};
    let room = golden_room();
    let policy = RateLimitPolicy {
        max_failures: 3,
        window: Duration::from_secs(60),
        unavailable: RateLimitUnavailable::FailClosed,
    };
    let outcome = room.atomically(|tx| {
        tx.codlet().revoke_code(&CodeId::new("code-1".into()), None, 77)?;
        tx.codlet().check(&RateLimitKey::new("k"), &policy)
    });
    assert_eq!(
        outcome.wait().unwrap_or_else(|error: Error| panic!("{error}")),
        RateLimitOutcome::Deny
    );
    room.dump("codlet_code", &mut |row| {
        assert_eq!(row.value["revoked_at"], 77);
        assert_eq!(row.value["lookup_key"], "00ff");
        true
    })
    .unwrap();
}

#[test]
fn the_order_of_lines_does_not_matter() {
    let mut random = fastrand::Rng::with_seed(1);
    // Requests stay behind their window.
    let mut groups: Vec<Vec<&str>> = Vec::new();
    let entries: Vec<_> = LINES.lines().collect();
    for line in &entries[1..entries.len() - 1] {
        match groups.last_mut() {
            Some(group) if line.contains("_requests\"") => group.push(line),
            _ => groups.push(vec![line]),
        }
    }
    for _ in 0..10 {
        random.shuffle(&mut groups);
        let room = memory(&new_clock());
        import(&room, &export_of(&groups.concat())).unwrap();
        assert_eq!(export(&room), LINES);
    }
}

#[test]
fn an_export_shows_one_moment_while_writing_goes_on() {
    let room = golden_room();
    let (mut lines, mut writes) = (Vec::new(), 0);
    room.export_with_progress(&mut lines, &mut |_| {
        room.handoff().set(&format!("late {writes}"), &Default::default(), 60).wait().unwrap();
        room.form_tokens()
            .consume_form_token(
                &LookupKey::new("00ff"),
                &TokenSubject::Flow("f-1".into()),
                "pay",
                Some("cart"),
                NOW_MS / 1_000,
            )
            .wait()
            .unwrap();
        if writes == 3 {
            room.checkpoint().unwrap();
        }
        writes += 1;
    })
    .unwrap();
    assert!(writes > 10);
    assert_eq!(String::from_utf8(lines).unwrap(), LINES);
}

#[test]
fn a_window_of_any_size_comes_back() {
    let clock = Arc::new(ManualClock::new(NOW_MS));
    let room = memory(&clock);
    let config = RateLimitConfig { limit: 10_000, window: Duration::from_secs(3_600) };
    let rates = room.rate_limit("api", config).unwrap().with_durability(Durability::Os);
    // The boundaries of lines of requests: 1,024 pairs.
    for (resource, requests) in [("one", 1), ("full", 1_024), ("over", 1_025), ("two full", 2_048)]
    {
        for _ in 0..requests {
            clock.advance(Duration::from_millis(1));
            rates.record(resource).wait().unwrap();
        }
    }
    let text = export(&room);
    let copy = memory(&clock);
    assert_eq!(import(&copy, &text).unwrap().by_kind["rate_limit_requests"], 1 + 1 + 2 + 2);
    assert_eq!(export(&copy), text);
    let copied = copy.rate_limit("api", config).unwrap();
    for resource in ["one", "full", "over", "two full"] {
        assert_eq!(copied.status(resource).wait().unwrap(), rates.status(resource).wait().unwrap());
    }
}

#[test]
fn cleared_rate_limits_do_not_come_back_in_an_import() {
    let clock = Arc::new(ManualClock::new(NOW_MS));
    let room = memory(&clock);
    let config = RateLimitConfig { limit: 10, window: Duration::from_secs(60) };
    let (plain, adaptive) = (
        |room: &Cloakroom| room.rate_limit("api", config).unwrap(),
        |room: &Cloakroom| {
            room.adaptive_rate_limit("api", config, AdaptiveConfig::default()).unwrap()
        },
    );
    let use_all = |room: &Cloakroom, resource: &str| {
        plain(room).record(resource).wait().unwrap();
        plain(room).set_cooldown(resource, NOW_MS + 60_000).wait().unwrap();
        adaptive(room).record(resource, Priority::User).wait().unwrap();
        adaptive(room).set_cooldown(resource, NOW_MS + 60_000).wait().unwrap();
    };
    use_all(&room, "forgotten");
    plain(&room).clear().wait().unwrap();
    adaptive(&room).clear().wait().unwrap();
    use_all(&room, "known");
    let text = export(&room);
    let copy = memory(&clock);
    let report = import(&copy, &text).unwrap();
    assert_eq!((report.by_kind["rate_limit"], report.by_kind["adaptive_rate_limit"]), (1, 1));
    assert_eq!(
        (report.by_kind["rate_limit_requests"], report.by_kind["rate_limit_cooldown"]),
        (1, 2)
    );
    assert_eq!(export(&copy), text);
    for resource in ["forgotten", "known", "forgotten"] {
        let answers = [&room, &copy].map(|room| {
            let limits = (
                plain(room).status(resource).wait().unwrap(),
                plain(room).cooldown(resource).wait().unwrap(),
            );
            let shared = (
                adaptive(room).status(resource).wait().unwrap(),
                adaptive(room).cooldown(resource).wait().unwrap(),
            );
            let listed = (
                plain(room).list(None, 9).wait().unwrap().items,
                adaptive(room).list(None, 9).wait().unwrap().items,
            );
            use_all(room, resource);
            format!("{limits:?} {shared:?} {listed:?}")
        });
        assert_eq!(answers[0], answers[1], "{resource}");
    }
}

#[test]
fn a_room_that_is_not_empty_is_left_alone() {
    let clock = new_clock();
    let room = memory(&clock);
    room.handoff().set("old", &Default::default(), 1).wait().unwrap();
    clock.advance(Duration::from_secs(60));
    let before = export(&room);
    let error = import(&room, LINES).unwrap_err();
    assert!(matches!(error, Error::NotEmpty { table: "handoff" }), "{error}");
    assert_eq!(export(&room), before);
}

#[test]
fn handles_that_were_there_before_an_import_evict_in_the_right_order() {
    let clock = Arc::new(ManualClock::new(NOW_MS));
    let room = memory(&clock);
    let cache = room.cache::<u32>("small").with_max_entries(2);
    cache.set("gone", &1, 60).wait().unwrap();
    cache.delete("gone").wait().unwrap();
    let cached = |hash: &str, stored_at_ms: u64| {
        format!(
            "{{\"entry\":\"cache\",\"cache\":\"small\",\"hash\":\"{hash}\",\"stored_at_ms\":{stored_at_ms},\
             \"expires_at_ms\":null,\"tags\":[],\"value\":1}}"
        )
    };
    import(&room, &export_of(&[&cached("a", 9), &cached("b", 5)])).unwrap();
    cache.set("c", &1, 60).wait().unwrap();
    let hashes: Vec<_> =
        cache.list(None, 9).wait().unwrap().items.into_iter().map(|entry| entry.hash).collect();
    assert_eq!(hashes, ["a", "c"], "the one that was stored first goes");
}

/// A reader that fails behind its bytes.
struct Broken<'a>(&'a [u8]);

impl Read for Broken<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buf)? {
            0 => Err(io::Error::other("the cable was pulled")),
            read => Ok(read),
        }
    }
}

#[test]
fn lines_imported_before_a_failure_are_kept() {
    let room = memory(&new_clock());
    let whole: Vec<_> = LINES.split_inclusive('\n').collect();
    let error =
        room.import(&mut BufReader::new(Broken(whole[..4].concat().as_bytes()))).unwrap_err();
    assert!(error.to_string().contains("line 5"), "{error}");
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert_eq!(
        export(&room).lines().skip(1).take(3).collect::<String>(),
        whole[1..4].concat().replace('\n', "")
    );
}

/// A writer that is full at once, or after some bytes.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = buf.len().min(self.0);
        self.0 -= written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_writer_that_fails_is_named_and_the_room_goes_on() {
    let room = golden_room();
    for room_for in [0, 1, 100, LINES.len() - 1] {
        let error = room.export(&mut Full(room_for)).unwrap_err();
        assert!(
            matches!(&error, Error::DiskFull { context } if context.contains("export")),
            "{error}"
        );
    }
    assert!(room.export(&mut Full(LINES.len())).is_ok());
}

#[test]
fn an_import_into_a_small_log_says_which_line_does_not_fit() {
    let room =
        Cloakroom::builder().without_threads().log_capacity(64 << 10).open_in_memory().unwrap();
    let handoff = |id: &str, bytes: usize| {
        let text = "x".repeat(bytes);
        format!(
            "{{\"entry\":\"handoff\",\"state_id\":\"{id}\",\"expires_at_ms\":{},\"claim\":null,\
             \"state\":{{\"text\":\"{text}\"}}}}",
            u64::MAX
        )
    };
    let entries: Vec<_> = (0..100)
        .map(|at| handoff(&format!("{at:03}"), 3_000))
        .chain([handoff("large", 40_000)])
        .collect();
    let entries: Vec<_> = entries.iter().map(String::as_str).collect();
    let error = import(&room, &export_of(&entries)).unwrap_err();
    let Error::Import { line: 102, source: Some(source), .. } = &error else { panic!("{error}") };
    assert!(matches!(**source, Error::TooLarge { .. }), "{source}");
    assert_eq!(room.handoff().stats().wait().unwrap().live, 100);
    let huge = format!("{}{}", "{\"cloakroom_export\":1}\n", "x".repeat(4 << 20));
    let empty =
        Cloakroom::builder().without_threads().log_capacity(64 << 10).open_in_memory().unwrap();
    let error = import(&empty, &huge).unwrap_err();
    assert!(error.to_string().starts_with("line 2: longer than "), "{error}");
}

#[test]
fn a_full_disk_is_reported_with_its_line_and_earlier_lines_are_kept() {
    let storage = SimStorage::new(1);
    let clock = new_clock();
    let room = open(&storage, &clock).unwrap();
    let state = |at: usize| {
        format!(
            "{{\"entry\":\"state\",\"tenant\":\"t\",\"user\":\"u\",\"session\":\"s\",\"run\":\"\",\"kind\":\"{at:05}\",\
             \"event_id\":\"event {at}\",\"version\":1,\"updated_at_ms\":1,\"bytes_base64\":\"{}\"}}",
            "AAAA".repeat(200)
        )
    };
    let entries: Vec<_> = (0..2_000).map(state).collect();
    let entries: Vec<_> = entries.iter().map(String::as_str).collect();
    storage.set_capacity(Some(storage.process_crash_image().len() as u64 + (256 << 10)));
    let error = import(&room, &export_of(&entries)).unwrap_err();
    let Error::Import { line, source: Some(source), .. } = &error else { panic!("{error}") };
    assert!(matches!(**source, Error::DiskFull { .. }), "{source}");
    assert!((3..2_000).contains(line), "{line}");
    drop(room);
    storage.set_capacity(None);
    let room = open(&storage, &clock).unwrap();
    let export = export(&room);
    let left: Vec<_> = export.lines().filter(|line| line.contains("\"entry\"")).collect();
    assert_eq!(left, entries[..usize::try_from(*line).unwrap() - 2]);
}

/// The golden line that contains `part`.
fn golden(part: &str) -> &'static str {
    LINES.lines().find(|line| line.contains(part)).unwrap()
}

#[test]
fn invalid_exports_are_refused_at_the_line_of_the_error() {
    let ok = golden("order-7");
    let window = golden("\"rate_limit\",\"limiter\":\"api\",\"resource\":\"search\"");
    let requests = golden("\"rate_limit_requests\"");
    let idle = golden("\"resource\":\"idle\"");
    let cases: Vec<(Vec<String>, &str)> = vec![
        (vec![ok.replace(",\"expires_at_ms\":1700000600000", "")], "field \"expires_at_ms\" is missing"),
        (vec![ok.replace("1700000600000", "-1")], "field \"expires_at_ms\" must be a whole number from 0"),
        (vec![ok.replace("\"claim\"", "\"clam\"")], "field \"claim\" is missing"),
        (vec![ok.replace("\"claim\"", "\"hat\":1,\"claim\"")], "field \"hat\" is not known"),
        (vec![ok.replace("\"claim\"", "\"entry\":\"handoff\",\"claim\"")], "field \"entry\" appears twice"),
        (vec![ok.replace("\"handoff\"", "\"hat\"")], "no kind of entry is called \"hat\""),
        (vec![ok.replace("{\"amount\":12.50}", "[]")], "the state is no JSON object"),
        (vec![ok.replace("12.50", &format!("{}{}", "[".repeat(600), "]".repeat(600)))], "the state is no JSON object, or is nested too deeply"),
        (vec![ok.replace("order-7", &"k".repeat(70_000))], "the state id has 70000 bytes, over the limit of 65536"),
        (vec![ok.into(), ok.into()], "there is an entry of table handoff with this key already"),
        (vec![ok[..20].into()], "not a JSON object"),
        (vec![String::new()], "not a JSON object"),
        (vec!["{\"cloakroom_export\":1}".into()], "field \"entry\" is missing"),
        (vec![golden("order-8").replace("01ARZ3", "01arz3")], "field \"ulid\" must be a ULID"),
        (vec![golden("order-8").replace(",\"lease_until_ms\":1700000009000", "")], "field \"lease_until_ms\" is missing"),
        (vec![golden("order-9").replace("\"state_base64\"", "\"state\"")], "the state is no JSON object"),
        (vec![golden("WzIsIDNdIA==").replace("WzIsIDNdIA==", "WzIsIDNdIA")], "field \"value_base64\" must be base64"),
        (vec![golden("WzIsIDNdIA==").replace("WzIsIDNdIA==", "Ww==")], "field \"value\" is no JSON"),
        (vec![golden("codlet_failures").replace("+2DqAf3/Z+XPiwEAAAM=", "+2DqAA==")], "a row of table codlet_failures: failures that are not in order"),
        (vec![golden("\"flow\"").replace("\"f-1\"", "null")], "field \"subject_id\" must be a string"),
        (vec![golden("\"flow\"").replace("\"flow\"", "\"anonymous\"")], "field \"subject_id\" must be null"),
        (vec![golden("\"flow\"").replace("\"flow\"", "\"no one\"")], "field \"subject_kind\" must be"),
        (vec![golden("\"odd\"").replace("\"odd\"", "\"\"")], "field \"tags\" must be in the order"),
        (vec![golden("\"odd\"").replace("\"odd\",\"é\"", "\"é\",\"odd\"")], "field \"tags\" must be in the order"),
        (vec![golden("\"late\"").replace("1699999999999", "18446744073709551615")], "must be null for a value that never"),
        (vec![golden("\"done\"").replace("\"value\":7", &format!("\"value\":{}{}", "[".repeat(513), "]".repeat(513)))], "nested deeper than 512"),
        (vec![golden("\"done\"").replace("\"completed\"", "\"pending\"")], "field \"value\" is not known"),
        (vec![golden("\"done\"").replace("00000000000000ff", "FF")], "field \"opening_id\" must be 16 digits"),
        (vec![golden("\"done\"").replace("\"completed\"", "\"lost\"")], "field \"status\" must be"),
        (vec![golden("\"upload\"").replace("\"window_nanos\":500000000", "\"window_nanos\":1000000000")], "field \"window_nanos\""),
        (vec![golden("\"upload\"").replace("\"window_seconds\":1,\"window_nanos\":500000000", "\"window_seconds\":0,\"window_nanos\":0")], "the window of a rate limit is zero"),
        (vec![golden("example.org").replace("\"plain\"", "\"fair\"")], "field \"limiter_kind\" must be"),
        (vec![golden("\"resource\":\"shared\",\"keep_ms\"").replace("\"admitted_idle_since_ms\"", "\"idle\"")], "field \"admitted_idle_since_ms\" is missing"),
        (vec![golden("\"event-1\"").replace("\"tenant\":\"t\"", "\"tenant\":\"\"")], "tenant"),
        (vec![golden("\"event-1\"").replace("\"event-1\"", "\"\"")], "the event id is empty"),
        (vec![golden("\"event-1\"").into(), golden("\"event-1\"").replace("\"plan\"", "\"other\"")], "the event id is that of another state"),
        (vec![golden("codlet_failures").replace("codlet_failures", "expiry")], "field \"table\" must be"),
        (vec![golden("codlet_failures").replace("codlet_failures", "codlet_code")], "a row of table codlet_code: "),
        (vec![golden("codlet_code").into(), golden("codlet_code").replace("Y29kZS0x", "Y29kZS0y")], "the lookup key leads to another record"),
        (vec![requests.into()], "requests stand right behind the window"),
        (vec![window.into(), ok.into(), requests.into()], "requests stand right behind the window"),
        (vec![window.into(), requests.replace("search", "other")], "requests stand right behind the window"),
        (vec![window.into(), requests.into(), requests.into()], "field \"requests\": the times do not rise"),
        (vec![window.into(), requests.replace("[1699999990000,2],", "[1699999990000,0],")], "field \"requests\": a count is 0"),
        (vec![window.into(), "{\"entry\":\"rate_limit_requests\",\"limiter\":\"api\",\"resource\":\"search\",\"requests\":[]}".into()], "1 to 1024 pairs"),
        (vec![idle.into(), "{\"entry\":\"rate_limit_requests\",\"limiter\":\"api\",\"resource\":\"idle\",\"requests\":[[1,1]]}".into()], "the window is idle"),
        (vec![window.into(), window.into()], "there is an entry of table rate_limit with this key already"),
    ];
    for (entries, expected) in cases {
        let mut entries: Vec<_> = entries.iter().map(String::as_str).collect();
        let is_golden =
            |entry: &&str| LINES.lines().any(|line| line == *entry && line.contains("\"entry\""));
        let is_alone = entries.len() == 1 && !expected.starts_with("requests stand");
        assert!(!is_alone || !entries.iter().any(is_golden), "nothing was replaced: {expected}");
        // One that stands before, and one that never comes.
        let (before, behind) = (golden("\"no hex\""), golden("\"flow\""));
        entries.insert(0, before);
        entries.push(behind);
        let bad_line = entries.len() as u64;
        let room = memory(&new_clock());
        let error = import(&room, &export_of(&entries)).expect_err(expected);
        let Error::Import { line, detail, source: None } = &error else { panic!("{error}") };
        assert!(detail.contains(expected), "{expected:?}: {detail}");
        let good: BTreeSet<_> = entries.iter().take(entries.len() - 2).copied().collect();
        assert_eq!(*line, bad_line, "{detail}");
        assert_eq!(error.to_string(), format!("line {line}: {detail}"));
        let export = export(&room);
        let left: BTreeSet<_> =
            export.lines().skip(1).filter(|line| !line.contains("cloakroom_export_end")).collect();
        assert_eq!(left, good, "{expected}");
    }
}

#[test]
fn a_first_or_last_line_that_is_not_one_is_refused() {
    let ok = golden("order-7");
    let end = "{\"cloakroom_export_end\":1}";
    let header = "{\"cloakroom_export\":1}";
    for (lines, expected) in [
        (vec![], "line 1: there is nothing to import"),
        (vec![ok], "line 1: not the first line of an export"),
        (vec!["{\"cloakroom_export\":0}"], "line 1: not the first line of an export"),
        (
            vec!["{\"cloakroom_export\":2,\"more\":1}"],
            "line 1: an export of format 2, and this version reads up to 1",
        ),
        (vec!["{\"cloakroom_export\":1,\"more\":1}"], "line 1: field \"more\" is not known"),
        (
            vec![header, ok],
            "line 3: the last line, {\"cloakroom_export_end\":1}, is missing: the export was cut short",
        ),
        (vec![header, end], "line 2: the last line speaks of 1 entries, but 0 stand before it"),
        (vec![header, ok, end, ok], "line 4: it stands behind the last line of the export"),
        (
            vec![header, ok, "{\"cloakroom_export_end\":1,\"entry\":\"x\"}"],
            "line 3: field \"entry\" is not known",
        ),
        (vec![header, ok, header], "line 3: field \"entry\" is missing"),
    ] {
        let room = memory(&new_clock());
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let error = import(&room, &text).expect_err(expected);
        assert!(error.to_string().starts_with(expected), "{expected:?}: {error}");
        let kept = u64::from(lines.get(1) == Some(&ok));
        assert_eq!(room.handoff().stats().wait().unwrap().live, kept, "{expected}");
    }
    let room = memory(&new_clock());
    let error = room.import(&mut &b"{\"cloakroom_export\":1}\n\xff\n"[..]).unwrap_err();
    assert_eq!(error.to_string(), "line 2: not UTF-8");
    import(&room, &format!("{header}\r\n{ok}\r\n{end}"))
        .expect("line ends of other systems, and none behind the last line");
}

#[test]
fn every_table_can_be_shown_whole_and_in_part() {
    let room = golden_room();
    room.handoff().set("open", &Default::default(), 60).wait().unwrap();
    let tables = room.tables().unwrap();
    assert!(tables.is_sorted_by_key(|table| table.number));
    for table in &tables {
        assert!(table.rows > 0, "table {} is empty, so nothing of it is tested", table.name);
        let mut rows = Vec::new();
        let shown = room.dump(table.name, &mut |row| {
            assert_eq!(row.note, None, "{}: {}", table.name, row.to_json());
            rows.push(row);
            true
        });
        assert_eq!(shown.unwrap(), table.rows, "{}", table.name);
        assert_eq!(rows.len() as u64, table.rows);
        assert_eq!(room.dump(table.name, &mut |_| false).unwrap(), 1);
    }
    let error = room.dump("hats", &mut |_| true).unwrap_err();
    assert!(
        matches!(&error, Error::InvalidConfig(what) if what.contains("form_token, form_token_use")),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(scaled(32, 64)))]
    #[test]
    fn an_import_of_random_bytes_fails_cleanly(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        line in 1usize..40, at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let room = memory(&new_clock());
        let _ = room.import(&mut bytes.as_slice());

        let mut lines: Vec<_> = LINES.split_inclusive('\n').map(|line| line.as_bytes().to_vec()).collect();
        let line = line % lines.len();
        let at = at.index(lines[line].len());
        lines[line][at] = to;
        let cut = cut.index(line + 4).max(line + 1).min(lines.len());
        let room = memory(&new_clock());
        let read = room.import(&mut lines[..cut].concat().as_slice());
        // Whatever was taken in is a room that can be exported and imported.
        let text = export(&room);
        let again = memory(&new_clock());
        import(&again, &text).unwrap();
        prop_assert_eq!(export(&again), text);
        let refused = matches!(read, Err(Error::Import { .. }));
        prop_assert!(refused || read.is_ok());
    }
}
