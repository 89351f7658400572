//! What a process does for its nodes besides the calls of its users: probes, the bus and its
//! canaries, replays, renewals.
//!
//! A canary is a key with a number in its name, written through a data connection. When its message
//! has come back through the bus, and a PING behind it was answered, every invalidation that the
//! node executed before the canary was sent has been delivered. Tier 1 is trusted for
//! [`Settings::max_lag`] from that instant. The number is in the name because a message does not
//! say why it was sent: the canary's own expiry or eviction would pass for a newer canary.
//!
//! [`Settings::max_lag`]: super::Settings::max_lag

use super::node::{AfterClear, Canary, Failure, Link, MILLI, Node, Role, Sync};
use super::operation::Operation;
use super::tier::{State, Tier};
use super::{Rule, Settings};

/// How long a canary's key stays.
pub const CANARY_PX: u64 = 30_000;
/// How long to wait before a failed canary or replay is tried again.
const RETRY: u64 = 50 * MILLI;

/// How late a lease that was won, or a key that was journalled, is noticed at most.
const LONGEST_SLEEP: u64 = 250 * MILLI;

/// What the background thread has to do next for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Wait for messages until then, and ask again.
    Sleep(u64),
    /// Connect, or take a connection, and send INFO and TIME: [`Tier::probed`] or
    /// [`Tier::probe_failed`].
    Probe,
    /// Open the tracking connection: [`Tier::connected`] or [`Tier::disconnected`].
    Connect,
    /// Close the tracking connection: [`Tier::disconnected`].
    Close,
    /// Write [`Tier::canary_key`] on a data connection: [`Tier::canary_written`] or
    /// [`Tier::canary_failed`], with this number.
    Canary(u64),
    /// Send PING on the tracking connection; once it is answered, [`Tier::pong`] with this number.
    Ping(u64),
    /// Remove everything from tier 1, and invalidate all loads in flight: [`Tier::cleared`].
    Clear,
    /// Invalidate all loads in flight: [`Tier::loads_dropped`].
    DropLoads,
    /// Drive [`Tier::background_operation`] to its end.
    Operate,
}

impl Tier {
    /// Returns what to do next for a node. Asked again after each task, and after messages.
    pub fn background(&self, node: u32, now: u64) -> Task {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        state.node(node, &self.0.settings);
        let task = self.next_task(state, node, now);
        state.publish(&self.0);
        task
    }

    fn next_task(&self, state: &mut State, node: u32, now: u64) -> Task {
        let settings = &self.0.settings;
        let one = state.known_mut(node);
        if one.bus.sync == Sync::Armed && now > one.bus.synced_at.saturating_add(settings.max_lag) && one.lose(now) {
            self.0.stats.bus_lost.one();
        }
        let drop_now = one.bus.drop_loads;
        let drop_loads_at = state.drop_loads_at();
        if drop_now || now >= drop_loads_at {
            return Task::DropLoads;
        }
        let one = state.known(node);
        if one.bus.close || one.role == Role::Idle && one.bus.connected {
            return Task::Close;
        }
        match one.role {
            Role::Draining => return Task::Clear,
            // What is left in the journal is replayed where the slots are: this node answers that
            // it moved, or another one does.
            Role::Idle if !one.is_up() || !state.journal.has(node) => {
                state.hand_over(node);
                return Task::Sleep(now + LONGEST_SLEEP);
            }
            Role::Idle | Role::Serving => {}
        }
        match one.link {
            Link::Unknown => return Task::Probe,
            Link::Down { retry_at } if now >= retry_at => return Task::Probe,
            Link::Down { retry_at } => return Task::Sleep(retry_at.min(drop_loads_at)),
            Link::Up | Link::Replaying { .. } => {}
        }
        // A key that waits for a late write is blocked by itself, and need not block others.
        if matches!(one.link, Link::Replaying { .. }) && !state.awaits_replay(node, now) {
            state.known_mut(node).replayed(now);
            self.0.stats.breaker_closed.one();
        }
        let mut wake = u64::MAX;
        let renewal = state
            .leases
            .values()
            .filter(|lease| lease.node == node && !lease.renewing && lease.renew_at <= lease.end);
        if let Some(at) = renewal.map(|lease| lease.renew_at).min() {
            if at <= now {
                return Task::Operate;
            }
            wake = wake.min(at);
        }
        if state.journal.has(node) {
            let at = state.known(node).replay_at;
            if at <= now && state.due_replay(node, now).is_some() {
                return Task::Operate;
            }
            // Also where a key waits for the server's clock, or for a replay in progress.
            wake = wake.min(at.max(now + RETRY));
        }
        wake = wake.min(drop_loads_at).min(state.known(node).read_clock_at());
        if now >= state.known(node).read_clock_at() {
            return Task::Probe;
        }
        let one = state.known_mut(node);
        if one.link == Link::Up && one.bus.wanted {
            match next_of_bus(one, settings, now) {
                Task::Sleep(until) => wake = wake.min(until),
                task => return task,
            }
        }
        // A thread that needs a renewal or a replay does not wake this one.
        Task::Sleep(wake.min(now + LONGEST_SLEEP))
    }

    /// Returns a renewal or a replay that is due on the node, begun.
    pub fn background_operation(&self, node: u32, now: u64) -> Option<Operation> {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        state.node(node, &self.0.settings);
        let due = |lease: &super::tier::Lease| {
            lease.node == node && !lease.renewing && lease.renew_at <= now && lease.renew_at <= lease.end
        };
        if let Some((&stamp, lease)) = state.leases.iter_mut().find(|(_, lease)| due(lease)) {
            lease.renewing = true;
            let (key, px) = (lease.key.clone(), lease.px);
            drop(guard);
            return Some(Operation::renewal(self, node, key, stamp, px, now));
        }
        let one = state.known(node);
        if one.replay_at > now || !matches!(one.link, Link::Up | Link::Replaying { .. }) {
            return None;
        }
        let (key, entry) = state.due_replay(node, now)?;
        state.journal.set_replaying(&key, entry.number, true);
        drop(guard);
        Some(Operation::replay(self, node, key, &entry, now))
    }

    /// The tracking connection is subscribed.
    pub fn connected(&self, node: u32, now: u64) {
        let mut state = self.0.lock();
        let bus = &mut state.node(node, &self.0.settings).bus;
        bus.connected = true;
        bus.close = false;
        bus.connect_backoff = 0;
        // A canary that was written before would not come back.
        bus.canary = None;
        bus.canary_at = now;
    }

    /// The tracking connection could not be had, broke, or was closed.
    pub fn disconnected(&self, node: u32, now: u64) {
        let mut state = self.0.lock();
        let one = state.node(node, &self.0.settings);
        let had = one.bus.connected;
        one.bus.connected = false;
        one.bus.close = false;
        one.bus.canary = None;
        one.bus.clear = one.bus.clear.filter(|clear| !matches!(clear, AfterClear::Arm { .. }));
        // Immediately where one was lost, then less and less often.
        one.bus.connect_backoff = if had {
            0
        } else {
            (one.bus.connect_backoff * 2).clamp(100 * MILLI, 2_000 * MILLI)
        };
        one.bus.connect_at = now + one.bus.connect_backoff;
        if one.bus.sync == Sync::Armed && one.lose(now) {
            self.0.stats.bus_lost.one();
        }
        state.publish(&self.0);
    }

    /// Returns the key of the canary to be written.
    pub fn canary_key(&self, node: u32) -> Vec<u8> {
        let mut state = self.0.lock();
        let bus = &state.node(node, &self.0.settings).bus;
        [&bus.canary_prefix, bus.number.to_string().as_bytes()].concat()
    }

    /// The canary's write was confirmed, by a connection of this epoch.
    pub fn canary_written(&self, node: u32, number: u64, epoch: u32, now: u64) {
        let mut state = self.0.lock();
        let one = state.node(node, &self.0.settings);
        if one.epoch != epoch || one.bus.canary.is_none_or(|canary| canary.number != number) {
            return;
        }
        one.answered();
        one.bus.wrote(now);
    }

    /// The canary could not be written.
    pub fn canary_failed(&self, node: u32, number: u64, failure: Failure, now: u64) {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        self.0.count_failure(failure);
        let refusals_count = state.rule(Rule::UnsyncedByWrite);
        let one = state.node(node, &self.0.settings);
        if one.bus.canary.is_none_or(|canary| canary.number != number) {
            return;
        }
        let failure = if failure.is_refusal() && !refusals_count {
            Failure::Refused
        } else {
            failure
        };
        if failure.is_refusal() {
            // The node answers: without canaries, but it does.
            one.bus.wrote(now);
            one.bus.canary = None;
            return;
        }
        one.bus.canary = None;
        one.bus.canary_at = now + RETRY;
        if failure == Failure::Moved {
            // The prefix is in a slot that the node has no longer.
            one.probe_soon();
        }
        if one.failed(failure, now) {
            self.0.stats.breaker_opened.one();
        }
        state.publish(&self.0);
    }

    /// The tracking connection answered PING, behind every message that was passed on before.
    pub fn pong(&self, node: u32, number: u64, now: u64) {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        let one = state.node(node, &self.0.settings);
        let Some(canary) = one.bus.canary.filter(|canary| canary.number == number && canary.back) else {
            return;
        };
        one.bus.canary = None;
        self.0.stats.canaries.one();
        let synced_at = canary.sent;
        if one.bus.sync == Sync::Armed {
            one.bus.synced_at = one.bus.synced_at.max(synced_at);
        } else if one.is_up() && one.bus.connected && now <= synced_at.saturating_add(self.0.settings.max_lag) {
            one.bus.clear = Some(AfterClear::Arm { synced_at });
        }
        state.publish(&self.0);
    }

    /// Tier 1 is empty, and all loads that were in flight are invalidated.
    pub fn cleared(&self, node: u32, now: u64) {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        state.loads_dropped_at = now;
        self.0.stats.clears.one();
        let one = state.node(node, &self.0.settings);
        let clear = one.bus.clear.take();
        if one.role == Role::Draining {
            one.role = Role::Idle;
        }
        match clear {
            Some(AfterClear::Arm { synced_at }) => {
                one.changes += 1;
                one.bus.sync = Sync::Armed;
                one.bus.synced_at = synced_at;
                self.0.stats.bus_armed.one();
            }
            Some(AfterClear::Unsync) => {
                one.changes += 1;
                one.bus.sync = Sync::Unsynced;
            }
            None => {}
        }
        state.publish(&self.0);
    }

    /// All loads that were in flight are invalidated.
    pub fn loads_dropped(&self, node: u32, now: u64) {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        state.loads_dropped_at = now;
        state.node(node, &self.0.settings).bus.drop_loads = false;
        state.publish(&self.0);
    }

    /// Messages of the bus, in their order. Calls `apply` with each key that tier 1 has to act on;
    /// the caller does so before it reports the next PONG.
    pub fn messages<'k>(&self, node: u32, keys: impl IntoIterator<Item = &'k [u8]>, mut apply: impl FnMut(&'k [u8])) {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        let numbered = state.rule(Rule::NumberedCanaries);
        let pinged = state.rule(Rule::PingBehindCanary);
        let mut arrived = None;
        state.node(node, &self.0.settings);
        for key in keys {
            self.0.stats.messages.one();
            let bus = &mut state.known_mut(node).bus;
            if !bus.canary_prefix.is_empty()
                && let Some(number) = key.strip_prefix(&*bus.canary_prefix)
            {
                let number = std::str::from_utf8(number)
                    .ok()
                    .and_then(|number| number.parse::<u64>().ok());
                if let Some(canary) = &mut bus.canary
                    && (number == Some(canary.number) || !numbered)
                {
                    canary.back = true;
                    arrived = (!pinged).then_some((canary.number, canary.sent));
                }
                continue;
            }
            if state.is_generation(key) {
                state.forget_generation(key);
            }
            apply(key);
        }
        drop(guard);
        if let Some((number, sent)) = arrived {
            self.pong(node, number, sent);
        }
    }

    /// The node's data was flushed: the message without keys.
    pub fn flushed(&self, node: u32, now: u64) {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        self.0.stats.flushes.one();
        state.forget_generations();
        let one = state.node(node, &self.0.settings);
        // Canaries may be among what is gone, and what tier 1 holds is.
        one.lose(now);
        one.bus.synced_at = 0;
        one.bus.canary = None;
        one.bus.canary_at = now;
        state.publish(&self.0);
    }
}

impl super::node::Bus {
    fn wrote(&mut self, now: u64) {
        self.written_at = now;
        if let Some(canary) = &mut self.canary {
            canary.written = true;
            if !self.connected {
                self.canary = None;
            }
        }
    }
}

/// The bus of a node that answers.
fn next_of_bus(one: &mut Node, settings: &Settings, now: u64) -> Task {
    if one.bus.clear.is_some() {
        return Task::Clear;
    }
    if let Some(canary) = &mut one.bus.canary {
        if canary.back && !canary.pinged {
            canary.pinged = true;
            return Task::Ping(canary.number);
        }
        if now > canary.sent.saturating_add(settings.max_lag) {
            // Deaf, or stalled.
            one.bus.canary = None;
            one.bus.canary_at = now;
            one.lose(now);
            if one.bus.connected {
                return Task::Close;
            }
        }
    }
    if !one.bus.connected && now >= one.bus.connect_at {
        return Task::Connect;
    }
    if let Sync::Lost { since } = one.bus.sync
        && now > since.saturating_add(settings.max_lag)
        && one.bus.written_at > since
    {
        one.bus.clear = Some(AfterClear::Unsync);
        return Task::Clear;
    }
    if one.bus.canary.is_none() && now >= one.bus.canary_at {
        one.bus.number += 1;
        one.bus.canary = Some(Canary {
            number: one.bus.number,
            sent: now,
            written: false,
            back: false,
            pinged: false,
        });
        one.bus.canary_at = now + settings.canary_interval;
        return Task::Canary(one.bus.number);
    }
    let mut wake = one.bus.canary.map_or(one.bus.canary_at, |canary| {
        canary.sent.saturating_add(settings.max_lag + 1)
    });
    if !one.bus.connected {
        wake = wake.min(one.bus.connect_at);
    }
    match one.bus.sync {
        Sync::Armed => wake = wake.min(one.bus.synced_at.saturating_add(settings.max_lag + 1)),
        Sync::Lost { since } => wake = wake.min(since.saturating_add(settings.max_lag + 1).max(now + RETRY)),
        Sync::Unsynced => {}
    }
    Task::Sleep(wake)
}
