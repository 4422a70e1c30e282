//! Paths as text.

use std::path::Path;

/// A path as text. Bytes that are not Unicode are replaced.
pub fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// A path as a word that can be copied into a shell.
pub fn quoted(path: &Path) -> String {
    let text = shown(path);
    let plain = |c: char| c.is_alphanumeric() || "_./,:=@%+-".contains(c);
    let text = if text.starts_with('-') { format!("./{text}") } else { text };
    if !text.is_empty() && text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A location in the file, without the name of the file.
pub fn within<'a>(location: &'a str, file: &Path) -> &'a str {
    location.strip_prefix(&shown(file)).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(location)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_when_a_shell_would_split_or_expand_it() {
        for (path, word) in [
            ("edge.cloak", "edge.cloak"),
            ("/var/lib/a-b/edge_1.cloak", "/var/lib/a-b/edge_1.cloak"),
            ("über.cloak", "über.cloak"),
            ("my file.cloak", "'my file.cloak'"),
            ("it's.cloak", r"'it'\''s.cloak'"),
            ("$HOME.cloak", "'$HOME.cloak'"),
            ("-x.cloak", "./-x.cloak"),
            ("-x y.cloak", "'./-x y.cloak'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(Path::new(path)), word);
        }
    }
}
