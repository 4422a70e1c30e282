//! The agent states of a room against the reference driver: the same calls, the same answers, also
//! after reopening.

use crate::scale::scaled;
use cloakroom::drivers::InMemoryState;
use cloakroom::page::Cursor;
use cloakroom::state::{
    EventId, Identity, ListScope, SlotExpectation, StateError, StateRecord, StateStore,
};
use cloakroom::{Cloakroom, Durability, ManualClock};
use proptest::prelude::*;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Few of each, so that operations meet; some that are refused, some that would fool a careless
/// encoding.
const TENANTS: [&str; 4] = ["t", "t\0", "u", ""];
const USERS: [&str; 3] = ["u", "u\0\u{1}", "v"];
const SESSIONS: [&str; 3] = ["s", "\0", "s2"];
const RUNS: [&str; 3] = ["", "r", "\0"];
const KINDS: [&str; 8] = ["k", "k\0", "k1", "k%", "j", "kk", "K", ""];
const PREFIXES: [&str; 6] = ["k", "k\0", "j", "%", "", "kk"];

#[derive(Debug, Clone, Copy)]
struct Slot(u8, u8, u8, u8, u8);

impl Slot {
    fn identity(self) -> Identity {
        let Slot(tenant, user, session, run, _) = self;
        Identity::new(
            pick(&TENANTS, tenant),
            pick(&USERS, user),
            pick(&SESSIONS, session),
            pick(&RUNS, run),
        )
    }

    fn kind(self) -> &'static str {
        pick(&KINDS, self.4)
    }
}

fn pick<'a>(from: &[&'a str], number: u8) -> &'a str {
    from[usize::from(number) % from.len()]
}

#[derive(Debug, Clone)]
struct Write {
    slot: Slot,
    event: u8,
    version: bool,
    timed: bool,
}

impl Write {
    fn record(&self) -> StateRecord {
        StateRecord {
            id: event(self.event),
            identity: self.slot.identity(),
            kind: self.slot.kind().into(),
            version: if self.version { 2 } else { 1 },
            bytes: vec![self.event; usize::from(self.event % 3)],
            updated_at: self.timed.then_some(5),
        }
    }
}

fn event(number: u8) -> EventId {
    if number == 23 { "".into() } else { format!("e{number}").into() }
}

/// What a conditional call expects: the truth, an event, or absence.
#[derive(Debug, Clone, Copy)]
enum Expect {
    Truth,
    Event(u8),
    Absent,
}

#[derive(Debug, Clone)]
enum Op {
    Save(Write),
    Load(Slot),
    LoadByEvent(u8),
    Delete(Slot),
    ListKind(u8),
    Batch(Vec<(Slot, Expect)>, Vec<Write>),
    /// The expectations are of the slots that are written.
    FairBatch(Vec<(Write, Expect)>),
    DeleteIf(Slot, Expect),
    DeleteScope(Slot),
    ListForIdentity(Slot, u8, Option<usize>),
    Scan(u8, u8, usize),
    Advance(u16),
    Checkpoint,
    Reopen,
}

fn slot() -> impl Strategy<Value = Slot> {
    let tenant = prop_oneof![12 => 0u8..3, 1 => Just(3u8)];
    let kind = prop_oneof![20 => 0u8..7, 1 => Just(7u8)];
    (tenant, 0u8..3, 0u8..3, 0u8..3, kind).prop_map(|(tenant, user, session, run, kind)| {
        // Most operations meet in a few slots.
        if user == 0 {
            Slot(tenant % 4, 0, 0, run, kind)
        } else {
            Slot(tenant, user, session, run, kind)
        }
    })
}

fn write() -> impl Strategy<Value = Write> {
    (slot(), 0u8..24, prop::bool::weighted(0.2), any::<bool>())
        .prop_map(|(slot, event, version, timed)| Write { slot, event, version, timed })
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![6 => Just(Expect::Truth), 2 => (0u8..24).prop_map(Expect::Event), 1 => Just(Expect::Absent)]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => write().prop_map(Op::Save),
        3 => slot().prop_map(Op::Load),
        3 => (0u8..24).prop_map(Op::LoadByEvent),
        3 => slot().prop_map(Op::Delete),
        2 => any::<u8>().prop_map(Op::ListKind),
        2 => (prop::collection::vec((slot(), expect()), 0..4), prop::collection::vec(write(), 0..3))
            .prop_map(|(expectations, writes)| Op::Batch(expectations, writes)),
        6 => prop::collection::vec((write(), expect()), 1..4).prop_map(Op::FairBatch),
        3 => (slot(), expect()).prop_map(|(slot, expect)| Op::DeleteIf(slot, expect)),
        1 => slot().prop_map(Op::DeleteScope),
        2 => (slot(), any::<u8>(), prop::option::of(prop_oneof![1usize..4, Just(0), Just(1_001)]))
            .prop_map(|(slot, prefix, limit)| Op::ListForIdentity(slot, prefix, limit)),
        2 => (any::<u8>(), any::<u8>(), prop_oneof![1usize..6, Just(256), Just(257)])
            .prop_map(|(tenant, prefix, limit)| Op::Scan(tenant, prefix, limit)),
        2 => any::<u16>().prop_map(Op::Advance),
        1 => Just(Op::Checkpoint),
        1 => Just(Op::Reopen),
    ]
}

/// An answer in words, which two stores must share.
fn words<T: std::fmt::Debug>(answer: Result<T, StateError>) -> String {
    format!("{answer:?}")
}

fn expectation(reference: &InMemoryState, slot: Slot, expect: Expect) -> SlotExpectation {
    let expected = match expect {
        Expect::Truth => {
            reference.load(&slot.identity(), slot.kind()).wait().ok().map(|record| record.id)
        }
        Expect::Event(number) => Some(event(number)),
        Expect::Absent => None,
    };
    SlotExpectation { identity: slot.identity(), kind: slot.kind().into(), expected }
}

/// All pages, or the refusal.
fn scan(store: &dyn StateStore, tenant: &str, prefix: &str, limit: usize) -> String {
    let mut pages = String::new();
    let mut cursor: Option<Cursor> = None;
    loop {
        match store
            .scan_kind_for_tenant(ListScope::maintenance(), tenant, prefix, limit, cursor.as_ref())
            .wait()
        {
            Err(error) => return words::<()>(Err(error)),
            Ok(page) => {
                pages += &format!(
                    "{:?} {:?}\n",
                    page.items,
                    page.next.as_ref().map(ToString::to_string)
                );
                let Some(next) = page.next else { return pages };
                cursor = Some(next.to_string().parse().unwrap());
            }
        }
    }
}

/// What `store` answers. Expectations that are the truth are the reference's truth.
fn answer(store: &dyn StateStore, reference: &InMemoryState, op: &Op) -> String {
    match op {
        Op::Save(write) => words(store.save(write.record()).wait()),
        Op::Load(slot) => words(store.load(&slot.identity(), slot.kind()).wait()),
        Op::LoadByEvent(number) => words(store.load_by_event_id(&event(*number)).wait()),
        Op::Delete(slot) => words(store.delete(&slot.identity(), slot.kind()).wait()),
        Op::ListKind(prefix) => {
            words(store.list_kind(ListScope::maintenance(), pick(&PREFIXES, *prefix)).wait())
        }
        Op::Batch(expectations, writes) => {
            let expectations: Vec<_> = expectations
                .iter()
                .map(|(slot, expect)| expectation(reference, *slot, *expect))
                .collect();
            words(
                store
                    .save_batch_if(&expectations, writes.iter().map(Write::record).collect())
                    .wait(),
            )
        }
        Op::FairBatch(writes) => {
            let expectations: Vec<_> = writes
                .iter()
                .map(|(write, expect)| expectation(reference, write.slot, *expect))
                .collect();
            match writes.as_slice() {
                [(write, _)] => words(store.save_if(&expectations, write.record()).wait()),
                writes => {
                    let writes = writes.iter().map(|(write, _)| write.record()).collect();
                    words(store.save_batch_if(&expectations, writes).wait())
                }
            }
        }
        Op::DeleteIf(slot, expect) => {
            words(store.delete_if(&expectation(reference, *slot, *expect)).wait())
        }
        Op::DeleteScope(slot) => {
            let Identity { tenant, user, session, .. } = slot.identity();
            words(store.delete_scope(&tenant, &user, &session).wait())
        }
        Op::ListForIdentity(slot, prefix, limit) => words(
            store.list_kind_for_identity(&slot.identity(), pick(&PREFIXES, *prefix), *limit).wait(),
        ),
        Op::Scan(tenant, prefix, limit) => {
            scan(store, pick(&TENANTS, *tenant), pick(&PREFIXES, *prefix), *limit)
        }
        Op::Advance(_) | Op::Checkpoint | Op::Reopen => String::new(),
    }
}

fn check(ops: &[Op], path: Option<PathBuf>) {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let open = || {
        let builder = Cloakroom::builder().clock(clock.clone()).durability(Durability::Os);
        match &path {
            Some(path) => builder.open(path).unwrap(),
            None => builder.open_in_memory().unwrap(),
        }
    };
    let reference = InMemoryState::with_clock(clock.clone());
    let mut room = open();
    for op in ops {
        // The room is asked first, while the reference still holds the truth that both are asked
        // about.
        let ours = answer(&room.state(), &reference, op);
        assert_eq!(ours, answer(&reference, &reference, op), "{op:?}");
        match op {
            Op::Advance(by_ms) => clock.advance(Duration::from_millis(u64::from(*by_ms))),
            Op::Checkpoint => room.checkpoint().unwrap(),
            Op::Reopen if path.is_some() => {
                drop(room);
                room = open();
            }
            _ => {}
        }
    }
    let everything = |store: &dyn StateStore| {
        let kinds = ["k", "j", "K"]
            .map(|prefix| store.list_kind(ListScope::maintenance(), prefix).wait().unwrap());
        let found = kinds.concat();
        for record in &found {
            assert_eq!(store.load(&record.identity, &record.kind).wait().unwrap(), *record);
            assert_eq!(store.load_by_event_id(&record.id).wait().unwrap(), *record);
        }
        found
    };
    let (ours, theirs) = (everything(&room.state()), everything(&reference));
    assert_eq!(ours, theirs);
    assert_eq!(room.state().stats().wait().unwrap().states, ours.len() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: scaled(32, 128), max_shrink_iters: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_room_in_memory_answers_as_the_reference(ops in prop::collection::vec(op(), 1..120)) {
        check(&ops, None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: scaled(12, 24), max_shrink_iters: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_room_in_a_file_answers_as_the_reference(ops in prop::collection::vec(op(), 1..80)) {
        let dir = tempfile::tempdir().unwrap();
        check(&ops, Some(dir.path().join("state.cloak")));
    }
}
