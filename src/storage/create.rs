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

use super::file::{Access, FileStorage, context, is_named, lock, open_regular};
use crate::error::{Error, Result};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The end of a temporary file's name.
const SUFFIX: &str = ".new";

/// How many random letters make the name of a temporary file unique.
const RANDOM_LEN: usize = 10;

/// The most bytes of the target's name in a temporary's name, because most filesystems limit names
/// to 255 bytes.
const MAX_STEM_LEN: usize = 200;

/// How often a creator retries because another creator removed its temporary as an orphan between
/// creating and locking it, or because the target appeared and disappeared. Each retry needs
/// another process in exactly that moment.
const MAX_ATTEMPTS: usize = 16;

impl FileStorage {
    /// Opens the file at `path`, or creates it with the content that `init` writes. The flag says
    /// whether it was created.
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
    /// This file, which is locked and still has the name. Its owner and permissions are kept where
    /// the system allows it. It stays complete until the new one has its name.
    This(FileStorage),
}

/// A file that is being created. It gets its name when it is published. If it is dropped before, no
/// file remains.
#[derive(Debug)]
pub(crate) struct Creation {
    // Declared before the temporary: it would be unlocked otherwise while it still exists.
    storage: FileStorage,
    temporary: tempfile::TempPath,
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
        let storage = FileStorage::from_locked(file, path)?;
        Ok(Self { storage, temporary, path: path.to_path_buf(), resolved })
    }

    /// The path that it will have.
    pub(crate) fn path(&self) -> &Path {
        &self.path
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
        let replaces = match replace {
            Replace::Nothing => {
                temporary.persist_noclobber(&path).map_err(|refused| failed(refused.error))?;
                false
            }
            Replace::This(old) => {
                // Other systems cannot replace an open file.
                let _old = cfg!(unix).then_some(old);
                temporary.persist(&resolved).map_err(|refused| failed(refused.error))?;
                true
            }
        };
        if let Err(error) = sync_dir(dir) {
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

/// Gives the new file the owner and the permissions of the old one. If the owner cannot be set,
/// only the new owner gets access.
#[cfg(unix)]
fn keep_access(old: &File, new: &File) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let old = old.metadata()?;
    let owned = fchown(new, Some(old.uid()), Some(old.gid())).is_ok();
    let mode = old.permissions().mode() & if owned { 0o777 } else { 0o700 };
    new.set_permissions(fs::Permissions::from_mode(mode | 0o600))
}

/// On this system the directory decides about owner and permissions.
#[cfg(not(unix))]
fn keep_access(_old: &File, _new: &File) -> io::Result<()> {
    Ok(())
}

fn has_kind(error: &Error, kind: io::ErrorKind) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == kind)
}

/// The directory and the name of the file within it.
fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let name = path.file_name().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "the path does not end in a file name")
    })?;
    let dir = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Ok((dir, name))
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

/// As much of the name as fits a temporary's name.
#[cfg(unix)]
fn stem(name: &OsStr) -> &OsStr {
    use std::os::unix::ffi::OsStrExt;
    OsStr::from_bytes(name.as_bytes().get(..MAX_STEM_LEN).unwrap_or(name.as_bytes()))
}

/// As much of the name as fits a temporary's name.
#[cfg(not(unix))]
fn stem(name: &OsStr) -> &OsStr {
    if name.len() <= MAX_STEM_LEN { name } else { OsStr::new("cloakroom") }
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

/// Makes the names in a directory durable.
#[cfg(unix)]
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes the names in a directory durable. This system does so by itself.
#[cfg(not(unix))]
fn sync_dir(_dir: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
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
