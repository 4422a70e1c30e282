//! What `Debug` and errors show: no value, and no key that opens something to a caller who has it.

use crate::rooms::{NOW_MS, small};
use cloakroom::Cloakroom;
use cloakroom::cache::{Bytes, CacheStore};
use cloakroom::dedupe::DedupeStore;
use cloakroom::form_token::{Consume, FormTokenRecord, FormTokenStore, LookupKey, TokenSubject};
use cloakroom::handoff::{HandoffStateStore, JsonObject};
use cloakroom::state::{Identity, ListScope, SlotExpectation, StateRecord, StateStore};
use cloakroom::watch::Filter;
use std::fmt::Debug;
use std::time::Duration;

/// In every value, and at the end of every key that is a secret.
const SECRET: &str = "5ec4e75ec4e7";

fn lookup_key() -> LookupKey {
    LookupKey::new(format!("00ff00{SECRET}"))
}

fn state() -> JsonObject {
    JsonObject::from_iter([("card".to_owned(), SECRET.into())])
}

fn record() -> StateRecord {
    StateRecord::new(Identity::new("tenant", "user", "session", ""), "plan", SECRET)
}

/// The secret is not shown, neither as text nor as a list of bytes.
fn check(shown: &str) {
    let as_list = format!("{:?}", SECRET.as_bytes());
    let as_list = as_list.trim_matches(['[', ']']).to_owned();
    for secret in [SECRET, &as_list] {
        let at = shown.find(secret);
        assert_eq!(at, None, "after {:?}", at.map(|at| &shown[at.saturating_sub(200)..at]));
    }
}

fn check_debug(shown: &impl Debug) {
    check(&format!("{shown:?}"));
    check(&format!("{shown:#?}"));
}

fn fill(room: &Cloakroom) {
    let token = FormTokenRecord::new(lookup_key(), TokenSubject::Anonymous, "pay", 1_000_000);
    room.form_tokens().insert_form_token(token).wait().unwrap();
    room.handoff().set(SECRET, &state(), 600).wait().unwrap();
    room.cache::<String>("c").set("hash", &SECRET.to_owned(), 60).wait().unwrap();
    room.dedupe::<String>("d").register("done").wait().unwrap();
    room.dedupe::<String>("d").complete("done", &SECRET.to_owned()).wait().unwrap();
    room.dedupe::<String>("d").register("failed").wait().unwrap();
    room.dedupe::<String>("d").fail("failed", SECRET).wait().unwrap();
    room.state().save(record()).wait().unwrap();
}

#[test]
fn debug_shows_no_value_and_no_key_that_opens_something() {
    let room = small().open_in_memory().unwrap();
    let mut watch = room.watch(Filter::all()).unwrap();
    fill(&room);
    let tokens = room.form_tokens();
    let (key, subject) = (lookup_key(), TokenSubject::Anonymous);
    let consume = Consume::new(&key, &subject, "pay", NOW_MS / 1_000);
    check_debug(&consume);
    check_debug(&tokens.consume(consume).wait().unwrap());
    tokens.set_token_result(&key, SECRET).wait().unwrap();
    check_debug(&tokens.consume(consume).wait().unwrap());
    check_debug(&tokens.list(None, 9).wait().unwrap());
    let handoff = room.handoff();
    let claim = handoff.claim(SECRET, Duration::from_secs(9)).wait().unwrap().unwrap();
    assert!(claim.id.to_string().contains(SECRET), "what is printed is whole");
    check_debug(&claim);
    check_debug(&handoff.list(None, 9).wait().unwrap());
    check_debug(&room.dedupe::<String>("d").list(None, 9).wait().unwrap());
    check_debug(&Bytes::from(SECRET.as_bytes().to_vec()));
    check_debug(&room.cache::<String>("c").list(None, 9).wait().unwrap());
    check_debug(&room.state().list_kind(ListScope::maintenance(), "plan").wait().unwrap());
    room.checkpoint().unwrap();
    let changes: Vec<_> = std::iter::from_fn(|| watch.try_recv().unwrap()).collect();
    assert!(changes.len() >= 8, "{changes:?}");
    assert!(changes.iter().any(|change| change.key.contains(SECRET)), "the key itself is whole");
    check_debug(&changes);
    for table in ["form_token", "handoff", "cache", "state"] {
        let shown = room.dump(table, &mut |row| {
            check_debug(&row);
            true
        });
        assert_eq!(shown.unwrap(), 1);
    }
    check_debug(&room);
    assert!(format!("{room:?}").len() < 200, "a room shows nothing of what is in it");
    check_debug(&tokens);
    check_debug(&handoff);
    check_debug(&room.cache::<String>("c"));
    check_debug(&room.stats().unwrap());
    check_debug(&room.verify().unwrap());
    check_debug(&tokens.consume_form_token(&key, &subject, "pay", None, 0));
}

#[test]
fn errors_show_no_value_and_no_key_that_opens_something() {
    let room = small().open_in_memory().unwrap();
    fill(&room);
    let check_error = |error: &dyn std::error::Error| {
        let mut source = Some(error);
        while let Some(error) = source {
            check(&error.to_string());
            check(&format!("{error:?}"));
            source = error.source();
        }
    };
    let token = FormTokenRecord::new(lookup_key(), TokenSubject::Anonymous, "pay", 1_000_000);
    check_error(&room.form_tokens().insert_form_token(token).wait().unwrap_err());
    let long = SECRET.repeat(10_000);
    check_error(&room.handoff().get(&long).wait().unwrap_err());
    let large = room.handoff().with_max_state_bytes(16);
    check_error(&large.set("s", &state(), 600).wait().unwrap_err());
    // A number where text is expected: the parser must not quote the text.
    let wrong = room.cache::<u64>("c").get("hash").wait();
    assert_eq!(wrong.unwrap(), None);
    let mut other = record();
    room.state().save(other.clone()).wait().unwrap();
    let saved = room.state().list_kind(ListScope::maintenance(), "plan").wait().unwrap();
    other.id = saved[0].id.clone();
    other.bytes = format!("{SECRET} and more").into_bytes();
    check_error(&room.state().save(other.clone()).wait().unwrap_err());
    let expected = SlotExpectation::absent(other.identity.clone(), "plan");
    other.id = cloakroom::state::EventId::new();
    check_error(&room.state().save_if(&[expected], other).wait().unwrap_err());
    // An import names the line and the field, and not what is in it.
    let export = |line: &str| format!("{{\"cloakroom_export\":1}}\n{line}\n{{\"end\":1}}\n");
    for line in [
        format!("{{\"entry\":\"handoff\",\"state_id\":\"a\",\"expires_at_ms\":\"{SECRET}\"}}"),
        format!("{{\"entry\":\"handoff\",\"state_id\":\"a\",\"state\":\"{SECRET}"),
        format!("{{\"entry\":\"state\",\"bytes_base64\":\"{SECRET}!\"}}"),
    ] {
        let empty = small().open_in_memory().unwrap();
        check_error(&empty.import(&mut export(&line).as_bytes()).unwrap_err());
    }
}
