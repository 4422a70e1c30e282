//! placeholder
pub fn log_recovery(_data: &[u8]) {}
