//! Whether the file still has its name and its length, looked at from time to time: before a group
//! is written, so that nothing is called durable that no one can reach, before an answer that must
//! be durable, and by the maintenance of an idle room.

use super::group_commit::GroupCommit;
use crate::error::{UnlinkedFile, is_cut};
use crate::storage::Storage;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The least time between two looks. A file that lost its name is noticed within a second, with
/// time to spare for a slow file system.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// When the next look is due.
#[derive(Debug)]
pub(super) struct NameCheck {
    opened: Instant,
    /// In milliseconds since then.
    next_ms: AtomicU64,
}

impl Default for NameCheck {
    fn default() -> Self {
        Self { opened: Instant::now(), next_ms: AtomicU64::new(in_ms(LOOK_EVERY)) }
    }
}

impl NameCheck {
    /// Looks at the name, if that is due. A file that has lost it ends all commits, and callers are
    /// woken: the caller holds no lock that they could want.
    pub(super) fn look_if_due(&self, storage: &dyn Storage, group: &GroupCommit) {
        if group.failure().is_none() && self.is_due() {
            look(storage, group);
        }
    }

    /// Has the next caller look.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn look_next(&self) {
        self.next_ms.store(0, Ordering::Relaxed);
    }

    /// Whether the caller is the one to look.
    fn is_due(&self) -> bool {
        let (now_ms, next_ms) =
            (in_ms(self.opened.elapsed()), self.next_ms.load(Ordering::Relaxed));
        now_ms >= next_ms
            && self
                .next_ms
                .compare_exchange(
                    next_ms,
                    now_ms + in_ms(LOOK_EVERY),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
    }
}

/// Looks at the name and the length of the file now. Where they cannot be told nothing is lost.
pub(super) fn look(storage: &dyn Storage, group: &GroupCommit) {
    if let Some(path) = storage.lost_name() {
        group.fail(io::Error::other(UnlinkedFile { path }));
    } else if let Err(cut) = storage.check_length()
        && is_cut(&cut)
    {
        group.fail(cut);
    }
}

fn in_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
