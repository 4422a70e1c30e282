//! cloakroom with its defaults.

use crate::contest::{Contender, Session};
use crate::slow_file::SlowFile;
use crate::tokens::{PURPOSE, SUBJECT, Tokens, now};
use ::cloakroom::form_token::{
    FormTokenRecord, FormTokenStore, FormTokens, LookupKey, TokenConsumeOutcome, TokenSubject,
};
use ::cloakroom::limits::MAX_LIST_LIMIT;
use ::cloakroom::{Cloakroom, Pending};
use anyhow::{Result, ensure};
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub struct Room {
    room: Cloakroom,
    path: PathBuf,
    keys: Vec<LookupKey>,
    depth: usize,
    delay: Duration,
}

/// The room at `path`; with a delay, over a file whose flushes take that much longer.
fn open(path: &Path, delay: Duration) -> Result<Cloakroom> {
    if delay.is_zero() {
        return Ok(Cloakroom::open(path)?);
    }
    Ok(Cloakroom::builder().open_on(Arc::new(SlowFile::open(path, delay)?))?)
}

impl Room {
    /// `depth` is how many consumes each thread has in flight.
    pub fn create(dir: &Path, tokens: &Arc<Tokens>, depth: usize, delay: Duration) -> Result<Self> {
        let path = dir.join("tokens.cloak");
        let room = open(&path, delay)?;
        let keys: Vec<LookupKey> = tokens.keys().iter().map(|key| LookupKey::new(hex(key))).collect();
        let mut pending = VecDeque::new();
        for batch in keys.chunks(500) {
            pending.push_back(room.atomically(|tx| {
                batch.iter().try_for_each(|key| {
                    tx.form_tokens().insert_form_token(FormTokenRecord {
                        lookup_key: key.clone(),
                        key_version: "1".into(),
                        subject: subject(),
                        purpose: PURPOSE.into(),
                        bound_resource: None,
                        issued_at: now(),
                        expires_at: tokens.expires_at,
                    })
                })
            }));
            if pending.len() > 16 {
                pending.pop_front().map_or(Ok(()), Pending::<(), ::cloakroom::Error>::wait)?;
            }
        }
        pending.into_iter().try_for_each(Pending::wait)?;
        room.checkpoint()?;
        Ok(Self { room, path, keys, depth, delay })
    }
}

fn subject() -> TokenSubject {
    TokenSubject::Authenticated(SUBJECT.into())
}

fn hex(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Contender for Room {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Caller {
            store: self.room.form_tokens(),
            keys: &self.keys,
            subject: subject(),
            depth: self.depth,
            in_flight: VecDeque::new(),
        }))
    }

    fn finish(self: Box<Self>) -> Result<Vec<bool>> {
        self.room.close()?;
        let room = open(&self.path, self.delay)?;
        let numbers: HashMap<&str, usize> =
            self.keys.iter().enumerate().map(|(number, key)| (key.as_str(), number)).collect();
        let mut consumed = vec![false; self.keys.len()];
        let mut cursor = None;
        loop {
            let page = room.form_tokens().list(cursor.as_ref(), MAX_LIST_LIMIT).wait()?;
            for token in page.items {
                if let Some(&number) = numbers.get(token.record.lookup_key.as_str()) {
                    consumed[number] = token.consumed.is_some();
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        room.close()?;
        Ok(consumed)
    }
}

type Answer = Pending<(TokenConsumeOutcome, Option<String>)>;

struct Caller<'a> {
    store: FormTokens,
    keys: &'a [LookupKey],
    subject: TokenSubject,
    depth: usize,
    in_flight: VecDeque<(u32, Answer)>,
}

impl Caller<'_> {
    fn oldest(&mut self, done: &mut Vec<u32>) -> Result<()> {
        if let Some((token, answer)) = self.in_flight.pop_front() {
            let (outcome, _) = answer.wait()?;
            ensure!(outcome == TokenConsumeOutcome::Proceed, "token {token} was refused: {outcome:?}");
            done.push(token);
        }
        Ok(())
    }
}

impl Session for Caller<'_> {
    fn consume(&mut self, token: u32, done: &mut Vec<u32>) -> Result<()> {
        let key = &self.keys[token as usize];
        let answer = self.store.consume_form_token(key, &self.subject, PURPOSE, None, now());
        self.in_flight.push_back((token, answer));
        if self.in_flight.len() < self.depth { Ok(()) } else { self.oldest(done) }
    }

    fn drain(&mut self, done: &mut Vec<u32>) -> Result<()> {
        while !self.in_flight.is_empty() {
            self.oldest(done)?;
        }
        Ok(())
    }
}
