//! Tests that start processes: the `cloakroom` command, and this program again as a child that is
//! refused, holds a lock or is killed.

#[cfg(feature = "cli")]
mod command;
#[cfg(feature = "cli")]
mod command_files;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod faked_time;
#[cfg(target_os = "linux")]
mod fork;
#[cfg(target_os = "linux")]
mod forked;
#[cfg(feature = "testing")]
mod full_disk;
#[cfg(unix)]
mod kill;
mod opening;
#[cfg(unix)]
mod ownership;
#[cfg(target_os = "linux")]
mod places;
#[path = "../support/rooms.rs"]
mod rooms;
#[cfg(unix)]
#[path = "../support/scale.rs"]
mod scale;
#[cfg(target_os = "linux")]
mod threads;
#[cfg(target_os = "linux")]
mod unlinked;
