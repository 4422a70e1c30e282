//! The engine under crashes, failing disks and compaction: simulated histories, models, and what
//! each caller waits for.

#[cfg(feature = "testing")]
#[path = "../support/all_stores/mod.rs"]
mod all_stores;
mod compaction;
#[cfg(feature = "testing")]
mod crash_simulation;
#[cfg(feature = "testing")]
mod crash_stores;
#[cfg(feature = "testing")]
mod damage;
#[cfg(feature = "testing")]
mod disk_full;
#[cfg(feature = "testing")]
mod durability;
#[cfg(feature = "testing")]
mod failures;
mod log_space;
#[cfg(feature = "testing")]
mod model;
#[cfg(feature = "testing")]
mod never_blocks;
#[cfg(feature = "testing")]
mod reads;
#[cfg(feature = "testing")]
#[path = "../support/rooms.rs"]
mod rooms;
#[path = "../support/scale.rs"]
mod scale;
#[cfg(feature = "testing")]
mod simulation;
#[cfg(feature = "testing")]
#[cfg(unix)]
mod system_calls;
