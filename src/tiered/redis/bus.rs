//! The connection on which the server announces changes: CLIENT TRACKING in broadcast mode.

use super::reply::failure_of;
use super::wire::{Wire, command, exchange, left};
use crate::tiered::transport::{Bus, Failure, Message};
use redis::{PushKind, Value};
use std::time::Instant;

pub(super) struct RedisBus {
    wire: Wire,
    /// How many of the next replies redis-rs skips on a connection of its own: it takes a wait that
    /// timed out for a reply that comes late.
    skipped: usize,
    /// A PING is not answered.
    pinging: bool,
}

impl RedisBus {
    pub(super) fn subscribe(mut wire: Wire, prefixes: &[&[u8]], deadline: Instant) -> Result<Self, Failure> {
        let mut parts: Vec<&[u8]> = vec![b"CLIENT", b"TRACKING", b"ON", b"BCAST"];
        for prefix in prefixes {
            parts.extend([&b"PREFIX"[..], prefix]);
        }
        let replies = exchange(&mut wire, &[command(&parts)], deadline)?;
        if let Some(Value::ServerError(error)) = replies.first() {
            return Err(failure_of(error));
        }
        Ok(Self {
            wire,
            skipped: 0,
            pinging: false,
        })
    }

    /// Sends `count` PINGs.
    fn send_pings(&mut self, count: usize, deadline: Instant) -> Result<(), Failure> {
        let ping = redis::cmd("PING").get_packed_command();
        let sent = self.wire.send(&ping.repeat(count), deadline);
        sent.map_err(|_| Failure::Refused)
    }
}

/// Returns the message of a push; `None` if it is not about keys.
fn message_of(kind: &PushKind, data: Vec<Value>) -> Option<Message> {
    if *kind != PushKind::Invalidate {
        return None;
    }
    match data.into_iter().next()? {
        Value::Array(keys) => {
            let keys = keys.into_iter().filter_map(|key| match key {
                Value::BulkString(key) => Some(key),
                _ => None,
            });
            Some(Message::Changed(keys.collect()))
        }
        // What is neither keys nor nil is taken for the worst.
        _ => Some(Message::Flushed),
    }
}

impl Bus for RedisBus {
    fn next(&mut self, deadline: Instant) -> Result<Message, Failure> {
        // What has arrived is read even if no time is left.
        let deadline = Instant::now() + left(deadline);
        loop {
            match self.wire.receive(deadline) {
                Ok(Value::Push { kind, data }) => {
                    if let Some(message) = message_of(&kind, data) {
                        return Ok(message);
                    }
                }
                Ok(Value::SimpleString(text)) if text == "PONG" => {
                    (self.skipped, self.pinging) = (0, false);
                    return Ok(Message::Pong);
                }
                Ok(_) => return Err(Failure::Other),
                Err(error) if error.is_timeout() => {
                    self.skipped += usize::from(self.wire.skips_late_replies());
                    if self.pinging && self.skipped > 0 {
                        // The reply that was awaited is skipped: another one, behind it, is not.
                        self.send_pings(1, deadline)?;
                    }
                    return Ok(Message::Nothing);
                }
                Err(_) => return Err(Failure::Refused),
            }
            if Instant::now() > deadline {
                return Ok(Message::Nothing);
            }
        }
    }

    fn ping(&mut self, deadline: Instant) -> Result<(), Failure> {
        // As many more as are skipped. The last one's reply is behind every message, as one would
        // be.
        self.pinging = true;
        self.send_pings(self.skipped + 1, deadline)
    }
}
