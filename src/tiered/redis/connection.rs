//! A connection to a server: the commands of the second tier in those of Redis.

use super::cluster::Cluster;
use super::plan::{Plan, Reading};
use super::reply::{bytes_of, failure_of, fields, flag_of, millis, number};
use super::wire::{Wire, command, exchange};
use crate::tiered::transport::{Answer, Command, Connection, Failure, Greeting};
use redis::{Cmd, Value};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What the server allows, as far as refused commands have shown.
#[derive(Debug)]
pub(super) struct Abilities {
    /// SET with NX and GET together: Redis 7 and Valkey.
    pub(super) acquires_in_one: AtomicBool,
    pub(super) scripts: AtomicBool,
}

impl Default for Abilities {
    fn default() -> Self {
        Self {
            acquires_in_one: AtomicBool::new(true),
            scripts: AtomicBool::new(true),
        }
    }
}

pub(super) struct RedisConnection {
    pub(super) wire: Wire,
    pub(super) abilities: Arc<Abilities>,
    /// The cluster, and the server's number in it.
    pub(super) cluster: Option<(Arc<Cluster>, u32)>,
}

impl RedisConnection {
    /// Returns how the server describes itself.
    pub(super) fn greet(&mut self, deadline: Instant) -> Result<Greeting, Failure> {
        // No connection has the last number: whether the server kills by number at all.
        let unused_id = (1u64 << 53) - 1;
        let commands = [
            command(&[b"CLIENT", b"ID"]),
            command(&[b"INFO", b"server"]),
            command(&[b"INFO", b"replication"]),
            command(&[b"TIME"]),
            command(&[b"CLIENT", b"KILL", b"ID", unused_id.to_string().as_bytes()]),
        ];
        let replies = exchange(&mut self.wire, &commands, deadline)?;
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
        let part = |all: &HashMap<&str, &str>, name| all.get(name).copied().unwrap_or_default().to_owned();
        let identity = part(&server, "run_id") + ":" + &part(&replication, "master_replid");
        let connection = number(id);
        Ok(Greeting {
            identity: identity.into_bytes(),
            server_ms: millis(time),
            connection: connection.unwrap_or(0),
            can_fence: connection.is_some() && matches!(killed, Value::Int(_)),
        })
    }

    fn one(&mut self, command: Cmd, deadline: Instant) -> Result<Value, Failure> {
        let mut replies = exchange(&mut self.wire, &[command], deadline)?;
        replies.pop().ok_or(Failure::Other)
    }

    /// Returns what the replies to a plan mean. An error of theirs that concerns the server itself
    /// is noted.
    fn read(&self, key: &[u8], reading: Reading, replies: Vec<Value>) -> Result<Answer, Failure> {
        let error = replies.iter().find_map(|reply| match reply {
            Value::ServerError(error) => Some(error),
            _ => None,
        });
        if let (Some(error), Some((cluster, server))) = (error, &self.cluster) {
            cluster.note(error, key, *server);
        }
        let mut replies = replies.into_iter();
        let mut next = || replies.next().ok_or(Failure::Other);
        match reading {
            Reading::Value => bytes_of(next()?).map(Answer::Value),
            Reading::Flag => flag_of(&next()?).map(Answer::Flag),
            Reading::Done => flag_of(&next()?).map(|_| Answer::Flag(true)),
            Reading::Acquired => {
                let won = flag_of(&next()?)?;
                match (won, bytes_of(next()?)?) {
                    (true, _) => Ok(Answer::Value(None)),
                    // Removed between the two commands.
                    (false, None) => Err(Failure::Other),
                    (false, value) => Ok(Answer::Value(value)),
                }
            }
            Reading::Claim => {
                let won = flag_of(&next()?)?;
                bytes_of(next()?).map(|value| Answer::Claim(won, value))
            }
            Reading::Killed => match next()? {
                Value::ServerError(error) if error.details().unwrap_or_default().contains("No such client") => {
                    Ok(Answer::Flag(true))
                }
                reply => flag_of(&reply).map(|_| Answer::Flag(true)),
            },
            Reading::Transaction => match replies.next_back() {
                Some(Value::Array(_)) => Ok(Answer::Flag(true)),
                Some(Value::ServerError(error)) => Err(failure_of(&error)),
                _ => Err(Failure::Other),
            },
        }
    }

    /// Returns the plan of a command, behind ASKING where its key is being moved to this server.
    fn plan<'r>(&self, request: &Command<'r>, whole: bool) -> Plan<'r> {
        let plan = Plan::new(request, &self.abilities, whole);
        match &self.cluster {
            Some((cluster, server)) if cluster.takes_over(plan.key, *server) => plan.behind_asking(),
            _ => plan,
        }
    }

    /// Returns whether the failure means that another plan must be tried.
    fn notes(&self, request: &Command<'_>, failure: Failure) -> bool {
        let by_script = matches!(request, Command::Remove { .. } | Command::Expire { .. });
        match failure {
            Failure::NoScript => true,
            // For users who may not run scripts there is a transaction, and at last the bare
            // removal.
            Failure::NoPermission if by_script => self.abilities.scripts.swap(false, Ordering::Relaxed),
            _ => false,
        }
    }
}

impl Connection for RedisConnection {
    fn ping(&mut self, deadline: Instant) -> Result<(), Failure> {
        self.one(command(&[b"PING"]), deadline).map(drop)
    }

    fn execute(&mut self, request: &Command<'_>, deadline: Instant) -> Result<Answer, Failure> {
        let mut whole = false;
        loop {
            let plan = self.plan(request, whole);
            let replies = exchange(&mut self.wire, &plan.commands, deadline)?;
            let answer = self.read(plan.key, plan.reading, plan.own(replies));
            match answer {
                Err(failure) if !whole && self.notes(request, failure) => whole = true,
                Err(_) if plan.reading == Reading::Transaction => {
                    let reply = self.one(command(&[b"UNLINK", plan.key]), deadline)?;
                    return flag_of(&reply).map(|_| Answer::Flag(true));
                }
                answer => return answer,
            }
        }
    }

    fn execute_many(&mut self, requests: &[Command<'_>], deadline: Instant) -> Vec<Result<Answer, Failure>> {
        let plans: Vec<_> = requests.iter().map(|request| self.plan(request, false)).collect();
        let commands: Vec<Cmd> = plans.iter().flat_map(|plan| plan.commands.iter().cloned()).collect();
        let mut replies = match exchange(&mut self.wire, &commands, deadline) {
            Ok(replies) => replies.into_iter(),
            Err(failure) => return requests.iter().map(|_| Err(failure)).collect(),
        };
        let mut read = |plan: &Plan<'_>| {
            let own = replies.by_ref().take(plan.commands.len()).collect();
            self.read(plan.key, plan.reading, plan.own(own))
        };
        let mut answers: Vec<_> = plans.iter().map(&mut read).collect();
        let retries = answers.iter().zip(requests).map(|(answer, request)| match answer {
            Err(failure) => self.notes(request, *failure) || *failure == Failure::NoScript,
            Ok(_) => false,
        });
        let retries: Vec<bool> = retries.collect();
        let mut broken = false;
        for ((answer, request), retry) in answers.iter_mut().zip(requests).zip(retries) {
            // What is tried again is behind the other commands; each has a key of its own.
            if retry && !broken {
                *answer = self.execute(request, deadline);
                broken = matches!(answer, Err(Failure::Timeout));
            }
        }
        answers
    }
}
