//! Every interleaving of an event and those who wait for it.

use super::*;
use crate::sync::explore::{block_on, every_interleaving};
use crate::sync::thread;
use std::sync::Arc;

fn explore(wait: fn(&Event) -> u64) {
    every_interleaving(move || {
        let event = Arc::new(Event::default());
        let ends = [7, 9].map(|lsn| {
            let event = Arc::clone(&event);
            thread::spawn(move || {
                event.settle(EventOutcome { row: None, lsn });
                event.announce();
            })
        });
        let seen = wait(&event);
        ends.into_iter().for_each(|end| end.join().unwrap());
        assert_eq!(event.outcome().map(|outcome| outcome.lsn), Some(seen), "the first one stays");
    });
}

#[test]
fn a_thread_learns_what_happened_first() {
    explore(|event| event.wait().lsn);
}

#[test]
fn a_task_learns_what_happened_first() {
    explore(|event| block_on(|waker| event.poll(waker)).lsn);
}

#[test]
fn a_task_that_moves_is_woken_where_it_is() {
    explore(|event| {
        // It was polled by another task before.
        let _ = event.poll(Waker::noop());
        block_on(|waker| event.poll(waker)).lsn
    });
}
