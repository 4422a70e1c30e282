//! Whether a path still leads to the file that is open.
//!
//! A file that was removed, or whose path leads to another file, goes on being written and flushed:
//! nothing fails, and everything is gone when it is closed. So an open file asks about its name
//! from time to time. Only a certain answer counts. What a call fails with, or what network and
//! overlay file systems do to numbers of files, must not end a room that is well.

use std::fs::File;
use std::path::{Path, PathBuf};

/// How often a name is looked at before it counts as gone: a file that is moved away and back, or a
/// file system that is mounted anew, is out of sight for a moment.
#[cfg(unix)]
const LOOKS: u32 = 3;

/// The time between two looks.
#[cfg(unix)]
const BETWEEN_LOOKS: std::time::Duration = std::time::Duration::from_millis(20);

/// The name by which a file was opened.
#[derive(Debug)]
pub(super) struct FileName {
    /// From the root, because the program may change its directory. `None` when that is not known,
    /// and for a name that leads to a descriptor.
    #[cfg(unix)]
    path: Option<PathBuf>,
    /// Whether the file had a name in some directory when it was opened. Some file systems never
    /// count names.
    #[cfg(unix)]
    had_links: bool,
    /// The root directory: a program that changes it does not lose its files.
    #[cfg(unix)]
    root: Option<FileIdentity>,
}

/// What tells a file from every other one, as far as the file system numbers files.
#[cfg(unix)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileIdentity {
    dev: u64,
    ino: u64,
}

/// What a look at the name found.
#[cfg(unix)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// The file has its name, or no one can tell.
    Named,
    /// The file has no name at all.
    Removed,
    /// The path leads nowhere.
    Absent,
    /// The path leads to another file.
    Another,
}

impl FileName {
    /// The name `path` of an open file, which may still have to get it.
    #[cfg(unix)]
    pub(super) fn new(file: &File, path: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        let path = std::path::absolute(path).ok().filter(|path| !leads_to_a_descriptor(path));
        let had_links = file.metadata().is_ok_and(|found| found.nlink() > 0);
        Self { path, had_links, root: identity_of(Path::new("/")) }
    }

    /// The name `path` of an open file.
    #[cfg(not(unix))]
    pub(super) fn new(_file: &File, _path: &Path) -> Self {
        Self {}
    }

    /// The path, if it is certain that it does not lead to the file any more.
    #[cfg(unix)]
    pub(super) fn lost(&self, file: &File) -> Option<PathBuf> {
        for look in 1..=LOOKS {
            match self.look(file) {
                Look::Named => return None,
                Look::Removed => break,
                Look::Absent | Look::Another if look < LOOKS => std::thread::sleep(BETWEEN_LOOKS),
                Look::Absent | Look::Another => {}
            }
        }
        Some(self.path.clone().unwrap_or_default())
    }

    /// On this system an open file can be neither renamed nor removed.
    #[cfg(not(unix))]
    pub(super) fn lost(&self, _file: &File) -> Option<PathBuf> {
        None
    }

    #[cfg(unix)]
    fn look(&self, file: &File) -> Look {
        use std::os::unix::fs::MetadataExt;
        // A file without a name from the beginning has none to lose.
        let (Some(path), true) = (&self.path, self.had_links) else { return Look::Named };
        let Ok(open) = file.metadata() else { return Look::Named };
        if open.nlink() == 0 {
            return Look::Removed;
        }
        match std::fs::metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (open.dev(), open.ino()) => Look::Named,
            // Some network and overlay file systems give a file another number after a while. The
            // times of its last change are still the same; they move on while it is written.
            Ok(named) => match file.metadata() {
                Ok(again)
                    if changed(&named) == changed(&open) || changed(&named) == changed(&again) =>
                {
                    Look::Named
                }
                _ => Look::Another,
            },
            Err(error) if is_absence(&error) && self.root == identity_of(Path::new("/")) => {
                Look::Absent
            }
            // It may not be looked at, or the file system does not answer.
            Err(_) => Look::Named,
        }
    }
}

/// Whether the path says that there is no such file.
#[cfg(unix)]
fn is_absence(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

#[cfg(unix)]
fn identity_of(path: &Path) -> Option<FileIdentity> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|found| FileIdentity { dev: found.dev(), ino: found.ino() })
}

/// The length and the times of the last changes of a file.
#[cfg(unix)]
fn changed(found: &std::fs::Metadata) -> [i64; 5] {
    use std::os::unix::fs::MetadataExt;
    let len = i64::try_from(found.len()).unwrap_or(i64::MAX);
    [len, found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()]
}

/// Whether a path names a descriptor of a process, which is gone when the descriptor is closed.
#[cfg(unix)]
fn leads_to_a_descriptor(path: &Path) -> bool {
    path.starts_with("/proc") || path.starts_with("/dev/fd")
}

/// Whether `path` names this file. A lock on a file that was renamed or removed in the meantime
/// protects nothing.
#[cfg(unix)]
pub(super) fn is_named(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let open = file.metadata().ok().map(|open| FileIdentity { dev: open.dev(), ino: open.ino() });
    open.is_some() && open == identity_of(path)
}

/// Whether `path` names this file. On this system an open file can be neither renamed nor removed.
#[cfg(not(unix))]
pub(super) fn is_named(_file: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::fs;

    fn room() -> (tempfile::TempDir, PathBuf, File, FileName) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.cloak");
        fs::write(&path, b"room").unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let name = FileName::new(&file, &path);
        (dir, path, file, name)
    }

    #[test]
    fn a_file_that_is_where_it_was_has_its_name() {
        let (dir, path, file, name) = room();
        assert_eq!(name.lost(&file), None);
        // Another name more or less does not matter.
        let other = dir.path().join("other.cloak");
        fs::hard_link(&path, &other).unwrap();
        assert_eq!(name.lost(&file), None);
        fs::remove_file(&other).unwrap();
        assert_eq!(name.lost(&file), None);
    }

    #[test]
    fn removed_moved_and_replaced_it_has_lost_it() {
        let away = |what: fn(&Path, &Path)| {
            let (dir, path, file, name) = room();
            what(dir.path(), &path);
            assert_eq!(name.lost(&file), Some(path));
        };
        away(|_, path| fs::remove_file(path).unwrap());
        away(|dir, path| fs::rename(path, dir.join("moved")).unwrap());
        away(|dir, path| {
            fs::write(dir.join("new"), b"new").unwrap();
            fs::rename(dir.join("new"), path).unwrap();
        });
        // Under another name it is still there; by this one the next opener gets another file.
        away(|dir, path| {
            fs::hard_link(path, dir.join("other")).unwrap();
            fs::remove_file(path).unwrap();
        });
        away(|_, path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        });
    }

    #[test]
    fn a_link_or_a_directory_on_the_way_counts_as_a_part_of_the_name() {
        let (dir, path, _, _) = room();
        let (link, other) = (dir.path().join("link"), dir.path().join("other"));
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let file = File::open(&link).unwrap();
        let name = FileName::new(&file, &link);
        assert_eq!(name.lost(&file), None);
        fs::write(&other, b"another room").unwrap();
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&other, &link).unwrap();
        assert_eq!(name.lost(&file), Some(link));

        let (inner, moved) = (dir.path().join("inner"), dir.path().join("moved"));
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("room"), b"room").unwrap();
        let file = File::open(inner.join("room")).unwrap();
        let name = FileName::new(&file, &inner.join("room"));
        fs::rename(&inner, &moved).unwrap();
        assert_eq!(name.lost(&file), Some(inner.join("room")));
        fs::rename(&moved, &inner).unwrap();
        assert_eq!(name.lost(&file), None);
    }

    #[test]
    fn a_file_that_is_away_for_a_moment_has_not_lost_its_name() {
        let (dir, path, file, name) = room();
        let moved = dir.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(BETWEEN_LOOKS / 2);
                fs::rename(&moved, &path).unwrap();
            });
            assert_eq!(name.lost(&file), None);
        });
    }

    #[test]
    fn a_name_that_cannot_be_looked_at_is_not_lost() {
        let (dir, path, file, name) = room();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::os::unix::fs::symlink(&a, &b).unwrap();
        std::os::unix::fs::symlink(&b, &a).unwrap();
        let looped = FileName { path: Some(a.join("edge.cloak")), ..FileName::new(&file, &path) };
        assert_eq!(looped.lost(&file), None, "it leads in circles");
        // The program has changed its root directory since.
        let elsewhere = FileName { root: None, ..FileName::new(&file, &path) };
        fs::rename(&path, dir.path().join("moved")).unwrap();
        assert_eq!(elsewhere.lost(&file), None);
        assert!(name.lost(&file).is_some());
    }

    #[test]
    fn a_file_that_never_had_a_name_or_has_that_of_a_descriptor_loses_none() {
        let (_dir, path, file, _) = room();
        fs::remove_file(&path).unwrap();
        assert_eq!(FileName::new(&file, &path).lost(&file), None);
        let (_dir, _, file, _) = room();
        use std::os::fd::AsRawFd;
        let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let name = FileName::new(&file, &by_descriptor);
        drop(File::open(&by_descriptor).unwrap());
        assert_eq!(name.lost(&file), None);
        assert_eq!(name.path, None);
    }

    /// As on file systems whose numbers of files change.
    #[test]
    fn a_file_with_another_number_and_the_same_last_change_is_the_same() {
        let (dir, path, file, name) = room();
        let other = dir.path().join("other");
        fs::write(&other, b"other").unwrap();
        let (open, found) = (file.metadata().unwrap(), fs::metadata(&other).unwrap());
        assert_ne!(changed(&open), changed(&found));
        assert_eq!(changed(&open), changed(&fs::metadata(&path).unwrap()));
        assert_eq!(name.look(&file), Look::Named);
    }
}
