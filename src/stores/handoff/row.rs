//! The rows of claim checks. Their key is the state id as it is.

use super::JsonObject;
use super::json;
use crate::codec;
use crate::engine::time_line::{Deadline, Moment};
use crate::error::Result;
use crate::stores::length::check_len;
use crate::tables::Table;

/// What a row adds to the JSON of its state: three integers of at most nine bytes each.
pub(crate) const STATE_ROW_OVERHEAD: usize = 27;

/// A row of [`Table::HANDOFF`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::BorrowDecode)]
pub(crate) struct HandoffRow<'a> {
    pub(crate) expires_at: Deadline,
    pub(crate) json: &'a [u8],
}

/// A row of [`Table::HANDOFF_CLAIM`]. There is none without the state's own row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct ClaimRow {
    /// The ULID of the claim, in the byte order of ULIDs.
    pub(crate) ulid: [u8; 16],
    pub(crate) lease_until: Deadline,
}

impl<'a> HandoffRow<'a> {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        codec::encode(self)
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self> {
        codec::decode_row(Table::HANDOFF.name(), bytes)
    }

    pub(crate) fn is_live(&self, now: &Moment) -> bool {
        !now.has_passed(self.expires_at)
    }

    pub(crate) fn state(&self) -> Result<JsonObject> {
        json::decode(self.json)
    }
}

impl ClaimRow {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        codec::encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        codec::decode_row(Table::HANDOFF_CLAIM.name(), bytes)
    }

    pub(crate) fn is_live(&self, now: &Moment) -> bool {
        !now.has_passed(self.lease_until)
    }
}

/// The key of a state's rows, unless the id is too long to be one.
pub(crate) fn key_of(state_id: &str) -> Result<&[u8]> {
    check_len("the state id", state_id)?;
    Ok(state_id.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use proptest::prelude::*;

    const STATE: HandoffRow<'_> = HandoffRow { expires_at: Deadline::at(300), json: b"{}" };
    const CLAIM: ClaimRow =
        ClaimRow { ulid: *b"0123456789abcdef", lease_until: Deadline::at(70_000) };

    #[test]
    fn a_state_row_round_trips_in_frozen_bytes() {
        let bytes = STATE.encode().unwrap();
        assert_eq!(bytes, b"\0\xfb\x2c\x01\x02{}");
        assert_eq!(HandoffRow::decode(&bytes).unwrap(), STATE);
    }

    #[test]
    fn a_claim_row_round_trips_in_frozen_bytes() {
        let bytes = CLAIM.encode().unwrap();
        assert_eq!(bytes, b"0123456789abcdef\0\xfc\x70\x11\x01\x00");
        assert_eq!(ClaimRow::decode(&bytes).unwrap(), CLAIM);
    }

    #[test]
    fn a_corrupt_byte_is_another_row_or_corruption() {
        let bytes = STATE.encode().unwrap();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            match HandoffRow::decode(&bad) {
                Ok(row) => assert_ne!(row, STATE, "byte {at}"),
                Err(error) => {
                    assert!(matches!(error, Error::Corrupted { .. }), "byte {at}: {error}")
                }
            }
        }
        assert!(matches!(ClaimRow::decode(b"short"), Err(Error::Corrupted { .. })));
    }

    #[test]
    fn a_row_adds_no_more_than_its_overhead() {
        let json = vec![b' '; 1 << 20];
        let row =
            HandoffRow { expires_at: Deadline { epoch: u32::MAX, at_ms: u64::MAX }, json: &json };
        assert!(row.encode().unwrap().len() <= json.len() + STATE_ROW_OVERHEAD);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_corruption(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (HandoffRow::decode(&bytes), ClaimRow::decode(&bytes));
        }
    }
}
