//! The operations of a test on a room. Small numbers stand for keys, bindings and states, so that
//! operations concern the same entries.

use super::super::input::FuzzInput;
use crate::form_token::{LookupKey, TokenSubject};
use crate::limits::MAX_KEY_LEN;
use crate::limits::MAX_STATE_DEPTH;
use crate::stores::handoff::JsonObject;
use serde_json::{Value, json};
use std::time::Duration;

/// The most bytes of JSON that a state of a [`Run`](super::Run) may have.
pub(super) const MAX_STATE_BYTES: usize = 100_000;

/// The most operations of one tape.
const OPS_MAX: usize = 64;

/// An operation of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreOp {
    /// Inserts a token that expires this many seconds after the room's time.
    Insert {
        /// Which lookup key.
        key: u8,
        /// Which subject, purpose and resource.
        binding: u8,
        /// From the room's time on. 0 has expired already.
        ttl_seconds: u8,
    },
    /// Consumes.
    Consume {
        /// Which lookup keys. One is the plain consume.
        candidates: Vec<u8>,
        /// Which subject, purpose and resource.
        binding: u8,
        /// The difference between the caller's clock and the room's.
        skew_seconds: i8,
        /// Which replay grace.
        grace: u8,
    },
    /// Stores a result.
    SetResult {
        /// Which lookup keys. One is the plain form.
        candidates: Vec<u8>,
        /// Which result.
        result: u8,
    },
    /// Stores a state.
    Set {
        /// Which id.
        id: u8,
        /// Which content.
        body: u8,
        /// Its life.
        ttl_seconds: u8,
    },
    /// Reads a state.
    Get {
        /// Which id.
        id: u8,
    },
    /// Takes a state.
    Take {
        /// Which id.
        id: u8,
    },
    /// Deletes a state.
    Delete {
        /// Which id.
        id: u8,
    },
    /// Claims a state.
    Claim {
        /// Which id.
        id: u8,
        /// For how long.
        lease_ms: u16,
    },
    /// Acknowledges one of the claims so far.
    Ack {
        /// Which of them.
        nth: u8,
    },
    /// Releases one of the claims so far.
    Release {
        /// Which of them.
        nth: u8,
    },
}

/// How a transaction of several operations ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With success.
    Commit,
    /// With an error of the caller.
    Err,
    /// With a panic.
    Panic,
}

/// How a room is closed and opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reopening {
    /// It is closed, twice.
    Close,
    /// The last handle is dropped.
    Drop,
    /// The process is killed. In a file, like `Drop`.
    Kill,
    /// The power fails. The seed chooses which unflushed writes the disk keeps. In a file, like
    /// `Drop`.
    PowerCut(u8),
}

/// A step of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelOp {
    /// One operation, whose answer is awaited later.
    Store(StoreOp),
    /// Several operations in one transaction.
    Together(Vec<StoreOp>, Ending),
    /// Awaits all outstanding answers.
    Settle,
    /// Drops the next answer without reading it. Its change stays.
    Forget(StoreOp),
    /// Advances the clock.
    Advance(u16),
    /// Makes a checkpoint.
    Checkpoint,
    /// Removes what has expired. From then on callers' clocks are not behind the room's.
    Sweep,
    /// Compares everything that is stored, in pages of this many rows.
    Compare(u8),
    /// Closes the room and opens it again.
    Reopen(Reopening),
}

/// The operations that `data` describes, and whether the room has background threads.
#[must_use]
pub fn decode(data: &[u8]) -> (Vec<ModelOp>, bool) {
    let mut input = FuzzInput::new(data);
    // Threads make a run depend on timing, which a fuzzer cannot use. A few runs have them anyway.
    let threads = input.byte() == 255;
    let mut ops = Vec::new();
    while !input.is_empty() && ops.len() < OPS_MAX {
        ops.push(match input.below(17) {
            0..8 => ModelOp::Store(store_op(&mut input)),
            8 => ModelOp::Settle,
            9 => ModelOp::Forget(store_op(&mut input)),
            10 => ModelOp::Advance(input.number::<2>() as u16),
            11 => ModelOp::Checkpoint,
            12 => ModelOp::Compare(input.byte()),
            13 => ModelOp::Reopen(match input.below(8) {
                0 => Reopening::Close,
                1 => Reopening::Drop,
                2 | 3 => Reopening::Kill,
                _ => Reopening::PowerCut(input.byte()),
            }),
            14 => ModelOp::Sweep,
            _ => {
                let ending =
                    [Ending::Commit, Ending::Commit, Ending::Err, Ending::Panic][input.below(4)];
                let ops = (0..input.below(6)).map(|_| store_op(&mut input)).collect();
                ModelOp::Together(ops, ending)
            }
        });
    }
    (ops, threads)
}

fn store_op(input: &mut FuzzInput<'_>) -> StoreOp {
    let candidates = |input: &mut FuzzInput<'_>| -> Vec<u8> {
        let count = [1, 1, 1, 2, 3, 0][input.below(6)];
        (0..count).map(|_| input.byte()).collect()
    };
    match input.below(14) {
        0 | 1 => {
            StoreOp::Insert { key: input.byte(), binding: input.byte(), ttl_seconds: input.byte() }
        }
        2..5 => StoreOp::Consume {
            candidates: candidates(input),
            binding: input.byte(),
            skew_seconds: i8::from_le_bytes([input.byte()]),
            grace: input.byte(),
        },
        5 => StoreOp::SetResult { candidates: candidates(input), result: input.byte() },
        6 | 7 => StoreOp::Set { id: input.byte(), body: input.byte(), ttl_seconds: input.byte() },
        8 => StoreOp::Get { id: input.byte() },
        9 => StoreOp::Take { id: input.byte() },
        10 => StoreOp::Delete { id: input.byte() },
        11 => StoreOp::Claim { id: input.byte(), lease_ms: input.number::<2>() as u16 },
        12 => StoreOp::Ack { nth: input.byte() },
        _ => StoreOp::Release { nth: input.byte() },
    }
}

/// A string for a key: a common one, one that could be confused with another, or (rarely) one at or
/// over the limit.
pub(super) fn key_text(number: u8) -> String {
    match number % 32 {
        0 => String::new(),
        1 => "ab".into(),
        2 => "AB".into(),
        3 => "abc".into(),
        4 => "ab00".into(),
        5 => "\u{ab}\0".into(),
        6 => "\0".into(),
        7 => "\0\0\u{ff}".into(),
        8 => "00".into(),
        9 => "ключ 🔑".into(),
        10 if number < 64 => "e".repeat(MAX_KEY_LEN),
        11 if number < 64 => "z".repeat(MAX_KEY_LEN),
        12 if number < 64 => "k".repeat(MAX_KEY_LEN + 1),
        other => format!("{:064x}", u32::from(other) * 0x0101_0101),
    }
}

pub(super) fn lookup_key(number: u8) -> LookupKey {
    LookupKey::new(key_text(number))
}

/// Subject, purpose and resource.
pub(super) fn binding(number: u8) -> (TokenSubject, String, Option<String>) {
    let subject = match number % 4 {
        0 => TokenSubject::Anonymous,
        1 => TokenSubject::Authenticated(String::new()),
        2 => TokenSubject::Flow(String::new()),
        _ if number == 255 => TokenSubject::Flow("f".repeat(MAX_KEY_LEN + 1)),
        _ => TokenSubject::Authenticated("ünser user".into()),
    };
    let resource = [None, None, Some(String::new()), Some("order/7".into())];
    (
        subject,
        ["pay", ""][usize::from(number >> 4) % 2].into(),
        resource[usize::from(number >> 2) % 4].clone(),
    )
}

pub(super) fn grace(number: u8) -> Duration {
    [Duration::from_secs(24 * 60 * 60), Duration::ZERO, Duration::from_millis(5_500), Duration::MAX]
        [usize::from(number) % 4]
}

pub(super) fn result_ref(number: u8) -> String {
    match number {
        0 => String::new(),
        255 => "r".repeat(MAX_KEY_LEN + 1),
        other => format!("receipt-{other}"),
    }
}

/// The content of a state: of a size that sometimes fills segments, over the limit, or nested too
/// deeply.
pub(super) fn body(number: u8) -> JsonObject {
    let content = match number % 8 {
        0 => Value::Null,
        1 => json!({ "nested": [1, -2.5e-7, { "ключ": "🔑\0" }, u64::MAX, i64::MIN] }),
        2 => "s".repeat(2_000).into(),
        3 => "m".repeat(20_000).into(),
        4 => "l".repeat(MAX_STATE_BYTES - 1_000).into(),
        5 if number > 200 => "x".repeat(MAX_STATE_BYTES).into(),
        6 if number > 200 => (0..MAX_STATE_DEPTH).fold(Value::Null, |inner, _| json!([inner])),
        _ => json!(["small", number]),
    };
    let mut object = JsonObject::new();
    object.insert("number".into(), number.into());
    object.insert("content".into(), content);
    object
}

/// Whether [`body`] nests this one deeper than is allowed.
pub(super) fn is_too_deep(number: u8) -> bool {
    number % 8 == 6 && number > 200
}
