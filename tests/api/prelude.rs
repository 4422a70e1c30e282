//! A program needs one import: every name of the store interfaces is in the prelude, and the types
//! that they fix can be built by literal and matched whole.

use cloakroom::prelude::*;
use std::sync::Arc;
use std::time::Duration;

/// A name of the prelude stands for a type, whatever its parameters.
macro_rules! types {
    ($($type:ty),* $(,)?) => {
        [$(std::any::type_name::<$type>()),*]
    };
}

#[test]
fn every_type_of_the_interfaces_is_in_the_prelude() {
    let types = types![
        Cloakroom,
        Builder,
        Transaction<'static>,
        Pending<()>,
        Pending<(), StateError>,
        Answer<()>,
        Answer<(), StateError>,
        Durability,
        Error,
        Result<()>,
        Result<(), StateError>,
        dyn Clock,
        SystemClock,
        ManualClock,
        FormTokens,
        dyn FormTokenStore,
        FormTokenRecord,
        LookupKey,
        TokenSubject,
        TokenConsumeOutcome,
        Handoff,
        dyn HandoffStateStore,
        JsonObject,
        Claim,
        ClaimId,
        RawClaim,
        Cache<u32>,
        dyn CacheStore<u32>,
        Cache<Bytes>,
        Ttl,
        Dedupe<u32>,
        dyn DedupeStore<u32>,
        Registration,
        Job<u32>,
        JobGuard<u32>,
        JobId,
        RateLimit,
        dyn RateLimitStore,
        RateLimitConfig,
        RateLimitStatus,
        AdaptiveRateLimit,
        dyn AdaptiveRateLimitStore,
        AdaptiveConfig,
        AdaptiveRateLimitStatus,
        Priority,
        State,
        dyn StateStore,
        StateError,
        StateRecord,
        Identity,
        EventId,
        ListScope,
        SlotExpectation,
        Cursor,
        Page<StateRecord>,
        StateConfig,
        drivers::StateConfig,
    ];
    assert!(types.iter().all(|name| !name.is_empty()));
}

#[test]
fn types_with_a_fixed_shape_are_built_by_literal_and_matched_whole() {
    let subject = TokenSubject::Flow("signup".into());
    let owner = match &subject {
        TokenSubject::Anonymous => "no one",
        TokenSubject::Authenticated(id) | TokenSubject::Flow(id) => id,
    };
    assert_eq!(owner, "signup");

    let token = FormTokenRecord {
        lookup_key: LookupKey::new("3fa9c1"),
        key_version: "v1".into(),
        subject: subject.clone(),
        purpose: "pay".into(),
        bound_resource: Some("order-7".into()),
        issued_at: 1,
        expires_at: 2,
    };
    let made = FormTokenRecord::new(LookupKey::new("3fa9c1"), subject, "pay", 2)
        .with_key_version("v1")
        .with_bound_resource("order-7")
        .with_issued_at(1);
    assert_eq!(token, made);
    match classify_token_consume(1, true, false, true) {
        TokenConsumeOutcome::Proceed => {}
        TokenConsumeOutcome::Replay | TokenConsumeOutcome::Invalid => panic!("the caller has won"),
    }

    let identity = Identity {
        tenant: "acme".into(),
        user: "ada".into(),
        session: "s".into(),
        run: "r".into(),
    };
    assert_eq!(identity, Identity::new("acme", "ada", "s", "").with_run("r"));
    let state = StateRecord {
        id: "e1".into(),
        identity: identity.clone(),
        kind: "plan".into(),
        version: 3,
        bytes: vec![1],
        updated_at: Some(5),
    };
    let made = StateRecord::new(identity.clone(), "plan", [1])
        .with_id("e1")
        .with_version(3)
        .with_updated_at(5);
    assert_eq!(state, made);
    let expectation =
        SlotExpectation { identity: identity.clone(), kind: "plan".into(), expected: None };
    assert_eq!(expectation, SlotExpectation::absent(identity, "plan"));

    let window = Duration::from_secs(60);
    assert_eq!(RateLimitConfig { limit: 60, window }, RateLimitConfig::per(60, window));
    let adaptive = AdaptiveConfig { min_user_reserved: 7, ..AdaptiveConfig::default() };
    assert_eq!(adaptive, AdaptiveConfig::default().with_min_user_reserved(7));
    for priority in [Priority::User, Priority::Background] {
        let is_default = match priority {
            Priority::User => false,
            Priority::Background => true,
        };
        assert_eq!(priority == Priority::default(), is_default);
    }

    let job_id = JobId::new(7);
    assert_eq!(Registration { job_id, is_owner: true }, Registration::owner(job_id));
    assert_eq!(Registration { job_id, is_owner: false }, Registration::joiner(job_id));
    let id = ClaimId::new(7, "order");
    let claim = Claim { state: JsonObject::new(), id: id.clone() };
    assert_eq!(claim, Claim::new(JsonObject::new(), id));
    let config = StateConfig { driver: "inmem".into(), dsn: String::new() };
    assert_eq!(config, StateConfig::new("inmem", ""));
}

/// What a driver from outside answers, made with public constructors alone.
#[test]
fn a_driver_makes_every_answer_itself() {
    let status = RateLimitStatus::new(60, 59, 1_000);
    assert_eq!((status.limit, status.remaining, status.reset_time), (60, 59, 1_000));
    let adaptive = AdaptiveRateLimitStatus::new(status)
        .with_user_reserved(18)
        .with_background_paused(true)
        .with_recent_user_activity(4)
        .with_reason("low activity");
    assert_eq!((adaptive.user_reserved, adaptive.background_max), (18, 42));
    assert_eq!((adaptive.remaining, adaptive.recent_user_activity), (59, 4));
    assert!(adaptive.background_paused && adaptive.reason == "low activity");
    let page = Page::new(vec![1, 2], Some(Cursor::of_driver("2")));
    assert!(page.next.is_some_and(|cursor| cursor.driver_position() == Some(b"2")));
    assert_eq!(Pending::<u32>::ready(Ok(7)).wait().unwrap(), 7);
}

#[test]
fn a_program_over_every_store_has_one_import() -> Result<(), Box<dyn std::error::Error>> {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let now = clock.now_ms() / 1_000;
    let room = Cloakroom::builder()
        .durability(Durability::Sync)
        .log_capacity(16 << 20)
        .cache_size(64 << 20)
        .sweep_interval(Duration::from_secs(30))
        .clock(clock.clone())
        .open_in_memory()?;

    let tokens = room.form_tokens().with_replay_grace(Duration::from_secs(60));
    let (key, subject) = (LookupKey::new("3fa9c1"), TokenSubject::Anonymous);
    let token = FormTokenRecord::new(key.clone(), subject.clone(), "pay", now + 600);
    tokens.insert_form_token(token).wait()?;
    let identity = Identity::new("acme", "ada", "session", "");
    let record = StateRecord::new(identity.clone(), "order", *b"paid");
    let answer = room.atomically(|tx: &mut Transaction<'_>| {
        let (outcome, earlier) =
            tx.form_tokens().consume_form_token(&key, &subject, "pay", None, now)?;
        if outcome == TokenConsumeOutcome::Proceed {
            tx.state().save(record.clone())?;
            tx.form_tokens().set_token_result(&key, "receipt-7")?;
        }
        Ok::<_, Error>((outcome, earlier))
    });
    assert_eq!(answer.wait()?, (TokenConsumeOutcome::Proceed, None));
    let replay = tokens.consume_form_token(&key, &subject, "pay", None, now).wait()?;
    assert_eq!(replay, (TokenConsumeOutcome::Replay, Some("receipt-7".into())));

    let states = room.state();
    validate_identity(&identity)?;
    validate_record(&record)?;
    validate_list_kind(ListScope::maintenance(), "order")?;
    assert_eq!(states.load(&identity, "order").wait()?.bytes, b"paid");
    let unchanged = SlotExpectation::current(identity.clone(), "order", record.id.clone());
    assert!(states.delete_if(&unchanged).wait()?);
    assert!(matches!(states.load_by_event_id(&record.id).wait(), Err(StateError::NotFound)));
    let page: Page<StateRecord> = states
        .scan_kind_for_tenant(ListScope::maintenance(), "acme", "order", 10, None::<&Cursor>)
        .wait()?;
    assert!(page.items.is_empty());

    let handoff = room.handoff().with_durability(Durability::Os);
    handoff.set("order-7", &JsonObject::new(), 600).wait()?;
    let claim = handoff.claim("order-7", Duration::from_secs(30)).wait()?.ok_or("it is there")?;
    assert!(handoff.ack(&claim.id.to_string().parse::<ClaimId>()?).wait()?);

    let pages = room.cache::<String>("http").with_durability(Durability::Os).with_max_entries(10);
    pages.set_with_tags("GET /", &"<p>".to_owned(), 60, &["site"]).wait()?;
    assert_eq!(pages.invalidate_by_tag("site").wait()?, 1);

    let jobs = room.dedupe::<String>("http").with_job_timeout(Duration::from_secs(300));
    let Registration { job_id, is_owner } = jobs.register_or_join("GET /").wait()?;
    assert!(is_owner && jobs.complete_owned("GET /", &job_id, &"<p>".to_owned()).wait()?);
    assert_eq!(jobs.wait_for("GET /").wait()?.as_deref(), Some("<p>"));

    let config = RateLimitConfig { limit: 60, window: Duration::from_secs(60) };
    let limiter = room.rate_limit("api", config)?;
    assert!(limiter.acquire("search").wait()?);
    assert_eq!(limiter.status("search").wait()?.remaining, 59);
    let adaptive = room.adaptive_rate_limit("api", config, AdaptiveConfig::default())?;
    assert!(adaptive.acquire("search", Priority::User).wait()?);

    let driven = drivers::open(&StateConfig::default())?;
    driven.save(record.with_id(EventId::new())).wait()?;
    assert_eq!(drivers::registered(), ["cloakroom", "inmem"]);

    room.sweep()?;
    room.checkpoint()?;
    room.compact()?;
    assert!(room.verify()?.is_ok());
    assert_eq!(room.stats()?.sweep_backlog, 0);
    room.close()?;
    let closed = room.handoff().get("order-7").wait();
    assert!(matches!(closed, Err(Error::Closed)));
    Ok(())
}

#[cfg(feature = "conformance")]
#[test]
fn the_suites_are_in_the_prelude() {
    conformance::state(|| {
        let clock = Arc::new(ManualClock::new(0));
        (drivers::InMemoryState::with_clock(clock.clone()), clock)
    });
}

/// A panic that is caught leaves every one of them usable.
#[test]
fn rooms_handles_and_answers_can_be_used_across_a_caught_panic() {
    fn holds<T: std::panic::UnwindSafe + std::panic::RefUnwindSafe>() {}
    holds::<Cloakroom>();
    holds::<FormTokens>();
    holds::<Handoff>();
    holds::<Cache<u64>>();
    holds::<Dedupe<u64>>();
    holds::<RateLimit>();
    holds::<AdaptiveRateLimit>();
    holds::<State>();
    holds::<cloakroom::watch::Watch>();
    holds::<Pending<u64>>();
    holds::<Pending<(), StateError>>();
    let room = Cloakroom::builder().open_in_memory().unwrap();
    let caught = std::panic::catch_unwind(|| {
        room.atomically(|tx| -> Result<()> {
            tx.handoff().set("half", &JsonObject::new(), 600)?;
            panic!("as planned");
        })
    });
    assert!(caught.is_err());
    assert_eq!(room.handoff().get("half").wait().unwrap(), None);
    room.handoff().set("whole", &JsonObject::new(), 600).wait().unwrap();
}
