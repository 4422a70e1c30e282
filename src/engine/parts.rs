//! What an open engine is made of, for whoever checks it while it is in use.

use super::{Core, Engine};
use crate::btree::Btree;
use crate::error::{Error, Result};
use crate::log::LogLayout;
use crate::storage::Storage;
use parking_lot::RwLockReadGuard;
use std::io;
use std::sync::atomic::Ordering;

/// The parts of an engine that does not close meanwhile.
pub(crate) struct Parts<'a> {
    core: &'a Core,
    _open: RwLockReadGuard<'a, ()>,
}

impl Engine {
    /// Its parts.
    pub(crate) fn parts(&self) -> Result<Parts<'_>> {
        let core = &*self.core;
        let open = core.reads.read();
        if core.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        Ok(Parts { core, _open: open })
    }
}

impl Parts<'_> {
    /// The file, to which writers write.
    pub(crate) fn storage(&self) -> &dyn Storage {
        self.core.storage.as_ref()
    }

    pub(crate) fn btree(&self) -> &Btree {
        &self.core.btree
    }

    /// The LSN that the B-tree has reached.
    pub(crate) fn btree_lsn(&self) -> u64 {
        self.core.btree.view().lsn()
    }

    pub(crate) fn log_layout(&self) -> LogLayout {
        self.core.log.layout()
    }

    /// Both segments of the log as they are now. Nothing is written to them meanwhile.
    pub(crate) fn read_log(&self) -> io::Result<Vec<Vec<u8>>> {
        self.core.log.read_segments()
    }
}
