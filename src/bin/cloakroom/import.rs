//! `cloakroom import`: a new room from lines of JSON.

use crate::output::Output;
use crate::paths::shown;
use crate::problem::{Kind, Problem, Verdict, directory};
use crate::progress::Spinner;
use crate::room;
use crate::units;
use clap::Args;
use cloakroom::limits::DEFAULT_LOG_CAPACITY;
use cloakroom::tools::ImportReport;
use cloakroom::{Cloakroom, Error};
use serde_json::json;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use tempfile::TempPath;

/// The end of the file's name until the import is complete.
const SUFFIX: &str = ".importing";

/// The number of random letters that make that name unique.
const RANDOM_LEN: usize = 8;

/// Makes a new room of the lines of JSON that `cloakroom export` wrote, read from standard input.
///
/// FILE must not exist, or be empty: then the room gets its owner and permissions. It appears when
/// everything is imported and durable; a failed import leaves no file. An export of FILE then has
/// the same bytes as what was imported.
#[derive(Debug, Args)]
#[command(after_long_help = help_end!(
    "\
Examples:
  cloakroom import edge.cloak < edge.jsonl
  cloakroom export old.cloak | cloakroom import new.cloak
  zstd -dc edge.jsonl.zst | cloakroom import edge.cloak

For a refused line the error has its number and what is wrong with it.
An import that is killed leaves a hidden file, .FILE.XXXXXXXX.importing, which the
next import to the same FILE removes.",
    "cloakroom export, cloakroom verify"
))]
pub struct ImportOptions {
    /// The new room. It must not exist, or be empty.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Bytes reserved for the log of the new room. It must be at least as large as the log of the
    /// exported room if that holds values that do not fit a smaller log.
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_LOG_CAPACITY)]
    log_capacity: u64,
}

pub fn run(options: &ImportOptions, out: &mut Output) -> Result<Verdict, Problem> {
    let file = &options.file;
    if EmptyFile::hold(file).is_none() {
        room::vacant(file)?;
    }
    let stdin = io::stdin();
    if stdin.is_terminal() {
        eprintln!("reading lines of JSON from standard input; end them with ctrl-D");
    }
    let new = NewRoom::create(file, options.log_capacity)?;
    let report = import(&new, &mut stdin.lock(), file)?;
    new.publish(file)?;
    if out.is_json() {
        out.object(&json!({
            "file": shown(file), "entries": report.entries, "bytes": report.bytes, "by_kind": report.by_kind,
        }))?;
    } else {
        out.line(&format!("{}: {}", shown(file), said(&report)))?;
    }
    Ok(Verdict::Fine)
}

fn said(report: &ImportReport) -> String {
    let entries = units::counted(report.entries, "entry", "entries");
    format!("{entries}, {} of JSON", units::bytes(report.bytes))
}

fn import(new: &NewRoom, from: &mut dyn BufRead, file: &Path) -> Result<ImportReport, Problem> {
    let spinner = Spinner::start("importing".into());
    let imported = new.room.import_with_progress(from, &mut |so_far| {
        spinner.say(format!("importing: {}", said(so_far)));
    });
    imported.map_err(|error| match error {
        Error::Import { line, detail, source } => {
            let full = matches!(source.as_deref(), Some(Error::DiskFull { .. }));
            let kind = if full { Kind::DiskFull } else { Kind::Invalid };
            Problem::new(kind, format!("standard input, line {line}: {detail}"))
                .advise(format!("{} was not created", shown(file)))
        }
        error => Problem::of(&error, file),
    })
}

/// A room that does not have its final name yet. If it is dropped, no file remains.
struct NewRoom {
    room: Cloakroom,
    path: TempPath,
}

impl NewRoom {
    fn create(file: &Path, log_capacity: u64) -> Result<Self, Problem> {
        let Some(name) = file.file_name() else {
            let message = format!("{}: the path does not end in a file name", shown(file));
            return Err(Problem::new(Kind::Invalid, message));
        };
        let dir = directory(file);
        if !dir.is_dir() {
            let message = format!("{}: there is no such directory", shown(dir));
            return Err(Problem::new(Kind::Missing, message));
        }
        remove_orphans(dir, name);
        let mut random = prefix(name);
        random.extend([OsString::from(letters()), OsString::from(SUFFIX)]);
        let path = dir.join(random);
        // Expired entries are imported too, and not swept during the import.
        let room = Cloakroom::builder().log_capacity(log_capacity).sweep_interval(None).open(&path);
        let room = room.map_err(|error| Problem::of(&error, &path))?;
        let path = TempPath::try_from_path(path)
            .map_err(|error| Problem::system(&format!("creating {}", shown(file)), error))?;
        Ok(Self { room, path })
    }

    /// Gives the room its name, unless the path exists by now. An empty file is replaced, and
    /// leaves its owner and permissions.
    fn publish(self, file: &Path) -> Result<(), Problem> {
        let Self { room, path } = self;
        let doing = format!("creating {}", shown(file));
        room.close().map_err(|error| Problem::of(&error, file))?;
        let named = match EmptyFile::hold(file) {
            Some(empty) => {
                empty.leave_access(&path).map_err(|error| {
                    Problem::system(&doing, error).advise(format!(
                        "{} is not yours and only the superuser may leave it to its owner; it is still empty",
                        shown(file)
                    ))
                })?;
                path.persist(file).map_err(|refused| refused.error)
            }
            None => take_name(path, file),
        };
        named.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Problem::exists(file),
            io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices => {
                Problem::system(&doing, error).advise(format!(
                    "{} is mounted by itself (as single files are into containers), so no file can take its \
                     place: mount its directory, or import where it is an ordinary file; it is still empty",
                    shown(file)
                ))
            }
            _ => Problem::system(&doing, error),
        })?;
        sync_dir(directory(file)).map_err(|error| {
            Problem::system(&format!("flushing the directory of {}", shown(file)), error)
                .advise("the file is complete, but a power failure now may remove it")
        })
    }
}

/// An empty file, which is locked, so that it becomes no other room meanwhile.
struct EmptyFile(File);

impl EmptyFile {
    fn hold(path: &Path) -> Option<Self> {
        if !path.symlink_metadata().is_ok_and(|found| found.is_file() && found.len() == 0) {
            return None;
        }
        let file = File::options().read(true).write(true).open(path).ok()?;
        file.try_lock().ok()?;
        file.metadata().is_ok_and(|found| found.is_file() && found.len() == 0).then_some(Self(file))
    }

    /// Gives its owner, group and permissions to the file at `path`.
    #[cfg(unix)]
    fn leave_access(&self, path: &Path) -> io::Result<()> {
        use std::os::unix::fs::{MetadataExt, chown};
        let (own, other) = (self.0.metadata()?, std::fs::metadata(path)?);
        if (own.uid(), own.gid()) != (other.uid(), other.gid()) {
            chown(path, Some(own.uid()), Some(own.gid()))?;
        }
        std::fs::set_permissions(path, own.permissions())
    }

    /// On this system the directory decides about them.
    #[cfg(not(unix))]
    fn leave_access(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// Whether the system or the filesystem has no such call.
fn is_refused(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied
    )
}

/// Renames the temporary unless something has the name. Where that takes two steps, an empty file
/// takes the name first, which only one creator can do.
fn take_name(temporary: tempfile::TempPath, file: &Path) -> io::Result<()> {
    match temporary.persist_noclobber(file) {
        Err(refused) if is_refused(&refused.error) => {
            File::options().write(true).create_new(true).open(file)?;
            refused.path.persist(file).map_err(|refused| refused.error)
        }
        renamed => renamed.map_err(|refused| refused.error),
    }
}

/// Makes the names in a directory durable, where the filesystem has a call for it.
#[cfg(unix)]
fn sync_dir(dir: &Path) -> io::Result<()> {
    /// "Bad file descriptor", the answer of some filesystems that have none.
    const EBADF: i32 = 9;
    match File::open(dir).and_then(|dir| dir.sync_all()) {
        Err(error) if is_refused(&error) || error.raw_os_error() == Some(EBADF) => Ok(()),
        flushed => flushed,
    }
}

/// Makes the names in a directory durable. This system does so by itself.
#[cfg(not(unix))]
fn sync_dir(_dir: &Path) -> io::Result<()> {
    Ok(())
}

fn letters() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(RANDOM_LEN).collect()
}

fn prefix(name: &OsStr) -> OsString {
    /// The most bytes of a name: some file systems end names at 143.
    const MAX_NAME: usize = 100;
    let mut prefix = OsString::from(".");
    let text = name.to_string_lossy();
    if name.len() <= MAX_NAME {
        prefix.push(name);
    } else {
        let begin = (0..=MAX_NAME).rev().find_map(|end| text.get(..end));
        prefix.push(begin.unwrap_or_default());
    }
    prefix.push(".");
    prefix
}

/// Removes the files of imports that were killed: unlocked files with such a name.
fn remove_orphans(dir: &Path, name: &OsStr) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let prefix = prefix(name);
    for entry in entries.flatten().filter(|entry| is_orphan(&entry.file_name(), &prefix)) {
        if File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            // A file that cannot be removed does no harm.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Whether a file is called like an unfinished import to the name that `prefix` is of.
fn is_orphan(name: &OsStr, prefix: &OsStr) -> bool {
    let random = name
        .as_encoded_bytes()
        .strip_prefix(prefix.as_encoded_bytes())
        .and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()));
    random.is_some_and(|letters| {
        letters.len() == RANDOM_LEN && letters.iter().all(u8::is_ascii_alphanumeric)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_import_is_known_by_its_name() {
        let prefix = prefix(OsStr::new("edge.cloak"));
        let is = |name: &str| is_orphan(OsStr::new(name), &prefix);
        assert!(is(".edge.cloak.Ab3dEf7h.importing"));
        for other in [
            "edge.cloak",
            ".edge.cloak.importing",
            ".edge.cloak.Ab3dEf7.importing",
            ".edge.cloak.Ab3dEf7-.importing",
            ".other.cloak.Ab3dEf7h.importing",
            ".edge.cloak.Ab3dEf7h.new",
        ] {
            assert!(!is(other), "{other}");
        }
    }

    #[test]
    fn the_file_of_a_killed_import_is_removed_and_that_of_a_running_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (left, held) = (".a.cloak.00000000.importing", ".a.cloak.11111111.importing");
        for name in [left, held, "b.cloak"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let running = File::open(dir.path().join(held)).unwrap();
        running.lock().unwrap();
        remove_orphans(dir.path(), OsStr::new("a.cloak"));
        let is_there = |name: &str| dir.path().join(name).exists();
        assert_eq!([left, held, "b.cloak"].map(is_there), [false, true, true]);
    }
}
