#![no_main]

use std::sync::Once;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // The fuzzer's own hook ends the process at every panic, also at one that the room catches and
    // turns into an error, as it does for damage that the B-tree under it does not expect. A panic
    // that leaves the target still ends the process.
    static HOOK: Once = Once::new();
    HOOK.call_once(|| std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))));
    cloakroom::fuzzing::open(data);
});
