//! Random numbers that no other process draws, a forked child included.

use crate::process::HomeProcess;
use std::cell::Cell;
use ulid::{Generator, Ulid};

/// A fresh ULID.
pub(crate) fn ulid() -> Ulid {
    reseed_after_fork();
    Ulid::generate()
}

/// ULIDs, each greater than the one before.
#[derive(Debug, Default)]
pub(crate) struct RisingUlids {
    /// With the process in which they are made. A forked child begins anew, because the parent goes
    /// on where the two parted.
    generator: Option<(HomeProcess, Generator)>,
}

impl RisingUlids {
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self { generator: None }
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> Ulid {
        reseed_after_fork();
        if self.generator.as_ref().is_some_and(|(home, _)| home.has_forked()) {
            self.generator = None;
        }
        let (_, generator) =
            self.generator.get_or_insert_with(|| (HomeProcess::current(), Generator::new()));
        // After 2^80 ids in one millisecond it goes on in the next one.
        generator.generate().unwrap_or_else(|overflow| overflow.commit_overflow_increment())
    }
}

/// The random numbers of a thread go on in a forked child as in the parent, unless they are seeded
/// anew.
fn reseed_after_fork() {
    thread_local! {
        /// The process in which this thread drew the last one.
        static SEEDED_IN: Cell<Option<HomeProcess>> = const { Cell::new(None) };
    }
    match SEEDED_IN.get() {
        Some(home) if !home.has_forked() => return,
        Some(_) => {
            // When the system gives no random bytes, the old ones are better than none.
            let _ = rand::rng().reseed();
        }
        None => {}
    }
    SEEDED_IN.set(Some(HomeProcess::current()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rising_ulids_rise_and_no_two_are_equal() {
        let mut ids = RisingUlids::default();
        let made: Vec<_> = (0..10_000).map(|_| ids.next()).collect();
        assert!(made.is_sorted_by(|a, b| a < b));
        assert_ne!(ulid(), ulid());
    }
}
