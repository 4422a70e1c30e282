//! A claim check over HTTP: leave a state, get a ticket, and fetch the state in two phases.
//!
//! `cargo run --example claim_check` starts the server, plays its clients against it, and ends.
//!
//! | request | answer |
//! |---|---|
//! | `POST /states`, a JSON object | 201 and the ticket |
//! | `POST /states/{ticket}/claim` | 200 with `state` and `claim`, and no one else sees it for the lease; 404 |
//! | `POST /claims/{claim}/ack` | 204, and it is gone; 409 when the lease is over |
//! | `POST /claims/{claim}/release` | 204, and others see it again; 409 when the lease is over |
//!
//! A worker that dies between the claim and the acknowledgement loses nothing: the state comes back
//! with the lease.

mod http;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router, serve};
use cloakroom::handoff::{ClaimId, HandoffStateStore, JsonObject};
use cloakroom::{Cloakroom, Error, ManualClock};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// How long a state waits for somebody to fetch it.
const TTL_SECONDS: u64 = 24 * 3_600;
/// How long a worker has from the claim to the acknowledgement.
const LEASE: Duration = Duration::from_secs(30);

type Store = Arc<dyn HandoffStateStore>;

fn app(store: Store) -> Router {
    Router::new()
        .route("/states", post(leave))
        .route("/states/{ticket}/claim", post(claim))
        .route("/claims/{claim}/ack", post(ack))
        .route("/claims/{claim}/release", post(release))
        .with_state(store)
}

/// What of an error concerns the client.
fn status(error: &Error) -> StatusCode {
    match error {
        Error::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Error::Encode(_) => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn leave(
    State(store): State<Store>,
    Json(state): Json<JsonObject>,
) -> Result<(StatusCode, String), StatusCode> {
    let ticket = ulid::Ulid::generate().to_string();
    store.set(&ticket, &state, TTL_SECONDS).await.map_err(|error| status(&error))?;
    Ok((StatusCode::CREATED, ticket))
}

async fn claim(
    State(store): State<Store>,
    Path(ticket): Path<String>,
) -> Result<Json<Value>, StatusCode> {
    let claim = store.claim(&ticket, LEASE).await.map_err(|error| status(&error))?;
    let claim = claim.ok_or(StatusCode::NOT_FOUND)?;
    Ok(Json(json!({ "state": claim.state, "claim": claim.id.to_string() })))
}

async fn ack(State(store): State<Store>, Path(claim): Path<String>) -> StatusCode {
    match claim.parse::<ClaimId>() {
        Ok(claim) => ended(store.ack(&claim).await),
        Err(_) => StatusCode::BAD_REQUEST,
    }
}

async fn release(State(store): State<Store>, Path(claim): Path<String>) -> StatusCode {
    match claim.parse::<ClaimId>() {
        Ok(claim) => ended(store.release(&claim).await),
        Err(_) => StatusCode::BAD_REQUEST,
    }
}

fn ended(answer: Result<bool, Error>) -> StatusCode {
    match answer {
        Ok(true) => StatusCode::NO_CONTENT,
        Ok(false) => StatusCode::CONFLICT,
        Err(error) => status(&error),
    }
}

/// What somebody who leaves a state, and two workers, would do.
fn play(
    server: SocketAddr,
    clock: &ManualClock,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let post = |path: &str, body: &str| {
        let answer =
            http::request(server, "POST", path, &["Content-Type: application/json"], body)?;
        println!("POST {:<28} {} {}", shortened(path), answer.status, answer.body);
        Ok::<_, std::io::Error>(answer)
    };
    let claim_id = |body: &str| -> Result<String, serde_json::Error> {
        let answer: Value = serde_json::from_str(body)?;
        Ok(answer["claim"].as_str().unwrap_or_default().to_owned())
    };

    let ticket = post("/states", r#"{"cart":["umbrella","hat"]}"#)?.body;
    let first = post(&format!("/states/{ticket}/claim"), "")?;
    let lost = claim_id(&first.body)?;
    assert_eq!(post(&format!("/states/{ticket}/claim"), "")?.status, 404);

    println!("-- the first worker dies, and its lease ends");
    clock.advance(LEASE);
    let second = post(&format!("/states/{ticket}/claim"), "")?;
    assert_eq!(second.status, 200);
    assert_eq!(post(&format!("/claims/{lost}/ack"), "")?.status, 409);

    println!("-- the second gives it back, takes it again, and is done with it");
    assert_eq!(post(&format!("/claims/{}/release", claim_id(&second.body)?), "")?.status, 204);
    let third = post(&format!("/states/{ticket}/claim"), "")?;
    assert_eq!(post(&format!("/claims/{}/ack", claim_id(&third.body)?), "")?.status, 204);
    assert_eq!(post(&format!("/states/{ticket}/claim"), "")?.status, 404);
    Ok(())
}

/// A path whose ids are cut to what can be read.
fn shortened(path: &str) -> String {
    path.split('/')
        .map(|part| if part.len() > 20 { "{id}" } else { part })
        .collect::<Vec<_>>()
        .join("/")
}

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let dir = tempfile::tempdir()?;
    // Only so that no one has to wait for the end of a lease here; leave it out for the system's
    // clock.
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let room = Cloakroom::builder().clock(clock.clone()).open(dir.path().join("checks.cloak"))?;
    let app = app(Arc::new(room.handoff()));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let server = listener.local_addr()?;
        tokio::spawn(async move { serve(listener, app).await });
        tokio::task::spawn_blocking(move || play(server, &clock)).await?
    })?;
    drop(runtime);

    room.close()?;
    Ok(())
}
