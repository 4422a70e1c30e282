//! Which thread runs a transaction of which engine, to tell a nested transaction from a wait.

use crate::error::{Error, Result};
use crate::sync::thread_local;
use std::cell::Cell;

/// Transactions of how many rooms one thread can run inside one another.
const MAX_NESTED_ROOMS: usize = 8;

thread_local! {
    /// The kernels whose transactions this thread runs. An array, because it needs no destructor: a
    /// room may be dropped while a thread and its other locals end.
    static IN_TRANSACTION: Cell<[*const (); MAX_NESTED_ROOMS]> =
        const { Cell::new([std::ptr::null(); MAX_NESTED_ROOMS]) };
}

/// The right of this thread to run a transaction of one engine; refused while it already runs one.
pub(in crate::engine) struct TransactionTurn {
    kernel: *const (),
}

impl TransactionTurn {
    /// The turn in the kernel at this place.
    ///
    /// # Errors
    /// [`Error::NestedTransaction`].
    pub(super) fn take(this: *const ()) -> Result<Self> {
        let mut running = IN_TRANSACTION.with(Cell::get);
        if running.contains(&this) {
            return Err(Error::NestedTransaction);
        }
        let free =
            running.iter_mut().find(|running| running.is_null()).ok_or(Error::NestedTransaction)?;
        *free = this;
        IN_TRANSACTION.with(|cell| cell.set(running));
        Ok(Self { kernel: this })
    }
}

impl Drop for TransactionTurn {
    fn drop(&mut self) {
        let keep = |running| if running == self.kernel { std::ptr::null() } else { running };
        IN_TRANSACTION.with(|cell| cell.set(cell.get().map(keep)));
    }
}
