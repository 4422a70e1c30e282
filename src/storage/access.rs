//! Whose a file is, and who may use it.

use std::fs::File;
use std::io;

/// Gives a new file the owner, the group and the permissions of an old one.
///
/// # Errors
/// That of the system, with what to do. A file whose owner is another one would lock out the
/// program that it is for.
#[cfg(unix)]
pub(super) fn keep_access(old: &File, new: &File) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let (old, now) = (old.metadata()?, new.metadata()?);
    if (old.uid(), old.gid()) != (now.uid(), now.gid()) {
        fchown(new, Some(old.uid()), Some(old.gid()))
            .map_err(|error| not_given(old.uid(), old.gid(), &error))?;
    }
    // A change of the owner may have changed them.
    if old.mode() & PERMISSIONS != new.metadata()?.mode() & PERMISSIONS {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(old.mode() & PERMISSIONS);
        new.set_permissions(permissions)?;
    }
    Ok(())
}

/// The bits of a mode that say who may read, write and execute.
#[cfg(unix)]
const PERMISSIONS: u32 = 0o777;

#[cfg(unix)]
fn not_given(uid: u32, gid: u32, error: &io::Error) -> io::Error {
    let detail = format!(
        "the new file cannot be given the owner of the old one (user {uid}, group {gid}): {error}; \
         do this as that user, or as the superuser"
    );
    io::Error::new(error.kind(), detail)
}

/// On this system the directory decides about owner and permissions.
#[cfg(not(unix))]
pub(super) fn keep_access(_old: &File, _new: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    #[test]
    fn the_new_file_gets_permissions_and_where_the_system_allows_it_the_owner() {
        let (old, new) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        old.set_permissions(PermissionsExt::from_mode(0o640)).unwrap();
        keep_access(&old, &new).unwrap();
        assert_eq!(new.metadata().unwrap().mode() & 0o777, 0o640);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("old");
        std::fs::write(&path, b"").unwrap();
        if chown(&path, Some(12_345), Some(54_321)).is_err() {
            return;
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o660)).unwrap();
        keep_access(&File::open(&path).unwrap(), &new).unwrap();
        let given = new.metadata().unwrap();
        assert_eq!((given.uid(), given.gid(), given.mode() & 0o777), (12_345, 54_321, 0o660));
    }

    #[test]
    fn an_owner_that_cannot_be_given_is_told_with_what_to_do() {
        let error = not_given(12, 34, &io::ErrorKind::PermissionDenied.into());
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let text = error.to_string();
        assert!(text.contains("user 12, group 34") && text.contains("superuser"), "{text}");
    }
}
