//! Why a command failed, and what to do next.

use crate::holder::{Holder, holders};
use crate::paths::{quoted, shown};
use cloakroom::Error;
use serde_json::json;
use std::io;
use std::path::{Path, PathBuf};

/// The most files that are suggested in place of a missing one.
const MAX_OFFERED: usize = 5;

/// The result of a command that ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is wrong.
    Fine,
    /// Something is wrong with the file, and was reported.
    Wrong,
}

/// The kind of a problem. Its name is in the JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The file is damaged.
    Damaged,
    /// The file is not a room.
    NotARoom,
    /// The file was written by a newer version of this crate.
    NewerFormat,
    /// The file has an older format, and was opened for reading only.
    OlderFormat,
    /// The file has a format that this version can no longer read.
    TooOld,
    /// There is no such file.
    Missing,
    /// Another process has the file open.
    Locked,
    /// The file to create already exists.
    Exists,
    /// The arguments or the input are invalid.
    Invalid,
    /// The disk is full.
    DiskFull,
    /// A system call failed.
    System,
    /// Something else.
    Failed,
    /// The reader of the output has closed it. Nothing is reported.
    OutputClosed,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Damaged => "damaged",
            Kind::NotARoom => "not_a_room",
            Kind::NewerFormat => "newer_format",
            Kind::OlderFormat => "older_format",
            Kind::TooOld => "too_old",
            Kind::Missing => "missing",
            Kind::Locked => "locked",
            Kind::Exists => "exists",
            Kind::Invalid => "invalid",
            Kind::DiskFull => "disk_full",
            Kind::System => "system",
            Kind::Failed => "failed",
            Kind::OutputClosed => "output_closed",
        }
    }

    /// 1 when something is wrong with the file, 2 when the command could not be run.
    fn exit_code(self) -> u8 {
        match self {
            Kind::OutputClosed => 0,
            Kind::Damaged | Kind::NotARoom | Kind::NewerFormat | Kind::TooOld => 1,
            _ => 2,
        }
    }
}

/// Why a command failed.
#[derive(Debug)]
pub struct Problem {
    kind: Kind,
    message: String,
    /// What the user can do.
    advice: Vec<String>,
    /// Command lines to run next.
    run: Vec<String>,
}

impl Problem {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), advice: Vec::new(), run: Vec::new() }
    }

    pub fn output_closed() -> Self {
        Self::new(Kind::OutputClosed, "the reader of the output has closed it")
    }

    /// A system call that failed.
    pub fn system(doing: &str, error: io::Error) -> Self {
        let full =
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        Self::new(if full { Kind::DiskFull } else { Kind::System }, format!("{doing}: {error}"))
    }

    /// The file to create already exists.
    pub fn exists(path: &Path) -> Self {
        Self::new(
            Kind::Exists,
            format!("{} already exists; nothing was written to it", shown(path)),
        )
        .advise("choose a path that does not exist yet, or remove this file first")
    }

    /// An error of a call on the file at `path`.
    pub fn of(error: &Error, path: &Path) -> Self {
        let file = shown(path);
        match error {
            Error::Locked { path } => Self::locked(path, &holders(path)),
            Error::NotCloakroom { reason, .. } => Self::not_a_room(path, reason),
            Error::UnsupportedVersion { found, supported, .. } => {
                let message = format!(
                    "{file} was written by a newer version of cloakroom: its format is {found}, and this \
                     version reads formats up to {supported}"
                );
                Self::new(Kind::NewerFormat, message)
                    .advise("use a newer cloakroom; nothing was written to it")
            }
            Error::OutdatedVersion { found, .. } => {
                let message = format!(
                    "{file} was written by an older version of cloakroom: its format is {found}"
                );
                Self::new(Kind::OlderFormat, message)
                    .advise("opening it for writing migrates it atomically; keep a copy")
                    .run(format!("cloakroom sweep {}", quoted(path)))
            }
            Error::VersionTooOld { found, oldest, .. } => {
                let message = format!(
                    "{file} was written by an older version of cloakroom: its format is {found}, and this version \
                     reads formats from {oldest} on"
                );
                Self::new(Kind::TooOld, message).advise(
                    "migrate it with an earlier version of cloakroom first; nothing was written to it",
                )
            }
            Error::Corrupted { location, detail } => {
                let location = location.strip_prefix(&format!("{file}: ")).unwrap_or(location);
                Self::new(Kind::Damaged, format!("{file} is damaged: {location}: {detail}"))
                    .advise("nothing was written to it; to list all damage")
                    .run(format!("cloakroom verify {}", quoted(path)))
            }
            Error::Io { source, .. }
                if source.kind() == io::ErrorKind::NotFound && !path.exists() =>
            {
                Self::missing(path)
            }
            Error::Io { .. } => Self::new(Kind::System, error.to_string()),
            Error::DiskFull { .. } => Self::new(Kind::DiskFull, error.to_string()),
            Error::InvalidConfig(_)
            | Error::TooLarge { .. }
            | Error::AlreadyExists
            | Error::Encode(_) => Self::new(Kind::Invalid, error.to_string()),
            _ => Self::new(Kind::Failed, error.to_string()),
        }
    }

    /// There is no file at `path`.
    pub fn missing(path: &Path) -> Self {
        let message = format!("{}: there is no such file", shown(path));
        let problem = Self::new(Kind::Missing, message);
        match beside(path) {
            Ok(rooms) if rooms.is_empty() => problem,
            Ok(rooms) => problem.advise(format!("did you mean {}?", listed(&rooms))),
            Err(dir) => {
                problem.advise(format!("the directory {} does not exist either", shown(&dir)))
            }
        }
    }

    fn not_a_room(path: &Path, reason: &str) -> Self {
        let message =
            format!("{} is not a cloakroom file: {reason}; nothing was written to it", shown(path));
        let problem = Self::new(Kind::NotARoom, message);
        match rooms_in(path) {
            Ok(rooms) if !rooms.is_empty() => {
                problem.advise(format!("did you mean {}?", listed(&rooms)))
            }
            _ => problem,
        }
    }

    fn locked(path: &Path, holders: &[Holder]) -> Self {
        let by = match holders {
            [] => "elsewhere".to_owned(),
            [one] if one.writes => format!("in {}, which may write to it", one.shown()),
            several => {
                let shown: Vec<_> = several.iter().map(Holder::shown).collect();
                format!("in {}, for reading", shown.join(" and "))
            }
        };
        let problem = Self::new(Kind::Locked, format!("{} is open {by}", shown(path)));
        if !holders.is_empty() && holders.iter().all(|holder| !holder.writes) {
            return problem.advise("try again when the readers have closed it");
        }
        problem.advise("close it there and try again").advise(
            "a program can do this with a room that it has open: room.stats(), .verify(), .backup(path), .export(..), \
             .sweep(), .compact()",
        )
    }

    /// Adds what the user can do.
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice.push(advice.into());
        self
    }

    /// Adds a command line to run next.
    pub fn run(mut self, command: impl Into<String>) -> Self {
        self.run.push(command.into());
        self
    }

    pub fn exit_code(&self) -> u8 {
        self.kind.exit_code()
    }

    /// Prints it on standard error.
    pub fn print(&self, as_json: bool) {
        if self.kind == Kind::OutputClosed {
            return;
        }
        if as_json {
            let object = json!({
                "error": self.kind.name(), "message": self.message, "advice": self.advice, "run": self.run,
                "exit_code": self.exit_code(),
            });
            eprintln!("{object}");
            return;
        }
        eprintln!("cloakroom: {}", self.message);
        self.advice.iter().for_each(|advice| eprintln!("  {advice}"));
        self.run.iter().for_each(|command| eprintln!("  run: {command}"));
    }
}

/// The directory of a file.
pub fn directory(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The rooms in the directory where `path` should be, or that directory when there is none.
fn beside(path: &Path) -> Result<Vec<PathBuf>, PathBuf> {
    let dir = directory(path);
    let rooms = rooms_in(dir).map_err(|_| dir.to_path_buf())?;
    // In the form in which `path` was given.
    let as_written = |room: PathBuf| match room.file_name() {
        Some(name) => path.with_file_name(name),
        None => room,
    };
    Ok(rooms.into_iter().map(as_written).collect())
}

/// The files in a directory with the extension of rooms, sorted by name.
fn rooms_in(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir)?;
    let is_room = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "cloak") && path.is_file()
    };
    let mut rooms: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(is_room).collect();
    rooms.sort();
    Ok(rooms)
}

fn listed(rooms: &[PathBuf]) -> String {
    let mut names: Vec<_> = rooms.iter().take(MAX_OFFERED).map(|room| quoted(room)).collect();
    if rooms.len() > MAX_OFFERED {
        names.push(format!("one of {} more", rooms.len() - MAX_OFFERED));
    }
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(pid: u32, writes: bool) -> Holder {
        Holder { pid, name: Some("edge".into()), writes }
    }

    #[test]
    fn the_problem_of_a_locked_file_names_its_holders_and_what_to_do() {
        let path = Path::new("edge.cloak");
        let writer = Problem::locked(path, &[holder(7, true)]);
        assert_eq!(writer.message, "edge.cloak is open in process 7 (edge), which may write to it");
        assert!(writer.advice[0].contains("close it") && writer.advice[1].contains("backup(path)"));
        let readers = Problem::locked(path, &[holder(7, false), holder(8, false)]);
        assert_eq!(
            readers.message,
            "edge.cloak is open in process 7 (edge) and process 8 (edge), for reading"
        );
        assert!(readers.advice[0].contains("when the readers have closed it"));
        let unknown = Problem::locked(path, &[]);
        assert_eq!(unknown.message, "edge.cloak is open elsewhere");
        assert_eq!(unknown.exit_code(), 2);
    }

    #[test]
    fn damage_names_the_location_once_and_the_next_command() {
        let error = Error::Corrupted {
            location: "my edge.cloak: superblock".into(),
            detail: "torn".into(),
        };
        let problem = Problem::of(&error, Path::new("my edge.cloak"));
        assert_eq!(problem.message, "my edge.cloak is damaged: superblock: torn");
        assert_eq!(problem.run, ["cloakroom verify 'my edge.cloak'"]);
        assert_eq!(problem.exit_code(), 1);
    }

    #[test]
    fn a_format_too_old_to_migrate_is_wrong_and_one_that_can_be_migrated_is_not() {
        let path = PathBuf::from("edge.cloak");
        let gone =
            Problem::of(&Error::VersionTooOld { path: path.clone(), found: 1, oldest: 3 }, &path);
        assert_eq!((gone.kind.name(), gone.exit_code()), ("too_old", 1));
        assert!(
            gone.message.contains("its format is 1, and this version reads formats from 3 on"),
            "{}",
            gone.message
        );
        let older = Problem::of(
            &Error::OutdatedVersion { path: path.clone(), found: 1, current: 3 },
            &path,
        );
        assert_eq!((older.kind.name(), older.exit_code()), ("older_format", 2));
        assert_eq!(older.run, ["cloakroom sweep edge.cloak"]);
    }

    #[test]
    fn rooms_in_the_directory_of_a_missing_file_are_suggested() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.cloak", "a.cloak", "notes.txt"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let problem = Problem::missing(&dir.path().join("edge.cloak"));
        let (a, b) = (dir.path().join("a.cloak"), dir.path().join("b.cloak"));
        assert_eq!(problem.advice, [format!("did you mean {} or {}?", a.display(), b.display())]);
        let problem = Problem::missing(&dir.path().join("no/edge.cloak"));
        assert!(problem.advice[0].contains("does not exist either"));
        assert_eq!(problem.exit_code(), 2);
    }

    #[test]
    fn the_number_of_suggested_files_is_limited() {
        let rooms: Vec<_> = (0..9).map(|number| PathBuf::from(format!("{number}.cloak"))).collect();
        assert_eq!(listed(&rooms[..1]), "0.cloak");
        assert_eq!(listed(&rooms), "0.cloak, 1.cloak, 2.cloak, 3.cloak, 4.cloak or one of 4 more");
    }
}
