//! How much the expensive tests do.

/// Chooses the number of rounds, seeds or cases of an expensive test: `long` when the environment
/// says `CLOAKROOM_TESTS=long`, as `.ci/run` does, and `short` otherwise. A short run still goes
/// through every test.
///
/// # Panics
/// When `CLOAKROOM_TESTS` has another value than `short` or `long`.
pub fn scaled<T>(short: T, long: T) -> T {
    match std::env::var("CLOAKROOM_TESTS").as_deref() {
        Ok("long") => long,
        Ok("short" | "") | Err(_) => short,
        Ok(other) => panic!("CLOAKROOM_TESTS is {other:?}; it may be short or long"),
    }
}
