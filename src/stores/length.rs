//! The one limit on what callers pass as text.

use crate::error::{Error, Result};
use crate::limits::MAX_KEY_LEN;

/// Refuses `text` when it is longer than a key may be. `what` names it in the error.
pub(crate) fn check_len(what: &'static str, text: &str) -> Result<()> {
    if text.len() > MAX_KEY_LEN {
        return Err(Error::TooLarge { what, size: text.len() as u64, limit: MAX_KEY_LEN as u64 });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_itself_is_allowed_and_one_more_is_not() {
        assert!(check_len("a key", &"k".repeat(MAX_KEY_LEN)).is_ok());
        assert!(matches!(
            check_len("a key", &"k".repeat(MAX_KEY_LEN + 1)),
            Err(Error::TooLarge { what: "a key", size, limit }) if size == limit + 1
        ));
    }
}
