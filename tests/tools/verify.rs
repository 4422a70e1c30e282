//! Verification: a sound file has no findings, every flipped byte is told, and a row that is
//! missing or too much is named.

use crate::rooms::{small, state};
use crate::scale::scaled;
use crate::whole_rooms::{EVERY_TABLE, fill, image, rows, tiny};
use cloakroom::adaptive_rate_limit::{AdaptiveConfig, AdaptiveRateLimitStore};
use cloakroom::handoff::HandoffStateStore;
use cloakroom::rate_limit::RateLimitConfig;
use cloakroom::testing::verify_image;
use cloakroom::{Cloakroom, Error, ManualClock};
use std::fs;
use std::sync::Arc;

/// Tables whose rows are derived from others.
const DERIVED: [u8; 7] = [5, 8, 21, 22, 23, 27, 29];

/// Satellites, and rows that others need.
const NEEDED: [u8; 3] = [7, 13, 14];

#[test]
fn a_sound_room_has_no_findings_open_or_closed_with_or_without_a_log_to_replay() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.cloak");
    let room = tiny().open(&path).unwrap();
    fill(&room);
    for checkpointed in [false, true] {
        let report = room.verify().unwrap();
        assert!(report.is_ok(), "{report}");
        let tables: Vec<_> = report.tables.iter().filter(|(_, rows)| *rows > 0).collect();
        assert_eq!(tables.len(), EVERY_TABLE, "{tables:?}");
        // The row of the time line belongs to no entry.
        assert_eq!(report.rows, rows(&room).len() as u64 + 1);
        // The file as a kill would leave it.
        let report = verify_image(fs::read(&path).unwrap()).unwrap();
        assert!(report.is_ok() && report.rows > 0, "{report}");
        assert_eq!(report.frames > 0, !checkpointed, "{report}");
        if !checkpointed {
            room.checkpoint().unwrap();
        }
    }
    assert!(matches!(cloakroom::tools::verify(&path), Err(Error::Locked { .. })));
    let expected = rows(&room).len() as u64 + 1;
    room.close().unwrap();
    let before = fs::read(&path).unwrap();
    let report = cloakroom::tools::verify(&path).unwrap();
    assert!(report.is_ok() && report.rows == expected && report.blocks > 0, "{report}");
    assert!(fs::read(&path).unwrap() == before, "verification writes nothing");
    assert!(matches!(room.verify(), Err(Error::Closed)));
}

#[test]
fn the_log_of_an_open_room_is_verified_and_closing_leaves_nothing_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.cloak");
    let room = tiny().open(&path).unwrap();
    room.handoff().set("s", &state(1), 600).wait().unwrap();
    let report = room.verify().unwrap();
    assert!(report.is_ok() && report.frames > 0, "{report}");
    room.close().unwrap();
    let report = cloakroom::tools::verify(&path).unwrap();
    assert!(report.is_ok() && report.frames == 0, "{report}");
}

#[test]
fn verification_goes_on_beside_readers_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.cloak");
    let room = tiny().open(&path).unwrap();
    fill(&room);
    room.close().unwrap();
    let reader = Cloakroom::builder().read_only(true).open(&path).unwrap();
    let report = cloakroom::tools::verify(&path).unwrap();
    assert!(report.is_ok(), "{report}");
    assert!(reader.verify().unwrap().is_ok());
}

#[test]
fn writers_go_on_while_a_room_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    let room = Arc::new(small().log_capacity(1 << 20).open(dir.path().join("a.cloak")).unwrap());
    let writer = {
        let room = Arc::clone(&room);
        std::thread::spawn(move || {
            for number in 0..4_000 {
                let handoff = room.handoff().with_durability(cloakroom::Durability::Os);
                handoff.set(&format!("s{}", number % 700), &state(number), 600).wait().unwrap();
            }
        })
    };
    let mut looks = 0;
    while looks < 3 || !writer.is_finished() {
        let report = room.verify().unwrap();
        assert!(report.is_ok(), "{report}");
        looks += 1;
    }
    writer.join().unwrap();
}

#[test]
fn a_token_that_a_sweeper_filed_again_is_where_it_belongs() {
    let clock = Arc::new(ManualClock::new(crate::rooms::NOW_MS));
    let room = tiny().clock(clock.clone()).open_in_memory().unwrap();
    fill(&room);
    // Behind the end of the tokens, and within the grace of the consumed ones.
    clock.set(1_000_000_000 + 5_000);
    assert!(room.sweep().unwrap().total() > 0);
    let report = room.verify().unwrap();
    assert!(report.is_ok(), "{report}");
    let tokens = rows(&room).keys().filter(|(table, _)| *table == 1).count();
    assert_eq!(tokens, 2, "the consumed ones, which are in their grace");
    clock.set(1_000_000_000 + 25 * 60 * 60 * 1_000);
    room.sweep().unwrap();
    let report = room.verify().unwrap();
    assert!(report.is_ok(), "{report}");
    assert_eq!(rows(&room).keys().filter(|(table, _)| *table == 1).count(), 0);
}

#[test]
fn a_limiter_that_was_cleared_is_sound_before_and_after_it_is_swept() {
    let clock = Arc::new(ManualClock::new(crate::rooms::NOW_MS));
    let room = tiny().clock(clock.clone()).open_in_memory().unwrap();
    fill(&room);
    room.adaptive_rate_limit("api", RateLimitConfig::default(), AdaptiveConfig::default())
        .unwrap()
        .clear()
        .wait()
        .unwrap();
    let report = room.verify().unwrap();
    assert!(report.is_ok(), "{report}");
    clock.set(crate::rooms::NOW_MS + 1);
    room.sweep().unwrap();
    let report = room.verify().unwrap();
    assert!(report.is_ok(), "{report}");
}

#[test]
fn every_derived_row_that_is_missing_is_named() {
    let room = tiny().open_in_memory().unwrap();
    fill(&room);
    let all = rows(&room);
    let mut tried = 0;
    for ((table, key), value) in &all {
        if !DERIVED.contains(table) && !NEEDED.contains(table) {
            continue;
        }
        tried += 1;
        room.set_raw_row(*table, key, None).unwrap();
        let report = room.verify().unwrap();
        let shown = format!("\"{}\"", key.escape_ascii());
        let named = |finding: &cloakroom::tools::Finding| {
            finding.location.ends_with(&format!("key {shown}")) || *table == 7 || *table == 14
        };
        assert!(!report.is_ok(), "table {table}, key {shown}");
        assert!(report.findings.iter().any(named), "table {table}, key {shown}: {report}");
        if DERIVED.contains(table) {
            assert_eq!(report.findings.len(), 1, "{report}");
        }
        room.set_raw_row(*table, key, Some(value)).unwrap();
    }
    assert!(tried > 20);
    assert!(room.verify().unwrap().is_ok(), "every row is back");
}

#[test]
fn every_derived_row_that_says_something_else_is_named() {
    let room = tiny().open_in_memory().unwrap();
    fill(&room);
    for ((table, key), value) in &rows(&room) {
        if !DERIVED.contains(table) {
            continue;
        }
        room.set_raw_row(*table, key, Some(b"other")).unwrap();
        let report = room.verify().unwrap();
        let shown = format!("key \"{}\"", key.escape_ascii());
        assert!(report.findings.iter().any(|found| found.location.ends_with(&shown)), "{report}");
        room.set_raw_row(*table, key, Some(value)).unwrap();
    }
    assert!(room.verify().unwrap().is_ok());
}

#[test]
fn a_primary_row_that_is_gone_leaves_derived_rows_that_are_named() {
    let room = tiny().open_in_memory().unwrap();
    fill(&room);
    for ((table, key), value) in &rows(&room) {
        // The request counts that a whole limiter shares say nothing about other rows when they are
        // gone.
        if DERIVED.contains(table) || [2, 4, 13, 14, 15].contains(table) {
            continue;
        }
        // Neither expires nor has tags.
        if *table == 6 && key.ends_with(b"2") {
            continue;
        }
        room.set_raw_row(*table, key, None).unwrap();
        let report = room.verify().unwrap();
        assert!(!report.is_ok(), "table {table}, key {}", key.escape_ascii());
        room.set_raw_row(*table, key, Some(value)).unwrap();
    }
    assert!(room.verify().unwrap().is_ok());
}

#[test]
fn rows_that_no_store_writes_are_named() {
    let room = tiny().open_in_memory().unwrap();
    fill(&room);
    for ((table, key), value) in &rows(&room) {
        if value.is_empty() {
            continue;
        }
        room.set_raw_row(*table, key, Some(&[])).unwrap();
        let report = room.verify().unwrap();
        let shown = format!("key \"{}\"", key.escape_ascii());
        assert!(report.findings.iter().any(|found| found.location.ends_with(&shown)), "{report}");
        assert!(
            report.findings.iter().all(|found| found.location.starts_with("table ")),
            "{report}"
        );
        room.set_raw_row(*table, key, Some(value)).unwrap();
    }
}

#[test]
fn every_flipped_byte_is_found_or_nothing_depends_on_it() {
    let image = image();
    let mut random = fastrand::Rng::with_seed(7);
    // Every byte of the headers, and many of everything else.
    let log_end = u64::from_le_bytes(image[56..64].try_into().unwrap()) as usize;
    let segment = (log_end - 8_192) / 2;
    let mut places: Vec<usize> = (0..200).chain(4_096..4_296).chain(8_192..8_250).collect();
    places.extend((log_end..log_end + 520).chain(log_end + 4_096..log_end + 4_616));
    places.extend((12_288..12_350).chain(8_192 + segment..8_250 + segment));
    places.extend((0..scaled(600, 2_000)).map(|_| random.usize(log_end..image.len())));
    places.extend((0..scaled(300, 1_000)).map(|_| random.usize(0..image.len())));
    for place in places {
        let mut flipped = image.clone();
        flipped[place] ^= 1 << random.u8(0..8);
        let report = match verify_image(flipped) {
            Ok(report) => report,
            Err(error) => panic!("byte {place}: {error}"),
        };
        let is_unused = report.unused.iter().any(|range| range.contains(&(place as u64)));
        // The one note that a sound image has is none about this byte.
        assert!(!report.is_ok() || !report.notes.is_empty() || is_unused, "byte {place}: {report}");
        if is_unused {
            assert!(report.is_ok(), "byte {place} is said to be unused: {report}");
        }
    }
    let sound = verify_image(image).unwrap();
    assert!(sound.is_ok() && sound.notes.is_empty(), "{sound}");
}

#[test]
fn files_cut_short_are_damaged_and_foreign_ones_are_refused() {
    let image = image();
    let mut random = fastrand::Rng::with_seed(9);
    for len in (1..40).chain((0..200).map(|_| random.usize(40..image.len()))) {
        match verify_image(image[..len].to_vec()) {
            Ok(report) => assert!(!report.is_ok(), "cut to {len}: {report}"),
            Err(error) => {
                assert!(len < 8 && matches!(error, Error::NotCloakroom { .. }), "{len}: {error}")
            }
        }
    }
    assert!(matches!(verify_image(vec![7; 100_000]), Err(Error::NotCloakroom { .. })));
    assert!(matches!(verify_image(Vec::new()), Err(Error::NotCloakroom { .. })));
    let mut newer = image.clone();
    newer[8] = 99;
    let crc = crc32fast::hash(&newer[..4_092]);
    newer[4_092..4_096].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(verify_image(newer), Err(Error::UnsupportedVersion { found: 99, .. })));

    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.cloak");
    let error = cloakroom::tools::verify(&missing).unwrap_err();
    let kind = |error: &Error| match error {
        Error::Io { source, .. } => Some(source.kind()),
        _ => None,
    };
    assert_eq!(kind(&error), Some(std::io::ErrorKind::NotFound), "{error}");
    assert!(!missing.exists());
    assert!(matches!(cloakroom::tools::verify(dir.path()), Err(Error::NotCloakroom { .. })));
}
