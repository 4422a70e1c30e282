//! How long the bytes of a deleted value stay, and where they never are.

use crate::rooms::small;
use cloakroom::Cloakroom;
use cloakroom::handoff::{HandoffStateStore, JsonObject};
use std::fs;
use std::path::Path;

const SECRET: &str = "a secret that is deleted";

fn state(text: &str) -> JsonObject {
    JsonObject::from_iter([("text".to_owned(), text.into())])
}

/// How many copies of the secret are in the file.
fn copies(path: &Path) -> usize {
    let bytes = fs::read(path).unwrap();
    bytes.windows(SECRET.len()).filter(|window| *window == SECRET.as_bytes()).count()
}

fn put_and_delete(room: &Cloakroom) {
    room.handoff().set("s", &state(SECRET), 600).wait().unwrap();
    room.checkpoint().unwrap();
    room.handoff().get_and_delete("s").wait().unwrap().unwrap();
}

#[test]
fn what_is_copied_from_rows_has_no_deleted_value() {
    let dir = tempfile::tempdir().unwrap();
    let (path, backup) = (dir.path().join("room.cloak"), dir.path().join("backup.cloak"));
    let room = small().without_threads().open(&path).unwrap();
    put_and_delete(&room);
    assert!(copies(&path) > 0, "the bytes are still in the log and the B-tree");
    room.backup(&backup).unwrap();
    assert_eq!(copies(&backup), 0);
    let mut export = Vec::new();
    room.export(&mut export).unwrap();
    assert!(!String::from_utf8(export).unwrap().contains(SECRET));
    room.close().unwrap();
    drop(room);
    let salvaged = dir.path().join("salvaged.cloak");
    cloakroom::tools::salvage(&path, &salvaged).unwrap();
    assert_eq!(copies(&salvaged), 0);
    // Deleted after it was copied: the copy keeps it.
    let room = small().without_threads().open(&path).unwrap();
    room.handoff().set("s", &state(SECRET), 600).wait().unwrap();
    let early = dir.path().join("early.cloak");
    room.backup(&early).unwrap();
    room.handoff().delete("s").wait().unwrap();
    assert!(copies(&early) > 0);
}

#[test]
fn a_deleted_value_stays_until_its_place_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("room.cloak");
    let room = small().without_threads().open(&path).unwrap();
    put_and_delete(&room);
    room.checkpoint().unwrap();
    assert!(copies(&path) > 0, "a checkpoint alone writes over nothing");
    // Both segments of the log and every page that was freed are used again.
    let mut written = 0;
    while copies(&path) > 0 && written < 2_000 {
        for _ in 0..50 {
            let id = format!("filler {}", written % 100);
            room.handoff().set(&id, &state(&"x".repeat(2_000)), 600).wait().unwrap();
            written += 1;
        }
        room.checkpoint().unwrap();
    }
    assert_eq!(copies(&path), 0, "after {written} writes");
}

/// How many copies of a text the memory of this process has that may be written to. `masked` has
/// each byte of it changed, so that it is no copy itself.
#[cfg(target_os = "linux")]
fn copies_in_memory(masked: &[u8]) -> usize {
    use std::os::unix::fs::FileExt;
    const CHUNK: usize = 1 << 20;
    let memory = fs::File::open("/proc/self/mem").unwrap();
    let mut found = 0;
    let mut buffer = vec![0; CHUNK];
    for line in fs::read_to_string("/proc/self/maps").unwrap().lines() {
        let mut fields = line.split_whitespace();
        let (range, access) = (fields.next().unwrap(), fields.next().unwrap());
        if !access.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let [mut from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).unwrap());
        while from < to {
            let len = CHUNK.min(usize::try_from(to - from).unwrap());
            // Another thread may give the memory back meanwhile.
            if memory.read_exact_at(&mut buffer[..len], from).is_err() {
                break;
            }
            let is_it = |window: &[u8]| window.iter().zip(masked).all(|(a, b)| a ^ b == 0x55);
            found += buffer[..len].windows(masked.len()).filter(|window| is_it(window)).count();
            from += len as u64;
        }
        buffer.fill(0);
    }
    found
}

#[cfg(target_os = "linux")]
#[test]
fn a_deleted_value_stays_in_the_memory_of_the_process() {
    let room = small().without_threads().open_in_memory().unwrap();
    // Made of nothing that is in the program, and gone from here when the room has it.
    let masked: Vec<u8> =
        std::iter::repeat_with(|| fastrand::alphanumeric() as u8 ^ 0x55).take(40).collect();
    assert_eq!(copies_in_memory(&masked), 0);
    let mut json = Vec::with_capacity(64);
    json.extend(b"{\"a\":\"");
    json.extend(masked.iter().map(|byte| byte ^ 0x55));
    json.extend(b"\"}");
    let text = String::from_utf8(json).unwrap();
    room.handoff().set_raw("s", &text, std::time::Duration::from_secs(600)).wait().unwrap();
    let mut json = text.into_bytes();
    json.fill(0);
    std::hint::black_box(&mut json);
    room.handoff().delete("s").wait().unwrap();
    assert!(
        copies_in_memory(&masked) > 0,
        "something erases it: the table of SECURITY.md is wrong"
    );
}
