//! A form that no one can forge and that cannot be sent twice: axum, the form tokens of `codlet`,
//! and a room.
//!
//! `cargo run --example csrf_form --features codlet` starts the server, plays a browser against it,
//! and ends.
//!
//! The token in the form is issued by `codlet`'s `FormTokenManager`. It is consumed in one
//! transaction with the order that it stands for: `FormTokenManager::consume` answers `Ok(None)` to
//! the first sender, but also to one who sends again before the result is stored, and a crash in
//! between would leave a token that is spent for nothing. In `room.atomically` there is no such
//! moment.

mod http;

use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Html;
use axum::routing::get;
use axum::{Router, serve};
use cloakroom::codlet::{CodletClock, CodletStore};
use cloakroom::handoff::JsonObject;
use cloakroom::{Cloakroom, Error};
use codlet::{
    Clock, FormTokenManager, KeyError, LookupKey, NoopAuditSink, SecretDomain, SecretHasher,
    StaticKeyProvider, SubjectId, SystemRandom, TokenConsumeOutcome, TokenSubject,
};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// What the token is good for. A token of another form of this site is refused.
const PURPOSE: &str = "order";
/// How long somebody may look at the form.
const FORM_TTL: Duration = Duration::from_secs(3_600);
/// How long an order waits to be shipped.
const ORDER_TTL_SECONDS: u64 = 30 * 24 * 3_600;

type Hasher = SecretHasher<StaticKeyProvider>;

struct Shop {
    room: Cloakroom,
    hasher: Hasher,
    forms: FormTokenManager<CodletStore, StaticKeyProvider, CodletClock, NoopAuditSink>,
    clock: CodletClock,
}

impl Shop {
    fn new(room: Cloakroom, hasher: Hasher) -> Self {
        let store = room.codlet();
        let clock = store.clock();
        let forms =
            FormTokenManager::new(store, hasher.clone(), clock.clone(), NoopAuditSink, FORM_TTL);
        Self { room, hasher, forms, clock }
    }

    /// The lookup keys of a token: one for each key that is held, so that forms survive a key
    /// rotation.
    fn candidates(&self, token: &str) -> Result<Vec<LookupKey>, KeyError> {
        let candidates = self.hasher.lookup_key_candidates(SecretDomain::FormToken, token)?;
        Ok(candidates.into_iter().map(|(key, _version)| key).collect())
    }
}

fn app(shop: Arc<Shop>) -> Router {
    Router::new().route("/order", get(show_form).post(place_order)).with_state(shop)
}

/// Who is asking. A real site would ask `codlet`'s `SessionManager` about the cookie.
fn visitor(headers: &HeaderMap) -> Result<TokenSubject, StatusCode> {
    let cookie = headers.get(header::COOKIE).and_then(|cookie| cookie.to_str().ok());
    let name = cookie
        .and_then(|cookie| cookie.strip_prefix("session="))
        .ok_or(StatusCode::UNAUTHORIZED)?;
    Ok(TokenSubject::Authenticated(SubjectId::new(name.to_owned())))
}

async fn show_form(
    State(shop): State<Arc<Shop>>,
    headers: HeaderMap,
) -> Result<Html<String>, StatusCode> {
    let token = shop.forms.issue(&mut SystemRandom::new(), visitor(&headers)?, PURPOSE, None).await;
    let token = token.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(Html(format!(
        r#"<form method="post"><input type="hidden" name="token" value="{}"><input name="item"><button>Order</button></form>"#,
        token.expose()
    )))
}

async fn place_order(
    State(shop): State<Arc<Shop>>,
    headers: HeaderMap,
    Form(fields): Form<HashMap<String, String>>,
) -> Result<String, StatusCode> {
    let subject = visitor(&headers)?;
    let (Some(token), Some(item)) = (fields.get("token"), fields.get("item")) else {
        return Err(StatusCode::BAD_REQUEST);
    };
    let candidates = shop.candidates(token).map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let now = shop.clock.unix_now();
    let order = JsonObject::from_iter([("item".to_owned(), item.as_str().into())]);
    let receipt = format!("order-{}", ulid());
    let placed = shop.room.atomically(|tx| {
        let mut tokens = tx.codlet();
        let (outcome, earlier) =
            tokens.consume_form_token(&candidates, &subject, PURPOSE, None, now)?;
        if outcome == TokenConsumeOutcome::Proceed {
            tokens.set_token_result(&candidates, &receipt)?;
            tx.handoff().set(&receipt, &order, ORDER_TTL_SECONDS)?;
        }
        Ok::<_, Error>((outcome, earlier))
    });
    match placed.await {
        Ok((TokenConsumeOutcome::Proceed, _)) => Ok(format!("ordered: {receipt}")),
        // The browser sent it again; it gets the answer of the first time.
        Ok((TokenConsumeOutcome::Replay, earlier)) => {
            Ok(format!("ordered: {}", earlier.unwrap_or_default()))
        }
        Ok((TokenConsumeOutcome::Invalid, _)) => Err(StatusCode::FORBIDDEN),
        Err(_) => Err(StatusCode::SERVICE_UNAVAILABLE),
    }
}

/// A name for an order that no other order has.
fn ulid() -> String {
    ulid::Ulid::generate().to_string()
}

/// What a browser, and then a forger, would do.
fn play(server: SocketAddr) -> std::io::Result<()> {
    let (ada, eve) = ("Cookie: session=ada", "Cookie: session=eve");
    let send = |cookie: &str, token: &str| {
        let headers = [cookie, "Content-Type: application/x-www-form-urlencoded"];
        http::request(server, "POST", "/order", &headers, &format!("token={token}&item=umbrella"))
    };

    let form = http::request(server, "GET", "/order", &[ada], "")?;
    let token =
        form.body.split("value=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("");
    println!(
        "GET  /order                  {}: a form with a token of {} characters",
        form.status,
        token.len()
    );

    let stolen = send(eve, token)?;
    println!("POST /order, somebody else   {}", stolen.status);
    assert_eq!(stolen.status, 403);

    let first = send(ada, token)?;
    println!("POST /order                  {}: {}", first.status, first.body);
    assert_eq!(first.status, 200);

    let again = send(ada, token)?;
    println!("POST /order, once more       {}: {}", again.status, again.body);
    assert_eq!((again.status, again.body), (200, first.body));

    let forged = send(ada, &"0".repeat(64))?;
    println!("POST /order, a made-up token {}", forged.status);
    assert_eq!(forged.status, 403);
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let room = Cloakroom::open(dir.path().join("shop.cloak"))?;
    // A real key comes from where secrets are kept; anyone who knows it can make lookup keys.
    let hasher = SecretHasher::new(StaticKeyProvider::single("2026-11", vec![7; 32])?);
    let app = app(Arc::new(Shop::new(room.clone(), hasher)));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let server = listener.local_addr()?;
        tokio::spawn(async move { serve(listener, app).await });
        tokio::task::spawn_blocking(move || play(server)).await?
    })?;
    drop(runtime);

    assert_eq!(room.handoff().stats().wait()?.live, 1);
    println!("one order waits to be shipped, whatever was sent");
    room.close()?;
    Ok(())
}
