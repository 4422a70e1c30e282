//! stub
pub(crate) struct RecoveryPlan { pub active: usize, pub generations:[u64;2], pub position: u64, pub next_lsn: u64, pub spare_is_free: bool }
