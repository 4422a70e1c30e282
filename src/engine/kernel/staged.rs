//! What a transaction has staged.

use crate::error::Result;
use crate::log::batch;
use crate::tables::{Table, Value};
use std::collections::BTreeMap;

/// Rows by table and key; `None` is the absence of one.
pub(in crate::engine) type Staged = BTreeMap<(Table, Vec<u8>), Option<Value>>;

/// The changes of one transaction that somebody may wait for, in order.
pub(in crate::engine) type Changes = Vec<((Table, Vec<u8>), Option<Value>)>;

/// Encodes what was staged as the payload of one frame.
pub(super) fn encode(staged: &Staged, payload: &mut Vec<u8>) -> Result<()> {
    payload.clear();
    let rows =
        staged.iter().map(|((table, key), value)| (*table, key.as_slice(), value.as_deref()));
    batch::encode_batch_into(payload, rows)
}
