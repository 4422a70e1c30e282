//! A process that is killed in the middle of its work loses nothing that it was told is safe.
//!
//! The parent runs this test binary again as a child that inserts, consumes and hands over from
//! several threads, and prints each acknowledgement after it has it. The parent kills it, opens the
//! file and compares, again and again with the same file. `CLOAKROOM_KILL_ROUNDS` sets how often.

use crate::scale::scaled;
use cloakroom::form_token::{
    FormTokenRecord, FormTokenStore, LookupKey, TokenConsumeOutcome, TokenSubject,
};
use cloakroom::handoff::{HandoffStateStore, JsonObject};
use cloakroom::{Cloakroom, Durability, Error};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Tells the child which file to work on, and from which number on.
const FILE: &str = "CLOAKROOM_KILL_FILE";
const FROM: &str = "CLOAKROOM_KILL_FROM";
const THREADS: u64 = 4;
/// Numbers that one round may use.
const SPAN: u64 = 1_000_000;
const NOW: u64 = 1_000;

fn open(path: &Path) -> Cloakroom {
    // A small log, so that segments change places and checkpoints run all the time.
    Cloakroom::builder()
        .log_capacity(cloakroom::limits::LONGEST_KEYS_LOG_CAPACITY)
        .open(path)
        .unwrap()
}

fn key(number: u64) -> LookupKey {
    LookupKey::new(format!("{number:016x}"))
}

fn token(number: u64) -> FormTokenRecord {
    FormTokenRecord {
        lookup_key: key(number),
        key_version: "1".into(),
        subject: TokenSubject::Authenticated("u".repeat(200)),
        purpose: "kill".into(),
        bound_resource: None,
        issued_at: 0,
        expires_at: u64::MAX / 2_000,
    }
}

fn consume(room: &Cloakroom, number: u64) -> (TokenConsumeOutcome, Option<String>) {
    let subject = TokenSubject::Authenticated("u".repeat(200));
    room.form_tokens().consume_form_token(&key(number), &subject, "kill", None, NOW).wait().unwrap()
}

fn state(number: u64) -> JsonObject {
    let text = format!(r#"{{"number": {number}, "pad": "{}"}}"#, "x".repeat(1_000));
    serde_json::from_str(&text).unwrap()
}

/// One line is one write, so that a kill cuts none in two that the parent could take for another.
fn say(what: char, number: u64) {
    std::io::stdout().write_all(format!("\n={what} {number};\n").as_bytes()).unwrap();
}

/// What the child does until it is killed. Does nothing when this is the parent's run.
#[test]
fn child() {
    let (Ok(path), Ok(from)) = (std::env::var(FILE), std::env::var(FROM)) else { return };
    let (room, from) = (open(Path::new(&path)), from.parse::<u64>().unwrap());
    say('O', 0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let room = room.clone();
            // The last thread is content with the system's word, which must survive a kill as well.
            let durability = if thread == THREADS - 1 { Durability::Os } else { Durability::Sync };
            scope.spawn(move || {
                work(&room, durability, (from..from + SPAN).skip(usize::try_from(thread).unwrap()))
            });
        }
    });
}

fn work(room: &Cloakroom, durability: Durability, numbers: impl Iterator<Item = u64>) {
    let tokens = room.form_tokens().with_durability(durability);
    let states = room.handoff().with_durability(durability);
    let subject = TokenSubject::Authenticated("u".repeat(200));
    for number in numbers.step_by(usize::try_from(THREADS).unwrap()) {
        tokens.insert_form_token(token(number)).wait().unwrap();
        say('I', number);
        if !number.is_multiple_of(5) {
            let consumed = tokens.consume_form_token(&key(number), &subject, "kill", None, NOW);
            let stored = tokens.set_token_result(&key(number), &format!("result {number}"));
            assert_eq!(consumed.wait().unwrap().0, TokenConsumeOutcome::Proceed);
            say('C', number);
            stored.wait().unwrap();
            say('R', number);
        }
        let id = number.to_string();
        states.set(&id, &state(number), 99_999).wait().unwrap();
        say('S', number);
        if !number.is_multiple_of(3) {
            assert_eq!(states.get_and_delete(&id).wait().unwrap(), Some(state(number)));
            say('T', number);
        }
        if durability == Durability::Os {
            // Without a flush to wait for it would leave the others no time at all.
            std::thread::sleep(Duration::from_micros(300));
        }
    }
}

/// What a child was told, by kind of acknowledgement.
type Told = BTreeMap<char, BTreeSet<u64>>;

/// Runs a child for so long and kills it.
fn run_child(path: &Path, from: u64, lifetime: Duration) -> Told {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::child", "--nocapture", "--test-threads=1"])
        .env(FILE, path)
        .env(FROM, from.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.stdout.take().unwrap();
    let (opened, is_open) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut told = Told::new();
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let acknowledgement = line.strip_prefix('=').and_then(|rest| rest.strip_suffix(';'));
            let Some((what, number)) = acknowledgement.and_then(|text| text.split_once(' ')) else {
                continue;
            };
            if what == "O" {
                opened.send(()).unwrap();
                continue;
            }
            told.entry(what.chars().next().unwrap()).or_default().insert(number.parse().unwrap());
        }
        told
    });
    is_open.recv_timeout(Duration::from_secs(60)).expect("the child opens the file");
    std::thread::sleep(lifetime);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(!status.success(), "the child ended by itself: {status}");
    reader.join().unwrap()
}

#[test]
fn a_killed_process_loses_nothing_that_was_acknowledged() {
    let rounds = std::env::var("CLOAKROOM_KILL_ROUNDS")
        .map_or(scaled(10, 60), |rounds| rounds.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("killed.cloak");
    let mut rng = fastrand::Rng::new();
    let (mut acknowledged, mut last) = (0, 0);
    // The numbers of every round that are still to be there in later ones.
    let mut earlier: BTreeSet<u64> = BTreeSet::new();
    for round in 0..rounds {
        let from = round * SPAN;
        let told = run_child(&path, from, Duration::from_millis(rng.u64(1..300)));
        let of = |what: char| told.get(&what).cloned().unwrap_or_default();
        acknowledged += told.values().map(BTreeSet::len).sum::<usize>();
        // Twice in a row: the second child dies young, while it recovers or soon after.
        let again = if round % 3 == 0 {
            run_child(&path, from + SPAN / 2, Duration::ZERO)
        } else {
            Told::new()
        };

        let started = Instant::now();
        let room = loop {
            match Cloakroom::open(&path) {
                Ok(room) => break room,
                // The system gives the lock of a killed process back a moment later.
                Err(Error::Locked { .. }) if started.elapsed() < Duration::from_secs(10) => {
                    std::thread::yield_now()
                }
                Err(error) => panic!("round {round}: {error}"),
            }
        };
        for number in of('C').union(&again.get(&'C').cloned().unwrap_or_default()) {
            assert_eq!(
                consume(&room, *number).0,
                TokenConsumeOutcome::Replay,
                "round {round}: {number} was consumed"
            );
        }
        for number in of('R') {
            let result = Some(format!("result {number}"));
            assert_eq!(
                consume(&room, number),
                (TokenConsumeOutcome::Replay, result),
                "round {round}"
            );
        }
        for number in of('I').difference(&of('C')) {
            // Its consume was perhaps under way. The next caller is the first or is told that
            // somebody was.
            let first = consume(&room, *number).0;
            assert_ne!(first, TokenConsumeOutcome::Invalid, "round {round}: {number} was inserted");
            assert_eq!(
                consume(&room, *number).0,
                TokenConsumeOutcome::Replay,
                "round {round}: {number}, again"
            );
        }
        for number in of('S') {
            let found = room.handoff().get(&number.to_string()).wait().unwrap();
            let taken = of('T').contains(&number);
            // A state that no one has taken and no one was about to take must be there.
            assert!(
                !taken || found.is_none(),
                "round {round}: state {number} was handed over before"
            );
            if number.is_multiple_of(3) {
                assert_eq!(found, Some(state(number)), "round {round}: state {number} is lost");
                earlier.insert(number);
            }
            assert!(
                found.is_none_or(|found| found == state(number)),
                "round {round}: state {number} is another"
            );
        }
        for number in earlier.iter().step_by(7) {
            let found = room.handoff().get(&number.to_string()).wait().unwrap();
            assert_eq!(
                found,
                Some(state(*number)),
                "round {round}: state {number} of an earlier round is lost"
            );
        }
        last = told.len();
        if round % 2 == 0 {
            room.close().unwrap();
        }
    }
    assert!(
        acknowledged > 100 && last > 0,
        "the children did nothing: {acknowledged} acknowledgements"
    );
}
