//! Whole files: arbitrary bytes, and damage to a file with content.

use super::input::FuzzInput;
use crate::form_token::{FormTokenRecord, LookupKey, TokenSubject};
use crate::storage::sim::SimStorage;
use crate::stores::form_token::{FormTokenEntry, FormTokenStore};
use crate::stores::handoff::{HandoffEntry, HandoffStateStore, JsonObject};
use crate::{Cloakroom, Error, ManualClock, Pending, Result};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const NOW_MS: u64 = 1_000_000_000_000;

/// The rows of the small file.
const ROWS: u64 = 24;

/// The offset of the checksum in a superblock, a segment header or a header copy. It covers
/// everything before it.
const SUPERBLOCK_CRC: usize = 4092;

/// A file and its content.
struct Image {
    bytes: Vec<u8>,
    /// The sectors that are not zero, and each one after such a sector.
    sectors: Vec<usize>,
    /// What may be found: everything and, where damage cannot be distinguished from a torn tail,
    /// everything except the last operation.
    contents: Vec<Content>,
}

#[derive(Debug, Clone, PartialEq)]
struct Content {
    tokens: Vec<FormTokenEntry>,
    states: Vec<(HandoffEntry, Option<JsonObject>)>,
}

/// `data` is a file, or damage to an intact one. Opening never panics. A file with one flipped byte
/// has its content or reports damage, and no file returns anything that was never written.
pub fn open(data: &[u8]) {
    let mut input = FuzzInput::new(data);
    match input.below(8) {
        0 => {
            let _ = examine(input.rest().to_vec());
        }
        kind @ 1..4 => {
            // Strict: one byte.
            let image = image(kind);
            let mut bytes = image.bytes.clone();
            let offset = place(&image.sectors, &mut input);
            bytes[offset] ^= input.byte().max(1);
            match examine(bytes) {
                Ok(content) => {
                    assert!(image.contents.contains(&content), "offset {offset}: {content:?}")
                }
                Err(error) => assert!(is_honest(&error), "offset {offset}: {error}"),
            }
        }
        kind @ 4..6 => {
            let image = image(kind);
            let mut bytes = image.bytes.clone();
            scramble(&mut bytes, &image.sectors, &mut input);
            let _ = examine(bytes);
        }
        kind => {
            // Forged: damage with correct checksums. Nothing is known about the rows.
            let image = image(kind);
            let mut bytes = image.bytes.clone();
            forge(&mut bytes, &mut input);
            let _ = examine(bytes);
        }
    }
}

/// `data` as a file, or the damage to an intact file that it describes.
pub(super) fn damaged(data: &[u8]) -> Vec<u8> {
    let mut input = FuzzInput::new(data);
    let kind = input.below(8);
    if kind == 0 {
        return input.rest().to_vec();
    }
    let image = image(kind);
    let mut bytes = image.bytes.clone();
    match kind {
        1 | 2 => {
            let offset = place(&image.sectors, &mut input);
            bytes[offset] ^= input.byte().max(1);
        }
        3..6 => scramble(&mut bytes, &image.sectors, &mut input),
        _ => forge(&mut bytes, &mut input),
    }
    bytes
}

/// Errors that damage may cause. `NotCloakroom` and similar ones are for files that are no longer
/// recognizable as rooms.
fn is_honest(error: &Error) -> bool {
    matches!(error, Error::Corrupted { .. })
}

/// The offset of a byte in a sector with content.
fn place(sectors: &[usize], input: &mut FuzzInput<'_>) -> usize {
    let number = input.number::<3>() as usize;
    sectors[(number >> 9) % sectors.len()] + number % 512
}

fn scramble(bytes: &mut Vec<u8>, sectors: &[usize], input: &mut FuzzInput<'_>) {
    for _ in 0..=input.below(8) {
        let offset = place(sectors, input).min(bytes.len().saturating_sub(1));
        match input.below(6) {
            0 => bytes.truncate(offset),
            1 => bytes.resize(bytes.len() + usize::from(input.byte()) * 64, 0),
            2 => {
                // A block written to the wrong position, or an outdated one.
                let from = place(sectors, input) & !511;
                let len = bytes.len().saturating_sub(from.max(offset)).min(4096);
                let from = from.min(bytes.len() - len);
                bytes.copy_within(from..from + len, offset);
            }
            3 => {
                let end = (offset + usize::from(input.byte()) * 32).min(bytes.len());
                bytes[offset..end].fill(0);
            }
            _ => {
                let garbage = input.bytes();
                let end = (offset + garbage.len()).min(bytes.len());
                bytes[offset..end].copy_from_slice(&garbage[..end - offset]);
            }
        }
        if bytes.is_empty() {
            return;
        }
    }
}

/// Overwrites a field of a superblock, a segment header or a frame and corrects the checksum.
fn forge(bytes: &mut [u8], input: &mut FuzzInput<'_>) {
    let log_offset = u64::from_le_bytes(*bytes[32..].first_chunk().unwrap()) as usize;
    let segment_size = u64::from_le_bytes(*bytes[40..].first_chunk().unwrap()) as usize;
    for _ in 0..=input.below(4) {
        let what = input.below(3);
        let segment = log_offset + input.below(2) * segment_size;
        let number = input.number::<2>() as usize;
        let new = input.bytes();
        let mut overwrite = |start: usize, len: usize| {
            let at = start + number % len;
            let new = &new[..new.len().min(start + len - at)];
            bytes[at..at + new.len()].copy_from_slice(new);
        };
        match what {
            0 => {
                let start = number / 4096 % 2 * 4096;
                overwrite(start, 80);
                let crc = crc32fast::hash(&bytes[start..start + SUPERBLOCK_CRC]);
                bytes[start + SUPERBLOCK_CRC..start + 4096].copy_from_slice(&crc.to_le_bytes());
            }
            1 => {
                let start = segment + number / 4096 % 2 * 4096;
                overwrite(start, 48);
                let crc = crc32fast::hash(&bytes[start..start + 48]);
                bytes[start + 48..start + 52].copy_from_slice(&crc.to_le_bytes());
            }
            _ => {
                // The first frame of the segment, or a frame made up there.
                let start = segment + 8192;
                overwrite(start, 200);
                let len =
                    u32::from_le_bytes(*bytes[start..].first_chunk().unwrap()) as usize % 1_000;
                bytes[start..start + 4].copy_from_slice(&(len as u32).to_le_bytes());
                let mut hasher = crc32fast::Hasher::new();
                hasher.update(&bytes[start..start + 4]);
                hasher.update(&bytes[start + 8..start + 32 + len]);
                bytes[start + 4..start + 8].copy_from_slice(&hasher.finalize().to_le_bytes());
            }
        }
    }
}

/// Opens the file, reads everything, and writes a little. The first error ends it. It must not
/// panic.
fn examine(bytes: Vec<u8>) -> Result<Content> {
    if bytes.is_empty() {
        return Err(Error::corrupted("the file", "an empty file would become a new room"));
    }
    let room = on(&SimStorage::from_image(bytes, 1))?;
    let content = read(&room);
    // Whatever was read, a write and a close return.
    let _ = room.handoff().set("late", &state(ROWS + 1), 60).wait();
    let _ = room.checkpoint();
    let _ = room.close();
    content
}

fn read(room: &Cloakroom) -> Result<Content> {
    let tokens = room.form_tokens().list(None, 1_000).wait()?.items;
    let mut states = Vec::new();
    for entry in room.handoff().list(None, 1_000).wait()?.items {
        let state = room.handoff().get(&entry.state_id).wait()?;
        states.push((entry, state));
    }
    room.form_tokens().stats().wait()?;
    room.handoff().stats().wait()?;
    Ok(Content { tokens, states })
}

fn on(storage: &SimStorage) -> Result<Cloakroom> {
    Cloakroom::builder()
        .log_capacity(1_280 << 10)
        .cache_size(1 << 20)
        .without_threads()
        .clock(Arc::new(ManualClock::new(NOW_MS)))
        .open_on(Arc::new(storage.clone()))
}

fn state(number: u64) -> JsonObject {
    let mut state = JsonObject::new();
    state.insert("number".into(), number.into());
    state.insert("filler".into(), "f".repeat(number as usize * 20).into());
    state
}

/// A file that was closed (even kinds), or one of a killed process, with everything still in the
/// log.
fn image(kind: usize) -> &'static Image {
    static IMAGES: [OnceLock<Image>; 2] = [OnceLock::new(), OnceLock::new()];
    let killed = !kind.is_multiple_of(2);
    IMAGES[usize::from(killed)].get_or_init(|| make(killed))
}

fn make(killed: bool) -> Image {
    let storage = SimStorage::new(1);
    let room = on(&storage).unwrap();
    let mut contents = vec![read(&room).unwrap()];
    let done = |answer: Pending<()>| answer.wait().unwrap();
    for number in 0..ROWS {
        let lookup_key = LookupKey::new(format!("{number:016x}"));
        let (subject, purpose) = (TokenSubject::Authenticated("somebody".into()), "pay");
        let record = FormTokenRecord {
            lookup_key: lookup_key.clone(),
            key_version: "1".into(),
            subject: subject.clone(),
            purpose: purpose.into(),
            bound_resource: None,
            issued_at: 7,
            expires_at: NOW_MS,
        };
        done(room.form_tokens().insert_form_token(record));
        done(room.handoff().set(&format!("state-{number}"), &state(number), 600));
        if number.is_multiple_of(2) {
            room.form_tokens()
                .consume_form_token(&lookup_key, &subject, purpose, None, 7)
                .wait()
                .unwrap();
            done(room.form_tokens().set_token_result(&lookup_key, "receipt"));
        }
        if number.is_multiple_of(5) {
            room.handoff()
                .claim(&format!("state-{number}"), Duration::from_secs(60))
                .wait()
                .unwrap();
        }
        if !killed && number == ROWS / 2 {
            room.checkpoint().unwrap();
        }
    }
    contents.push(read(&room).unwrap());
    // The last operation has its own frame, which no later durable LSN covers in the file of a
    // killed process.
    done(room.handoff().delete("state-3"));
    contents.push(read(&room).unwrap());
    let bytes = if killed {
        contents.remove(0);
        storage.process_crash_image()
    } else {
        contents.drain(..2);
        room.close().unwrap();
        storage.crash_image(0)
    };
    let has_something = |sector: usize| {
        bytes
            .get(sector * 512..(sector + 1) * 512)
            .is_some_and(|sector| sector.iter().any(|byte| *byte != 0))
    };
    let sectors = (0..bytes.len() / 512)
        .filter(|sector| has_something(*sector) || (*sector > 0 && has_something(sector - 1)))
        .map(|sector| sector * 512)
        .collect();
    Image { bytes, sectors, contents }
}
