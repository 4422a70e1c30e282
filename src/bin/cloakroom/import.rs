//! `cloakroom import`: a new room from lines of JSON.

use crate::output::{Output, shown};
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

/// What the file is called until it is whole.
const SUFFIX: &str = ".importing";

/// How many random letters make that name unique.
const RANDOM_LEN: usize = 8;

/// Makes a new room of the lines of JSON that `cloakroom export` wrote, read from standard input.
///
/// FILE must not exist. It appears when everything is imported and durable, all at once; a failed
/// import leaves no file. An export of FILE is then the same bytes as what was imported.
#[derive(Debug, Args)]
#[command(after_long_help = help_end!(
    "\
Examples:
  cloakroom import edge.cloak < edge.jsonl
  cloakroom export old.cloak | cloakroom import new.cloak
  zstd -dc edge.jsonl.zst | cloakroom import edge.cloak

A line that is refused is named with its number and with what is wrong with it.
An import that is killed leaves a hidden file, .FILE.XXXXXXXX.importing, which the
next import to the same FILE removes.",
    "cloakroom export, cloakroom verify"
))]
pub struct Options {
    /// The new room. Nothing of this name may exist.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Bytes set aside for the log of the new room. A value that did not fit a smaller log than
    /// that of the room it comes from needs more.
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_LOG_CAPACITY)]
    log_capacity: u64,
}

pub fn run(options: &Options, out: &mut Output) -> Result<Verdict, Problem> {
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

/// A room that has no name of its own yet. Dropped, it leaves nothing.
struct NewRoom {
    room: Cloakroom,
    path: TempPath,
}

impl NewRoom {
    fn create(file: &Path, log_capacity: u64) -> Result<Self, Problem> {
        let Some(name) = file.file_name() else {
            let message = format!("{}: this is not the name of a file", shown(file));
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
        // What has expired is imported, too, and not swept meanwhile.
        let room = Cloakroom::builder().log_capacity(log_capacity).sweep_interval(None).open(&path);
        let room = room.map_err(|error| Problem::of(&error, &path))?;
        let path = TempPath::try_from_path(path)
            .map_err(|error| Problem::system(&format!("creating {}", shown(file)), error))?;
        Ok(Self { room, path })
    }

    /// Gives the room its name, if nothing has it by now.
    fn publish(self, file: &Path) -> Result<(), Problem> {
        let Self { room, path } = self;
        room.close().map_err(|error| Problem::of(&error, file))?;
        path.persist_noclobber(file).map_err(|refused| match refused.error.kind() {
            io::ErrorKind::AlreadyExists => Problem::exists(file),
            _ => Problem::system(&format!("creating {}", shown(file)), refused.error),
        })?;
        sync_dir(directory(file)).map_err(|error| {
            Problem::system(&format!("flushing the directory of {}", shown(file)), error)
                .advise("the file is there and whole, but a power failure now may take it away")
        })
    }
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

fn letters() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(RANDOM_LEN).collect()
}

fn prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    prefix
}

/// Removes what imports left that were killed: files with a name like ours that nobody has locked.
fn remove_orphans(dir: &Path, name: &OsStr) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let prefix = prefix(name);
    for entry in entries.flatten().filter(|entry| is_orphan(&entry.file_name(), &prefix)) {
        if File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            // What cannot be removed is in nobody's way.
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
    fn what_a_killed_import_left_is_removed_and_what_a_running_one_has_is_not() {
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
