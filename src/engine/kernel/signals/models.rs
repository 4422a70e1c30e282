//! Every interleaving, and every order of stores, of an append and a committer that falls asleep.

use super::*;
use crate::sync::explore::every_interleaving;
use crate::sync::thread;
use std::sync::Arc;

#[test]
fn what_is_appended_is_seen_by_the_committer_or_calls_it() {
    every_interleaving(|| {
        let (signals, appended) = (Arc::new(Signals::default()), Arc::new(AtomicU8::new(0)));
        let called = Arc::new(AtomicBool::new(false));
        let call = {
            let called = Arc::clone(&called);
            Box::new(move || !called.swap(true, Ordering::Relaxed))
        };
        signals.set(call, Box::new(|| true), Box::new(|| true));
        signals.committer_is_awake();
        let writer = {
            let (signals, appended) = (Arc::clone(&signals), Arc::clone(&appended));
            thread::spawn(move || {
                appended.store(1, Ordering::Release);
                signals.appended();
            })
        };
        // As the committer does before it sleeps.
        signals.committer_falls_asleep();
        let sleeps = appended.load(Ordering::Acquire) == 0;
        writer.join().unwrap();
        assert!(!sleeps || called.load(Ordering::Relaxed), "it sleeps, and was not called");
    });
}
