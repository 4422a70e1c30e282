//! The file of an open room is removed, moved or replaced: it is noticed within a second, and
//! nothing is called durable from then on.

use crate::forked::alone;
use crate::rooms::{block_on, consume, insert, names, small, state};
use cloakroom::cache::CacheStore;
use cloakroom::handoff::HandoffStateStore;
use cloakroom::state::{Identity, StateError, StateStore};
use cloakroom::watch::{Filter, WatchError};
use cloakroom::{Cloakroom, Durability, Error};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// By when a lost name is noticed.
const NOTICED: Duration = Duration::from_secs(1);

/// Takes the room at a path in a directory away from it.
type Lose = fn(&Path, &Path);
/// A call of a room.
type Call = fn(&Cloakroom) -> Result<(), Error>;

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.cloak");
    (dir, path)
}

fn unlinked<T>(answer: Result<T, Error>, path: &Path) {
    match answer {
        Err(Error::Unlinked { path: named }) => assert_eq!(named, path),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was called durable"),
    }
}

/// Everything that must be refused after the loss was noticed, and what goes on.
fn is_over(room: &Cloakroom, dir: &Path, path: &Path) {
    unlinked(room.handoff().set("later", &state(1), 600).wait(), path);
    unlinked(block_on(room.handoff().set("later", &state(1), 600)), path);
    unlinked(room.handoff().get("kept").wait(), path);
    unlinked(consume(&room.form_tokens(), "t").wait(), path);
    unlinked(room.cache::<u32>("c").set("a", &1, 0).wait(), path);
    unlinked(room.atomically(|tx| tx.handoff().set("later", &state(1), 600)).wait(), path);
    unlinked(room.checkpoint(), path);
    unlinked(room.watch(Filter::all()).map(drop), path);
    let loaded = room.state().load(&Identity::new("t", "u", "s", ""), "k").wait();
    assert!(matches!(loaded, Err(StateError::Store(Error::Unlinked { .. }))), "{loaded:?}");
    // What needs no disk goes on, and the content can be saved.
    assert_eq!(room.cache::<u32>("c").get("before").wait().unwrap(), Some(1));
    let saved = dir.join("saved.cloak");
    room.backup(&saved).unwrap();
    unlinked(room.close(), path);
    let saved = small().open(&saved).unwrap();
    assert_eq!(saved.handoff().get("kept").wait().unwrap(), Some(state(7)));
    assert_eq!(saved.handoff().get("later").wait().unwrap(), None);
}

fn filled(path: &Path) -> Cloakroom {
    let room = small().open(path).unwrap();
    room.handoff().set("kept", &state(7), 600).wait().unwrap();
    room.cache::<u32>("c").set("before", &1, 0).wait().unwrap();
    room
}

#[test]
fn a_file_that_is_lost_is_noticed_within_a_second_in_whichever_way_it_was_lost() {
    let ways: [(&str, Lose); 4] = [
        ("removed", |_, path| fs::remove_file(path).unwrap()),
        ("moved", |dir, path| fs::rename(path, dir.join("moved.cloak")).unwrap()),
        ("replaced", |dir, path| {
            drop(small().open(dir.join("new.cloak")).unwrap());
            fs::rename(dir.join("new.cloak"), path).unwrap();
        }),
        ("under another name", |dir, path| {
            fs::hard_link(path, dir.join("link.cloak")).unwrap();
            fs::remove_file(path).unwrap();
        }),
    ];
    for (way, lose) in ways {
        let (dir, path) = place();
        let room = filled(&path);
        lose(dir.path(), &path);
        let lost = Instant::now();
        // Under load, one durable write after the other.
        let refused = loop {
            match room.handoff().set("later", &state(1), 600).wait() {
                Ok(()) => assert!(lost.elapsed() < NOTICED, "{way}: still called durable"),
                Err(error) => break error,
            }
        };
        assert!(matches!(&refused, Error::Unlinked { path: named } if *named == path), "{refused}");
        let text = refused.to_string();
        assert!(text.contains("back the room up") && text.contains("edge.cloak"), "{text}");
        unlinked(room.handoff().set("later", &state(1), 600).wait(), &path);
    }
}

#[test]
fn an_idle_room_notices_at_its_next_call() {
    let (dir, path) = place();
    let calls: [Call; 5] = [
        |room| room.handoff().set("later", &state(1), 600).wait(),
        |room| room.handoff().get("kept").wait().map(drop),
        |room| room.handoff().with_durability(Durability::Os).set("later", &state(1), 600).wait(),
        |room| {
            let interval = Durability::Interval(Duration::from_secs(60));
            room.handoff().with_durability(interval).set("later", &state(1), 600).wait()
        },
        |room| room.checkpoint(),
    ];
    for (number, call) in calls.into_iter().enumerate() {
        let room = filled(&path);
        fs::remove_file(&path).unwrap();
        sleep(NOTICED);
        unlinked(call(&room), &path);
        drop(room);
        assert_eq!(names(dir.path()), [""; 0], "call {number}");
    }
    let room = filled(&path);
    fs::remove_file(&path).unwrap();
    sleep(NOTICED);
    unlinked(room.handoff().set("later", &state(1), 600).wait(), &path);
    is_over(&room, dir.path(), &path);
}

/// No call looks; the maintenance does, and tells who waits.
#[test]
fn a_room_in_which_nothing_is_called_notices_as_well() {
    let (_dir, path) = place();
    let builder = Cloakroom::builder().sweep_interval(Duration::from_secs(3_600));
    let room = builder.open(&path).unwrap();
    room.handoff().set("kept", &state(7), 600).wait().unwrap();
    let mut watch = room.watch(Filter::all()).unwrap();
    fs::remove_file(&path).unwrap();
    let told = watch.recv();
    assert!(matches!(told, Err(WatchError::Unlinked { .. })), "{told:?}");
    unlinked(room.close(), &path);
}

#[test]
fn answers_and_watches_that_wait_are_told() {
    let (_dir, path) = place();
    let room = filled(&path);
    let mut watch = room.watch(Filter::all()).unwrap();
    // Durable already, and never asked.
    let earlier = insert(&room.form_tokens(), "earlier");
    insert(&room.form_tokens(), "t").wait().unwrap();
    fs::remove_file(&path).unwrap();
    sleep(NOTICED);
    let pending: Vec<_> =
        (0..20).map(|key| insert(&room.form_tokens(), &key.to_string())).collect();
    pending.into_iter().for_each(|pending| unlinked(pending.wait(), &path));
    unlinked(earlier.wait(), &path);
    let last = loop {
        match watch.recv() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(&last, WatchError::Unlinked { path: named } if *named == path), "{last}");
}

#[test]
fn the_path_is_free_for_a_new_room_and_the_old_one_does_not_disturb_it() {
    let (_dir, path) = place();
    let old = filled(&path);
    fs::remove_file(&path).unwrap();
    let new = small().open(&path).unwrap();
    new.handoff().set("kept", &state(9), 600).wait().unwrap();
    sleep(NOTICED);
    unlinked(old.handoff().get_and_delete("kept").wait(), &path);
    drop(old);
    assert_eq!(new.handoff().get("kept").wait().unwrap(), Some(state(9)));
    assert!(matches!(small().open(&path), Err(Error::Locked { .. })));
    new.close().unwrap();
}

#[test]
fn a_file_that_is_where_it_was_is_never_lost() {
    let (dir, path) = place();
    let (link, real) = (dir.path().join("link.cloak"), dir.path().join("real.cloak"));
    let room = filled(&path);
    drop(small().open(&real).unwrap());
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let linked = filled(&link);
    // Changed from outside, but not replaced.
    fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    fs::hard_link(&path, dir.path().join("second-name.cloak")).unwrap();
    for _ in 0..3 {
        sleep(NOTICED);
        room.handoff().set("later", &state(1), 600).wait().unwrap();
        linked.handoff().set("later", &state(1), 600).wait().unwrap();
    }
    fs::remove_file(dir.path().join("second-name.cloak")).unwrap();
    sleep(NOTICED);
    room.handoff().set("later", &state(2), 600).wait().unwrap();
    room.close().unwrap();
    linked.close().unwrap();
}

/// The program changes its directory, and its root directory if it may.
#[test]
fn a_relative_path_means_the_file_that_was_opened() {
    if !alone("unlinked::a_relative_path_means_the_file_that_was_opened") {
        return;
    }
    let (dir, path) = place();
    std::env::set_current_dir(dir.path()).unwrap();
    let room = filled(Path::new("edge.cloak"));
    let other = tempfile::tempdir().unwrap();
    std::env::set_current_dir(other.path()).unwrap();
    sleep(NOTICED);
    room.handoff().set("later", &state(1), 600).wait().unwrap();
    if std::os::unix::fs::chroot(other.path()).is_ok() {
        sleep(NOTICED);
        room.handoff().set("later", &state(2), 600).wait().unwrap();
        room.close().unwrap();
        return;
    }
    fs::remove_file(&path).unwrap();
    sleep(NOTICED);
    unlinked(
        room.handoff().set("later", &state(2), 600).wait(),
        &path.canonicalize().unwrap_or(path),
    );
}

/// The program gives up the right to look at the directory.
#[test]
fn a_directory_that_may_no_longer_be_looked_at_is_no_loss() {
    if !alone("unlinked::a_directory_that_may_no_longer_be_looked_at_is_no_loss") {
        return;
    }
    let (dir, path) = place();
    let room = filled(&path);
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o000)).unwrap();
    // SAFETY: it changes the user of this process, which does nothing else.
    let may_still = unsafe { libc::geteuid() == 0 && libc::seteuid(65_534) != 0 };
    if !may_still {
        sleep(NOTICED);
        room.handoff().set("later", &state(1), 600).wait().unwrap();
        room.close().unwrap();
        // SAFETY: as above. Of a program that was not the superuser it changes nothing.
        unsafe { libc::seteuid(0) };
    }
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
}
