//! Copying a room while it is used.

use super::Cloakroom;
use crate::engine::BackupReport;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use std::path::Path;

impl Cloakroom {
    /// Writes the room as it is now to `path`, as a room file of its own, while reading and writing
    /// go on.
    ///
    /// The backup holds one consistent state: every transaction acknowledged before this call, each
    /// transaction whole, and nothing a crash could still take away (what was written with a
    /// relaxed durability is flushed first). It is read back and compared before it gets its name,
    /// in one step. A backup that replaces an earlier one, or an empty file, has its owner, group
    /// and permissions; a new one belongs to the caller alone. So at
    /// `path` there is, at any moment and after any crash, a whole backup or what was there before.
    /// To restore, copy the backup to where the room was, or open it where it is.
    ///
    /// A restored backup is the room *at that moment*. What happened later has not happened there:
    /// form tokens that were consumed and states that were handed over after it can be consumed and
    /// handed over again, and requests counted after it do not count. Jobs that were pending count
    /// as failed, as after every opening. The backup is the same room by its id, so it replaces
    /// earlier backups of it.
    ///
    /// A backup needs space for the live rows beside `path`. Until it has copied them the room
    /// keeps the versions that were current when it began, so a room under heavy writing grows
    /// meanwhile. The call blocks until the backup is in place.
    ///
    /// After the log has failed ([`Error::Poisoned`]) a backup can still be made: it holds what is
    /// known to be durable.
    ///
    /// # Errors
    /// In all cases no temporary file is left, and what is at `path` is as it was:
    /// - [`Error::DifferentRoom`]: another room is there. [`Error::NotCloakroom`],
    ///   [`Error::UnsupportedVersion`], [`Error::Corrupted`]: what is there cannot be recognised as
    ///   a backup of this room.
    /// - [`Error::Locked`]: an earlier backup is there, and open.
    /// - [`Error::InvalidConfig`]: `path` is the room itself.
    /// - [`Error::Corrupted`]: a block of the room is damaged, or the backup is not read back as it
    ///   was written.
    /// - [`Error::DiskFull`], [`Error::Io`], and [`Error::Closed`], also when the room is closed
    ///   meanwhile. One exception: when the directory cannot be flushed at the very end
    ///   ([`Error::Io`]) the new backup may be in place, whole.
    ///
    /// ```
    /// use cloakroom::Cloakroom;
    /// use cloakroom::handoff::HandoffStateStore;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let (path, copy) = (dir.path().join("edge.cloak"), dir.path().join("backup.cloak"));
    /// let room = Cloakroom::open(&path)?;
    /// let state = serde_json::from_str(r#"{"cart": [1]}"#).unwrap();
    /// room.handoff().set("order-7", &state, 600).wait()?;
    /// let report = room.backup(&copy)?;
    /// assert!(report.rows > 0);
    /// assert!(Cloakroom::open(&copy)?.handoff().get("order-7").wait()?.is_some());
    /// # Ok::<(), cloakroom::Error>(())
    /// ```
    pub fn backup(&self, path: impl AsRef<Path>) -> Result<BackupReport> {
        self.engine.backup(path.as_ref(), &mut |_, _| {})
    }

    /// As [`backup`](Self::backup), telling `progress` from time to time how many rows are copied
    /// and about how many there are. It should be quick; the backup waits for it.
    ///
    /// # Errors
    /// As [`backup`](Self::backup).
    pub fn backup_with_progress(
        &self,
        path: impl AsRef<Path>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<BackupReport> {
        self.engine.backup(path.as_ref(), progress)
    }
}
