//! What a room in a real file does when the system answers otherwise: each answer of the table of
//! docs/protocol.md that a room can be made to meet, from its creation to its second closing.

use crate::rooms::{small, state, state_of};
use crate::scale::scaled;
use cloakroom::handoff::HandoffStateStore;
use cloakroom::limits::LEAST_LOG_SPACE;
use cloakroom::testing::{Injected, SystemCall, inject};
use cloakroom::{Builder, Cloakroom, Durability, Error, Result};
use std::fs;
use std::path::Path;

/// The table, in which the test finds what it injects.
const TABLE: &str = include_str!("../../docs/tables/system-calls.md");

const ERRNOS: [(&str, i32); 22] = [
    ("EPERM", 1),
    ("ENOENT", 2),
    ("EINTR", 4),
    ("EIO", 5),
    ("ENXIO", 6),
    ("EBADF", 9),
    ("EAGAIN", 11),
    ("ENOMEM", 12),
    ("EACCES", 13),
    ("EEXIST", 17),
    ("ENODEV", 19),
    ("ENOTDIR", 20),
    ("EISDIR", 21),
    ("EINVAL", 22),
    ("ENFILE", 23),
    ("EMFILE", 24),
    ("EFBIG", 27),
    ("ENOSPC", 28),
    ("EROFS", 30),
    ("ENOSYS", 38),
    ("EOPNOTSUPP", 95),
    ("EDQUOT", 122),
];

/// The calls of a row that the seam has. Rows about others are tried on the whole command, with a
/// tracer, or belong to the standard library.
fn seam(cell: &str) -> Vec<SystemCall> {
    match cell {
        "`openat` of `/proc/self/fd`" => vec![SystemCall::Reopen],
        "`pread64`" => vec![SystemCall::Pread],
        "`pwrite64`" => vec![SystemCall::Pwrite],
        "`pwritev2` with `RWF_DSYNC`" => vec![SystemCall::Pwritev2],
        "`fdatasync`" => vec![SystemCall::Fdatasync],
        "`fsync`" => vec![SystemCall::Fsync],
        "`fsync` of a directory" => vec![SystemCall::FsyncDirectory],
        "`fallocate`" => vec![SystemCall::Fallocate],
        "`fallocate` of a hole" => vec![SystemCall::PunchHole],
        "`ftruncate`" => vec![SystemCall::Ftruncate],
        "`mmap`" => vec![SystemCall::Mmap],
        "`lseek`" => vec![SystemCall::Lseek],
        "`renameat2`" => vec![SystemCall::Renameat2],
        // The standard library makes the others again by itself, behind the seam.
        "any, on a file" => {
            vec![SystemCall::Pread, SystemCall::Pwrite, SystemCall::Pwritev2, SystemCall::Fallocate]
        }
        "`openat`, `statx`"
        | "`statx`"
        | "`statx` of the path of an open room"
        | "`flock`"
        | "`renameat2`, `rename`, `linkat`"
        | "`renameat2`, `rename`"
        | "`unlink`, `fadvise64`, `madvise`"
        | "`madvise` with `MADV_WIPEONFORK`"
        | "`dup2`, `openat` of `/dev/null` in a forked child"
        | "`fchown`, `fchmod`"
        | "`futex` of a wait"
        | "`futex` of the C library, for a thread that still runs when it is joined"
        | "`clone`, `clone3`"
        | "`getrandom`" => vec![],
        other => panic!("the test does not know {other}"),
    }
}

fn answers(cell: &str) -> Vec<Injected> {
    let answer = |name: &str| {
        let name = name.trim().trim_matches('`');
        match name {
            "short" => Injected::Short(700),
            "0 bytes" => Injected::Short(0),
            name => {
                let known = ERRNOS.iter().find(|(errno, _)| *errno == name);
                Injected::Errno(known.unwrap_or_else(|| panic!("the test does not know {name}")).1)
            }
        }
    };
    cell.split(',').map(answer).collect()
}

/// Does it again for as long as it finds the disk full, as a program would.
fn again<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    let mut attempts = 0;
    loop {
        match call() {
            Err(Error::DiskFull { .. }) if attempts < 8 => attempts += 1,
            outcome => return outcome,
        }
    }
}

/// A log of a megabyte, because hundreds of rooms are made.
fn builder() -> Builder {
    small().log_capacity(2 * LEAST_LOG_SPACE).without_threads()
}

/// The outcome of a room.
#[derive(Default)]
struct Life {
    /// The states that were acknowledged.
    acknowledged: Vec<(String, usize)>,
    /// How often another way was taken.
    fallbacks: u64,
}

impl Life {
    fn open(&self, path: &Path) -> Result<Cloakroom> {
        again(|| builder().open(path))
    }

    fn set(&mut self, room: &Cloakroom, durability: Durability, bytes: usize) -> Result<()> {
        let id = format!("{}", self.acknowledged.len());
        let store = room.handoff().with_durability(durability);
        again(|| store.set(&id, &state_of(bytes), 600).wait())?;
        self.acknowledged.push((id, bytes));
        Ok(())
    }

    fn count(&mut self, room: &Cloakroom) -> Result<()> {
        let stats = serde_json::to_value(room.engine_stats()?).unwrap();
        let figures = stats.as_object().unwrap().iter();
        let taken = figures.filter(|(name, _)| name.ends_with("_fallbacks"));
        self.fallbacks += taken.map(|(_, count)| count.as_u64().unwrap()).sum::<u64>();
        Ok(())
    }

    /// Creates a room, writes in every way, closes it, opens it and writes again.
    fn live(&mut self, path: &Path) -> Result<()> {
        for _ in 0..2 {
            let room = self.open(path)?;
            for bytes in [100, 3_000, 60_000] {
                self.set(&room, Durability::Sync, bytes)?;
            }
            again(|| room.checkpoint())?;
            self.set(&room, Durability::Os, 200)?;
            self.set(&room, Durability::Sync, 300)?;
            for _ in 0..8 {
                self.set(&room, Durability::Os, 60_000)?;
            }
            again(|| room.checkpoint())?;
            self.set(&room, Durability::Sync, 400)?;
            room.handoff().get("0").wait()?;
            self.count(&room)?;
            // A process that is killed leaves something to recover.
            let killed = fs::read(path).unwrap();
            room.close()?;
            fs::write(path, killed).unwrap();
        }
        Ok(())
    }

    /// Whether the room has what was acknowledged, and goes on.
    fn check(&self, path: &Path, context: &str) {
        if !path.exists() {
            assert!(self.acknowledged.is_empty(), "{context}");
            return;
        }
        let room = builder().open(path).unwrap();
        for (id, bytes) in &self.acknowledged {
            let found = room.handoff().get(id).wait().unwrap();
            assert!(found == Some(state_of(*bytes)), "{context}: {id}");
        }
        room.handoff().set("next", &state(1), 600).wait().unwrap();
        room.checkpoint().unwrap();
        assert!(room.verify().unwrap().is_ok(), "{context}");
    }
}

/// Has `times` calls answer so, after `skip` others, in the life of a room. Answers how many did,
/// and whether the room failed.
fn meet(
    call: SystemCall,
    answer: Injected,
    outcome: &str,
    (skip, times): (u64, u64),
) -> (u64, bool) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.cloak");
    let context = format!("{call:?} {answer:?} {skip} {times}");
    let mut life = Life::default();
    // The file grows through it where space cannot be reserved.
    let _unreserved = (call == SystemCall::Ftruncate)
        .then(|| inject(SystemCall::Fallocate, 0, u64::MAX, Injected::Errno(95)));
    let injection = inject(call, skip, times, answer);
    let lived = life.live(&path);
    let met = injection.met();
    drop(injection);
    match (outcome, &lived) {
        (_, Ok(())) => {}
        (
            "error",
            Err(
                Error::Io { .. }
                | Error::DiskFull { .. }
                | Error::OutcomeUnknown { .. }
                | Error::Poisoned { .. }
                | Error::LogFull { .. },
            ),
        ) => {}
        // Neither copy of a header can be read.
        ("error", Err(Error::Corrupted { .. })) if call == SystemCall::Pread => {}
        (_, Err(error)) => panic!("{context}: {error}"),
    }
    // Holes are never asked for in vain, so that is not counted; nor is it when none is made.
    let is_counted = !matches!(call, SystemCall::Lseek | SystemCall::PunchHole);
    if outcome == "another way" && met > 0 && is_counted {
        assert!(life.fallbacks > 0, "{context}");
    }
    life.check(&path, &context);
    let left = fs::read_dir(dir.path()).unwrap().count();
    assert!(left <= 1, "{context}: {left} files");
    (met, lived.is_err())
}

#[test]
fn every_answer_of_the_table_is_met_and_does_what_the_table_says() {
    let mut injected = 0;
    for row in TABLE.lines().skip(2) {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [calls, row_answers, outcome, _] = cells[..] else { panic!("{row}") };
        for call in seam(calls) {
            for answer in answers(row_answers) {
                let tries: &[(u64, u64)] = match outcome {
                    "another way" => &[(0, u64::MAX)],
                    "again" => &[(0, 5), (11, 5)],
                    "heals" => scaled(
                        &[(0, 3), (4, 3), (12, 3)],
                        &[(0, 3), (1, 3), (4, 3), (8, 3), (12, 3), (20, 3), (30, 3)],
                    ),
                    "error" => scaled(
                        &[(0, 60), (3, 60)],
                        &[(0, 1), (0, 60), (2, 60), (5, 1), (9, 60), (12, 60), (30, 1)],
                    ),
                    other => panic!("the test does not know the outcome {other}"),
                };
                let (mut met, mut failed) = (0, false);
                for &how in tries {
                    let (times, has_failed) = meet(call, answer, outcome, how);
                    met += times;
                    failed |= has_failed;
                }
                assert!(met > 0, "{call:?} never answered {answer:?}");
                assert!(outcome != "error" || failed, "{call:?} {answer:?} was no error");
                injected += 1;
            }
        }
    }
    assert!(injected > 60, "{injected}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_sparse_copy_gets_the_space_of_its_log_when_it_is_opened_or_is_refused() {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.cloak");
    let mut life = Life::default();
    life.live(&path).unwrap();
    let whole = fs::read(&path).unwrap();

    let sparse = dir.path().join("sparse.cloak");
    let copy = fs::File::create(&sparse).unwrap();
    copy.set_len(whole.len() as u64).unwrap();
    for (index, block) in whole.chunks(4_096).enumerate() {
        if block.iter().any(|&byte| byte != 0) {
            copy.write_all_at(block, index as u64 * 4_096).unwrap();
        }
    }
    copy.sync_all().unwrap();
    let space = || fs::metadata(&sparse).unwrap().blocks() * 512;
    if space() >= LEAST_LOG_SPACE {
        // This filesystem keeps no holes.
        return;
    }
    // The disk is full from one of the first writes on, which those into the holes are among.
    for written in 0..8 {
        let _full = inject(SystemCall::Pwrite, written, u64::MAX, Injected::Errno(28));
        let refused = builder().open(&sparse).err();
        assert!(matches!(refused, Some(Error::DiskFull { .. })), "{written}: {refused:?}");
    }
    life.check(&sparse, "a sparse copy");
    assert!(space() >= LEAST_LOG_SPACE, "{} of {LEAST_LOG_SPACE}", space());
}
