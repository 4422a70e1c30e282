//! The tools that work on a whole room: verification, salvage, backup, export and import, and the
//! golden files of each format version.

#[path = "../support/all_stores/mod.rs"]
mod all_stores;
mod at_rest;
mod backup;
mod bad_sectors;
mod export;
#[cfg(feature = "codlet")]
mod format;
#[path = "../support/rooms.rs"]
mod rooms;
mod salvage;
#[path = "../support/scale.rs"]
mod scale;
mod verify;
#[path = "../support/whole_rooms.rs"]
mod whole_rooms;
