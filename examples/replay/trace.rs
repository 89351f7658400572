//! A trace in memory: the key of each request, renumbered densely, and its size.

use std::collections::HashMap;

/// More requests than this need `--limit`: a hostile file of a few bytes must not allocate all
/// memory.
pub(crate) const MAX_REQUESTS: usize = 1 << 27;
/// More different keys than this are rejected, too: a key costs more memory than a request.
pub(crate) const MAX_KEYS: usize = 1 << 25;
/// The largest size of one object. `MAX_KEYS` times this still fits 64 bits.
pub(crate) const MAX_SIZE: u64 = 1 << 38;

/// A sequence of requests.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) name: String,
    /// The key of each request, numbered from 0 in order of first appearance.
    pub(crate) keys: Vec<u32>,
    /// The size in bytes at each request (at least 1), if the trace has sizes.
    pub(crate) sizes: Option<Vec<u64>>,
    /// How many different keys there are.
    pub(crate) unique: usize,
}

impl Trace {
    /// Returns the smallest size of each key, or `None` if the trace has no sizes.
    pub(crate) fn smallest_sizes(&self) -> Option<Vec<u64>> {
        let sizes = self.sizes.as_ref()?;
        let mut smallest = vec![u64::MAX; self.unique];
        for (&key, &size) in self.keys.iter().zip(sizes) {
            let slot = &mut smallest[key as usize];
            *slot = size.min(*slot);
        }
        Some(smallest)
    }
}

/// Builds a [`Trace`] request by request, inside its bounds.
pub(crate) struct Recorder {
    numbers: HashMap<u64, u32>,
    keys: Vec<u32>,
    sizes: Vec<u64>,
    limit: usize,
    max_keys: usize,
}

impl Recorder {
    /// Records up to `limit` requests and ignores the rest; without a limit, too many are an error.
    pub(crate) fn new(limit: Option<usize>) -> Self {
        Self {
            numbers: HashMap::new(),
            keys: Vec::new(),
            sizes: Vec::new(),
            limit: limit.unwrap_or(usize::MAX),
            max_keys: MAX_KEYS,
        }
    }

    /// Records one request. Either all requests of a trace have sizes, or none.
    pub(crate) fn push(&mut self, key: u64, size: Option<u64>) -> Result<(), String> {
        if self.full() {
            return Ok(());
        }
        if self.keys.len() >= MAX_REQUESTS {
            return Err(format!(
                "more than {MAX_REQUESTS} requests; --limit N replays the first N"
            ));
        }
        if let Some(size) = size {
            if size > MAX_SIZE {
                return Err(format!("a size of {size} bytes is over the limit of {MAX_SIZE}"));
            }
            // An object of no bytes would let a cache bounded by bytes hold any number of them.
            self.sizes.push(size.max(1));
        }
        let next = self.numbers.len();
        let number = match self.numbers.get(&key) {
            Some(&number) => number,
            None if next >= self.max_keys => {
                return Err(format!(
                    "more than {} different keys; --limit N replays the first N requests",
                    self.max_keys
                ));
            }
            None => {
                let number = u32::try_from(next).map_err(|_| "too many different keys".to_owned())?;
                self.numbers.insert(key, number);
                number
            }
        };
        self.keys.push(number);
        Ok(())
    }

    /// Returns whether the limit is reached, so that reading can stop.
    pub(crate) fn full(&self) -> bool {
        self.keys.len() >= self.limit
    }

    /// Returns the finished trace. An empty one is an error, since it has no hit ratio.
    pub(crate) fn finish(self, name: String) -> Result<Trace, String> {
        if self.keys.is_empty() {
            return Err("holds no requests".to_owned());
        }
        let sized = self.sizes.len() == self.keys.len();
        Ok(Trace {
            name,
            unique: self.numbers.len(),
            sizes: sized.then_some(self.sizes),
            keys: self.keys,
        })
    }
}

/// Returns a number for a key as text: an integer is itself, any other text its 64-bit FNV-1a hash,
/// which unlike the standard hasher's is the same in every build.
pub(crate) fn key_of(text: &[u8]) -> u64 {
    // "007" is not 7: only the usual spelling counts as an integer.
    let plain = text == b"0" || text.first().is_some_and(|&c| c != b'0');
    if plain && let Some(number) = integer(text) {
        return number;
    }
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Returns the integer that `text` spells in decimal digits, if it does and fits 64 bits.
pub(crate) fn integer(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |sum, &c| {
        if !c.is_ascii_digit() {
            return None;
        }
        sum.checked_mul(10)?.checked_add(u64::from(c - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_numbered_by_first_appearance() {
        let mut recorder = Recorder::new(None);
        for key in [u64::MAX, 5, u64::MAX, 0] {
            recorder.push(key, None).unwrap();
        }
        let trace = recorder.finish("t".into()).unwrap();
        assert_eq!((trace.keys, trace.unique), (vec![0, 1, 0, 2], 3));
        assert!(trace.sizes.is_none());
    }

    #[test]
    fn bounds_hold() {
        let mut recorder = Recorder {
            max_keys: 2,
            ..Recorder::new(None)
        };
        recorder.push(1, None).unwrap();
        recorder.push(2, None).unwrap();
        assert!(recorder.push(3, None).unwrap_err().contains("different keys"));
        assert!(Recorder::new(None).push(1, Some(MAX_SIZE + 1)).is_err());
        assert!(Recorder::new(None).finish("t".into()).is_err());
    }

    #[test]
    fn integers_and_strings_are_told_apart() {
        assert_eq!(key_of(b"0"), 0);
        assert_eq!(key_of(b"42"), 42);
        assert_ne!(key_of(b"042"), 42);
        assert_eq!(key_of(b"18446744073709551615"), u64::MAX);
        assert_ne!(key_of(b"18446744073709551616"), 0);
        // Known answer of FNV-1a: the hash must not change between builds.
        assert_eq!(key_of(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(integer(b"+1"), None);
    }
}
