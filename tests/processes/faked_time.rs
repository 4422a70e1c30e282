//! The contract's table of time in real processes on the system's clock, whose time is faked.
//!
//! The test compiles a small library (`shim/faked_time.c`) with the C compiler that the Rust linker
//! is, preloads it into this program as a child, and moves the two readings of the child's system
//! while it runs: what is elapsed, and what the wall clock shows. The child opens a room with its
//! default clock and does what it is told, line by line, so the library, the standard library and
//! the system calls are the ones of a program. A restart of the system is another id of it.

use cloakroom::cache::CacheStore;
use cloakroom::dedupe::DedupeStore;
use cloakroom::form_token::{
    FormTokenRecord, FormTokenStore, LookupKey, TokenConsumeOutcome, TokenSubject,
};
use cloakroom::handoff::{HandoffStateStore, JsonObject};
use cloakroom::rate_limit::{RateLimit, RateLimitConfig, RateLimitStore};
use cloakroom::{Cloakroom, Clock, SystemClock};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// Tells the child which file to open.
const FILE: &str = "CLOAKROOM_TIMED_FILE";
const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;
/// The right time of these tests, in milliseconds since the Unix epoch.
const NOW: i64 = 56 * YEAR;
/// What is stored lives for so long.
const SPAN: Duration = Duration::from_secs(3_600);

// ---- The child

fn limiter(room: &Cloakroom) -> RateLimit {
    room.rate_limit("api", RateLimitConfig { limit: 1, window: SPAN }).unwrap()
}

fn token_key() -> LookupKey {
    LookupKey::new("0a")
}

/// What is told of each store: whether it is as [`fill`] left it.
fn look(room: &Cloakroom) -> String {
    let job = room.dedupe::<u8>("jobs").with_job_timeout(SPAN).wait_for("job");
    let subject = TokenSubject::Anonymous;
    let token = room.form_tokens().peek_form_token(&token_key(), &subject, "pay", None, 0);
    let kept = [
        ("value", room.cache::<u8>("http").get("value").wait().unwrap().is_some()),
        ("state", room.handoff().get("state").wait().unwrap().is_some()),
        ("lease", room.handoff().get("claimed").wait().unwrap().is_none()),
        ("job", job.wait().unwrap().is_some()),
        ("limit", !limiter(room).can_proceed("r").wait().unwrap()),
        ("token", token.wait().unwrap().0 == TokenConsumeOutcome::Proceed),
    ];
    let mut told = String::new();
    for (what, _) in kept.iter().filter(|(_, kept)| *kept) {
        write!(told, "{what} ").unwrap();
    }
    told.trim_end().to_owned()
}

/// Stores in each store what lives for an hour, and a token that ends at a point in time.
fn fill(room: &Cloakroom, token_ends_ms: u64) {
    room.cache::<u8>("http").set("value", &1, 3_600).wait().unwrap();
    let states = room.handoff();
    states.set_for("state", &JsonObject::new(), SPAN).wait().unwrap();
    // For nine hundred years, so that only the lease can end.
    states.set_for("claimed", &JsonObject::new(), 8_000_000 * SPAN).wait().unwrap();
    assert!(states.claim("claimed", SPAN).wait().unwrap().is_some());
    let jobs = room.dedupe::<u8>("jobs").with_job_timeout(SPAN);
    jobs.register("job").wait().unwrap();
    jobs.complete("job", &1).wait().unwrap();
    assert!(limiter(room).acquire("r").wait().unwrap());
    let ends = token_ends_ms / 1_000;
    let token = FormTokenRecord::new(token_key(), TokenSubject::Anonymous, "pay", ends);
    room.form_tokens().insert_form_token(token).wait().unwrap();
}

/// Does what each line of its input says and answers with a line. Does nothing when this is the
/// parent's run.
#[test]
fn child() {
    let Ok(path) = std::env::var(FILE) else { return };
    let room = Cloakroom::builder().sweep_interval(None).open(path).unwrap();
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let mut words = line.split(' ');
        let answer = match (words.next(), words.next()) {
            (Some("fill"), Some(ends)) => {
                fill(&room, ends.parse().unwrap());
                "filled".into()
            }
            (Some("write"), _) => {
                room.cache::<u8>("other").set("w", &1, 0).wait().unwrap();
                "written".into()
            }
            (Some("look"), _) => look(&room),
            (Some("sweep"), _) => room.sweep().unwrap().total().to_string(),
            (Some("clock"), _) => {
                format!("{} {}", SystemClock::new().now_ms(), SystemClock::new().elapsed_ms())
            }
            (Some("close"), _) => {
                room.close().unwrap();
                "closed".into()
            }
            other => panic!("{other:?}"),
        };
        std::io::stdout().write_all(format!("\n={answer};\n").as_bytes()).unwrap();
    }
}

// ---- The parent

/// The library that fakes the time, built once.
fn shim() -> &'static Path {
    static SHIM: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = SHIM.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("faked_time.so");
        let source =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/processes/shim/faked_time.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&path, &source])
            .output()
            .expect("cc, with which Rust links");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        (dir, path)
    });
    path
}

/// A device: a file, and the time of its system.
struct Device {
    dir: tempfile::TempDir,
    /// How far each reading is ahead of that of the real system, in milliseconds.
    elapsed_ms: i64,
    wall_ms: i64,
    boots: u32,
    program: Option<Program>,
}

struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Device {
    /// The wall clock shows `wall_ms`.
    fn at(wall_ms: i64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut device = Self { dir, elapsed_ms: 0, wall_ms: 0, boots: 0, program: None };
        device.restart_system(wall_ms);
        device
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes down the readings where the child's clock finds them: over what is there, because it
    /// is mapped.
    fn tell_time(&self) {
        let ns = |ms: i64| (ms * 1_000_000).to_ne_bytes();
        let bytes = [ns(self.elapsed_ms), ns(self.wall_ms)].concat();
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(self.file("time"));
        file.unwrap().write_all(&bytes).unwrap();
    }

    /// The system starts anew, with a wall clock that shows this.
    fn restart_system(&mut self, wall_ms: i64) {
        self.kill();
        self.boots += 1;
        let id = format!("00000000-0000-0000-0000-{:012}\n", self.boots);
        fs::write(self.file("boot"), id).unwrap();
        self.set_wall(wall_ms);
    }

    /// The wall clock is set.
    fn set_wall(&mut self, wall_ms: i64) {
        let real_ms = i64::try_from(SystemClock::new().now_ms()).unwrap();
        self.wall_ms = wall_ms - real_ms - self.elapsed_ms;
        self.tell_time();
    }

    /// Time passes, or the device sleeps: both readings go on.
    fn pass(&mut self, ms: i64) {
        self.elapsed_ms += ms;
        self.tell_time();
    }

    fn start(&mut self) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "faked_time::child", "--nocapture", "--test-threads=1"])
            .env(FILE, self.file("edge.cloak"))
            .env("LD_PRELOAD", shim())
            .env("FAKED_TIME", self.file("time"))
            .env("FAKED_BOOT", self.file("boot"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        self.program = Some(Program { child, input, output });
    }

    /// What the program answers.
    fn ask(&mut self, what: &str) -> String {
        let Program { input, output, .. } = self.program.as_mut().expect("it runs");
        writeln!(input, "{what}").unwrap();
        for line in output.lines() {
            if let Some(answer) = line.unwrap().strip_prefix('=') {
                return answer.trim_end_matches(';').to_owned();
            }
        }
        panic!("the program ended: {what}");
    }

    fn fill(&mut self, token_ends_ms: i64) {
        assert_eq!(self.ask(&format!("fill {token_ends_ms}")), "filled");
    }

    /// The readings of the program's clock.
    fn clock(&mut self) -> (i64, i64) {
        let told = self.ask("clock");
        let (wall, elapsed) = told.split_once(' ').unwrap();
        (wall.parse().unwrap(), elapsed.parse().unwrap())
    }

    fn close(&mut self) {
        assert_eq!(self.ask("close"), "closed");
        let Program { mut child, input, mut output } = self.program.take().unwrap();
        drop(input);
        // What the test of the child says at its end.
        output.read_to_string(&mut String::new()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// `kill -9`, if it runs.
    fn kill(&mut self) {
        if let Some(Program { mut child, .. }) = self.program.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

const ALL: &str = "value state lease job limit token";

#[test]
fn the_program_sees_the_readings_as_they_are_moved() {
    let mut device = Device::at(NOW);
    device.start();
    let close = |a: i64, b: i64| (a - b).abs() < 10 * MINUTE;
    let (wall, elapsed) = device.clock();
    assert!(close(wall, NOW), "{wall}");
    device.pass(5 * HOUR);
    let (wall_after, elapsed_after) = device.clock();
    assert!(close(wall_after, wall + 5 * HOUR) && close(elapsed_after, elapsed + 5 * HOUR));
    device.set_wall(30 * SECOND);
    let (wall, elapsed) = device.clock();
    assert!(close(wall, 30 * SECOND) && close(elapsed, elapsed_after));
}

#[test]
fn a_day_ahead_and_back_while_a_program_runs_is_not_noticed() {
    let mut device = Device::at(NOW);
    device.start();
    device.fill(NOW + HOUR);
    device.set_wall(NOW + DAY);
    assert_eq!((device.ask("look"), device.ask("sweep")), (ALL.into(), "0".into()));
    device.pass(11 * MINUTE);
    assert_eq!((device.ask("look"), device.ask("sweep")), (ALL.into(), "0".into()));
    device.set_wall(NOW + 11 * MINUTE);
    assert_eq!((device.ask("look"), device.ask("sweep")), (ALL.into(), "0".into()));
    device.pass(50 * MINUTE);
    assert_eq!(device.ask("look"), "token", "and that until it is swept");
    assert_eq!(device.ask("sweep"), "5");
    assert_eq!(device.ask("look"), "");
}

#[test]
fn a_system_that_starts_in_1970_keeps_what_is_new_and_ends_what_is_old_when_the_time_is_set() {
    let mut device = Device::at(NOW);
    device.start();
    device.fill(NOW + 90 * MINUTE);
    device.close();
    device.restart_system(20 * SECOND);
    device.start();
    assert_eq!(device.ask("look"), ALL);
    assert_eq!(device.ask("write"), "written");
    device.pass(MINUTE);
    // Two hours have passed in truth.
    device.set_wall(NOW + 2 * HOUR);
    assert_eq!((device.ask("look"), device.ask("sweep")), ("token".into(), "0".into()));
    device.pass(11 * MINUTE);
    assert_eq!((device.ask("sweep"), device.ask("look")), ("5".into(), String::new()));
    // What is stored now has its span, through another start in 1970.
    device.fill(NOW + 30 * HOUR);
    device.kill();
    device.restart_system(25 * SECOND);
    device.start();
    device.pass(30 * MINUTE);
    assert_eq!(device.ask("look"), ALL);
}

#[test]
fn what_is_stored_years_ahead_ends_after_its_span_when_the_clock_is_set_right() {
    for (reopened, new_start) in [(false, false), (true, false), (true, true)] {
        let mut device = Device::at(NOW + 3 * YEAR);
        device.start();
        device.fill(NOW + YEAR);
        device.pass(20 * MINUTE);
        if reopened {
            device.close();
        }
        if new_start {
            device.restart_system(NOW);
        } else {
            device.set_wall(NOW);
        }
        if reopened {
            device.start();
        }
        assert_eq!(device.ask("look"), ALL);
        device.pass(30 * MINUTE);
        assert_eq!(device.ask("look"), ALL);
        device.pass(11 * MINUTE);
        assert_eq!(device.ask("look"), "token", "{reopened} {new_start}");
    }
}

#[test]
fn a_start_years_ahead_destroys_nothing_before_it_has_held() {
    let mut device = Device::at(NOW);
    device.start();
    device.fill(NOW + HOUR);
    device.close();
    device.restart_system(NOW + 10 * YEAR);
    device.start();
    assert_eq!((device.ask("look"), device.ask("sweep")), ("token".into(), "0".into()));
    device.pass(5 * MINUTE);
    assert_eq!(device.ask("sweep"), "0");
    device.set_wall(NOW + 6 * MINUTE);
    assert_eq!((device.ask("look"), device.ask("sweep")), (ALL.into(), "0".into()));
    // Ahead again, and this time it stays.
    device.close();
    device.restart_system(NOW + YEAR);
    device.start();
    assert_eq!(device.ask("sweep"), "0");
    device.pass(11 * MINUTE);
    assert_eq!(device.ask("sweep"), "5");
}

#[test]
fn an_hour_asleep_counts() {
    for open in [true, false] {
        let mut device = Device::at(NOW);
        device.start();
        device.fill(NOW + HOUR);
        if !open {
            device.close();
        }
        device.pass(HOUR + MINUTE);
        if !open {
            device.start();
        }
        assert_eq!((device.ask("sweep"), device.ask("look")), ("5".into(), String::new()));
    }
}

#[test]
fn a_kill_just_before_or_after_the_clock_is_set_loses_no_span() {
    for told in [false, true] {
        let mut device = Device::at(30 * SECOND);
        device.start();
        device.fill(NOW + YEAR);
        if told {
            // The program has seen the step, and written it.
            device.set_wall(NOW);
            assert_eq!(device.ask("write"), "written");
            device.kill();
        } else {
            device.kill();
            device.set_wall(NOW);
        }
        device.start();
        let kept = device.ask("look");
        if told {
            assert_eq!(kept, ALL);
            device.pass(50 * MINUTE);
            assert_eq!(device.ask("look"), ALL);
            device.pass(11 * MINUTE);
            assert_eq!(device.ask("look"), "token");
        } else {
            // The program was killed in 1970 and finds another year: what that says of the time in
            // between is believed, and nothing is lost by it while it has not held.
            assert_eq!((kept.as_str(), device.ask("sweep").as_str()), ("token", "0"));
            device.set_wall(31 * SECOND);
            assert_eq!(device.ask("look"), ALL);
        }
    }
}

#[cfg(feature = "cli")]
#[test]
fn the_command_goes_by_the_clock_of_its_system() {
    let mut device = Device::at(NOW);
    device.start();
    device.fill(NOW + HOUR);
    device.close();
    let swept = |device: &Device| {
        let output = Command::new(env!("CARGO_BIN_EXE_cloakroom"))
            .args(["sweep", "--json"])
            .arg(device.file("edge.cloak"))
            .env("LD_PRELOAD", shim())
            .env("FAKED_TIME", device.file("time"))
            .env("FAKED_BOOT", device.file("boot"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        answer["total"].as_u64().unwrap()
    };
    device.pass(50 * MINUTE);
    assert_eq!(swept(&device), 0);
    device.restart_system(NOW + 2 * HOUR);
    assert_eq!(swept(&device), 5);
}
