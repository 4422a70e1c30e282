//! Rooms in odd places: files that exist already, files that are waited for, long names, files of
//! other users, directories that may not be read, files that are mounted by themselves.

use crate::forked::{alone, in_a_child};
use crate::rooms::{insert, names, small, state};
use cloakroom::handoff::HandoffStateStore;
use cloakroom::{Cloakroom, Error};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

/// A user who is not this one.
const OTHER: u32 = 12_345;

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.cloak");
    (dir, path)
}

fn is_superuser() -> bool {
    // SAFETY: it only asks.
    unsafe { libc::geteuid() == 0 }
}

fn become_another_user() {
    // SAFETY: it changes the user of this process, which is a child that does nothing else.
    assert_eq!(unsafe { libc::setegid(OTHER) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::seteuid(OTHER) }, 0);
}

fn access(path: &Path) -> (u32, u32, u32) {
    let found = fs::metadata(path).unwrap();
    (found.uid(), found.gid(), found.mode() & 0o777)
}

#[test]
fn an_empty_file_becomes_a_room_and_keeps_who_may_use_it() {
    let (dir, path) = place();
    fs::write(&path, b"").unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o660)).unwrap();
    let (before, inode) = (access(&path), fs::metadata(&path).unwrap().ino());
    let room = small().open(&path).unwrap();
    room.handoff().set("kept", &state(7), 600).wait().unwrap();
    room.close().unwrap();
    assert_eq!((access(&path), fs::metadata(&path).unwrap().ino()), (before, inode));
    assert_eq!(names(dir.path()), ["edge.cloak"]);
    let room = small().open(&path).unwrap();
    assert_eq!(room.handoff().get("kept").wait().unwrap(), Some(state(7)));
    // As helpers for temporary files make it.
    let temporary = tempfile::NamedTempFile::new().unwrap();
    let room = small().open(temporary.path()).unwrap();
    insert(&room.form_tokens(), "t").wait().unwrap();
    assert!(room.verify().unwrap().is_ok());
}

#[test]
fn of_many_that_open_an_empty_file_at_once_one_gets_it() {
    for _ in 0..10 {
        let (_dir, path) = place();
        fs::write(&path, b"").unwrap();
        let opened: Vec<_> = scope(|scope| {
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(|| small().open(&path))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(opened.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        assert!(opened.iter().all(|outcome| matches!(outcome, Ok(_) | Err(Error::Locked { .. }))));
    }
}

#[test]
fn a_killed_creator_in_an_empty_file_is_followed_by_one_that_begins_anew() {
    let (_dir, path) = place();
    let whole = {
        drop(small().open(&path).unwrap());
        fs::read(&path).unwrap()
    };
    // What is on the disk before the superblock: the mark, and any part of the rest.
    fs::write(&path, b"").unwrap();
    let mark = b"This file is becoming a cloakroom file. Opening it begins anew.\n";
    for len in [mark.len(), 4_096, 8_192, whole.len() / 2, whole.len()] {
        let mut left = whole[..len].to_vec();
        left[..mark.len()].copy_from_slice(mark);
        let second = left.len().min(4_096)..left.len().min(8_192);
        left[second].fill(0);
        fs::write(&path, &left).unwrap();
        let refused = Cloakroom::open_read_only(&path);
        assert!(matches!(refused, Err(Error::NotCloakroom { .. })), "{refused:?}");
        let room = small().open(&path).unwrap();
        insert(&room.form_tokens(), "t").wait().unwrap();
        assert!(room.verify().unwrap().is_ok(), "{len} bytes were left");
    }
}

#[test]
fn an_empty_file_is_no_room_for_a_reader_and_stays_empty() {
    let (_dir, path) = place();
    fs::write(&path, b"").unwrap();
    let refused = Cloakroom::open_read_only(&path).unwrap_err();
    assert!(matches!(&refused, Error::NotCloakroom { reason, .. } if reason.contains("empty")));
    assert_eq!(fs::read(&path).unwrap(), b"");
}

#[test]
fn a_locked_file_is_waited_for_as_long_as_asked() {
    let (_dir, path) = place();
    let room = small().open(&path).unwrap();
    let began = Instant::now();
    assert!(matches!(small().open(&path), Err(Error::Locked { .. })));
    assert!(began.elapsed() < Duration::from_millis(500), "by default nothing is waited for");
    let (wait, began) = (Duration::from_millis(300), Instant::now());
    assert!(matches!(small().lock_timeout(wait).open(&path), Err(Error::Locked { .. })));
    assert!(began.elapsed() >= wait && began.elapsed() < 20 * wait, "{:?}", began.elapsed());
    // The clock of `small` stands still; the time that is waited is real.
    let next = scope(|scope| {
        let next = scope.spawn(|| small().lock_timeout(Duration::MAX).open(&path).unwrap());
        sleep(Duration::from_millis(50));
        room.close().unwrap();
        next.join().unwrap()
    });
    let reader = scope(|scope| {
        let patient = || small().read_only(true).lock_timeout(Duration::from_secs(60));
        let reader = scope.spawn(move || patient().open(&path).unwrap());
        sleep(Duration::from_millis(50));
        next.close().unwrap();
        reader.join().unwrap()
    });
    drop(reader);
}

#[test]
fn a_name_may_be_as_long_as_the_file_system_allows() {
    for len in [100, 101, 127, 128, 143, 144, 255] {
        for letter in ["n", "ä", "字"] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(letter.repeat(len / letter.len()));
            let room = small().open(&path).unwrap();
            insert(&room.form_tokens(), "t").wait().unwrap();
            let copy = dir.path().join("x".repeat(len));
            room.backup(&copy).unwrap();
            room.backup(&copy).unwrap();
            assert_eq!(names(dir.path()).len(), 2);
        }
    }
}

/// A directory that may be entered and written, but not read.
#[test]
fn a_directory_that_may_not_be_read_takes_a_room() {
    if !is_superuser() || !alone("places::a_directory_that_may_not_be_read_takes_a_room") {
        return;
    }
    let (dir, path) = place();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o333)).unwrap();
    in_a_child(|| {
        become_another_user();
        assert!(fs::read_dir(path.parent().unwrap()).is_err());
        for name in ["edge.cloak", "empty.cloak"] {
            let path = path.with_file_name(name);
            if name == "empty.cloak" {
                fs::write(&path, b"").unwrap();
            }
            let room = small().open(&path).unwrap();
            insert(&room.form_tokens(), "t").wait().unwrap();
            room.backup(path.with_extension("copy")).unwrap();
            room.close().unwrap();
            small().open(&path).unwrap().close().unwrap();
        }
    });
}

#[test]
fn salvage_and_backup_leave_a_file_to_its_owner() {
    let (dir, path) = place();
    let room = small().open(&path).unwrap();
    insert(&room.form_tokens(), "t").wait().unwrap();
    // A backup that is made anew belongs to who makes it; one that replaces a file is whose it was.
    let (new, empty) = (dir.path().join("new.cloak"), dir.path().join("empty.cloak"));
    fs::write(&empty, b"").unwrap();
    fs::set_permissions(&empty, PermissionsExt::from_mode(0o640)).unwrap();
    if is_superuser() {
        chown(&empty, Some(OTHER), Some(OTHER)).unwrap();
    }
    let owned = access(&empty);
    room.backup(&new).unwrap();
    room.backup(&empty).unwrap();
    room.backup(&empty).unwrap();
    assert_eq!(access(&new).2, 0o600);
    assert_eq!(access(&empty), owned);
    room.close().unwrap();

    fs::set_permissions(&path, PermissionsExt::from_mode(0o660)).unwrap();
    if is_superuser() {
        chown(&path, Some(OTHER), Some(OTHER + 1)).unwrap();
    }
    let rescued = dir.path().join("rescued.cloak");
    let report = cloakroom::tools::salvage(&path, &rescued).unwrap();
    assert_eq!(access(&rescued), access(&path));
    assert_eq!(report.notes, [""; 0]);
}

#[test]
fn who_may_not_give_a_file_away_is_told_and_locks_no_one_out() {
    let name = "places::who_may_not_give_a_file_away_is_told_and_locks_no_one_out";
    if !is_superuser() || !alone(name) {
        return;
    }
    let (dir, path) = place();
    let room = small().open(&path).unwrap();
    let copy = dir.path().join("copy.cloak");
    room.backup(&copy).unwrap();
    room.close().unwrap();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    for file in [&path, &copy] {
        fs::set_permissions(file, PermissionsExt::from_mode(0o666)).unwrap();
    }
    let rescued = dir.path().join("rescued.cloak");
    in_a_child(|| {
        become_another_user();
        let report = cloakroom::tools::salvage(&path, &rescued).unwrap();
        let note = report.notes.join("\n");
        assert!(note.contains("user 0, group 0") && note.contains("chown"), "{note}");
        assert_eq!(access(&rescued), (OTHER, OTHER, 0o600));
        let room = small().open(&path).unwrap();
        let refused = room.backup(&copy).unwrap_err().to_string();
        assert!(refused.contains("user 0, group 0") && refused.contains("superuser"), "{refused}");
    });
    assert_eq!(access(&copy), (0, 0, 0o666));
    assert!(cloakroom::tools::verify(&copy).unwrap().is_ok());
}

/// A room in a file of an older format.
#[cfg(feature = "testing")]
fn older(path: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let new = dir.path().join("new.cloak");
    let room = small().open(&new).unwrap();
    room.handoff().set("kept", &state(7), 600).wait().unwrap();
    room.close().unwrap();
    cloakroom::testing::write_version_1(&new, path).unwrap();
}

#[cfg(feature = "testing")]
#[test]
fn a_migration_leaves_a_file_to_its_owner() {
    let (dir, path) = place();
    older(&path);
    fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    if is_superuser() {
        chown(&path, Some(OTHER), Some(OTHER + 1)).unwrap();
    } else {
        eprintln!("not root: the file is this user's");
    }
    let (before, inode) = (access(&path), fs::metadata(&path).unwrap().ino());
    let room = small().open(&path).unwrap();
    assert_eq!(room.handoff().get("kept").wait().unwrap(), Some(state(7)));
    room.close().unwrap();
    assert_eq!(access(&path), before);
    assert_ne!(fs::metadata(&path).unwrap().ino(), inode, "it was not replaced");
    assert_eq!(names(dir.path()), ["edge.cloak"]);
}

#[cfg(feature = "testing")]
#[test]
fn another_user_migrates_files_of_his_own_and_is_told_about_those_of_others() {
    let name = "places::another_user_migrates_files_of_his_own_and_is_told_about_those_of_others";
    if !is_superuser() || !alone(name) {
        return;
    }
    let (dir, path) = place();
    let foreign = dir.path().join("foreign.cloak");
    older(&path);
    older(&foreign);
    chown(&path, Some(OTHER), Some(OTHER)).unwrap();
    fs::set_permissions(&foreign, PermissionsExt::from_mode(0o666)).unwrap();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let before = fs::read(&foreign).unwrap();
    in_a_child(|| {
        become_another_user();
        let room = small().open(&path).unwrap();
        assert_eq!(room.handoff().get("kept").wait().unwrap(), Some(state(7)));
        assert_eq!(access(&path), (OTHER, OTHER, 0o600));
        let refused = small().open(&foreign).unwrap_err().to_string();
        assert!(refused.contains("user 0, group 0") && refused.contains("superuser"), "{refused}");
        assert!(refused.contains("the file is as it was"), "{refused}");
    });
    assert_eq!(access(&foreign), (0, 0, 0o666));
    assert!(fs::read(&foreign).unwrap() == before, "the file was touched");
    assert_eq!(names(dir.path()), ["edge.cloak", "foreign.cloak"]);
}

/// Runs the rest of the test in a mount namespace of its own, where a file can be mounted.
fn mounts(name: &str) -> bool {
    if !is_superuser() || !alone(name) {
        return false;
    }
    // SAFETY: it separates the mounts of this process, which runs this test alone.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return false;
    }
    let private = Command::new("mount").args(["--make-rprivate", "/"]).status();
    private.is_ok_and(|status| status.success())
}

#[test]
fn a_file_that_is_mounted_by_itself_is_a_room_and_is_not_replaced() {
    if !mounts("places::a_file_that_is_mounted_by_itself_is_a_room_and_is_not_replaced") {
        return;
    }
    let (dir, path) = place();
    let outside = tempfile::tempdir().unwrap();
    for (name, file) in [("room.cloak", &path), ("copy.cloak", &dir.path().join("copy.cloak"))] {
        let real = outside.path().join(name);
        fs::write(&real, b"").unwrap();
        fs::write(file, b"").unwrap();
        let mounted = Command::new("mount").arg("--bind").args([&real, file]).status();
        if !mounted.is_ok_and(|status| status.success()) {
            return;
        }
    }
    let room = small().open(&path).unwrap();
    insert(&room.form_tokens(), "t").wait().unwrap();
    sleep(Duration::from_secs(1));
    insert(&room.form_tokens(), "u").wait().unwrap();
    // Beside it, and outside, but not over itself nor over what is mounted.
    let beside = dir.path().join("beside.cloak");
    room.backup(&beside).unwrap();
    room.backup(&beside).unwrap();
    for own in [&path, &outside.path().join("room.cloak")] {
        assert!(matches!(room.backup(own), Err(Error::InvalidConfig(_))));
    }
    let refused = room.backup(dir.path().join("copy.cloak")).unwrap_err().to_string();
    assert!(refused.contains("mounted by itself") && refused.contains("directory"), "{refused}");
    room.close().unwrap();
    let room = small().open(outside.path().join("room.cloak")).unwrap();
    assert_eq!(room.form_tokens().stats().wait().unwrap().live, 2);
    assert_eq!(fs::metadata(outside.path().join("copy.cloak")).unwrap().len(), 0);
}

#[cfg(feature = "testing")]
#[test]
fn a_migration_of_a_file_that_is_mounted_by_itself_is_refused_and_changes_nothing() {
    let name =
        "places::a_migration_of_a_file_that_is_mounted_by_itself_is_refused_and_changes_nothing";
    if !mounts(name) {
        return;
    }
    let (dir, path) = place();
    let outside = tempfile::tempdir().unwrap();
    let real = outside.path().join("room.cloak");
    older(&real);
    fs::write(&path, b"").unwrap();
    let mounted = Command::new("mount").arg("--bind").args([&real, &path]).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("a file cannot be mounted here");
        return;
    }
    let before = fs::read(&real).unwrap();
    for _ in 0..2 {
        let refused = small().open(&path).unwrap_err();
        assert!(matches!(refused, Error::Io { .. }), "{refused:?}");
        let text = refused.to_string();
        for part in [
            "edge.cloak from format version 1",
            "mounted by itself",
            "mount its directory",
            "as it was",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let refused = Cloakroom::open_read_only(&path).unwrap_err();
        assert!(matches!(refused, Error::OutdatedVersion { found: 1, .. }), "{refused:?}");
    }
    assert!(fs::read(&real).unwrap() == before, "the file was touched");
    assert_eq!(
        (names(dir.path()), names(outside.path())),
        (vec!["edge.cloak".into()], vec!["room.cloak".into()])
    );
    // As the message says: where it is an ordinary file.
    let room = small().open(&real).unwrap();
    assert_eq!(room.handoff().get("kept").wait().unwrap(), Some(state(7)));
}

#[cfg(feature = "cli")]
#[test]
fn an_import_over_an_empty_file_that_is_mounted_by_itself_says_what_to_do() {
    let name = "places::an_import_over_an_empty_file_that_is_mounted_by_itself_says_what_to_do";
    if !mounts(name) {
        return;
    }
    let (dir, path) = place();
    let outside = tempfile::tempdir().unwrap();
    let real = outside.path().join("room.cloak");
    for file in [&real, &path] {
        fs::write(file, b"").unwrap();
    }
    let mounted = Command::new("mount").arg("--bind").args([&real, &path]).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("a file cannot be mounted here");
        return;
    }
    let lines = outside.path().join("lines");
    let mut export = fs::File::create(&lines).unwrap();
    Cloakroom::builder().open_in_memory().unwrap().export(&mut export).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloakroom"));
    command.arg("import").arg(&path).stdin(fs::File::open(&lines).unwrap());
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(told.contains("mounted by itself") && told.contains("mount its directory"), "{told}");
    assert_eq!(fs::metadata(&real).unwrap().len(), 0);
    assert_eq!(names(dir.path()), ["edge.cloak"]);
}

/// A program that may start no thread, as by a limit of processes.
#[test]
fn an_opening_that_can_start_no_thread_gives_the_file_up() {
    let name = "places::an_opening_that_can_start_no_thread_gives_the_file_up";
    if !is_superuser() || !alone(name) {
        return;
    }
    let (dir, path) = place();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    in_a_child(|| {
        become_another_user();
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: it limits this child alone.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const none) }, 0);
        if std::thread::Builder::new().spawn(|| ()).is_ok() {
            return;
        }
        for _ in 0..3 {
            let refused = small().open(&path);
            assert!(matches!(&refused, Err(Error::Io { .. })), "{refused:?}");
            // No descriptor is left, so the lock is not either.
            let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
            let is_room =
                |link: fs::DirEntry| fs::read_link(link.path()).is_ok_and(|to| to == path);
            assert!(!links.into_iter().any(is_room));
        }
        // Without the maintenance no thread is needed at once.
        let room = small().sweep_interval(None).open(&path).unwrap();
        insert(&room.form_tokens(), "t").wait().unwrap();
        room.close().unwrap();
    });
}
