//! Replies of memcached: where each ends in a stream of bytes, and what it reports.

use super::super::node::Failure;

/// Longest value that is accepted in a reply: memcached's own limit of an item.
pub const LONGEST_REPLY: usize = 1 << 30;
/// Longest line of a reply.
const LONGEST_LINE: usize = 4_096;
const END: &[u8] = b"END\r\n";

/// The bytes are no reply of memcached, or the server lacks the command. The rest of the stream
/// cannot be attributed to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Returns the length of the reply at the beginning of `bytes`; `None` while it is incomplete.
///
/// # Errors
/// [`Malformed`]: the connection is of no further use.
pub fn reply_length(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some(line) = line(bytes)? else {
        return Ok(None);
    };
    let after = line.len() + 2;
    match word(line) {
        b"VA" => data_end(bytes, after, number(line, 1)?),
        b"VALUE" => {
            let Some(end) = data_end(bytes, after, number(line, 3)?)? else {
                return Ok(None);
            };
            let rest = &bytes[end..];
            if rest.len() < END.len() {
                return if END.starts_with(rest) {
                    Ok(None)
                } else {
                    Err(Malformed)
                };
            }
            if rest.starts_with(END) {
                Ok(Some(end + END.len()))
            } else {
                Err(Malformed)
            }
        }
        b"STAT" => statistics_end(bytes),
        b"HD" | b"EN" | b"NS" | b"EX" | b"NF" | b"MN" | b"ME" | b"OK" | b"END" | b"STORED" | b"NOT_STORED"
        | b"EXISTS" | b"NOT_FOUND" | b"DELETED" | b"TOUCHED" | b"VERSION" | b"SERVER_ERROR" | b"CLIENT_ERROR" => {
            Ok(Some(after))
        }
        digits if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => Ok(Some(after)),
        _ => Err(Malformed),
    }
}

fn line(bytes: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let searched = &bytes[..bytes.len().min(LONGEST_LINE)];
    match searched.windows(2).position(|two| two == b"\r\n") {
        Some(end) => Ok(Some(&bytes[..end])),
        None if bytes.len() >= LONGEST_LINE => Err(Malformed),
        None => Ok(None),
    }
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|&byte| byte == b' ').filter(|word| !word.is_empty())
}

fn word(line: &[u8]) -> &[u8] {
    words(line).next().unwrap_or_default()
}

fn parse<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn number(line: &[u8], at: usize) -> Result<usize, Malformed> {
    let number: usize = words(line).nth(at).and_then(parse).ok_or(Malformed)?;
    if number <= LONGEST_REPLY {
        Ok(number)
    } else {
        Err(Malformed)
    }
}

/// Returns where a block of `length` bytes and its line break end.
fn data_end(bytes: &[u8], begin: usize, length: usize) -> Result<Option<usize>, Malformed> {
    let end = begin + length;
    match bytes.get(end..end + 2) {
        Some(b"\r\n") => Ok(Some(end + 2)),
        Some(_) => Err(Malformed),
        None => Ok(None),
    }
}

fn statistics_end(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let mut at = 0;
    while let Some(line) = line(&bytes[at..])? {
        at += line.len() + 2;
        match word(line) {
            b"STAT" => {}
            b"END" => return Ok(Some(at)),
            _ => return Err(Malformed),
        }
    }
    Ok(None)
}

/// What a reply reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Response<'a> {
    /// An item. `ttl` is its remaining seconds, as far as requested; negative: it
    /// never expires.
    Value {
        data: &'a [u8],
        cas: Option<u64>,
        ttl: Option<i64>,
    },
    /// No item was read.
    Absent,
    /// Done, or an item without its value.
    Done {
        cas: Option<u64>,
    },
    /// An item is there.
    NotStored,
    /// The item has another CAS number.
    Exists,
    NotFound,
    Failed(Failure),
}

impl<'a> Response<'a> {
    /// Reads a whole reply, as split by [`reply_length`].
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self::checked(bytes).unwrap_or(Self::Failed(Failure::Other))
    }

    fn checked(bytes: &'a [u8]) -> Option<Self> {
        let line = line(bytes).ok()??;
        let flag = |name: u8| words(line).skip(1).find_map(|word| word.strip_prefix(&[name]));
        let data = |length: usize| bytes.get(line.len() + 2..)?.get(..length);
        Some(match word(line) {
            b"VA" => Self::Value {
                data: data(number(line, 1).ok()?)?,
                cas: flag(b'c').and_then(parse),
                ttl: flag(b't').and_then(parse),
            },
            b"VALUE" => Self::Value {
                data: data(number(line, 3).ok()?)?,
                cas: words(line).nth(4).and_then(parse),
                ttl: None,
            },
            b"HD" => Self::Done {
                cas: flag(b'c').and_then(parse),
            },
            b"STORED" | b"DELETED" | b"TOUCHED" | b"OK" => Self::Done { cas: None },
            b"EN" | b"END" => Self::Absent,
            b"NS" | b"NOT_STORED" => Self::NotStored,
            b"EX" | b"EXISTS" => Self::Exists,
            b"NF" | b"NOT_FOUND" => Self::NotFound,
            // "object too large for cache" or "out of memory storing object": this item cannot be
            // stored now. The old one is removed by the server, or by the core.
            b"SERVER_ERROR" if contains(line, b"too large") || contains(line, b"memory") => {
                Self::Failed(Failure::OutOfMemory)
            }
            b"CLIENT_ERROR" if contains(line, b"unauthenticated") => Self::Failed(Failure::NoPermission),
            _ => return None,
        })
    }
}

fn contains(line: &[u8], text: &[u8]) -> bool {
    line.windows(text.len()).any(|part| part == text)
}

/// Returns the value in a whole reply to a read, `Some(None)` if there is no item; `None` if the
/// reply is an error.
pub fn value_of(reply: &[u8]) -> Option<Option<&[u8]>> {
    match Response::of(reply) {
        Response::Value { data, .. } => Some(Some(data)),
        Response::Absent => Some(None),
        _ => None,
    }
}
