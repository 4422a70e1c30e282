//! Which start of the operating system this is.

/// The id of this start of the system, where the system gives one: on Linux and Android. Every
/// start has another.
pub(crate) fn boot_id() -> Option<[u8; 16]> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return parsed(&std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    return None;
}

/// The bytes of a UUID in its usual form.
#[cfg(any(test, target_os = "linux", target_os = "android"))]
fn parsed(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.trim().chars().filter(|digit| *digit != '-').collect();
    let is_hex = digits.len() == 32 && digits.chars().all(|digit| digit.is_ascii_hexdigit());
    let number = is_hex.then(|| u128::from_str_radix(&digits, 16).ok()).flatten();
    number.map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_sixteen_bytes_and_anything_else_is_none() {
        let id = parsed("00112233-4455-6677-8899-aabbccddeeff\n").unwrap();
        assert_eq!(id[..3], [0x00, 0x11, 0x22]);
        for text in ["", "0011", "zz112233-4455-6677-8899-aabbccddeeff"] {
            assert_eq!(parsed(text), None, "{text}");
        }
        assert_eq!(boot_id(), boot_id());
    }
}
