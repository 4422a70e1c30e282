//! placeholder
pub fn open(_data: &[u8]) {}
