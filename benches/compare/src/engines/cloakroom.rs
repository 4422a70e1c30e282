//! cloakroom with its defaults.

use crate::contest::{Contender, Session};
use crate::engines::Batch;
use crate::slow_file::SlowFile;
use crate::tokens::{PURPOSE, SUBJECT, Tokens, now};
use crate::work::{Op, Request, State};
use ::cloakroom::form_token::{
    FormTokenRecord, FormTokenStore, FormTokens, LookupKey, TokenConsumeOutcome, TokenSubject,
};
use ::cloakroom::limits::MAX_LIST_LIMIT;
use ::cloakroom::{Cloakroom, Pending};
use anyhow::{Result, bail, ensure};
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
        let keys: Vec<LookupKey> =
            tokens.keys().iter().map(|key| LookupKey::new(hex(key))).collect();
        let mut pending = VecDeque::new();
        let (preloaded, ends) = tokens.preloaded();
        for batch in keys[..preloaded.len()].chunks(500) {
            pending.push_back(room.atomically(|tx| {
                let mut store = tx.form_tokens();
                batch.iter().try_for_each(|key| store.insert_form_token(record(key, ends)))
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

fn record(key: &LookupKey, ends: u64) -> FormTokenRecord {
    FormTokenRecord {
        lookup_key: key.clone(),
        key_version: "1".into(),
        subject: subject(),
        purpose: PURPOSE.into(),
        bound_resource: None,
        issued_at: now(),
        expires_at: ends,
    }
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

    /// What has ended is removed by the room.
    fn cleaner(&self) -> Result<Option<Box<dyn Batch>>> {
        Ok(None)
    }

    fn finish(self: Box<Self>) -> Result<Vec<State>> {
        self.room.close()?;
        let room = open(&self.path, self.delay)?;
        let numbers: HashMap<&str, usize> =
            self.keys.iter().enumerate().map(|(number, key)| (key.as_str(), number)).collect();
        let mut states = vec![State::Absent; self.keys.len()];
        let mut cursor = None;
        loop {
            let page = room.form_tokens().list(cursor.as_ref(), MAX_LIST_LIMIT).wait()?;
            for token in page.items {
                if let Some(&number) = numbers.get(token.record.lookup_key.as_str()) {
                    states[number] = State::stored(token.consumed.is_some());
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        room.close()?;
        Ok(states)
    }
}

enum Answer {
    Inserted(Pending<()>),
    Consumed(Pending<(TokenConsumeOutcome, Option<String>)>),
}

struct Caller<'a> {
    store: FormTokens,
    keys: &'a [LookupKey],
    subject: TokenSubject,
    depth: usize,
    in_flight: VecDeque<(Request, Answer)>,
}

impl Caller<'_> {
    fn oldest(&mut self, done: &mut Vec<Request>) -> Result<()> {
        let Some((request, answer)) = self.in_flight.pop_front() else { return Ok(()) };
        match answer {
            Answer::Inserted(answer) => answer.wait()?,
            Answer::Consumed(answer) => {
                let (outcome, _) = answer.wait()?;
                ensure!(
                    outcome == TokenConsumeOutcome::Proceed,
                    "{request:?} was refused: {outcome:?}"
                );
            }
        }
        done.push(request);
        Ok(())
    }
}

impl Session for Caller<'_> {
    fn submit(&mut self, request: Request, done: &mut Vec<Request>) -> Result<()> {
        let key = &self.keys[request.token as usize];
        let answer = match request.op {
            Op::Insert { ends } => {
                Answer::Inserted(self.store.insert_form_token(record(key, ends)))
            }
            Op::Consume => Answer::Consumed(self.store.consume_form_token(
                key,
                &self.subject,
                PURPOSE,
                None,
                now(),
            )),
            Op::Remove => bail!("a room removes by itself"),
        };
        self.in_flight.push_back((request, answer));
        if self.in_flight.len() < self.depth { Ok(()) } else { self.oldest(done) }
    }

    fn drain(&mut self, done: &mut Vec<Request>) -> Result<()> {
        while !self.in_flight.is_empty() {
            self.oldest(done)?;
        }
        Ok(())
    }
}
