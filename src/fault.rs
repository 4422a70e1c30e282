//! Deliberate faults: what the tests are shown to see.
//!
//! A test that has never failed may not be able to. Each fault breaks one promise at one place, and
//! `tests/faults` and `.ci/models` name a test or a model for each that fails while the fault is on
//! and passes while it is off. An ordinary build has none of them: there
//! [`DeliberateFault::is_on`] is `false` when it is compiled.

#[cfg(any(test, feature = "testing"))]
use std::sync::OnceLock;

/// The environment variable that switches one fault on, by its name, for a whole process.
#[cfg(any(test, feature = "testing"))]
const VARIABLE: &str = "CLOAKROOM_FAULT";

/// Declares the faults, so that every one has the name that switches it on.
macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident,)*) => {
        /// A promise that is broken on purpose.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum DeliberateFault {
            $($(#[$doc])* $fault,)*
        }

        #[cfg(any(test, feature = "testing"))]
        impl DeliberateFault {
            fn named(name: &str) -> Option<Self> {
                $(if name == stringify!($fault) {
                    return Some(Self::$fault);
                })*
                None
            }
        }
    };
}

faults! {
    /// A flush of the log is not performed.
    SkipFlush,
    /// A caller is answered before its frame is durable.
    AcknowledgeEarly,
    /// An entry is written without its row in the expiry index.
    DropDerivedRow,
    /// A damaged block of the B-tree passes for whole.
    IgnoreChecksum,
    /// A segment is free before its rows are in the B-tree.
    ReuseSegmentTooSoon,
    /// A position is published before the rows of its frame are in the memtable.
    PublishBeforeInsert,
    /// The tasks of a wait slot are not woken.
    LoseWaker,
    /// The threads that sleep in a wait slot are not woken.
    LoseSleepers,
    /// The waiter for a row is not woken.
    LoseEvent,
    /// A watcher of the feed is not woken.
    LoseWatcher,
    /// An append does not look whether the committer is about to sleep.
    ForgetFence,
    /// A span is written without the epoch of the time line in which it began.
    ForgetEpoch,
    /// A compaction cuts the last used block off.
    CutBelowLastBlock,
    /// A frame has only the first half of what was staged.
    ApplyHalfABatch,
}

impl DeliberateFault {
    /// Whether the promise is to be broken.
    #[cfg(not(any(test, feature = "testing")))]
    #[inline(always)]
    pub(crate) const fn is_on(self) -> bool {
        false
    }

    /// Whether the promise is to be broken.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn is_on(self) -> bool {
        static CHOSEN: OnceLock<Option<DeliberateFault>> = OnceLock::new();
        let chosen = CHOSEN.get_or_init(|| {
            let name = std::env::var(VARIABLE).ok()?;
            let fault = Self::named(&name);
            assert!(fault.is_some(), "{VARIABLE}={name}: no deliberate fault has this name");
            fault
        });
        *chosen == Some(self)
    }
}
