//! The threads of a room, as the system sees them. The parent runs this test binary again, because
//! the rooms of other tests have threads too.

use cloakroom::dedupe::DedupeStore;
use cloakroom::handoff::{HandoffStateStore, JsonObject};
use cloakroom::{Builder, Cloakroom, Durability};
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Tells the child that it is one.
const CHILD: &str = "CLOAKROOM_TEST_CHILD";

/// By when everything here has happened.
const PATIENCE: Duration = Duration::from_secs(30);

/// The names of the threads of rooms, sorted. The system cuts them off behind 15 letters.
fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    // A thread may end meanwhile.
    let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
    let mut names: Vec<_> = names
        .map(|name| name.trim_end().to_owned())
        .filter(|name| name.starts_with("cloakroom"))
        .collect();
    names.sort();
    names
}

fn until(what: &str, is_so: impl Fn(&[String]) -> bool) {
    let began = Instant::now();
    while !is_so(&threads()) {
        assert!(began.elapsed() < PATIENCE, "{what}, and there are {:?}", threads());
        thread::sleep(Duration::from_millis(2));
    }
}

fn until_threads_are(expected: &[&str]) {
    until("others were expected", |threads| threads == expected);
}

/// A thread has its name from a moment after it was started on.
fn until_there_is(name: &str) {
    until(name, |threads| threads.iter().any(|thread| thread == name));
}

/// Works so that each thread is needed once.
fn work(room: &Cloakroom) {
    let states = room.handoff().with_durability(Durability::Os);
    drop(states.set("order", &JsonObject::new(), 600));
    until_there_is("cloakroom-commi");
    let jobs = room.dedupe::<u8>("http").with_job_timeout(Duration::from_secs(3_600));
    jobs.register("a job").wait().unwrap();
    let waiting = jobs.wait_for("a job");
    until_there_is("cloakroom-timer");
    drop(waiting);
}

fn options() -> Builder {
    Cloakroom::builder().log_capacity(cloakroom::limits::MIN_LOG_CAPACITY)
}

/// What the child does. Does nothing when this is the parent's run.
#[test]
fn child() {
    if std::env::var(CHILD).is_err() {
        return;
    }
    let idle = options().open_in_memory().unwrap();
    until_threads_are(&["cloakroom-maint"]);
    for _ in 0..2 {
        work(&idle);
        until_threads_are(&["cloakroom-maint"]);
    }
    idle.close().unwrap();
    assert_eq!(threads(), [""; 0], "closing waits for the threads");

    let unswept = options().sweep_interval(None).open_in_memory().unwrap();
    assert_eq!(threads(), [""; 0]);
    work(&unswept);
    until_threads_are(&[]);
    work(&unswept);
    drop(unswept);
    assert_eq!(threads(), [""; 0], "the last handle waits for the threads");

    let rooms: Vec<_> = (0..50).map(|_| options().open_in_memory().unwrap()).collect();
    rooms.iter().for_each(work);
    until_threads_are(&["cloakroom-maint"; 50]);
}

#[test]
fn an_idle_room_has_one_thread_at_most() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "threads::child", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(output.contains("1 passed"), "{output}");
}
