//! Redis or Valkey as the second tier, by redis-rs.

mod bus;
mod scripts;

use super::transport::{Answer, Bus, Command, Connection, Failure, Greeting, Tier2};
use bus::RedisBus;
use redis::{Cmd, ConnectionLike as _, ErrorKind, IntoConnectionInfo, ProtocolVersion, RedisError, ServerError, Value};
use scripts::{EXPIRE, PUT, RELEASE, REMOVE, SWAP, Script, TOUCH};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A Redis or Valkey server as the second tier of caches: Redis 6 or later.
///
/// Nothing is sent before a cache uses it, so a program starts while the server is down. A clone
/// refers to the same server.
///
/// Clusters and Sentinel are not supported. A host's name is resolved by the system, which may take
/// longer than the timeout.
#[derive(Clone)]
pub struct Redis {
    client: redis::Client,
    abilities: Arc<Abilities>,
}

/// What the server allows, as far as refused commands have shown.
#[derive(Debug)]
struct Abilities {
    /// SET with NX and GET together: Redis 7 and Valkey.
    acquires_in_one: AtomicBool,
    scripts: AtomicBool,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.client.get_connection_info().addr();
        f.debug_struct("Redis")
            .field("address", &address.to_string())
            .finish_non_exhaustive()
    }
}

impl Redis {
    /// Returns the server with this address, such as `redis://user:password@localhost:6379/0`, or a
    /// `ConnectionInfo` of redis-rs.
    ///
    /// # Errors
    /// The address is malformed, or needs a feature of redis-rs that is off.
    pub fn open(address: impl IntoConnectionInfo) -> Result<Self, RedisError> {
        let client = redis::Client::open(address)?;
        Ok(Self {
            client,
            abilities: Arc::new(Abilities {
                acquires_in_one: AtomicBool::new(true),
                scripts: AtomicBool::new(true),
            }),
        })
    }
}

/// Returns the time that is left; the shortest that there is if none is.
fn left(deadline: Instant) -> Duration {
    deadline
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(1))
}

/// Returns the kind of an error of a connection before a command of the caller's was sent.
fn failure_of_connecting(error: &RedisError) -> Failure {
    match error.kind() {
        ErrorKind::AuthenticationFailed => Failure::NoPermission,
        ErrorKind::Server(_) | ErrorKind::Extension => failure_of_code(error.code().unwrap_or_default(), ""),
        _ => Failure::Refused,
    }
}

fn failure_of_code(code: &str, details: &str) -> Failure {
    let known = |code: &str| {
        Some(match code {
            "OOM" => Failure::OutOfMemory,
            "READONLY" => Failure::ReadOnly,
            "NOSCRIPT" => Failure::NoScript,
            "NOPERM" | "NOAUTH" | "WRONGPASS" => Failure::NoPermission,
            "LOADING" | "MASTERDOWN" => Failure::Loading,
            "CLUSTERDOWN" => Failure::ClusterDown,
            "MOVED" | "ASK" => Failure::Moved,
            _ => return None,
        })
    };
    // Before Redis 7, the error of a command inside a script is quoted.
    let mut quoted = details.split([' ', '-', ':']).filter_map(known);
    known(code).or_else(|| quoted.next()).unwrap_or(Failure::Other)
}

fn failure_of(error: &ServerError) -> Failure {
    failure_of_code(error.code(), error.details().unwrap_or_default())
}

impl Tier2 for Redis {
    fn connect(&self, _: u32, deadline: Instant) -> Result<(Box<dyn Connection>, Greeting), Failure> {
        let connected = self.client.get_connection_with_timeout(left(deadline));
        let connection = connected.map_err(|error| failure_of_connecting(&error))?;
        let mut connection = RedisConnection {
            connection,
            abilities: self.abilities.clone(),
        };
        let greeting = connection.greet(deadline).map_err(|failure| match failure {
            Failure::Timeout => Failure::Refused,
            failure => failure,
        })?;
        Ok((Box::new(connection), greeting))
    }

    fn subscribe(&self, _: u32, prefixes: &[&[u8]], deadline: Instant) -> Result<Box<dyn Bus>, Failure> {
        let info = self.client.get_connection_info().clone();
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = redis::Client::open(info.set_redis_settings(settings));
        let client = client.map_err(|error| failure_of_connecting(&error))?;
        let connection = client
            .get_connection_with_timeout(left(deadline))
            .map_err(|error| failure_of_connecting(&error))?;
        Ok(Box::new(RedisBus::subscribe(connection, prefixes, deadline)?))
    }
}

struct RedisConnection {
    connection: redis::Connection,
    abilities: Arc<Abilities>,
}

fn command(parts: &[&[u8]]) -> Cmd {
    let mut command = Cmd::new();
    for part in parts {
        command.arg(*part);
    }
    command
}

/// Sends commands in one packet, and returns their replies. The connection is of no further use
/// after [`Failure::Timeout`].
fn exchange(connection: &mut redis::Connection, commands: &[Cmd], deadline: Instant) -> Result<Vec<Value>, Failure> {
    let unknown = |_: RedisError| Failure::Timeout;
    if !connection.is_open() {
        return Err(Failure::Refused);
    }
    let packed: Vec<u8> = commands.iter().flat_map(Cmd::get_packed_command).collect();
    connection.set_write_timeout(Some(left(deadline))).map_err(unknown)?;
    connection.send_packed_command(&packed).map_err(unknown)?;
    let mut replies = Vec::with_capacity(commands.len());
    while replies.len() < commands.len() {
        // A reply of many pieces may take longer: the time is for each piece.
        connection.set_read_timeout(Some(left(deadline))).map_err(unknown)?;
        match connection.recv_response().map_err(unknown)? {
            Value::Push { .. } => {}
            reply => replies.push(reply),
        }
        if Instant::now() > deadline && replies.len() < commands.len() {
            return Err(Failure::Timeout);
        }
    }
    Ok(replies)
}

fn bytes_of(reply: Value) -> Result<Option<Vec<u8>>, Failure> {
    match reply {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::ServerError(error) => Err(failure_of(&error)),
        _ => Err(Failure::Other),
    }
}

fn flag_of(reply: &Value) -> Result<bool, Failure> {
    match reply {
        Value::Nil => Ok(false),
        Value::Okay => Ok(true),
        Value::Int(number) => Ok(*number != 0),
        Value::ServerError(error) => Err(failure_of(error)),
        _ => Err(Failure::Other),
    }
}

/// Returns the fields of a reply to INFO.
fn fields(reply: &Value) -> HashMap<&str, &str> {
    let text = match reply {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
        Value::VerbatimString { text, .. } => text,
        _ => "",
    };
    text.split("\r\n").filter_map(|line| line.split_once(':')).collect()
}

fn number(reply: &Value) -> Option<u64> {
    match reply {
        Value::BulkString(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
        Value::Int(number) => (*number).try_into().ok(),
        _ => None,
    }
}

impl RedisConnection {
    /// Returns how the server describes itself.
    fn greet(&mut self, deadline: Instant) -> Result<Greeting, Failure> {
        // No connection has the last number: whether the server kills by number at all.
        let unused_id = (1u64 << 53) - 1;
        let commands = [
            command(&[b"CLIENT", b"ID"]),
            command(&[b"INFO", b"server"]),
            command(&[b"INFO", b"replication"]),
            command(&[b"TIME"]),
            command(&[b"CLIENT", b"KILL", b"ID", unused_id.to_string().as_bytes()]),
        ];
        let replies = exchange(&mut self.connection, &commands, deadline)?;
        for reply in &replies {
            if let Value::ServerError(error) = reply
                && matches!(error.code(), "LOADING" | "NOAUTH" | "WRONGPASS")
            {
                return Err(failure_of(error));
            }
        }
        let [id, server, replication, time, killed] = &*replies else {
            return Err(Failure::Other);
        };
        let (server, replication) = (fields(server), fields(replication));
        if !matches!(replication.get("role"), None | Some(&"master" | &"primary")) {
            // Reads and writes go to the master.
            return Err(Failure::Refused);
        }
        let version = server.get("valkey_version").or(server.get("redis_version"));
        let major = version.and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        if major.is_some_and(|major| major < 7) {
            self.abilities.acquires_in_one.store(false, Ordering::Relaxed);
        }
        let server_ms = match time {
            Value::Array(parts) => match &**parts {
                [seconds, micros] => number(seconds).unwrap_or(0) * 1_000 + number(micros).unwrap_or(0) / 1_000,
                _ => 0,
            },
            _ => 0,
        };
        let part = |all: &HashMap<&str, &str>, name| all.get(name).copied().unwrap_or_default().to_owned();
        let identity = part(&server, "run_id") + ":" + &part(&replication, "master_replid");
        let connection = number(id);
        Ok(Greeting {
            identity: identity.into_bytes(),
            server_ms,
            connection: connection.unwrap_or(0),
            can_fence: connection.is_some() && matches!(killed, Value::Int(_)),
        })
    }

    fn one(&mut self, command: Cmd, deadline: Instant) -> Result<Value, Failure> {
        let mut replies = exchange(&mut self.connection, &[command], deadline)?;
        replies.pop().ok_or(Failure::Other)
    }

    /// Runs a script, which is sent whole if the server does not know it.
    fn script(&mut self, script: &Script, key: &[u8], arguments: &[&[u8]], deadline: Instant) -> Result<bool, Failure> {
        let reply = self.one(script.command(key, arguments, false), deadline)?;
        match flag_of(&reply) {
            Err(Failure::NoScript) => flag_of(&self.one(script.command(key, arguments, true), deadline)?),
            reply => reply,
        }
    }

    /// Removes a key so that it is announced. For users who may not run scripts there is a
    /// transaction, and at last the bare removal.
    fn remove(&mut self, key: &[u8], deadline: Instant) -> Result<Answer, Failure> {
        if self.abilities.scripts.load(Ordering::Relaxed) {
            match self.script(&REMOVE, key, &[], deadline) {
                Err(Failure::NoPermission) => self.abilities.scripts.store(false, Ordering::Relaxed),
                removed => return removed.map(Answer::Flag),
            }
        }
        let commands = [
            command(&[b"MULTI"]),
            command(&[b"SET", key, b""]),
            command(&[b"UNLINK", key]),
            command(&[b"EXEC"]),
        ];
        let replies = exchange(&mut self.connection, &commands, deadline)?;
        if matches!(replies.last(), Some(Value::Array(_))) {
            return Ok(Answer::Flag(true));
        }
        let reply = self.one(command(&[b"UNLINK", key]), deadline)?;
        flag_of(&reply).map(|_| Answer::Flag(true))
    }

    fn acquire(&mut self, key: &[u8], frame: &[u8], px: u64, deadline: Instant) -> Result<Answer, Failure> {
        let px = px.to_string();
        let in_one = self.abilities.acquires_in_one.load(Ordering::Relaxed);
        let mut parts: Vec<&[u8]> = vec![b"SET", key, frame, b"NX"];
        if in_one {
            parts.push(b"GET");
        }
        if px != "0" {
            parts.extend([&b"PX"[..], px.as_bytes()]);
        }
        if in_one {
            return bytes_of(self.one(command(&parts), deadline)?).map(Answer::Value);
        }
        let commands = [command(&parts), command(&[b"GET", key])];
        let mut replies = exchange(&mut self.connection, &commands, deadline)?.into_iter();
        let won = flag_of(&replies.next().ok_or(Failure::Other)?)?;
        let value = bytes_of(replies.next().ok_or(Failure::Other)?)?;
        match (won, value) {
            (true, _) => Ok(Answer::Value(None)),
            // Removed between the two commands.
            (false, None) => Err(Failure::Other),
            (false, value) => Ok(Answer::Value(value)),
        }
    }
}

impl Connection for RedisConnection {
    fn ping(&mut self, deadline: Instant) -> Result<(), Failure> {
        self.one(command(&[b"PING"]), deadline).map(drop)
    }

    fn execute(&mut self, request: &Command<'_>, deadline: Instant) -> Result<Answer, Failure> {
        match *request {
            Command::Get { key } => bytes_of(self.one(command(&[b"GET", key]), deadline)?).map(Answer::Value),
            Command::Acquire { key, frame, px } => self.acquire(key, frame, px, deadline),
            Command::Swap {
                key,
                expected,
                frame,
                px,
            } => {
                let arguments = [expected, frame, px.to_string().as_bytes()].map(<[u8]>::to_vec);
                let arguments = arguments.each_ref().map(|argument| &**argument);
                self.script(&SWAP, key, &arguments, deadline).map(Answer::Flag)
            }
            Command::Put {
                key,
                frame,
                px,
                not_after,
            } => {
                let (px, not_after_text) = (px.to_string(), not_after.to_string());
                if not_after != 0 {
                    let arguments = [frame, px.as_bytes(), not_after_text.as_bytes()];
                    return self.script(&PUT, key, &arguments, deadline).map(Answer::Flag);
                }
                let reply = self.one(command(&[b"SET", key, frame, b"PX", px.as_bytes()]), deadline)?;
                flag_of(&reply).map(Answer::Flag)
            }
            Command::Release { key, expected } => self.script(&RELEASE, key, &[expected], deadline).map(Answer::Flag),
            Command::Remove { key } => self.remove(key, deadline),
            Command::Expire { key, stamp, soft_end } => {
                if self.abilities.scripts.load(Ordering::Relaxed) {
                    match self.script(&EXPIRE, key, &[stamp, &soft_end.to_le_bytes()], deadline) {
                        Err(Failure::NoPermission) => self.abilities.scripts.store(false, Ordering::Relaxed),
                        expired => return expired.map(Answer::Flag),
                    }
                }
                self.remove(key, deadline)
            }
            Command::Touch {
                key,
                expected,
                stamp,
                soft_end,
                px,
            } => {
                let (soft_end, px) = (soft_end.to_le_bytes(), px.to_string());
                let arguments = [stamp, &soft_end, px.as_bytes(), expected];
                self.script(&TOUCH, key, &arguments, deadline).map(Answer::Flag)
            }
            Command::Bump { key, stamp } => {
                flag_of(&self.one(command(&[b"SET", key, stamp]), deadline)?).map(Answer::Flag)
            }
            Command::Claim { claim, stamp, px, key } => {
                let px = px.to_string();
                let set = command(&[b"SET", claim, stamp, b"NX", b"PX", px.as_bytes()]);
                let commands = [set, command(&[b"GET", key])];
                let mut replies = exchange(&mut self.connection, &commands, deadline)?.into_iter();
                let won = flag_of(&replies.next().ok_or(Failure::Other)?)?;
                bytes_of(replies.next().ok_or(Failure::Other)?).map(|value| Answer::Claim(won, value))
            }
            Command::Fence { connection } => {
                let id = connection.to_string();
                match self.one(command(&[b"CLIENT", b"KILL", b"ID", id.as_bytes()]), deadline)? {
                    Value::ServerError(error) if error.details().unwrap_or_default().contains("No such client") => {
                        Ok(Answer::Flag(true))
                    }
                    reply => flag_of(&reply).map(|_| Answer::Flag(true)),
                }
            }
            Command::Canary { key, px } => {
                let px = px.to_string();
                flag_of(&self.one(command(&[b"SET", key, b"", b"PX", px.as_bytes()]), deadline)?).map(Answer::Flag)
            }
        }
    }
}
