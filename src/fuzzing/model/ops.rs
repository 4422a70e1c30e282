//! What a test may do to a room. Small numbers stand for keys, bindings and states, so that
//! operations meet.

use super::super::input::Input;
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
    /// Hands in a token that ends so many seconds after the room's time.
    Insert {
        /// Which lookup key.
        key: u8,
        /// Which subject, purpose and resource.
        binding: u8,
        /// From the room's time on; 0 has ended already.
        ttl_seconds: u8,
    },
    /// Consumes.
    Consume {
        /// Which lookup keys; one is the plain consume.
        candidates: Vec<u8>,
        /// Which subject, purpose and resource.
        binding: u8,
        /// How far the caller's clock is from the room's.
        skew_seconds: i8,
        /// Which replay grace.
        grace: u8,
    },
    /// Stores a result.
    SetResult {
        /// Which lookup keys; one is the plain form.
        candidates: Vec<u8>,
        /// Which result.
        result: u8,
    },
    /// Leaves a state.
    Set {
        /// Which id.
        id: u8,
        /// Which content.
        body: u8,
        /// How long.
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
    /// Well.
    Commit,
    /// With an error of the caller's own.
    Err,
    /// With a panic.
    Panic,
}

/// How a room is left and opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reopening {
    /// Closed by hand, twice.
    Close,
    /// The last handle is dropped.
    Drop,
    /// The process is killed. In a file, like `Drop`.
    Kill,
    /// The power fails; the seed chooses what the disk keeps of what was not flushed. In a file,
    /// like `Drop`.
    PowerCut(u8),
}

/// A step of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelOp {
    /// One operation, whose answer is awaited later.
    Store(StoreOp),
    /// Several, together or not at all.
    Together(Vec<StoreOp>, Ending),
    /// Awaits all answers that are still to come.
    Settle,
    /// Drops the next answer unseen: its change stays.
    Forget(StoreOp),
    /// Moves the clock.
    Advance(u16),
    /// Moves the log into the B-tree.
    Checkpoint,
    /// Removes what has ended. Callers' clocks are no longer behind the room's from then on.
    Sweep,
    /// Compares everything that is stored; pages hold so many rows.
    Compare(u8),
    /// Leaves the room and opens it again.
    Reopen(Reopening),
}

/// The tape that `data` is, and whether the room has background threads.
#[must_use]
pub fn decode(data: &[u8]) -> (Vec<ModelOp>, bool) {
    let mut input = Input::new(data);
    // Threads make a run depend on timing, which a fuzzer cannot use; a few runs have them all the
    // same.
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

fn store_op(input: &mut Input<'_>) -> StoreOp {
    let candidates = |input: &mut Input<'_>| -> Vec<u8> {
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

/// A string that a key may be: of the common kind, of a kind that could be confused with another,
/// or (rarely) at and over the limit.
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

/// The content of a state: of a size that fills segments now and then, over the limit, or too deep.
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

/// Whether [`body`] nests this one deeper than a state may be.
pub(super) fn is_too_deep(number: u8) -> bool {
    number % 8 == 6 && number > 200
}
