//! What the files of a room may be read by, tried by a user who is not root.
//!
//! The test starts this program again as user 65534 under each umask. Only root can do that: as
//! another user it runs the same steps as itself.

use cloakroom::Cloakroom;
use cloakroom::handoff::{HandoffStateStore, JsonObject};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

const STEPS: &str = "ownership::files_of_a_user_who_is_not_root_are_for_the_owner_alone";
const PLACE: &str = "CLOAKROOM_TEST_PATH";
const OTHER_USER: u32 = 65_534;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Makes every kind of file that the library makes, and checks who may read it.
fn steps(dir: &Path) {
    let me = fs::metadata(dir).unwrap().uid();
    let owned = |path: &Path, expected: u32| {
        assert_eq!(mode(path), expected, "{}", path.display());
        assert_eq!(fs::metadata(path).unwrap().uid(), me, "{}", path.display());
    };
    let [room_path, backup, salvaged, imported] =
        ["room.cloak", "backup.cloak", "salvaged.cloak", "imported.cloak"]
            .map(|name| dir.join(name));
    let room = Cloakroom::open(&room_path).unwrap();
    owned(&room_path, 0o600);
    room.handoff().set("s", &JsonObject::new(), 600).wait().unwrap();
    room.backup(&backup).unwrap();
    owned(&backup, 0o600);
    let mut export = Vec::new();
    room.export(&mut export).unwrap();
    room.close().unwrap();
    drop(room);
    cloakroom::tools::salvage(&room_path, &salvaged).unwrap();
    owned(&salvaged, 0o600);
    let copy = Cloakroom::open(&imported).unwrap();
    copy.import(&mut export.as_slice()).unwrap();
    copy.close().unwrap();
    owned(&imported, 0o600);
    // Bits that the owner gave on purpose stay.
    fs::set_permissions(&room_path, fs::Permissions::from_mode(0o640)).unwrap();
    Cloakroom::open(&room_path).unwrap().close().unwrap();
    owned(&room_path, 0o640);
    // Nothing else is left behind.
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["backup.cloak", "imported.cloak", "room.cloak", "salvaged.cloak"]);
}

#[test]
fn files_of_a_user_who_is_not_root_are_for_the_owner_alone() {
    if let Some(place) = std::env::var_os(PLACE) {
        return steps(Path::new(&place));
    }
    // A place that the other user may enter, with a copy of this program that it may run.
    let top = tempfile::tempdir().unwrap();
    fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = top.path().join("steps");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let is_root = fs::metadata(top.path()).unwrap().uid() == 0;
    if !is_root {
        eprintln!("not root: the steps run as this user");
    }
    for umask in ["000", "022", "077"] {
        let place = top.path().join(umask);
        fs::create_dir(&place).unwrap();
        let mut shell = Command::new("sh");
        let script = format!("umask {umask} && exec \"$0\" --exact {STEPS} --nocapture");
        shell.arg("-c").arg(script).arg(&program).env(PLACE, &place).current_dir(&place);
        if is_root {
            std::os::unix::fs::chown(&place, Some(OTHER_USER), Some(OTHER_USER)).unwrap();
            shell.uid(OTHER_USER).gid(OTHER_USER);
        }
        let output = shell.output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        let shown = format!("{told}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "umask {umask}: {shown}");
        assert!(told.contains("1 passed"), "umask {umask}: {shown}");
    }
}
