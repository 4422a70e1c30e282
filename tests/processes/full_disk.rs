//! A disk that is really full, where somebody has mounted a small one.
//!
//! `CLOAKROOM_SMALL_DISK` names a directory on a filesystem of its own that may be filled: a tmpfs
//! of some mebibytes, or a btrfs, on which every write takes new space.

use crate::rooms::{small, state, state_of};
use cloakroom::handoff::HandoffStateStore;
use cloakroom::{Cloakroom, Durability, Error, Pending};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a disk may take to be usable after space was freed.
const HEALS_WITHIN: Duration = Duration::from_secs(60);

/// Writes to a file until there is no space left, in ever smaller pieces.
fn fill_up(dir: &Path) -> PathBuf {
    let path = dir.join("ballast");
    let mut ballast = File::create(&path).unwrap();
    for piece in [1 << 20, 1 << 16, 1 << 12] {
        let bytes = vec![0xA5; piece];
        while ballast.write_all(&bytes).is_ok() && ballast.sync_data().is_ok() {}
    }
    path
}

/// Sets states until the disk refuses one.
fn write_until_full(room: &Cloakroom, acknowledged: &mut Vec<String>, durability: Durability) {
    let store = room.handoff().with_durability(durability);
    for number in 0..20_000 {
        let id = format!("{}", acknowledged.len());
        match store.set(&id, &state_of(20_000), 600).wait() {
            Ok(()) => acknowledged.push(id),
            // An outcome that is unknown may be there; no one relies on it.
            Err(Error::DiskFull { .. } | Error::OutcomeUnknown { .. }) => return,
            Err(error) => panic!("state {number}: {error}"),
        }
    }
    panic!("the disk never filled up");
}

/// Makes a call until it is accepted, on a disk that has space again: calls are refused until a
/// checkpoint has found that out.
fn until_healed(call: impl Fn() -> Pending<()>) {
    let began = Instant::now();
    while let Err(error) = call().wait() {
        assert!(matches!(error, Error::DiskFull { .. } | Error::OutcomeUnknown { .. }), "{error}");
        assert!(began.elapsed() < HEALS_WITHIN, "{error}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_disk_that_is_really_full_refuses_heals_and_keeps_what_was_acknowledged() {
    let Some(dir) = std::env::var_os("CLOAKROOM_SMALL_DISK").map(PathBuf::from) else { return };
    for durability in [Durability::Sync, Durability::Os] {
        let path = dir.join("edge.cloak");
        let mut acknowledged = Vec::new();
        let room = small().log_stall(Duration::from_secs(2)).open(&path).unwrap();
        for round in 0..3 {
            let ballast = fill_up(&dir);
            write_until_full(&room, &mut acknowledged, durability);
            assert!(!room.engine_stats().unwrap().poisoned);
            for id in &acknowledged {
                let relaxed = room.handoff().with_durability(Durability::Os);
                assert!(relaxed.get(id).wait().unwrap().is_some(), "{id}");
            }
            fs::remove_file(&ballast).unwrap();
            File::open(&dir).unwrap().sync_all().unwrap();
            until_healed(|| room.handoff().set(&format!("healed{round}"), &state(2), 600));
            // So that the next round finds a log with space.
            for id in acknowledged.drain(..) {
                until_healed(|| room.handoff().delete(&id));
            }
            for id in 0..5 {
                let id = format!("kept{round}-{id}");
                room.handoff().set(&id, &state(3), 600).wait().unwrap();
            }
            room.checkpoint().unwrap();
        }
        let stats = room.engine_stats().unwrap();
        println!("{durability:?}: the log waited for space {} times", stats.disk_full_stalls);
        room.close().unwrap();
        assert!(cloakroom::tools::verify(&path).unwrap().is_ok());
        let room = small().open(&path).unwrap();
        for round in 0..3 {
            assert!(room.handoff().get(&format!("healed{round}")).wait().unwrap().is_some());
            for id in 0..5 {
                let found = room.handoff().get(&format!("kept{round}-{id}")).wait().unwrap();
                assert_eq!(found, Some(state(3)));
            }
        }
        drop(room);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_room_cannot_be_closed_or_opened_on_a_full_disk_without_keeping_what_it_has() {
    let Some(dir) = std::env::var_os("CLOAKROOM_SMALL_DISK").map(PathBuf::from) else { return };
    let path = dir.join("closed.cloak");
    let mut acknowledged = Vec::new();
    let room = small().log_stall(Duration::from_millis(300)).open(&path).unwrap();
    let ballast = fill_up(&dir);
    write_until_full(&room, &mut acknowledged, Durability::Sync);
    match room.close() {
        Ok(()) | Err(Error::DiskFull { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    // It may be opened or not while the disk is full, and is whole afterwards.
    match small().open(&path) {
        Ok(room) => drop(room),
        Err(Error::DiskFull { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    fs::remove_file(&ballast).unwrap();
    let room = small().open(&path).unwrap();
    for id in &acknowledged {
        assert!(room.handoff().get(id).wait().unwrap().is_some(), "{id}");
    }
    room.close().unwrap();
    assert!(cloakroom::tools::verify(&path).unwrap().is_ok());
    fs::remove_file(&path).unwrap();
}
