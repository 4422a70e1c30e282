//! An HTTP client that asks for nothing twice: what it has, it takes from the cache; what somebody
//! is fetching, it waits for; and what it must fetch itself, it fetches no faster than the origin
//! allows.
//!
//! `cargo run --example cached_client` starts an origin, lets eight threads ask it for the same
//! pages and for different ones, and ends.
//!
//! The cache, the jobs and the windows of the limiter are in one file, so they outlive the process:
//! after a restart the pages are still there, and the origin is still spared.

mod http;

use axum::http::Uri;
use axum::{Router, serve};
use cloakroom::cache::{Cache, CacheStore};
use cloakroom::dedupe::{Dedupe, DedupeStore, JobId};
use cloakroom::rate_limit::{RateLimit, RateLimitConfig, RateLimitStore};
use cloakroom::{Cloakroom, Error};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What the cache and the jobs are called in the file.
const PAGES: &str = "pages";
/// How long a page is good for.
const TTL_SECONDS: i64 = 600;
/// How often the origin may be asked: twice in any 200 ms.
const ALLOWED: RateLimitConfig = RateLimitConfig { limit: 2, window: Duration::from_millis(200) };

const THREADS: usize = 8;
const PATHS: [&str; 6] = ["/", "/news", "/prices", "/stock", "/offers", "/about"];

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Where a page came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Cache,
    /// Another caller was fetching it.
    Shared,
    Origin,
}

struct Client {
    room: Cloakroom,
    cache: Cache<String>,
    jobs: Dedupe<String>,
    limiter: RateLimit,
    /// How often the limiter said no.
    held_back: AtomicU64,
}

impl Client {
    fn new(room: &Cloakroom) -> Result<Self, Error> {
        Ok(Self {
            room: room.clone(),
            cache: room.cache(PAGES),
            jobs: room.dedupe(PAGES),
            limiter: room.rate_limit("origins", ALLOWED)?,
            held_back: AtomicU64::new(0),
        })
    }

    /// The page at `path` of `origin`.
    fn get(&self, origin: SocketAddr, path: &str) -> Result<(String, Source), Failure> {
        let url = format!("http://{origin}{path}");
        loop {
            if let Some(page) = self.cache.get(&url).wait()? {
                return Ok((page, Source::Cache));
            }
            let job = self.jobs.register_or_join(&url).wait()?;
            if job.is_owner {
                let answer = self.fetch_as_owner(origin, path, &url, &job.job_id);
                if let Err(error) = &answer {
                    // No one should wait for a job whose owner has given up. Theirs is the next
                    // try.
                    self.jobs.fail_owned(&url, &job.job_id, &error.to_string()).wait()?;
                }
                return answer;
            }
            if let Some(page) = self.jobs.wait_for(&url).wait()? {
                return Ok((page, Source::Shared));
            }
        }
    }

    fn fetch_as_owner(
        &self,
        origin: SocketAddr,
        path: &str,
        url: &str,
        job_id: &JobId,
    ) -> Result<(String, Source), Failure> {
        // The last owner may have finished between our look into the cache and our registration.
        if let Some(page) = self.cache.get(url).wait()? {
            self.jobs.complete_owned(url, job_id, &page).wait()?;
            return Ok((page, Source::Cache));
        }
        self.wait_for_a_turn(&origin.to_string())?;
        let answer = http::request(origin, "GET", path, &[], "")?;
        if answer.status != 200 {
            return Err(io::Error::other(format!("{url} answered {}", answer.status)).into());
        }
        let page = answer.body;
        // Together: a caller that finds the job finished finds the page in the cache, also after a
        // crash.
        self.room
            .atomically(|tx| {
                tx.cache(PAGES).set(url, &page, TTL_SECONDS)?;
                tx.dedupe(PAGES).complete_owned(url, job_id, &page)
            })
            .wait()?;
        Ok((page, Source::Origin))
    }

    /// Returns when the origin may be asked, which is recorded.
    fn wait_for_a_turn(&self, origin: &str) -> Result<(), Error> {
        while !self.limiter.acquire(origin).wait()? {
            self.held_back.fetch_add(1, Ordering::Relaxed);
            // Others wait for the same moment, and the first of them takes it.
            thread::sleep(self.limiter.wait_time(origin).wait()?.max(Duration::from_millis(1)));
        }
        Ok(())
    }
}

/// Every thread asks for every page, each beginning with another one. How many pages came from
/// where.
fn ask(client: &Client, origin: SocketAddr) -> Result<BTreeMap<Source, usize>, Failure> {
    let start = Barrier::new(THREADS);
    let caller = |first: usize| {
        start.wait();
        let mut sources = Vec::new();
        for path in PATHS.iter().cycle().skip(first / 2).take(PATHS.len()) {
            let (page, source) = client.get(origin, path)?;
            assert_eq!(page, format!("this is {path}"));
            sources.push(source);
        }
        Ok::<_, Failure>(sources)
    };
    let caller = &caller;
    let answers: Vec<_> = thread::scope(|scope| {
        let callers: Vec<_> =
            (0..THREADS).map(|first| scope.spawn(move || caller(first))).collect();
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap_or_else(|_| Err("a caller panicked".into())))
            .collect()
    });
    let mut counts = BTreeMap::new();
    for answer in answers {
        for source in answer? {
            *counts.entry(source).or_default() += 1;
        }
    }
    Ok(counts)
}

/// How often the origin was asked for each path.
type Asked = Arc<Mutex<BTreeMap<String, u32>>>;

fn play(client: &Client, origin: SocketAddr, asked: &Asked) -> Result<(), Failure> {
    let started = Instant::now();
    let first = ask(client, origin)?;
    let took = started.elapsed();
    println!("{THREADS} threads ask for {} pages each: {first:?} in {took:.0?}", PATHS.len());
    println!("the limiter held back {} times", client.held_back.load(Ordering::Relaxed));

    let second = ask(client, origin)?;
    println!("and once more: {second:?}");

    let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    println!("the origin was asked: {asked:?}");
    assert_eq!(first.get(&Source::Origin), Some(&PATHS.len()));
    assert_eq!(second, BTreeMap::from([(Source::Cache, THREADS * PATHS.len())]));
    assert!(asked.len() == PATHS.len() && asked.values().all(|&times| times == 1));
    // Two at once, two after a window, and two after another one.
    assert!(took > ALLOWED.window, "the limiter let everybody through");
    Ok(())
}

fn main() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let room = Cloakroom::open(dir.path().join("client.cloak"))?;
    let client = Client::new(&room)?;

    let asked = Asked::default();
    let counted = asked.clone();
    let app = Router::new().fallback(move |uri: Uri| async move {
        *counted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(uri.path().to_owned())
            .or_default() += 1;
        format!("this is {}", uri.path())
    });

    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let origin = listener.local_addr()?;
        tokio::spawn(async move { serve(listener, app).await });
        tokio::task::spawn_blocking(move || play(&client, origin, &asked)).await?
    })?;
    drop(runtime);

    room.close()?;
    Ok(())
}
