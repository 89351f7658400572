//! The commands of Redis that make a command of the second tier.

use super::connection::Abilities;
use super::scripts::{EXPIRE, PUT, RELEASE, REMOVE, SWAP, Script, TOUCH};
use super::wire::command;
use crate::tiered::transport::Command;
use redis::{Cmd, Value};
use std::sync::atomic::Ordering;

/// How the replies to a plan are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// A value.
    Value,
    /// Whether it was done.
    Flag,
    /// It was done, whatever the reply is.
    Done,
    /// To SET with NX, and to GET.
    Acquired,
    /// To SET with NX of the claim, and to GET of the key.
    Claim,
    /// To CLIENT KILL.
    Killed,
    /// To MULTI, commands, and EXEC.
    Transaction,
}

/// Commands that are sent together, and how their replies are read.
pub(super) struct Plan<'a> {
    pub(super) commands: Vec<Cmd>,
    pub(super) reading: Reading,
    /// The key that decides the server; empty if there is none.
    pub(super) key: &'a [u8],
    /// Each command is behind an ASKING, or the first one is.
    asking: Option<Asking>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asking {
    Each,
    First,
}

impl<'a> Plan<'a> {
    /// Plans a command; `whole`: scripts with their text, which the server may lack.
    pub(super) fn new(request: &Command<'a>, abilities: &Abilities, whole: bool) -> Self {
        let script = |script: &Script, key: &'a [u8], arguments: &[&[u8]], reading| {
            (vec![script.command(key, arguments, whole)], reading, key)
        };
        let scripts = abilities.scripts.load(Ordering::Relaxed);
        let (commands, reading, key) = match *request {
            Command::Get { key } => (vec![command(&[b"GET", key])], Reading::Value, key),
            Command::Acquire { key, frame, px } => acquire(key, frame, px, abilities),
            Command::Swap {
                key,
                expected,
                frame,
                px,
            } => script(&SWAP, key, &[expected, frame, px.to_string().as_bytes()], Reading::Flag),
            Command::Put {
                key,
                frame,
                px,
                not_after: 0,
            } => {
                let px = px.to_string();
                let set = command(&[b"SET", key, frame, b"PX", px.as_bytes()]);
                (vec![set], Reading::Flag, key)
            }
            Command::Put {
                key,
                frame,
                px,
                not_after,
            } => {
                let (px, not_after) = (px.to_string(), not_after.to_string());
                let arguments = [frame, px.as_bytes(), not_after.as_bytes()];
                script(&PUT, key, &arguments, Reading::Flag)
            }
            Command::Release { key, expected } => script(&RELEASE, key, &[expected], Reading::Flag),
            Command::Expire { key, stamp, soft_end } if scripts => {
                script(&EXPIRE, key, &[stamp, &soft_end.to_le_bytes()], Reading::Flag)
            }
            Command::Remove { key } if scripts => script(&REMOVE, key, &[], Reading::Flag),
            Command::Expire { key, .. } | Command::Remove { key } => {
                let commands = vec![
                    command(&[b"MULTI"]),
                    command(&[b"SET", key, b""]),
                    command(&[b"UNLINK", key]),
                    command(&[b"EXEC"]),
                ];
                (commands, Reading::Transaction, key)
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
                script(&TOUCH, key, &arguments, Reading::Flag)
            }
            Command::Bump { key, stamp } => (vec![command(&[b"SET", key, stamp])], Reading::Flag, key),
            Command::Claim { claim, stamp, px, key } => {
                let px = px.to_string();
                let set = command(&[b"SET", claim, stamp, b"NX", b"PX", px.as_bytes()]);
                (vec![set, command(&[b"GET", key])], Reading::Claim, key)
            }
            Command::Fence { connection } => {
                let id = connection.to_string();
                let kill = command(&[b"CLIENT", b"KILL", b"ID", id.as_bytes()]);
                (vec![kill], Reading::Killed, &[][..])
            }
            Command::Canary { key, px } => {
                let px = px.to_string();
                let set = command(&[b"SET", key, b"", b"PX", px.as_bytes()]);
                (vec![set], Reading::Done, key)
            }
        };
        Self {
            commands,
            reading,
            key,
            asking: None,
        }
    }

    /// Puts each command, or a transaction, behind an ASKING.
    pub(super) fn behind_asking(mut self) -> Self {
        let asking = || command(&[b"ASKING"]);
        if self.reading == Reading::Transaction {
            self.commands.insert(0, asking());
            self.asking = Some(Asking::First);
        } else {
            let commands = self.commands.into_iter();
            self.commands = commands.flat_map(|command| [asking(), command]).collect();
            self.asking = Some(Asking::Each);
        }
        self
    }

    /// Returns the replies without those to ASKING.
    pub(super) fn own(&self, replies: Vec<Value>) -> Vec<Value> {
        match self.asking {
            None => replies,
            Some(Asking::First) => replies.into_iter().skip(1).collect(),
            Some(Asking::Each) => replies.into_iter().skip(1).step_by(2).collect(),
        }
    }
}

fn acquire<'a>(key: &'a [u8], frame: &[u8], px: u64, abilities: &Abilities) -> (Vec<Cmd>, Reading, &'a [u8]) {
    let px = px.to_string();
    let in_one = abilities.acquires_in_one.load(Ordering::Relaxed);
    let mut parts: Vec<&[u8]> = vec![b"SET", key, frame, b"NX"];
    if in_one {
        parts.push(b"GET");
    }
    if px != "0" {
        parts.extend([&b"PX"[..], px.as_bytes()]);
    }
    let set = command(&parts);
    if in_one {
        (vec![set], Reading::Value, key)
    } else {
        (vec![set, command(&[b"GET", key])], Reading::Acquired, key)
    }
}
