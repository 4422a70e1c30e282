//! What is read from the disk depends on what is asked for, not on how much lies beside it.

use crate::rooms::{insert, small};
use cloakroom::Cloakroom;
use cloakroom::limits::BLOCK_SIZE;
use cloakroom::state::{Identity, ListScope, StateRecord, StateStore};
use cloakroom::testing::SimStorage;
use std::sync::Arc;

/// How many sessions the small and the large file have. In both, each state of the kind that is
/// listed lies on a page of its own.
const FEW: u32 = 4_000;
const MANY: u32 = 16_000;

/// How much more a larger B-tree may have read: another level of branches, and the blocks that have
/// the checksums of its pages.
const DEEPER: u64 = 16 * BLOCK_SIZE as u64;

fn open(disk: &SimStorage) -> Cloakroom {
    small().without_threads().open_on(Arc::new(disk.clone())).unwrap()
}

fn identity(session: u32) -> Identity {
    Identity::new("tenant", "user", format!("session-{session}"), "run")
}

/// A disk whose room has states of `sessions` sessions in its B-tree, a hundred of them of a kind
/// that is listed, and nothing in its log.
fn with_states(sessions: u32) -> SimStorage {
    let disk = SimStorage::new(7);
    let room = open(&disk);
    let states = room.state();
    for first in (0..sessions).step_by(500) {
        let saved = (first..sessions.min(first + 500)).map(|session| {
            // Spread over all sessions.
            let of_listed = session % (sessions / 100) == 0;
            let kind = if of_listed { "memory.listed" } else { "memory.other" };
            let record = StateRecord::new(identity(session), kind, format!("\"{:0100}\"", session));
            states.save(record)
        });
        saved.collect::<Vec<_>>().into_iter().for_each(|saved| saved.wait().unwrap());
        room.checkpoint().unwrap();
    }
    room.close().unwrap();
    disk
}

/// The bytes that `read` has read.
fn bytes_read(disk: &SimStorage, read: impl FnOnce()) -> u64 {
    let before = disk.bytes_read();
    read();
    disk.bytes_read() - before
}

#[test]
fn a_listing_of_a_hundred_states_reads_the_same_from_a_small_and_a_large_file() {
    let [small, large] = [FEW, MANY].map(|sessions| {
        let disk = with_states(sessions);
        let room = open(&disk);
        let (states, scope) = (room.state(), ListScope::maintenance());
        let read = bytes_read(&disk, || {
            let listed = states.list_kind(scope, "memory.listed").wait().unwrap();
            assert_eq!(listed.len(), 100);
        });
        room.close().unwrap();
        (disk.bytes_written(), read)
    });
    assert!(large.0 > 3 * small.0, "{large:?} is not a larger file than {small:?}");
    // Of both: the page of each state, and some branches and checksums above them.
    let most = (100 + 48) * BLOCK_SIZE as u64;
    for (len, read) in [small, large] {
        assert!((100 * BLOCK_SIZE as u64..=most).contains(&read), "{read} bytes of {len}");
    }
}

#[test]
fn an_opening_after_a_kill_reads_the_log_and_not_the_rows_whatever_their_number() {
    let [small, large] = [FEW, MANY].map(|sessions| {
        let disk = with_states(sessions);
        let room = open(&disk);
        for number in 0..200 {
            insert(&room.form_tokens(), &format!("{number:064x}")).wait().unwrap();
        }
        let killed = SimStorage::from_image(disk.process_crash_image(), 8);
        drop(room);
        let len = killed.process_crash_image().len() as u64;
        // Closing is no part of it: it may move pages.
        let mut opened = None;
        let read = bytes_read(&killed, || opened = Some(open(&killed)));
        (len, read)
    });
    assert!(large.0 > small.0 + (4 << 20), "{large:?} is not a larger file than {small:?}");
    assert!(large.1 <= small.1 + DEEPER, "{large:?} bytes, and {small:?} from the small one");
}
