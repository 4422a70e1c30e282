//! A driver that is written with nothing but the public interface passes the suite, its paging
//! included.

use cloakroom::drivers::InMemoryState;
use cloakroom::form_token::{
    FormTokenRecord, FormTokenStore, FormTokens, LookupKey, TokenConsumeOutcome, TokenSubject,
};
use cloakroom::page::{Cursor, Page};
use cloakroom::state::{
    EventId, Identity, ListScope, SlotExpectation, StateError, StateRecord, StateStore,
};
use cloakroom::{Cloakroom, ManualClock, Pending, conformance};
use std::sync::{Arc, mpsc};

/// Takes everything but the paging from another driver.
struct Outside(InMemoryState);

/// Where a page ended: what was asked, and the last slot of the page, as JSON.
fn position(tenant: &str, kind_prefix: &str, last: &StateRecord) -> Vec<u8> {
    let Identity { tenant: whose, user, session, run } = &last.identity;
    assert_eq!(whose, tenant);
    serde_json::to_vec(&[tenant, kind_prefix, user, session, run, &last.kind]).unwrap()
}

/// The slot that a page of this question goes on behind.
fn slot_behind(
    cursor: &Cursor,
    tenant: &str,
    kind_prefix: &str,
) -> Result<(Identity, String), StateError> {
    let refused = || StateError::InvalidScan("the cursor is of another listing".into());
    let position = cursor.driver_position().ok_or_else(refused)?;
    let [of_tenant, of_prefix, user, session, run, kind]: [String; 6] =
        serde_json::from_slice(position).map_err(|_| refused())?;
    if (of_tenant.as_str(), of_prefix.as_str()) != (tenant, kind_prefix) {
        return Err(refused());
    }
    Ok((Identity::new(tenant, user, session, run), kind))
}

impl Outside {
    fn page(
        &self,
        scope: ListScope,
        (tenant, kind_prefix): (&str, &str),
        limit: usize,
        cursor: Option<&Cursor>,
    ) -> Result<Page<StateRecord>, StateError> {
        // The other driver refuses what this one must refuse, but for the cursor.
        drop(self.0.scan_kind_for_tenant(scope, tenant, kind_prefix, limit, None).wait()?);
        let behind = cursor.map(|cursor| slot_behind(cursor, tenant, kind_prefix)).transpose()?;
        let mut found = self.0.list_kind(scope, kind_prefix).wait()?;
        let slot = |record: &StateRecord| (record.identity.clone(), record.kind.clone());
        found.retain(|record| {
            record.identity.tenant == tenant
                && behind.as_ref().is_none_or(|behind| slot(record) > *behind)
        });
        found.sort_by_key(slot);
        let more = found.len() > limit;
        found.truncate(limit);
        let last = found.last().filter(|_| more);
        let next = last.map(|last| Cursor::of_driver(position(tenant, kind_prefix, last)));
        Ok(Page { items: found, next })
    }
}

impl StateStore for Outside {
    fn save(&self, record: StateRecord) -> Pending<(), StateError> {
        self.0.save(record)
    }

    fn load(&self, identity: &Identity, kind: &str) -> Pending<StateRecord, StateError> {
        self.0.load(identity, kind)
    }

    fn load_by_event_id(&self, event_id: &EventId) -> Pending<StateRecord, StateError> {
        self.0.load_by_event_id(event_id)
    }

    fn delete(&self, identity: &Identity, kind: &str) -> Pending<(), StateError> {
        self.0.delete(identity, kind)
    }

    fn list_kind(
        &self,
        scope: ListScope,
        kind_prefix: &str,
    ) -> Pending<Vec<StateRecord>, StateError> {
        self.0.list_kind(scope, kind_prefix)
    }

    fn list_kind_bounded(
        &self,
        scope: ListScope,
        kind_prefix: &str,
        limit: usize,
    ) -> Pending<Vec<StateRecord>, StateError> {
        self.0.list_kind_bounded(scope, kind_prefix, limit)
    }

    fn close(&self) -> Pending<(), StateError> {
        self.0.close()
    }

    fn save_if(
        &self,
        expectations: &[SlotExpectation],
        next: StateRecord,
    ) -> Pending<(), StateError> {
        self.0.save_if(expectations, next)
    }

    fn save_batch_if(
        &self,
        expectations: &[SlotExpectation],
        writes: Vec<StateRecord>,
    ) -> Pending<(), StateError> {
        self.0.save_batch_if(expectations, writes)
    }

    fn delete_if(&self, expectation: &SlotExpectation) -> Pending<bool, StateError> {
        self.0.delete_if(expectation)
    }

    fn delete_scope(&self, tenant: &str, user: &str, session: &str) -> Pending<u64, StateError> {
        self.0.delete_scope(tenant, user, session)
    }

    fn list_kind_for_identity(
        &self,
        identity: &Identity,
        kind_prefix: &str,
        limit: Option<usize>,
    ) -> Pending<Vec<StateRecord>, StateError> {
        self.0.list_kind_for_identity(identity, kind_prefix, limit)
    }

    fn scan_kind_for_tenant(
        &self,
        scope: ListScope,
        tenant: &str,
        kind_prefix: &str,
        limit: usize,
        cursor: Option<&Cursor>,
    ) -> Pending<Page<StateRecord>, StateError> {
        Pending::ready(self.page(scope, (tenant, kind_prefix), limit, cursor))
    }
}

#[test]
fn an_outside_driver_passes_the_suite() {
    conformance::state(|| {
        let clock = Arc::new(ManualClock::new(0));
        (Outside(InMemoryState::with_clock(clock.clone())), clock)
    });
}

#[test]
fn a_room_and_an_outside_driver_refuse_each_others_cursors() {
    let room = Cloakroom::builder().open_in_memory().unwrap();
    let stores: [Arc<dyn StateStore>; 2] =
        [Arc::new(room.state()), Arc::new(Outside(InMemoryState::new()))];
    let scan = |store: &Arc<dyn StateStore>, cursor: Option<&Cursor>| {
        store.scan_kind_for_tenant(ListScope::maintenance(), "t", "k", 1, cursor).wait()
    };
    let [of_room, of_driver] = stores.each_ref().map(|store| {
        for kind in ["k1", "k2"] {
            let identity = Identity::new("t", "u", "s", "");
            let record = StateRecord {
                id: kind.into(),
                identity,
                kind: kind.into(),
                version: 1,
                bytes: Vec::new(),
                updated_at: None,
            };
            store.save(record).wait().unwrap();
        }
        scan(store, None).unwrap().next.expect("there is a second page")
    });
    let [room_state, driver] = &stores;
    assert_eq!(scan(room_state, Some(&of_room)).unwrap().items[0].kind, "k2");
    assert_eq!(scan(driver, Some(&of_driver)).unwrap().items[0].kind, "k2");
    assert!(matches!(scan(room_state, Some(&of_driver)), Err(StateError::InvalidScan(_))));
    assert!(matches!(scan(driver, Some(&of_room)), Err(StateError::InvalidScan(_))));
    assert!(room.handoff().list(Some(&of_driver), 1).wait().is_err());
}

/// A driver behind a queue: one thread carries the calls out in order and answers later, as a
/// driver over a network would.
struct Queued(mpsc::Sender<QueuedCall>);

type QueuedCall = Box<dyn FnOnce(&FormTokens) + Send>;

impl Queued {
    fn new(tokens: FormTokens) -> Self {
        let (queue, calls) = mpsc::channel::<QueuedCall>();
        std::thread::spawn(move || calls.into_iter().for_each(|call| call(&tokens)));
        Self(queue)
    }

    fn call<R: Send + 'static>(
        &self,
        call: impl FnOnce(&FormTokens) -> Pending<R> + Send + 'static,
    ) -> Pending<R> {
        let (answer, pending) = Pending::channel();
        self.0.send(Box::new(move |tokens| answer.send(call(tokens).wait()))).unwrap();
        pending
    }
}

impl FormTokenStore for Queued {
    fn insert_form_token(&self, record: FormTokenRecord) -> Pending<()> {
        self.call(|tokens| tokens.insert_form_token(record))
    }

    fn consume_form_token(
        &self,
        lookup_key: &LookupKey,
        subject: &TokenSubject,
        purpose: &str,
        bound_resource: Option<&str>,
        now: u64,
    ) -> Pending<(TokenConsumeOutcome, Option<String>)> {
        let candidates = std::slice::from_ref(lookup_key);
        self.consume_form_token_any(candidates, subject, purpose, bound_resource, now)
    }

    fn peek_form_token(
        &self,
        lookup_key: &LookupKey,
        subject: &TokenSubject,
        purpose: &str,
        bound_resource: Option<&str>,
        now: u64,
    ) -> Pending<(TokenConsumeOutcome, Option<String>)> {
        let (key, subject) = (lookup_key.clone(), subject.clone());
        let (purpose, resource) = (purpose.to_owned(), bound_resource.map(str::to_owned));
        self.call(move |tokens| {
            tokens.peek_form_token(&key, &subject, &purpose, resource.as_deref(), now)
        })
    }

    fn consume_form_token_any(
        &self,
        candidates: &[LookupKey],
        subject: &TokenSubject,
        purpose: &str,
        bound_resource: Option<&str>,
        now: u64,
    ) -> Pending<(TokenConsumeOutcome, Option<String>)> {
        let (keys, subject) = (candidates.to_vec(), subject.clone());
        let (purpose, resource) = (purpose.to_owned(), bound_resource.map(str::to_owned));
        self.call(move |tokens| {
            tokens.consume_form_token_any(&keys, &subject, &purpose, resource.as_deref(), now)
        })
    }

    fn set_token_result(&self, lookup_key: &LookupKey, result_ref: &str) -> Pending<()> {
        self.set_token_result_any(std::slice::from_ref(lookup_key), result_ref)
    }

    fn set_token_result_any(&self, candidates: &[LookupKey], result_ref: &str) -> Pending<()> {
        let (keys, result_ref) = (candidates.to_vec(), result_ref.to_owned());
        self.call(move |tokens| tokens.set_token_result_any(&keys, &result_ref))
    }
}

#[test]
fn a_driver_that_answers_later_passes_the_suite() {
    conformance::form_token(|| {
        let clock = Arc::new(ManualClock::new(0));
        let room = Cloakroom::builder().clock(clock.clone()).open_in_memory().unwrap();
        (Queued::new(room.form_tokens()), clock)
    });
}
