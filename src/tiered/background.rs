//! The thread of a server of a cache's second tier: it receives the announcements, proves by
//! canaries that they arrive, renews leases, replays the journal, and probes a server that does not
//! answer.

use super::clock::now;
use super::session::Session;
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
    server: u32,
    bus: Option<Box<dyn Bus>>,
    /// The canary whose PING is not answered.
    pinged: Option<u64>,
}

/// Runs until the session is stopped; then replays the journal for as long as one command may take.
pub(super) fn run(session: Arc<Session>, server: u32) {
    let mut this = Background {
        session,
        server,
        bus: None,
        pinged: None,
    };
    while !this.is_stopped() {
        if server == 0 {
            // What fails is tried again.
            _ = this.session.start_threads();
            let deadline = Instant::now() + this.session.settings.connect_timeout;
            _ = catch_unwind(AssertUnwindSafe(|| {
                this.session.transport.refresh(deadline);
                this.session.follow();
            }));
            #[cfg(feature = "async")]
            this.session.pool.stand_in();
        }
        let task = this.session.tier.background(server, now());
        // A removal may call the program's listener, which may panic. The task may be half done
        // then: disconnecting ends all trust in the first tier until the bus is set up again.
        if catch_unwind(AssertUnwindSafe(|| this.perform(task))).is_err() {
            _ = catch_unwind(AssertUnwindSafe(|| this.disconnect()));
            std::thread::sleep(LONGEST_WAIT);
        }
    }
    _ = catch_unwind(AssertUnwindSafe(|| this.bus = None));
    _ = catch_unwind(AssertUnwindSafe(|| this.flush()));
    this.session.close_idle(server);
}

impl Background {
    fn is_stopped(&self) -> bool {
        // Acquire pairs with the Release of the thread that closes the cache: what that journalled
        // before is replayed.
        self.session.stopped.load(Ordering::Acquire)
    }

    fn flush(&mut self) {
        let end = Instant::now() + self.session.settings.timeout;
        while self.session.tier.journal_len() > 0 && Instant::now() < end {
            match self.session.tier.background(self.server, now()) {
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
        let (tier, server) = (&session.tier, self.server);
        match task {
            Task::Sleep(until) => self.sleep(until),
            Task::Probe => session.probe(server),
            Task::Connect => {
                let prefixes = session.settings.prefixes.each_ref().map(|prefix| &**prefix);
                match session
                    .transport
                    .subscribe(server, &prefixes, Instant::now() + session.settings.connect_timeout)
                {
                    Ok(bus) => {
                        (self.bus, self.pinged) = (Some(bus), None);
                        tier.connected(server, now());
                    }
                    Err(_) => self.disconnect(),
                }
            }
            Task::Close => self.disconnect(),
            Task::Canary(number) => {
                let key = tier.canary_key(server);
                let command = Command::Canary {
                    key: &key,
                    px: CANARY_PX,
                };
                match session.execute(server, &command) {
                    (epoch, Ok(Answer::Flag(_))) => tier.canary_written(server, number, epoch, now()),
                    (_, Ok(_)) => tier.canary_failed(server, number, Failure::Other, now()),
                    (_, Err(failure)) => {
                        tier.canary_failed(server, number, failure, now());
                        if failure == Failure::Moved {
                            // The next one has a key that is on this server.
                            session.follow();
                            session.probe(server);
                        }
                    }
                }
            }
            Task::Ping(number) => {
                let deadline = Instant::now() + session.settings.timeout;
                match self.bus.as_mut().map(|bus| bus.ping(deadline)) {
                    Some(Ok(())) => self.pinged = Some(number),
                    _ => self.disconnect(),
                }
            }
            Task::Clear => {
                session.local.clear();
                session.waiters.wake_all();
                tier.cleared(server, now());
            }
            Task::DropLoads => {
                session.local.invalidate_loads();
                tier.loads_dropped(server, now());
            }
            Task::Operate => {
                if let Some(operation) = tier.background_operation(server, now()) {
                    session.maintain(operation);
                }
            }
        }
    }

    fn disconnect(&mut self) {
        (self.bus, self.pinged) = (None, None);
        self.session.tier.disconnected(self.server, now());
    }

    /// Waits for a message until then, and handles it.
    fn sleep(&mut self, until: u64) {
        let left = Duration::from_nanos(until.saturating_sub(now())).min(LONGEST_WAIT);
        let Some(bus) = &mut self.bus else {
            std::thread::sleep(left);
            return;
        };
        let (tier, server) = (&self.session.tier, self.server);
        match bus.next(Instant::now() + left) {
            Ok(Message::Changed(keys)) => {
                let mut changed = Vec::new();
                tier.messages(server, keys.iter().map(|key| &**key), |key| changed.push(key));
                // Outside the core's lock: removals may call the program's listener.
                changed.into_iter().for_each(|key| self.session.apply(key));
            }
            Ok(Message::Flushed) => {
                tier.flushed(server, now());
                // Before later messages are handled.
                while let task @ (Task::Clear | Task::DropLoads) = self.session.tier.background(self.server, now()) {
                    self.perform(task);
                }
            }
            Ok(Message::Pong) => {
                if let Some(number) = self.pinged.take() {
                    tier.pong(server, number, now());
                }
            }
            Ok(Message::Nothing) => {}
            Err(_) => self.disconnect(),
        }
    }
}
