//! Names of keys on the server, as the Python package writes them.
//!
//! An entry's key is `PREFIX:1HHHHHHHH:NAME:["tea"]`: the format's number and 8 hex digits of codec
//! and schema, then the cache's name, then the key as the only argument of a call.

use super::codec::Schema;
use blake2::digest::consts::{U4, U16};
use blake2::{Blake2b, Digest};
use std::borrow::Borrow;
use std::fmt::Write;
use std::sync::Arc;

/// Keys of more bytes than this are named by a hash.
const LONGEST: usize = 200;

/// Bytes that are not percent-encoded in the text of a key: no blanks, quotes, percent signs,
/// control characters or braces.
const SAFE: &[u8] = b"_.-~/@+:,;()*'$&=?#[]<>^|";
/// The same for names of caches and tags: no colons either.
const NAME_SAFE: &[u8] = b"_.-~/@+";

/// The name of an entry: the key as it is on the server, and the key of the first tier.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(Arc<[u8]>);

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl Name {
    /// Returns the server's key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Name {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

/// A key of a [`Tiered`](super::Tiered) cache: what can be written as Python's caches write theirs.
///
/// | Rust | Python | on the server |
/// |---|---|---|
/// | `str`, `String` | `str` | `["tea"]` |
/// | `[u8]`, `Vec<u8>` | `bytes` | `[b"tea"]` |
/// | integers | `int` | `[7]` |
/// | `bool` | `bool` | `[1]`: equal keys in Python are the same key, and `True == 1` |
/// | `(A, B)`, `(A, B, C)` | `tuple` | `[("tea",7)]` |
/// | `Option` | the value, or `None` | `[null]` |
pub trait TierKey {
    /// Appends the text of the key. Keys that differ have different texts.
    fn write(&self, text: &mut String);
}

fn quote(bytes: &[u8], safe: &[u8], text: &mut String) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || safe.contains(&byte) {
            text.push(byte.into());
        } else {
            write!(text, "%{byte:02X}").expect("a String takes all");
        }
    }
}

fn quoted(bytes: &[u8], text: &mut String) {
    text.push('"');
    quote(bytes, SAFE, text);
    text.push('"');
}

/// Returns a prefix, name or tag as a part of keys: without a colon.
pub(super) fn quote_name(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    quote(name.as_bytes(), NAME_SAFE, &mut text);
    text
}

impl TierKey for str {
    fn write(&self, text: &mut String) {
        quoted(self.as_bytes(), text);
    }
}

impl TierKey for String {
    fn write(&self, text: &mut String) {
        self.as_str().write(text);
    }
}

impl TierKey for [u8] {
    fn write(&self, text: &mut String) {
        text.push('b');
        quoted(self, text);
    }
}

impl TierKey for Vec<u8> {
    fn write(&self, text: &mut String) {
        self.as_slice().write(text);
    }
}

impl TierKey for bool {
    fn write(&self, text: &mut String) {
        text.push(if *self { '1' } else { '0' });
    }
}

macro_rules! integers {
    ($($kind:ty)*) => {$(
        impl TierKey for $kind {
            fn write(&self, text: &mut String) {
                write!(text, "{self}").expect("a String takes all");
            }
        }
    )*};
}

integers!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);

impl<T: TierKey + ?Sized> TierKey for &T {
    fn write(&self, text: &mut String) {
        (**self).write(text);
    }
}

impl<T: TierKey> TierKey for Option<T> {
    fn write(&self, text: &mut String) {
        match self {
            Some(value) => value.write(text),
            None => text.push_str("null"),
        }
    }
}

impl<A: TierKey, B: TierKey> TierKey for (A, B) {
    fn write(&self, text: &mut String) {
        text.push('(');
        self.0.write(text);
        text.push(',');
        self.1.write(text);
        text.push(')');
    }
}

impl<A: TierKey, B: TierKey, C: TierKey> TierKey for (A, B, C) {
    fn write(&self, text: &mut String) {
        text.push('(');
        self.0.write(text);
        text.push(',');
        self.1.write(text);
        text.push(',');
        self.2.write(text);
        text.push(')');
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all");
        text
    })
}

/// How the keys of one cache begin.
#[derive(Debug)]
pub(super) struct Names {
    stem: String,
    prefix: String,
    name: String,
}

impl Names {
    pub(super) fn new(prefix: &str, name: &str, codec: &str, schema: &Schema) -> Self {
        let (prefix, name) = (quote_name(prefix), quote_name(name));
        let digest = Blake2b::<U4>::digest(format!("('{codec}', {})", schema.text()));
        Self {
            stem: format!("{prefix}:1{}:{name}:", hex(&digest)),
            prefix,
            name,
        }
    }

    /// Returns the key of the cache's generation with this tag: of a server, or of slots.
    pub(super) fn generation(&self, tag: &[u8]) -> Vec<u8> {
        [self.prefix.as_bytes(), b":g", tag, b":", self.name.as_bytes()].concat()
    }

    pub(super) fn stem(&self) -> &[u8] {
        self.stem.as_bytes()
    }

    /// Writes the server's key of `key` to `text`. Returns the text of the key where its name is a
    /// hash, so that the payload has to have it.
    pub(super) fn write<K: TierKey + ?Sized>(&self, key: &K, text: &mut String) -> Option<Vec<u8>> {
        text.clear();
        text.push_str(&self.stem);
        text.push('[');
        key.write(text);
        text.push(']');
        if text.len() <= LONGEST {
            return None;
        }
        let full = text.split_off(self.stem.len()).into_bytes();
        text.push('#');
        text.push_str(&hex(&Blake2b::<U16>::digest(&full)));
        Some(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(key: &(impl TierKey + ?Sized)) -> String {
        let mut text = String::new();
        key.write(&mut text);
        text
    }

    // What `hotset.tier2._keys.text_of` returns for the same values.
    #[test]
    fn keys_are_written_as_python_writes_them() {
        assert_eq!(text("tea"), "\"tea\"");
        assert_eq!(text("a b{\u{e9}}%"), "\"a%20b%7B%C3%A9%7D%25\"");
        assert_eq!(text(&b"\x00a:"[..]), "b\"%00a:\"");
        assert_eq!(text(&-7), "-7");
        assert_eq!(text(&("tea", 7u8, None::<bool>)), "(\"tea\",7,null)");
    }

    // blake2b(repr(("bytes", None)).encode(), digest_size=4) and of the long text, 16 bytes.
    #[test]
    fn names_are_hashed_as_python_hashes_them() {
        let names = Names::new("shop", "prices: old", "bytes", &Schema::None);
        let mut name = String::new();
        assert_eq!(names.write("tea", &mut name), None);
        assert_eq!(name, format!("shop:1{}:prices%3A%20old:[\"tea\"]", BYTES));
        let full = names.write(&*"x".repeat(300), &mut name).expect("it is long");
        assert_eq!(full.len(), 304);
        assert_eq!(name, format!("shop:1{}:prices%3A%20old:#{}", BYTES, LONG));
    }

    const BYTES: &str = "93ae1144";
    const LONG: &str = "ca3658c9a2bcdc452aa149dd38a123f9";
}
