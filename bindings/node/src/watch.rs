//! The changes of a room, one promise each.

use crate::failure::Failure;
use crate::js::{Js, Settler};
use crate::out::Out;
use cloakroom::stats::StoreKind;
use cloakroom::watch::{ChangeKind, Filter, Watch, WatchError};
use napi_derive::napi;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

const KINDS: [(StoreKind, &str); 7] = [
    (StoreKind::FORM_TOKENS, "formTokens"),
    (StoreKind::HANDOFF, "handoff"),
    (StoreKind::CACHE, "cache"),
    (StoreKind::DEDUPE, "dedupe"),
    (StoreKind::RATE_LIMIT, "rateLimit"),
    (StoreKind::ADAPTIVE_RATE_LIMIT, "adaptiveRateLimit"),
    (StoreKind::STATE, "state"),
];

pub fn store_name(kind: StoreKind) -> &'static str {
    KINDS.iter().find(|(known, _)| *known == kind).map_or("other", |(_, name)| name)
}

pub fn kind_name(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Put => "put",
        ChangeKind::Consumed => "consumed",
        ChangeKind::ResultSet => "resultSet",
        ChangeKind::Claimed => "claimed",
        ChangeKind::Released => "released",
        ChangeKind::Configured => "configured",
        ChangeKind::Paused => "paused",
        ChangeKind::Resumed => "resumed",
        ChangeKind::Removed => "removed",
        ChangeKind::Expired => "expired",
        _ => "other",
    }
}

/// What a caller wants to see.
#[napi(object)]
pub struct WatchOptions {
    pub store: Option<String>,
    pub name: Option<String>,
    pub prefix: Option<String>,
    pub tenant: Option<String>,
    pub buffer: Option<u32>,
}

impl WatchOptions {
    pub fn filter(self) -> Result<Filter, Failure> {
        let mut filter = match self.store {
            None => Filter::all(),
            Some(store) => {
                let kind = KINDS.iter().find(|(_, name)| *name == store);
                let Some((kind, _)) = kind else {
                    return Err(Failure::argument(format!("no store is called {store}")));
                };
                Filter::store(*kind)
            }
        };
        if let Some(name) = self.name {
            filter = filter.named(&name);
        }
        if let Some(prefix) = self.prefix {
            filter = filter.prefix(&prefix);
        }
        if let Some(tenant) = self.tenant {
            filter = filter.tenant(&tenant);
        }
        if let Some(buffer) = self.buffer {
            filter = filter.buffer(buffer as usize);
        }
        Ok(filter)
    }
}

/// `None` when it was ended, and who waits for the next change.
#[derive(Default)]
struct Feed {
    watch: Option<Watch>,
    waker: Option<Waker>,
}

/// The next change; `undefined` when there will be none.
struct Next(Rc<RefCell<Feed>>);

impl Future for Next {
    type Output = Result<Out, Failure>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut feed = self.0.borrow_mut();
        let Some(watch) = feed.watch.as_mut() else { return Poll::Ready(Ok(Out::Undefined)) };
        match watch.poll_recv(context) {
            Poll::Ready(Ok(change)) => Poll::Ready(Ok(change.into())),
            Poll::Ready(Err(WatchError::Closed)) => Poll::Ready(Ok(Out::Undefined)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Pending => {
                feed.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[napi]
pub struct NativeWatch {
    settler: Rc<Settler>,
    feed: Rc<RefCell<Feed>>,
}

impl NativeWatch {
    pub fn new(settler: Rc<Settler>, watch: Watch) -> Self {
        let feed = Rc::new(RefCell::new(Feed { watch: Some(watch), waker: None }));
        Self { settler, feed }
    }
}

#[napi]
impl NativeWatch {
    #[napi]
    pub fn next(&self) -> Js {
        self.settler.promise_of(Next(Rc::clone(&self.feed)))
    }

    #[napi]
    pub fn end(&self) {
        let feed = std::mem::take(&mut *self.feed.borrow_mut());
        drop(feed.watch);
        if let Some(waker) = feed.waker {
            waker.wake();
        }
    }
}
