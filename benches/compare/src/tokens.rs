//! The tokens that every contender stores, and the row that a key-value engine keeps of each.

use crate::work::{Op, State, Work};
use anyhow::Result;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

pub const SUBJECT: &str = "user-4711";
pub const PURPOSE: &str = "pay";
pub const KEY_LEN: usize = 32;
/// Key and row together are 120 bytes.
pub const ROW_LEN: usize = 88;
pub type Row = [u8; ROW_LEN];

const CONSUMED_AT: usize = 8;
const BINDING: usize = 16;

/// Distinct keys as a keyed hash would give, and the order in which they are consumed.
pub struct Tokens {
    keys: Vec<[u8; KEY_LEN]>,
    order: Vec<u32>,
    work: Work,
    /// In seconds: far longer than any run for tokens that are stored before the clock starts.
    life: u64,
    /// When the life of a token that was begun is over, in Unix seconds; zero before.
    ends: Vec<AtomicU64>,
}

impl Tokens {
    /// `life` in seconds is for the tokens of [`Work::Lifecycle`].
    pub fn new(count: usize, work: Work, life: u64) -> Self {
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
        let life = if work == Work::Consume { 24 * 60 * 60 } else { life };
        let ends = std::iter::repeat_with(AtomicU64::default).take(count).collect();
        Self { keys, order, work, life, ends }
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn work(&self) -> Work {
        self.work
    }

    pub fn key(&self, token: u32) -> &[u8; KEY_LEN] {
        &self.keys[token as usize]
    }

    pub fn keys(&self) -> &[[u8; KEY_LEN]] {
        &self.keys
    }

    /// The keys of the tokens to store before the clock starts, and when these end.
    pub fn preloaded(&self) -> (&[[u8; KEY_LEN]], u64) {
        let keys = if self.work == Work::Consume { &self.keys[..] } else { &[] };
        (keys, now() + self.life)
    }

    /// What a contender without a single change has of each token.
    pub fn untouched(&self) -> State {
        if self.work == Work::Consume { State::Fresh } else { State::Absent }
    }

    /// The token to be consumed as the `turn`-th.
    pub fn in_turn(&self, turn: usize) -> Option<u32> {
        self.order.get(turn).copied()
    }

    /// Begins the life of a token and answers when it is over.
    pub fn begin(&self, token: u32) -> u64 {
        let ends = now() + self.life;
        self.ends[token as usize].store(ends, Ordering::Relaxed);
        ends
    }

    /// Whether the life of a token that was begun is over at `time`.
    pub fn is_over(&self, token: u32, time: u64) -> bool {
        let ends = self.ends[token as usize].load(Ordering::Relaxed);
        ends != 0 && ends <= time
    }

    /// The number of the token with `key`.
    pub fn number(key: &[u8]) -> Option<usize> {
        let word = key.get(24..KEY_LEN)?.try_into().ok()?;
        usize::try_from(u64::from_be_bytes(word)).ok()
    }

    /// The states of all tokens when no row is found. The rows that are found are entered.
    pub fn no_rows(&self) -> Vec<State> {
        vec![State::Absent; self.len()]
    }
}

/// The row of a token that no one has consumed.
pub fn row(ends: u64) -> Row {
    let mut row = [0; ROW_LEN];
    row[..8].copy_from_slice(&ends.to_le_bytes());
    row[BINDING..].copy_from_slice(&binding());
    row
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

fn is_consumed(row: &[u8]) -> bool {
    row.len() == ROW_LEN && word(row, CONSUMED_AT) != 0
}

/// Enters what a stored row says of its token.
pub fn note_row(states: &mut [State], key: &[u8], row: &[u8]) {
    if let Some(state) = Tokens::number(key).and_then(|number| states.get_mut(number)) {
        *state = State::stored(is_consumed(row));
    }
}

/// What an operation does to the row of its token.
pub enum Change {
    Put(Row),
    Remove,
}

/// The decision every key-value engine makes: the change, or `None` when the operation is refused.
/// `consumed` reads the row and answers it as [`consume_row`] would have it; only a consume reads.
pub fn decide(op: Op, consumed: impl FnOnce() -> Result<Option<Row>>) -> Result<Option<Change>> {
    Ok(match op {
        Op::Insert { ends } => Some(Change::Put(row(ends))),
        Op::Consume => consumed()?.map(Change::Put),
        Op::Remove => Some(Change::Remove),
    })
}

/// The row to store, when the token may be consumed.
pub fn consume_row(row: &[u8]) -> Option<Row> {
    let mut row: Row = row.try_into().ok()?;
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
