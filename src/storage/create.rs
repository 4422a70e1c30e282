//! How a new file comes into being: whole, or not at all.
//!
//! 1. A temporary file beside the target is created, readable by its owner only, and locked.
//! 2. Its content is written, and flushed with every attribute.
//! 3. It is renamed to the target, unless something has that name by now. The lock goes with it, so
//!    nobody can open the file in between.
//! 4. The directory is flushed, so that the name survives too.
//!
//! A crash before step 3 leaves a temporary that nobody has locked, and the next creator removes
//! it. A crash after it leaves the whole file or, before step 4, perhaps the temporary.

use super::file::{Access, FileStorage, context, is_named, lock, open_regular};
use crate::error::{Error, Result};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// What a temporary file ends in.
const SUFFIX: &str = ".new";

/// How many random letters make the name of a temporary file unique.
const RANDOM_LEN: usize = 10;

/// The most bytes of the target's name that go into a temporary's, because most filesystems end
/// names at 255.
const MAX_STEM_LEN: usize = 200;

/// How often a creator starts over because a cleaner took its temporary for an orphan in the moment
/// between creating and locking it, or because the target came and went. Each round takes another
/// process in exactly that moment.
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

    /// Creates the file at `path` with the content that `init` writes, and locks it. It appears
    /// under its name whole and durable.
    ///
    /// # Errors
    /// Any error leaves no file behind. When something has that name already it is left alone, and
    /// the error is an [`Error::Io`] whose source is `AlreadyExists`: open that one instead.
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

/// What a new file may take the place of.
#[derive(Debug)]
pub(crate) enum Replace {
    /// Nothing: when something has the name by then, the new file is given up.
    Nothing,
    /// This file, which its holder has locked and still has the name. Its owner and permissions are
    /// kept where the system allows it. It stays whole until the new one has its name.
    This(FileStorage),
}

/// A file that is being made. It has its name when it is published; dropped before, it leaves
/// nothing.
#[derive(Debug)]
pub(crate) struct Creation {
    // Before the temporary, so that nobody finds it without a lock.
    storage: FileStorage,
    temporary: tempfile::TempPath,
    /// The name that was asked for.
    path: PathBuf,
    /// Where it leads, when it is a symbolic link to something.
    resolved: PathBuf,
}

impl Creation {
    /// An empty, locked temporary beside `path`, or beside what a symbolic link of that name leads
    /// to. Temporaries of the same target that were left by creators that are gone are removed.
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

    /// The name it shall have.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the content goes.
    pub(crate) fn storage(&self) -> &FileStorage {
        &self.storage
    }

    /// Flushes the content, and gives the file its name. It is still locked.
    ///
    /// # Errors
    /// Any error leaves no temporary. What has the name is as it was, with one exception: when the
    /// directory cannot be flushed after a replacement, the new file has the name, and a crash may
    /// bring back the old one, whole. When something has the name that must not be replaced, the
    /// error is an [`Error::Io`] whose source is `AlreadyExists`.
    pub(crate) fn publish(self, replace: Replace) -> Result<FileStorage> {
        let Self { storage, temporary, path, resolved } = self;
        let failed = |error| Error::io(context("creating", &path), error);
        if let Replace::This(old) = &replace {
            if !is_named(old.file(), &resolved) {
                let detail = "the file that was to be replaced has lost its name meanwhile";
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
                // Elsewhere an open file cannot be replaced.
                let _old = cfg!(unix).then_some(old);
                temporary.persist(&resolved).map_err(|refused| failed(refused.error))?;
                true
            }
        };
        if let Err(error) = sync_dir(dir) {
            if !replaces {
                // The name may not survive a crash, so the caller is told that there is no file,
                // and that is made so. It is still locked, so nobody has begun to use it.
                let _ = fs::remove_file(&path);
            }
            return Err(Error::io(context("flushing the directory of the new", &path), error));
        }
        Ok(storage)
    }
}

/// Says early that the name is taken, to spare the work. What decides is the rename.
///
/// # Errors
/// [`Error::Io`], whose source is `AlreadyExists` when something has the name, or `InvalidInput`
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

/// Gives the new file the owner and the permissions of the old one. Where the owner cannot be
/// given, nobody but the new one gets in.
#[cfg(unix)]
fn keep_access(old: &File, new: &File) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let old = old.metadata()?;
    let owned = fchown(new, Some(old.uid()), Some(old.gid())).is_ok();
    let mode = old.permissions().mode() & if owned { 0o777 } else { 0o700 };
    new.set_permissions(fs::Permissions::from_mode(mode | 0o600))
}

/// Owners and permissions are those that the directory gives here.
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
        io::Error::new(io::ErrorKind::InvalidInput, "the path does not end in the name of a file")
    })?;
    let dir = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Ok((dir, name))
}

/// Why the name cannot be taken. A symbolic link that leads nowhere is not something to open
/// instead.
fn occupied(found: &fs::Metadata) -> io::Error {
    if found.is_symlink() {
        let detail = "a symbolic link has this name; create the file where it leads, or remove it";
        return io::Error::new(io::ErrorKind::InvalidInput, detail);
    }
    io::Error::new(io::ErrorKind::AlreadyExists, "something with this name exists already")
}

/// What the temporaries of the file `name` begin with.
fn prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(stem(name));
    prefix.push(".");
    prefix
}

/// As much of the name as a temporary's has room for.
#[cfg(unix)]
fn stem(name: &OsStr) -> &OsStr {
    use std::os::unix::ffi::OsStrExt;
    OsStr::from_bytes(name.as_bytes().get(..MAX_STEM_LEN).unwrap_or(name.as_bytes()))
}

/// As much of the name as a temporary's has room for.
#[cfg(not(unix))]
fn stem(name: &OsStr) -> &OsStr {
    if name.len() <= MAX_STEM_LEN { name } else { OsStr::new("cloakroom") }
}

/// A new temporary file that is locked, and whose name is certainly still its own.
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
            // From here on no cleaner removes it, because a cleaner locks first.
            Ok(()) if is_named(&file, &temporary) => return Ok((file, temporary)),
            Ok(()) | Err(Error::Locked { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::Locked { path: path.to_path_buf() })
}

/// Removes the temporaries of creators that were killed: those with a name like ours that nobody
/// has locked. What cannot be removed is left, because it is in nobody's way.
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

/// Makes the names in a directory durable, which this system does by itself.
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
    fn a_created_file_is_whole_locked_and_its_owners_only() {
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
    fn the_content_is_locked_and_invisible_while_it_is_written() {
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
    fn a_file_that_appears_meanwhile_is_left_alone() {
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
    fn opening_or_creating_takes_whichever_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.cloak");
        // The file appears between the look and the rename, and is opened instead.
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
            ".edge.cloak.abcdefghi2.new",  // locked below: its creator lives
            ".other.cloak.abcdefghi3.new", // another room's
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
    fn a_link_that_leads_nowhere_is_an_error_and_not_a_loop() {
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
    fn of_many_creators_at_once_one_wins_and_the_others_find_its_file() {
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
