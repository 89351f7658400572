//! What all operations of a process on one tier 2 share.

use super::frame::Stamp;
use super::generations::{Generation, Registered};
use super::journal::{Entry, Journal, LateWrite};
use super::node::{Failure, Link, Node, Retention, Role};
use super::stats::{Latency, TierStats};
use super::trust::Trust;
use super::{NamespaceSettings, Settings};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shortest time between two drops of all loads in flight.
const MIN_DROP_INTERVAL: u64 = 100_000_000;

/// The most nodes of a tier.
pub(crate) const MAX_NODES: u32 = 4_096;

/// A lease that an operation of this process holds.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) node: u32,
    pub(crate) key: Box<[u8]>,
    pub(crate) px: u64,
    pub(crate) renew_at: u64,
    /// The load has its time: no renewal after this.
    pub(crate) end: u64,
    pub(crate) renewing: bool,
}

/// How things were when a command was sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RequestContext {
    pub(crate) sent: u64,
    /// Of its node.
    pub(crate) epoch: u32,
    /// Of its node.
    pub(crate) changes: u64,
    /// [`State::forgotten`].
    pub(crate) forgotten: u64,
}

#[derive(Debug)]
pub(crate) struct State {
    nodes: Vec<Node>,
    pub(crate) journal: Journal,
    pub(super) namespaces: Vec<Registered>,
    pub(super) generations: HashMap<Box<[u8]>, Generation>,
    /// What the keys of all generations begin with.
    pub(super) generation_prefix: Option<Box<[u8]>>,
    /// For the simulation alone: what counters would be.
    pub(super) counted: HashMap<Box<[u8]>, Stamp>,
    /// Generations that this process bumps now.
    pub(super) bumping: HashMap<Box<[u8]>, u32>,
    /// Grows with every generation that is forgotten: what was requested before is not remembered.
    pub(crate) forgotten: u64,
    pub(crate) leases: BTreeMap<Stamp, Lease>,
    seed: u64,
    drawn: u64,
    random: u64,
    pub(crate) loads_dropped_at: u64,
    #[cfg(all(test, not(loom)))]
    pub(crate) controls: super::sim::Controls,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) trust: Arc<Trust>,
    pub(crate) stats: TierStats,
    pub(crate) latency: Latency,
    state: Mutex<State>,
}

/// One server (or cluster) and prefix, in one process.
///
/// # Concurrency
/// May be used by any thread. A lock is held for short steps, in which nothing of the caller's
/// runs. A tier belongs to a process id: a child makes a new one, since connections, leases and
/// stamps are the parent's.
#[derive(Clone, Debug)]
pub struct Tier(pub(crate) Arc<Shared>);

impl Tier {
    /// Creates a tier. `seed` is 64 random bits, drawn in this process: no two processes may have
    /// the same.
    pub fn new(seed: u64, settings: Settings) -> Self {
        let state = State {
            nodes: Vec::new(),
            journal: Journal::new(settings.journal),
            namespaces: Vec::new(),
            generations: HashMap::new(),
            generation_prefix: None,
            counted: HashMap::new(),
            bumping: HashMap::new(),
            forgotten: 0,
            leases: BTreeMap::new(),
            seed,
            drawn: 0,
            random: seed ^ 0x9E37_79B9_7F4A_7C15,
            loads_dropped_at: 0,
            #[cfg(all(test, not(loom)))]
            controls: Default::default(),
        };
        Self(Arc::new(Shared {
            settings,
            trust: Arc::new(Trust::new(&settings)),
            stats: TierStats::default(),
            latency: Latency::default(),
            state: Mutex::new(state),
        }))
    }

    /// Returns what every hit of tier 1 has to compare with the clock.
    pub fn trust(&self) -> &Arc<Trust> {
        &self.0.trust
    }

    /// Returns the counters.
    pub fn stats(&self) -> &TierStats {
        &self.0.stats
    }

    /// Returns how long the server took to answer.
    pub fn latency(&self) -> &Latency {
        &self.0.latency
    }

    /// Returns how many keys await their replay.
    pub fn journal_len(&self) -> usize {
        self.0.lock().journal.len()
    }

    /// Returns the node's epoch, 0 before it was probed. A connection with another one must be
    /// closed.
    pub fn epoch(&self, node: u32) -> u32 {
        self.0.lock().node(node, &self.0.settings).epoch
    }

    /// Returns the server's time at `now` in milliseconds, at least; of a node that was never
    /// probed, a time that means nothing.
    pub fn server_ms(&self, node: u32, now: u64) -> u64 {
        self.0.lock().node(node, &self.0.settings).server_ms_upper(now)
    }

    /// Returns whether reads are sent to the node.
    pub fn is_up(&self, node: u32) -> bool {
        self.0.lock().node(node, &self.0.settings).is_up()
    }

    /// Returns what is known about each node.
    pub fn nodes(&self, now: u64) -> Vec<NodeReport> {
        let state = self.0.lock();
        let report = |node: &Node| NodeReport {
            link: match node.link {
                _ if node.role == Role::Idle => "idle",
                Link::Unknown => "unknown",
                Link::Up => "up",
                Link::Replaying { .. } => "replaying",
                Link::Down { .. } => "down",
            },
            bus: match (node.bus.wanted, node.bus.sync) {
                (false, _) => "none",
                (true, super::node::Sync::Lost { .. }) => "lost",
                (true, super::node::Sync::Armed) => "armed",
                (true, super::node::Sync::Unsynced) => "unsynced",
            },
            epoch: node.epoch,
            lag: if node.bus.synced_at == 0 {
                0
            } else {
                now.saturating_sub(node.bus.synced_at)
            },
        };
        state.nodes.iter().map(report).collect()
    }

    /// A new connection of `node` answered INFO and TIME. Returns the epoch that the connection
    /// belongs to.
    pub fn probed(&self, node: u32, probe: &Probe<'_>, now: u64) -> u32 {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        if state.loads_dropped_at == 0 {
            // There was none before the first probe.
            state.loads_dropped_at = now;
        }
        let one = state.node(node, &self.0.settings);
        let first = one.epoch == 0;
        let another = one.identify(probe.identity, probe.can_fence, (probe.server_ms, probe.sent), now);
        if *one.bus.canary_prefix != *probe.canary_prefix {
            // What is announced depends on it.
            one.bus.close |= one.bus.connected;
            one.bus.canary_prefix = probe.canary_prefix.into();
        }
        let was_down = !matches!(one.link, Link::Up | Link::Replaying { .. });
        let epoch = one.epoch;
        if another && !first && state.rule(super::Rule::ReplayOnNewEpoch) {
            self.0.stats.epochs.one();
            if state.journal.unconfirm(Some(node), node, now) {
                state.overflow(&self.0.stats);
            }
        }
        if another || was_down {
            let replay = state.journal.has(node);
            let keep_sync = !another && !state.rule(super::Rule::ClearOnBreaker);
            let one = state.node(node, &self.0.settings);
            let armed_before = one.bus.synced_at;
            one.reopen(replay, now);
            if keep_sync && armed_before != 0 && one.bus.connected {
                one.bus.sync = super::node::Sync::Armed;
                one.bus.synced_at = armed_before;
            }
            one.bus.close |= another && one.bus.connected;
            if !replay && !first {
                self.0.stats.breaker_closed.one();
            }
        }
        state.publish(&self.0);
        epoch
    }

    /// Sets whether a node of a cluster has slots. One that has none is neither probed nor listened
    /// to, and tier 1 does not depend on it: it may have left the cluster, or be a replica. Each
    /// node has some until this is called.
    ///
    /// # Panics
    /// If the node's number is 4096 or more.
    pub fn set_serving(&self, node: u32, serving: bool, now: u64) {
        let mut state = self.0.lock();
        let one = state.node(node, &self.0.settings);
        match (serving, one.role) {
            (false, Role::Serving) => one.role = Role::Draining,
            (true, Role::Draining | Role::Idle) => {
                one.role = Role::Serving;
                one.link = Link::Unknown;
                state.take_over(node, now, &self.0.stats);
            }
            _ => return,
        }
        state.known_mut(node).changes += 1;
        state.publish(&self.0);
    }

    /// Reports that a node has joined a cluster whose nodes were known. It may be in the place of
    /// one that died, and lack what that one confirmed: all that was confirmed in the last 30
    /// seconds is replayed before anything is read from the node.
    ///
    /// # Panics
    /// If the node's number is 4096 or more.
    pub fn joined(&self, node: u32, now: u64) {
        let mut state = self.0.lock();
        state.node(node, &self.0.settings);
        state.take_over(node, now, &self.0.stats);
        state.publish(&self.0);
    }

    /// The node could not be probed.
    pub fn probe_failed(&self, node: u32, failure: Failure, now: u64) {
        let mut state = self.0.lock();
        self.0.count_failure(failure);
        if state.node(node, &self.0.settings).probe_failed(failure, now) {
            self.0.stats.breaker_opened.one();
        }
        state.publish(&self.0);
    }
}

#[cfg(all(test, not(loom)))]
impl Tier {
    /// Returns what a fork would leave in the child if the child did not make a tier of its own.
    pub(crate) fn duplicate(&self) -> Self {
        let (seed, drawn) = {
            let state = self.0.lock();
            (state.seed, state.drawn)
        };
        let copy = Self::new(seed, self.0.settings);
        copy.0.lock().drawn = drawn;
        copy
    }
}

/// What is known about a node.
#[derive(Clone, Copy, Debug)]
pub struct NodeReport {
    /// "unknown", "up", "replaying" or "down"; "idle" if it has no slots.
    pub link: &'static str,
    /// "none", "lost", "armed" or "unsynced".
    pub bus: &'static str,
    /// Grows with every failover.
    pub epoch: u32,
    /// Nanoseconds since all invalidations were known to have arrived; 0: not yet.
    pub lag: u64,
}

/// What a new connection learned about its node.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'a> {
    /// The server's run id and replication id: another identity is another epoch.
    pub identity: &'a [u8],
    /// What TIME returned, in milliseconds.
    pub server_ms: u64,
    /// When TIME was sent.
    pub sent: u64,
    /// A connection may be killed by its id, and the id is known to be the server's own.
    pub can_fence: bool,
    /// How the keys of this process's canaries begin on this node.
    pub canary_prefix: &'a [u8],
}

impl Shared {
    /// No code of the caller's runs under the lock, so that nothing is half changed when it is
    /// poisoned.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count_failure(&self, failure: Failure) {
        let stats = &self.stats;
        let counter = match failure {
            Failure::Timeout => &stats.timeouts,
            Failure::NotSent | Failure::Other => &stats.other_errors,
            Failure::Refused => &stats.refused,
            Failure::OutOfMemory => &stats.oom,
            Failure::ReadOnly => &stats.readonly,
            Failure::NoScript => &stats.noscript,
            Failure::NoPermission => &stats.noperm,
            Failure::Loading | Failure::ClusterDown => &stats.loading,
            Failure::Moved => &stats.moved,
        };
        counter.one();
    }
}

impl State {
    #[cfg(all(test, not(loom)))]
    pub(crate) fn rule(&self, rule: super::Rule) -> bool {
        self.controls.has(rule)
    }

    #[cfg(not(all(test, not(loom))))]
    #[inline(always)]
    pub(crate) fn rule(&self, _: super::Rule) -> bool {
        true
    }

    /// Returns a node, which is made when it is named first.
    pub(crate) fn node(&mut self, node: u32, settings: &Settings) -> &mut Node {
        assert!(node < MAX_NODES, "at most {MAX_NODES} nodes");
        let at = node as usize;
        while self.nodes.len() <= at {
            self.nodes.push(Node::new(settings));
        }
        &mut self.nodes[at]
    }

    /// Returns a node that was named before.
    pub(crate) fn known(&self, node: u32) -> &Node {
        &self.nodes[node as usize]
    }

    pub(crate) fn known_mut(&mut self, node: u32) -> &mut Node {
        &mut self.nodes[node as usize]
    }

    /// A stamp that no process has drawn before.
    pub(crate) fn stamp(&mut self) -> Stamp {
        self.drawn += 1;
        let mut stamp = [0; 16];
        stamp[..8].copy_from_slice(&self.seed.to_le_bytes());
        stamp[8..].copy_from_slice(&self.drawn.to_le_bytes());
        stamp
    }

    /// 64 bits for jitter (splitmix64).
    pub(crate) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// Adds a key that tier 2 did not confirm.
    pub(crate) fn journal(&mut self, key: &[u8], node: u32, bump: bool, late: Option<LateWrite>, stats: &TierStats) {
        self.journal.add(key, node, bump, late);
        stats.journalled.one();
        if bump {
            self.forget_generation(key);
        }
        if self.journal.exceeds_capacity() {
            self.overflow(stats);
        }
    }

    /// Returns a key of the node whose replay is due.
    pub(crate) fn due_replay(&mut self, node: u32, now: u64) -> Option<(Box<[u8]>, Entry)> {
        let nodes = &self.nodes;
        self.journal
            .next_replay(node, |late| late.has_passed(&nodes[late.node as usize], now))
    }

    /// Returns whether a key of the node awaits its replay, and nothing else.
    pub(crate) fn awaits_replay(&self, node: u32, now: u64) -> bool {
        self.journal
            .awaits(node, |late| late.has_passed(self.known(late.node), now))
    }

    /// Returns whether a write that may still be executed has to be waited for.
    pub(crate) fn is_held(&self, entry: &Entry, now: u64) -> bool {
        !entry
            .late_writes
            .iter()
            .all(|late| late.has_passed(self.known(late.node), now))
    }

    /// Has a journalled key whose server does not answer replayed on the server that has its slot
    /// now.
    pub(crate) fn assign_node(&mut self, key: &[u8], node: u32) {
        let Some(entry) = self.journal.get(key) else {
            return;
        };
        let one = self.known(entry.node);
        let answers = matches!(one.link, Link::Up | Link::Replaying { .. }) && one.role == Role::Serving;
        if entry.node != node && !answers && self.rule(super::Rule::JournalFollows) {
            self.journal.assign_node(key, node);
        }
    }

    /// Has the journalled keys of a node that does not answer, and has no slots, replayed by
    /// another one: if that does not have their slots, it answers which one does.
    pub(crate) fn hand_over(&mut self, from: u32) {
        if !self.journal.has(from) || !self.rule(super::Rule::JournalFollows) {
            return;
        }
        let takes = |node: &Node| node.role == Role::Serving && matches!(node.link, Link::Up | Link::Replaying { .. });
        if let Some(to) = self.nodes.iter().position(takes) {
            self.journal.hand_over(from, to as u32);
        }
    }

    /// A node may be in the place of another one.
    fn take_over(&mut self, node: u32, now: u64, stats: &TierStats) {
        if self.rule(super::Rule::ReplayOnNewEpoch) && self.journal.unconfirm(None, node, now) {
            self.overflow(stats);
        }
    }

    /// There are too many keys to know: all namespaces are bumped instead.
    pub(crate) fn overflow(&mut self, stats: &TierStats) {
        stats.journal_overflows.one();
        let all = self.namespaces.iter().flat_map(|one| &one.generations);
        let all: Vec<_> = all.map(|one| (one.node.unwrap_or(0), one.key.clone())).collect();
        for (node, key) in all {
            self.journal.add(&key, node, true, None);
            self.forget_generation(&key);
        }
        self.journal.forget_keys();
    }

    /// Has the atomics say what the nodes' states mean.
    pub(crate) fn publish(&self, shared: &Shared) {
        let settings = &shared.settings;
        let hits = self.nodes.iter().map(|node| node.trusted_until(settings)).min();
        shared
            .trust
            .set(hits.unwrap_or(Trust::at_first(settings)), self.joins_until(settings));
    }

    /// Until when loads in flight may be joined: as long as messages are known to end them, else
    /// not when they are older than what tier 1 may hold.
    fn joins_until(&self, settings: &Settings) -> u64 {
        let synced = self.nodes.iter().filter(|node| node.retention() == Retention::Synced);
        let trusted = synced.map(|node| node.trusted_until(settings)).min();
        trusted.unwrap_or(u64::MAX).min(self.unsynced_joins_until())
    }

    fn unsynced_joins_until(&self) -> u64 {
        let smallest = |bound: fn(&NamespaceSettings) -> u64| {
            let bounds = self.namespaces.iter().map(|one| bound(&one.settings));
            self.loads_dropped_at.saturating_add(bounds.min().unwrap_or(u64::MAX))
        };
        let until = |node: &Node| match node.retention() {
            _ if node.link == Link::Unknown || node.role == Role::Idle => u64::MAX,
            Retention::Synced => u64::MAX,
            Retention::Alone => smallest(|settings| settings.local_ttl),
            Retention::Unsynced | Retention::Nowhere => {
                smallest(|settings| settings.unsynced_ttl.min(settings.local_ttl))
            }
        };
        self.nodes.iter().map(until).min().unwrap_or(u64::MAX)
    }

    /// When all loads in flight have to be dropped, so that new ones can be joined.
    pub(crate) fn drop_loads_at(&self) -> u64 {
        // Not more often than that, however short the bound is: then loads are just not joined.
        self.unsynced_joins_until()
            .saturating_add(1)
            .max(self.loads_dropped_at.saturating_add(MIN_DROP_INTERVAL))
    }
}
