//! Panics of user code at every place, and at each of its calls there, while a snapshot is saved,
//! loaded and restored from.

use crate::traps::{self, Key, PLACES, Place, Value, key, trap, value};
use hotset::snapshot::{LoadOptions, SaveOptions};
use hotset::{Cache, ManualClock, Policy};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder of the test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hotset-faults-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder for snapshots");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

type Subject = Cache<Key, Value>;
type Step = fn(&Subject, &Path);

fn save(cache: &Subject, path: &Path) {
    let options = SaveOptions::new().progress(|_| trap(Place::Progress));
    cache.save_with(path, &options).expect("the folder can be written");
}

const STEPS: [Step; 12] = [
    |cache, path| save(cache, &path.join("saved")),
    |cache, path| _ = cache.load(path.join("given")).expect("it is whole"),
    |cache, _| drop(cache.get(&key(1))),
    |cache, _| drop(cache.get(&key(2))),
    |cache, _| cache.insert(key(3), value(5)),
    |cache, _| drop(cache.remove(&key(4))),
    |cache, _| drop(cache.compute(key(5), |old| old)),
    // Some entries are in the cache, some still in the file.
    |cache, path| save(cache, &path.join("saved")),
    |cache, _| _ = cache.warm(),
    |cache, path| {
        let eager = LoadOptions::new().eager(true);
        cache.load_with(path.join("given"), &eager).expect("it is whole");
    },
    |cache, path| _ = cache.load(path.join("given")).expect("it is whole"),
    |cache, _| cache.clear(),
];

/// Returns whether the `skip`th call at the place was made, and panicked.
fn run(policy: Policy, timed: bool, place: Place, skip: u32, folder: &Path) -> bool {
    let context = || format!("{policy:?}, timed: {timed}, {place:?} {skip}");
    let clock = timed.then(ManualClock::new);
    let before = traps::live();
    let cache = traps::build(policy, clock.as_ref());
    (0..4).for_each(|k| cache.insert(key(k + 20), value(k)));
    let mut forgotten = 0;
    traps::arm(place, skip);
    for call in STEPS {
        if traps::springs(|| call(&cache, folder)) {
            traps::check(&cache);
            // See `panics`: the return value of a lookup or removal is leaked.
            forgotten = isize::from(matches!(place, Place::DropKey | Place::DropValue));
        }
    }
    let sprung = !traps::is_armed();
    traps::arm(Place::Nowhere, 0);
    traps::check(&cache);
    save(&cache, &folder.join("saved"));
    let names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|one| one.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2, "{}: nothing half written stays: {names:?}", context());
    drop(cache);
    let lost = traps::live() - before;
    assert!((0..=forgotten).contains(&lost), "{}: {lost} are left", context());
    sprung
}

fn everywhere(timed: bool, folder: &Path) -> u32 {
    let given = traps::build(Policy::WTinyLfu, None);
    (0..8).for_each(|k| given.insert(key(k), value(k)));
    save(&given, &folder.join("given"));
    let mut sum = 0;
    for policy in [Policy::WTinyLfu, Policy::Lru] {
        for place in PLACES {
            let times = (0..).find(|skip| !run(policy, timed, *place, *skip, folder));
            sum += times.expect("the workload ends");
        }
    }
    sum
}

#[test]
fn callback_panics_in_snapshots_are_survived() {
    let folder = Folder::new("plain");
    let panics = everywhere(false, &folder.0);
    assert!(panics > 300, "{panics}");
}

#[test]
fn callback_panics_in_snapshots_with_expiration() {
    let folder = Folder::new("timed");
    let panics = everywhere(true, &folder.0);
    assert!(panics > 400, "{panics}");
}
