//! A process: tier 1 with its marks, and its threads.

use super::oracle::{Begun, Key};
use super::world::{Duty, MS, World};
use crate::tier2::memcached::{CasNumbers, Exchange};
use crate::tier2::{Namespace, Operation, Tier, slot};
use std::collections::{BTreeMap, VecDeque};

/// What a user's thread does next.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// `get` or `get_or_load`.
    Read(Key, bool),
    /// `get_or_load_many`.
    Many(Vec<Key>),
    /// Commits a new version to the source, then invalidates.
    Invalidate(Key),
    /// Commits a new version to the source, then sets it.
    Set(Key),
    Expire(Key),
    /// Commits new versions of all these keys, then clears the namespace, or the tag.
    Clear(Vec<Key>),
    Tag(Vec<Key>),
    Touch(Key),
    Sleep(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Hello,
    Answer,
    Tracking,
    Canary(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    Waiting {
        connection: usize,
        request: u64,
        deadline: u64,
        wanted: Wanted,
    },
    Loading {
        until: u64,
    },
    Sleeping {
        until: u64,
        key: Option<Key>,
    },
    /// Another thread's load is awaited.
    Joined,
    Done,
}

impl State {
    pub(super) fn deadline(&self) -> Option<u64> {
        match *self {
            Self::Waiting { deadline, .. } => Some(deadline),
            Self::Loading { until } | Self::Sleeping { until, .. } => Some(until),
            _ => None,
        }
    }
}

/// One operation as its thread sees it.
pub(super) struct Call {
    pub(super) key: Key,
    pub(super) operation: Option<Operation>,
    pub(super) begun: Begun,
    /// What a change is about: versions of keys.
    pub(super) about: Vec<(Key, u64)>,
    pub(super) failovers: u64,
    pub(super) flights: Vec<u64>,
    pub(super) value: Option<(u64, u64)>,
    pub(super) answer: Vec<u8>,
    pub(super) joined: bool,
    pub(super) slept: bool,
    /// The command is sent again behind ASKING.
    pub(super) asking: bool,
    /// The action in progress on memcached.
    pub(super) exchange: Option<Exchange>,
    pub(super) drops: u32,
    pub(super) ended: bool,
}

pub(super) struct Fiber {
    /// The background thread of a node.
    pub(super) background: Option<u32>,
    pub(super) state: State,
    pub(super) steps: VecDeque<Step>,
    pub(super) calls: Vec<Call>,
    pub(super) at: usize,
    pub(super) load_ms: u64,
    pub(super) load_fails: bool,
    /// Values that reads returned, and how.
    pub(super) results: Vec<(Key, Option<u64>, &'static str)>,
}

impl Fiber {
    pub(super) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            background: None,
            state: State::Ready,
            steps: steps.into_iter().collect(),
            calls: Vec::new(),
            at: 0,
            load_ms: 1,
            load_fails: false,
            results: Vec::new(),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) version: u64,
    pub(super) loaded: u64,
    pub(super) until: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) id: u64,
    pub(super) key: Key,
    pub(super) whole: bool,
    /// Threads that join get the value only if tier 2 confirmed it.
    pub(super) confirmed_only: bool,
    pub(super) waiters: Vec<(usize, usize)>,
}

pub(super) struct Process {
    pub(super) alive: bool,
    pub(super) stopped: bool,
    pub(super) tier: Tier,
    pub(super) namespace: Namespace,
    pub(super) entries: BTreeMap<Key, Entry>,
    pub(super) flights: Vec<Flight>,
    pub(super) next_flight: u64,
    pub(super) fibers: Vec<Fiber>,
    pub(super) idle: BTreeMap<u32, Vec<usize>>,
    /// The nodes of slots, as far as the process was notified.
    pub(super) slots: BTreeMap<u16, u32>,
    pub(super) tracking: BTreeMap<u32, usize>,
    /// For the controls: what a thread last knew.
    pub(super) trusted: bool,
    pub(super) wrote_at: BTreeMap<Key, u64>,
    /// Of memcached's items.
    pub(super) numbers: CasNumbers,
}

/// Keys of the simulation; odd ones have the tag.
pub(super) fn key_text(key: Key) -> Vec<u8> {
    format!("k{key}").into_bytes()
}

/// The keys of generations: each is in the first slot of its node.
pub(super) fn generation_keys(nodes: usize, node_of: impl Fn(u16) -> u32) -> Vec<Vec<u8>> {
    if nodes == 1 {
        return vec![b"g0".to_vec()];
    }
    let first = |node| {
        (0..crate::tier2::SLOTS)
            .find(|slot| node_of(*slot) == node)
            .unwrap_or(0)
    };
    let key = |wanted: u16| {
        let mut keys = (0..).map(|number: u32| format!("g{{{number}}}").into_bytes());
        keys.find(|key| slot(key) == wanted)
            .expect("there is one for each slot")
    };
    (0..nodes as u32).map(first).map(key).collect()
}

/// Which key it is; none for generations, claims and canaries.
pub(super) fn key_of(text: &[u8]) -> Option<Key> {
    std::str::from_utf8(text.strip_prefix(b"k")?).ok()?.parse().ok()
}

pub(super) fn payload(bytes: &[u8]) -> Option<(u64, u64)> {
    let (version, loaded) = (bytes.first_chunk::<8>()?, bytes.get(8..)?.first_chunk::<8>()?);
    Some((u64::from_le_bytes(*version), u64::from_le_bytes(*loaded)))
}

pub(super) fn encoded(value: (u64, u64)) -> Vec<u8> {
    [value.0.to_le_bytes(), value.1.to_le_bytes()].concat()
}

impl Process {
    pub(super) fn runs(&self) -> bool {
        self.alive && !self.stopped
    }

    /// Whether a thread of the process is there to take what comes through the connection.
    pub(super) fn receives(&self, connection: usize) -> bool {
        if let Some((node, _)) = self.tracking.iter().find(|(_, tracking)| **tracking == connection) {
            let bus = self.fibers.iter().find(|fiber| fiber.background == Some(*node));
            return bus.is_some_and(|bus| matches!(bus.state, State::Sleeping { .. }));
        }
        true
    }

    pub(super) fn drop_key(&mut self, key: Key) {
        self.entries.remove(&key);
        self.void(key, None);
    }

    pub(super) fn void(&mut self, key: Key, but: Option<u64>) {
        for flight in self
            .flights
            .iter_mut()
            .filter(|flight| flight.key == key && Some(flight.id) != but)
        {
            flight.whole = false;
        }
    }

    pub(super) fn void_all(&mut self) {
        self.flights.iter_mut().for_each(|flight| flight.whole = false);
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.void_all();
    }

    pub(super) fn open(&mut self, key: Key, confirmed_only: bool) -> u64 {
        self.void(key, None);
        self.next_flight += 1;
        let id = self.next_flight;
        self.flights.push(Flight {
            id,
            key,
            whole: true,
            confirmed_only,
            waiters: Vec::new(),
        });
        id
    }

    pub(super) fn is_whole(&self, flight: Option<&u64>) -> bool {
        flight.is_some_and(|id| self.flights.iter().any(|flight| flight.id == *id && flight.whole))
    }

    pub(super) fn wake(&mut self, key: Key) {
        for fiber in &mut self.fibers {
            if matches!(fiber.state, State::Sleeping { key: Some(awaited), .. } if awaited == key) {
                fiber.state = State::Ready;
            }
        }
    }
}

impl World {
    /// The node that has a key, as far as the process knows.
    pub(super) fn node_of(&self, process: usize, key: &[u8]) -> u32 {
        let slot = slot(key);
        let nodes = self.masters.len() as u32;
        let told = self.processes[process].slots.get(&slot).copied();
        told.unwrap_or(u32::from(slot) * nodes / u32::from(crate::tier2::SLOTS))
    }

    /// Which generation the value of a key carries.
    pub(super) fn group_of(&self, key: Key) -> usize {
        usize::from(slot(&key_text(key))) * self.masters.len() / usize::from(crate::tier2::SLOTS)
    }

    /// Adds a process with its background threads.
    pub(super) fn spawn(&mut self) -> usize {
        let seed = 0xA000 + self.processes.len() as u64;
        let tier = Tier::new(seed, self.options.settings);
        self.add_process(tier)
    }

    pub(super) fn add_process(&mut self, tier: Tier) -> usize {
        tier.0.lock().controls.turn_off(&self.options.mends_off);
        let namespace = Namespace::new(&tier, self.options.namespace);
        let generations = if self.has(Duty::GenerationBySlots) {
            self.generations.clone()
        } else {
            generation_keys(self.masters.len(), |slot| self.place(slot).node)
        };
        namespace.set_generations(&generations.iter().map(|key| &**key).collect::<Vec<_>>());
        let fibers = (0..self.masters.len() as u32).map(|node| {
            let mut fiber = Fiber::new([]);
            fiber.background = Some(node);
            fiber
        });
        let fibers = fibers.collect();
        self.processes.push(Process {
            alive: true,
            stopped: false,
            tier,
            namespace,
            entries: BTreeMap::new(),
            flights: Vec::new(),
            next_flight: 0,
            fibers,
            idle: BTreeMap::new(),
            slots: BTreeMap::new(),
            tracking: BTreeMap::new(),
            trusted: true,
            wrote_at: BTreeMap::new(),
            numbers: CasNumbers::default(),
        });
        self.processes.len() - 1
    }

    /// Starts a thread in a process.
    pub(super) fn start(&mut self, process: usize, steps: impl IntoIterator<Item = Step>) -> usize {
        self.processes[process].fibers.push(Fiber::new(steps));
        self.processes[process].fibers.len() - 1
    }

    /// The child of a fork: what tier 1 held is there, threads are not.
    pub(super) fn fork(&mut self, parent: usize) -> usize {
        let tier = if self.has(Duty::TierPerProcess) {
            Tier::new(0xA000 + self.processes.len() as u64, self.options.settings)
        } else {
            self.processes[parent].tier.duplicate()
        };
        let child = self.add_process(tier);
        self.processes[child].entries = self.processes[parent].entries.clone();
        self.processes[child].slots = self.processes[parent].slots.clone();
        // What the parent's changes promise, they promise to the parent: it has the journal.
        self.note(|| format!("p{parent} forks p{child}"));
        child
    }

    pub(super) fn kill(&mut self, process: usize) {
        self.note(|| format!("p{process} dies"));
        self.processes[process].alive = false;
        for connection in &mut self.connections {
            if connection.process == process {
                connection.closed = true;
            }
        }
    }

    pub(super) fn bound(&self, process: usize, node: u32) -> u64 {
        let (settings, namespace) = (self.options.settings, self.options.namespace);
        let slack = 250 * MS;
        let report = self.processes[process].tier.nodes(self.now).get(node as usize).copied();
        let Some(report) = report else {
            // A child that has not asked yet.
            return slack
                + if settings.bus {
                    settings.max_lag
                } else {
                    namespace.local_ttl
                };
        };
        slack
            + match (report.link, report.bus) {
                (_, "none") => namespace.local_ttl,
                ("down", _) => namespace.local_ttl + settings.max_lag,
                (_, "unsynced" | "lost") => namespace.unsynced_ttl.max(settings.max_lag),
                _ => settings.max_lag,
            }
    }

    pub(super) fn begin_call(&self, process: usize, key: Key) -> Call {
        let nodes = 0..self.masters.len() as u32;
        let bound = nodes.map(|node| self.bound(process, node)).max().unwrap_or_default();
        Call {
            key,
            operation: None,
            begun: self.oracle.begin(process, key, bound, self.now),
            about: Vec::new(),
            failovers: self.oracle.failovers,
            flights: Vec::new(),
            value: None,
            answer: Vec::new(),
            joined: false,
            slept: false,
            asking: false,
            exchange: None,
            drops: 0,
            ended: false,
        }
    }
}
