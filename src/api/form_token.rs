//! One-time form tokens: exactly one caller, ever, may carry out what a token was issued for.

pub use crate::stores::form_token::{
    FormTokenEntry as Entry, FormTokenRecord, FormTokenStats as Stats, FormTokenStore, FormTokens,
    FormTokensTx as Tx, LookupKey, TokenConsumeOutcome, TokenSubject, TokenUse,
    classify_token_consume,
};
