//! One-time form tokens: exactly one caller, ever, may carry out what a token was issued for.
//!
//! ```
//! use cloakroom::Cloakroom;
//! use cloakroom::form_token::{
//!     Consume, FormTokenRecord, FormTokenStore, LookupKey, Outcome, TokenSubject,
//! };
//!
//! let room = Cloakroom::builder().open_in_memory()?;
//! let tokens = room.form_tokens();
//! let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
//! let (key, subject) = (LookupKey::new("3fa9c1"), TokenSubject::Anonymous);
//! let record = FormTokenRecord::new(key.clone(), subject.clone(), "pay", now + 600);
//! tokens.insert_form_token(record).wait()?;
//! match tokens.consume(Consume::new(&key, &subject, "pay", now)).wait()? {
//!     Outcome::Proceed => { /* pay, and store the receipt */ }
//!     Outcome::Replay { result } => println!("paid already: {result:?}"),
//!     Outcome::Invalid => println!("this form has expired"),
//! }
//! # Ok::<(), cloakroom::Error>(())
//! ```

pub use crate::stores::form_token::{
    FormTokenEntry as Entry, FormTokenRecord, FormTokenStats as Stats, FormTokenStore, FormTokens,
    FormTokensTx as Tx, LookupKey, TokenConsume as Consume, TokenConsumeOutcome,
    TokenOutcome as Outcome, TokenSubject, TokenUse, classify_token_consume,
};
