//! Moving pages of the B-tree, while readers look into it. When that is worth it is decided by the
//! compactor.

use super::core::Kernel;
use crate::btree::{Plan, Space};
use crate::error::Result;
use std::sync::Arc;
use std::time::Duration;

/// How often, and how long apart, something is tried that must wait for readers of an older view.
const ATTEMPTS: usize = 20;
const PAUSE: Duration = Duration::from_millis(1);

impl Kernel {
    /// Moves some of the planned pages, between two checkpoints, and shows readers what that
    /// leaves. Answers how many.
    pub(in crate::engine) fn move_planned_pages(&self, plan: &mut Plan) -> Result<u64> {
        let running = self.checkpoints.lock_running();
        self.check_writable()?;
        let (btree, moved) =
            self.btree.compact_step(plan).map_err(|failed| self.btree_failed(failed))?;
        let replaced = self.view.write().replace_btree(btree);
        drop(running);
        drop(replaced);
        Ok(moved as u64)
    }

    /// Has redb move all pages, if no reader holds the view. Says whether it did so.
    ///
    /// What a reader was shown before could not be read any more after the next checkpoint. So
    /// no reader may hold the view when it begins, which is not given away until it is over.
    pub(in crate::engine) fn move_all_pages(&self) -> Result<bool> {
        let running = self.checkpoints.lock_running();
        self.check_writable()?;
        for _ in 0..ATTEMPTS {
            let mut current = self.view.write();
            if Arc::strong_count(&current) == 1 {
                let compacted = self.btree.compact_whole();
                let replaced =
                    compacted.map(|btree| btree.map(|btree| current.replace_btree(btree)));
                drop(current);
                drop(running);
                return replaced
                    .map(|replaced| replaced.is_some())
                    .map_err(|failed| self.btree_failed(failed));
            }
            drop(current);
            std::thread::sleep(PAUSE);
        }
        Ok(false)
    }

    /// Cuts the file behind what is used. Reads that just began may look into an older view, for a
    /// moment.
    pub(in crate::engine) fn cut_file(&self) -> Result<Space> {
        let mut space = self.btree.trim().map_err(|failed| self.btree_failed(failed))?;
        for _ in 0..ATTEMPTS {
            if space.is_cut() {
                break;
            }
            std::thread::sleep(PAUSE);
            space = self.btree.trim().map_err(|failed| self.btree_failed(failed))?;
        }
        Ok(space)
    }
}
