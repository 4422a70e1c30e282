//! All that a room holds, as its listings and reads tell it. Reading changes nothing.

use super::ops::{CACHES, JOBS, RESOURCES, TAGS, adaptive, caches, jobs, name, rates};
use cloakroom::adaptive_rate_limit::{self, AdaptiveRateLimitStore};
use cloakroom::cache::{self, CacheStore};
use cloakroom::dedupe::{DedupeStore, JobState};
use cloakroom::handoff::{self, HandoffStateStore, JsonObject};
use cloakroom::page::{Cursor, Page};
use cloakroom::rate_limit::{self, RateLimitConfig, RateLimitStatus, RateLimitStore};
use cloakroom::state::{EventId, ListScope, StateError, StateRecord, StateStore};
use cloakroom::{Cloakroom, Durability, Error, Pending, form_token};

/// Waits for no flush, so that looking does not make durable what is looked at.
const AT_ONCE: Durability = Durability::Os;
const LEFT_PENDING: &str = "left pending by an earlier opening of the file";

#[derive(Debug, PartialEq)]
pub struct Dump {
    tokens: Vec<form_token::Entry>,
    states: Vec<(handoff::Entry, Option<JsonObject>)>,
    /// The entries of each cache, and the values of the one without a limit: reading those of the
    /// other would change what it evicts next.
    caches: Vec<Vec<cache::Entry>>,
    cached: Vec<Option<String>>,
    jobs: Vec<Job>,
    rates: Vec<rate_limit::Entry>,
    statuses: Vec<(RateLimitStatus, RateLimitConfig, Option<u64>)>,
    adaptive: Vec<adaptive_rate_limit::Entry>,
    adaptive_stats: adaptive_rate_limit::Stats,
    shared: Vec<(RateLimitConfig, Option<u64>)>,
    records: Vec<StateRecord>,
}

#[derive(Debug, PartialEq)]
struct Job {
    hash: String,
    /// When it was registered. The rest of its id is chance.
    since_ms: u128,
    state: JobState,
    ends_at_ms: Option<u64>,
    value: Option<String>,
}

/// Every row of a listing.
fn pages<T, E>(list: impl Fn(Option<&Cursor>) -> Pending<Page<T>, E>) -> Result<Vec<T>, E> {
    let (mut items, mut cursor) = (vec![], None);
    loop {
        let page = list(cursor.as_ref()).wait()?;
        items.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return Ok(items);
        }
    }
}

fn plain(error: StateError) -> Error {
    match error {
        StateError::Store(error) => error,
        error => panic!("{error}"),
    }
}

fn records(room: &Cloakroom) -> Result<Vec<StateRecord>, Error> {
    let states = room.state().with_durability(AT_ONCE);
    states.list_kind(ListScope::maintenance(), "kind").wait().map_err(plain)
}

impl Dump {
    /// Pending jobs count as failed, as they do in the next opening.
    pub fn of(room: &Cloakroom) -> Result<Self, Error> {
        let (tokens, handoff) =
            (room.form_tokens().with_durability(AT_ONCE), room.handoff().with_durability(AT_ONCE));
        let (rates, adaptive) = (rates(room, AT_ONCE), adaptive(room, AT_ONCE));
        let states = pages(|cursor| handoff.list(cursor, 2))?.into_iter().map(|entry| {
            let value = handoff.get(&entry.state_id).wait()?;
            Ok((entry, value))
        });
        let caches = (0..CACHES.len()).map(|cache| {
            let cache = self::caches(room, cache, AT_ONCE);
            pages(|cursor| cache.list(cursor, 3))
        });
        let caches = caches.collect::<Result<Vec<_>, _>>()?;
        let free = self::caches(room, 0, AT_ONCE);
        let cached = caches[0].iter().map(|entry| free.get(&entry.hash).wait());
        let statuses = (0..RESOURCES).map(name).map(|name| {
            let cooldown = rates.cooldown(&name).wait()?;
            Ok((rates.status(&name).wait()?, rates.resource_config(&name).wait()?, cooldown))
        });
        let shared = (0..RESOURCES).map(name).map(|name| {
            Ok((adaptive.resource_config(&name).wait()?, adaptive.cooldown(&name).wait()?))
        });
        Ok(Self {
            tokens: pages(|cursor| tokens.list(cursor, 2))?,
            states: states.collect::<Result<_, Error>>()?,
            cached: cached.collect::<Result<_, Error>>()?,
            jobs: Self::jobs(room)?,
            rates: pages(|cursor| rates.list(cursor, 2))?,
            statuses: statuses.collect::<Result<_, Error>>()?,
            adaptive: pages(|cursor| adaptive.list(cursor, 2))?,
            adaptive_stats: Self::adaptive_stats(adaptive.stats().wait()?),
            shared: shared.collect::<Result<_, Error>>()?,
            records: records(room)?,
            caches,
        })
    }

    /// What a resource that counts nothing takes up depends on whether it was swept.
    fn adaptive_stats(mut stats: adaptive_rate_limit::Stats) -> adaptive_rate_limit::Stats {
        (stats.idle, stats.bytes) = (0, 0);
        stats
    }

    fn jobs(room: &Cloakroom) -> Result<Vec<Job>, Error> {
        let jobs = jobs(room, AT_ONCE);
        let listed = pages(|cursor| jobs.list(cursor, 2))?.into_iter().map(|entry| {
            let value = match entry.state {
                JobState::Completed { .. } => jobs.wait_for(&entry.hash).wait()?,
                _ => None,
            };
            let state = match entry.state {
                JobState::Pending => JobState::Failed { error: LEFT_PENDING.into() },
                state => state,
            };
            let since_ms = entry.job_id.ulid() >> 80;
            Ok(Job { hash: entry.hash, since_ms, state, ends_at_ms: entry.ends_at_ms, value })
        });
        listed.collect()
    }

    /// How many rows there are: tokens, claim checks, entries of both caches, tagged entries, jobs,
    /// resources of both limiters and states.
    pub fn filled(&self) -> [usize; 9] {
        let tagged = self.caches.iter().flatten().filter(|entry| !entry.tags.is_empty()).count();
        [
            self.tokens.len(),
            self.states.len(),
            self.caches[0].len(),
            self.caches[1].len(),
            tagged,
            self.jobs.len(),
            self.rates.len(),
            self.adaptive.len(),
            self.records.len(),
        ]
    }

    /// What differs from `other`, in words.
    pub fn difference(&self, other: &Self) -> String {
        let (ours, theirs) = (format!("{self:#?}"), format!("{other:#?}"));
        let (ours, theirs): (Vec<_>, Vec<_>) = (ours.lines().collect(), theirs.lines().collect());
        let same = ours.iter().zip(&theirs).take_while(|(one, other)| one == other).count();
        let section = ours[..same.min(ours.len())]
            .iter()
            .rev()
            .find(|line| line.starts_with("    ") && !line.starts_with("     "));
        let part = |lines: &[&str]| {
            lines
                .iter()
                .skip(same.saturating_sub(4))
                .take(12)
                .copied()
                .collect::<Vec<_>>()
                .join("\n")
        };
        format!("in {section:?}:\n{}\ninstead of\n{}", part(&ours), part(&theirs))
    }

    /// Every way to a row leads to the same rows. Empties the caches of what is tagged.
    pub fn check_ways(&self, room: &Cloakroom, events: u64) -> Result<(), String> {
        self.check_records(room, events)?;
        self.check_counts(room).map_err(|error| error.to_string())??;
        (0..CACHES.len()).try_for_each(|cache| self.check_tags(room, cache))
    }

    fn check_records(&self, room: &Cloakroom, events: u64) -> Result<(), String> {
        let states = room.state();
        for record in &self.records {
            let by_event = states.load_by_event_id(&record.id).wait();
            let by_slot = states.load(&record.identity, &record.kind).wait();
            let by_identity =
                states.list_kind_for_identity(&record.identity, &record.kind, None).wait();
            let by_kind = states.list_kind(ListScope::maintenance(), &record.kind).wait();
            let found = by_event.as_ref().ok() == Some(record)
                && by_slot.as_ref().ok() == Some(record)
                && by_identity.is_ok_and(|found| found == std::slice::from_ref(record))
                && by_kind.is_ok_and(|found| found.contains(record));
            if !found {
                return Err(format!(
                    "{record:?} is {by_event:?} by its event, {by_slot:?} in its slot"
                ));
            }
        }
        let old = (0..=events)
            .map(event_id)
            .filter(|id| states.load_by_event_id(id).wait().is_ok())
            .count();
        let listed = pages(|cursor| states.list(cursor, 2)).map_err(|error| error.to_string())?;
        let scanned = pages(|cursor| {
            states.scan_kind_for_tenant(ListScope::maintenance(), "tenant", "kind", 2, cursor)
        })
        .map_err(|error| error.to_string())?;
        if [old, listed.len(), scanned.len()] != [self.records.len(); 3] {
            return Err(format!(
                "{} states, {old} by event, {} listed, {} scanned",
                self.records.len(),
                listed.len(),
                scanned.len()
            ));
        }
        if !self.records.iter().all(|record| scanned.contains(record)) {
            return Err(format!("a scan finds {scanned:?}"));
        }
        Ok(())
    }

    fn check_counts(&self, room: &Cloakroom) -> Result<Result<(), String>, Error> {
        let tokens = room.form_tokens().stats().wait()?;
        let states = room.handoff().stats().wait()?;
        let jobs = jobs(room, AT_ONCE).stats().wait()?;
        let rates = rates(room, AT_ONCE).stats().wait()?;
        let records = room.state().stats().wait().map_err(plain)?;
        let mut counted = vec![
            (tokens.live + tokens.consumed, self.tokens.len()),
            (states.live + states.claimed, self.states.len()),
            (jobs.completed + jobs.failed, self.jobs.len()),
            (rates.live, self.rates.iter().filter(|entry| entry.requests > 0).count()),
            (records.states, self.records.len()),
        ];
        for (cache, entries) in self.caches.iter().enumerate() {
            counted.push((caches(room, cache, AT_ONCE).stats().wait()?.live, entries.len()));
        }
        if counted.iter().any(|(count, listed)| *count != *listed as u64) || jobs.pending > 0 {
            return Ok(Err(format!(
                "what is counted is not what is listed: {counted:?}, {jobs:?}"
            )));
        }
        Ok(Ok(()))
    }

    fn check_tags(&self, room: &Cloakroom, cache: usize) -> Result<(), String> {
        let (handle, mut left) = (caches(room, cache, AT_ONCE), self.caches[cache].clone());
        let failed = |error: Error| error.to_string();
        for tag in (0..TAGS).map(name) {
            let before = left.len();
            left.retain(|entry| !entry.tags.contains(&tag));
            let removed = handle.invalidate_by_tag(&tag).wait().map_err(failed)?;
            let again = handle.invalidate_by_tag(&tag).wait().map_err(failed)?;
            let listed = pages(|cursor| handle.list(cursor, 3)).map_err(failed)?;
            if removed != (before - left.len()) as u64 || again != 0 || listed != left {
                return Err(format!(
                    "tag {tag} of {} entries removed {removed}, then {again}, and left {listed:?}",
                    self.caches[cache].len()
                ));
            }
        }
        Ok(())
    }
}

/// Long after everything in `room` has ended, a sweep leaves nothing behind: no row without the one
/// that it belongs to.
pub fn check_swept(room: &Cloakroom) -> Result<(), String> {
    let failed = |error: Error| error.to_string();
    for cache in 0..CACHES.len() {
        // What never expires goes by hand.
        caches(room, cache, AT_ONCE).clear(None).wait().map_err(failed)?;
    }
    room.sweep().map_err(failed)?;
    let left = room.row_counts().map_err(failed)?;
    let stays = ["adaptive_rate_limit", "rate_limit_config", "rate_limit_store"];
    // Replaced events are remembered for a while only.
    let holds_states = |table: &str| table.starts_with("state") && table != "state_late";
    let states: Vec<_> = left.iter().filter(|(table, _)| holds_states(table)).collect();
    let is_state = |table: &str| states.iter().any(|(state, _)| *state == table);
    let orphans: Vec<_> = left
        .iter()
        .filter(|(table, rows)| *rows > 0 && !stays.contains(table) && !is_state(table))
        .collect();
    if !orphans.is_empty() || states.iter().any(|(_, rows)| *rows != states[0].1) {
        return Err(format!("after a sweep there are {orphans:?} and {states:?}"));
    }
    room.adaptive_rate_limit("adaptive", super::ops::rate(), super::ops::sharing())
        .and_then(|limiter| limiter.clear().wait())
        .map_err(failed)?;
    room.sweep().map_err(failed)?;
    match room.row_counts().map_err(failed)?.iter().find(|(table, _)| *table == stays[0]) {
        Some((_, 0)) => Ok(()),
        other => Err(format!("after a clear and a sweep there are {other:?}")),
    }
}

/// The name of the event that a history saves as its nth.
pub fn event_id(nth: u64) -> EventId {
    EventId::from(format!("event {nth}"))
}

/// Every store takes a change, and shows it.
pub fn go_on(room: &Cloakroom) -> Result<(), String> {
    use super::ops::{Op, issue, lookup_key};
    use cloakroom::adaptive_rate_limit::Priority;
    use cloakroom::form_token::{FormTokenStore, TokenConsumeOutcome, TokenSubject};
    let failed = |error: Error| error.to_string();
    let made = |op: Op| {
        issue(room, &op, Durability::Sync)()
            .map(drop)
            .map_err(|failure| format!("{op:?}: {failure:?}"))
    };
    let new = TAGS.max(JOBS) + 20;
    made(Op::Insert { key: new, serial: 0, expires_at: u64::MAX })?;
    let tokens = room.form_tokens();
    let consume = || {
        let (key, subject) = (lookup_key(new), TokenSubject::Anonymous);
        tokens.consume_form_token(&key, &subject, "pay", None, 1).wait().map_err(failed)
    };
    let consumed = [consume()?.0, consume()?.0];
    made(Op::Set { id: new, value: JsonObject::new(), ttl_seconds: 9 })?;
    let taken = room.handoff().get_and_delete(&name(new)).wait().map_err(failed)?;
    for cache in 0..CACHES.len() {
        made(Op::CacheTagged {
            cache,
            hash: new,
            value: "new".into(),
            ttl_seconds: 9,
            tags: vec![new],
        })?;
        let cache = caches(room, cache, Durability::Sync);
        if cache.get(&name(new)).wait().map_err(failed)?.as_deref() != Some("new") {
            return Err("a value that was just cached is not there".into());
        }
    }
    let jobs = jobs(room, Durability::Sync);
    // A job that an earlier opening left is taken over at once.
    for job in [0, new] {
        let job_id = jobs.register(&name(job)).wait().map_err(failed)?;
        let value = "new".to_owned();
        if !jobs.complete_owned(&name(job), &job_id, &value).wait().map_err(failed)? {
            return Err("a new job is not its owner's".into());
        }
    }
    let acquired = [
        rates(room, Durability::Sync).acquire(&name(new)).wait().map_err(failed)?,
        adaptive(room, Durability::Sync)
            .acquire(&name(new), Priority::User)
            .wait()
            .map_err(failed)?,
    ];
    let record = StateRecord::new(super::ops::identity(new, ""), "kind 9", b"new");
    let id = record.id.clone();
    made(Op::Save(record))?;
    let found = room.state().load_by_event_id(&id).wait().is_ok();
    let expected = [TokenConsumeOutcome::Proceed, TokenConsumeOutcome::Replay];
    if consumed != expected || taken.is_none() || acquired != [true; 2] || !found {
        return Err(format!("it goes on wrongly: {consumed:?}, {taken:?}, {acquired:?}, {found}"));
    }
    Ok(())
}
