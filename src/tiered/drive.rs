//! Drives an operation of the core: performs each action, and reports its outcome.

use super::clock::now;
use super::session::Session;
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
    /// Calls the program's loader.
    fn load(&mut self, is_limited: bool) -> LoadEnd;
    /// Takes the value of a reply whose payload begins at `operation.offset()`. Returns whether it
    /// is one.
    fn accept(&mut self, operation: &Operation, reply: &[u8]) -> bool;
    /// Returns the flags, the codec and the payload of the new value.
    fn payload(&self) -> (u16, u8, &[u8]);
}

/// Drives the operation to its end, which it returns.
pub(super) fn drive(session: &Session, operation: &mut Operation, call: &mut impl Call) -> Action {
    let mut reply = Vec::new();
    let mut wrote = false;
    let end = loop {
        match operation.action() {
            action if action.is_command() => {
                if action.is_marked() {
                    call.mark();
                }
                let mut frame = Vec::new();
                if matches!(action, Action::Fill | Action::Put) {
                    wrote = true;
                    let (flags, codec, payload) = call.payload();
                    frame = operation.head(flags, codec);
                    frame.extend_from_slice(payload);
                }
                session.command(operation, &frame, &mut reply);
            }
            Action::Probe => {
                session.probe();
                operation.step(now());
            }
            Action::Wait => {
                session.wait(operation.key(), operation.until());
                operation.step(now());
            }
            Action::DropLocal => {
                call.drop_local();
                operation.step(now());
            }
            Action::Load => match call.load(operation.is_limited()) {
                LoadEnd::Loaded(ttl, kind) => _ = operation.loaded(now(), ttl, kind),
                LoadEnd::Failed => {
                    wrote = true;
                    operation.load_failed(now());
                }
            },
            end @ (Action::Hit | Action::NegativeHit | Action::Stale) => {
                if call.accept(operation, &reply) {
                    break end;
                }
                operation.reject(now());
            }
            end => break end,
        }
    };
    if wrote {
        session.wake(operation.key());
    }
    end
}
