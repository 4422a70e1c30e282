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
/// FILE must not exist. It appears when everything is imported and durable; a failed import leaves
/// no file. An export of FILE then has the same bytes as what was imported.
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
    /// The new room. It must not exist.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Bytes reserved for the log of the new room. It must be at least as large as the log of the
    /// exported room if that holds values that do not fit a smaller log.
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_LOG_CAPACITY)]
    log_capacity: u64,
}

pub fn run(options: &ImportOptions, out: &mut Output) -> Result<Verdict, Problem> {
    let file = &options.file;
    room::vacant(file)?;
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

    /// Gives the room its name, unless the path exists by now.
    fn publish(self, file: &Path) -> Result<(), Problem> {
        let Self { room, path } = self;
        room.close().map_err(|error| Problem::of(&error, file))?;
        path.persist_noclobber(file).map_err(|refused| match refused.error.kind() {
            io::ErrorKind::AlreadyExists => Problem::exists(file),
            _ => Problem::system(&format!("creating {}", shown(file)), refused.error),
        })?;
        sync_dir(directory(file)).map_err(|error| {
            Problem::system(&format!("flushing the directory of {}", shown(file)), error)
                .advise("the file is complete, but a power failure now may remove it")
        })
    }
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

fn letters() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(RANDOM_LEN).collect()
}

fn prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
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
