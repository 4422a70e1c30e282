//! Reading the keys of the expiry index, which name a table by its number.

use crate::codec::key;
use crate::stores::registry::catalogue;
use crate::tables::Table;

/// The parts of a key that [`encode_key`](super::encode_key) wrote. `None` when it was not written
/// this way.
pub(crate) fn decode_key(mut encoded: &[u8]) -> Option<(u64, Table, &[u8])> {
    let time_ms = key::take_u64(&mut encoded)?;
    let (&number, primary) = encoded.split_first()?;
    Some((time_ms, catalogue().numbered(number)?, primary))
}
