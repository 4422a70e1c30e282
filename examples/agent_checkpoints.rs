//! An agent's checkpoints with optimistic concurrency: two workers carry on the same run, and no
//! step is done twice.
//!
//! `cargo run --example agent_checkpoints`

use cloakroom::drivers::{self, StateConfig};
use cloakroom::state::{Identity, ListScope, SlotExpectation, StateError, StateRecord, StateStore};
use std::sync::Arc;
use std::thread;

const KIND: &str = "checkpoint";
const STEPS: i64 = 10;

/// Carries the run on until it is done. Answers how many steps this worker did.
fn work(store: &dyn StateStore, run: &Identity) -> Result<usize, StateError> {
    let mut done = 0;
    loop {
        // Where is the run? The version counts its steps.
        let (step, expectation) = match store.load(run, KIND).wait() {
            Ok(last) => (last.version, SlotExpectation::current(run.clone(), KIND, last.id)),
            Err(StateError::NotFound) => (0, SlotExpectation::absent(run.clone(), KIND)),
            Err(error) => return Err(error),
        };
        if step == STEPS {
            return Ok(done);
        }
        let result = format!("result of step {}", step + 1);
        let next = StateRecord { version: step + 1, ..StateRecord::new(run.clone(), KIND, result) };
        match store.save_if(&[expectation], next).wait() {
            Ok(()) => done += 1,
            // The other worker was faster; look again.
            Err(StateError::ConditionFailed) => {}
            Err(error) => return Err(error),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let dsn = dir.path().join("agents.cloak").display().to_string();
    let config = StateConfig { driver: "cloakroom".into(), dsn };
    let store: Arc<dyn StateStore> = drivers::open(&config)?;
    let run = Identity::new("acme", "ada", "session-1", "run-1");

    let workers: Vec<_> = (0..2)
        .map(|_| {
            let (store, run) = (Arc::clone(&store), run.clone());
            thread::spawn(move || work(&*store, &run))
        })
        .collect();
    let mut total = 0;
    for (number, worker) in workers.into_iter().enumerate() {
        let done = worker.join().expect("a worker panicked")?;
        println!("worker {number} did {done} steps");
        total += done;
    }
    assert_eq!(i64::try_from(total)?, STEPS, "every step was done exactly once");
    store.close().wait()?;

    // A crash here would lose nothing; another process goes on from the file.
    let store = drivers::open(&config)?;
    let last = store.load(&run, KIND).wait()?;
    println!("after reopening: step {}, {:?}", last.version, String::from_utf8_lossy(&last.bytes));

    // Maintenance may look across tenants; it has to say so.
    let page =
        store.scan_kind_for_tenant(ListScope::maintenance(), "acme", "check", 100, None).wait()?;
    println!("{} checkpoints of the tenant", page.items.len());
    println!(
        "{} states of the session removed",
        store.delete_scope("acme", "ada", "session-1").wait()?
    );
    Ok(())
}
