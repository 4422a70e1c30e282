//! Files that decay while no one has them open: every sector and every block of the log, whatever
//! it becomes, is told, or makes no difference to what was acknowledged.

use crate::rooms::{NOW_MS, consume, insert, state, state_of, until};
use crate::scale::scaled;
use cloakroom::cache::CacheStore;
use cloakroom::form_token::TokenConsumeOutcome;
use cloakroom::handoff::HandoffStateStore;
use cloakroom::limits::MIN_LOG_CAPACITY;
use cloakroom::testing::SimStorage;
use cloakroom::{Builder, Cloakroom, Error, ManualClock};
use std::cell::Cell;
use std::fs;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const LOG_START: usize = 8_192;
const SEGMENT: usize = MIN_LOG_CAPACITY as usize / 2;
const LOG_END: usize = LOG_START + 2 * SEGMENT;
const SECTOR: usize = 512;
const BLOCK: usize = 4_096;

fn tiny() -> Builder {
    Cloakroom::builder()
        .log_capacity(MIN_LOG_CAPACITY)
        .clock(Arc::new(ManualClock::new(NOW_MS)))
        .sweep_interval(None)
}

fn token_name(number: usize) -> String {
    format!("token {number}")
}

/// Whether the file has a mark that covers everything up to `lsn`.
fn is_marked(image: &[u8], lsn: u64) -> bool {
    (0..2).any(|segment| {
        let mark = &image[LOG_START + segment * SEGMENT + 2 * BLOCK..];
        let durable_lsn = u64::from_le_bytes(mark[24..32].try_into().unwrap());
        mark[..4] == [0; 4] && durable_lsn == lsn
    })
}

/// A room whose tokens were consumed one after the other, each acknowledged, and left idle. The
/// file as a killed process leaves it, and as it was at earlier times.
fn idle_after(tokens: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let sim = SimStorage::new(1);
    let room = tiny().open_on(Arc::new(sim.clone())).unwrap();
    let store = room.form_tokens();
    let mut earlier = vec![sim.process_crash_image()];
    for number in 0..tokens {
        insert(&store, &token_name(number)).wait().unwrap();
        let (outcome, _) = consume(&store, &token_name(number)).wait().unwrap();
        assert_eq!(outcome, TokenConsumeOutcome::Proceed);
        if number % 30 == 29 || number + 3 > tokens {
            earlier.push(sim.process_crash_image());
        }
    }
    let lsn = room.engine_stats().unwrap().durable_lsn;
    until("a mark covers the last token", || is_marked(&sim.process_crash_image(), lsn));
    (sim.process_crash_image(), earlier)
}

/// Opens a room, or answers why it cannot be opened. Then nothing was written to it.
fn open_or_leave_alone(image: Vec<u8>, what: &str) -> Result<Cloakroom, Error> {
    let sim = SimStorage::from_image(image, 1);
    let opened = tiny().without_threads().open_on(Arc::new(sim.clone()));
    if let Err(error) = &opened {
        assert_eq!(sim.events(), 0, "{what}: written to before it was refused: {error}");
    }
    opened
}

/// Opens a damaged file. Answers whether the damage was told.
fn is_told(image: Vec<u8>, tokens: usize, what: &str) -> bool {
    let consumed = open_or_leave_alone(image, what).and_then(|room| {
        for number in 0..tokens {
            let (outcome, _) = consume(&room.form_tokens(), &token_name(number)).wait()?;
            assert_eq!(outcome, TokenConsumeOutcome::Replay, "{what}: token {number}");
        }
        Ok(())
    });
    match consumed {
        Ok(()) => false,
        Err(Error::Corrupted { .. }) => true,
        Err(error) => panic!("{what}: {error}"),
    }
}

/// Damages every sector and every block of the log in turn: zeros, a flipped bit, and whatever it
/// had before.
fn decay(image: &[u8], earlier: &[Vec<u8>], tokens: usize, what: &str) {
    let (mut told, mut harmless) = (0, 0);
    for unit in [SECTOR, BLOCK] {
        for from in (LOG_START..LOG_END).step_by(unit) {
            let part = from..from + unit;
            let mut flipped = image[part.clone()].to_vec();
            flipped[from / SECTOR * 31 % unit] ^= 4;
            let mut contents = vec![vec![0; unit], flipped];
            // A file that was shorter at an earlier time has its log all the same.
            contents.extend(earlier.iter().map(|old| old[part.clone()].to_vec()));
            contents.sort();
            contents.dedup();
            for content in contents.into_iter().filter(|content| *content != image[part.clone()]) {
                let mut damaged = image.to_vec();
                damaged[part.clone()].copy_from_slice(&content);
                let what = format!("{what}, {unit} bytes at {from}");
                if is_told(damaged, tokens, &what) {
                    told += 1;
                } else {
                    harmless += 1;
                }
            }
        }
    }
    assert!(told > 3 && harmless > 3, "{what}: {told} told, {harmless} harmless");
}

#[test]
fn any_lost_sector_or_block_of_an_idle_log_is_told() {
    // Ends in a first block, behind a block, and in the second segment, with and without a
    // checkpoint.
    for tokens in scaled(vec![3, 120], vec![1, 2, 3, 22, 46, 60, 80, 120, 150, 300]) {
        let (image, earlier) = idle_after(tokens);
        decay(&image, &earlier, tokens, &format!("{tokens} tokens"));
    }
}

/// A kill before the mark, and an opening, which marks what it recovered.
#[test]
fn any_lost_sector_or_block_of_a_recovered_log_is_told() {
    for tokens in scaled(vec![40], vec![1, 40, 90, 130]) {
        let sim = SimStorage::new(1);
        let room = tiny().without_threads().open_on(Arc::new(sim.clone())).unwrap();
        for number in 0..tokens {
            insert(&room.form_tokens(), &token_name(number)).wait().unwrap();
            consume(&room.form_tokens(), &token_name(number)).wait().unwrap();
        }
        let killed = sim.process_crash_image();
        let sim = SimStorage::from_image(killed.clone(), 1);
        let opened = tiny().without_threads().open_on(Arc::new(sim.clone())).unwrap();
        let image = sim.process_crash_image();
        assert!(is_marked(&image, opened.engine_stats().unwrap().durable_lsn));
        decay(&image, &[killed], tokens, &format!("{tokens} recovered"));
    }
}

/// How often redb has panicked in this process, on pages that were not forged and on such as were.
static PANICS_OF_REDB: AtomicUsize = AtomicUsize::new(0);
static PANICS_ON_FORGED: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Whether this thread reads forged pages.
    static IS_FORGED: Cell<bool> = const { Cell::new(false) };
}

fn count_panics_of_redb() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let file = panic.location().map(|location| location.file().to_owned());
            if file.is_some_and(|file| file.contains("redb-")) {
                let count = if IS_FORGED.get() { &PANICS_ON_FORGED } else { &PANICS_OF_REDB };
                count.fetch_add(1, Ordering::SeqCst);
            }
            before(panic);
        }));
    });
}

/// A file with rows in its B-tree and in its log, over several pages.
fn filled() -> Vec<u8> {
    let sim = SimStorage::new(1);
    let room = tiny().without_threads().open_on(Arc::new(sim.clone())).unwrap();
    for round in 0..3 {
        for number in 0..40 {
            let id = format!("state {number}");
            room.handoff().set(&id, &state_of(700 + round * 40 + number), 600).wait().unwrap();
        }
        room.checkpoint().unwrap();
    }
    for number in 0..20 {
        insert(&room.form_tokens(), &token_name(number)).wait().unwrap();
    }
    sim.process_crash_image()
}

/// One kind of damage at a random place, most of them where something is written.
fn damage(bytes: &mut Vec<u8>, written: &[usize], random: &mut fastrand::Rng) {
    let place = |random: &mut fastrand::Rng| match random.u8(..4) {
        0 => random.usize(..16_384),
        1 => random.usize(..bytes.len()),
        _ => written[random.usize(..written.len())],
    };
    let (at, from) = (place(random).min(bytes.len() - 1), place(random).min(bytes.len() - 1));
    let unit = [1, 8, SECTOR, BLOCK, 3 * BLOCK][random.usize(..5)];
    let at = if random.bool() { at } else { at / unit * unit };
    let end = bytes.len().min(at + unit);
    match random.u8(..6) {
        0 => bytes.truncate(at.max(1)),
        1 => bytes[at..end].fill(0),
        2 => bytes[at..end].fill(0xFF),
        3 => random.fill(&mut bytes[at..end]),
        4 => {
            let from = (from / unit * unit).min(bytes.len() - (end - at));
            bytes.copy_within(from..from + (end - at), at);
        }
        _ => bytes[at] ^= 1 << random.u8(..8),
    }
}

/// Does everything with a room that may be damaged.
fn use_all(room: &Cloakroom) -> Result<(), Error> {
    room.raw_rows()?;
    for number in 0..40 {
        room.handoff().get(&format!("state {number}")).wait()?;
        room.handoff().set(&format!("state {number}"), &state(1), 600).wait()?;
    }
    for number in 0..20 {
        consume(&room.form_tokens(), &token_name(number)).wait()?;
    }
    room.sweep()?;
    room.checkpoint()?;
    room.compact()?;
    room.verify()?;
    room.close()
}

/// Whatever happens to the bytes of a file: an opening that is refused leaves it as it was, nothing
/// but damage is told, and redb, which panics on pages that it did not write, never gets one.
#[test]
fn any_damage_is_told_as_damage_and_redb_never_panics() {
    count_panics_of_redb();
    let image = filled();
    let written: Vec<usize> = (0..image.len()).filter(|at| image[*at] != 0).collect();
    let (mut refused, mut told, mut harmless) = (0, 0, 0);
    for seed in 0..scaled(1_500, 6_000) {
        let random = &mut fastrand::Rng::with_seed(seed);
        let mut bytes = image.clone();
        for _ in 0..random.usize(1..4) {
            damage(&mut bytes, &written, random);
        }
        let what = format!("seed {seed}");
        match open_or_leave_alone(bytes, &what).map(|room| use_all(&room)) {
            Err(
                Error::Corrupted { .. }
                | Error::NotCloakroom { .. }
                | Error::UnsupportedVersion { .. }
                | Error::VersionTooOld { .. },
            ) => refused += 1,
            Ok(Err(Error::Corrupted { .. })) => told += 1,
            Ok(Ok(())) => harmless += 1,
            Err(error) | Ok(Err(error)) => panic!("{what}: {error:?}"),
        }
    }
    assert!(refused > 50 && told > 50 && harmless > 50, "{refused} {told} {harmless}");
    assert_eq!(PANICS_OF_REDB.load(Ordering::SeqCst), 0);
}

/// Changes some bytes of a page with rows, and makes its checksum agree.
fn forge(image: &mut [u8], random: &mut fastrand::Rng) {
    // Behind two copies of the header lie the checksums, and then the blocks.
    let checksums = LOG_END + 2 * BLOCK;
    let blocks = (image.len() - checksums) / BLOCK - 1;
    let written: Vec<_> = (0..blocks)
        .filter(|index| {
            let block = &image[checksums + (1 + index) * BLOCK..][..BLOCK];
            block.windows(6).any(|window| window == b"state ")
        })
        .collect();
    let index = written[random.usize(..written.len())];
    let block = &mut image[checksums + (1 + index) * BLOCK..][..BLOCK];
    for _ in 0..random.usize(1..4) {
        // The beginning of a page says what the rest is.
        let at = if random.bool() { random.usize(..64) } else { random.usize(..BLOCK) };
        match random.u8(..3) {
            0 => block[at] ^= 1 << random.u8(..8),
            1 => block[at] = random.u8(..),
            _ => block[at..(at + 8).min(BLOCK)].fill(random.choice([0, 0xFF]).unwrap()),
        }
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(block);
    crc.update(&(index as u64 + 1).to_le_bytes());
    let crc = crc.finalize().max(1);
    image[checksums + 4 * index..][..4].copy_from_slice(&crc.to_le_bytes());
}

/// Reads everything of a room that may be forged.
fn read_all(room: &Cloakroom) -> Result<(), Error> {
    room.raw_rows()?;
    for number in 0..40 {
        room.handoff().get(&format!("state {number}")).wait()?;
    }
    room.handoff().list(None, 100).wait()?;
    room.form_tokens().stats().wait()?;
    room.verify()?;
    room.export(&mut Vec::new())?;
    room.close()
}

/// What passes the checksums is what somebody changed together with them. redb gets it, and may
/// panic; who looks up rows gets an error, or whatever somebody made of them. What redb keeps for
/// itself is not forged here, and nothing is written: there a second panic, in a destructor of
/// redb, may end the process.
#[test]
fn who_reads_rows_that_were_forged_with_their_checksums_is_answered() {
    count_panics_of_redb();
    IS_FORGED.set(true);
    let image = filled();
    let (mut refused, mut told, mut harmless) = (0, 0, 0);
    for seed in 0..scaled(1_500, 6_000) {
        let random = &mut fastrand::Rng::with_seed(seed);
        let mut bytes = image.clone();
        for _ in 0..random.usize(1..4) {
            forge(&mut bytes, random);
        }
        let answered = panic::catch_unwind(|| {
            let sim = SimStorage::from_image(bytes, 1);
            let room = tiny().without_threads().read_only(true).open_on(Arc::new(sim))?;
            Ok::<_, Error>(read_all(&room))
        });
        match answered.unwrap_or_else(|_| panic!("seed {seed}: a panic reached the caller")) {
            Err(_) => refused += 1,
            Ok(Err(_)) => told += 1,
            Ok(Ok(())) => harmless += 1,
        }
    }
    let panics = PANICS_ON_FORGED.load(Ordering::SeqCst);
    let counts = format!("{refused} {told} {harmless}, and redb panicked {panics} times");
    assert!(told > 100 && harmless > 20 && panics > 20, "{counts}");
}

/// The lock keeps no program away that does not ask for it.
#[test]
fn a_file_that_is_cut_short_while_it_is_open_is_told_at_the_next_flush() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.cloak");
    for cut_to in [0, 100, 8_192, 20_000, LOG_END as u64, LOG_END as u64 + 20_000] {
        fs::write(&path, filled()).unwrap();
        let room = tiny().open(&path).unwrap();
        room.handoff().set("before", &state(1), 600).wait().unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(cut_to).unwrap();
        let error = room.handoff().set("after", &state(2), 600).wait().unwrap_err();
        assert!(matches!(error, Error::OutcomeUnknown { .. }), "{cut_to}: {error}");
        assert!(error.to_string().contains("cut it short"), "{error}");
        assert!(fs::metadata(&path).unwrap().len() <= LOG_END as u64 + 20_000, "it grew");
        let error = room.handoff().set("later", &state(3), 600).wait().unwrap_err();
        assert!(matches!(error, Error::Poisoned { .. }), "{cut_to}: {error}");
        // What must be read from the lost part is damaged, and no failure of the system.
        if let Err(error) = room.raw_rows() {
            let is_told = matches!(error, Error::Corrupted { .. } | Error::Poisoned { .. });
            assert!(is_told, "{cut_to}: {error:?}");
        }
        drop(room);
        let opened = tiny().open(&path);
        if cut_to == 0 {
            // Nothing tells such a file from one that was made for a new room.
            assert_eq!(opened.unwrap().raw_rows().unwrap(), []);
        } else {
            let error = opened.map(drop).unwrap_err();
            let is_told = matches!(error, Error::Corrupted { .. } | Error::NotCloakroom { .. });
            assert!(is_told, "{cut_to}: {error:?}");
        }
        fs::remove_file(&path).unwrap();
    }
}

/// What a reader asks of a durable store and of a relaxed one.
fn look(room: &Cloakroom) -> [Result<(), Error>; 2] {
    let cached = room.cache::<u32>("pages").get("kept").wait();
    [room.handoff().get("kept").wait().map(drop), cached.map(drop)]
}

#[test]
fn a_room_that_only_reads_notices_that_its_file_was_cut_short_or_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.cloak");
    for read_only in [false, true] {
        for cut_to in [Some(0), Some(100), Some(LOG_END as u64), None] {
            let room = tiny().open(&path).unwrap();
            room.handoff().set("kept", &state(1), 600).wait().unwrap();
            room.cache("pages").set("kept", &7_u32, 0).wait().unwrap();
            room.close().unwrap();
            let room = tiny().sweep_interval(None).read_only(read_only).open(&path).unwrap();
            room.look_at_name_next();
            look(&room).into_iter().for_each(|answer| answer.unwrap());
            match cut_to {
                Some(len) => {
                    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len).unwrap();
                }
                None => fs::remove_file(&path).unwrap(),
            }
            room.look_at_name_next();
            for _ in 0..2 {
                let [durable, relaxed] = look(&room);
                let answers = if read_only { vec![durable, relaxed] } else { vec![durable] };
                for answer in answers {
                    let error = answer.unwrap_err();
                    match cut_to {
                        Some(_) => {
                            assert!(
                                matches!(error, Error::Corrupted { .. }),
                                "{cut_to:?}: {error}"
                            );
                            let text = error.to_string();
                            assert!(
                                text.contains("cut it short") && text.contains("salvage"),
                                "{text}"
                            );
                        }
                        None => assert!(matches!(error, Error::Unlinked { .. }), "{error}"),
                    }
                }
            }
            drop(room);
            if let Some(len) = cut_to {
                assert_eq!(fs::metadata(&path).unwrap().len(), len, "it grew again");
                fs::remove_file(&path).unwrap();
            }
            assert!(!path.exists());
        }
    }
}
