//! `cloakroom salvage`: what is intact in a damaged file, in a new one.

use crate::output::quoted;
use std::path::{Path, PathBuf};

/// The command line that salvages `file` into a new file beside it.
pub fn command(file: &Path) -> String {
    format!("cloakroom salvage {} {}", quoted(file), quoted(&target(file)))
}

/// A free name for what is salvaged from `file`: `edge.salvaged.cloak` for `edge.cloak`.
fn target(file: &Path) -> PathBuf {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let extension = file.extension().map_or("cloak".into(), |extension| extension.to_string_lossy());
    let named = |number: &str| file.with_file_name(format!("{stem}.salvaged{number}.{extension}"));
    let is_free = |path: &PathBuf| path.symlink_metadata().is_err();
    let numbered = (2..100).map(|number| named(&format!("-{number}")));
    std::iter::once(named("")).chain(numbered).find(is_free).unwrap_or_else(|| named(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_file_has_a_name_of_its_own_beside_the_damaged_one() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert_eq!(target(&at("edge.cloak")), at("edge.salvaged.cloak"));
        assert_eq!(target(&at("edge")), at("edge.salvaged.cloak"));
        std::fs::write(at("edge.salvaged.cloak"), "").unwrap();
        assert_eq!(target(&at("edge.cloak")), at("edge.salvaged-2.cloak"));
        assert_eq!(
            command(Path::new("my edge.cloak")),
            "cloakroom salvage 'my edge.cloak' 'my edge.salvaged.cloak'"
        );
    }
}
