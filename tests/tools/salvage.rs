//! Salvage: what is intact comes out, what is lost is told, and the damaged file stays as it is.

use crate::rooms::{consume, insert, names, state};
use crate::scale::scaled;
use crate::whole_rooms::{fill, image, rows, tiny};
use cloakroom::Error;
use cloakroom::form_token::{LookupKey, TokenConsumeOutcome};
use cloakroom::testing::{salvage_image, verify_image};
use cloakroom::tools::SalvageReport;
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

type Rows = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

const BLOCK: usize = 4_096;
/// Where the last number given to a window is, which salvage may have to work out anew.
const LAST_WINDOW: (u8, Vec<u8>) = (14, Vec::new());
/// Tables whose rows are derived from others.
const DERIVED: [u8; 7] = [5, 8, 21, 22, 23, 27, 29];

/// The rows of a file, which is looked at and removed.
fn take_rows(path: &Path) -> Rows {
    let report = cloakroom::tools::verify(path).unwrap();
    assert!(report.is_ok(), "the new file is sound: {report}");
    let room = tiny().read_only(true).open(path).unwrap();
    let found = rows(&room);
    drop(room);
    fs::remove_file(path).unwrap();
    found
}

/// What opening makes of these bytes.
fn true_rows(image: &[u8]) -> Rows {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.cloak");
    fs::write(&path, image).unwrap();
    rows(&tiny().read_only(true).open(&path).unwrap())
}

/// Salvages damaged bytes, and checks what must hold whatever was damaged: every row is a true one,
/// and when one is missing the report says that something is lost.
fn salvaged(damaged: Vec<u8>, truth: &Rows, what: &str) -> (SalvageReport, Rows) {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("new.cloak");
    let report = salvage_image(damaged, &to).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = take_rows(&to);
    assert_eq!(names(dir.path()), [""; 0], "{what}: nothing else is left");
    check_true(&report, &found, truth, what);
    // The rows of the time line belong to no store.
    let line = report.tables.iter().find(|(table, _)| *table == "time_line");
    let of_stores = report.rows - line.map_or(0, |(_, rows)| *rows);
    assert_eq!(of_stores, found.len() as u64, "{what}: {report}");
    if found != *truth {
        assert!(
            !report.is_complete(),
            "{what}: rows are missing, and the report does not say so: {report}"
        );
    }
    (report, found)
}

/// Every row is one that was there. It may be an earlier version of it when an operation is lost,
/// and only then.
fn check_true(report: &SalvageReport, found: &Rows, truth: &Rows, what: &str) {
    for (at, value) in found {
        let is_true = match truth.get(at) {
            Some(newest) => newest == value || !report.lost_frames.is_empty(),
            // What a lost operation removed.
            None => !report.lost_frames.is_empty(),
        };
        assert!(is_true || *at == LAST_WINDOW, "{what}: row {at:?} is no true one");
    }
}

/// Runs `each` over all of `items`, several at a time, because each waits for the disk most of its
/// time.
fn at_once<T: Sync, R: Send>(items: &[T], each: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let part = items.len().div_ceil(8).max(1);
    std::thread::scope(|scope| {
        let each = &each;
        let threads: Vec<_> = items
            .chunks(part)
            .map(|part| scope.spawn(move || part.iter().map(each).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// Where the log ends and the B-tree begins.
fn btree_offset(image: &[u8]) -> usize {
    u64::from_le_bytes(image[56..64].try_into().unwrap()) as usize
}

#[test]
fn a_sound_file_comes_out_whole_and_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("a.cloak"), dir.path().join("b.cloak"));
    let room = tiny().open(&from).unwrap();
    fill(&room);
    let truth = rows(&room);
    assert!(matches!(cloakroom::tools::salvage(&from, &to), Err(Error::Locked { .. })));
    room.close().unwrap();
    let before = fs::read(&from).unwrap();
    let report = cloakroom::tools::salvage(&from, &to).unwrap();
    assert!(report.is_complete() && report.dropped == 0 && report.notes.is_empty(), "{report}");
    assert_eq!(report.bytes, fs::metadata(&to).unwrap().len());
    assert_eq!(names(dir.path()), ["a.cloak", "b.cloak"]);
    assert!(fs::read(&from).unwrap() == before, "the original is as it was");

    // What is there already is not touched either.
    let error = cloakroom::tools::salvage(&from, &to).unwrap_err();
    assert!(
        matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists)
    );
    assert_eq!(take_rows(&to), truth);
}

#[test]
fn a_salvaged_room_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("new.cloak");
    assert!(salvage_image(image(), &to).unwrap().is_complete());
    let room = tiny().open(&to).unwrap();
    let consumed = consume(&room.form_tokens(), "a1").wait().unwrap().0;
    assert_eq!(consumed, TokenConsumeOutcome::Proceed);
    assert_eq!(consume(&room.form_tokens(), "a0").wait().unwrap().0, TokenConsumeOutcome::Replay);
    insert(&room.form_tokens(), "new").wait().unwrap();
    room.checkpoint().unwrap();
    assert!(room.verify().unwrap().is_ok());
    room.close().unwrap();
    let report = cloakroom::tools::verify(&to).unwrap();
    assert!(report.is_ok(), "{report}");
}

#[test]
fn a_flipped_byte_anywhere_costs_no_more_than_it_hit() {
    let image = image();
    let truth = true_rows(&image);
    let btree = btree_offset(&image);
    let segment = (btree - 2 * BLOCK) / 2;
    let mut random = fastrand::Rng::with_seed(3);
    let mut places: Vec<usize> = (0..72).step_by(3).chain([4_090, 4_100, 8_190]).collect();
    places.extend((8_192..8_244).step_by(5).chain((8_192 + segment..8_244 + segment).step_by(5)));
    places.extend(
        (btree..btree + 512).step_by(31).chain((btree + BLOCK..btree + BLOCK + 512).step_by(31)),
    );
    places.extend((0..scaled(30, 100)).map(|_| random.usize(16_384..btree)));
    places.extend((0..scaled(100, 200)).map(|_| random.usize(btree..image.len())));
    let flips: Vec<_> = places.into_iter().map(|place| (place, 1 << random.u8(0..8))).collect();
    let lossy = at_once(&flips, |&(place, bit)| {
        let mut flipped = image.clone();
        flipped[place] ^= bit;
        let harmless = verify_image(flipped.clone()).is_ok_and(|report| report.is_ok());
        let what = format!("byte {place}");
        let (report, found) = salvaged(flipped, &truth, &what);
        if harmless || place < 2 * BLOCK || (btree..btree + 2 * BLOCK).contains(&place) {
            assert!(report.is_complete() && found == truth, "{what}: {report}");
        }
        found != truth
    });
    assert!(lossy.iter().filter(|lossy| **lossy).count() > scaled(1, 10), "some of them hit rows");
}

/// A room with several leaves in every large table, all in the B-tree.
fn large_image() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.cloak");
    let room = tiny().log_capacity(1 << 20).open(&path).unwrap();
    fill(&room);
    room.atomically(|tx| {
        for number in 0..600 {
            tx.handoff().set(&format!("many-{number:04}"), &state(number), 600)?;
            tx.form_tokens()
                .insert_form_token(crate::rooms::token(&format!("many-{number:04}")))?;
        }
        Ok::<(), Error>(())
    })
    .wait()
    .unwrap();
    for number in 0..300 {
        let durability = cloakroom::Durability::Os;
        let tokens = room.form_tokens().with_durability(durability);
        consume(&tokens, &format!("many-{:04}", 2 * number)).wait().unwrap();
    }
    room.checkpoint().unwrap();
    room.close().unwrap();
    fs::read(&path).unwrap()
}

#[test]
fn a_damaged_block_of_the_tree_takes_one_range_of_one_table_with_it() {
    let image = large_image();
    let truth = true_rows(&image);
    let mut random = fastrand::Rng::with_seed(5);
    let btree = btree_offset(&image);
    let (mut lossy, mut leaves) = (0, 0);
    let rounds = scaled(40, 100);
    for _ in 0..rounds {
        let place = random.usize(btree + 3 * BLOCK..image.len());
        let mut damaged = image.clone();
        let from = place / BLOCK * BLOCK;
        damaged[from..from + BLOCK].fill_with(|| random.u8(..));
        let (report, found) = salvaged(damaged, &truth, &format!("block at {from}"));
        let missing: Vec<_> = truth
            .keys()
            .filter(|at| !found.contains_key(*at) && !DERIVED.contains(&at.0))
            .collect();
        let Some((first, last)) = missing.first().zip(missing.last()) else { continue };
        lossy += 1;
        assert!(!report.damaged_blocks.is_empty(), "{report}");
        // A whole checksum block, or the list of the tables, costs more than one table.
        if first.0 != last.0 {
            continue;
        }
        leaves += 1;
        let between: Range<_> = (*first).clone()..(*last).clone();
        let survivors = found.range(between).count();
        assert_eq!(
            survivors, 0,
            "block at {from}: rows between the lost ones came out, so these could have too"
        );
    }
    assert!(
        lossy > rounds / 12 && leaves > rounds / 30,
        "{lossy} of the damaged blocks cost rows, {leaves} of them one table"
    );
}

#[test]
fn a_consumed_token_whose_consumption_is_lost_is_named() {
    let image = large_image();
    let truth = true_rows(&image);
    let used =
        |rows: &Rows| rows.keys().filter(|(table, _)| *table == 2).cloned().collect::<Vec<_>>();
    let btree = btree_offset(&image);
    let blocks: Vec<_> = (btree + 3 * BLOCK..image.len()).step_by(BLOCK * scaled(3, 1)).collect();
    let met = at_once(&blocks, |&from| {
        let mut met = 0;
        let mut damaged = image.clone();
        damaged[from] ^= 1;
        let (report, found) = salvaged(damaged, &truth, &format!("block at {from}"));
        for (_, key) in used(&truth) {
            if found.contains_key(&(2, key.clone())) || !found.contains_key(&(1, key.clone())) {
                continue;
            }
            met += 1;
            let named = format!("table form_token, key \"{}\"", key.escape_ascii());
            let is_named = report.losses.iter().any(|loss| loss.location == named);
            assert!(is_named, "block at {from}: {named} came back unconsumed in silence");
        }
        met
    });
    assert!(met.iter().sum::<usize>() > 0, "the table of consumptions was hit");
}

#[test]
fn a_lost_frame_is_reported_by_its_position_and_later_ones_count() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.cloak");
    let room = tiny().open(&path).unwrap();
    insert(&room.form_tokens(), "one").wait().unwrap();
    insert(&room.form_tokens(), "two").wait().unwrap();
    consume(&room.form_tokens(), "one").wait().unwrap();
    consume(&room.form_tokens(), "two").wait().unwrap();
    let image = fs::read(&path).unwrap();
    let truth = true_rows(&image);
    // The third frame, which consumed the first token.
    let at = (16_384..image.len())
        .step_by(8)
        .find(|at| image[at + 8..at + 16] == 3_u64.to_le_bytes())
        .unwrap();
    let mut damaged = image.clone();
    damaged[at + 40] ^= 1;
    let (report, _) = salvaged(damaged.clone(), &truth, "frame 3");
    assert_eq!(report.lost_frames, [3..=3], "{report}");
    assert!(report.to_string().contains("operations 3 to 3 of the log are lost"), "{report}");
    let to = dir.path().join("b.cloak");
    salvage_image(damaged, &to).unwrap();
    let saved = tiny().open(&to).unwrap();
    let entries = saved.form_tokens().list(None, 9).wait().unwrap().items;
    let consumed: Vec<_> = entries
        .iter()
        .map(|entry| (entry.record.lookup_key.clone(), entry.consumed.is_some()))
        .collect();
    assert_eq!(consumed, [(LookupKey::new("one"), false), (LookupKey::new("two"), true)]);
}

#[test]
fn a_file_without_its_superblock_is_salvaged_from_its_other_headers() {
    let image = image();
    let truth = true_rows(&image);
    let btree = btree_offset(&image);
    let segment = (btree - 2 * BLOCK) / 2;
    let without = |ranges: &[Range<usize>]| {
        let mut damaged = image.clone();
        ranges.iter().for_each(|range| damaged[range.clone()].fill(0xA5));
        damaged
    };
    let both = 0..2 * BLOCK;
    let (report, found) = salvaged(without(std::slice::from_ref(&both)), &truth, "no superblock");
    assert!(report.is_complete() && found == truth, "{report}");
    // One source after the other is taken away.
    let second_segment = 8_192 + segment..8_192 + segment + 2 * BLOCK;
    let (_, found) = salvaged(
        without(&[both.clone(), second_segment.clone()]),
        &truth,
        "no second segment header",
    );
    assert!(found.len() > truth.len() / 2);
    let headers = btree..btree + 2 * BLOCK;
    let (_, found) =
        salvaged(without(&[both.clone(), headers.clone()]), &truth, "no header of the B-tree");
    assert!(found.iter().any(|((table, _), _)| *table == 1), "the log alone still comes out");
    let first_copy = btree..btree + BLOCK;
    let all_segments = [both.clone(), 8_192..16_384, second_segment, first_copy];
    let (_, found) =
        salvaged(without(&all_segments), &truth, "only copy B of the header of the B-tree");
    assert!(found.iter().any(|((table, _), _)| *table == 1));
    // When nothing is left to recognize, it is no room.
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("b.cloak");
    let error = salvage_image(vec![0xA5; image.len()], &to).unwrap_err();
    assert!(matches!(error, Error::NotCloakroom { .. }), "{error}");
    assert!(!to.exists());
}

#[test]
fn a_truncated_file_yields_the_rows_that_are_left() {
    let image = image();
    let truth = true_rows(&image);
    let btree = btree_offset(&image);
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..60 {
        let len = random.usize(2 * BLOCK..image.len());
        let (report, _) = salvaged(image[..len].to_vec(), &truth, &format!("cut to {len}"));
        assert!(!report.is_complete() || len > btree, "cut to {len}: {report}");
    }
}

#[test]
fn any_mixture_of_damage_is_survived() {
    let image = image();
    let truth = true_rows(&image);
    let mut random = fastrand::Rng::with_seed(13);
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("b.cloak");
    let mut opened = 0;
    for round in 0..120 {
        let mut damaged = image.clone();
        for _ in 0..random.usize(1..40) {
            let at = random.usize(0..damaged.len());
            let end = (at + random.usize(1..600)).min(damaged.len());
            match random.u8(0..3) {
                0 => damaged[at..end].fill_with(|| random.u8(..)),
                1 => damaged[at..end].fill(0),
                _ => damaged[at] ^= 0x10,
            }
        }
        if random.u8(0..8) == 0 {
            damaged.truncate(random.usize(0..damaged.len()));
        }
        if verify_image(damaged.clone()).is_err() && damaged.len() < 8 {
            continue;
        }
        match salvage_image(damaged, &to) {
            Ok(report) => {
                opened += 1;
                check_true(&report, &take_rows(&to), &truth, &format!("round {round}"));
            }
            Err(
                Error::NotCloakroom { .. }
                | Error::Corrupted { .. }
                | Error::UnsupportedVersion { .. },
            ) => {}
            Err(error) => panic!("round {round}: {error}"),
        }
    }
    assert!(opened > 80, "{opened} came out");
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn foreign_files_are_refused_and_no_file_appears() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("a.cloak"), dir.path().join("b.cloak"));
    fs::write(&from, vec![7; 50_000]).unwrap();
    assert!(matches!(cloakroom::tools::salvage(&from, &to), Err(Error::NotCloakroom { .. })));
    fs::write(&from, b"").unwrap();
    assert!(matches!(cloakroom::tools::salvage(&from, &to), Err(Error::NotCloakroom { .. })));
    fs::remove_file(&from).unwrap();
    assert!(matches!(cloakroom::tools::salvage(&from, &to), Err(Error::Io { .. })));
    assert_eq!(names(dir.path()), [""; 0]);
    let mut newer = image();
    newer[8] = 99;
    let crc = crc32fast::hash(&newer[..4_092]);
    newer[4_092..4_096].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(salvage_image(newer, &to), Err(Error::UnsupportedVersion { found: 99, .. })));
    assert!(!to.exists());
}
