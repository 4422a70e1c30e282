//! The managers of the crate `codlet` on a room in a file, and its in-memory stores beside ours.

use crate::rooms::{block_on, small};
use cloakroom::codlet::{CodletClock, CodletStore};
use cloakroom::limits::MAX_KEY_LEN;
use cloakroom::stats::StoreKind;
use cloakroom::watch::{ChangeKind, Filter};
use cloakroom::{Cloakroom, Durability, Error, ManualClock};
use codlet::admin::{CodeAdminStore, CodeListFilter};
use codlet::audit::CollectingAuditSink;
use codlet::store::{
    ClaimRequest, CodeRecord, CodeStore, FormTokenRecord, FormTokenStore, SessionRecord,
    SessionStore, StoreError, TokenSubject,
};
use codlet::{
    ClaimOutcome, Clock, CodeAuth, CodeId, CodePolicy, CookiePolicy, FormTokenError,
    FormTokenManager, KeyVersion, LookupKey, RateLimitKey, RateLimitOutcome, RateLimitPolicy,
    RateLimitStore, RateLimitUnavailable, RedeemError, RedemptionFailReason, ScopeKey,
    SecretDomain, SecretHasher, SessionFailure, SessionId, SessionManager,
    SessionValidationOutcome, StaticKeyProvider, SubjectId, SystemRandom, TokenConsumeOutcome,
};
use std::path::PathBuf;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

/// Where every clock here begins, in seconds.
const START: u64 = 1_700_000_000;
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);
const RACERS: usize = 32;

type Hasher = SecretHasher<StaticKeyProvider>;
type Forms = FormTokenManager<CodletStore, StaticKeyProvider, CodletClock, CollectingAuditSink>;
type Codes =
    CodeAuth<CodletStore, CodletStore, StaticKeyProvider, CodletClock, CollectingAuditSink>;
type Sessions = SessionManager<CodletStore, StaticKeyProvider, CodletClock, CollectingAuditSink>;

/// A room in a file, and a clock that outlives its openings.
struct Place {
    _dir: tempfile::TempDir,
    path: PathBuf,
    clock: Arc<ManualClock>,
    room: Cloakroom,
    audit: CollectingAuditSink,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.cloak");
        let clock = Arc::new(ManualClock::new(START * 1_000));
        // Without a sweeper of its own, which would take what a test counts.
        let room = small().clock(clock.clone()).sweep_interval(None).open(&path).unwrap();
        Self { _dir: dir, path, clock, room, audit: CollectingAuditSink::new() }
    }

    fn reopen(&mut self) {
        self.room.close().unwrap();
        self.room =
            small().clock(self.clock.clone()).sweep_interval(None).open(&self.path).unwrap();
    }

    fn store(&self) -> CodletStore {
        self.room.codlet()
    }

    fn forms(&self, hasher: Hasher) -> Forms {
        FormTokenManager::new(self.store(), hasher, self.store().clock(), self.audit.clone(), HOUR)
    }

    fn codes(&self, hasher: Hasher) -> Codes {
        let (store, policy) = (self.store(), CodePolicy::default_human(HOUR).unwrap());
        CodeAuth::new(
            store.clone(),
            store.clone(),
            hasher,
            store.clock(),
            self.audit.clone(),
            policy,
            limit(3),
        )
    }

    fn sessions(&self, hasher: Hasher) -> Sessions {
        let cookie = CookiePolicy::production_strict("sid", DAY);
        SessionManager::new(self.store(), hasher, self.store().clock(), self.audit.clone(), cookie)
    }
}

/// A hasher that holds the keys of these versions, the first of them active.
fn hasher(versions: &[u8]) -> Hasher {
    let key = |version: u8| vec![version; 32];
    let previous =
        versions[1..].iter().map(|&v| (KeyVersion::new(v.to_string()), key(v))).collect();
    SecretHasher::new(
        StaticKeyProvider::new(versions[0].to_string(), key(versions[0]), previous).unwrap(),
    )
}

fn limit(max_failures: u32) -> RateLimitPolicy {
    RateLimitPolicy {
        max_failures,
        window: Duration::from_secs(300),
        unavailable: RateLimitUnavailable::FailClosed,
    }
}

fn user(name: &str) -> TokenSubject {
    TokenSubject::Authenticated(SubjectId::new(name.into()))
}

fn guest() -> RateLimitKey {
    RateLimitKey::new("203.0.113.7")
}

/// The value of a `Set-Cookie` header.
fn cookie_value(set_cookie: &str) -> String {
    set_cookie.split(['=', ';']).nth(1).unwrap().to_owned()
}

fn lookup_key(domain: SecretDomain, secret: &str) -> LookupKey {
    hasher(&[1]).lookup_key(domain, secret).unwrap().0
}

#[test]
fn a_form_token_proceeds_once_and_replays_its_result_across_openings() {
    let mut place = Place::new();
    let issued = block_on(place.forms(hasher(&[1])).issue(
        &mut SystemRandom::new(),
        user("ada"),
        "pay",
        Some("cart-7".into()),
    ));
    let token = issued.unwrap().expose().to_owned();

    place.reopen();
    let forms = place.forms(hasher(&[1]));
    assert_eq!(block_on(forms.consume(&token, &user("ada"), "pay", Some("cart-7"))).unwrap(), None);
    assert!(place.audit.is_empty());
    block_on(forms.set_result(&token, "receipt-7")).unwrap();

    place.reopen();
    let forms = place.forms(hasher(&[1]));
    let replay = block_on(forms.consume(&token, &user("ada"), "pay", Some("cart-7"))).unwrap();
    assert_eq!(replay.as_deref(), Some("receipt-7"));
    assert_eq!(place.audit.drain().len(), 1);

    // A replay outlives the token by its grace, and no longer.
    place.clock.advance(HOUR + DAY - Duration::from_secs(1));
    assert!(
        block_on(forms.consume(&token, &user("ada"), "pay", Some("cart-7"))).unwrap().is_some()
    );
    place.clock.advance(Duration::from_secs(1));
    let gone = block_on(forms.consume(&token, &user("ada"), "pay", Some("cart-7")));
    assert!(matches!(gone, Err(FormTokenError::Invalid { .. })));
}

#[test]
fn a_wrong_binding_is_invalid_and_costs_the_owner_nothing() {
    let place = Place::new();
    let forms = place.forms(hasher(&[1]));
    let issued =
        block_on(forms.issue(&mut SystemRandom::new(), user("ada"), "pay", Some("cart".into())));
    let token = issued.unwrap().expose().to_owned();
    let anonymous = TokenSubject::Anonymous;
    let flow = TokenSubject::Flow(CodeId::new("ada".into()));
    let attempts = [
        ("forged", &user("ada"), "pay", Some("cart")),
        (&*token, &user("eve"), "pay", Some("cart")),
        (&*token, &anonymous, "pay", Some("cart")),
        (&*token, &flow, "pay", Some("cart")),
        (&*token, &user("ada"), "delete", Some("cart")),
        (&*token, &user("ada"), "pay", Some("other")),
        (&*token, &user("ada"), "pay", None),
    ];
    for (token, subject, purpose, resource) in attempts {
        let refused = block_on(forms.consume(token, subject, purpose, resource));
        assert!(matches!(refused, Err(FormTokenError::Invalid { .. })));
    }
    assert_eq!(block_on(forms.consume(&token, &user("ada"), "pay", Some("cart"))).unwrap(), None);
    block_on(forms.set_result(&token, "receipt")).unwrap();
    for (token, subject, purpose, resource) in attempts {
        let refused = block_on(forms.consume(token, subject, purpose, resource));
        assert!(matches!(refused, Err(FormTokenError::Invalid { .. })));
    }
}

#[test]
fn an_unconsumed_form_token_ends_with_its_time() {
    let place = Place::new();
    let forms = place.forms(hasher(&[1]));
    let issue = || {
        let issued =
            block_on(forms.issue(&mut SystemRandom::new(), TokenSubject::Anonymous, "pay", None));
        issued.unwrap().expose().to_owned()
    };
    let (in_time, late) = (issue(), issue());
    place.clock.advance(HOUR - Duration::from_secs(1));
    assert_eq!(
        block_on(forms.consume(&in_time, &TokenSubject::Anonymous, "pay", None)).unwrap(),
        None
    );
    place.clock.advance(Duration::from_secs(1));
    let ended = block_on(forms.consume(&late, &TokenSubject::Anonymous, "pay", None));
    assert!(matches!(ended, Err(FormTokenError::Invalid { .. })));
}

#[test]
fn a_form_token_survives_the_rotation_of_the_key_while_the_old_one_is_held() {
    let mut place = Place::new();
    let issue = |forms: &Forms| {
        let issued =
            block_on(forms.issue(&mut SystemRandom::new(), TokenSubject::Anonymous, "pay", None));
        issued.unwrap().expose().to_owned()
    };
    let (old, forgotten) = (issue(&place.forms(hasher(&[1]))), issue(&place.forms(hasher(&[1]))));
    place.reopen();
    let rotated = place.forms(hasher(&[3, 2, 1]));
    let new = issue(&rotated);
    for token in [&old, &new] {
        assert_eq!(
            block_on(rotated.consume(token, &TokenSubject::Anonymous, "pay", None)).unwrap(),
            None
        );
        block_on(rotated.set_result(token, "receipt")).unwrap();
    }
    place.reopen();
    let rotated = place.forms(hasher(&[3, 2, 1]));
    for token in [&old, &new] {
        let replay =
            block_on(rotated.consume(token, &TokenSubject::Anonymous, "pay", None)).unwrap();
        assert_eq!(replay.as_deref(), Some("receipt"));
    }
    let without = place.forms(hasher(&[3, 2]));
    let unknown = block_on(without.consume(&forgotten, &TokenSubject::Anonymous, "pay", None));
    assert!(matches!(unknown, Err(FormTokenError::Invalid { .. })));
}

#[test]
fn one_of_many_threads_consumes_a_form_token() {
    let place = Place::new();
    let forms = place.forms(hasher(&[1]));
    let issued = block_on(forms.issue(&mut SystemRandom::new(), user("ada"), "pay", None));
    let secret = issued.unwrap().expose().to_owned();
    let keys = [lookup_key(SecretDomain::FormToken, &secret)];
    let outcomes = race(|_| {
        block_on(place.store().consume_form_token(&keys, &user("ada"), "pay", None, START))
            .unwrap()
            .0
    });
    let proceeded =
        outcomes.iter().filter(|outcome| **outcome == TokenConsumeOutcome::Proceed).count();
    let replayed =
        outcomes.iter().filter(|outcome| **outcome == TokenConsumeOutcome::Replay).count();
    assert_eq!((proceeded, replayed), (1, RACERS - 1));
}

/// What every one of many threads that begin together answers.
fn race<T: Send>(each: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(RACERS);
    thread::scope(|scope| {
        let racers: Vec<_> = (0..RACERS)
            .map(|racer| {
                let (barrier, each) = (&barrier, &each);
                scope.spawn(move || {
                    barrier.wait();
                    each(racer)
                })
            })
            .collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    })
}

/// Issues a code, and answers what its recipient types.
fn issue_code(codes: &Codes, id: &str) -> String {
    let issued = block_on(codes.issue_code(
        &mut SystemRandom::new(),
        CodeId::new(id.into()),
        Some("join".into()),
        Some("club".into()),
        Some("member".into()),
    ));
    issued.unwrap().1.expose().to_owned()
}

fn reason<T: std::fmt::Debug>(answer: Result<T, RedeemError>) -> RedemptionFailReason {
    match answer {
        Err(RedeemError::NotRedeemable { reason, .. }) => reason,
        answer => panic!("{answer:?}"),
    }
}

#[test]
fn a_code_is_redeemed_once_and_becomes_a_session_that_outlives_openings() {
    let mut place = Place::new();
    let typed = issue_code(&place.codes(hasher(&[1])), "code-1");

    place.reopen();
    let codes = place.codes(hasher(&[2, 1]));
    let found = block_on(codes.find(&typed, Some(&guest()))).unwrap();
    assert_eq!((found.grant.as_deref(), found.scope.as_deref()), (Some("member"), Some("club")));
    let won = block_on(codes.claim(&found, SubjectId::new("ada".into()), Some(&guest()))).unwrap();
    let lost = block_on(codes.claim(&found, SubjectId::new("eve".into()), Some(&guest())));
    assert!(matches!(lost, Err(RedeemError::ClaimLost { .. })));
    let sessions = place.sessions(hasher(&[1]));
    let issued =
        block_on(sessions.issue(&won, SessionId::new("s-1".into()), &mut SystemRandom::new()))
            .unwrap();
    let cookie = cookie_value(&issued.set_cookie);

    place.reopen();
    let codes = place.codes(hasher(&[1]));
    assert_eq!(
        reason(block_on(codes.find(&typed, Some(&guest())))),
        RedemptionFailReason::AlreadyUsed
    );
    let sessions = place.sessions(hasher(&[2, 1]));
    let valid = block_on(sessions.validate(Some(&cookie))).unwrap();
    assert_eq!(valid.subject().map(SubjectId::as_str), Some("ada"));

    // Its secret changes and its subject stays; the old secret is revoked.
    let rotated = block_on(sessions.rotate(
        &valid,
        SessionId::new("s-2".into()),
        "promoted",
        &mut SystemRandom::new(),
    ));
    let new_cookie = cookie_value(&rotated.unwrap().set_cookie);
    place.reopen();
    let sessions = place.sessions(hasher(&[2, 1]));
    assert_eq!(failure(&sessions, &cookie), SessionFailure::Revoked);
    assert!(block_on(sessions.validate(Some(&new_cookie))).unwrap().is_authenticated());
    place.clock.advance(DAY);
    assert_eq!(failure(&sessions, &new_cookie), SessionFailure::Expired);
    // Whatever became of it, it is unknown after the retention, swept or not.
    place.clock.advance(DAY);
    assert_eq!(failure(&sessions, &new_cookie), SessionFailure::NotFound);
}

fn failure(sessions: &Sessions, cookie: &str) -> SessionFailure {
    match block_on(sessions.validate(Some(cookie))).unwrap() {
        SessionValidationOutcome::Unauthenticated { reason } => reason,
        outcome => panic!("{outcome:?}"),
    }
}

#[cfg(feature = "testing")]
#[test]
fn expired_codlet_records_are_swept_with_their_lookup_keys() {
    let clock = Arc::new(ManualClock::new(START * 1_000));
    let room = small().clock(clock.clone()).sweep_interval(None).open_in_memory().unwrap();
    let store = room.codlet();
    for number in 0..200 {
        let name = format!("{number}");
        block_on(store.insert_code(code_record(&name, &name))).unwrap();
        block_on(store.insert_session(session_record(&name, &name))).unwrap();
        block_on(store.record_failure(&RateLimitKey::new(&name), &limit(1))).unwrap();
    }
    clock.advance(Duration::from_secs(300));
    assert_eq!(room.sweep().unwrap().removed(StoreKind::CODLET_FAILURES), 200, "the failures");
    assert!(
        block_on(store.lookup_code(&[lookup_key(SecretDomain::Code, "7")], None))
            .unwrap()
            .is_some()
    );
    clock.advance(2 * DAY);
    let report = room.sweep().unwrap();
    assert_eq!((report.total(), report.stepped_over), (400, 0));
    assert_eq!(room.row_counts().unwrap().iter().map(|(_, rows)| rows).sum::<usize>(), 0);
}

#[test]
fn an_idle_session_ends_and_a_used_one_goes_on() {
    let place = Place::new();
    let codes = place.codes(hasher(&[1]));
    let typed = issue_code(&codes, "code-1");
    let found = block_on(codes.find(&typed, Some(&guest()))).unwrap();
    let won = block_on(codes.claim(&found, SubjectId::new("ada".into()), Some(&guest()))).unwrap();
    let sessions = place.sessions(hasher(&[1])).with_idle_timeout(HOUR);
    let issued =
        block_on(sessions.issue(&won, SessionId::new("s".into()), &mut SystemRandom::new()))
            .unwrap();
    let cookie = cookie_value(&issued.set_cookie);
    for _ in 0..3 {
        place.clock.advance(HOUR - Duration::from_secs(1));
        assert!(block_on(sessions.validate(Some(&cookie))).unwrap().is_authenticated());
    }
    place.clock.advance(HOUR);
    assert_eq!(failure(&sessions, &cookie), SessionFailure::IdleTimeout);
}

#[test]
fn a_code_says_why_it_is_refused_until_it_is_forgotten() {
    let mut place = Place::new();
    let codes = place.codes(hasher(&[1]));
    let (revoked, expired) = (issue_code(&codes, "revoked"), issue_code(&codes, "expired"));
    // Another scope's revocation does nothing.
    block_on(codes.revoke_code(&CodeId::new("expired".into()), Some("other"))).unwrap();
    block_on(codes.revoke_code(&CodeId::new("revoked".into()), Some("club"))).unwrap();
    assert!(block_on(codes.find(&expired, Some(&guest()))).is_ok());
    place.clock.advance(HOUR);
    place.reopen();
    let codes = place.codes(hasher(&[1]));
    let find = |typed: &str| reason(block_on(codes.find(typed, Some(&guest()))));
    assert_eq!(find(&revoked), RedemptionFailReason::Revoked);
    assert_eq!(find(&expired), RedemptionFailReason::Expired);
    place.clock.advance(DAY);
    assert_eq!(find(&revoked), RedemptionFailReason::NotFound);
    // What is left of a forgotten one is in no one's way.
    issue_code(&codes, "revoked");
}

#[test]
fn one_of_many_threads_claims_a_code() {
    let place = Place::new();
    let codes = place.codes(hasher(&[1]));
    let typed = issue_code(&codes, "code-1");
    let found = block_on(codes.find(&typed, Some(&guest()))).unwrap();
    let outcomes = race(|racer| {
        let subject = SubjectId::new(format!("racer-{racer}"));
        let request = ClaimRequest {
            code_id: &found.id,
            subject: &subject,
            now: START,
            purpose: None,
            scope: None,
        };
        block_on(place.store().claim_code(&request)).unwrap()
    });
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == ClaimOutcome::Won).count(), 1);
}

#[test]
fn guesses_are_limited_in_a_sliding_window_across_openings() {
    let mut place = Place::new();
    for _ in 0..3 {
        let guess = block_on(place.codes(hasher(&[1])).find("AAAA-AAAA-AAAA", Some(&guest())));
        assert!(!matches!(guess, Err(RedeemError::RateLimited { .. })));
        place.clock.advance(Duration::from_secs(100));
        place.reopen();
    }
    let codes = place.codes(hasher(&[1]));
    let typed = issue_code(&codes, "code-1");
    // The first of the three has left the window by now.
    let found = block_on(codes.find(&typed, Some(&guest()))).unwrap();
    assert!(block_on(codes.find("AAAA-AAAA-AAAA", Some(&guest()))).is_err());
    let limited = block_on(codes.find(&typed, Some(&guest())));
    assert!(matches!(limited, Err(RedeemError::RateLimited { .. })));
    let other = RateLimitKey::new("203.0.113.8");
    assert!(block_on(codes.find(&typed, Some(&other))).is_ok());
    // Who has a code to show begins anew.
    block_on(codes.claim(&found, SubjectId::new("ada".into()), Some(&guest()))).unwrap();
    assert_eq!(
        block_on(place.store().check(&guest(), &limit(1))).unwrap(),
        RateLimitOutcome::Allow
    );
}

#[test]
fn no_failure_of_many_threads_is_lost() {
    let place = Place::new();
    race(|_| block_on(place.store().record_failure(&guest(), &limit(u32::MAX))).unwrap());
    let racers = u32::try_from(RACERS).unwrap();
    let check =
        |max_failures| block_on(place.store().check(&guest(), &limit(max_failures))).unwrap();
    assert_eq!(
        (check(racers), check(racers + 1)),
        (RateLimitOutcome::Deny, RateLimitOutcome::Allow)
    );
}

fn code_record(id: &str, secret: &str) -> CodeRecord {
    CodeRecord {
        id: CodeId::new(id.into()),
        lookup_key: lookup_key(SecretDomain::Code, secret),
        key_version: KeyVersion::new("1"),
        purpose: None,
        scope: None,
        grant: None,
        created_at: START,
        expires_at: START + 60,
    }
}

fn session_record(id: &str, secret: &str) -> SessionRecord {
    SessionRecord {
        id: SessionId::new(id.into()),
        lookup_key: lookup_key(SecretDomain::Session, secret),
        key_version: KeyVersion::new("1"),
        subject: SubjectId::new("ada".into()),
        created_at: START,
        expires_at: START + 60,
    }
}

#[test]
fn a_code_and_its_session_come_together_or_not_at_all() {
    let place = Place::new();
    block_on(place.store().insert_code(code_record("c", "secret"))).unwrap();
    let (id, subject) = (CodeId::new("c".into()), SubjectId::new("ada".into()));
    let request =
        ClaimRequest { code_id: &id, subject: &subject, now: START, purpose: None, scope: None };
    let session = session_record("s", "cookie");
    let session_keys = [session.lookup_key.clone()];

    let failed = place.room.atomically(|tx| {
        assert_eq!(tx.codlet().claim_code(&request)?, ClaimOutcome::Won);
        tx.codlet().insert_session(&session)?;
        Err::<(), _>(Error::Encode("the host thought better of it".into()))
    });
    assert!(failed.wait().is_err());
    assert!(block_on(place.store().lookup_session(&session_keys)).unwrap().is_none());

    let outcome = place.room.atomically(|tx| {
        let outcome = tx.codlet().claim_code(&request)?;
        tx.codlet().insert_session(&session)?;
        assert!(tx.codlet().lookup_session(&session_keys)?.is_some());
        Ok::<_, Error>(outcome)
    });
    assert_eq!(outcome.wait().unwrap(), ClaimOutcome::Won);
    assert!(block_on(place.store().lookup_session(&session_keys)).unwrap().is_some());
    assert_eq!(block_on(place.store().claim_code(&request)).unwrap(), ClaimOutcome::Lost);
}

#[test]
fn the_options_of_a_store_follow_into_a_transaction() {
    let place = Place::new();
    let store = place.store().with_retention(Duration::ZERO).with_replay_grace(Duration::ZERO);
    let (code, session) = (code_record("c", "secret"), session_record("s", "cookie"));
    let (subject, keys) = (user("ada"), [lookup_key(SecretDomain::FormToken, "form")]);
    let form = || FormTokenRecord {
        lookup_key: keys[0].clone(),
        key_version: KeyVersion::new("1"),
        subject: subject.clone(),
        purpose: "pay".into(),
        bound_resource: None,
        issued_at: START,
        expires_at: START + 60,
    };
    let done = place.room.atomically(|tx| {
        store.within(tx).insert_code(&code)?;
        store.within(tx).insert_session(&session)?;
        store.within(tx).insert_form_token(form())?;
        store.within(tx).record_failure(&guest(), &limit(1))?;
        tx.codlet().insert_code(&code_record("kept", "other"))
    });
    done.wait().unwrap();
    let outcome = block_on(store.check(&guest(), &limit(1))).unwrap();
    assert_eq!(outcome, RateLimitOutcome::Deny);
    let consume = |now| {
        let answer = place.room.atomically(|tx| {
            store.within(tx).consume_form_token(&keys, &subject, "pay", None, now)
        });
        answer.wait().unwrap().0
    };
    assert_eq!(consume(START + 59), TokenConsumeOutcome::Proceed);
    assert_eq!(consume(START + 59), TokenConsumeOutcome::Replay);
    assert_eq!(consume(START + 60), TokenConsumeOutcome::Invalid, "the grace is zero");

    place.clock.advance(Duration::from_secs(60));
    let found =
        |key: &LookupKey| block_on(store.lookup_code(std::slice::from_ref(key), None)).unwrap();
    assert!(found(&code.lookup_key).is_none(), "it is kept for nothing after its expiry");
    assert!(found(&lookup_key(SecretDomain::Code, "other")).is_some(), "the default is a day");
    assert!(block_on(store.lookup_session(&[session.lookup_key])).unwrap().is_none());
}

#[test]
fn a_store_of_another_room_or_with_a_refused_option_is_refused_in_a_transaction() {
    let (place, other) = (Place::new(), Place::new());
    let wrong = Durability::Interval(Duration::ZERO);
    let done = place.room.atomically(|tx| {
        let foreign = other.store();
        let answer = foreign.within(tx).insert_code(&code_record("c", "secret"));
        assert!(matches!(answer, Err(Error::ForeignTransaction)), "{answer:?}");
        let answer = foreign.within(tx).record_failure(&guest(), &limit(1));
        assert!(matches!(answer, Err(Error::ForeignTransaction)), "{answer:?}");
        let refused = place.store().with_durability(wrong);
        let answer = refused.within(tx).insert_session(&session_record("s", "cookie"));
        assert!(matches!(answer, Err(Error::InvalidConfig(_))), "{answer:?}");
        refused.within(tx).record_failure(&guest(), &limit(1))?;
        let refused = place.store().with_failures_durability(wrong);
        let answer = refused.within(tx).clear_failures(&guest());
        assert!(matches!(answer, Err(Error::InvalidConfig(_))), "{answer:?}");
        refused.within(tx).insert_session(&session_record("s", "cookie"))
    });
    done.wait().unwrap();
    let refused = place.store().with_durability(wrong);
    let answer = block_on(refused.insert_session(session_record("t", "other")));
    assert!(answer.unwrap_err().to_string().contains("interval"), "a call outside is refused, too");
    let refused = place.store().with_failures_durability(wrong);
    assert!(block_on(refused.check(&guest(), &limit(1))).is_err());
    block_on(refused.insert_session(session_record("u", "third"))).unwrap();
}

#[cfg(feature = "testing")]
#[test]
fn a_durable_store_makes_the_transaction_durable_for_what_it_asks_that() {
    use cloakroom::testing::SimStorage;
    let sim = SimStorage::new(5);
    let builder = crate::rooms::small().without_threads().durability(Durability::Os);
    let room = builder.open_on(Arc::new(sim.clone())).unwrap();
    let mut ids = 0_u32..;
    let mut flushes = |store: &CodletStore, fail: bool| {
        let before = sim.syncs() + sim.durable_writes();
        let id = ids.next().unwrap().to_string();
        let done = room.atomically(|tx| match fail {
            true => store.within(tx).record_failure(&guest(), &limit(1)),
            false => store.within(tx).insert_code(&code_record(&id, &id)),
        });
        done.wait().unwrap();
        sim.syncs() + sim.durable_writes() > before
    };
    let relaxed = room.codlet();
    assert!(!flushes(&relaxed, true) && !flushes(&relaxed, false));
    let records = relaxed.clone().with_durability(Durability::Sync);
    assert!(!flushes(&records, true) && flushes(&records, false));
    let failures = relaxed.with_failures_durability(Durability::Sync);
    assert!(flushes(&failures, true) && !flushes(&failures, false));
}

#[test]
fn an_error_says_what_failed_and_not_what_was_stored() {
    let place = Place::new();
    let store = place.store();
    block_on(store.insert_code(code_record("visible", "secret"))).unwrap();
    let key = lookup_key(SecretDomain::Code, "secret");
    let taken = block_on(store.insert_code(code_record("other", "secret"))).unwrap_err();
    let too_long = block_on(store.insert_code(CodeRecord {
        grant: Some("visible".repeat(MAX_KEY_LEN)),
        ..code_record("c", "other")
    }));
    place.room.close().unwrap();
    let closed = block_on(store.lookup_code(std::slice::from_ref(&key), None)).unwrap_err();
    for error in [taken, too_long.unwrap_err(), closed] {
        assert!(matches!(error, StoreError::Backend(_)));
        let text = format!("{error} {error:?}");
        assert!(!text.contains(key.as_str()) && !text.contains("visible"), "{text}");
    }
    assert!(!format!("{store:?}").contains(key.as_str()));
}

#[test]
fn a_call_takes_its_effect_before_it_is_awaited() {
    let place = Place::new();
    let store = place.store().with_durability(Durability::Sync);
    drop(store.insert_code(code_record("c", "secret")));
    let keys = [lookup_key(SecretDomain::Code, "secret")];
    assert!(block_on(store.lookup_code(&keys, None)).unwrap().is_some());
}

#[test]
fn the_clock_of_the_store_is_that_of_the_room() {
    let place = Place::new();
    let clock = place.store().clock();
    assert_eq!(clock.unix_now(), START);
    place.clock.advance(HOUR);
    assert_eq!(clock.unix_now(), START + 3_600);
}

#[test]
fn strings_of_every_kind_and_the_longest_length_are_kept_apart() {
    let mut place = Place::new();
    let longest = "k".repeat(MAX_KEY_LEN);
    let ids = ["", "\0", "\0\0", "a", "a\0", "%", "_", "a_", "é", &longest];
    for (number, id) in ids.iter().enumerate() {
        let secret = format!("secret-{number}");
        let code = CodeRecord {
            key_version: KeyVersion::new(*id),
            purpose: Some((*id).into()),
            scope: Some((*id).into()),
            grant: Some((*id).into()),
            ..code_record(id, &secret)
        };
        block_on(place.store().insert_code(code)).unwrap();
        let session =
            SessionRecord { subject: SubjectId::new((*id).into()), ..session_record(id, &secret) };
        block_on(place.store().insert_session(session)).unwrap();
        block_on(place.store().record_failure(&RateLimitKey::new(*id), &limit(1))).unwrap();
    }
    place.reopen();
    let store = place.store();
    for (number, id) in ids.iter().enumerate() {
        let secret = format!("secret-{number}");
        let code =
            block_on(store.lookup_code(&[lookup_key(SecretDomain::Code, &secret)], Some(id)));
        let code = code.unwrap().unwrap();
        assert_eq!((code.id.as_str(), code.grant.as_deref()), (*id, Some(*id)));
        let (code_id, subject) = (code.id, SubjectId::new(longest.clone()));
        let claim = |purpose, scope| {
            let request =
                ClaimRequest { code_id: &code_id, subject: &subject, now: START, purpose, scope };
            block_on(place.store().claim_code(&request)).unwrap()
        };
        assert_eq!(claim(Some("other"), Some(id)), ClaimOutcome::Lost);
        assert_eq!(claim(Some(id), Some("other")), ClaimOutcome::Lost);
        assert_eq!(claim(Some(id), Some(id)), ClaimOutcome::Won);
        let session = block_on(store.lookup_session(&[lookup_key(SecretDomain::Session, &secret)]));
        assert_eq!(session.unwrap().unwrap().subject.as_str(), *id);
        let key = RateLimitKey::new(*id);
        assert_eq!(block_on(store.check(&key, &limit(1))).unwrap(), RateLimitOutcome::Deny);
        block_on(store.clear_failures(&key)).unwrap();
        assert_eq!(block_on(store.check(&key, &limit(1))).unwrap(), RateLimitOutcome::Allow);
    }
    let too_long = RateLimitKey::new("k".repeat(MAX_KEY_LEN + 1));
    assert!(block_on(store.check(&too_long, &limit(1))).is_err());
    assert!(block_on(store.record_failure(&too_long, &limit(1))).is_err());
}

#[test]
fn the_first_candidate_in_the_scope_is_the_one_found() {
    let place = Place::new();
    let store = place.store();
    for (id, scope) in [("a", "x"), ("b", "y")] {
        let record = CodeRecord { scope: Some(scope.into()), ..code_record(id, id) };
        block_on(store.insert_code(record)).unwrap();
    }
    let keys = ["unknown", "a", "b"].map(|secret| lookup_key(SecretDomain::Code, secret));
    let found = |scope| {
        let code = block_on(store.lookup_code(&keys, scope)).unwrap();
        code.map(|code| code.id.as_str().to_owned())
    };
    assert_eq!(found(None).as_deref(), Some("a"));
    assert_eq!(found(Some("y")).as_deref(), Some("b"));
    assert_eq!(found(Some("z")), None);
    assert!(block_on(store.lookup_code(&[], None)).unwrap().is_none());
}

#[test]
fn an_admin_sees_codes_without_their_lookup_keys() {
    let place = Place::new();
    let store = place.store();
    for number in 0..600_u64 {
        let secret = format!("secret-{number}");
        let record = CodeRecord {
            scope: Some(if number % 2 == 0 { "even" } else { "odd" }.into()),
            expires_at: START + 60 + number,
            ..code_record(&format!("code-{number}"), &secret)
        };
        drop(store.insert_code(record));
    }
    block_on(store.revoke_code(&CodeId::new("code-598".into()), None, START)).unwrap();
    let all = block_on(store.list_codes(&CodeListFilter::all(), START)).unwrap();
    assert_eq!(all.len(), 600);
    assert!(all.is_sorted_by(|a, b| a.expires_at > b.expires_at));
    let filter =
        CodeListFilter { limit: Some(2), ..CodeListFilter::active_in_scope(ScopeKey::new("even")) };
    let active = block_on(store.list_codes(&filter, START + 60)).unwrap();
    let ids: Vec<_> = active.iter().map(|code| code.id.as_str()).collect();
    assert_eq!(ids, ["code-596", "code-594"]);
    let revoked = block_on(store.get_code_meta(&CodeId::new("code-598".into()))).unwrap().unwrap();
    assert_eq!((revoked.revoked_at, revoked.created_at), (Some(START), Some(START)));
    assert!(block_on(store.get_code_meta(&CodeId::new("code-600".into()))).unwrap().is_none());
}

#[test]
fn a_manager_with_a_clock_far_behind_the_room_still_finds_its_records() {
    let place = Place::new();
    let record = CodeRecord { created_at: 1_000, expires_at: 1_060, ..code_record("c", "secret") };
    block_on(place.store().insert_code(record)).unwrap();
    let keys = [lookup_key(SecretDomain::Code, "secret")];
    let is_there = || block_on(place.store().lookup_code(&keys, None)).unwrap().is_some();
    // For as long as it lives by the manager's clock, and the retention of a day.
    place.clock.advance(DAY + Duration::from_secs(60) - Duration::from_millis(1));
    assert!(is_there());
    place.clock.advance(Duration::from_millis(1));
    assert!(!is_there());
}

#[test]
fn what_a_room_in_1970_is_given_for_a_minute_is_swept_a_day_later_and_not_in_fifty_years() {
    let place = Place::new();
    place.clock.leap(30_000);
    let store = place.store();
    block_on(store.insert_code(code_record("c", "code"))).unwrap();
    block_on(store.insert_session(session_record("s", "session"))).unwrap();
    let codes = [lookup_key(SecretDomain::Code, "code")];
    let sessions = [lookup_key(SecretDomain::Session, "session")];
    let there = || {
        let code = block_on(store.lookup_code(&codes, None)).unwrap().is_some();
        (code, block_on(store.lookup_session(&sessions)).unwrap().is_some())
    };
    // Set right, ahead by years, and right again: spans do not notice.
    for leap_ms in [START * 1_000, START * 9_000, START * 1_000] {
        place.clock.leap(leap_ms);
        assert_eq!(there(), (true, true));
        assert_eq!(place.room.sweep().unwrap().total(), 0);
    }
    place.clock.advance(DAY + Duration::from_secs(59));
    assert_eq!((there(), place.room.sweep().unwrap().total()), ((true, true), 0));
    place.clock.advance(Duration::from_secs(1));
    assert_eq!((there(), place.room.sweep().unwrap().total()), ((false, false), 2));
}

#[test]
fn counted_failures_and_what_is_kept_of_a_code_do_not_notice_a_leap() {
    let place = Place::new();
    let store = place.store();
    for _ in 0..3 {
        block_on(store.record_failure(&guest(), &limit(3))).unwrap();
    }
    block_on(store.insert_code(code_record("c", "code"))).unwrap();
    let codes = [lookup_key(SecretDomain::Code, "code")];
    let is_there = || block_on(store.lookup_code(&codes, None)).unwrap().is_some();
    for leap_ms in [START * 2_000, 5_000, START * 1_000] {
        place.clock.leap(leap_ms);
        assert!(is_there());
        assert_eq!(place.room.sweep().unwrap().total(), 0);
    }
    place.clock.advance(limit(3).window);
    assert!(is_there());
    assert_eq!(place.room.sweep().unwrap().total(), 1, "the failures");
}

mod beside_the_in_memory_stores {
    use super::*;
    use codlet::mem::{MemCodeStore, MemFormTokenStore, MemSessionStore};
    use proptest::prelude::*;
    use std::fmt::Debug;

    const SECRETS: [&str; 4] = ["a", "b", "c", "d"];

    #[derive(Debug, Clone)]
    enum Op {
        Insert { secret: usize, scope: Option<&'static str>, ttl: u64 },
        Lookup { secret: usize, scope: Option<&'static str> },
        Take { secret: usize, who: &'static str, scope: Option<&'static str> },
        Revoke { secret: usize, scope: Option<&'static str> },
        Result { secret: usize, text: &'static str },
        Forward(u64),
        Reopen,
    }

    fn scope() -> impl Strategy<Value = Option<&'static str>> {
        prop::sample::select(vec![None, Some("x"), Some("y"), Some("")])
    }

    fn op() -> impl Strategy<Value = Op> {
        let secret = || 0..SECRETS.len();
        prop_oneof![
            3 => (secret(), scope(), 0_u64..100)
                .prop_map(|(secret, scope, ttl)| Op::Insert { secret, scope, ttl }),
            3 => (secret(), scope()).prop_map(|(secret, scope)| Op::Lookup { secret, scope }),
            3 => (secret(), prop::sample::select(vec!["ada", "eve"]), scope())
                .prop_map(|(secret, who, scope)| Op::Take { secret, who, scope }),
            1 => (secret(), scope()).prop_map(|(secret, scope)| Op::Revoke { secret, scope }),
            1 => (secret(), prop::sample::select(vec!["r1", "r2"]))
                .prop_map(|(secret, text)| Op::Result { secret, text }),
            2 => (0_u64..60).prop_map(Op::Forward),
            1 => Just(Op::Reopen),
        ]
    }

    /// What was answered, with every error alike: the texts differ.
    fn shown<T: Debug>(answer: Result<T, StoreError>) -> String {
        answer.map_or("an error".into(), |answer| format!("{answer:?}"))
    }

    fn keys(domain: SecretDomain, secrets: &[usize]) -> Vec<LookupKey> {
        secrets.iter().map(|&secret| lookup_key(domain, SECRETS[secret])).collect()
    }

    async fn codes(store: &impl CodeStore, op: &Op, now: u64) -> String {
        match op {
            Op::Insert { secret, scope, ttl } => {
                let secret = SECRETS[*secret];
                let record = CodeRecord {
                    scope: scope.map(Into::into),
                    expires_at: now + ttl,
                    ..code_record(secret, secret)
                };
                shown(store.insert_code(record).await)
            }
            Op::Lookup { secret, scope } => {
                shown(store.lookup_code(&keys(SecretDomain::Code, &[*secret]), *scope).await)
            }
            Op::Take { secret, who, scope } => {
                let (id, subject) =
                    (CodeId::new(SECRETS[*secret].into()), SubjectId::new((*who).into()));
                let request = ClaimRequest {
                    code_id: &id,
                    subject: &subject,
                    now,
                    purpose: None,
                    scope: *scope,
                };
                shown(store.claim_code(&request).await)
            }
            Op::Revoke { secret, scope } => {
                shown(store.revoke_code(&CodeId::new(SECRETS[*secret].into()), *scope, now).await)
            }
            Op::Result { .. } | Op::Forward(_) | Op::Reopen => String::new(),
        }
    }

    async fn sessions(store: &impl SessionStore, op: &Op, now: u64, inserted: bool) -> String {
        let id = |secret: usize| SessionId::new(SECRETS[secret].into());
        match op {
            // The in-memory store takes a second one under the same id, which is not what a store
            // is for.
            Op::Insert { secret, ttl, .. } if !inserted => {
                let secret = SECRETS[*secret];
                let record =
                    SessionRecord { expires_at: now + ttl, ..session_record(secret, secret) };
                shown(store.insert_session(record).await)
            }
            Op::Lookup { secret, .. } => {
                shown(store.lookup_session(&keys(SecretDomain::Session, &[*secret])).await)
            }
            Op::Take { secret, .. } => shown(store.touch_session(&id(*secret), now).await),
            Op::Revoke { secret, .. } => shown(store.revoke_session(&id(*secret), now).await),
            _ => String::new(),
        }
    }

    async fn form_tokens(store: &impl FormTokenStore, op: &Op, now: u64, inserted: bool) -> String {
        match op {
            Op::Insert { secret, ttl, .. } if !inserted => {
                let record = FormTokenRecord {
                    lookup_key: lookup_key(SecretDomain::FormToken, SECRETS[*secret]),
                    key_version: KeyVersion::new("1"),
                    subject: user("ada"),
                    purpose: "pay".into(),
                    // Always bound: the in-memory store replays to a caller without a resource,
                    // ours does not.
                    bound_resource: Some("x".into()),
                    issued_at: now,
                    expires_at: now + ttl,
                };
                shown(store.insert_form_token(record).await)
            }
            Op::Take { secret, who, scope } => {
                let keys = keys(SecretDomain::FormToken, &[*secret]);
                let resource = Some(scope.unwrap_or("x"));
                shown(store.consume_form_token(&keys, &user(who), "pay", resource, now).await)
            }
            Op::Result { secret, text } => shown(
                store.set_token_result(&keys(SecretDomain::FormToken, &[*secret]), text).await,
            ),
            _ => String::new(),
        }
    }

    /// Runs `ops` on both sides in lockstep.
    fn compare(
        ops: &[Op],
        ours: impl Fn(&CodletStore, &Op, u64, bool) -> String,
        theirs: impl Fn(&Op, u64, bool) -> String,
    ) -> Result<(), TestCaseError> {
        let mut place = Place::new();
        let mut now = START;
        let mut inserted = [false; SECRETS.len()];
        for op in ops {
            let mut again = false;
            match op {
                Op::Forward(seconds) => {
                    now += seconds;
                    place.clock.set(now * 1_000);
                }
                Op::Reopen => place.reopen(),
                Op::Insert { secret, .. } => {
                    again = std::mem::replace(&mut inserted[*secret], true)
                }
                _ => {}
            }
            let store = place.store().with_durability(Durability::Os);
            prop_assert_eq!(ours(&store, op, now, again), theirs(op, now, again), "{:?}", op);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn codes_agree(ops in prop::collection::vec(op(), 1..60)) {
            let memory = MemCodeStore::new();
            compare(
                &ops,
                |store, op, now, _| block_on(codes(store, op, now)),
                |op, now, _| block_on(codes(&memory, op, now)),
            )?;
        }

        #[test]
        fn sessions_agree(ops in prop::collection::vec(op(), 1..60)) {
            let memory = MemSessionStore::new();
            compare(
                &ops,
                |store, op, now, again| block_on(sessions(store, op, now, again)),
                |op, now, again| block_on(sessions(&memory, op, now, again)),
            )?;
        }

        #[test]
        fn form_tokens_agree(ops in prop::collection::vec(op(), 1..60)) {
            let memory = MemFormTokenStore::new();
            compare(
                &ops,
                |store, op, now, again| block_on(form_tokens(store, op, now, again)),
                |op, now, again| block_on(form_tokens(&memory, op, now, again)),
            )?;
        }
    }
}

#[test]
fn records_of_the_adapter_are_counted_and_watched() {
    let clock = Arc::new(ManualClock::new(START * 1_000));
    let room = small().clock(clock.clone()).sweep_interval(None).open_in_memory().unwrap();
    let mut watch = room.watch(Filter::all()).unwrap();
    block_on(room.codlet().insert_code(code_record("c", "secret"))).unwrap();
    block_on(room.codlet().insert_session(session_record("s", "secret"))).unwrap();
    block_on(room.codlet().record_failure(&guest(), &limit(3))).unwrap();
    block_on(room.codlet().clear_failures(&guest())).unwrap();
    block_on(room.codlet().record_failure(&guest(), &limit(3))).unwrap();
    let codes = (StoreKind::CODLET_CODES, "c".to_owned(), ChangeKind::Put);
    let sessions = (StoreKind::CODLET_SESSIONS, "s".to_owned(), ChangeKind::Put);
    let failures = |kind| (StoreKind::CODLET_FAILURES, guest().as_str().to_owned(), kind);
    let expected = [
        codes,
        sessions,
        failures(ChangeKind::Put),
        failures(ChangeKind::Removed),
        failures(ChangeKind::Put),
    ];
    for expected in expected {
        let change = watch.recv_timeout(DAY).unwrap().unwrap();
        assert_eq!((change.store, change.key, change.kind), expected);
    }
    let figures = || {
        let stores = room.stats().unwrap().stores;
        stores
            .iter()
            .map(|stats| (stats.store, stats.live, stats.expired, stats.rows))
            .collect::<Vec<_>>()
    };
    // Each record has a row by id, one by lookup key and one in the expiry index; failures have no
    // lookup key.
    let kept = |kind, rows| (kind, 1, 0, rows);
    let ended = |kind, rows| (kind, 0, 1, rows);
    let kinds = [
        (StoreKind::CODLET_CODES, 3),
        (StoreKind::CODLET_SESSIONS, 3),
        (StoreKind::CODLET_FAILURES, 2),
    ];
    assert_eq!(figures(), kinds.map(|(kind, rows)| kept(kind, rows)));
    clock.advance(DAY * 365);
    assert_eq!(figures(), kinds.map(|(kind, rows)| ended(kind, rows)));
    room.sweep().unwrap();
    assert_eq!(figures(), []);
    block_on(room.codlet().record_failure(&guest(), &limit(3))).unwrap();
    for kind in [StoreKind::CODLET_CODES, StoreKind::CODLET_SESSIONS, StoreKind::CODLET_FAILURES] {
        let change = watch.recv_timeout(DAY).unwrap().unwrap();
        assert_eq!((change.store, change.kind), (kind, ChangeKind::Expired));
    }
}
