//! What the integration tests share: the smallest things to put into a room, and ways to look at
//! it.
#![allow(dead_code, reason = "every test crate uses a part of it")]

use cloakroom::form_token::{
    FormTokenRecord, FormTokenStore, LookupKey, TokenConsumeOutcome, TokenSubject,
};
use cloakroom::handoff::JsonObject;
use cloakroom::limits::LONGEST_KEYS_LOG_CAPACITY;
use cloakroom::{Builder, Cloakroom, ManualClock, Pending};
use serde_json::Value;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

/// The time of every room here: long before the tokens of [`token`] end.
pub const NOW_MS: u64 = 1_000_000;

/// How often a loop that waits for a background thread looks again. Far more than it ever needs.
pub const MANY_LOOKS: usize = 200_000;

/// Options of a room with the smallest log, at a time of its own.
pub fn small() -> Builder {
    Cloakroom::builder()
        .log_capacity(LONGEST_KEYS_LOG_CAPACITY)
        .clock(Arc::new(ManualClock::new(NOW_MS)))
}

/// A token that anybody may consume.
pub fn token(key: &str) -> FormTokenRecord {
    FormTokenRecord {
        lookup_key: LookupKey::new(key),
        key_version: "1".into(),
        subject: TokenSubject::Anonymous,
        purpose: "pay".into(),
        bound_resource: None,
        issued_at: 0,
        expires_at: 1_000_000,
    }
}

/// Hands a token of [`token`] in.
pub fn insert(store: &impl FormTokenStore, key: &str) -> Pending<()> {
    store.insert_form_token(token(key))
}

/// Consumes a token of [`token`].
pub fn consume(
    store: &impl FormTokenStore,
    key: &str,
) -> Pending<(TokenConsumeOutcome, Option<String>)> {
    store.consume_form_token(&LookupKey::new(key), &TokenSubject::Anonymous, "pay", None, 1_000)
}

/// A small state that is told from others by its number.
pub fn state(number: u64) -> JsonObject {
    JsonObject::from_iter([("number".to_owned(), Value::from(number))])
}

/// A state whose JSON has exactly this many bytes.
pub fn state_of(bytes: usize) -> JsonObject {
    let frame = r#"{"d":""}"#.len();
    JsonObject::from_iter([("d".to_owned(), Value::from("x".repeat(bytes - frame)))])
}

/// The names in a directory, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Looks again and again, giving others the processor in between, until `done` holds.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..MANY_LOOKS {
        if done() {
            return;
        }
        thread::yield_now();
        thread::park_timeout(std::time::Duration::from_micros(50));
    }
    panic!("it never happened: {what}");
}

struct Unparker(Thread);

impl Wake for Unparker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest executor: polls on this thread, and parks it until it is woken.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unparker(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Counts how often it was woken.
#[derive(Default)]
pub struct Wakes(AtomicUsize);

impl Wakes {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
