//! What must hold of a log that is not damaged: the rows of the table that end in "corrupted".

use super::ScannedLog;
use crate::error::{Error, Result};
use crate::log::segment::DATA_START;

impl ScannedLog {
    pub(super) fn check_headers(&self) -> Result<()> {
        let [older, newer] = self.parts().map(|part| part.scan.header.generation);
        if older.checked_add(1) != Some(newer) {
            return Err(self.older.damaged(
                0,
                format!(
                    "its newest header has generation {older} and that of log segment {} has {newer}, but they must \
                     differ by one: a newer header was lost",
                    self.newer.index
                ),
            ));
        }
        for part in self.parts() {
            if let Some(frame) = part.scan.newer {
                return Err(part.damaged(
                    frame.offset,
                    format!(
                        "the frame with LSN {} has generation {}, above the generation {} of the newest valid header \
                         of the segment: a newer header was lost",
                        frame.lsn, frame.generation, part.scan.header.generation
                    ),
                ));
            }
            let btree_lsn_then = part.scan.header.btree_lsn;
            if btree_lsn_then > self.btree_lsn {
                return Err(Error::corrupted(
                    "B-tree",
                    format!(
                        "it is at LSN {}, but it had durably reached LSN {btree_lsn_then} when log segment {} was \
                         recycled: its later commits were lost",
                        self.btree_lsn, part.index
                    ),
                ));
            }
        }
        Ok(())
    }

    pub(super) fn check_frames(&self) -> Result<()> {
        for part in self.parts() {
            if let Some(frame) = part.scan.valid().find(|frame| frame.durable_lsn >= frame.lsn) {
                return Err(part.damaged(
                    frame.offset,
                    format!(
                        "the frame with LSN {} says that LSN {} was durable before it was written",
                        frame.lsn, frame.durable_lsn
                    ),
                ));
            }
            if part.scan.inconclusive {
                return Err(part.damaged(
                    part.scan.end,
                    format!(
                        "{}, followed by too many bytes that look like frames and are not: it is unknown \
                         whether acknowledged frames were lost",
                        part.scan.fault
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The sequence of LSNs must lead from the B-tree through both segments without a gap.
    pub(super) fn check_order(&self) -> Result<()> {
        let next_of_btree = self.btree_lsn.saturating_add(1);
        if let Some(first_lsn) = self.older.scan.first_lsn()
            && first_lsn > next_of_btree
        {
            return Err(self.older.damaged(
                DATA_START,
                format!(
                    "the first frame of the log has LSN {first_lsn}, but the B-tree ends at LSN {}",
                    self.btree_lsn
                ),
            ));
        }
        let Some(first_lsn) = self.newer.scan.first_lsn() else { return Ok(()) };
        let older_last = self.older.scan.last_lsn().unwrap_or_default();
        if first_lsn <= older_last {
            return Err(self.newer.damaged(
                DATA_START,
                format!(
                    "the segment begins with LSN {first_lsn}, but log segment {}, written before it, ends at \
                     LSN {older_last}",
                    self.older.index
                ),
            ));
        }
        let expected = older_last.max(self.btree_lsn).saturating_add(1);
        if first_lsn > expected {
            return Err(self.older.damaged(
                self.older.scan.end,
                format!(
                    "{} instead of the frame with LSN {expected}, which was acknowledged, because log segment {} \
                     begins at LSN {first_lsn}",
                    self.older.scan.fault,
                    self.newer.index
                ),
            ));
        }
        Ok(())
    }

    /// No valid frame may carry a durable LSN that was not recovered.
    pub(super) fn check_known_durable(&self) -> Result<()> {
        let recovered = self.recovered();
        let carriers = self.parts().into_iter().flat_map(|part| {
            let beyond = part.scan.beyond.map(|beyond| beyond.max_durable);
            part.scan.valid().copied().chain(beyond).map(|frame| (part.index, frame))
        });
        let Some((carrier_index, carrier)) = carriers.max_by_key(|(_, frame)| frame.durable_lsn)
        else {
            return Ok(());
        };
        if carrier.durable_lsn <= recovered {
            return Ok(());
        }
        // The first missing frame was the next one of the segment in which the sequence of LSNs
        // ends, or the first of the newer segment if the older one shows no damage.
        let older_is_whole = self.older.scan.beyond.is_none() && self.newer.scan.beyond.is_some();
        let part =
            if self.newer.is_started() || older_is_whole { &self.newer } else { &self.older };
        let missing = recovered.saturating_add(1);
        Err(part.damaged(
            part.scan.end,
            format!(
                "{} in the frame acknowledged at LSN {missing}: the frame at log segment {carrier_index}, offset {} \
                 was written when everything up to LSN {} was durable",
                part.scan.fault,
                carrier.offset,
                carrier.durable_lsn
            ),
        ))
    }
}
