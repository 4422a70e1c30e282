//! The atomic creation of a file: it appears complete, or not at all.
//!
//! 1. A temporary file is created in the directory of the target, readable by its owner only, and
//!    locked.
//! 2. Its content is written, and flushed with every attribute.
//! 3. It is renamed to the target, unless something has that name by now. It stays locked, so that
//!    no other process can open it in between.
//! 4. The directory is flushed, so that the name is durable too.
//!
//! A crash before step 3 leaves an unlocked temporary, which the next creator removes. A crash
//! after step 3 leaves the complete file or, before step 4, perhaps the temporary.

use super::access::keep_access;
use super::directory::{split, sync_dir};
use super::fallback::Fallback;
use super::file::{FileStorage, open_regular};
use super::in_place::{awaits_content, fill};
use super::lock::{Access, context, lock};
use super::name::is_named;
use super::positioned::is_refused;
use super::system_call::{SystemCall, admit};
use crate::error::{Error, Result};
use crate::process::HomeProcess;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The end of a temporary file's name.
const SUFFIX: &str = ".new";

/// How many random letters make the name of a temporary file unique.
const RANDOM_LEN: usize = 10;

/// The most bytes of the target's name in a temporary's name. Filesystems limit names to 255 bytes,
/// some that encrypt them to 143.
const MAX_STEM_LEN: usize = 100;

/// How often a creator retries because another creator removed its temporary as an orphan between
/// creating and locking it, or because the target appeared and disappeared. Each retry needs
/// another process in exactly that moment.
const MAX_ATTEMPTS: usize = 16;

impl FileStorage {
    /// Opens the file at `path`, or creates it with the content that `init` writes. An empty file
    /// is filled. The flag says whether there is new content.
    ///
    /// # Errors
    /// Those of [`FileStorage::open`] and [`FileStorage::create`], without `NotFound` and
    /// `AlreadyExists` for the file itself.
    pub(crate) fn open_or_create(
        path: &Path,
        mut init: impl FnMut(&FileStorage) -> Result<()>,
    ) -> Result<(FileStorage, bool)> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match Self::open(path) {
                Err(error) if has_kind(&error, io::ErrorKind::NotFound) => {}
                Ok(storage) if awaits_content(&storage, path)? => {
                    fill(&storage, path, &mut init)?;
                    return Ok((storage, true));
                }
                outcome => return outcome.map(|storage| (storage, false)),
            }
            match Self::create(path, &mut init) {
                Err(error)
                    if attempt < MAX_ATTEMPTS && has_kind(&error, io::ErrorKind::AlreadyExists) => {
                }
                outcome => return outcome.map(|storage| (storage, true)),
            }
        }
    }

    /// Creates the file at `path` with the content that `init` writes, and locks it. It appears at
    /// its path complete and durable.
    ///
    /// # Errors
    /// After any error there is no file. If the path already exists it is unchanged, and the error
    /// is an [`Error::Io`] whose source is `AlreadyExists`: open that file instead.
    pub(crate) fn create(
        path: &Path,
        init: impl FnOnce(&FileStorage) -> Result<()>,
    ) -> Result<FileStorage> {
        check_vacant(path)?;
        let creation = Creation::begin(path)?;
        init(creation.storage())?;
        creation.publish(Replace::Nothing)
    }
}

/// What a new file may replace.
#[derive(Debug)]
pub(crate) enum Replace {
    /// Nothing: if the path exists by then, the new file is discarded.
    Nothing,
    /// This file, which is locked and still has the name. Its owner, group and permissions are
    /// kept; where the system does not allow that, it is not replaced. It stays complete until the
    /// new one has its name.
    This(FileStorage),
}

/// A file that is being created. It gets its name when it is published. If it is dropped before, no
/// file remains.
#[derive(Debug)]
pub(crate) struct Creation {
    // Declared before the temporary: it would be unlocked otherwise while it still exists.
    storage: FileStorage,
    temporary: TemporaryName,
    /// The path that the caller asked for.
    path: PathBuf,
    /// The target of that path, if it is a symbolic link.
    resolved: PathBuf,
}

impl Creation {
    /// An empty, locked temporary in the directory of `path`, or of the target if `path` is a
    /// symbolic link. Removes temporaries of the same target whose creators no longer exist.
    pub(crate) fn begin(path: &Path) -> Result<Self> {
        let failed = |error| Error::io(context("creating", path), error);
        let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
        let resolved = if is_link { fs::canonicalize(path).ok() } else { None };
        let resolved = resolved.unwrap_or_else(|| path.to_path_buf());
        let (dir, name) = split(&resolved).map_err(failed)?;
        remove_orphans(dir, name);
        let (file, temporary) = locked_temporary(dir, name, path)?;
        let temporary = TemporaryName::new(temporary);
        let storage = FileStorage::from_locked(file, path)?;
        Ok(Self { storage, temporary, path: path.to_path_buf(), resolved })
    }

    /// The path that it will have.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file the owner, the group and the permissions of another one.
    ///
    /// # Errors
    /// That of the system, with what to do: usually only the superuser may give files away.
    pub(crate) fn take_access_of(&self, other: &FileStorage) -> io::Result<()> {
        keep_access(other.file(), self.storage.file())
    }

    /// The storage to write the content to.
    pub(crate) fn storage(&self) -> &FileStorage {
        &self.storage
    }

    /// Flushes the content, and gives the file its name. It stays locked.
    ///
    /// # Errors
    /// After any error there is no temporary. A file with that name is unchanged, with one
    /// exception: when the directory cannot be flushed after a replacement, the new file has the
    /// name, and a crash may bring back the complete old file. If the path exists and must not be
    /// replaced, the error is an [`Error::Io`] whose source is `AlreadyExists`.
    pub(crate) fn publish(self, replace: Replace) -> Result<FileStorage> {
        let Self { storage, temporary, path, resolved } = self;
        let failed = |error| Error::io(context("creating", &path), error);
        if let Replace::This(old) = &replace {
            if !is_named(old.file(), &resolved) {
                let detail = "the file to replace was renamed or removed in the meantime";
                return Err(failed(io::Error::other(detail)));
            }
            keep_access(old.file(), storage.file()).map_err(failed)?;
        }
        storage.sync_all().map_err(|error| Error::io(context("flushing the new", &path), error))?;
        let (dir, _) = split(&resolved).map_err(failed)?;
        let temporary = temporary.take()?;
        let replaces = match replace {
            Replace::Nothing => {
                if !take_vacant_name(temporary, &path).map_err(failed)? {
                    storage.count(Fallback::Rename);
                }
                false
            }
            Replace::This(old) => {
                // Other systems cannot replace an open file.
                let _old = cfg!(unix).then_some(old);
                temporary.persist(&resolved).map_err(|refused| failed(explained(refused.error)))?;
                true
            }
        };
        let flushed = sync_dir(dir).and_then(|flushed| {
            if flushed {
                return Ok(());
            }
            // Filesystems that keep a journal write the new name with the file.
            storage.count(Fallback::DirectoryFlush);
            storage.sync_all()
        });
        if let Err(error) = flushed {
            if !replaces {
                // The name may not survive a crash, so the file is removed and the caller gets an
                // error. It is still locked, so no other process uses it.
                let _ = fs::remove_file(&path);
            }
            return Err(Error::io(context("flushing the directory of the new", &path), error));
        }
        Ok(storage)
    }
}

/// The name of a temporary file, which is removed when this is dropped. Not so in a forked child,
/// where the file is the parent's.
#[derive(Debug)]
struct TemporaryName {
    path: Option<tempfile::TempPath>,
    home: HomeProcess,
}

impl TemporaryName {
    fn new(path: tempfile::TempPath) -> Self {
        Self { path: Some(path), home: HomeProcess::current() }
    }

    /// The name, to be given to the target.
    fn take(mut self) -> Result<tempfile::TempPath> {
        self.home.check()?;
        self.path.take().ok_or(Error::Forked)
    }
}

impl Drop for TemporaryName {
    fn drop(&mut self) {
        if let Some(path) = self.path.as_mut().filter(|_| self.home.has_forked()) {
            path.disable_cleanup(true);
        }
    }
}

/// Checks early whether the path exists, to avoid needless work. The rename decides.
///
/// # Errors
/// [`Error::Io`], whose source is `AlreadyExists` when the path exists, or `InvalidInput`
/// for a symbolic link and for a path without a name.
pub(crate) fn check_vacant(path: &Path) -> Result<()> {
    let failed = |error| Error::io(context("creating", path), error);
    split(path).map_err(failed)?;
    match fs::symlink_metadata(path) {
        Ok(found) => Err(failed(occupied(&found))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Says what to do about a file that cannot be replaced.
fn explained(error: io::Error) -> io::Error {
    use io::ErrorKind::{CrossesDevices, ResourceBusy};
    if !matches!(error.kind(), ResourceBusy | CrossesDevices) {
        return error;
    }
    let detail = format!(
        "the file is mounted by itself (as single files are into containers), so no other file can take its place: \
         mount its directory instead, or do this where it is an ordinary file; it is as it was ({error})"
    );
    io::Error::new(error.kind(), detail)
}

fn has_kind(error: &Error, kind: io::ErrorKind) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == kind)
}

/// Why the path cannot be used. A dangling symbolic link cannot be opened instead.
fn occupied(found: &fs::Metadata) -> io::Error {
    if found.is_symlink() {
        let detail =
            "a symbolic link has this name; create the file at its target, or remove the link";
        return io::Error::new(io::ErrorKind::InvalidInput, detail);
    }
    io::Error::new(
        io::ErrorKind::AlreadyExists,
        "a file or directory with this name already exists",
    )
}

/// The prefix of the names of `name`'s temporaries.
fn prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(stem(name));
    prefix.push(".");
    prefix
}

/// The name, or what fits a temporary's name and stands for it: its beginning and a checksum.
fn stem(name: &OsStr) -> OsString {
    if name.len() <= MAX_STEM_LEN {
        return name.to_owned();
    }
    let checksum = format!("~{:08x}", crc32fast::hash(name.as_encoded_bytes()));
    // Some filesystems take whole letters only.
    let text = name.to_string_lossy();
    let longest = MAX_STEM_LEN - checksum.len();
    let begin = (0..=longest).rev().find_map(|end| text.get(..end));
    let mut stem = OsString::from(begin.unwrap_or_default());
    stem.push(checksum);
    stem
}

/// A new temporary file that is locked and still has its name.
fn locked_temporary(dir: &Path, name: &OsStr, path: &Path) -> Result<(File, tempfile::TempPath)> {
    let prefix = prefix(name);
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(SUFFIX).rand_bytes(RANDOM_LEN);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600));

    for _ in 0..MAX_ATTEMPTS {
        let created = builder.tempfile_in(dir);
        let (file, temporary) =
            created.map_err(|error| Error::io(context("creating", path), error))?.into_parts();
        match lock(&file, path, Access::Write) {
            // From here on no other creator removes it, because that needs the lock.
            Ok(()) if is_named(&file, &temporary) => return Ok((file, temporary)),
            Ok(()) | Err(Error::Locked { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::Locked { path: path.to_path_buf() })
}

/// Removes the temporaries of creators that were killed: unlocked files with the name of a
/// temporary of this target. One that cannot be removed stays, and does no harm.
fn remove_orphans(dir: &Path, name: &OsStr) {
    let prefix = prefix(name);
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || !is_temporary(&entry.file_name(), &prefix) {
            continue;
        }
        let orphan = entry.path();
        let Ok(file) = open_regular(&orphan, Access::Write) else { continue };
        if lock(&file, &orphan, Access::Write).is_ok() && is_named(&file, &orphan) {
            let _ = fs::remove_file(&orphan);
        }
    }
}

/// Whether a file's name is one that [`locked_temporary`] gives.
fn is_temporary(name: &OsStr, prefix: &OsStr) -> bool {
    let random = name
        .as_encoded_bytes()
        .strip_prefix(prefix.as_encoded_bytes())
        .and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()));
    random.is_some_and(|letters| {
        letters.len() == RANDOM_LEN && letters.iter().all(u8::is_ascii_alphanumeric)
    })
}

/// Renames a temporary to `path` unless something has that name. Answers whether that was one step.
///
/// Filesystems that can neither rename so nor make a second link (exFAT, some network mounts) need
/// two: an empty file takes the name, which only one creator can do, and is replaced.
fn take_vacant_name(temporary: tempfile::TempPath, path: &Path) -> io::Result<bool> {
    let renamed = match admit(SystemCall::Renameat2, 0) {
        Ok(_) => temporary.persist_noclobber(path).map_err(|refused| (refused.error, refused.path)),
        Err(error) => Err((error, temporary)),
    };
    let (error, temporary) = match renamed {
        Ok(()) => return Ok(true),
        Err(refused) => refused,
    };
    if !is_refused(&error) {
        return Err(error);
    }
    let empty = File::options().write(true).create_new(true).open(path)?;
    // Locked, so that no opener takes it for a file of its own. One that was faster keeps it.
    let is_ours = lock(&empty, path, Access::Write).is_ok()
        && is_named(&empty, path)
        && empty.metadata()?.len() == 0;
    if !is_ours {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    match temporary.persist(path) {
        Ok(()) => Ok(false),
        Err(refused) => {
            let _ = fs::remove_file(path);
            Err(refused.error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::system_call::{Injected, inject};
    use super::*;
    use crate::storage::Storage;

    fn hello(storage: &FileStorage) -> Result<()> {
        storage.set_len(5).unwrap();
        storage.write_at(0, b"hello").unwrap();
        Ok(())
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_created_file_is_complete_locked_and_accessible_to_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.cloak");
        let storage = FileStorage::create(&path, hello).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"hello");
        assert_eq!(names(dir.path()), ["edge.cloak"]);
        assert!(matches!(FileStorage::open(&path), Err(Error::Locked { .. })));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        storage.write_at_durable(0, b"H").unwrap();
        drop(storage);
        FileStorage::open(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"Hello");
    }

    #[test]
    fn the_file_is_locked_and_not_at_its_path_while_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.cloak");
        FileStorage::create(&path, |_| {
            assert!(!path.exists());
            let temporaries = names(dir.path());
            assert_eq!(temporaries.len(), 1);
            assert!(is_temporary(OsStr::new(&temporaries[0]), OsStr::new(".edge.cloak.")));
            let temporary = dir.path().join(&temporaries[0]);
            assert!(matches!(FileStorage::open(&temporary), Err(Error::Locked { .. })));
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_failed_creation_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = FileStorage::create(&dir.path().join("edge.cloak"), |storage| {
            hello(storage)?;
            Err(Error::Closed)
        });
        assert!(matches!(error, Err(Error::Closed)));
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_file_that_appears_in_the_meantime_is_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.cloak");
        let late = FileStorage::create(&path, |_| {
            drop(FileStorage::create(&path, hello).unwrap());
            Ok(())
        });
        assert!(has_kind(&late.unwrap_err(), io::ErrorKind::AlreadyExists));
        assert_eq!(fs::read(&path).unwrap(), b"hello");
        assert_eq!(names(dir.path()), ["edge.cloak"]);

        let never = FileStorage::create(&path, |_| panic!("the name is taken"));
        assert!(has_kind(&never.unwrap_err(), io::ErrorKind::AlreadyExists));
    }

    #[test]
    fn open_or_create_opens_a_file_that_exists_and_creates_one_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.cloak");
        // The file appears between the check and the rename, and is opened instead.
        let raced = FileStorage::open_or_create(&path, |_| {
            drop(FileStorage::create(&path, hello).unwrap());
            Ok(())
        });
        let (storage, created) = raced.unwrap();
        assert!(!created);
        assert_eq!(storage.len().unwrap(), 5);
        assert!(matches!(FileStorage::open_or_create(&path, hello), Err(Error::Locked { .. })));
        drop(storage);
        fs::remove_file(&path).unwrap();
        assert!(FileStorage::open_or_create(&path, hello).unwrap().1);
        assert!(!FileStorage::open_or_create(&path, hello).unwrap().1);
    }

    #[test]
    fn orphans_of_killed_creators_are_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            ".edge.cloak.abcdefghi1.new",  // an orphan
            ".edge.cloak.abcdefghi2.new",  // locked below: its creator is alive
            ".other.cloak.abcdefghi3.new", // of another room
            ".edge.cloak.backup.new",      // not ours: too short
            ".edge.cloak.abcdefgh-4.new",  // not ours: not alphanumeric
            "edge.cloak.abcdefghi5.new",   // not ours: visible
        ] {
            fs::write(dir.path().join(name), b"").unwrap();
        }
        fs::create_dir(dir.path().join(".edge.cloak.abcdefghi6.new")).unwrap();
        let living = FileStorage::open(&dir.path().join(".edge.cloak.abcdefghi2.new")).unwrap();
        FileStorage::create(&dir.path().join("edge.cloak"), hello).unwrap();
        assert_eq!(
            names(dir.path()),
            [
                ".edge.cloak.abcdefgh-4.new",
                ".edge.cloak.abcdefghi2.new",
                ".edge.cloak.abcdefghi6.new",
                ".edge.cloak.backup.new",
                ".other.cloak.abcdefghi3.new",
                "edge.cloak",
                "edge.cloak.abcdefghi5.new",
            ]
        );
        drop(living);
    }

    #[cfg(unix)]
    #[test]
    fn a_directory_that_cannot_be_flushed_leaves_a_file_and_a_failed_flush_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.cloak");
        // EPERM, EBADF, EACCES, EISDIR, EINVAL, ENOSYS, EOPNOTSUPP
        for errno in [1, 9, 13, 21, 22, 38, 95] {
            let refused = inject(SystemCall::FsyncDirectory, 0, 1, Injected::Errno(errno));
            let storage = FileStorage::create(&path, hello).unwrap();
            assert_eq!((refused.met(), storage.fallbacks().directory_flushes), (1, 1));
            assert_eq!(fs::read(&path).unwrap(), b"hello");
            fs::remove_file(&path).unwrap();
        }
        // EIO, ENOSPC
        for errno in [5, 28] {
            let _failed = inject(SystemCall::FsyncDirectory, 0, 1, Injected::Errno(errno));
            FileStorage::create(&path, hello).unwrap_err();
            assert!(names(dir.path()).is_empty(), "{errno}");
        }
    }

    #[test]
    fn a_name_that_cannot_be_taken_in_one_step_is_taken_in_two() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.cloak");
        // EPERM, EINVAL, ENOSYS, EOPNOTSUPP
        for errno in [1, 22, 38, 95] {
            let refused = inject(SystemCall::Renameat2, 0, 2, Injected::Errno(errno));
            let storage = FileStorage::create(&path, hello).unwrap();
            assert_eq!((refused.met(), storage.fallbacks().renames), (1, 1));
            assert_eq!(fs::read(&path).unwrap(), b"hello");
            assert!(matches!(FileStorage::open(&path), Err(Error::Locked { .. })));
            let late = FileStorage::create(&path, |_| Ok(())).unwrap_err();
            assert!(has_kind(&late, io::ErrorKind::AlreadyExists), "{late}");
            drop(storage);
            // What appears in the meantime is left alone.
            fs::remove_file(&path).unwrap();
            let late = FileStorage::create(&path, |_| {
                fs::write(&path, b"first").unwrap();
                Ok(())
            });
            assert!(has_kind(&late.unwrap_err(), io::ErrorKind::AlreadyExists));
            assert_eq!(fs::read(&path).unwrap(), b"first");
            fs::remove_file(&path).unwrap();
            assert!(names(dir.path()).is_empty());
        }
        let _full = inject(SystemCall::Renameat2, 0, 1, Injected::Errno(28));
        FileStorage::create(&path, hello).unwrap_err();
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_missing_directory_or_an_absent_name_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error =
            FileStorage::open_or_create(&dir.path().join("no/edge.cloak"), hello).unwrap_err();
        assert!(has_kind(&error, io::ErrorKind::NotFound), "{error}");
        assert!(error.to_string().contains("no/edge.cloak"), "{error}");
        let error = FileStorage::create(Path::new("/"), hello).unwrap_err();
        assert!(has_kind(&error, io::ErrorKind::InvalidInput), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_dangling_link_is_an_error_and_not_a_loop() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.cloak");
        std::os::unix::fs::symlink(dir.path().join("nowhere"), &path).unwrap();
        let error = FileStorage::open_or_create(&path, hello).unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
        assert!(path.is_symlink());
    }

    #[test]
    fn the_longest_name_a_filesystem_allows_can_be_created() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n".repeat(255));
        FileStorage::create(&path, hello).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"hello");
    }

    #[test]
    fn of_many_concurrent_creators_one_succeeds_and_the_others_open_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.cloak");
        let created: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| match FileStorage::open_or_create(&path, hello) {
                        Ok((storage, created)) => {
                            assert_eq!(storage.len().unwrap(), 5);
                            usize::from(created)
                        }
                        Err(Error::Locked { .. }) => 0,
                        Err(error) => panic!("{error}"),
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(created, 1);
        assert_eq!(names(dir.path()), ["edge.cloak"]);
    }
}
