//! How an open room writes down that time passes while nothing else is written.

use super::checkpoint_tests::{options, write};
use super::{Engine, EngineOptions};
use crate::clock::ManualClock;
use crate::storage::sim::SimStorage;
use std::sync::Arc;
use std::time::Duration;

/// How long an idle room goes without writing its time line.
const IDLE: Duration = Duration::from_secs(600);

fn room() -> (Engine, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let options = EngineOptions { clock: clock.clone(), ..options() };
    let engine = Engine::create_on(Arc::new(SimStorage::new(1)), options).unwrap();
    write(&engine, b"key", Some(b"value"));
    (engine, clock)
}

/// How many frames a look at the clock appends.
fn kept(engine: &Engine) -> u64 {
    let before = engine.kernel.log().appended();
    engine.kernel.keep_time().unwrap();
    engine.kernel.log().appended() - before
}

#[test]
fn an_idle_room_writes_its_time_now_and_then_and_at_once_when_the_clock_was_set() {
    let (engine, clock) = room();
    assert_eq!(kept(&engine), 0);
    clock.advance(IDLE - Duration::from_millis(1));
    assert_eq!(kept(&engine), 0);
    clock.advance(Duration::from_millis(1));
    assert_eq!((kept(&engine), kept(&engine)), (1, 0));
    clock.leap(1_800_000_000_000);
    assert_eq!((kept(&engine), kept(&engine)), (1, 0));
}

#[test]
fn an_idle_room_leaves_the_space_of_the_log_to_its_callers() {
    let (engine, clock) = room();
    let mut filler = 0_u32;
    while engine.kernel.log().spare_is_free() {
        write(&engine, &filler.to_be_bytes(), Some(&[1; 500]));
        filler += 1;
    }
    clock.advance(IDLE);
    assert_eq!(kept(&engine), 0);
    engine.kernel.run_checkpoint().unwrap();
    assert_eq!(kept(&engine), 1);
}
