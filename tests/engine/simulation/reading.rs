//! Everything that a room holds, as its listings and reads tell it.

use super::model::{Binding, Blob, StateView, TokenView, View, lookup_key, record, state_id};
use super::world::{STATES, TOKENS};
use cloakroom::handoff::HandoffStateStore;
use cloakroom::{Cloakroom, Error};

/// Why a room was not read.
#[derive(Debug)]
pub enum Unread {
    Error(Error),
    /// It holds what was never written.
    Garbage(String),
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unread::Error(error) => error.fmt(f),
            Unread::Garbage(what) => write!(f, "it holds what was never written: {what}"),
        }
    }
}

impl From<Error> for Unread {
    fn from(error: Error) -> Self {
        Unread::Error(error)
    }
}

/// Everything that a room holds.
pub fn read(room: &Cloakroom) -> Result<View, Unread> {
    let garbage = |what: &dyn std::fmt::Debug| Unread::Garbage(format!("{what:?}"));
    let mut view = View::default();
    let mut cursor = None;
    loop {
        let page = room.form_tokens().list(cursor.as_ref(), 3).wait()?;
        for entry in page.items {
            let found = (0..TOKENS).find(|key| lookup_key(*key) == entry.record.lookup_key);
            let (key, binding) = (found.ok_or_else(|| garbage(&entry))?, binding_of(&entry.record));
            let binding = binding.ok_or_else(|| garbage(&entry))?;
            let (serial, expires_at) = (entry.record.issued_at, entry.record.expires_at);
            let used = match &entry.consumed {
                None => None,
                Some(used) => {
                    let result =
                        used.result_ref.as_deref().map(|text| Blob::of_text(text).ok_or(()));
                    Some((used.consumed_at, result.transpose().map_err(|()| garbage(&entry))?))
                }
            };
            if entry.record != record(key, serial, binding, expires_at)
                || view
                    .tokens
                    .insert(key, TokenView { serial, binding, expires_at, used })
                    .is_some()
            {
                return Err(garbage(&entry));
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    loop {
        let page = room.handoff().list(cursor.as_ref(), 2).wait()?;
        for entry in page.items {
            let found = (0..STATES).find(|id| state_id(*id) == entry.state_id);
            let id = found.ok_or_else(|| garbage(&entry))?;
            let value = room.handoff().get(&entry.state_id).wait()?;
            let value = value
                .map(|object| Blob::of_json(&object).ok_or_else(|| garbage(&object)))
                .transpose()?;
            let (expires_at_ms, claimed_until_ms, bytes) =
                (entry.expires_at_ms, entry.claimed_until_ms, entry.bytes);
            let seen = StateView { expires_at_ms, claimed_until_ms, value, bytes };
            if view.states.insert(id, seen).is_some() {
                return Err(garbage(&entry));
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(view);
        }
    }
}

fn binding_of(record: &cloakroom::form_token::FormTokenRecord) -> Option<Binding> {
    (0..18).map(|n: u8| Binding { subject: n % 3, purpose: n / 3 % 2, resource: n / 6 }).find(
        |binding| {
            binding.subject() == record.subject
                && binding.purpose() == record.purpose
                && binding.resource() == record.bound_resource
        },
    )
}
