//! The tokens that every contender stores, and the row that a key-value engine keeps of each.

use std::time::{SystemTime, UNIX_EPOCH};

pub const SUBJECT: &str = "user-4711";
pub const PURPOSE: &str = "pay";
pub const KEY_LEN: usize = 32;
/// Key and row together are 120 bytes.
pub const ROW_LEN: usize = 88;

const CONSUMED_AT: usize = 8;
const BINDING: usize = 16;

/// Distinct keys as a keyed hash would give, and the order in which they are consumed.
pub struct Tokens {
    keys: Vec<[u8; KEY_LEN]>,
    order: Vec<u32>,
    /// In Unix seconds; later than the end of any run.
    pub expires_at: u64,
}

impl Tokens {
    pub fn new(count: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(count as u64);
        let mut keys = Vec::with_capacity(count);
        for number in 0..count as u64 {
            let mut key = [0; KEY_LEN];
            random.fill(&mut key);
            // Distinct by construction in the last word; sorted order stays random.
            key[24..].copy_from_slice(&number.to_be_bytes());
            keys.push(key);
        }
        let mut order: Vec<u32> = (0..).take(count).collect();
        random.shuffle(&mut order);
        Self { keys, order, expires_at: now() + 24 * 60 * 60 }
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn key(&self, token: u32) -> &[u8; KEY_LEN] {
        &self.keys[token as usize]
    }

    pub fn keys(&self) -> &[[u8; KEY_LEN]] {
        &self.keys
    }

    /// The token to be consumed as the `turn`-th.
    pub fn in_turn(&self, turn: usize) -> Option<u32> {
        self.order.get(turn).copied()
    }

    /// The number of the token with `key`.
    pub fn number(key: &[u8]) -> Option<usize> {
        let word = key.get(24..KEY_LEN)?.try_into().ok()?;
        usize::try_from(u64::from_be_bytes(word)).ok()
    }

    /// The row of a token that no one has consumed.
    pub fn row(&self) -> [u8; ROW_LEN] {
        let mut row = [0; ROW_LEN];
        row[..8].copy_from_slice(&self.expires_at.to_le_bytes());
        row[BINDING..].copy_from_slice(&binding());
        row
    }
}

fn binding() -> [u8; ROW_LEN - BINDING] {
    let mut bytes = [0; ROW_LEN - BINDING];
    bytes[..SUBJECT.len()].copy_from_slice(SUBJECT.as_bytes());
    bytes[32..32 + PURPOSE.len()].copy_from_slice(PURPOSE.as_bytes());
    bytes
}

fn word(row: &[u8], at: usize) -> u64 {
    row[at..at + 8].try_into().map_or(0, u64::from_le_bytes)
}

/// Whether the token of this row has been consumed.
pub fn is_consumed(row: &[u8]) -> bool {
    row.len() == ROW_LEN && word(row, CONSUMED_AT) != 0
}

/// The decision every key-value engine makes: the row to store, when the token may be consumed.
pub fn consume_row(row: &[u8]) -> Option<[u8; ROW_LEN]> {
    let mut row: [u8; ROW_LEN] = row.try_into().ok()?;
    let now = now();
    if is_consumed(&row) || word(&row, 0) <= now || row[BINDING..] != binding() {
        return None;
    }
    row[CONSUMED_AT..BINDING].copy_from_slice(&now.to_le_bytes());
    Some(row)
}

/// Unix seconds.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
