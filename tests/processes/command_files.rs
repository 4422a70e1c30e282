//! The subcommands of `cloakroom` that work on a file: on a sound file, and on every kind of file
//! that is not.

use crate::rooms::{consume, insert, names, small, state};
use cloakroom::Cloakroom;
use cloakroom::cache::CacheStore;
use cloakroom::handoff::HandoffStateStore;
use cloakroom::limits::{BLOCK_SIZE, LONGEST_KEYS_LOG_CAPACITY, MIN_LOG_CAPACITY};
use cloakroom::state::{StateRecord, StateStore};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::SystemTime;

/// The subcommands that take a file that exists, each with its arguments; `FILE` stands for the
/// file.
const ON_A_FILE: [&[&str]; 8] = [
    &["stats", "FILE"],
    &["verify", "FILE"],
    &["dump", "FILE"],
    &["dump", "FILE", "handoff"],
    &["export", "FILE"],
    &["backup", "FILE", "new.cloak"],
    &["sweep", "FILE"],
    &["compact", "FILE"],
];

/// How many of these only read.
const ONLY_READ: usize = 6;

fn with_file(arguments: &[&str], file: &str) -> Vec<String> {
    arguments.iter().map(|word| if *word == "FILE" { file } else { word }.to_owned()).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What a run of the command said and how it ended.
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn new(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Standard output as JSON objects, one a line.
    fn objects(&self) -> Vec<Value> {
        let object = |line: &str| {
            let value: Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(value.is_object(), "{line}");
            value
        };
        self.stdout.lines().map(object).collect()
    }

    /// The error on standard error, as one JSON object.
    fn error(&self) -> Value {
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
        serde_json::from_str(&self.stderr).unwrap()
    }

    /// The command line that the output says to run next.
    fn next(&self) -> Option<String> {
        let both = format!("{}\n{}", self.stdout, self.stderr);
        both.lines().find_map(|line| line.trim().strip_prefix("run: ").map(str::to_owned))
    }

    #[track_caller]
    fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }
}

/// A directory with files to work on.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// With a room `edge.cloak` of [`fill`], closed.
    fn with_room() -> Self {
        let place = Self::new();
        let room = small().open(place.path("edge.cloak")).unwrap();
        fill(&room);
        room.close().unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        names(self.dir.path())
    }

    fn command(&self, arguments: &[impl AsRef<str>]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloakroom"));
        command
            .current_dir(self.dir.path())
            .args(arguments.iter().map(AsRef::as_ref))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[impl AsRef<str>]) -> Ran {
        Ran::new(&self.command(arguments).output().unwrap())
    }

    /// Runs the command with text on its standard input.
    fn feed(&self, arguments: &[&str], input: &str) -> Ran {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        // A command that refuses its input does not read all of it.
        let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
        let ran = Ran::new(&child.wait_with_output().unwrap());
        writer.join().unwrap();
        ran
    }

    /// Runs a command line as a shell would that was shown it.
    fn shell(&self, line: &str) -> Ran {
        let line = line.strip_prefix("cloakroom ").expect("a command line");
        let script = format!("exec \"$COMMAND\" {line}");
        let mut shell = Command::new("sh");
        shell.current_dir(self.dir.path()).args(["-c", &script]);
        shell.env("COMMAND", env!("CARGO_BIN_EXE_cloakroom"));
        Ran::new(&shell.output().unwrap())
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path(name)).unwrap();
        change(&mut bytes);
        fs::write(self.path(name), bytes).unwrap();
    }
}

/// Something in several stores. It has expired by the time of any machine that runs this, but for
/// the agent state.
fn fill(room: &Cloakroom) {
    for number in 0..50_u64 {
        insert(&room.form_tokens(), &format!("token-{number:02}")).wait().unwrap();
        room.handoff().set(&format!("state-{number:02}"), &state(number), 600).wait().unwrap();
    }
    consume(&room.form_tokens(), "token-03").wait().unwrap();
    room.cache::<String>("http")
        .set_with_tags("page", &"hello".to_owned(), 600, &["news"])
        .wait()
        .unwrap();
    let whose = cloakroom::state::Identity::new("acme", "ada", "session-1", "");
    room.state().save(StateRecord::new(whose, "plan", *b"step 1")).wait().unwrap();
}

/// What must not change.
fn picture(path: &Path) -> (Vec<u8>, SystemTime) {
    (fs::read(path).unwrap(), fs::metadata(path).unwrap().modified().unwrap())
}

/// Ruins both copies of the superblock.
fn ruin(bytes: &mut [u8]) {
    bytes[100] ^= 1;
    bytes[BLOCK_SIZE + 100] ^= 1;
}

/// Flips a bit of every state in the B-tree.
fn ruin_rows(bytes: &mut [u8]) {
    let log_end = 2 * BLOCK_SIZE + usize::try_from(LONGEST_KEYS_LOG_CAPACITY).unwrap();
    let row = br#"{"number":"#;
    let places: Vec<_> =
        (log_end..bytes.len()).filter(|&at| bytes[at..].starts_with(row)).collect();
    assert!(places.len() >= 50);
    places.iter().for_each(|&at| bytes[at + 2] ^= 1);
}

/// Makes the superblock one of another format.
fn set_format(bytes: &mut [u8], version: u32) {
    for copy in bytes.chunks_mut(BLOCK_SIZE).take(2) {
        copy[8..12].copy_from_slice(&version.to_le_bytes());
        let crc = crc32fast::hash(&copy[..BLOCK_SIZE - 4]);
        copy[BLOCK_SIZE - 4..].copy_from_slice(&crc.to_le_bytes());
    }
}

#[test]
fn on_a_sound_file_everything_succeeds_and_readers_touch_nothing() {
    let place = Place::with_room();
    let before = picture(&place.path("edge.cloak"));
    for (number, arguments) in ON_A_FILE.iter().enumerate() {
        let ran = place.run(&with_file(arguments, "edge.cloak")).ended(0);
        assert!(!ran.stdout.is_empty() && ran.stderr.is_empty(), "{arguments:?}: {}", ran.stderr);
        assert_eq!(ran.next(), None, "{arguments:?}");
        if number < ONLY_READ {
            assert!(picture(&place.path("edge.cloak")) == before, "{arguments:?} touched the file");
        }
    }
    assert_eq!(place.names(), ["edge.cloak", "new.cloak"]);
    place.run(&["verify", "edge.cloak"]).ended(0);
    place.run(&["verify", "new.cloak"]).ended(0);
}

#[test]
fn with_json_standard_output_is_objects_and_nothing_else() {
    let place = Place::with_room();
    for arguments in ON_A_FILE {
        // Before and behind the subcommand.
        let (mut behind, before) =
            (with_file(arguments, "edge.cloak"), with_file(arguments, "edge.cloak"));
        behind.push("--json".into());
        let before = [vec!["--json".to_owned()], before].concat();
        for arguments in [behind, before] {
            let ran = place.run(&arguments).ended(0);
            assert!(!ran.objects().is_empty(), "{arguments:?}");
            if arguments.iter().any(|word| word == "export") {
                assert_eq!(
                    ran.error()["entries"],
                    102,
                    "the report of an export is on standard error"
                );
            } else {
                assert_eq!(ran.stderr, "", "{arguments:?}");
            }
        }
    }
}

#[test]
fn a_file_that_is_missing_is_said_to_be_and_others_are_offered() {
    let place = Place::with_room();
    for arguments in ON_A_FILE {
        let ran = place.run(&with_file(arguments, "edgy.cloak")).ended(2);
        assert_eq!(ran.stdout, "", "{arguments:?}");
        assert!(ran.stderr.contains("edgy.cloak: there is no such file"), "{}", ran.stderr);
        assert!(ran.stderr.contains("did you mean edge.cloak?"), "{}", ran.stderr);
        let ran =
            place.run(&with_file(&[&["--json"], arguments].concat(), "no/edgy.cloak")).ended(2);
        let error = ran.error();
        assert_eq!(error["error"], "missing", "{error}");
        assert_eq!(error["exit_code"], 2, "{error}");
        assert!(
            error["advice"][0].as_str().unwrap().contains("directory no does not exist"),
            "{error}"
        );
    }
    assert_eq!(place.names(), ["edge.cloak"]);
}

#[test]
fn a_file_that_is_no_room_or_a_newer_or_a_ruined_one_is_refused_untouched() {
    let place = Place::with_room();
    for name in ["newer.cloak", "ruined.cloak"] {
        fs::copy(place.path("edge.cloak"), place.path(name)).unwrap();
    }
    place.change("newer.cloak", |bytes| set_format(bytes, 99));
    place.change("ruined.cloak", |bytes| ruin(bytes));
    fs::write(place.path("notes.txt"), "precious\n").unwrap();
    fs::write(place.path("empty.cloak"), "").unwrap();
    let before = place.names();
    for (name, error, said) in [
        ("newer.cloak", "newer_format", "newer version of cloakroom: its format is 99"),
        ("ruined.cloak", "damaged", "ruined.cloak is damaged: superblock"),
        ("notes.txt", "not_a_room", "notes.txt is not a cloakroom file"),
        ("empty.cloak", "not_a_room", "it is empty"),
        (".", "not_a_room", "it is a directory"),
    ] {
        for arguments in ON_A_FILE {
            if error == "damaged" && arguments[0] == "verify" {
                // To verify a damaged file is no failure.
                continue;
            }
            let path = place.path(name);
            let picture_before = path.is_file().then(|| picture(&path));
            let ran = place.run(&with_file(arguments, name)).ended(1);
            assert_eq!(ran.stdout, "", "{arguments:?} {name}");
            assert!(ran.stderr.contains(said), "{arguments:?}: {}", ran.stderr);
            let is_damaged = error == "damaged";
            assert_eq!(
                ran.next(),
                is_damaged.then(|| format!("cloakroom verify {name}")),
                "{arguments:?}"
            );
            let ran = place.run(&with_file(&[&["--json"], arguments].concat(), name)).ended(1);
            assert_eq!(ran.stdout, "", "{arguments:?} {name}");
            assert_eq!(ran.error()["error"], error, "{arguments:?}");
            assert!(
                path.is_file().then(|| picture(&path)) == picture_before,
                "{arguments:?} touched {name}"
            );
        }
    }
    assert_eq!(place.names(), before);
}

/// A file of an older format is not changed by those who only read, and they say how it is brought
/// up to date.
#[cfg(feature = "testing")]
#[test]
fn a_file_of_an_older_format_names_the_command_that_migrates_it() {
    let place = Place::with_room();
    cloakroom::testing::write_version_1(&place.path("edge.cloak"), &place.path("old.cloak"))
        .unwrap();
    let before = picture(&place.path("old.cloak"));
    let mut next = None;
    for arguments in &ON_A_FILE[..ONLY_READ] {
        let ran = place.run(&with_file(arguments, "old.cloak")).ended(2);
        assert!(
            ran.stderr.contains("older version of cloakroom: its format is 1"),
            "{}",
            ran.stderr
        );
        let json = place.run(&with_file(&[&["--json"], *arguments].concat(), "old.cloak")).ended(2);
        assert_eq!(json.error()["error"], "older_format");
        next = ran.next();
    }
    assert!(picture(&place.path("old.cloak")) == before, "the file was touched");
    place.shell(&next.unwrap()).ended(0);
    for arguments in &ON_A_FILE[..ONLY_READ] {
        place.run(&with_file(arguments, "old.cloak")).ended(0);
    }
}

#[test]
fn a_locked_file_is_refused_by_whom_the_lock_concerns() {
    let place = Place::with_room();
    let writer = small().open(place.path("edge.cloak")).unwrap();
    for arguments in ON_A_FILE {
        let ran = place.run(&with_file(arguments, "edge.cloak")).ended(2);
        assert_eq!(ran.stdout, "");
        assert!(ran.stderr.contains("edge.cloak is open"), "{}", ran.stderr);
        assert!(ran.stderr.contains("close it there"), "{}", ran.stderr);
        if cfg!(target_os = "linux") && Path::new("/proc/locks").exists() {
            let process = format!("process {}", std::process::id());
            assert!(
                ran.stderr.contains(&process) || ran.stderr.contains("elsewhere"),
                "{}",
                ran.stderr
            );
        }
        let ran = place.run(&with_file(&[&["--json"], arguments].concat(), "edge.cloak")).ended(2);
        assert_eq!(ran.error()["error"], "locked");
    }
    writer.close().unwrap();
    let reader = small().read_only(true).open(place.path("edge.cloak")).unwrap();
    for (number, arguments) in ON_A_FILE.iter().enumerate() {
        let ran = place.run(&with_file(arguments, "edge.cloak"));
        if number < ONLY_READ {
            ran.ended(0);
        } else {
            assert!(ran.ended(2).stderr.contains("edge.cloak is open"));
        }
    }
    reader.close().unwrap();
}

#[cfg(unix)]
#[test]
fn a_file_that_may_only_be_read_is_enough_for_readers() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::with_room();
    let path = place.path("edge.cloak");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    let before = picture(&path);
    for arguments in &ON_A_FILE[..ONLY_READ] {
        place.run(&with_file(arguments, "edge.cloak")).ended(0);
    }
    assert!(picture(&path) == before, "the file was touched");
}

#[test]
fn stats_count_the_entries_of_each_store() {
    let place = Place::with_room();
    let ran = place.run(&["stats", "edge.cloak", "--json"]).ended(0);
    let stats = &ran.objects()[0];
    assert_eq!(stats["file"], "edge.cloak");
    assert_eq!(
        stats["engine"]["file_bytes"],
        fs::metadata(place.path("edge.cloak")).unwrap().len()
    );
    let stores = stats["stores"].as_array().unwrap();
    let store = |kind: &str| stores.iter().find(|store| store["store"] == kind).unwrap();
    assert_eq!([&store("handoff")["expired"], &store("handoff")["live"]], [50, 0]);
    assert_eq!(store("state")["live"], 1);
    assert_eq!(store("cache")["name"], "http");
    let table = place.run(&["stats", "edge.cloak"]).ended(0).stdout;
    for part in ["edge.cloak", "MiB", "handoff", "cache \"http\"", "expired"] {
        assert!(table.contains(part), "{part}: {table}");
    }
}

#[test]
fn an_export_imports_into_a_new_file_that_exports_the_same() {
    let place = Place::with_room();
    let exported = place.run(&["export", "edge.cloak"]).ended(0).stdout;
    assert_eq!(exported.lines().count(), 104);
    let ran = place.feed(&["import", "copy.cloak"], &exported).ended(0);
    assert!(ran.stdout.contains("copy.cloak: 102 entries"), "{}", ran.stdout);
    assert_eq!(place.run(&["export", "copy.cloak"]).ended(0).stdout, exported);
    assert_eq!(place.names(), ["copy.cloak", "edge.cloak"]);
    place.run(&["verify", "copy.cloak"]).ended(0);
    let ran = place.feed(&["import", "--json", "again.cloak"], &exported).ended(0);
    assert_eq!(ran.objects()[0]["entries"], 102);
    assert_eq!(ran.objects()[0]["by_kind"]["handoff"], 50);
    assert_eq!(ran.stderr, "");
}

#[test]
fn an_import_never_replaces_a_file_and_a_failed_one_leaves_none() {
    let place = Place::with_room();
    let exported = place.run(&["export", "edge.cloak"]).ended(0).stdout;
    let before = picture(&place.path("edge.cloak"));
    let ran = place.feed(&["import", "edge.cloak"], &exported).ended(2);
    assert!(ran.stderr.contains("edge.cloak already exists"), "{}", ran.stderr);
    assert!(picture(&place.path("edge.cloak")) == before, "the file was touched");
    let lines: Vec<_> = exported.lines().collect();
    let cut = lines[..50].join("\n");
    let wrong = format!("{}\n{{\"entry\":\"hat\"}}\n", lines[..20].join("\n"));
    for (input, said) in [
        (cut.as_str(), "line"),
        (wrong.as_str(), "line 21"),
        ("", "line 1"),
        ("no JSON\n", "line 1"),
    ] {
        let ran = place.feed(&["import", "new.cloak"], input).ended(2);
        assert_eq!(ran.stdout, "");
        assert!(
            ran.stderr.contains(said) && ran.stderr.contains("was not created"),
            "{}",
            ran.stderr
        );
        let ran = place.feed(&["import", "--json", "new.cloak"], input).ended(2);
        assert_eq!(ran.error()["error"], "invalid");
        assert_eq!(place.names(), ["edge.cloak"]);
    }
    for (path, error) in [("no/new.cloak", "missing"), ("new.cloak/..", "invalid")] {
        let ran = place.feed(&["import", "--json", path], &exported).ended(2);
        assert_eq!(ran.error()["error"], error, "{path}");
    }
    place.feed(&["import", "--log-capacity", "1", "new.cloak"], &exported).ended(2);
    assert_eq!(place.names(), ["edge.cloak"]);
}

#[cfg(unix)]
#[test]
fn an_import_over_an_empty_file_leaves_it_to_its_owner() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    let place = Place::with_room();
    let exported = place.run(&["export", "edge.cloak"]).ended(0).stdout;
    let path = place.path("empty.cloak");
    fs::write(&path, b"").unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    match chown(&path, Some(12_345), Some(12_346)) {
        Ok(()) => {}
        Err(_) => eprintln!("not root: the file is this user's"),
    }
    let access = || {
        let found = fs::metadata(&path).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o777)
    };
    let before = access();
    // One that fails leaves it empty.
    place.feed(&["import", "empty.cloak"], "no JSON\n").ended(2);
    assert_eq!((access(), fs::metadata(&path).unwrap().len()), (before, 0));
    place.feed(&["import", "empty.cloak"], &exported).ended(0);
    assert_eq!(access(), before);
    assert_eq!(place.run(&["export", "empty.cloak"]).ended(0).stdout, exported);
    assert_eq!(place.names(), ["edge.cloak", "empty.cloak"]);
}

#[test]
fn the_temporary_file_of_a_killed_import_is_removed_by_the_next_one() {
    let place = Place::with_room();
    let exported = place.run(&["export", "edge.cloak"]).ended(0).stdout;
    let mut command = place.command(&["import", "new.cloak"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(exported.lines().next().unwrap().as_bytes()).unwrap();
    let is_begun = || place.names().iter().any(|name| name.ends_with(".importing"));
    crate::rooms::until("the import begins", is_begun);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(place.names().len(), 2, "{:?}", place.names());
    place.feed(&["import", "new.cloak"], &exported).ended(0);
    assert_eq!(place.names(), ["edge.cloak", "new.cloak"]);
}

#[test]
fn dump_lists_tables_and_shows_rows() {
    let place = Place::with_room();
    let tables = place.run(&["dump", "--json", "edge.cloak"]).ended(0).objects();
    let rows =
        |name: &str| tables.iter().find(|table| table["table"] == name).unwrap()["rows"].clone();
    assert_eq!(
        [rows("handoff"), rows("form_token"), rows("form_token_use"), rows("cache_by_tag")],
        [50, 50, 1, 1]
    );
    let listed = place.run(&["dump", "edge.cloak"]).ended(0).stdout;
    assert_eq!(listed.lines().count(), tables.len() + 1);
    assert!(listed.contains("expiry (index)"), "{listed}");

    let rows = place.run(&["dump", "edge.cloak", "handoff"]).ended(0).stdout;
    assert_eq!(rows.lines().count(), 50);
    assert!(rows.starts_with("state_id=state-00  ->  "), "{rows}");
    let few =
        place.run(&["dump", "--json", "edge.cloak", "handoff", "--limit", "3"]).ended(0).objects();
    assert_eq!(
        few.iter().map(|row| &row["key"]["state_id"]).collect::<Vec<_>>(),
        ["state-00", "state-01", "state-02"]
    );
    assert_eq!(place.run(&["dump", "edge.cloak", "handoff", "--limit", "0"]).ended(0).stdout, "");

    let ran = place.run(&["dump", "edge.cloak", "hats"]).ended(2);
    assert!(ran.stdout.is_empty() && ran.stderr.contains("hats"), "{}", ran.stderr);
}

#[test]
fn a_backup_replaces_an_earlier_one_and_nothing_else() {
    let place = Place::with_room();
    place.run(&["backup", "edge.cloak", "copy.cloak"]).ended(0);
    let room = small().open(place.path("edge.cloak")).unwrap();
    room.handoff().set("late", &state(1), 600).wait().unwrap();
    room.close().unwrap();
    let ran = place.run(&["backup", "--json", "edge.cloak", "copy.cloak"]).ended(0);
    assert_eq!(ran.objects()[0]["bytes"], fs::metadata(place.path("copy.cloak")).unwrap().len());
    let exported = |name| place.run(&["export", name]).ended(0).stdout;
    assert_eq!(exported("copy.cloak"), exported("edge.cloak"));
    assert!(exported("copy.cloak").contains("\"late\""));

    small().open(place.path("other.cloak")).unwrap().close().unwrap();
    fs::write(place.path("notes.txt"), "precious\n").unwrap();
    for (to, said) in [
        ("other.cloak", "a different room"),
        ("notes.txt", "already exists"),
        ("edge.cloak", "the room itself"),
    ] {
        let before = picture(&place.path(to));
        let ran = place.run(&["backup", "edge.cloak", to]).ended(2);
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
        assert!(picture(&place.path(to)) == before, "{to} was touched");
    }
    place.run(&["backup", "edge.cloak", "no/copy.cloak"]).ended(2);
    assert_eq!(place.names(), ["copy.cloak", "edge.cloak", "notes.txt", "other.cloak"]);
}

#[test]
fn a_closed_output_pipe_is_not_an_error() {
    let place = Place::new();
    let room = small().open(place.path("edge.cloak")).unwrap();
    let pad = "x".repeat(2_000);
    for number in 0..500_u64 {
        let padded = serde_json::from_str(&format!(r#"{{"n":{number},"pad":"{pad}"}}"#)).unwrap();
        room.handoff().set(&format!("state-{number:03}"), &padded, 600).wait().unwrap();
    }
    room.close().unwrap();
    for arguments in [
        &["export", "edge.cloak"][..],
        &["dump", "edge.cloak", "handoff"],
        &["--json", "export", "edge.cloak"],
    ] {
        let mut command = place.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(!first.is_empty());
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            (output.status.code(), text(&output.stderr).as_str()),
            (Some(0), ""),
            "{arguments:?}"
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_that_cannot_be_written_is_a_failure() {
    let place = Place::with_room();
    let mut command = place.command(&["export", "edge.cloak"]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let ran = Ran::new(&command.stdout(full).output().unwrap()).ended(2);
    assert!(ran.stderr.contains("cloakroom: "), "{}", ran.stderr);
}

#[test]
fn sweep_removes_what_has_expired_and_compact_gives_the_space_back() {
    let place = Place::new();
    let room = small().open(place.path("edge.cloak")).unwrap();
    fill(&room);
    let pad = "x".repeat(20_000);
    for number in 0..400_u64 {
        let padded = serde_json::from_str(&format!(r#"{{"n":{number},"pad":"{pad}"}}"#)).unwrap();
        room.handoff().set(&format!("large-{number:03}"), &padded, 600).wait().unwrap();
    }
    room.close().unwrap();
    let length = || fs::metadata(place.path("edge.cloak")).unwrap().len();
    let before = length();
    let ran = place.run(&["sweep", "--json", "edge.cloak"]).ended(0);
    let swept = &ran.objects()[0];
    assert_eq!([&swept["removed"]["handoff"], &swept["removed"]["cache"]], [450, 1], "{swept}");
    let again = place.run(&["sweep", "edge.cloak"]).ended(0).stdout;
    assert!(again.starts_with("edge.cloak: 0 expired entries removed"), "{again}");
    place.run(&["verify", "edge.cloak"]).ended(0);
    let exported = place.run(&["export", "edge.cloak"]).ended(0).stdout;
    // Closing after the sweep may have given most of it back.
    let ran = place.run(&["compact", "--json", "edge.cloak"]).ended(0);
    let compacted = &ran.objects()[0];
    assert!(length() < before - 4_000_000, "{compacted}");
    assert_eq!(compacted["bytes_after"], length(), "{compacted}");
    place.run(&["verify", "edge.cloak"]).ended(0);
    assert_eq!(place.run(&["export", "edge.cloak"]).ended(0).stdout, exported);
    let said = place.run(&["compact", "edge.cloak"]).ended(0).stdout;
    assert!(said.starts_with("edge.cloak: ") && said.contains("freed"), "{said}");
}

/// Somebody who knows nothing but the command and a damaged file follows what it says.
fn follow(place: &Place, name: &str, first: &[&str]) -> (Vec<String>, Ran) {
    let before = picture(&place.path(name));
    let (mut lines, mut ran) = (Vec::new(), place.run(&with_file(first, name)).ended(1));
    while let Some(line) = ran.next() {
        assert!(lines.len() < 5, "it leads in circles: {lines:?}");
        ran = place.shell(&line);
        lines.push(line);
    }
    assert!(picture(&place.path(name)) == before, "the damaged file was touched");
    (lines, ran)
}

#[test]
fn from_a_file_with_damaged_rows_each_command_leads_to_the_next() {
    for name in ["edge.cloak", "my room.cloak"] {
        let place = Place::with_room();
        fs::rename(place.path("edge.cloak"), place.path("kept")).unwrap();
        fs::rename(place.path("kept"), place.path(name)).unwrap();
        place.change(name, |bytes| ruin_rows(bytes));
        for first in [&["stats", "FILE"][..], &["export", "FILE"], &["dump", "FILE", "handoff"]] {
            let (lines, ran) = follow(&place, name, first);
            let salvaged = name.replace(".cloak", ".salvaged.cloak");
            let quoted =
                |name: &str| if name.contains(' ') { format!("'{name}'") } else { name.to_owned() };
            assert_eq!(
                lines[..2],
                [
                    format!("cloakroom verify {}", quoted(name)),
                    format!("cloakroom salvage {} {}", quoted(name), quoted(&salvaged)),
                ]
            );
            assert_eq!(ran.code, Some(0), "the last command is about a sound file: {}", ran.stdout);
            // The state of the agent is in another page than the damaged ones.
            assert!(place.run(&["export", &salvaged]).ended(0).stdout.contains("\"plan\""));
            fs::remove_file(place.path(&salvaged)).unwrap();
        }
    }
}

#[test]
fn from_a_file_that_does_not_open_each_command_leads_to_the_next() {
    let place = Place::with_room();
    place.change("edge.cloak", |bytes| ruin(bytes));
    let (lines, ran) = follow(&place, "edge.cloak", &["stats", "FILE"]);
    assert_eq!(
        lines[..2],
        ["cloakroom verify edge.cloak", "cloakroom salvage edge.cloak edge.salvaged.cloak"]
    );
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stdout, ran.stderr);
    assert_eq!(
        place.run(&["dump", "edge.salvaged.cloak", "handoff"]).ended(0).stdout.lines().count(),
        50
    );
}

#[test]
fn damage_that_the_next_opening_repairs_names_that_opening() {
    let place = Place::with_room();
    place.change("edge.cloak", |bytes| bytes[100] ^= 1);
    let ran = place.run(&["verify", "edge.cloak"]).ended(1);
    assert!(ran.stdout.contains("superblock, copy A"), "{}", ran.stdout);
    place.shell(&ran.next().unwrap()).ended(0);
    place.run(&["verify", "edge.cloak"]).ended(0);
}

#[test]
fn verify_lists_each_finding_for_programs() {
    let place = Place::with_room();
    place.change("edge.cloak", |bytes| ruin_rows(bytes));
    let ran = place.run(&["verify", "--json", "edge.cloak"]).ended(1);
    assert_eq!(ran.stderr, "");
    let objects = ran.objects();
    let (report, findings) = objects.split_last().unwrap();
    assert_eq!([&report["type"], &report["file"]], ["report", "edge.cloak"]);
    assert_eq!(report["ok"], false);
    let findings: Vec<_> = findings.iter().filter(|object| object["type"] == "finding").collect();
    assert_eq!(report["findings"], findings.len());
    for finding in findings {
        for field in ["location", "problem", "advice"] {
            assert!(!finding[field].as_str().unwrap().is_empty(), "{finding}");
        }
    }
}

const SUBCOMMANDS: [&str; 10] = [
    "stats",
    "verify",
    "salvage",
    "sweep",
    "compact",
    "dump",
    "export",
    "import",
    "backup",
    "completions",
];

#[test]
fn every_help_page_says_how_the_file_is_used_and_the_exit_codes() {
    let place = Place::new();
    let overview = place.run(&["--help"]).ended(0).stdout;
    for subcommand in SUBCOMMANDS {
        assert!(overview.contains(&format!("  {subcommand} ")), "{subcommand}: {overview}");
        let help = place.run(&[subcommand, "--help"]).ended(0).stdout;
        for part in ["Usage: cloakroom", "Exit codes:", "  0  ", "  2  ", "Examples:", "--json"] {
            assert!(help.contains(part), "{subcommand}: {part}");
        }
        if subcommand != "completions" {
            assert!(help.contains("See also:") && help.contains("  1  "), "{subcommand}");
            assert!(
                ["only read", "written to", "must not exist"]
                    .iter()
                    .any(|what| help.contains(what))
            );
        }
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{subcommand}: {help}");
        let short = place.run(&[subcommand, "-h"]).ended(0).stdout;
        assert!(short.lines().count() < help.lines().count(), "{subcommand}");
    }
    assert!(overview.contains("Exit codes:") && overview.contains("cloakroom salvage edge.cloak"));
}

#[test]
fn completions_list_every_subcommand() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.run(&["completions", shell]).ended(0).stdout;
        for subcommand in SUBCOMMANDS {
            assert!(script.contains(subcommand), "{shell}: {subcommand}");
        }
        let ran = place.run(&["completions", "--json", shell]).ended(0);
        assert_eq!(ran.objects()[0]["script"], script.as_str());
    }
    place.run(&["completions", "tcsh"]).ended(2);
}

#[test]
fn wrong_arguments_are_explained() {
    let place = Place::with_room();
    for (arguments, explained) in [
        (&["stats"][..], "FILE"),
        (&["backup", "edge.cloak"], "TO"),
        (&["salvage", "edge.cloak"], "TO"),
        (&["stats", "edge.cloak", "more"], "more"),
        (&["dump", "edge.cloak", "--limit", "3"], "TABLE"),
        (&["dump", "edge.cloak", "handoff", "--limit", "x"], "--limit"),
    ] {
        let ran = place.run(arguments).ended(2);
        assert!(
            ran.stdout.is_empty() && ran.stderr.contains(explained),
            "{arguments:?}: {}",
            ran.stderr
        );
    }
}

/// Flips one bit anywhere that matters and runs everything on what is left.
#[test]
fn with_any_bit_flipped_no_answer_is_wrong_and_every_command_names_the_next_step() {
    const FLIPS: u64 = 12;
    let whole = Place::new();
    let room = small().log_capacity(MIN_LOG_CAPACITY).open(whole.path("edge.cloak")).unwrap();
    fill(&room);
    room.close().unwrap();
    let exported = whole.run(&["export", "edge.cloak"]).ended(0).stdout;
    let bytes = fs::read(whole.path("edge.cloak")).unwrap();
    let log_start = 2 * BLOCK_SIZE;
    let log_end = log_start + usize::try_from(MIN_LOG_CAPACITY).unwrap();
    // The superblock, the log, the B-tree, and the part of it that is written first.
    let parts = [
        0..log_start,
        log_start..log_end,
        log_end..bytes.len(),
        log_end..log_end + 16 * BLOCK_SIZE,
    ];
    let (mut damaged, mut incomplete) = (0, 0);
    for seed in 0..FLIPS {
        let mut random = fastrand::Rng::with_seed(seed);
        let part = random.choice(parts.clone()).unwrap();
        let (at, bit) = (random.usize(part), random.u8(..8));
        let place = Place::new();
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << bit;
        fs::write(place.path("edge.cloak"), &flipped).unwrap();
        let run = |arguments: &[&str]| {
            let ran = place.run(arguments);
            assert!(
                matches!(ran.code, Some(0 | 1)),
                "bit {bit} of byte {at}, {arguments:?}: {}",
                ran.stderr
            );
            assert!(
                !ran.stderr.contains("panicked"),
                "bit {bit} of byte {at}, {arguments:?}: {}",
                ran.stderr
            );
            ran
        };
        let verified = run(&["verify", "edge.cloak"]);
        let read = run(&["export", "edge.cloak"]);
        run(&["stats", "edge.cloak"]);
        run(&["backup", "edge.cloak", "copy.cloak"]);
        let salvaged = run(&["salvage", "edge.cloak", "new.cloak"]);
        assert!(fs::read(place.path("edge.cloak")).unwrap() == flipped, "the file was touched");
        let what = format!("bit {bit} of byte {at}");
        // What is read is right or an error, and verification finds whatever keeps it from being
        // read.
        assert!(
            read.code == Some(1) || read.stdout == exported,
            "{what}: another export\n{}",
            read.stdout
        );
        assert!(verified.code == Some(1) || read.code == Some(0), "{what}: {}", read.stderr);
        assert_eq!(
            verified.code == Some(1),
            verified.next().is_some(),
            "{what}: {}",
            verified.stdout
        );
        let new = run(&["export", "new.cloak"]);
        assert_eq!(new.code, Some(0), "{what}: {}", new.stderr);
        assert!(salvaged.code == Some(1) || new.stdout == exported, "{what}: {}", salvaged.stdout);
        damaged += u32::from(verified.code == Some(1));
        incomplete += u32::from(salvaged.code == Some(1));
    }
    assert!(damaged > 0 && incomplete > 0, "{damaged} damaged, {incomplete} incomplete");
}
