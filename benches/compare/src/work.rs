//! What is asked of a contender: consume a token that was stored before, or the whole life of one.

use crate::tokens::Tokens;
use serde::{Deserialize, Serialize};

/// What a run measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    /// Tokens that were stored before the clock started are consumed.
    Consume,
    /// Each caller inserts a token, and when that is durable consumes it. The token ends soon
    /// after.
    Lifecycle,
}

impl Work {
    /// What is counted.
    pub fn unit(self) -> &'static str {
        match self {
            Work::Consume => "consume",
            Work::Lifecycle => "life",
        }
    }

    /// More than one of what is counted.
    pub fn units(self) -> &'static str {
        match self {
            Work::Consume => "consumes",
            Work::Lifecycle => "lives",
        }
    }
}

/// One durable operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Stores the token, which is good until then, in Unix seconds.
    Insert { ends: u64 },
    /// Marks the token as consumed, if it may be.
    Consume,
    /// Removes the token, whose life is over.
    Remove,
}

/// One operation on one token.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub op: Op,
    pub token: u32,
}

impl Request {
    /// The first operation on the token that comes next.
    pub fn first(work: Work, tokens: &Tokens, token: u32) -> Self {
        let op = match work {
            Work::Consume => Op::Consume,
            Work::Lifecycle => Op::Insert { ends: tokens.begin(token) },
        };
        Self { op, token }
    }

    /// What the caller does once this is durable.
    pub fn next(self) -> Option<Self> {
        matches!(self.op, Op::Insert { .. }).then_some(Self { op: Op::Consume, ..self })
    }
}

/// What a contender has of a token after it was opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Absent,
    /// There, and not consumed.
    Fresh,
    Consumed,
}

impl State {
    /// The state of a token that is there.
    pub fn stored(is_consumed: bool) -> Self {
        if is_consumed { State::Consumed } else { State::Fresh }
    }
}
