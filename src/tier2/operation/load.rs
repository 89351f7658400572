//! Reloads of what is there, and the ends of loads.

use super::super::Rule;
use super::super::frame::{self, Kind, Parsed, parse};
use super::super::node::{Link, MILLI};
use super::super::tier::State;
use super::read::{After, Right, Seen};
use super::{Action, Operation, millis, slots};
use std::sync::atomic::Ordering;

impl Operation {
    // Reloading what is there: a lease in a key of its own, since the old value stays.

    pub(super) fn claim(&mut self, state: &mut State, now: u64) {
        let namespace = self.namespace().clone();
        let stamp = state.stamp();
        self.read.lease = Some(stamp);
        self.read.right = Right::Refresh;
        self.target = Some(if state.rule(Rule::ClaimInSlot) {
            slots::beside(&self.key, b":r")
        } else {
            [&*self.key, b":r"].concat().into()
        });
        self.frame = frame::head(Kind::Lease, stamp, 0).to_vec();
        self.px = millis(namespace.lease(state.rule(Rule::LeaseByLoad)));
        self.issue(state, Action::Claim, now);
    }

    pub(super) fn claim_answered(&mut self, state: &mut State, won: bool, value: Option<&[u8]>, now: u64) {
        self.read.claimed = true;
        let parsed = value.map(parse);
        let seen = self.read.seen.as_ref().expect("claimed for");
        let same = matches!(&parsed, Some(Parsed::Frame(frame)) if frame.stamp == seen.stamp);
        if won && (same || !state.rule(Rule::ClaimReadsAgain)) {
            self.expected = seen.head.clone();
            let server_ms = state.known(self.node).server_ms_upper(now);
            let grace = self.namespace().0.settings.stale_while_revalidate;
            self.read.serves_stale = seen.soft_end.saturating_add(millis(grace)) > server_ms;
            return self.lead(state, now);
        }
        if won {
            // Another caller reloaded the value, or removed it.
            self.expected = self.frame.clone();
            return self.release(state, After::Restart, now);
        }
        let soft_end = seen.soft_end;
        self.end_lease(state);
        self.read.right = Right::None;
        if !same {
            // The answer of the claim is as good as that of a GET.
            self.forget_known(state);
            return self.examine(state, value, now);
        }
        let server_ms = state.known(self.node).server_ms_upper(now);
        let grace = self.namespace().0.settings.stale_while_revalidate;
        if soft_end > server_ms {
            self.hit(state, server_ms, now);
        } else if soft_end.saturating_add(millis(grace)) > server_ms {
            self.namespace().0.stats.stale_while_revalidate.one();
            self.action = Action::Stale;
        } else {
            self.wait(state, now);
        }
    }

    pub(super) fn issue_touch(&mut self, state: &mut State, ttl: u64, now: u64) {
        let head = self.read.seen.as_ref().expect("examined").head.clone();
        self.prepare(state, ttl, Kind::Value, 0, now);
        self.expected = head;
        self.frame = self.meta.stamp.to_vec();
        self.issue(state, Action::Touch, now);
    }

    // The end of a load.

    pub(super) fn load_returned(&mut self, state: &mut State, ttl: u64, kind: Kind, now: u64) {
        let namespace = self.namespace().clone();
        let took = now.saturating_sub(self.read.load_began);
        // Relaxed: an estimate.
        namespace.0.last_load.store(took, Ordering::Relaxed);
        namespace.0.stats.loads.one();
        namespace.0.stats.load_micros.add(took / 1_000);
        let ttl = if ttl == 0 { namespace.0.settings.ttl } else { ttl };
        self.read.ttl = ttl;
        self.read.serves_stale = false;
        match self.read.right {
            Right::Alone { keep } => {
                let one = state.known(self.node);
                if keep
                    && one.changes == self.changes
                    && matches!(one.link, Link::Down { .. })
                    && !self.is_blocked(state)
                {
                    let bound = state.bound(namespace.0.number, self.node).unwrap_or(0);
                    self.keep_until = self.marked_at.saturating_add(bound.min(ttl));
                }
                self.release_after_load(state, Action::Deliver, now);
            }
            Right::Marker => {
                let seen = self.read.seen.take().expect("the marker");
                let server_ms = state.known(self.node).server_ms_upper(now);
                let fresh = millis(ttl)
                    .min(seen.soft_end.saturating_sub(server_ms))
                    .saturating_mul(MILLI);
                let mut generations = vec![(None, seen.generation)];
                generations.extend(seen.tags.iter().map(|(tag, stamp)| (Some(&**tag), *stamp)));
                self.keep_until = self.keep_read(state, fresh, &generations, now);
                self.action = Action::Deliver;
            }
            Right::Lease | Right::Refresh | Right::None => {
                if self.is_blocked(state) {
                    // An invalidation of this process is not confirmed: the lease may be there
                    // still, though it is void.
                    self.count_refused();
                    return self.release_after_load(state, Action::Deliver, now);
                }
                if kind == Kind::Local {
                    namespace.0.stats.local_values.one();
                }
                self.target = None;
                self.prepare(state, ttl, kind, took, now);
                self.issue(state, Action::Fill, now);
            }
        }
    }

    pub(super) fn load_errored(&mut self, state: &mut State, now: u64) {
        let namespace = self.namespace().clone();
        namespace.0.stats.load_failures.one();
        let server_ms = state.known(self.node).server_ms_upper(now);
        let grace = millis(namespace.0.settings.stale_if_error);
        let usable =
            |seen: &Seen| seen.current && seen.kind != Kind::Local && seen.soft_end.saturating_add(grace) > server_ms;
        let stale = grace > 0 && !self.read.serves_stale && self.read.seen.as_ref().is_some_and(usable);
        let end = if stale && !self.is_blocked(state) {
            namespace.0.stats.stale_if_error.one();
            Action::Stale
        } else {
            Action::Failed
        };
        self.read.serves_stale = false;
        self.release_after_load(state, end, now);
    }

    pub(super) fn release_after_load(&mut self, state: &mut State, end: Action, now: u64) {
        self.release(state, After::End(end), now);
    }

    /// Gives the lease back, so that the next caller need not wait for its end.
    pub(super) fn release(&mut self, state: &mut State, after: After, now: u64) {
        let Some(stamp) = self.read.lease else {
            return self.continue_after(state, after, now);
        };
        // In a key of its own: that of a claim.
        let key = state.leases.get(&stamp).map(|lease| lease.key.clone());
        self.target = key.or(self.target.take());
        self.expected = frame::head(Kind::Lease, stamp, 0).to_vec();
        self.read.after = Some(after);
        self.end_lease(state);
        if !state.known(self.node).takes_writes() {
            return self.released(state, now);
        }
        self.issue(state, Action::Release, now);
        if self.action == Action::Probe {
            self.resume = None;
            self.released(state, now);
        }
    }

    pub(super) fn released(&mut self, state: &mut State, now: u64) {
        let after = self.read.after.take().expect("set by `release`");
        self.continue_after(state, after, now);
    }

    pub(super) fn continue_after(&mut self, state: &mut State, after: After, now: u64) {
        match after {
            After::End(action) => self.action = action,
            After::Restart => {
                self.read.right = Right::None;
                self.retry_read(state, now);
            }
        }
    }

    pub(super) fn filled(&mut self, state: &mut State, stored: bool, now: u64) {
        if stored {
            self.namespace().0.stats.fills.one();
            // A bump does not void leases: a value of a generation that ended during the load is in
            // tier 2, and is no use.
            self.stored = self.collected == state.forgotten;
            self.keep_until = self.keep_written(state, self.read.ttl, now);
        } else {
            self.count_refused();
        }
        if self.read.right == Right::Refresh {
            return self.release(state, After::End(Action::Deliver), now);
        }
        self.end_lease(state);
        self.action = Action::Deliver;
    }

    pub(super) fn count_refused(&self) {
        self.namespace().0.stats.fills_refused.one();
    }

    pub(super) fn rejected(&mut self, state: &mut State, now: u64) {
        self.namespace().0.stats.rejected.one();
        self.keep_until = 0;
        self.stored = false;
        let Some(seen) = self.read.seen.take().filter(|_| state.known(self.node).is_up()) else {
            return self.load_alone(state, now);
        };
        self.replace_unusable(state, seen.head, now);
    }
}
