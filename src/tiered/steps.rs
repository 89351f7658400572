//! The steps of an operation: what its caller has to do next, so that threads, tasks and batches of
//! keys follow the same protocol.

use super::clock::now;
use super::session::{Request, Session};
use crate::tier2::{Action, Kind, Operation};

/// What a loader did.
pub(super) enum LoadEnd {
    /// A value of this kind, and for how many nanoseconds it is fresh (0: the cache's setting).
    Loaded(u64, Kind),
    Failed,
}

/// The part of an operation that knows keys and values.
pub(super) trait Call {
    /// Begins a mark of the key in the first tier, unless the last one is whole.
    fn mark(&mut self);
    /// Removes what the operation concerns from the first tier, and invalidates its loads.
    fn drop_local(&mut self);
    /// Takes the value of a reply whose payload begins at `operation.offset()`. Returns whether it
    /// is one.
    fn accept(&mut self, operation: &Operation, reply: &[u8]) -> bool;
    /// Returns the flags, the codec and the payload of the new value.
    fn payload(&self) -> (u16, u8, &[u8]);
}

/// What takes time, or runs code of the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Perform the command of [`Steps::request`].
    Send,
    /// Connect to this server, then [`Steps::stepped`].
    Probe(u32),
    /// Wait until then, or until a change of the key, then [`Steps::stepped`].
    Wait(u64),
    /// Call the loader, then [`Steps::loaded`]. The number of loads is limited if this is set.
    Load { is_limited: bool },
    /// The operation has ended so.
    End(Action),
}

/// An operation and its call.
pub(super) struct Steps<C> {
    /// `None` while the command is performed elsewhere.
    pub(super) request: Option<Request>,
    pub(super) call: C,
    /// A frame was written, or a lease given up: callers that wait for the key look again.
    wrote: bool,
}

impl<C: Call> Steps<C> {
    pub(super) fn new(operation: Operation, call: C) -> Self {
        Self {
            request: Some(Request::new(operation)),
            call,
            wrote: false,
        }
    }

    pub(super) fn request(&mut self) -> &mut Request {
        self.request.as_mut().expect("the command has been performed")
    }

    pub(super) fn operation(&mut self) -> &mut Operation {
        &mut self.request().operation
    }

    /// Takes the steps that need nothing, and returns what the next one needs: once for each need.
    pub(super) fn next(&mut self) -> Need {
        let Self { request, call, wrote } = self;
        let request = request.as_mut().expect("the command has been performed");
        loop {
            let operation = &mut request.operation;
            match operation.action() {
                action if action.is_command() => {
                    if action.is_marked() {
                        call.mark();
                    }
                    if matches!(action, Action::Fill | Action::Put) {
                        *wrote = true;
                        let (flags, codec, payload) = call.payload();
                        request.frame = operation.head(flags, codec);
                        request.frame.extend_from_slice(payload);
                    }
                    return Need::Send;
                }
                Action::Probe => return Need::Probe(operation.node()),
                Action::Wait => return Need::Wait(operation.until()),
                Action::Load => {
                    return Need::Load {
                        is_limited: operation.is_limited(),
                    };
                }
                Action::DropLocal => {
                    call.drop_local();
                    operation.step(now());
                }
                end @ (Action::Hit | Action::NegativeHit | Action::Stale) => {
                    if call.accept(operation, &request.reply) {
                        return Need::End(end);
                    }
                    operation.reject(now());
                }
                end => return Need::End(end),
            }
        }
    }

    /// Returns the call and the operation, at the end.
    pub(super) fn into_parts(self) -> (C, Operation) {
        let request = self.request.expect("the command has been performed");
        (self.call, request.operation)
    }

    /// Takes the step behind a probe or a wait.
    pub(super) fn stepped(&mut self) {
        self.operation().step(now());
    }

    /// Reports what the loader did.
    pub(super) fn loaded(&mut self, end: LoadEnd) {
        match end {
            LoadEnd::Loaded(ttl, kind) => _ = self.operation().loaded(now(), ttl, kind),
            LoadEnd::Failed => {
                self.wrote = true;
                self.operation().load_failed(now());
            }
        }
    }

    /// Wakes the callers of this process that wait for the key: called at the end.
    pub(super) fn wake(&mut self, session: &Session) {
        if self.wrote {
            session.waiters.wake(self.operation().key());
        }
    }

    /// Runs to the end, which is returned, in this thread. `load` is called at most once.
    pub(super) fn run(&mut self, session: &Session, mut load: impl FnMut(&mut C, bool) -> LoadEnd) -> Action {
        let end = loop {
            match self.next() {
                Need::Send => session.command(self.request()),
                Need::Probe(server) => {
                    session.probe(server);
                    self.stepped();
                }
                Need::Wait(until) => {
                    session.waiters.wait(self.operation().key(), until);
                    self.stepped();
                }
                Need::Load { is_limited } => {
                    let end = load(&mut self.call, is_limited);
                    self.loaded(end);
                }
                Need::End(end) => break end,
            }
        };
        self.wake(session);
        end
    }
}

/// The most commands of a packet, and about the most bytes of the values in it: each packet has the
/// time of one command.
const MOST_COMMANDS: usize = 256;
const MOST_BYTES: usize = 1 << 20;

/// Runs operations together to their ends, which are returned, in this thread: commands for the
/// same server are sent in one packet. `load` is called with those that need a load now, of which
/// at least one is limited if the last argument is set, and reports the outcome of each.
///
/// No operation waits while another one can be advanced, which may hold a lease.
pub(super) fn run_all<C: Call>(
    session: &Session,
    all: &mut [Steps<C>],
    mut load: impl FnMut(&mut [Steps<C>], &[usize], bool),
) -> Vec<Action> {
    let mut needs: Vec<Need> = all.iter_mut().map(Steps::next).collect();
    loop {
        let places = |holds: &dyn Fn(Need) -> bool| -> Vec<usize> {
            let holding = needs.iter().enumerate().filter(|(_, need)| holds(**need));
            holding.map(|(at, _)| at).collect()
        };
        let sends = places(&|need| need == Need::Send);
        let loads = places(&|need| matches!(need, Need::Load { .. }));
        let probe = needs.iter().find_map(|need| match need {
            Need::Probe(server) => Some(*server),
            _ => None,
        });
        let wait = needs.iter().enumerate().filter_map(|(at, need)| match need {
            Need::Wait(until) => Some((*until, at)),
            _ => None,
        });
        let advanced = if let Some(&first) = sends.first() {
            let server = all[first].operation().node();
            let mut requests = Vec::new();
            let mut sent = Vec::new();
            let mut bytes = 0;
            for (at, steps) in all.iter_mut().enumerate() {
                if needs[at] == Need::Send && steps.operation().node() == server {
                    bytes += steps.request().frame.len();
                    requests.push(steps.request());
                    sent.push(at);
                    if sent.len() == MOST_COMMANDS || bytes >= MOST_BYTES {
                        break;
                    }
                }
            }
            session.commands(server, &mut requests);
            sent
        } else if let Some(server) = probe {
            session.probe(server);
            let probed = places(&|need| need == Need::Probe(server));
            probed.iter().for_each(|&at| all[at].stepped());
            probed
        } else if !loads.is_empty() {
            let is_limited = loads.iter().any(|&at| needs[at] == Need::Load { is_limited: true });
            load(all, &loads, is_limited);
            loads
        } else if let Some((until, at)) = wait.min() {
            session.waiters.wait(all[at].operation().key(), until);
            all[at].stepped();
            vec![at]
        } else {
            break;
        };
        for at in advanced {
            needs[at] = all[at].next();
        }
    }
    all.iter_mut().for_each(|steps| steps.wake(session));
    let end = |need| match need {
        Need::End(end) => end,
        need => unreachable!("{need:?} was performed"),
    };
    needs.into_iter().map(end).collect()
}
