//! Who is told of changes: those who wait for a row, and those who watch all of them. Both observe
//! the kernel's one hook on the end of a transaction.

mod feed;
mod row_wait;

pub(crate) use feed::{Feed, NoMore, Selected, Subscription};
pub(in crate::engine) use feed::{Select, subscribe};
pub(crate) use row_wait::{Found, Judge};
pub(in crate::engine) use row_wait::{RowWaits, WaitedRow, await_row};
