//! Why a command did not end well, and what to do next.

use crate::holder::{Holder, holders};
use crate::output::{quoted, shown};
use cloakroom::Error;
use serde_json::json;
use std::io;
use std::path::{Path, PathBuf};

/// The most files that are offered in place of one that is missing.
const MAX_OFFERED: usize = 5;

/// How a command ended that was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All is well.
    Fine,
    /// Something is wrong with the file, and was said.
    Wrong,
}

/// What kind of problem it is. Programs find its name in the JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The file is damaged.
    Damaged,
    /// The file is not a room.
    NotARoom,
    /// The file is of a newer version of this crate.
    NewerFormat,
    /// The file is of an older format, and was opened for reading only.
    OlderFormat,
    /// The file is of a format that this version does not know any more.
    TooOld,
    /// There is no such file.
    Missing,
    /// Somebody else has the file.
    Locked,
    /// What shall be created exists.
    Exists,
    /// What was given cannot be worked with.
    Invalid,
    /// The disk is full.
    DiskFull,
    /// The system failed a call.
    System,
    /// Something else.
    Failed,
    /// Whoever read the output has gone. Nobody is left to tell.
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

    /// 1 when something is wrong with the file, 2 when the command could not be carried out.
    fn exit_code(self) -> u8 {
        match self {
            Kind::OutputClosed => 0,
            Kind::Damaged | Kind::NotARoom | Kind::NewerFormat | Kind::TooOld => 1,
            _ => 2,
        }
    }
}

/// Why a command did not end well.
#[derive(Debug)]
pub struct Problem {
    kind: Kind,
    message: String,
    /// What the reader may do, in words.
    advice: Vec<String>,
    /// Command lines to run next.
    run: Vec<String>,
}

impl Problem {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), advice: Vec::new(), run: Vec::new() }
    }

    pub fn output_closed() -> Self {
        Self::new(Kind::OutputClosed, "nobody reads the output any more")
    }

    /// A call of the system that failed.
    pub fn system(doing: &str, error: io::Error) -> Self {
        let full =
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        Self::new(if full { Kind::DiskFull } else { Kind::System }, format!("{doing}: {error}"))
    }

    /// What shall be created exists.
    pub fn exists(path: &Path) -> Self {
        Self::new(
            Kind::Exists,
            format!("{} exists already; nothing was written to it", shown(path)),
        )
        .advise("name a file that does not exist yet, or remove this one first")
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
                     version reads up to {supported}"
                );
                Self::new(Kind::NewerFormat, message)
                    .advise("use a newer cloakroom; nothing was written to it")
            }
            Error::OutdatedVersion { found, .. } => {
                let message = format!(
                    "{file} was written by an older version of cloakroom: its format is {found}"
                );
                Self::new(Kind::OlderFormat, message)
                    .advise(
                        "opening it for writing brings it up to date, all at once or not at all; keep a copy",
                    )
                    .run(format!("cloakroom sweep {}", quoted(path)))
            }
            Error::VersionTooOld { found, oldest, .. } => {
                let message = format!(
                    "{file} was written by an older version of cloakroom: its format is {found}, and this version \
                     knows {oldest} and later ones"
                );
                Self::new(Kind::TooOld, message).advise(
                    "bring it up to date with a version between the two; nothing was written to it",
                )
            }
            Error::Corrupted { location, detail } => {
                let location = location.strip_prefix(&format!("{file}: ")).unwrap_or(location);
                Self::new(Kind::Damaged, format!("{file} is damaged: {location}: {detail}"))
                    .advise("nothing was written to it; to see everything that is wrong with it")
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
            return problem.advise("try again when the reader is done");
        }
        problem.advise("close it there and try again").advise(
            "a program can do this with a room that it has open: room.stats(), .verify(), .backup(path), .export(..), \
             .sweep(), .compact()",
        )
    }

    /// Adds what the reader may do.
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

    /// Says it on standard error.
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
    // As they would have been written in place of `path`.
    let as_written = |room: PathBuf| match room.file_name() {
        Some(name) => path.with_file_name(name),
        None => room,
    };
    Ok(rooms.into_iter().map(as_written).collect())
}

/// The files in a directory that are called like rooms, in order of their names.
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
    fn a_locked_file_says_who_has_it_and_what_to_do() {
        let path = Path::new("edge.cloak");
        let writer = Problem::locked(path, &[holder(7, true)]);
        assert_eq!(writer.message, "edge.cloak is open in process 7 (edge), which may write to it");
        assert!(writer.advice[0].contains("close it") && writer.advice[1].contains("backup(path)"));
        let readers = Problem::locked(path, &[holder(7, false), holder(8, false)]);
        assert_eq!(
            readers.message,
            "edge.cloak is open in process 7 (edge) and process 8 (edge), for reading"
        );
        assert!(readers.advice[0].contains("when the reader is done"));
        let unknown = Problem::locked(path, &[]);
        assert_eq!(unknown.message, "edge.cloak is open elsewhere");
        assert_eq!(unknown.exit_code(), 2);
    }

    #[test]
    fn damage_names_the_place_once_and_the_next_command() {
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
    fn a_format_that_is_gone_is_wrong_and_one_that_can_be_brought_up_to_date_is_not() {
        let path = PathBuf::from("edge.cloak");
        let gone =
            Problem::of(&Error::VersionTooOld { path: path.clone(), found: 1, oldest: 3 }, &path);
        assert_eq!((gone.kind.name(), gone.exit_code()), ("too_old", 1));
        assert!(
            gone.message.contains("its format is 1, and this version knows 3"),
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
    fn rooms_beside_a_missing_file_are_offered() {
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
    fn no_more_files_are_offered_than_one_reads() {
        let rooms: Vec<_> = (0..9).map(|number| PathBuf::from(format!("{number}.cloak"))).collect();
        assert_eq!(listed(&rooms[..1]), "0.cloak");
        assert_eq!(listed(&rooms), "0.cloak, 1.cloak, 2.cloak, 3.cloak, 4.cloak or one of 4 more");
    }
}
