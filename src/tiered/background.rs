//! The thread of a cache's second tier: it receives the server's announcements, proves by canaries
//! that they arrive, renews leases, replays the journal, and probes a server that does not answer.

use super::clock::now;
use super::session::{NODE, Session};
use super::transport::{Answer, Bus, Command, Failure, Message};
use crate::tier2::{CANARY_PX, Task};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long the thread waits for messages before it looks whether it is to end.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

struct Background {
    session: Arc<Session>,
    bus: Option<Box<dyn Bus>>,
    /// The canary whose PING is not answered.
    pinged: Option<u64>,
}

/// Runs until the session is stopped; then replays the journal for as long as one command may take.
pub(super) fn run(session: Arc<Session>) {
    let mut this = Background {
        session,
        bus: None,
        pinged: None,
    };
    while !this.is_stopped() {
        let task = this.session.tier.background(NODE, now());
        // A removal may call the program's listener, which may panic. The task may be half done
        // then: disconnecting ends all trust in the first tier until the bus is set up again.
        if catch_unwind(AssertUnwindSafe(|| this.perform(task))).is_err() {
            this.disconnect();
            std::thread::sleep(LONGEST_WAIT);
        }
    }
    this.bus = None;
    _ = catch_unwind(AssertUnwindSafe(|| this.flush()));
    this.session.close_idle();
}

impl Background {
    fn is_stopped(&self) -> bool {
        // Acquire pairs with the Release of the thread that closes the cache: what that journalled
        // before is replayed.
        self.session.stopped.load(Ordering::Acquire)
    }

    fn flush(&mut self) {
        let end = Instant::now() + self.session.timeout;
        while self.session.tier.journal_len() > 0 && Instant::now() < end {
            match self.session.tier.background(NODE, now()) {
                task @ (Task::Probe | Task::Operate | Task::Clear | Task::DropLoads) => self.perform(task),
                Task::Sleep(until) => {
                    let left = Duration::from_nanos(until.saturating_sub(now()));
                    std::thread::sleep(left.min(end.saturating_duration_since(Instant::now())));
                }
                // The bus is not needed any more.
                _ => self.disconnect(),
            }
        }
    }

    fn perform(&mut self, task: Task) {
        let session = self.session.clone();
        let tier = &session.tier;
        match task {
            Task::Sleep(until) => self.sleep(until),
            Task::Probe => session.probe(),
            Task::Connect => {
                let prefixes = session.prefixes.each_ref().map(|prefix| &**prefix);
                match session
                    .transport
                    .subscribe(&prefixes, Instant::now() + session.connect_timeout)
                {
                    Ok(bus) => {
                        (self.bus, self.pinged) = (Some(bus), None);
                        tier.connected(NODE, now());
                    }
                    Err(_) => self.disconnect(),
                }
            }
            Task::Close => self.disconnect(),
            Task::Canary(number) => {
                let key = tier.canary_key(NODE);
                let command = Command::Canary {
                    key: &key,
                    px: CANARY_PX,
                };
                match session.execute(&command, |_| ()) {
                    (epoch, Ok(Answer::Flag(_))) => tier.canary_written(NODE, number, epoch, now()),
                    (_, Ok(_)) => tier.canary_failed(NODE, number, Failure::Other, now()),
                    (_, Err(failure)) => tier.canary_failed(NODE, number, failure, now()),
                }
            }
            Task::Ping(number) => {
                let deadline = Instant::now() + session.timeout;
                match self.bus.as_mut().map(|bus| bus.ping(deadline)) {
                    Some(Ok(())) => self.pinged = Some(number),
                    _ => self.disconnect(),
                }
            }
            Task::Clear => {
                session.local.clear();
                session.wake_all();
                tier.cleared(NODE, now());
            }
            Task::DropLoads => {
                session.local.invalidate_loads();
                tier.loads_dropped(NODE, now());
            }
            Task::Operate => {
                if let Some(operation) = tier.background_operation(NODE, now()) {
                    session.maintain(operation);
                }
            }
        }
    }

    fn disconnect(&mut self) {
        (self.bus, self.pinged) = (None, None);
        self.session.tier.disconnected(NODE, now());
    }

    /// Waits for a message until then, and handles it.
    fn sleep(&mut self, until: u64) {
        let left = Duration::from_nanos(until.saturating_sub(now())).min(LONGEST_WAIT);
        let Some(bus) = &mut self.bus else {
            std::thread::sleep(left);
            return;
        };
        let tier = &self.session.tier;
        match bus.next(Instant::now() + left) {
            Ok(Message::Changed(keys)) => {
                let mut changed = Vec::new();
                tier.messages(NODE, keys.iter().map(|key| &**key), |key| changed.push(key));
                // Outside the core's lock: removals may call the program's listener.
                changed.into_iter().for_each(|key| self.session.apply(key));
            }
            Ok(Message::Flushed) => {
                tier.flushed(NODE, now());
                // Before later messages are handled.
                while let task @ (Task::Clear | Task::DropLoads) = tier_task(&self.session) {
                    self.perform(task);
                }
            }
            Ok(Message::Pong) => {
                if let Some(number) = self.pinged.take() {
                    tier.pong(NODE, number, now());
                }
            }
            Ok(Message::Nothing) => {}
            Err(_) => self.disconnect(),
        }
    }
}

fn tier_task(session: &Session) -> Task {
    session.tier.background(NODE, now())
}
