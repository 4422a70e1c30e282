//! What the operations of the stores leave behind is what [`rows`] derives, under random histories.
//! The tests of caches, jobs and `codlet` records are with their operations and use
//! [`assert_sound`].

use super::*;
use crate::engine::access::Reader;
use crate::engine::time_line::{Deadline, TIME_LINE};
use crate::error::Error;
use crate::stores::adaptive_rate_limit::capacities::Capacities;
use crate::stores::adaptive_rate_limit::{AdaptiveConfig, AdaptiveRateLimitTx, Priority};
use crate::stores::form_token::{FormTokenRecord, FormTokensTx, LookupKey, TokenSubject};
use crate::stores::handoff::{HandoffTx, JsonObject};
use crate::stores::map_tx::MapTx;
use crate::stores::rate_limit::longest_window::LongestWindows;
use crate::stores::rate_limit::{RateLimitConfig, RateLimitTx};
use crate::stores::registry::catalogue;
use crate::stores::state::{EventId, Identity, StateRecord, StateTx};
use crate::stores::{constraints, validation};
use std::collections::BTreeMap;
use std::time::Duration;

/// How many histories each test tries, and how many operations each has.
const HISTORIES: u64 = 40;
const STEPS: usize = 120;

/// The derived rows that the primary rows of `tx` ask for.
fn derived(tx: &MapTx) -> BTreeMap<(Table, Vec<u8>), Vec<u8>> {
    let mut expected = BTreeMap::new();
    for ((table, key), value) in tx.snapshot() {
        rows(table, &key, &value, &mut |table, key, value| {
            assert!(is_derived(table));
            assert!(
                expected.insert((table, key), value).is_none(),
                "one derived row of two primaries"
            );
        })
        .unwrap();
    }
    expected
}

fn is_derived(table: Table) -> bool {
    registry::of(table).unwrap().is_derived()
}

/// Whether a row of the expiry index says that a limiter was cleared, which no other row says.
fn is_of_a_clear(table: Table, key: &[u8]) -> bool {
    table == Table::EXPIRY
        && expiry::decode::decode_key(key)
            .is_some_and(|(_, table, _)| table == Table::RATE_LIMIT_STORE)
}

/// Demands that the derived rows of `tx` are exactly those of its primary rows.
pub(crate) fn assert_sound(tx: &MapTx) {
    let present: BTreeMap<_, _> = tx
        .snapshot()
        .into_iter()
        .filter(|((table, key), _)| is_derived(*table) && !is_of_a_clear(*table, key))
        .map(|(at, value)| (at, value.to_vec()))
        .collect();
    assert_eq!(present, derived(tx));
}

/// Demands that every row is one that a store writes, and has beside it what it must.
fn assert_whole(tx: &mut MapTx) {
    for ((table, key), value) in tx.snapshot() {
        // The tests of codes and sessions are content with any bytes.
        if ![Table::CODLET_CODE, Table::CODLET_SESSION].contains(&table) {
            validation::row(table, &key, &value).unwrap();
        }
        constraints::check(tx, table, &key, &value, &mut |broken| panic!("{broken:?}")).unwrap();
    }
}

/// Runs `step` again and again over rows whose time moves on, and checks the rows after each.
pub(crate) fn histories(mut step: impl FnMut(&mut MapTx, &mut fastrand::Rng)) {
    for seed in 0..HISTORIES {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut tx = MapTx::at(1_000_000);
        for _ in 0..STEPS {
            tx.now_ms += random.u64(0..3_000);
            step(&mut tx, &mut random);
            assert_sound(&tx);
            assert_whole(&mut tx);
        }
        assert!(tx.writes > 0);
    }
}

fn name(random: &mut fastrand::Rng) -> &'static str {
    ["", "a", "a\0", "00ff", "b\0\u{ff}"][random.usize(0..5)]
}

#[test]
fn form_tokens_have_the_rows_that_are_derived() {
    histories(|tx, random| {
        let (key, now_s) = (LookupKey::new(name(random)), tx.now_ms / 1_000);
        let grace = Duration::from_secs(random.u64(0..4));
        let mut tokens = FormTokensTx::new(tx).with_replay_grace(grace);
        if random.bool() {
            let record = FormTokenRecord {
                lookup_key: key,
                key_version: "v1".into(),
                subject: TokenSubject::Anonymous,
                purpose: "p".into(),
                bound_resource: None,
                issued_at: now_s,
                expires_at: if random.u8(0..9) == 0 { u64::MAX } else { now_s + random.u64(0..6) },
            };
            match tokens.insert_form_token(record) {
                Ok(()) | Err(Error::AlreadyExists) => {}
                Err(error) => panic!("{error}"),
            }
        } else {
            tokens.consume_form_token(&key, &TokenSubject::Anonymous, "p", None, now_s).unwrap();
            tokens.set_token_result(&key, "r").unwrap();
        }
    });
}

#[test]
fn a_consumed_token_may_be_filed_under_the_end_of_its_grace_and_no_other() {
    let mut tx = MapTx::at(1_000);
    let record = FormTokenRecord {
        lookup_key: LookupKey::new("k"),
        key_version: "v1".into(),
        subject: TokenSubject::Anonymous,
        purpose: "p".into(),
        bound_resource: None,
        issued_at: 0,
        expires_at: 10,
    };
    let mut tokens = FormTokensTx::new(&mut tx).with_replay_grace(Duration::from_secs(5));
    tokens.insert_form_token(record).unwrap();
    let key = &tx.keys(Table::FORM_TOKEN)[0];
    let token = tx.get(Table::FORM_TOKEN, key).unwrap().unwrap();
    assert_eq!(
        registry::of(Table::FORM_TOKEN).unwrap().may_be_indexed_at(&token, None).unwrap(),
        [Deadline::at(10_000)]
    );
    let mut tokens = FormTokensTx::new(&mut tx).with_replay_grace(Duration::from_secs(5));
    tokens
        .consume_form_token(&LookupKey::new("k"), &TokenSubject::Anonymous, "p", None, 1)
        .unwrap();
    let used = tx.get(Table::FORM_TOKEN_USE, key).unwrap();
    assert_eq!(
        registry::of(Table::FORM_TOKEN)
            .unwrap()
            .may_be_indexed_at(&token, used.as_deref())
            .unwrap(),
        [10_000, 15_000].map(Deadline::at)
    );
    assert!(matches!(
        registry::of(Table::FORM_TOKEN).unwrap().may_be_indexed_at(&token, Some(&[9])),
        Err(Error::Corrupted { .. })
    ));
}

#[test]
fn claim_checks_have_the_rows_that_are_derived() {
    histories(|tx, random| {
        let id = name(random);
        let mut states = HandoffTx::new(tx, 1 << 20);
        let lease = Duration::from_millis(random.u64(1..4_000));
        match random.u8(0..5) {
            0 | 1 => states.set(id, &JsonObject::new(), random.u64(0..6)).unwrap(),
            2 => drop(states.get_and_delete(id).unwrap()),
            3 => states.delete(id).unwrap(),
            _ => {
                if let Some(claim) = states.claim(id, lease).unwrap() {
                    let _ = if random.bool() {
                        states.ack(&claim.id)
                    } else {
                        states.release(&claim.id)
                    };
                }
            }
        }
    });
}

fn limit(random: &mut fastrand::Rng) -> RateLimitConfig {
    RateLimitConfig {
        limit: random.u64(1..5),
        window: Duration::from_millis(random.u64(1..20_000)),
    }
}

#[test]
fn rate_limits_have_the_rows_that_are_derived() {
    histories(|tx, random| {
        let (resource, until) = (name(random), tx.now_ms + random.u64(0..4_000));
        let mut limiter = RateLimitTx::new(
            tx,
            &LongestWindows::default(),
            name(random),
            RateLimitConfig::default(),
        )
        .unwrap();
        match random.u8(0..8) {
            0..=2 => drop(limiter.acquire(resource).unwrap()),
            3 => limiter.record(resource).unwrap(),
            4 => limiter.reset(resource).unwrap(),
            5 => limiter.set_resource_config(resource, limit(random)).unwrap(),
            6 => limiter.set_cooldown(resource, until).unwrap(),
            _ => limiter.clear().unwrap(),
        }
    });
}

#[test]
fn adaptive_rate_limits_have_the_rows_that_are_derived() {
    histories(|tx, random| {
        let (resource, until) = (name(random), tx.now_ms + random.u64(0..4_000));
        let (limit, config) = (RateLimitConfig::default(), AdaptiveConfig::default());
        let capacities = Capacities::default();
        let mut limiter =
            AdaptiveRateLimitTx::new(tx, &capacities, name(random), limit, config).unwrap();
        let priority = *random.choice(&[Priority::User, Priority::Background]).unwrap();
        match random.u8(0..8) {
            0..=2 => drop(limiter.acquire(resource, priority).unwrap()),
            3 => limiter.record(resource, priority).unwrap(),
            4 => limiter.reset(resource).unwrap(),
            5 => limiter.set_resource_config(resource, self::limit(random)).unwrap(),
            6 => limiter.set_cooldown(resource, until).unwrap(),
            _ => limiter.clear().unwrap(),
        }
    });
}

#[test]
fn agent_states_have_the_rows_that_are_derived() {
    histories(|tx, random| {
        let part = |random: &mut fastrand::Rng| ["a", "a\0", "b"][random.usize(0..3)];
        let (tenant, session) = (part(random), part(random));
        let identity = Identity::new(tenant, "u", session, name(random));
        let kind = part(random);
        let mut states = StateTx::new(tx);
        match random.u8(0..6) {
            0..=3 => {
                let mut record = StateRecord::new(identity, kind, b"x".as_slice());
                record.id = EventId::from(format!("e{}", random.u8(0..40)));
                // An event that another slot has is refused and leaves everything as it was.
                let _ = states.save(record);
            }
            4 => states.delete(&identity, kind).unwrap(),
            _ => drop(states.delete_scope(tenant, "u", session).unwrap()),
        }
    });
}

#[test]
fn a_row_that_does_not_decode_is_damage_and_derived_rows_have_none() {
    for &table in catalogue().all() {
        let mut emitted = 0;
        let answer = rows(table, b"\xff", b"\xff\xff", &mut |_, _, _| emitted += 1);
        let has_none = is_derived(table)
            || [
                Table::FORM_TOKEN_USE,
                Table::HANDOFF_CLAIM,
                Table::RATE_LIMIT_REQUEST,
                Table::RATE_LIMIT_STORE,
                Table::RATE_LIMIT_CONFIG,
                TIME_LINE,
            ]
            .contains(&table);
        assert_eq!(answer.is_ok(), has_none, "{}", table.name());
        assert_eq!(emitted, 0);
    }
}
