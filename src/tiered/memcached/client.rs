//! A connection to one server: commands, as exchanges of requests and replies.

use super::Shared;
use super::socket::Socket;
use crate::tier2::Action;
use crate::tier2::memcached::{Exchange, LONGEST_KEY, Operands, Outcome, Protocol, Step, expiration, reply_length};
use crate::tiered::transport::{Answer, Command, Connection, Failure, Greeting, short_key};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// The first version whose meta commands are those that are sent.
const META: [u32; 3] = [1, 6, 13];
/// Bytes of requests that are sent before their replies are read: fewer than the sockets of both
/// sides take. Otherwise each side could wait for the other one to read.
const WINDOW: usize = 32 << 10;
/// Initial size of the buffer of replies, and the longest reply without a value.
const BUFFER: usize = 16 << 10;
const LONGEST_TEXT: usize = 64 << 10;
/// Length of a stamp, which is a part of a frame.
const STAMP: usize = 16;
/// A larger buffer is given back when it is empty.
const LARGE_BUFFER: usize = 256 << 10;

/// Received bytes that are not read yet.
struct Replies {
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
    /// The most bytes of a reply.
    limit: usize,
}

impl Replies {
    fn new(limit: usize) -> Self {
        Self {
            buffer: vec![0; BUFFER],
            begin: 0,
            end: 0,
            limit,
        }
    }

    /// Moves what is not read to the beginning of the buffer: earlier ranges are void.
    fn compact(&mut self) {
        if self.begin > 0 {
            self.buffer.copy_within(self.begin..self.end, 0);
            self.end -= self.begin;
            self.begin = 0;
        }
        if self.end == 0 && self.buffer.len() > LARGE_BUFFER {
            self.buffer = vec![0; BUFFER];
        }
    }

    /// Reads the next reply, and returns where it is in the buffer. The connection is of no further
    /// use after a failure.
    fn next(&mut self, socket: &mut Socket, deadline: Instant) -> Result<Range<usize>, Failure> {
        loop {
            let received = &self.buffer[self.begin..self.end];
            match reply_length(received) {
                Ok(Some(length)) => {
                    let whole = self.begin..self.begin + length;
                    self.begin = whole.end;
                    return Ok(whole);
                }
                Ok(None) => {}
                Err(_) => return Err(Failure::Timeout),
            }
            let has_value = received.starts_with(b"VA");
            let longest = if has_value { self.limit } else { LONGEST_TEXT };
            if received.len() > longest {
                return Err(Failure::Timeout);
            }
            if self.end == self.buffer.len() {
                self.buffer.resize(self.end * 2, 0);
            }
            let free = &mut self.buffer[self.end..];
            let received = socket.receive(free, deadline).map_err(|_| Failure::Timeout)?;
            self.end += received;
        }
    }
}

pub(super) struct MemcachedConnection {
    socket: Socket,
    replies: Replies,
    shared: Arc<Shared>,
    protocol: Protocol,
    serial: u64,
    /// The server's time in milliseconds, and when it was that.
    clock: (u64, Instant),
    /// The rest of a reply may arrive, or more than was requested has arrived.
    is_broken: bool,
}

/// A command that is in progress: its place in the batch, and its exchange.
struct Running {
    at: usize,
    exchange: Exchange,
    was_sent: bool,
}

impl MemcachedConnection {
    /// Connects to the server with this number.
    pub(super) fn open(shared: &Arc<Shared>, server: usize, deadline: Instant) -> Result<(Self, Greeting), Failure> {
        let mut socket = Socket::connect(&shared.addresses[server], deadline).map_err(|_| Failure::Refused)?;
        let mut replies = Replies::new(shared.longest_reply());
        // Nothing of a command was sent.
        let refused = |_| Failure::Refused;
        let asked = Instant::now();
        socket
            .send(b"version\r\nstats\r\n", deadline)
            .map_err(|_| Failure::Refused)?;
        let version = replies.next(&mut socket, deadline).map_err(refused)?;
        let statistics = replies.next(&mut socket, deadline).map_err(refused)?;
        let text = |range| String::from_utf8_lossy(&replies.buffer[range]).into_owned();
        let (version, statistics) = (text(version), text(statistics));
        if version.starts_with("CLIENT_ERROR") {
            return Err(Failure::NoPermission);
        }
        let fields = fields(&statistics);
        let number = |name: &str| fields.get(name).and_then(|digits| digits.parse::<u64>().ok());
        // A server without a version or a time is no memcached.
        let version = version.strip_prefix("VERSION ").ok_or(Failure::Refused)?;
        let seconds = number("time").ok_or(Failure::Refused)?;
        let begun = number("uptime").map_or(0, |uptime| seconds.saturating_sub(uptime));
        let protocol = if version_of(version) >= META {
            Protocol::Meta
        } else {
            Protocol::Classic
        };
        let is_classic = protocol == Protocol::Classic;
        // Relaxed: a report for statistics.
        shared.is_classic[server].store(is_classic, Ordering::Relaxed);
        // Relaxed: the numbers of two connections differ, and are drawn when each has just been in
        // use: of two open connections to one server, neither is to an earlier run of it.
        let serial = shared.serials.fetch_add(1, Ordering::Relaxed);
        let server_ms = seconds.saturating_mul(1_000);
        let greeting = Greeting {
            identity: format!("{}/{begun}", fields.get("pid").copied().unwrap_or_default()).into_bytes(),
            server_ms,
            connection: serial,
            can_fence: false,
        };
        let is_broken = replies.begin != replies.end;
        let connection = Self {
            socket,
            replies,
            shared: shared.clone(),
            protocol,
            serial,
            clock: (server_ms, asked),
            is_broken,
        };
        Ok((connection, greeting))
    }

    fn begin(&self, command: &Command<'_>) -> Result<Exchange, Failure> {
        let (server_ms, then) = self.clock;
        let server_ms = server_ms.saturating_add(then.elapsed().as_millis() as u64);
        let expires = |px| expiration(px, server_ms);
        let nothing = Operands::default();
        let (action, key, operands) = match *command {
            Command::Get { key } => (Action::Get, key, nothing),
            Command::Acquire { key, frame, px } => {
                let expires = if px == 0 { 0 } else { expires(px) };
                (
                    Action::Acquire,
                    key,
                    Operands {
                        frame,
                        expires,
                        ..nothing
                    },
                )
            }
            Command::Swap {
                key,
                expected,
                frame,
                px,
            } => {
                let expires = expires(px);
                let operands = Operands {
                    expected,
                    frame,
                    expires,
                    ..nothing
                };
                (Action::Swap, key, operands)
            }
            Command::Put { key, frame, px, .. } => {
                let expires = expires(px);
                (
                    Action::Put,
                    key,
                    Operands {
                        frame,
                        expires,
                        ..nothing
                    },
                )
            }
            Command::Release { key, expected } => (Action::Release, key, Operands { expected, ..nothing }),
            Command::Remove { key } => (Action::Remove, key, nothing),
            Command::Expire { stamp, .. } | Command::Touch { stamp, .. } if stamp.len() != STAMP => {
                return Err(Failure::Other);
            }
            Command::Expire { key, stamp, soft_end } => {
                let operands = Operands {
                    frame: stamp,
                    soft_end,
                    ..nothing
                };
                (Action::Expire, key, operands)
            }
            Command::Touch {
                key,
                expected,
                stamp,
                soft_end,
                px,
            } => {
                let operands = Operands {
                    expected,
                    frame: stamp,
                    soft_end,
                    expires: expires(px),
                    ..nothing
                };
                (Action::Touch, key, operands)
            }
            Command::Bump { key, stamp } => (
                Action::Bump,
                key,
                Operands {
                    frame: stamp,
                    ..nothing
                },
            ),
            Command::Claim { claim, stamp, px, key } => {
                let key = wire_key(key);
                let operands = Operands {
                    frame: stamp,
                    expires: expires(px),
                    target: &wire_key(claim),
                    key: &key,
                    ..nothing
                };
                return Ok(Exchange::with_operands(Action::Claim, operands));
            }
            // The server announces nothing, and ends no connections.
            Command::Fence { .. } | Command::Canary { .. } => return Err(Failure::Other),
        };
        let target = &*wire_key(key);
        Ok(Exchange::with_operands(action, Operands { target, ..operands }))
    }

    /// Executes commands that have different keys. Outcomes that are not known yet are `None`.
    fn batch(&mut self, commands: &[Command<'_>], answers: &mut [Option<Result<Answer, Failure>>], deadline: Instant) {
        let mut all = Vec::with_capacity(commands.len());
        for (at, command) in commands.iter().enumerate() {
            match self.begin(command) {
                Ok(exchange) => all.push(Running {
                    at,
                    exchange,
                    was_sent: false,
                }),
                Err(failure) => answers[at] = Some(Err(failure)),
            }
        }
        while !all.is_empty() && !self.is_broken {
            let mut again = Vec::new();
            let mut rest = all.into_iter().peekable();
            while rest.peek().is_some() {
                let (mut packet, mut window) = (Vec::new(), Vec::new());
                while let Some(mut running) = rest.next_if(|_| packet.len() < WINDOW) {
                    let requests = running
                        .exchange
                        .requests(self.protocol, self.serial, &self.shared.numbers);
                    requests.iter().for_each(|request| packet.extend_from_slice(request));
                    running.was_sent |= !self.is_broken;
                    window.push((running, requests.len()));
                }
                if !self.is_broken {
                    self.is_broken = self.socket.send(&packet, deadline).is_err();
                }
                for (mut running, count) in window {
                    match self.step(&mut running.exchange, count, deadline) {
                        Some(Step::End(outcome)) => answers[running.at] = Some(answer(outcome)),
                        Some(Step::Again) => again.push(running),
                        None => {
                            let failure = if running.was_sent {
                                Failure::Timeout
                            } else {
                                Failure::NotSent
                            };
                            answers[running.at] = Some(Err(failure));
                        }
                    }
                }
            }
            all = again;
        }
        // Of these, a request was sent, and another one would have to be.
        for running in all {
            answers[running.at] = Some(Err(Failure::Timeout));
        }
    }

    /// Reads the replies to an exchange's requests; `None` if the connection is of no further use.
    fn step(&mut self, exchange: &mut Exchange, count: usize, deadline: Instant) -> Option<Step> {
        self.replies.compact();
        let mut ranges = Vec::with_capacity(count);
        while ranges.len() < count && !self.is_broken {
            match self.replies.next(&mut self.socket, deadline) {
                Ok(range) => ranges.push(range),
                Err(_) => self.is_broken = true,
            }
        }
        if ranges.len() < count {
            return None;
        }
        let replies: Vec<_> = ranges.into_iter().map(|range| &self.replies.buffer[range]).collect();
        Some(exchange.replies(&replies, &self.shared.numbers))
    }
}

impl Connection for MemcachedConnection {
    fn execute(&mut self, command: &Command<'_>, deadline: Instant) -> Result<Answer, Failure> {
        let mut answers = self.execute_many(std::slice::from_ref(command), deadline);
        answers.pop().unwrap_or(Err(Failure::NotSent))
    }

    fn execute_many(&mut self, commands: &[Command<'_>], deadline: Instant) -> Vec<Result<Answer, Failure>> {
        if self.is_broken {
            return vec![Err(Failure::Refused); commands.len()];
        }
        let mut answers = vec![None; commands.len()];
        let mut at = 0;
        while at < commands.len() && !self.is_broken {
            // Some commands take several requests, so two of the same key are not on their way at
            // the same time.
            let mut keys = HashSet::new();
            let count = commands[at..].iter().take_while(|command| {
                let [first, second] = keys_of(command);
                first.is_none_or(|key| keys.insert(key)) & second.is_none_or(|key| keys.insert(key))
            });
            let end = at + count.count();
            self.batch(&commands[at..end], &mut answers[at..end], deadline);
            at = end;
        }
        if self.replies.begin != self.replies.end {
            self.is_broken = true;
        }
        let answers = answers.into_iter();
        answers.map(|answer| answer.unwrap_or(Err(Failure::NotSent))).collect()
    }

    fn ping(&mut self, deadline: Instant) -> Result<(), Failure> {
        if self.is_broken {
            return Err(Failure::Refused);
        }
        self.replies.compact();
        let sent = self.socket.send(b"version\r\n", deadline);
        let reply = sent
            .map_err(|_| Failure::Timeout)
            .and_then(|()| self.replies.next(&mut self.socket, deadline));
        let is_version = |range: Range<usize>| self.replies.buffer[range].starts_with(b"VERSION ");
        let is_whole = reply.is_ok_and(is_version) && self.replies.begin == self.replies.end;
        self.is_broken = !is_whole;
        if is_whole { Ok(()) } else { Err(Failure::Timeout) }
    }
}

fn answer(outcome: Outcome) -> Result<Answer, Failure> {
    Ok(match outcome {
        Outcome::Value(value) => Answer::Value(value),
        Outcome::Flag(done) => Answer::Flag(done),
        Outcome::Claim(won, value) => Answer::Claim(won, value),
        Outcome::Failed(failure) => return Err(failure),
    })
}

/// Returns the key of a command, and that of a claim beside it.
fn keys_of<'a>(command: &Command<'a>) -> [Option<&'a [u8]>; 2] {
    match *command {
        Command::Get { key }
        | Command::Acquire { key, .. }
        | Command::Swap { key, .. }
        | Command::Put { key, .. }
        | Command::Release { key, .. }
        | Command::Remove { key }
        | Command::Expire { key, .. }
        | Command::Touch { key, .. }
        | Command::Bump { key, .. }
        | Command::Canary { key, .. } => [Some(key), None],
        Command::Claim { claim, key, .. } => [Some(claim), Some(key)],
        Command::Fence { .. } => [None, None],
    }
}

/// Returns the key that is sent for `key`: a hash of one that is too long.
pub(super) fn wire_key(key: &[u8]) -> Cow<'_, [u8]> {
    short_key(key, LONGEST_KEY)
}

/// Returns the numbers at the beginning of a version such as `1.6.18`.
fn version_of(text: &str) -> [u32; 3] {
    let mut parts = text.trim().split('.').map(|part| {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        part[..digits].parse().unwrap_or(0)
    });
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

/// Returns the fields of a reply to `stats`.
fn fields(text: &str) -> HashMap<&str, &str> {
    let lines = text.split("\r\n").filter_map(|line| line.strip_prefix("STAT "));
    lines.filter_map(|line| line.split_once(' ')).collect()
}
