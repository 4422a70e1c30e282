//! Verification and salvage of arbitrary files.

use super::images;
use crate::error::Error;
use crate::storage::{MemoryStorage, Storage, tempdir};
use crate::tools;
use std::path::Path;
use std::sync::Arc;

/// `data` is a file, or damage to an intact one. Verification and salvage never panic and return
/// only errors that damage may cause. A salvage of a verified file loses nothing, and the file that
/// a salvage writes verifies.
pub fn tools(data: &[u8]) {
    let bytes = images::damaged(data);
    let path = Path::new("(image)");
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::from(bytes.clone()));
    let verified = tools::verify_storage(&storage, path);
    if let Err(error) = &verified {
        assert!(is_honest(error), "{error}");
    }
    let dir = tempdir().unwrap();
    let to = dir.path().join("new.cloak");
    let salvaged = tools::salvage_storage(&storage, path, &to);
    let mut after = vec![0; bytes.len()];
    storage.read_at(0, &mut after).unwrap();
    assert!(
        after == bytes && storage.len().unwrap() == bytes.len() as u64,
        "nothing is written to the damaged file"
    );
    match salvaged {
        Ok(salvaged) => {
            let written = tools::verify(&to).unwrap();
            assert!(written.is_ok() || !salvaged.is_complete(), "{written}");
            if verified.is_ok_and(|report| report.is_ok()) {
                assert!(salvaged.is_complete(), "{salvaged}");
            }
        }
        Err(error) => {
            assert!(is_honest(&error), "{error}");
            assert!(!to.exists(), "an error leaves no file");
        }
    }
}

/// Errors that damage may cause, also damage to the bytes that identify a room and its version.
fn is_honest(error: &Error) -> bool {
    matches!(
        error,
        Error::Corrupted { .. } | Error::NotCloakroom { .. } | Error::UnsupportedVersion { .. }
    )
}
