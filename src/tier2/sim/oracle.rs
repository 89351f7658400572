//! The history of the source, and what the guarantees allow readers to see of it.
//!
//! Versions of a key are numbers that grow with every commit to the source.
//!
//! | guarantee | how it is checked, after every step |
//! |---|---|
//! | G1 | a value that is served was loaded at most its ttl (and grace) before |
//! | G2 | a read sees at least the version of every change that had returned in its process when it began |
//! | G3 | a read sees at least the version of every message that its process, armed, had handled when it began |
//! | G4 | the server holds no value older than a change that it confirmed |
//! | G5, G6 | a read sees every change that the server had executed for longer than the bound that applies to the process |
//! | G7 | replays raise the versions of G4 again; at the end all processes see the newest version |
//! | G8 | loads per key are counted by the schedules about leases |

use std::collections::BTreeMap;

pub(super) type Key = usize;

#[derive(Clone, Debug)]
pub(super) struct Begun {
    pub(super) at: u64,
    /// The version that the read must see at least, and why.
    pub(super) floor: u64,
    pub(super) seen: u64,
    /// How old what the read sees may be.
    pub(super) bound: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Oracle {
    versions: BTreeMap<Key, u64>,
    commits: BTreeMap<(Key, u64), u64>,
    /// By process: what its own changes returned.
    floors: BTreeMap<(usize, Key), u64>,
    seen: BTreeMap<(usize, Key), u64>,
    confirmed: BTreeMap<Key, u64>,
    executed: BTreeMap<Key, Vec<(u64, u64)>>,
    /// When the key was last given a new ttl.
    touched: BTreeMap<Key, u64>,
    pub(super) failovers: u64,
    pub(super) reads: u64,
    pub(super) violation: Option<String>,
}

impl Oracle {
    pub(super) fn version(&self, key: Key) -> u64 {
        self.versions.get(&key).copied().unwrap_or(1)
    }

    pub(super) fn commit(&mut self, key: Key, now: u64) -> u64 {
        let version = self.version(key) + 1;
        self.versions.insert(key, version);
        self.commits.insert((key, version), now);
        version
    }

    pub(super) fn returned(&mut self, process: usize, key: Key, version: u64) {
        raise(&mut self.floors, (process, key), version);
    }

    pub(super) fn floor(&self, process: usize, key: Key) -> u64 {
        self.floors.get(&(process, key)).copied().unwrap_or(0)
    }

    pub(super) fn handled(&mut self, process: usize, key: Key, version: u64) {
        raise(&mut self.seen, (process, key), version);
    }

    pub(super) fn confirmed(&mut self, key: Key, version: u64) {
        raise(&mut self.confirmed, key, version);
    }

    pub(super) fn executed(&mut self, key: Key, version: u64, now: u64) {
        self.executed.entry(key).or_default().push((version, now));
    }

    /// Confirmations may be lost: what follows is G7's.
    pub(super) fn failover(&mut self) {
        self.failovers += 1;
        self.confirmed.clear();
        self.seen.clear();
        self.executed.clear();
    }

    pub(super) fn begin(&self, process: usize, key: Key, bound: u64, now: u64) -> Begun {
        let seen = self.seen.get(&(process, key)).copied().unwrap_or(0);
        Begun {
            at: now,
            floor: self.floor(process, key),
            seen,
            bound,
        }
    }

    pub(super) fn touched(&mut self, key: Key, now: u64) {
        self.touched.insert(key, now);
    }

    pub(super) fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    pub(super) fn read(&mut self, process: usize, key: Key, begun: &Begun, value: (u64, u64), longest: u64, now: u64) {
        self.reads += 1;
        let (version, loaded) = value;
        if version < begun.floor {
            self.violate(format!(
                "G2: process {process} reads k{key} v{version} after its own v{} returned",
                begun.floor
            ));
        }
        // What a failover made unknown was cleared in between.
        let seen = begun.seen.min(self.seen.get(&(process, key)).copied().unwrap_or(0));
        if version < seen {
            self.violate(format!(
                "G3: process {process} reads k{key} v{version} after the message of v{seen}"
            ));
        }
        let loaded = loaded.max(self.touched.get(&key).copied().unwrap_or(0));
        if now.saturating_sub(loaded) > longest {
            self.violate(format!(
                "G1: process {process} reads k{key} v{version}, loaded {} ms ago",
                (now - loaded) / 1_000_000
            ));
        }
        let late = self.executed.get(&key).and_then(|all| {
            all.iter()
                .find(|(newer, at)| *newer > version && begun.at.saturating_sub(*at) > begun.bound)
                .copied()
        });
        if let Some((newer, at)) = late {
            let ago = (begun.at - at) / 1_000_000;
            self.violate(format!(
                "G5: process {process} reads k{key} v{version}; v{newer} was executed {ago} ms before, the bound is {} ms",
                begun.bound / 1_000_000
            ));
        }
    }

    pub(super) fn holds(&mut self, key: Key, version: u64) {
        let confirmed = self.confirmed.get(&key).copied().unwrap_or(0);
        if version < confirmed {
            self.violate(format!(
                "G4: the server holds k{key} v{version}, and had confirmed v{confirmed}"
            ));
        }
    }
}

fn raise<K: Ord>(versions: &mut BTreeMap<K, u64>, key: K, version: u64) {
    let known = versions.entry(key).or_default();
    *known = (*known).max(version);
}
