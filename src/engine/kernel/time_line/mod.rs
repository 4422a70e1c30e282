//! The time line of a room: what spans of time are measured on.
//!
//! | file | what it has |
//! |---|---|
//! | `moment` | one reading of the line, as operations get it, and the deadlines in rows |
//! | `decide` | what the readings of a clock say, decided purely |
//! | `gap` | the time between two openings, and how certain it is |
//! | `reading` | what a clock says |
//! | `rows` | the line in the table that keeps it |
//! | `line` | the line of an open room: its clock, its state, and what is still to be written |

mod decide;
mod gap;
mod line;
mod moment;
mod reading;
mod rows;

pub(crate) use decide::DEFAULT_LEAP_HOLD;
pub(in crate::engine) use line::LineRows;
pub(crate) use line::NewestEpoch;
pub(in crate::engine) use line::TimeLine;
pub(crate) use moment::{Deadline, Moment};
pub(crate) use rows::{LINE_KEY, TIME_LINE, check_row, dump_row, indexed_wall, put_indexed_wall};
