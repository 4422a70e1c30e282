//! Tests that start processes: the `cloakroom` command, and this program again as a child that is
//! refused, holds a lock or is killed.

#[cfg(feature = "cli")]
mod command;
#[cfg(feature = "cli")]
mod command_files;
#[cfg(unix)]
mod kill;
mod opening;
#[path = "../support/rooms.rs"]
mod rooms;
#[cfg(unix)]
#[path = "../support/scale.rs"]
mod scale;
#[cfg(target_os = "linux")]
mod threads;
