//! What a transaction has staged.

use crate::error::Result;
use crate::fault::DeliberateFault;
use crate::log::batch;
use crate::tables::{Table, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Rows by table and key; `None` is the absence of one.
pub(in crate::engine) type Staged = BTreeMap<(Table, Vec<u8>), Option<Value>>;

/// The staged rows that changed nothing of an entry: see [`Writer::rewrite`] and
/// [`Writer::delete_gone`].
///
/// [`Writer::rewrite`]: super::access::Writer::rewrite
/// [`Writer::delete_gone`]: super::access::Writer::delete_gone
pub(in crate::engine) type Unseen = BTreeSet<(Table, Vec<u8>)>;

/// The changes of one transaction that somebody may wait for, in order.
pub(in crate::engine) type Changes = Vec<((Table, Vec<u8>), Option<Value>)>;

/// Encodes what was staged as the payload of one frame.
pub(super) fn encode(staged: &Staged, payload: &mut Vec<u8>) -> Result<()> {
    payload.clear();
    let half = DeliberateFault::ApplyHalfABatch.is_on();
    let kept = if half { staged.len().div_ceil(2) } else { staged.len() };
    let rows = staged
        .iter()
        .take(kept)
        .map(|((table, key), value)| (*table, key.as_slice(), value.as_deref()));
    batch::encode_batch_into(payload, rows)
}
