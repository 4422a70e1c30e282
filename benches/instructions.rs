//! A fixed number of operations of one kind on a room in memory, to count the instructions that one
//! takes: `.ci/instructions` runs this under callgrind, twice with different numbers, and compares
//! the difference with `benches/instructions.txt`.
//!
//! `instructions KIND OPERATIONS` prepares the same room whatever the number of operations is. One
//! thread calls, with 64 calls in flight, and the checkpoint of the room's end counts too. Without
//! arguments every kind is run once, small.

#![allow(missing_docs, clippy::unwrap_used)]

use cloakroom::form_token::{FormTokenRecord, FormTokens};
use cloakroom::prelude::*;
use cloakroom::rate_limit::RateLimitConfig;
use cloakroom::state::{Identity, StateRecord};
use cloakroom::{Error, ManualClock};
use std::sync::Arc;
use std::time::Duration;

/// How many tokens there are before the first is consumed, and the most operations.
const ROWS: u64 = 8_000;

/// Calls in flight.
const IN_FLIGHT: u64 = 64;

/// The time of the room's clock and of the callers, in Unix seconds.
const NOW: u64 = 1_700_000_000;

const KINDS: [&str; 5] = ["insert", "consume", "cache_hit", "acquire", "load"];

/// The lookup key of a token: 64 digits of hex that are nowhere near those of its neighbours.
fn lookup_key(number: u64) -> LookupKey {
    let part = |salt: u64| (number ^ salt << 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    LookupKey::new(format!("{:016x}{:016x}{:016x}{number:016x}", part(1), part(2), part(3)))
}

/// Issues `count` calls, and waits for each group of them.
fn pipelined<T, E: std::fmt::Debug>(count: u64, mut call: impl FnMut(u64) -> Pending<T, E>) {
    let mut group = Vec::with_capacity(IN_FLIGHT as usize);
    for number in 0..count {
        group.push(call(number));
        if group.len() as u64 == IN_FLIGHT || number + 1 == count {
            group.drain(..).for_each(|pending| drop(pending.wait().unwrap()));
        }
    }
}

struct Prepared {
    room: Cloakroom,
    subject: TokenSubject,
    keys: Vec<LookupKey>,
}

impl Prepared {
    fn new() -> Result<Self, Error> {
        let clock = Arc::new(ManualClock::new(NOW * 1_000));
        let room = Cloakroom::builder()
            .clock(clock)
            .sweep_interval(None)
            .log_capacity(64 << 20)
            .open_in_memory()?;
        let subject = TokenSubject::Authenticated("ada".into());
        Ok(Self { room, subject, keys: (0..ROWS).map(lookup_key).collect() })
    }

    fn insert(&self, tokens: &FormTokens, number: u64) -> Pending<()> {
        let (key, subject) = (self.keys[number as usize].clone(), self.subject.clone());
        tokens.insert_form_token(FormTokenRecord::new(key, subject, "pay", NOW + 600))
    }

    fn insert_then_consume(&self, kind: &str, count: u64) {
        let tokens = self.room.form_tokens();
        if kind == "insert" {
            return pipelined(count, |number| self.insert(&tokens, number));
        }
        pipelined(ROWS, |number| self.insert(&tokens, number));
        self.room.checkpoint().unwrap();
        pipelined(count, |number| {
            let key = &self.keys[number as usize];
            tokens.consume_form_token(key, &self.subject, "pay", None, NOW)
        });
    }

    fn cache_hit(&self, count: u64) {
        let cache = self.room.cache::<String>("http");
        let urls: Vec<_> = (0..1_000).map(|number| format!("https://host/{number}")).collect();
        let value = "x".repeat(200);
        for url in &urls {
            cache.set(url, &value, 3_600).wait().unwrap();
        }
        pipelined(count, |number| cache.get(&urls[number as usize % urls.len()]));
    }

    fn acquire(&self, count: u64) {
        let config = RateLimitConfig { limit: 1_000_000, window: Duration::from_secs(60) };
        // As the others: a write that no flush follows is shared with a thread, now more and now
        // less.
        let limiter = self.room.rate_limit("api", config).unwrap();
        let limiter = limiter.with_durability(Durability::Sync);
        pipelined(count, |_| limiter.acquire("host"));
    }

    fn load(&self, count: u64) {
        let states = self.room.state();
        let of = |number: u64| Identity::new("tenant", "user", format!("session-{number}"), "run");
        for number in 0..1_000 {
            let record = StateRecord::new(of(number), "memory", "{}");
            states.save(record.with_id(format!("event-{number}"))).wait().unwrap();
        }
        let identities: Vec<_> = (0..1_000).map(of).collect();
        pipelined(count, |number| states.load(&identities[number as usize % 1_000], "memory"));
    }
}

fn run(kind: &str, count: u64) {
    assert!(count <= ROWS, "at most {ROWS} operations");
    let prepared = Prepared::new().unwrap();
    match kind {
        "insert" | "consume" => prepared.insert_then_consume(kind, count),
        "cache_hit" => prepared.cache_hit(count),
        "acquire" => prepared.acquire(count),
        "load" => prepared.load(count),
        other => panic!("no kind {other}; there are {KINDS:?}"),
    }
}

fn main() {
    let arguments: Vec<_> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    match arguments.as_slice() {
        [kind, count] => run(kind, count.parse().unwrap()),
        _ => KINDS.iter().for_each(|kind| run(kind, 100)),
    }
}
