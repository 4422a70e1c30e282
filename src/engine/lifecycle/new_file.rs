//! A new room file that is built row by row, and gets its name when it is whole.
//!
//! Backup, salvage, import and migration make their files here. Until it is published the file is a
//! locked temporary beside its target, without a superblock for most of that time; a crash leaves a
//! temporary that the next creator removes, and never a target that is not whole.

use super::fingerprint::Fingerprint;
use super::format::{Geometry, Unfinished};
use super::recovered_image::RecoveredImage;
use crate::btree::pages::{Depth, Tables, Tree, Visit};
use crate::error::{Error, Result};
use crate::storage::{Creation, FileStorage, Replace, Storage, Superblock};
use crate::tables::{Catalogue, Table};
use std::path::Path;
use std::sync::Arc;

/// Bytes of page cache while a new file is read back: everything is read once.
const VERIFY_CACHE_SIZE: usize = 1 << 20;

/// A room file that is being built. Dropped before it is finished, it leaves nothing.
pub(crate) struct NewFile {
    // Before the file, so that nothing is written to a file that has lost its lock.
    content: Unfinished,
    creation: Creation,
    like: Geometry,
    tables: Catalogue,
    fingerprint: Fingerprint,
}

impl NewFile {
    /// Begins a file that shall become `target`; a symbolic link that leads to a file stands for
    /// that file. Whether the name is free is decided in [`Whole::publish`];
    /// [`check_vacant`](crate::storage::check_vacant) tells early.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::DiskFull`]; nothing is left.
    pub(crate) fn create(
        target: &Path,
        like: Geometry,
        cache_size: usize,
        tables: Catalogue,
    ) -> Result<Self> {
        Self::create_through(target, like, cache_size, tables, |file| Arc::new(file))
    }

    /// The same, with all content going through the storage that `wrap` makes of the file's.
    pub(super) fn create_through(
        target: &Path,
        like: Geometry,
        cache_size: usize,
        tables: Catalogue,
        wrap: impl FnOnce(FileStorage) -> Arc<dyn Storage>,
    ) -> Result<Self> {
        let creation = Creation::begin(target)?;
        let storage = wrap(creation.storage().clone());
        let content = Unfinished::begin(storage, like, cache_size, tables)?;
        Ok(Self { content, creation, like, tables, fingerprint: Fingerprint::default() })
    }

    /// Adds a row, or replaces the one with this key. Any order will do; it is fastest by table and
    /// key. At most some 16 MiB are gathered in memory, and one row more.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::DiskFull`]. Drop the file then.
    pub(crate) fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<()> {
        self.fingerprint.add(table, key, value);
        self.content.put(table, key, value)
    }

    /// How many rows were put, those counted twice that replaced one.
    pub(crate) fn rows(&self) -> u64 {
        self.fingerprint.rows()
    }

    /// Makes the file whole and durable, still without its name, so that it can be looked at first.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::DiskFull`]; nothing is left.
    pub(crate) fn seal(self) -> Result<Whole> {
        self.content.finish()?;
        let Self { creation, like, tables, fingerprint, .. } = self;
        Ok(Whole { creation, like, tables, fingerprint })
    }
}

/// A whole room file without its name. Dropped, it leaves nothing.
pub(crate) struct Whole {
    creation: Creation,
    like: Geometry,
    tables: Catalogue,
    fingerprint: Fingerprint,
}

impl Whole {
    /// The file.
    pub(crate) fn storage(&self) -> &FileStorage {
        self.creation.storage()
    }

    /// Gives the file the owner, the group and the permissions of another one.
    ///
    /// # Errors
    /// That of the system, with what to do.
    pub(crate) fn take_access_of(&self, other: &FileStorage) -> std::io::Result<()> {
        self.creation.take_access_of(other)
    }

    /// The length of the file in bytes.
    pub(crate) fn len(&self) -> Result<u64> {
        self.storage()
            .len()
            .map_err(|error| Error::io("asking for the length of a new file", error))
    }

    /// Reads the file back through its own bytes, from the disk where the system lets us, as an
    /// opening would, and compares it with what was put. No row may have been put twice.
    ///
    /// # Errors
    /// [`Error::Corrupted`] when something is not what was written, and [`Error::Io`].
    pub(crate) fn verify(&self) -> Result<()> {
        self.storage().forget_cached();
        let storage: Arc<dyn Storage> = Arc::new(self.storage().clone());
        let differs = |detail: String| Error::corrupted("the new file, read back", detail);
        let superblock = Superblock::read(storage.as_ref(), self.creation.path())?;
        let image = RecoveredImage::open(&storage, &superblock, VERIFY_CACHE_SIZE, self.tables)?;
        let as_written = superblock.is_whole_on(storage.as_ref())?
            && Geometry::of(&superblock, image.lsn()) == self.like;
        if !as_written || !image.is_settled() {
            return Err(differs("its headers are not those that were written".to_owned()));
        }
        check_pages(&storage, &superblock)?;
        let mut found = Fingerprint::default();
        image.for_each(|table, key, value| {
            found.add(table, key, value);
            Ok(())
        })?;
        self.fingerprint.difference(&found).map_or(Ok(()), |difference| Err(differs(difference)))
    }

    /// Gives the file its name, and answers it, locked.
    ///
    /// # Errors
    /// Those of [`Creation::publish`]: no temporary is left, and what has the name is as it was.
    pub(crate) fn publish(self, replace: Replace) -> Result<FileStorage> {
        self.creation.publish(replace)
    }
}

/// Reads every page that the B-tree reaches, those that redb keeps for itself too, past redb.
fn check_pages(storage: &Arc<dyn Storage>, superblock: &Superblock) -> Result<()> {
    let mut intact = |visit: Visit<'_>| match visit {
        Visit::Lost { error, .. } => Err(error),
        Visit::Page { .. } | Visit::Row { .. } => Ok(()),
    };
    let newest = Tree::open(storage, superblock.btree_offset)?.into_iter().next();
    let tree =
        newest.ok_or_else(|| Error::corrupted("the new file, read back", "it has no B-tree"))?;
    let pages = tree.pages();
    for of in [Tables::User, Tables::System] {
        for table in pages.tables(of, &mut intact)? {
            pages.visit(&table, Depth::Leaves, &mut intact)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod page_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::durability::Durability;
    use crate::engine::access::Writer;
    use crate::engine::cursor::RowCursor;
    use crate::engine::lifecycle::faulty::{Faulty, Trouble};
    use crate::engine::{CommitHook, Engine, EngineOptions, Threads};
    use crate::limits::MIN_LOG_CAPACITY;
    use crate::stores::registry::catalogue;
    use std::io;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU64, Ordering};

    const CACHE: usize = 1 << 20;

    fn options() -> EngineOptions {
        EngineOptions {
            tables: catalogue(),
            log_capacity: MIN_LOG_CAPACITY,
            cache_size: CACHE,
            clock: Arc::new(SystemClock::new()),
            leap_hold: crate::engine::time_line::DEFAULT_LEAP_HOLD,
            newest_epoch: |_| Ok(None),
            threads: Threads::None,
            maintenance: None,
            read_only: false,
            log_stall: crate::limits::DEFAULT_LOG_STALL,
            migrations: &[],
            hook: CommitHook::default(),
        }
    }

    fn like(lsn: u64) -> Geometry {
        Geometry { lsn, ..Geometry::new(MIN_LOG_CAPACITY, 1_700_000_000_000) }
    }

    fn target() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.cloak");
        (dir, path)
    }

    fn finish(new: NewFile, replace: Replace) -> Result<u64> {
        let whole = new.seal()?;
        let bytes = whole.len()?;
        whole.publish(replace)?;
        Ok(bytes)
    }

    fn names(dir: &tempfile::TempDir) -> Vec<String> {
        let entries = std::fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn rows(path: &Path, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
        let engine = Engine::open_file(path, options()).unwrap();
        let rows = engine.read(Durability::Sync, |at| RowCursor::all(table).collect(at)).wait();
        rows.unwrap().into_iter().map(|(key, value)| (key, value.to_vec())).collect()
    }

    #[test]
    fn rows_in_any_order_become_a_room_in_which_writing_goes_on() {
        let (dir, path) = target();
        let mut new = NewFile::create(&path, like(41), CACHE, catalogue()).unwrap();
        for key in (0..500_u32).rev() {
            new.put(Table::CACHE, &key.to_be_bytes(), b"cached").unwrap();
            new.put(Table::HANDOFF, &key.to_be_bytes(), &[7; 300]).unwrap();
        }
        new.put(Table::HANDOFF, &3_u32.to_be_bytes(), b"the last one wins").unwrap();
        assert!(!path.exists());
        let bytes = finish(new, Replace::Nothing).unwrap();
        assert_eq!(names(&dir), ["edge.cloak"]);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes);

        let handoff = rows(&path, Table::HANDOFF);
        assert_eq!(handoff.len(), 500);
        assert!(handoff.is_sorted());
        assert_eq!(handoff[3].1, b"the last one wins");
        assert_eq!(rows(&path, Table::CACHE).len(), 500);
        let engine = Engine::open_file(&path, options()).unwrap();
        assert_eq!(engine.stats().unwrap().newest_lsn, 41);
        let written = engine.transact(Durability::Sync, &[], |tx| {
            tx.put(Table::STATE, b"key", b"value".to_vec());
            Ok::<_, Error>(())
        });
        written.wait().unwrap();
        engine.close().unwrap();
        assert_eq!(rows(&path, Table::STATE), [(b"key".to_vec(), b"value".to_vec())]);
        assert_eq!(rows(&path, Table::HANDOFF), handoff);
    }

    #[test]
    fn rows_of_many_batches_are_all_there() {
        let (_dir, path) = target();
        let mut new = NewFile::create(&path, like(7), CACHE, catalogue()).unwrap();
        // Five batches and a rest.
        for key in 0..85_u32 {
            new.put(Table::CACHE, &key.to_be_bytes(), &vec![u8::try_from(key).unwrap(); 1 << 20])
                .unwrap();
            new.put(Table::CACHE, &0_u32.to_be_bytes(), &key.to_be_bytes()).unwrap();
        }
        finish(new, Replace::Nothing).unwrap();
        let rows = rows(&path, Table::CACHE);
        assert_eq!(rows.len(), 85);
        assert_eq!(rows[0].1, 84_u32.to_be_bytes());
        assert!(rows[1..].iter().all(|(key, value)| **value == vec![key[3]; 1 << 20]));
    }

    #[test]
    fn an_unfinished_file_leaves_nothing_and_a_finished_one_replaces_nothing_unasked() {
        let (dir, path) = target();
        let mut new = NewFile::create(&path, like(1), CACHE, catalogue()).unwrap();
        new.put(Table::CACHE, b"key", b"value").unwrap();
        drop(new);
        drop(NewFile::create(&path, like(1), CACHE, catalogue()).unwrap().seal().unwrap());
        assert!(names(&dir).is_empty());

        std::fs::write(&path, b"somebody's").unwrap();
        let refused =
            finish(NewFile::create(&path, like(1), CACHE, catalogue()).unwrap(), Replace::Nothing)
                .unwrap_err();
        assert!(
            matches!(&refused, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists)
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"somebody's");
        assert_eq!(names(&dir), ["edge.cloak"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_replacement_keeps_the_permissions_and_follows_a_link() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, path) = target();
        finish(NewFile::create(&path, like(1), CACHE, catalogue()).unwrap(), Replace::Nothing)
            .unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let link = dir.path().join("link.cloak");
        std::os::unix::fs::symlink(&path, &link).unwrap();

        let mut new = NewFile::create(&link, like(2), CACHE, catalogue()).unwrap();
        new.put(Table::CACHE, b"key", b"value").unwrap();
        let old = FileStorage::open(&link).unwrap();
        finish(new, Replace::This(old)).unwrap();
        assert!(link.is_symlink());
        assert_eq!(names(&dir), ["edge.cloak", "link.cloak"]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(rows(&path, Table::CACHE), [(b"key".to_vec(), b"value".to_vec())]);
    }

    #[test]
    fn a_file_that_lost_its_name_is_not_replaced() {
        let (dir, path) = target();
        finish(NewFile::create(&path, like(1), CACHE, catalogue()).unwrap(), Replace::Nothing)
            .unwrap();
        let old = FileStorage::open(&path).unwrap();
        std::fs::rename(&path, dir.path().join("moved.cloak")).unwrap();
        std::fs::write(&path, b"somebody's").unwrap();
        let new = NewFile::create(&path, like(2), CACHE, catalogue()).unwrap();
        assert!(finish(new, Replace::This(old)).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"somebody's");
        assert_eq!(names(&dir), ["edge.cloak", "moved.cloak"]);
    }

    /// Makes a file with some rows through a storage that is in trouble. Answers how many changes
    /// were made.
    fn make(path: &Path, trouble: Trouble) -> (u64, Result<()>) {
        let changes = Arc::new(AtomicU64::new(0));
        let outcome = (|| {
            let wrap = |file| Faulty::wrap(file, trouble, &changes);
            let mut new = NewFile::create_through(path, like(9), CACHE, catalogue(), wrap)?;
            for key in 0..600_u32 {
                new.put(Table::CACHE, &key.to_be_bytes(), &[3; 300])?;
            }
            let whole = new.seal()?;
            whole.verify()?;
            whole.publish(Replace::Nothing).map(drop)
        })();
        (changes.load(Ordering::SeqCst), outcome)
    }

    #[test]
    fn whichever_call_fails_there_is_no_file_and_no_temporary() {
        let (dir, path) = target();
        let (all, made) = make(&path, Trouble::FailsFrom(u64::MAX, io::ErrorKind::Other));
        made.unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(all > 50, "only {all} changes");
        for first in 0..all {
            let (_, failed) = make(&path, Trouble::FailsFrom(first, io::ErrorKind::StorageFull));
            assert!(matches!(failed, Err(Error::DiskFull { .. })), "change {first}: {failed:?}");
            assert!(names(&dir).is_empty(), "change {first} left {:?}", names(&dir));
        }
    }

    #[test]
    fn a_flipped_bit_on_the_way_to_the_disk_is_found_before_the_file_has_its_name() {
        let (dir, path) = target();
        let (all, made) = make(&path, Trouble::FailsFrom(u64::MAX, io::ErrorKind::Other));
        made.unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut found = 0;
        for chosen in 0..all {
            match make(&path, Trouble::Flips(chosen)).1 {
                Err(Error::Corrupted { .. }) => {
                    found += 1;
                    assert!(names(&dir).is_empty(), "change {chosen} left {:?}", names(&dir));
                }
                Err(error) => panic!("change {chosen}: {error}"),
                // A flush, a page that was replaced later, the prewritten log, or one of two equal
                // copies.
                Ok(()) => {
                    assert_eq!(rows(&path, Table::CACHE).len(), 600, "change {chosen}");
                    std::fs::remove_file(&path).unwrap();
                }
            }
        }
        // Compaction writes most pages a second time.
        assert!(found > 40, "{found} of {all} were found");
    }

    #[test]
    fn one_flipped_copy_of_the_superblock_is_found_although_the_other_one_is_whole() {
        let (dir, path) = target();
        let (all, made) = make(&path, Trouble::FailsFrom(u64::MAX, io::ErrorKind::Other));
        made.unwrap();
        std::fs::remove_file(&path).unwrap();
        // It is the last that is written.
        for chosen in [all - 2, all - 1] {
            let outcome = make(&path, Trouble::Flips(chosen)).1;
            assert!(
                matches!(outcome, Err(Error::Corrupted { .. })),
                "change {chosen}: {outcome:?}"
            );
            assert!(names(&dir).is_empty());
        }
    }
}
