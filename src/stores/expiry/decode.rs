//! Reading the keys of the expiry index, which name a table by its number.

use crate::codec::key;
use crate::engine::time_line::Deadline;
use crate::stores::registry::catalogue;
use crate::tables::Table;

/// The parts of a key that [`encode_key`](super::encode_key) wrote. `None` when it was not written
/// this way.
pub(crate) fn decode_key(mut encoded: &[u8]) -> Option<(Deadline, Table, &[u8])> {
    let (epoch, rest) = encoded.split_first_chunk::<4>()?;
    encoded = rest;
    let at = Deadline { epoch: u32::from_be_bytes(*epoch), at_ms: key::take_u64(&mut encoded)? };
    let (&number, primary) = encoded.split_first()?;
    Some((at, catalogue().numbered(number)?, primary))
}
