//! What a call answers, in a form that any thread may hold and that becomes a JavaScript value on
//! the thread of JavaScript.

use crate::registry::OpenRoom;
use cloakroom::cache::{self, Bytes};
use cloakroom::maintenance::{BackupReport, CompactReport, SweepReport};
use cloakroom::page::Page;
use cloakroom::prelude::*;
use cloakroom::{adaptive_rate_limit, dedupe, form_token, handoff, rate_limit, state};
use std::time::Duration;

/// A value on its way to JavaScript.
pub enum Out {
    Undefined,
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    /// Text in JSON, to be parsed.
    Json(String),
    Bytes(Vec<u8>),
    Object(Vec<(&'static str, Out)>),
    Array(Vec<Out>),
    Room(OpenRoom),
}

impl From<()> for Out {
    fn from((): ()) -> Self {
        Self::Undefined
    }
}

impl From<bool> for Out {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u64> for Out {
    #[expect(clippy::cast_precision_loss, reason = "counts and times stay below 2^53")]
    fn from(value: u64) -> Self {
        Self::Number(value as f64)
    }
}

impl From<i64> for Out {
    #[expect(clippy::cast_precision_loss, reason = "the declaration says that it is rounded")]
    fn from(value: i64) -> Self {
        Self::Number(value as f64)
    }
}

impl From<&str> for Out {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Out {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

/// A span is milliseconds, rounded up: a caller that sleeps for it does not wake too early.
impl From<Duration> for Out {
    fn from(value: Duration) -> Self {
        let ms = u64::try_from(value.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        ms.into()
    }
}

impl<T: Into<Out>> From<Option<T>> for Out {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl<T: Into<Out>> From<Vec<T>> for Out {
    fn from(values: Vec<T>) -> Self {
        Self::Array(values.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Out>> From<Page<T>> for Out {
    fn from(page: Page<T>) -> Self {
        let next = page.next.map(|cursor| cursor.to_string());
        Self::Object(vec![("items", page.items.into()), ("next", next.into())])
    }
}

impl From<serde_json::Value> for Out {
    fn from(value: serde_json::Value) -> Self {
        Self::Json(value.to_string())
    }
}

impl From<Bytes> for Out {
    fn from(value: Bytes) -> Self {
        Self::Bytes(value.into())
    }
}

/// What a cache or a job holds: absent is `undefined`, for `null` may be stored.
pub fn value_or_undefined<T: Into<Out>>(value: Option<T>) -> Out {
    value.map_or(Out::Undefined, Into::into)
}

/// What a handoff holds: absent is `null`.
pub fn json_or_null(json: Option<String>) -> Out {
    json.map_or(Out::Null, Out::Json)
}

pub fn claim_or_null(claim: Option<RawClaim>) -> Out {
    claim.map_or(Out::Null, |claim| {
        Out::Object(vec![("state", Out::Json(claim.state)), ("id", claim.id.to_string().into())])
    })
}

impl From<(TokenConsumeOutcome, Option<String>)> for Out {
    fn from((outcome, result_ref): (TokenConsumeOutcome, Option<String>)) -> Self {
        let outcome = match outcome {
            TokenConsumeOutcome::Proceed => "proceed",
            TokenConsumeOutcome::Replay => "replay",
            TokenConsumeOutcome::Invalid => "invalid",
        };
        Self::Object(vec![("outcome", outcome.into()), ("resultRef", result_ref.into())])
    }
}

impl From<TokenSubject> for Out {
    fn from(subject: TokenSubject) -> Self {
        match subject {
            TokenSubject::Anonymous => "anonymous".into(),
            TokenSubject::Authenticated(id) => Self::Object(vec![("authenticated", id.into())]),
            TokenSubject::Flow(id) => Self::Object(vec![("flow", id.into())]),
        }
    }
}

impl From<JobId> for Out {
    fn from(id: JobId) -> Self {
        id.to_string().into()
    }
}

/// The fields of a struct as the members of an object.
macro_rules! objects {
    ($($type:ty { $($name:literal: $field:ident),* $(,)? })*) => {
        $(impl From<$type> for Out {
            fn from(value: $type) -> Self {
                Self::Object(vec![$(($name, value.$field.into())),*])
            }
        })*
    };
}

objects! {
    form_token::TokenUse { "consumedAt": consumed_at, "resultRef": result_ref }
    form_token::Entry { "record": record, "consumed": consumed }
    form_token::Stats { "live": live, "consumed": consumed, "expired": expired, "bytes": bytes }
    handoff::Entry {
        "stateId": state_id, "expiresAtMs": expires_at_ms, "bytes": bytes,
        "claimedUntilMs": claimed_until_ms,
    }
    handoff::Stats { "live": live, "claimed": claimed, "expired": expired, "bytes": bytes }
    cache::Entry {
        "hash": hash, "createdAtMs": created_at_ms, "expiresAtMs": expires_at_ms, "bytes": bytes,
        "tags": tags,
    }
    cache::Stats {
        "live": live, "expired": expired, "bytes": bytes, "hits": hits, "misses": misses,
        "evictions": evictions, "oversized": oversized,
    }
    dedupe::Entry {
        "hash": hash, "jobId": job_id, "state": state, "createdAtMs": created_at_ms,
        "endsAtMs": ends_at_ms,
    }
    dedupe::Stats {
        "pending": pending, "completed": completed, "failed": failed, "expired": expired,
        "bytes": bytes, "waiters": waiters,
    }
    Registration { "jobId": job_id, "isOwner": is_owner }
    RateLimitConfig { "limit": limit, "window": window }
    RateLimitStatus { "remaining": remaining, "resetTime": reset_time, "limit": limit }
    rate_limit::Entry { "resource": resource, "requests": requests, "config": config }
    rate_limit::Stats {
        "live": live, "requests": requests, "expired": expired, "bytes": bytes,
    }
    AdaptiveRateLimitStatus {
        "remaining": remaining, "resetTime": reset_time, "limit": limit,
        "userReserved": user_reserved, "backgroundMax": background_max,
        "backgroundPaused": background_paused, "recentUserActivity": recent_user_activity,
        "reason": reason,
    }
    adaptive_rate_limit::Entry {
        "resource": resource, "userRequests": user_requests,
        "backgroundRequests": background_requests, "config": config,
    }
    adaptive_rate_limit::Stats {
        "live": live, "idle": idle, "userRequests": user_requests,
        "backgroundRequests": background_requests, "bytes": bytes,
    }
    Identity { "tenant": tenant, "user": user, "session": session, "run": run }
    state::Entry {
        "eventId": event_id, "identity": identity, "kind": kind, "version": version,
        "bytes": bytes, "updatedAt": updated_at,
    }
    state::Stats { "states": states, "bytes": bytes }
    BackupReport { "lsn": lsn, "rows": rows, "bytes": bytes }
    CompactReport {
        "bytesBefore": bytes_before, "bytesAfter": bytes_after, "pagesMoved": pages_moved,
    }
}

impl From<FormTokenRecord> for Out {
    fn from(record: FormTokenRecord) -> Self {
        Self::Object(vec![
            ("lookupKey", record.lookup_key.as_str().into()),
            ("keyVersion", record.key_version.into()),
            ("subject", record.subject.into()),
            ("purpose", record.purpose.into()),
            ("boundResource", record.bound_resource.into()),
            ("issuedAt", record.issued_at.into()),
            ("expiresAt", record.expires_at.into()),
        ])
    }
}

impl From<dedupe::JobState> for Out {
    fn from(state: dedupe::JobState) -> Self {
        match state {
            dedupe::JobState::Pending => "pending",
            dedupe::JobState::Completed { .. } => "completed",
            dedupe::JobState::Failed { .. } => "failed",
            _ => "other",
        }
        .into()
    }
}

impl From<EventId> for Out {
    fn from(id: EventId) -> Self {
        id.as_str().into()
    }
}

impl From<StateRecord> for Out {
    fn from(record: StateRecord) -> Self {
        Self::Object(vec![
            ("id", record.id.into()),
            ("identity", record.identity.into()),
            ("kind", record.kind.into()),
            ("version", record.version.into()),
            ("bytes", Self::Bytes(record.bytes)),
            ("updatedAt", record.updated_at.into()),
        ])
    }
}

impl From<SweepReport> for Out {
    fn from(report: SweepReport) -> Self {
        Self::Object(vec![
            ("total", report.total().into()),
            ("rescheduled", report.rescheduled.into()),
            ("steppedOver", report.stepped_over.into()),
        ])
    }
}

impl From<cloakroom::tools::VerifyReport> for Out {
    fn from(report: cloakroom::tools::VerifyReport) -> Self {
        let ok = report.is_ok();
        let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        Self::Object(vec![
            ("ok", ok.into()),
            ("findings", findings.into()),
            ("moreFindings", report.more_findings.into()),
            ("notes", report.notes.into()),
            ("rows", report.rows.into()),
            ("blocks", report.blocks.into()),
            ("frames", report.frames.into()),
        ])
    }
}

impl From<cloakroom::watch::Change> for Out {
    fn from(change: cloakroom::watch::Change) -> Self {
        Self::Object(vec![
            ("lsn", change.lsn.into()),
            ("lastOfTransaction", change.last_of_transaction.into()),
            ("store", crate::watch::store_name(change.store).into()),
            ("name", change.name.into()),
            ("key", change.key.into()),
            ("identity", change.identity.into()),
            ("kind", crate::watch::kind_name(change.kind).into()),
        ])
    }
}
