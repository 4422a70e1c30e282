//! The conformance suites refuse drivers that are wrong in one point: each rule is seen to break.

use cloakroom::cache::{Bytes, Cache, CacheStore, Ttl};
use cloakroom::conformance::CacheSample;
use cloakroom::dedupe::{Dedupe, DedupeStore, Job, JobGuard, JobId, Registration};
use cloakroom::form_token::{
    FormTokenRecord, FormTokenStore, FormTokens, LookupKey, TokenConsumeOutcome, TokenSubject,
};
use cloakroom::handoff::{Claim, ClaimId, Handoff, HandoffStateStore, JsonObject, RawClaim};
use cloakroom::state::{SlotExpectation, StateError, StateStore};
use cloakroom::{Cloakroom, ManualClock, Pending, conformance};
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// What a suite says of a driver that is wrong.
fn refusal(suite: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(suite)).expect_err("a wrong driver passed the suite");
    *panic.downcast::<String>().expect("a suite panics with a text")
}

fn room() -> (Cloakroom, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(0));
    let room = Cloakroom::builder().clock(clock.clone()).open_in_memory().unwrap();
    (room, clock)
}

type ConsumeAnswer = (TokenConsumeOutcome, Option<String>);

/// What is wrong in the peek of a driver of form tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
enum WrongPeek {
    Consumes,
    ForgetsTheResult,
    IgnoresTheBinding,
    IgnoresTheTime,
}

struct WrongTokens(FormTokens, WrongPeek);

impl FormTokenStore for WrongTokens {
    fn insert_form_token(&self, record: FormTokenRecord) -> Pending<()> {
        self.0.insert_form_token(record)
    }

    fn consume_form_token(
        &self,
        lookup_key: &LookupKey,
        subject: &TokenSubject,
        purpose: &str,
        bound_resource: Option<&str>,
        now: u64,
    ) -> Pending<ConsumeAnswer> {
        self.0.consume_form_token(lookup_key, subject, purpose, bound_resource, now)
    }

    fn peek_form_token(
        &self,
        lookup_key: &LookupKey,
        subject: &TokenSubject,
        purpose: &str,
        bound_resource: Option<&str>,
        now: u64,
    ) -> Pending<ConsumeAnswer> {
        let peek = |bound_resource, now| {
            self.0.peek_form_token(lookup_key, subject, purpose, bound_resource, now)
        };
        match self.1 {
            WrongPeek::Consumes => {
                self.0.consume_form_token(lookup_key, subject, purpose, bound_resource, now)
            }
            WrongPeek::ForgetsTheResult => {
                peek(bound_resource, now).map(|(outcome, _)| (outcome, None))
            }
            WrongPeek::IgnoresTheBinding => peek(Some("order-17"), now),
            WrongPeek::IgnoresTheTime => peek(bound_resource, 1_700_000_000),
        }
    }

    fn consume_form_token_any(
        &self,
        candidates: &[LookupKey],
        subject: &TokenSubject,
        purpose: &str,
        bound_resource: Option<&str>,
        now: u64,
    ) -> Pending<ConsumeAnswer> {
        self.0.consume_form_token_any(candidates, subject, purpose, bound_resource, now)
    }

    fn set_token_result(&self, lookup_key: &LookupKey, result_ref: &str) -> Pending<()> {
        self.0.set_token_result(lookup_key, result_ref)
    }

    fn set_token_result_any(&self, candidates: &[LookupKey], result_ref: &str) -> Pending<()> {
        self.0.set_token_result_any(candidates, result_ref)
    }
}

#[test]
fn wrong_form_tokens_are_refused() {
    for (fault, rule) in [
        (WrongPeek::Consumes, "changes nothing"),
        (WrongPeek::ForgetsTheResult, "Replay with its result"),
        (WrongPeek::IgnoresTheBinding, "a peek of another binding"),
        (WrongPeek::IgnoresTheTime, "a peek takes the caller's time"),
    ] {
        let refusal = refusal(|| {
            conformance::form_token(|| {
                let (room, clock) = room();
                (WrongTokens(room.form_tokens(), fault), clock)
            });
        });
        assert!(refusal.contains(rule), "{fault:?}: {refusal}");
    }
}

/// What is wrong in a driver of claim checks.
#[derive(Debug, Clone, Copy, PartialEq)]
enum WrongHandoff {
    SetForInSeconds,
    ExtendAddsToTheLease,
    ExtendOfAnotherClaim,
    ExtendTakesZero,
    RawIsNotChecked,
    RawIsNotAnObject,
    RawClaimIsNoClaim,
}

struct WrongStates(Handoff, WrongHandoff);

impl HandoffStateStore for WrongStates {
    fn set(&self, state_id: &str, state: &JsonObject, ttl_seconds: u64) -> Pending<()> {
        self.0.set(state_id, state, ttl_seconds)
    }

    fn set_for(&self, state_id: &str, state: &JsonObject, ttl: Duration) -> Pending<()> {
        match self.1 {
            WrongHandoff::SetForInSeconds => self.0.set(state_id, state, ttl.as_secs()),
            _ => self.0.set_for(state_id, state, ttl),
        }
    }

    fn set_raw(&self, state_id: &str, json: &str, ttl: Duration) -> Pending<()> {
        match self.1 {
            WrongHandoff::RawIsNotChecked => {
                self.0.set_raw(state_id, &json!({ "raw": json }).to_string(), ttl)
            }
            WrongHandoff::RawIsNotAnObject if !json.starts_with('{') => {
                self.0.set_raw(state_id, "{}", ttl)
            }
            _ => self.0.set_raw(state_id, json, ttl),
        }
    }

    fn claim_raw(&self, state_id: &str, lease: Duration) -> Pending<Option<RawClaim>> {
        match self.1 {
            WrongHandoff::RawClaimIsNoClaim => {
                let id = ClaimId::new(7, state_id);
                let claim = |state| RawClaim::new(state, id);
                self.0.get_raw(state_id).map(|state| state.map(claim))
            }
            _ => self.0.claim_raw(state_id, lease),
        }
    }

    fn get(&self, state_id: &str) -> Pending<Option<JsonObject>> {
        self.0.get(state_id)
    }

    fn get_and_delete(&self, state_id: &str) -> Pending<Option<JsonObject>> {
        self.0.get_and_delete(state_id)
    }

    fn delete(&self, state_id: &str) -> Pending<()> {
        self.0.delete(state_id)
    }

    fn claim(&self, state_id: &str, lease: Duration) -> Pending<Option<Claim>> {
        self.0.claim(state_id, lease)
    }

    fn ack(&self, claim: &ClaimId) -> Pending<bool> {
        self.0.ack(claim)
    }

    fn release(&self, claim: &ClaimId) -> Pending<bool> {
        self.0.release(claim)
    }

    fn extend(&self, claim: &ClaimId, lease: Duration) -> Pending<bool> {
        match self.1 {
            WrongHandoff::ExtendAddsToTheLease => {
                self.0.extend(claim, lease + Duration::from_secs(60))
            }
            WrongHandoff::ExtendOfAnotherClaim => {
                let listed = self.0.list(None, 1_000).wait().unwrap().items;
                let is_claimed = listed.iter().any(|entry| {
                    entry.state_id == claim.state_id() && entry.claimed_until_ms.is_some()
                });
                let extended = self.0.extend(claim, lease).wait();
                Pending::ready(extended.map(|extended| extended || is_claimed))
            }
            WrongHandoff::ExtendTakesZero => {
                self.0.extend(claim, lease.max(Duration::from_millis(1)))
            }
            _ => self.0.extend(claim, lease),
        }
    }
}

#[test]
fn wrong_claim_checks_are_refused() {
    for (fault, rule) in [
        (WrongHandoff::SetForInSeconds, "set_for ends to the millisecond"),
        (WrongHandoff::ExtendAddsToTheLease, "extend gives a claim a new lease from now on"),
        (WrongHandoff::ExtendOfAnotherClaim, "extend is false when the claim does not hold"),
        (WrongHandoff::ExtendTakesZero, "an extension of zero is InvalidConfig"),
        (WrongHandoff::RawIsNotChecked, "raw JSON that is not one object is Encode"),
        (WrongHandoff::RawIsNotAnObject, "raw JSON that is not one object is Encode"),
        (WrongHandoff::RawClaimIsNoClaim, "a raw claim is a claim"),
    ] {
        let refusal = refusal(|| {
            conformance::handoff(|| {
                let (room, clock) = room();
                (WrongStates(room.handoff(), fault), clock)
            });
        });
        assert!(refusal.contains(rule), "{fault:?}: {refusal}");
    }
}

/// A driver that says nothing of raw JSON has what the trait provides.
#[test]
fn the_provided_raw_methods_pass_the_suite() {
    struct Plain(Handoff);

    impl HandoffStateStore for Plain {
        fn set(&self, state_id: &str, state: &JsonObject, ttl_seconds: u64) -> Pending<()> {
            self.0.set(state_id, state, ttl_seconds)
        }

        fn set_for(&self, state_id: &str, state: &JsonObject, ttl: Duration) -> Pending<()> {
            self.0.set_for(state_id, state, ttl)
        }

        fn get(&self, state_id: &str) -> Pending<Option<JsonObject>> {
            self.0.get(state_id)
        }

        fn get_and_delete(&self, state_id: &str) -> Pending<Option<JsonObject>> {
            self.0.get_and_delete(state_id)
        }

        fn delete(&self, state_id: &str) -> Pending<()> {
            self.0.delete(state_id)
        }

        fn claim(&self, state_id: &str, lease: Duration) -> Pending<Option<Claim>> {
            self.0.claim(state_id, lease)
        }

        fn ack(&self, claim: &ClaimId) -> Pending<bool> {
            self.0.ack(claim)
        }

        fn release(&self, claim: &ClaimId) -> Pending<bool> {
            self.0.release(claim)
        }

        fn extend(&self, claim: &ClaimId, lease: Duration) -> Pending<bool> {
            self.0.extend(claim, lease)
        }
    }

    conformance::handoff(|| {
        let (room, clock) = room();
        (Arc::new(Plain(room.handoff())) as Arc<dyn HandoffStateStore>, clock)
    });
}

/// What is wrong in a driver of caches.
#[derive(Debug, Clone, Copy, PartialEq)]
enum WrongSet {
    WritesNull,
    InSeconds,
    ZeroIsForEver,
    TakesTheTags,
}

struct WrongCache(Cache<CacheSample>, WrongSet);

impl WrongCache {
    /// What `serde_json` by itself makes of a value.
    fn as_json(value: &CacheSample) -> CacheSample {
        serde_json::to_value(value).map_or(CacheSample::Unencodable, CacheSample::Json)
    }
}

impl CacheStore<CacheSample> for WrongCache {
    fn get(&self, hash: &str) -> Pending<Option<CacheSample>> {
        self.0.get(hash)
    }

    fn set(&self, hash: &str, value: &CacheSample, ttl_seconds: i64) -> Pending<()> {
        match self.1 {
            WrongSet::WritesNull => self.0.set(hash, &Self::as_json(value), ttl_seconds),
            _ => self.0.set(hash, value, ttl_seconds),
        }
    }

    fn set_for(&self, hash: &str, value: &CacheSample, ttl: Ttl) -> Pending<()> {
        match (self.1, ttl) {
            (WrongSet::InSeconds, Ttl::For(ttl)) if !ttl.is_zero() => {
                self.0.set_for(hash, value, Ttl::For(Duration::from_secs(ttl.as_secs() + 1)))
            }
            (WrongSet::ZeroIsForEver, Ttl::For(Duration::ZERO)) => self.0.set(hash, value, 0),
            (WrongSet::TakesTheTags, _) => self.0.set_for_with_tags(hash, value, ttl, &[]),
            _ => self.0.set_for(hash, value, ttl),
        }
    }

    fn delete(&self, hash: &str) -> Pending<()> {
        self.0.delete(hash)
    }

    fn clear(&self, scope: Option<&str>) -> Pending<()> {
        self.0.clear(scope)
    }

    fn set_with_tags(
        &self,
        hash: &str,
        value: &CacheSample,
        ttl_seconds: i64,
        tags: &[&str],
    ) -> Pending<()> {
        self.0.set_with_tags(hash, value, ttl_seconds, tags)
    }

    fn invalidate_by_tag(&self, tag: &str) -> Pending<u64> {
        self.0.invalidate_by_tag(tag)
    }

    fn invalidate_by_tags(&self, tags: &[&str]) -> Pending<u64> {
        self.0.invalidate_by_tags(tags)
    }
}

#[test]
fn wrong_caches_are_refused() {
    for (fault, rule) in [
        (WrongSet::WritesNull, "read back as another one is Encode"),
        (WrongSet::InSeconds, "set_for ends to the millisecond"),
        (WrongSet::ZeroIsForEver, "set_for ends to the millisecond, never, or at once"),
        (WrongSet::TakesTheTags, "set_for leaves the tags"),
    ] {
        let refusal = refusal(|| {
            conformance::cache(|| {
                let (room, clock) = room();
                (WrongCache(room.cache("http"), fault), clock)
            });
        });
        assert!(refusal.contains(rule), "{fault:?}: {refusal}");
    }
}

/// A cache that keeps bytes as JSON lists.
struct BytesAsJson(Cache<Vec<u8>>);

impl CacheStore<Bytes> for BytesAsJson {
    fn get(&self, hash: &str) -> Pending<Option<Bytes>> {
        self.0.get(hash).map(|value| value.map(Bytes::from))
    }

    fn set(&self, hash: &str, value: &Bytes, ttl_seconds: i64) -> Pending<()> {
        self.0.set(hash, &value.to_vec(), ttl_seconds)
    }

    fn set_for(&self, hash: &str, value: &Bytes, ttl: Ttl) -> Pending<()> {
        self.0.set_for(hash, &value.to_vec(), ttl)
    }

    fn delete(&self, hash: &str) -> Pending<()> {
        self.0.delete(hash)
    }

    fn clear(&self, scope: Option<&str>) -> Pending<()> {
        self.0.clear(scope)
    }

    fn set_with_tags(
        &self,
        hash: &str,
        value: &Bytes,
        ttl_seconds: i64,
        tags: &[&str],
    ) -> Pending<()> {
        self.0.set_with_tags(hash, &value.to_vec(), ttl_seconds, tags)
    }

    fn invalidate_by_tag(&self, tag: &str) -> Pending<u64> {
        self.0.invalidate_by_tag(tag)
    }

    fn invalidate_by_tags(&self, tags: &[&str]) -> Pending<u64> {
        self.0.invalidate_by_tags(tags)
    }
}

#[test]
fn a_cache_that_keeps_bytes_as_json_is_refused() {
    let refusal = refusal(|| {
        conformance::cache_bytes(|| {
            let (room, clock) = room();
            (BytesAsJson(room.cache("http")), clock)
        });
    });
    assert!(refusal.contains("bytes of exactly the maximum are stored"), "{refusal}");
    assert!(!refusal.contains("any bytes come back equal"), "{refusal}");
}

/// What is wrong in the `own_or_join` of a driver.
#[derive(Debug, Clone, Copy, PartialEq)]
enum WrongGuard {
    /// A guard that is dropped leaves its job pending.
    IsForgotten,
    /// A guard ends whatever job is there.
    EndsAnyJob,
    /// The guard is made when the answer is taken.
    IsMadeLate,
    /// A joiner gets what is there at once.
    DoesNotWait,
    /// Every caller is an owner.
    IsGivenToAll,
}

#[derive(Clone)]
struct WrongJobs(Dedupe<Value>, WrongGuard);

impl WrongJobs {
    fn guard(&self, hash: &str, job_id: JobId) -> JobGuard<Value> {
        let (store, fault, hash) = (self.0.clone(), self.1, Arc::<str>::from(hash));
        let (failing, of_failing) = (store.clone(), Arc::clone(&hash));
        JobGuard::new(
            job_id,
            move |value| match fault {
                WrongGuard::EndsAnyJob => store.complete(&hash, value).map(|()| true),
                _ => store.complete_owned(&hash, &job_id, value),
            },
            move |error| match fault {
                WrongGuard::IsForgotten => Pending::ready(Ok(true)),
                WrongGuard::EndsAnyJob => failing.fail(&of_failing, error).map(|()| true),
                _ => failing.fail_owned(&of_failing, &job_id, error),
            },
        )
    }
}

impl DedupeStore<Value> for WrongJobs {
    fn register(&self, hash: &str) -> Pending<JobId> {
        self.0.register(hash)
    }

    fn register_or_join(&self, hash: &str) -> Pending<Registration> {
        self.0.register_or_join(hash)
    }

    fn own_or_join(&self, hash: &str) -> Pending<Job<Value>> {
        let Registration { job_id, is_owner } = self.0.register_or_join(hash).wait().unwrap();
        if !is_owner && self.1 != WrongGuard::IsGivenToAll {
            return Pending::ready(Ok(Job::Joiner(match self.1 {
                WrongGuard::DoesNotWait => Pending::ready(Ok(None)),
                _ => self.0.wait_for(hash),
            })));
        }
        if self.1 == WrongGuard::IsMadeLate {
            let (store, hash) = (self.clone(), hash.to_owned());
            let (answer, pending) = Pending::<()>::channel();
            answer.send(Ok(()));
            return pending.map(move |()| Job::Owner(store.guard(&hash, job_id)));
        }
        Pending::ready(Ok(Job::Owner(self.guard(hash, job_id))))
    }

    fn wait_for(&self, hash: &str) -> Pending<Option<Value>> {
        self.0.wait_for(hash)
    }

    fn complete(&self, hash: &str, value: &Value) -> Pending<()> {
        self.0.complete(hash, value)
    }

    fn fail(&self, hash: &str, error: &str) -> Pending<()> {
        self.0.fail(hash, error)
    }

    fn is_in_progress(&self, hash: &str) -> Pending<bool> {
        self.0.is_in_progress(hash)
    }

    fn clear(&self, scope: Option<&str>) -> Pending<()> {
        self.0.clear(scope)
    }

    fn complete_owned(&self, hash: &str, job_id: &JobId, value: &Value) -> Pending<bool> {
        self.0.complete_owned(hash, job_id, value)
    }

    fn fail_owned(&self, hash: &str, job_id: &JobId, error: &str) -> Pending<bool> {
        self.0.fail_owned(hash, job_id, error)
    }
}

#[test]
fn wrong_guards_are_refused() {
    for (fault, rule) in [
        (WrongGuard::EndsAnyJob, "a guard never ends the job of another owner"),
        (WrongGuard::DoesNotWait, "joiners get the value"),
        (WrongGuard::IsGivenToAll, "an owner ends its job through its guard"),
    ] {
        let refusal = refusal(|| {
            conformance::dedupe(|| {
                let (room, clock) = room();
                (WrongJobs(room.dedupe("http"), fault), clock)
            });
        });
        assert!(refusal.contains(rule), "{fault:?}: {refusal}");
    }
    // These two leave a job pending for ever; what the suite waits for is ended by the clock.
    for fault in [WrongGuard::IsForgotten, WrongGuard::IsMadeLate] {
        let (room, _) = room();
        let jobs = room.dedupe("http");
        let wrong = WrongJobs(jobs.clone(), fault);
        drop(wrong.own_or_join("h"));
        assert!(jobs.is_in_progress("h").wait().unwrap(), "{fault:?} is not wrong");
    }
}

#[test]
fn wrong_fences_are_refused() {
    let refusal_of = |fence: fn(
        &cloakroom::state::State,
        &SlotExpectation,
        conformance::FenceEffect<'_>,
    ) -> Pending<(), StateError>| {
        refusal(|| conformance::state_fence(|| room().0.state(), fence))
    };
    let unchecked = refusal_of(|_, _, effect| Pending::ready(effect()));
    assert!(unchecked.contains("the effect does not run otherwise"), "{unchecked}");
    // It looks first, and then runs the effect while others go on.
    let unlocked = refusal_of(|store, expectation, effect| {
        let found = store.load(&expectation.identity, &expectation.kind).wait();
        let current = match found {
            Ok(record) => Some(record.id),
            Err(StateError::NotFound) => None,
            Err(error) => return Pending::ready(Err(error)),
        };
        if current != expectation.expected {
            return Pending::ready(Err(StateError::ConditionFailed));
        }
        Pending::ready(effect())
    });
    assert!(unlocked.contains("no other thread changes the slot"), "{unlocked}");
    assert!(!unlocked.contains("the effect does not run otherwise"), "{unlocked}");
    let swallowed = refusal_of(|store, expectation, effect| {
        store.fence_if(expectation, effect).then(|answer| match answer {
            Err(StateError::IdempotencyConflict) => Ok(()),
            answer => answer,
        })
    });
    assert!(swallowed.contains("the answer is the error of the effect"), "{swallowed}");
}
