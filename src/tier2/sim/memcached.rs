//! A model of memcached: the commands that an exchange sends, as bytes, and their replies.

use super::server::{Data, Item};
use std::collections::BTreeMap;

/// The CAS numbers of one process of the server.
#[derive(Clone, Debug, Default)]
pub(in crate::tier2) struct Cas {
    last: u64,
    numbers: BTreeMap<Vec<u8>, u64>,
    /// Stores whatever the number: what the comparison protects from.
    ignored: bool,
}

impl Cas {
    pub(super) fn new(ignored: bool) -> Self {
        Self {
            ignored,
            ..Self::default()
        }
    }

    pub(super) fn number(&self, key: &[u8]) -> u64 {
        self.numbers.get(key).copied().unwrap_or(0)
    }

    fn renew(&mut self, key: &[u8]) -> u64 {
        self.last += 1;
        self.numbers.insert(key.into(), self.last);
        self.last
    }
}

/// Refuses to store for want of memory, which removes the item.
pub(super) fn refuse(data: &mut Data, command: &[u8]) -> Vec<u8> {
    let key = command.split(|&byte| byte == b' ').nth(1).expect("a key");
    data.remove(key);
    b"SERVER_ERROR out of memory storing object\r\n".to_vec()
}

/// Whether the command changes what a write or a removal is about.
pub(super) fn changes(command: &[u8], reply: &[u8]) -> bool {
    let stores =
        command.starts_with(b"ms ") && !command.windows(4).any(|part| part == b" ME\r") && reply.starts_with(b"HD");
    stores || command.starts_with(b"md ")
}

/// Executes one command. `now` is the server's time in milliseconds; items expire at the tick of
/// a second, as they do in memcached.
pub(in crate::tier2) fn execute(data: &mut Data, cas: &mut Cas, command: &[u8], now: u64) -> Vec<u8> {
    let end = command
        .windows(2)
        .position(|two| two == b"\r\n")
        .expect("a command is a line");
    let line = String::from_utf8(command[..end].to_vec()).expect("keys are printable");
    let words: Vec<&str> = line.split(' ').collect();
    let block = &command[end + 2..];
    let key = words[1].as_bytes().to_vec();
    if data
        .get(&key)
        .is_some_and(|item| item.expires.is_some_and(|end| end <= now))
    {
        data.remove(&key);
    }
    let number = cas.number(&key);
    let flag = |name: char| words[2..].iter().find_map(|word| word.strip_prefix(name));
    let expires = |seconds: &str| match seconds.parse::<i64>().expect("an expiration time") {
        0 => None,
        // The item ends at the tick before its seconds have passed.
        seconds => Some((now / 1_000 * 1_000).saturating_add_signed(seconds * 1_000)),
    };
    let present = data.contains_key(&key);
    let compared = |wanted: u64| match (present, wanted == number || cas.ignored) {
        (false, _) => Some("NF"),
        (true, false) => Some("EX"),
        (true, true) => None,
    };
    match words[0] {
        "get" => match data.get(&key) {
            Some(item) => [
                format!("VALUE {} 0 {}\r\n", words[1], item.value.len()).as_bytes(),
                &item.value,
                b"\r\nEND\r\n",
            ]
            .concat(),
            None => b"END\r\n".to_vec(),
        },
        "mg" => match data.get(&key) {
            None => b"EN\r\n".to_vec(),
            Some(item) if words.contains(&"v") => {
                let rest = item.expires.map_or(-1, |end| (end.saturating_sub(now) / 1_000) as i64);
                let head = format!("VA {} c{number} t{rest}\r\n", item.value.len());
                [head.as_bytes(), &item.value, b"\r\n"].concat()
            }
            Some(_) => format!("HD c{number}\r\n").into_bytes(),
        },
        "ms" => {
            let length: usize = words[2].parse().expect("a length");
            if flag('M') == Some("E") && present {
                return b"NS\r\n".to_vec();
            }
            let wanted = words[3..].iter().find_map(|word| word.strip_prefix('C'));
            if let Some(refused) = wanted.and_then(|wanted| compared(wanted.parse().expect("a number"))) {
                return format!("{refused}\r\n").into_bytes();
            }
            let expires = flag('T').and_then(expires);
            let value = block[..length].to_vec();
            data.insert(key.clone(), Item { value, expires });
            format!("HD c{}\r\n", cas.renew(&key)).into_bytes()
        }
        "md" => {
            let wanted = words[2..].iter().find_map(|word| word.strip_prefix('C'));
            let refused = match wanted {
                Some(wanted) => compared(wanted.parse().expect("a number")),
                None if !present => Some("NF"),
                None => None,
            };
            if let Some(refused) = refused {
                return format!("{refused}\r\n").into_bytes();
            }
            data.remove(&key);
            b"HD\r\n".to_vec()
        }
        other => panic!("the model has no command {other}"),
    }
}
