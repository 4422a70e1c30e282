//! Many slots at a time: the listings.

use super::calls::*;
use crate::clock::ManualClock;
use crate::conformance::Rule;
use crate::stores::state::{Identity, ListScope, StateError, StateRecord};
use crate::stores::{Cursor, Page};
use StateError::{IdentityRequired, InvalidRecord, InvalidScan, MaintenanceScopeRequired};

pub(super) const RULES: &[Rule<StateDriver>] = &[
    (
        "list_kind answers exactly the kinds that begin with the prefix, literally, of every tenant",
        list_kind,
    ),
    ("list_kind without the scope of maintenance is MaintenanceScopeRequired", list_kind_scope),
    ("list_kind with an empty prefix is InvalidRecord", list_kind_prefix),
    (
        "list_kind_for_identity answers exactly this identity's kinds, in order, up to the limit",
        for_identity,
    ),
    (
        "list_kind_for_identity with a limit of 0 or over 1,000, or an empty prefix, is InvalidRecord",
        for_identity_bad,
    ),
    ("scan_kind_for_tenant pages through everything once, in order of slots", scan_order),
    ("scan_kind_for_tenant of every prefix and limit answers what it should", scan_exact),
    ("scan_kind_for_tenant finds few among many", scan_sparse),
    (
        "scan_kind_for_tenant goes on behind a state that is gone, and sees one that came",
        scan_not_snapshot,
    ),
    ("a page of exactly what is left has no next one", scan_last_page),
    (
        "scan_kind_for_tenant refuses a bad limit, an empty tenant or an empty prefix with InvalidScan",
        scan_bad,
    ),
    ("a cursor of another tenant or prefix is InvalidScan", scan_foreign_cursor),
    ("list_kind_bounded answers the first of list_kind", bounded),
    ("list_kind_bounded takes 1 to 10,001, a maintenance scope and a prefix", bounded_refusals),
    ("a cursor survives its string form, and an altered one is refused", scan_altered_cursor),
];

fn maintenance() -> ListScope {
    ListScope::maintenance()
}

fn list_kind(store: &StateDriver, _: &ManualClock) {
    for (index, kind) in TRICKY.into_iter().enumerate() {
        save(store, &record(&format!("e{index}"), kind));
        save(store, &of(Identity::new("other", "u", "s", ""), &format!("o{index}"), kind));
    }
    for prefix in TRICKY {
        let mut found: Vec<String> =
            all(store, prefix).into_iter().map(|record| record.kind).collect();
        found.sort();
        let mut expected: Vec<&str> = TRICKY
            .into_iter()
            .filter(|kind| kind.starts_with(prefix))
            .flat_map(|kind| [kind; 2])
            .collect();
        expected.sort_unstable();
        assert_eq!(found, expected, "{prefix:?}");
    }
    assert_eq!(all(store, "nothing"), []);
    let whole = all(store, "Ä");
    assert!(whole.contains(&record("e13", "Ä")), "{whole:?}");
}

fn list_kind_scope(store: &StateDriver, _: &ManualClock) {
    save(store, &record("e1", "a"));
    refused!(store.list_kind(ListScope::default(), "a").wait(), MaintenanceScopeRequired);
    refused!(store.list_kind(ListScope::default(), "").wait(), MaintenanceScopeRequired);
    let scan = store.scan_kind_for_tenant(ListScope::default(), "tenant", "a", 1, None).wait();
    refused!(scan, MaintenanceScopeRequired);
}

fn list_kind_prefix(store: &StateDriver, _: &ManualClock) {
    save(store, &record("e1", "a"));
    refused!(store.list_kind(maintenance(), "").wait(), InvalidRecord(_));
}

fn for_identity(store: &StateDriver, _: &ManualClock) {
    let kinds = ["k1", "k2", "k3", "k\0", "l", "K"];
    for kind in kinds {
        save(store, &record(kind, kind));
        for (index, other) in ["", "run\0", "ru", "run2"].into_iter().enumerate() {
            let other = Identity::new("tenant", "user", "session", other);
            save(store, &of(other, &format!("{index}{kind}"), kind));
        }
    }
    let list = |prefix: &str, limit| {
        let found = store.list_kind_for_identity(&identity(), prefix, limit).wait().unwrap();
        found.into_iter().map(|record| record.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(list("k", None), ["k\0", "k1", "k2", "k3"]);
    assert_eq!(list("k", Some(1_000)), ["k\0", "k1", "k2", "k3"]);
    assert_eq!(list("k", Some(2)), ["k\0", "k1"]);
    assert_eq!(list("k", Some(4)), ["k\0", "k1", "k2", "k3"]);
    assert_eq!(list("k1", None), ["k1"]);
    assert_eq!(list("%", None), Vec::<String>::new());
    let session = Identity::new("tenant", "user", "session", "");
    let found = store.list_kind_for_identity(&session, "k", None).wait().unwrap();
    assert_eq!(ids(&found), ["0k\0", "0k1", "0k2", "0k3"]);
}

fn for_identity_bad(store: &StateDriver, _: &ManualClock) {
    for limit in [0, 1_001, usize::MAX] {
        let answer = store.list_kind_for_identity(&identity(), "a", Some(limit)).wait();
        refused!(answer, InvalidRecord(_));
    }
    refused!(store.list_kind_for_identity(&identity(), "", None).wait(), InvalidRecord(_));
    for incomplete in incomplete() {
        refused!(store.list_kind_for_identity(&incomplete, "a", None).wait(), IdentityRequired(_));
    }
}

fn page(
    store: &StateDriver,
    prefix: &str,
    limit: usize,
    cursor: Option<&Cursor>,
) -> Page<StateRecord> {
    store.scan_kind_for_tenant(maintenance(), "tenant", prefix, limit, cursor).wait().unwrap()
}

/// Everything that pages of `limit` answer, each of which but the last must be full.
fn scan(store: &StateDriver, prefix: &str, limit: usize) -> Vec<StateRecord> {
    let mut found = Vec::new();
    let mut cursor: Option<Cursor> = None;
    loop {
        let page = page(store, prefix, limit, cursor.as_ref());
        found.extend(page.items.iter().cloned());
        let Some(next) = page.next else {
            assert!(page.items.len() <= limit, "a page of {}", page.items.len());
            return found;
        };
        assert_eq!(page.items.len(), limit, "a page that is not the last one");
        cursor = Some(next);
    }
}

/// Slots of one tenant in many identities and kinds, and slots of others beside them; sorted.
fn populate(store: &StateDriver) -> Vec<StateRecord> {
    let mut mine = Vec::new();
    for user in ["u", "u\0", "v"] {
        for session in ["s", "s\0a"] {
            for run in ["", "r", "\0"] {
                for kind in ["a", "a\0", "ab", "b", "ba"] {
                    for tenant in ["tenant", "tenant\0", "tenan"] {
                        let id = format!("{tenant}/{user}/{session}/{run}/{kind}");
                        let record = of(Identity::new(tenant, user, session, run), &id, kind);
                        save(store, &record);
                        if tenant == "tenant" {
                            mine.push(record);
                        }
                    }
                }
            }
        }
    }
    mine.sort_by(|a, b| (&a.identity, &a.kind).cmp(&(&b.identity, &b.kind)));
    mine
}

fn scan_order(store: &StateDriver, _: &ManualClock) {
    let mine = populate(store);
    let expected: Vec<_> = mine.into_iter().filter(|record| record.kind.starts_with('a')).collect();
    assert_eq!(scan(store, "a", 256), expected);
}

fn scan_exact(store: &StateDriver, _: &ManualClock) {
    let mine = populate(store);
    for prefix in ["a", "a\0", "ab", "b", "ba", "bb", "c", "\0"] {
        let expected: Vec<_> =
            mine.iter().filter(|record| record.kind.starts_with(prefix)).cloned().collect();
        for limit in [1, 2, 7, 255] {
            assert_eq!(scan(store, prefix, limit), expected, "{prefix:?} by {limit}");
        }
    }
}

fn scan_sparse(store: &StateDriver, _: &ManualClock) {
    let mut expected = Vec::new();
    for number in 0..700 {
        let whose = Identity::new("tenant", format!("{number:04}"), "s", "");
        let rare = number % 90 == 7;
        let record = of(whose.clone(), &format!("e{number}"), if rare { "m1" } else { "a" });
        drop(store.save(record.clone()));
        drop(store.save(of(whose.clone(), &format!("z{number}"), "z")));
        if rare {
            let second = of(whose, &format!("f{number}"), "m0");
            drop(store.save(second.clone()));
            expected.extend([second, record]);
        }
    }
    for limit in [1, 3, 16, 100] {
        assert_eq!(ids(&scan(store, "m", limit)), ids(&expected), "pages of {limit}");
    }
    assert_eq!(scan(store, "a", 256).len(), 692);
}

fn scan_not_snapshot(store: &StateDriver, _: &ManualClock) {
    for kind in ["a1", "a3", "a5"] {
        save(store, &record(kind, kind));
    }
    let first = page(store, "a", 2, None);
    assert_eq!(ids(&first.items), ["a1", "a3"]);
    store.delete(&identity(), "a3").wait().unwrap();
    save(store, &record("a2", "a2"));
    save(store, &record("a4", "a4"));
    let second = page(store, "a", 2, first.next.as_ref());
    assert_eq!(ids(&second.items), ["a4", "a5"]);
    assert_eq!(second.next, None);
}

fn scan_last_page(store: &StateDriver, _: &ManualClock) {
    assert_eq!(page(store, "a", 1, None), Page { items: vec![], next: None });
    save(store, &record("a1", "a1"));
    save(store, &record("a2", "a2"));
    save(store, &record("b", "b"));
    assert_eq!(page(store, "a", 2, None).next, None);
    let first = page(store, "a", 1, None);
    assert!(first.next.is_some());
    store.delete(&identity(), "a2").wait().unwrap();
    assert_eq!(page(store, "a", 1, first.next.as_ref()), Page { items: vec![], next: None });
}

fn scan_bad(store: &StateDriver, _: &ManualClock) {
    save(store, &record("e1", "a"));
    for (tenant, prefix, limit) in [
        ("tenant", "a", 0),
        ("tenant", "a", 257),
        ("tenant", "a", usize::MAX),
        ("", "a", 1),
        ("tenant", "", 1),
    ] {
        let answer = store.scan_kind_for_tenant(maintenance(), tenant, prefix, limit, None).wait();
        refused!(answer, InvalidScan(_));
    }
}

fn scan_foreign_cursor(store: &StateDriver, _: &ManualClock) {
    for (index, tenant) in ["tenant", "tenant2"].into_iter().enumerate() {
        for kind in ["ab1", "ab2"] {
            save(store, &of(Identity::new(tenant, "u", "s", ""), &format!("{index}{kind}"), kind));
        }
    }
    let cursor = page(store, "ab", 1, None).next;
    assert!(cursor.is_some(), "there is a second page");
    for (tenant, prefix) in
        [("tenant2", "ab"), ("tenant", "a"), ("tenant", "ab1"), ("tenan", "ab"), ("other", "ab")]
    {
        let answer =
            store.scan_kind_for_tenant(maintenance(), tenant, prefix, 1, cursor.as_ref()).wait();
        refused!(answer, InvalidScan(_));
    }
    assert_eq!(ids(&page(store, "ab", 1, cursor.as_ref()).items), ["0ab2"]);
}

fn scan_altered_cursor(store: &StateDriver, _: &ManualClock) {
    for kind in ["a1", "a2", "a3"] {
        save(store, &record(kind, kind));
    }
    let text = page(store, "a", 1, None).next.unwrap().to_string();
    let cursor: Cursor = text.parse().unwrap();
    assert_eq!(ids(&page(store, "a", 1, Some(&cursor)).items), ["a2"]);
    for (at, old) in text.char_indices() {
        let new = if old == '0' { "1" } else { "0" };
        let mut altered = text.clone();
        altered.replace_range(at..=at, new);
        // It is no cursor any more, or one that the scan refuses.
        let answer = altered.parse::<Cursor>().map_err(StateError::from).and_then(|cursor| {
            store.scan_kind_for_tenant(maintenance(), "tenant", "a", 1, Some(&cursor)).wait()
        });
        refused!(answer, InvalidScan(_));
    }
}

fn bounded(store: &StateDriver, _: &ManualClock) {
    for (user, kind) in [("ada", "k2"), ("ada", "k1"), ("bob", "k1"), ("bob", "other")] {
        let identity = Identity::new("t", user, "s", "");
        store.save(StateRecord::new(identity, kind, *b"x")).wait().unwrap();
    }
    let scope = ListScope::maintenance();
    let all = store.list_kind(scope, "k").wait().unwrap();
    assert_eq!(all.len(), 3);
    for limit in [1, 2, 3, 4, 10_001] {
        let first = store.list_kind_bounded(scope, "k", limit).wait().unwrap();
        let expected: Vec<_> = all.iter().take(limit).cloned().collect();
        assert_eq!(first, expected, "{limit}");
    }
    assert_eq!(store.list_kind_bounded(scope, "nothing", 1).wait().unwrap(), []);
}

fn bounded_refusals(store: &StateDriver, _: &ManualClock) {
    for limit in [0, 10_002, usize::MAX] {
        let answer = store.list_kind_bounded(ListScope::maintenance(), "k", limit).wait();
        assert!(matches!(answer, Err(StateError::InvalidRecord(_))), "{limit}: {answer:?}");
    }
    let answer = store.list_kind_bounded(ListScope::maintenance(), "", 1).wait();
    assert!(matches!(answer, Err(StateError::InvalidRecord(_))), "{answer:?}");
    let answer = store.list_kind_bounded(ListScope::default(), "k", 1).wait();
    assert!(matches!(answer, Err(StateError::MaintenanceScopeRequired)), "{answer:?}");
}
