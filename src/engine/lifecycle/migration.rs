//! Files of older versions: brought up to date by copying.
//!
//! The old file is locked, read as an opening would recover it (its log replayed in memory), and
//! not written to. Each row goes through the migrations from its version to the present one into a
//! new file beside it, which is read back and then takes the old one's place in one step, with its
//! owner and permissions. A crash at any point leaves the old file or the new one, whole, and
//! perhaps a temporary that the next opening removes.
//!
//! A migration knows the rows of two neighbouring versions, and nothing else changes between them:
//! the superblock, the log and the B-tree of the old version must still be read. A version that
//! changes one of those brings what reads the old one.

use super::format::Geometry;
use super::new_file::NewFile;
use super::recovered_image::RecoveredImage;
use crate::error::{Error, Result};
use crate::storage::{FORMAT_VERSION, FileStorage, Replace, Storage, Superblock};
use crate::tables::{Catalogue, Table};
use std::path::Path;
use std::sync::Arc;

/// Bytes of page cache for each of the two B-trees.
const CACHE_SIZE: usize = 8 << 20;

/// Takes the rows that a migration makes of one.
pub(crate) type Emit<'a> = dyn FnMut(Table, &[u8], &[u8]) -> Result<()> + 'a;

/// How the rows of one version become those of the next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Migration {
    /// The version whose rows it understands; it makes those of the next.
    pub(crate) from: u32,
    /// Emits what becomes of a row: itself, another, several or none. No two rows may become one of
    /// the same key.
    pub(crate) row: fn(Table, &[u8], &[u8], &mut Emit<'_>) -> Result<()>,
}

/// The file at `path` as one of the present version: itself, or what has taken its place. It stays
/// locked.
///
/// # Errors
/// The file is as it was: [`Error::DiskFull`] and [`Error::Io`], [`Error::Corrupted`] when it
/// cannot be read, and what a superblock answers that cannot be read or is of no known version.
pub(in crate::engine) fn bring_up_to_date(
    old: FileStorage,
    path: &Path,
    tables: Catalogue,
    migrations: &[Migration],
) -> Result<FileStorage> {
    let superblock = Superblock::read_any(&old, path)?;
    if superblock.version == FORMAT_VERSION {
        return Ok(old);
    }
    migrate(old, path, &superblock, tables, migrations, |file| Arc::new(file))
}

/// Copies the file through the migrations. The content of the new one goes through what `wrap`
/// makes of it.
fn migrate(
    old: FileStorage,
    path: &Path,
    superblock: &Superblock,
    tables: Catalogue,
    migrations: &[Migration],
    wrap: impl FnOnce(FileStorage) -> Arc<dyn Storage>,
) -> Result<FileStorage> {
    let steps = steps(path, superblock.version, migrations)?;
    let in_context = |error| explain(path, superblock.version, error);
    let storage: Arc<dyn Storage> = Arc::new(old.clone());
    let whole = (|| {
        let image = RecoveredImage::open(&storage, superblock, CACHE_SIZE, tables)?;
        let like = Geometry::of(superblock, image.lsn());
        let mut new = NewFile::create_through(path, like, CACHE_SIZE, tables, wrap)?;
        image.for_each(|table, key, value| {
            through(steps, table, key, value, &mut |table, key, value| new.put(table, key, value))
        })?;
        let whole = new.seal()?;
        whole.verify()?;
        Ok(whole)
    })();
    whole.and_then(|whole| whole.publish(Replace::This(old))).map_err(in_context)
}

/// The migrations from `found` to the present version: one from each version, in order.
fn steps<'a>(path: &Path, found: u32, migrations: &'a [Migration]) -> Result<&'a [Migration]> {
    let first = migrations.iter().position(|migration| migration.from == found);
    let steps = first.and_then(|first| migrations.get(first..)).unwrap_or_default();
    if steps.iter().map(|migration| migration.from).eq(found..FORMAT_VERSION) {
        return Ok(steps);
    }
    let oldest = migrations.first().map_or(FORMAT_VERSION, |migration| migration.from);
    Err(Error::VersionTooOld { path: path.to_path_buf(), found, oldest })
}

/// Sends a row through one migration after the other.
fn through(
    steps: &[Migration],
    table: Table,
    key: &[u8],
    value: &[u8],
    put: &mut Emit<'_>,
) -> Result<()> {
    match steps.split_first() {
        None => put(table, key, value),
        Some((step, later)) => (step.row)(table, key, value, &mut |table, key, value| {
            through(later, table, key, value, put)
        }),
    }
}

/// Says in an error what was being done, and that nothing has changed.
fn explain(path: &Path, from: u32, error: Error) -> Error {
    let doing = format!(
        "bringing {} from format version {from} to {FORMAT_VERSION} (the file is as it was; a second one is written \
         beside it)",
        path.display()
    );
    match error {
        Error::DiskFull { context } => Error::DiskFull { context: format!("{doing}: {context}") },
        Error::Io { context, source } => {
            Error::Io { context: format!("{doing}: {context}"), source }
        }
        Error::Corrupted { location, detail } => {
            Error::Corrupted { location, detail: format!("{detail} (found while {doing})") }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durability::Durability;
    use crate::engine::access::Writer;
    use crate::engine::kernel::time_line::TIME_LINE;
    use crate::engine::lifecycle::faulty::{Faulty, Trouble};
    use crate::engine::testing::write_older;
    use crate::engine::{CommitHook, Engine, EngineOptions, Threads};
    use crate::limits::MIN_LOG_CAPACITY;
    use crate::stores::registry::catalogue;
    use crate::sync::plain::Mutex;
    use std::fs;
    use std::io;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// To version 2: values are the other way round, and each state has a row of its kind.
    const FROM_1: Migration = Migration { from: 1, row: turn };

    fn turn(table: Table, key: &[u8], value: &[u8], emit: &mut Emit<'_>) -> Result<()> {
        let turned: Vec<u8> = value.iter().rev().copied().collect();
        if table == Table::STATE {
            emit(Table::STATE_KIND, key, b"")?;
        }
        emit(table, key, &turned)
    }

    fn unturn(table: Table, key: &[u8], value: &[u8], emit: &mut Emit<'_>) -> Result<()> {
        if table == Table::STATE_KIND { Ok(()) } else { turn_one(table, key, value, emit) }
    }

    fn turn_one(table: Table, key: &[u8], value: &[u8], emit: &mut Emit<'_>) -> Result<()> {
        let turned: Vec<u8> = value.iter().rev().copied().collect();
        emit(table, key, &turned)
    }

    fn options(migrations: &'static [Migration], read_only: bool) -> EngineOptions {
        EngineOptions {
            tables: catalogue(),
            log_capacity: MIN_LOG_CAPACITY,
            cache_size: 1 << 20,
            clock: Arc::new(crate::clock::ManualClock::new(77_000)),
            leap_hold: crate::engine::time_line::DEFAULT_LEAP_HOLD,
            newest_epoch: |_| Ok(None),
            threads: Threads::None,
            maintenance: None,
            read_only,
            log_stall: crate::limits::DEFAULT_LOG_STALL,
            migrations,
            hook: CommitHook::default(),
        }
    }

    fn open(path: &Path) -> Result<Engine> {
        Engine::open_file(path, options(&[FROM_1], false))
    }

    type Rows = Vec<(Table, Vec<u8>, Vec<u8>)>;
    /// The files of a directory, by name.
    type Files = Vec<(String, Vec<u8>)>;

    fn rows(engine: &Engine) -> Rows {
        let mut rows = Rows::new();
        let mut read = engine.durable_snapshot().unwrap();
        let kept = read.for_each(|table, key, value| {
            // An opening adds its time.
            if table != TIME_LINE {
                rows.push((table, key.to_vec(), value.to_vec()));
            }
            Ok(())
        });
        kept.unwrap();
        rows
    }

    /// A directory with a file of version 1, and the rows that it shall have in version 2.
    fn old_room() -> (tempfile::TempDir, PathBuf, Rows) {
        let dir = tempfile::tempdir().unwrap();
        let (new, path) = (dir.path().join("new.cloak"), dir.path().join("edge.cloak"));
        let engine = open(&new).unwrap();
        for number in 0..300_u32 {
            let put = engine.transact(Durability::Sync, &[], |tx| {
                tx.put(Table::STATE, &number.to_be_bytes(), vec![1, 2, 3]);
                tx.put(Table::STATE_KIND, &number.to_be_bytes(), vec![]);
                tx.put(Table::CACHE, &number.to_be_bytes(), number.to_le_bytes().repeat(20));
                Ok::<_, Error>(())
            });
            put.wait().unwrap();
        }
        let rows = rows(&engine);
        engine.close().unwrap();
        write_older(&new, &path, catalogue(), Migration { from: 1, row: unturn }).unwrap();
        fs::remove_file(&new).unwrap();
        (dir, path, rows)
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn migrate_through(path: &Path, trouble: Trouble) -> (u64, Result<FileStorage>) {
        let changes = Arc::new(AtomicU64::new(0));
        let old = FileStorage::open(path).unwrap();
        let superblock = Superblock::read_any(&old, path).unwrap();
        assert_eq!(superblock.version, 1);
        let wrap = |file| Faulty::wrap(file, trouble, &changes);
        let outcome = migrate(old, path, &superblock, catalogue(), &[FROM_1], wrap);
        (changes.load(Ordering::SeqCst), outcome)
    }

    #[test]
    fn an_older_file_is_brought_up_to_date_with_what_is_in_its_log() {
        let (dir, path, expected) = old_room();
        let old = FileStorage::open(&path).unwrap();
        let before = Superblock::read_any(&old, &path).unwrap();
        drop(old);
        let engine = open(&path).unwrap();
        assert!(rows(&engine) == expected);
        assert_eq!(*engine.kernel().superblock(), Superblock { version: FORMAT_VERSION, ..before });
        // Positions go on from where the old file ended, and so do writes. Closing it wrote its
        // time line.
        assert_eq!(engine.stats().unwrap().newest_lsn, 601);
        let put = engine.transact(Durability::Sync, &[], |tx| {
            tx.put(Table::HANDOFF, b"key", b"value".to_vec());
            Ok::<_, Error>(())
        });
        put.wait().unwrap();
        engine.close().unwrap();
        let engine = Engine::open_file(&path, options(&[], false)).unwrap();
        assert_eq!(rows(&engine).len(), expected.len() + 1);
        assert_eq!(names(dir.path()), ["edge.cloak"]);
    }

    #[test]
    fn whichever_call_fails_the_old_file_is_untouched_and_says_so() {
        let (dir, path, expected) = old_room();
        let before = fs::read(&path).unwrap();
        // Trouble far away counts the calls.
        let copy = dir.path().join("copy.cloak");
        fs::copy(&path, &copy).unwrap();
        let (all, outcome) =
            migrate_through(&copy, Trouble::FailsFrom(u64::MAX, io::ErrorKind::Other));
        drop(outcome.unwrap());
        fs::remove_file(&copy).unwrap();
        assert!(all > 40, "only {all} changes");
        for first in 0..all {
            let (_, failed) =
                migrate_through(&path, Trouble::FailsFrom(first, io::ErrorKind::StorageFull));
            match failed {
                Err(Error::DiskFull { context }) => {
                    assert!(context.contains("from format version 1 to 2"), "{context}");
                    assert!(context.contains("the file is as it was"), "{context}");
                }
                outcome => panic!("change {first}: {outcome:?}"),
            }
            assert_eq!(names(dir.path()), ["edge.cloak"], "change {first}");
            assert!(fs::read(&path).unwrap() == before, "change {first}");
        }
        assert!(rows(&open(&path).unwrap()) == expected);
    }

    #[test]
    fn killed_at_any_point_it_leaves_the_old_file_and_a_temporary_that_is_removed() {
        let (dir, path, expected) = old_room();
        // What lies in the directory before each change, as a killed process leaves it.
        let left: Arc<Mutex<Vec<Files>>> = Arc::default();
        let (watched, from) = (Arc::clone(&left), dir.path().to_path_buf());
        let look = move |_| {
            let files = names(&from).into_iter().map(|name| {
                let bytes = fs::read(from.join(&name)).unwrap();
                (name, bytes)
            });
            watched.lock().push(files.collect());
        };
        migrate_through(&path, Trouble::Watched(Box::new(look))).1.unwrap();
        let left = left.lock();
        assert!(left.len() > 40, "only {} changes", left.len());
        for (change, files) in left.iter().enumerate().step_by(3) {
            assert_eq!(files.len(), 2, "change {change}");
            let dir = tempfile::tempdir().unwrap();
            for (name, bytes) in files {
                fs::write(dir.path().join(name), bytes).unwrap();
            }
            let engine = open(&dir.path().join("edge.cloak")).unwrap();
            assert!(rows(&engine) == expected, "change {change}");
            assert_eq!(names(dir.path()), ["edge.cloak"], "change {change}");
        }
    }

    #[test]
    fn what_was_written_wrongly_is_not_put_in_place() {
        let (dir, path, _) = old_room();
        let before = fs::read(&path).unwrap();
        let twice =
            |_: Table, _: &[u8], _: &[u8], emit: &mut Emit<'_>| emit(Table::CACHE, b"one key", b"");
        let old = FileStorage::open(&path).unwrap();
        match bring_up_to_date(old, &path, catalogue(), &[Migration { from: 1, row: twice }]) {
            Err(Error::Corrupted { detail, .. }) => {
                assert!(detail.contains("table cache has 1 rows instead of"), "{detail}");
                assert!(detail.contains("the file is as it was"), "{detail}");
            }
            outcome => panic!("{outcome:?}"),
        }
        assert!(fs::read(&path).unwrap() == before);
        assert_eq!(names(dir.path()), ["edge.cloak"]);
    }

    #[test]
    fn a_version_without_a_migration_to_the_present_one_is_too_old() {
        let (dir, path, _) = old_room();
        let before = fs::read(&path).unwrap();
        let refused = Engine::open_file(&path, options(&[], false)).map(drop);
        assert!(
            matches!(refused, Err(Error::VersionTooOld { found: 1, oldest: 2, .. })),
            "{refused:?}"
        );
        assert!(refused.unwrap_err().to_string().contains("earlier cloakroom"));
        assert!(fs::read(&path).unwrap() == before);
        assert_eq!(names(dir.path()), ["edge.cloak"]);
    }

    #[test]
    fn an_older_version_is_not_read_without_being_brought_up_to_date() {
        let (dir, path, _) = old_room();
        let before = fs::read(&path).unwrap();
        let refused = Engine::open_file(&path, options(&[FROM_1], true)).map(drop);
        let Err(error @ Error::OutdatedVersion { found: 1, current: 2, .. }) = refused else {
            panic!("{refused:?}")
        };
        assert!(error.to_string().contains("once for writing with this cloakroom"), "{error}");
        assert!(fs::read(&path).unwrap() == before);
        assert_eq!(names(dir.path()), ["edge.cloak"]);
    }

    #[test]
    fn several_versions_are_stepped_through_in_order() {
        fn append(letter: u8) -> impl Fn(&[u8]) -> Vec<u8> {
            move |value| [value, &[letter]].concat()
        }
        let first = Migration {
            from: 3,
            row: |table, key, value, emit| emit(table, key, &append(b'a')(value)),
        };
        let second = Migration {
            from: 4,
            row: |table, key, value, emit| {
                emit(table, key, &append(b'b')(value))?;
                emit(table, &append(b'2')(key), value)
            },
        };
        let mut found = Vec::new();
        let each: &mut Emit<'_> = &mut |_, key, value| {
            found.push((key.to_vec(), value.to_vec()));
            Ok(())
        };
        through(&[first, second], Table::CACHE, b"k", b"v", each).unwrap();
        assert_eq!(found, [(b"k".to_vec(), b"vab".to_vec()), (b"k2".to_vec(), b"va".to_vec())]);
    }
}
