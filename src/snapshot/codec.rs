//! Codecs: how keys and values become the bytes of a snapshot, and are decoded from them.
//!
//! [`Codec`] belongs to a type. [`EntryCodec`] belongs to a cache, for keys and values whose types
//! cannot implement `Codec`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::NonZero;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A type that a snapshot can keep: one that can be encoded as bytes and decoded from them.
///
/// Implemented for the usual types of std (see the implementations below), with the cargo feature
/// `serde` for `Serde<T>` of any `T` that serde can serialize. For other crates' types, see
/// [`EntryCodec`].
///
/// [`decode`](Self::decode) gets the bytes that [`encode`](Self::encode) appended: a snapshot's
/// checksums are verified first. But any program that can write the file can make up its contents.
/// So `decode` must return `None` for bytes that it does not understand, must not trust a length in
/// them, and must bound the depth of a recursive type.
///
/// A key is found by its [`Hash`], which must feed the hasher the same bytes in the next process. A
/// derived implementation does, as long as the type stays the same. A key that hashes an address or
/// a random number does not.
///
/// # Examples
///
/// ```
/// use hotset::snapshot::Codec;
///
/// #[derive(PartialEq, Eq, Hash)]
/// struct UserId(u64);
///
/// impl Codec for UserId {
///     fn encode(&self, out: &mut Vec<u8>) {
///         self.0.encode(out);
///     }
///     fn decode(bytes: &[u8]) -> Option<Self> {
///         u64::decode(bytes).map(UserId)
///     }
/// }
/// ```
///
/// A type of several fields, with [`encode_field`] and [`decode_field`]:
///
/// ```
/// use hotset::snapshot::{Codec, decode_field, encode_field};
///
/// struct User {
///     name: String,
///     tags: Vec<String>,
/// }
///
/// impl Codec for User {
///     fn encode(&self, out: &mut Vec<u8>) {
///         encode_field(&self.name, out);
///         encode_field(&self.tags, out);
///     }
///     fn decode(mut bytes: &[u8]) -> Option<Self> {
///         let name = decode_field(&mut bytes)?;
///         let tags = decode_field(&mut bytes)?;
///         bytes.is_empty().then_some(Self { name, tags })
///     }
/// }
/// ```
pub trait Codec: Sized {
    /// Appends the bytes of this value to `out`.
    fn encode(&self, out: &mut Vec<u8>);

    /// Decodes a value. Returns `None` if `bytes` are not those of a value.
    fn decode(bytes: &[u8]) -> Option<Self>;

    /// Appends the bytes of a sequence. Bytes are their own encoding; other items have their
    /// lengths before them.
    #[doc(hidden)]
    fn encode_items(items: &[Self], out: &mut Vec<u8>) {
        items.iter().for_each(|item| encode_field(item, out));
    }

    /// Decodes a sequence.
    #[doc(hidden)]
    fn decode_items(mut bytes: &[u8]) -> Option<Vec<Self>> {
        // Each item takes a byte at least, so the input bounds the memory.
        let mut items = Vec::new();
        while !bytes.is_empty() {
            items.push(decode_field(&mut bytes)?);
        }
        Some(items)
    }
}

/// How the entries of a cache become bytes, where the types of its keys and values cannot implement
/// [`Codec`], because another crate defines them.
///
/// Implement it for a type of your own, and use
/// [`Cache::save_with_codec`](crate::Cache::save_with_codec) and
/// [`Cache::load_with_codec`](crate::Cache::load_with_codec). The rules of [`Codec`] about hostile
/// bytes and about the hashes of keys apply here, too.
///
/// # Examples
///
/// ```
/// use hotset::Cache;
/// use hotset::snapshot::{Codec, EntryCodec, LoadOptions, SaveOptions};
/// use std::ops::RangeInclusive;
///
/// /// `RangeInclusive<u32>` is std's: it cannot implement `Codec` here.
/// struct Ranges;
///
/// impl EntryCodec<RangeInclusive<u32>, String> for Ranges {
///     fn encode_key(key: &RangeInclusive<u32>, out: &mut Vec<u8>) {
///         (*key.start(), *key.end()).encode(out);
///     }
///     fn encode_value(value: &String, out: &mut Vec<u8>) {
///         value.encode(out);
///     }
///     fn decode(key: &[u8], value: &[u8]) -> Option<(RangeInclusive<u32>, String)> {
///         let (start, end) = <(u32, u32)>::decode(key)?;
///         Some((start..=end, String::decode(value)?))
///     }
/// }
///
/// # fn main() -> Result<(), hotset::snapshot::SnapshotError> {
/// # let path = std::env::temp_dir().join(format!("hotset-codec-{}", std::process::id()));
/// let cache: Cache<RangeInclusive<u32>, String> = Cache::new(100);
/// cache.insert(1..=9, "low".to_owned());
/// cache.save_with_codec::<Ranges>(&path, &SaveOptions::new())?;
///
/// let cache: Cache<RangeInclusive<u32>, String> = Cache::new(100);
/// cache.load_with_codec::<Ranges>(&path, &LoadOptions::new())?;
/// assert_eq!(cache.get(&(1..=9)).as_deref(), Some("low"));
/// # std::fs::remove_file(&path).unwrap();
/// # Ok(())
/// # }
/// ```
pub trait EntryCodec<K, V> {
    /// Appends the bytes of the key to `out`.
    fn encode_key(key: &K, out: &mut Vec<u8>);
    /// Appends the bytes of the value to `out`.
    fn encode_value(value: &V, out: &mut Vec<u8>);
    /// Decodes an entry. Returns `None` if the bytes are not those of an entry.
    fn decode(key: &[u8], value: &[u8]) -> Option<(K, V)>;
}

/// Encodes the key by its [`Codec`], and the value by its own.
pub(crate) struct PerTypeCodec;

impl<K: Codec, V: Codec> EntryCodec<K, V> for PerTypeCodec {
    fn encode_key(key: &K, out: &mut Vec<u8>) {
        key.encode(out);
    }
    fn encode_value(value: &V, out: &mut Vec<u8>) {
        value.encode(out);
    }
    fn decode(key: &[u8], value: &[u8]) -> Option<(K, V)> {
        Some((K::decode(key)?, V::decode(value)?))
    }
}

/// Appends a field of a composite value to `out`: the length of its bytes in LEB128, and its bytes.
///
/// See [`Codec`] for an example.
pub fn encode_field<T: Codec>(field: &T, out: &mut Vec<u8>) {
    with_length(out, |out| field.encode(out));
}

/// Appends the bytes that `encode` appends, with their length before them.
fn with_length(out: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    encode(out);
    // The length is known only now. It is appended, and rotated to the front.
    let bytes = out.len() - begin;
    let mut rest = bytes;
    let mut prefix = 1;
    while rest > 0x7f {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
        prefix += 1;
    }
    out.push(rest as u8);
    out[begin..].rotate_right(prefix);
}

/// Decodes the first field of a composite value, and removes it from `bytes`.
///
/// Returns `None` if the bytes do not begin with a field of this type. See [`Codec`] for an
/// example.
pub fn decode_field<T: Codec>(bytes: &mut &[u8]) -> Option<T> {
    let (mut length, mut shift) = (0u64, 0);
    loop {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        // Five groups of seven bits are more than the format's 4 GiB.
        if shift > 28 {
            return None;
        }
        length |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let (item, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    T::decode(item)
}

/// Decodes bytes of a fixed length.
fn array<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

macro_rules! numbers {
    ($($type:ty)*) => {$(
        /// Little-endian.
        impl Codec for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn decode(bytes: &[u8]) -> Option<Self> {
                Some(Self::from_le_bytes(array(bytes)?))
            }
        }
    )*};
}

numbers!(u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64);

/// One byte. A sequence of bytes (`Vec<u8>`, `[u8; N]`, ..) is encoded as those bytes alone.
impl Codec for u8 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        array::<1>(bytes).map(|[byte]| byte)
    }
    fn encode_items(items: &[Self], out: &mut Vec<u8>) {
        out.extend_from_slice(items);
    }
    fn decode_items(bytes: &[u8]) -> Option<Vec<Self>> {
        Some(bytes.to_vec())
    }
}

/// Types that are encoded as another type.
macro_rules! converted {
    ($($(#[$doc:meta])* [$($generics:tt)*] $type:ty as $other:ty: $to:expr, $from:expr;)*) => {$(
        $(#[$doc])*
        impl<$($generics)*> Codec for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                let to: fn(&Self) -> $other = $to;
                to(self).encode(out);
            }
            fn decode(bytes: &[u8]) -> Option<Self> {
                let from: fn($other) -> Option<Self> = $from;
                from(<$other>::decode(bytes)?)
            }
        }
    )*};
}

converted! {
    /// As `u64`, on every platform.
    [] usize as u64: |n| *n as u64, |n| n.try_into().ok();
    /// As `i64`, on every platform.
    [] isize as i64: |n| *n as i64, |n| n.try_into().ok();
    /// One byte, 0 or 1.
    [] bool as u8: |b| u8::from(*b), |byte| [false, true].get(usize::from(byte)).copied();
    /// As the `u32` of its code point.
    [] char as u32: |c| u32::from(*c), char::from_u32;
    /// Seconds and nanoseconds.
    [] Duration as (u64, u32): |d| (d.as_secs(), d.subsec_nanos()),
        |(secs, nanos)| (nanos < 1_000_000_000).then(|| Self::new(secs, nanos));
    /// Whether it is before 1970, and the distance to 1970.
    [] SystemTime as (bool, Duration): |time| match time.duration_since(UNIX_EPOCH) {
            Ok(since) => (false, since),
            Err(before) => (true, before.duration()),
        },
        |(before, distance)| match before {
            false => UNIX_EPOCH.checked_add(distance),
            true => UNIX_EPOCH.checked_sub(distance),
        };
    /// Four bytes.
    [] Ipv4Addr as [u8; 4]: |ip| ip.octets(), |bytes| Some(bytes.into());
    /// Sixteen bytes.
    [] Ipv6Addr as [u8; 16]: |ip| ip.octets(), |bytes| Some(bytes.into());
    /// Address and port.
    [] SocketAddrV4 as (Ipv4Addr, u16): |at| (*at.ip(), at.port()), |(ip, port)| Some(Self::new(ip, port));
    /// Address, port, flow information and scope.
    [] SocketAddrV6 as (Ipv6Addr, u16, u32, u32): |at| (*at.ip(), at.port(), at.flowinfo(), at.scope_id()),
        |(ip, port, flow, scope)| Some(Self::new(ip, port, flow, scope));
}

/// Pointers, which are encoded as what they point to.
macro_rules! pointers {
    ($($pointer:ident)*) => {$(
        impl<T: Codec> Codec for $pointer<T> {
            fn encode(&self, out: &mut Vec<u8>) {
                (**self).encode(out);
            }
            fn decode(bytes: &[u8]) -> Option<Self> {
                T::decode(bytes).map(Self::new)
            }
        }

        impl<T: Codec> Codec for $pointer<[T]> {
            fn encode(&self, out: &mut Vec<u8>) {
                T::encode_items(self, out);
            }
            fn decode(bytes: &[u8]) -> Option<Self> {
                T::decode_items(bytes).map(Self::from)
            }
        }

        /// UTF-8.
        impl Codec for $pointer<str> {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(self.as_bytes());
            }
            fn decode(bytes: &[u8]) -> Option<Self> {
                std::str::from_utf8(bytes).ok().map(Self::from)
            }
        }
    )*};
}

pointers!(Box Arc Rc);

/// UTF-8.
impl Codec for String {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    }
}

/// UTF-8. Decoded as an owned string.
impl Codec for Cow<'static, str> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        String::decode(bytes).map(Cow::Owned)
    }
}

/// As a vector. Decoded as an owned one.
impl<T: Codec + Clone> Codec for Cow<'static, [T]> {
    fn encode(&self, out: &mut Vec<u8>) {
        T::encode_items(self, out);
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        T::decode_items(bytes).map(Cow::Owned)
    }
}

impl<T: Codec> Codec for Vec<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        T::encode_items(self, out);
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        T::decode_items(bytes)
    }
}

impl<T: Codec, const N: usize> Codec for [T; N] {
    fn encode(&self, out: &mut Vec<u8>) {
        T::encode_items(self, out);
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        T::decode_items(bytes)?.try_into().ok()
    }
}

/// 0, or 1 and the value.
impl<T: Codec> Codec for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(value) = self {
            value.encode(out);
        }
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (0, []) => Some(None),
            (1, value) => T::decode(value).map(Some),
            _ => None,
        }
    }
}

/// 0 and the error, or 1 and the value.
impl<T: Codec, E: Codec> Codec for Result<T, E> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_ok()));
        match self {
            Ok(value) => value.encode(out),
            Err(error) => error.encode(out),
        }
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (0, error) => E::decode(error).map(Err),
            (1, value) => T::decode(value).map(Ok),
            _ => None,
        }
    }
}

/// 4 and an IPv4 address, or 6 and an IPv6 address.
impl Codec for IpAddr {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::V4(ip) => (out.push(4), ip.encode(out)),
            Self::V6(ip) => (out.push(6), ip.encode(out)),
        };
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (4, ip) => Ipv4Addr::decode(ip).map(Self::V4),
            (6, ip) => Ipv6Addr::decode(ip).map(Self::V6),
            _ => None,
        }
    }
}

/// 4 and a `SocketAddrV4`, or 6 and a `SocketAddrV6`.
impl Codec for SocketAddr {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::V4(at) => (out.push(4), at.encode(out)),
            Self::V6(at) => (out.push(6), at.encode(out)),
        };
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (4, at) => SocketAddrV4::decode(at).map(Self::V4),
            (6, at) => SocketAddrV6::decode(at).map(Self::V6),
            _ => None,
        }
    }
}

macro_rules! nonzero {
    ($($type:ty)*) => {$(
        impl Codec for NonZero<$type> {
            fn encode(&self, out: &mut Vec<u8>) {
                self.get().encode(out);
            }
            fn decode(bytes: &[u8]) -> Option<Self> {
                Self::new(Codec::decode(bytes)?)
            }
        }
    )*};
}

nonzero!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);

/// Collections, which are encoded as their items in the order of their iterators, each with its
/// length before it.
macro_rules! collections {
    ($($type:ty: [$($generics:tt)*] $item:ty, $encode:expr;)*) => {$(
        impl<$($generics)*> Codec for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                self.iter().for_each(|item| with_length(out, |out| $encode(item, out)));
            }
            fn decode(mut bytes: &[u8]) -> Option<Self> {
                let items = std::iter::from_fn(|| (!bytes.is_empty()).then(|| decode_field::<$item>(&mut bytes)));
                items.collect()
            }
        }
    )*};
}

/// Encodes a pair of references as the tuple of what they refer to.
fn encode_pair<K: Codec, V: Codec>((key, value): (&K, &V), out: &mut Vec<u8>) {
    encode_field(key, out);
    encode_field(value, out);
}

collections! {
    VecDeque<T>: [T: Codec] T, T::encode;
    BTreeSet<T>: [T: Codec + Ord] T, T::encode;
    HashSet<T, S>: [T: Codec + Hash + Eq, S: BuildHasher + Default] T, T::encode;
    BTreeMap<K, V>: [K: Codec + Ord, V: Codec] (K, V), encode_pair;
    HashMap<K, V, S>: [K: Codec + Hash + Eq, V: Codec, S: BuildHasher + Default] (K, V), encode_pair;
}

/// Tuples, which are encoded as their fields, each with its length before it.
macro_rules! tuples {
    ($($name:ident)*) => {
        impl<$($name: Codec),*> Codec for ($($name,)*) {
            #[expect(non_snake_case, reason = "a field has the name of its type")]
            fn encode(&self, out: &mut Vec<u8>) {
                let ($($name,)*) = self;
                $(encode_field($name, out);)*
            }
            fn decode(mut bytes: &[u8]) -> Option<Self> {
                let fields = ($(decode_field::<$name>(&mut bytes)?,)*);
                bytes.is_empty().then_some(fields)
            }
        }
    };
}

tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);

/// No bytes.
impl Codec for () {
    fn encode(&self, _: &mut Vec<u8>) {}
    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.is_empty().then_some(())
    }
}

/// A value of any type that serde can serialize, encoded by postcard.
///
/// That format does not describe itself: change the snapshot's
/// [schema](crate::snapshot::SaveOptions::schema) when the type changes.
///
/// # Examples
///
/// ```
/// use hotset::Cache;
/// use hotset::snapshot::Serde;
/// use std::ops::Range;
///
/// # fn main() -> Result<(), hotset::snapshot::SnapshotError> {
/// # let path = std::env::temp_dir().join(format!("hotset-serde-{}", std::process::id()));
/// let cache: Cache<u64, Serde<Range<u32>>> = Cache::new(100);
/// cache.insert(1, Serde(3..7));
/// cache.save(&path)?;
/// # std::fs::remove_file(&path).unwrap();
/// # Ok(())
/// # }
/// ```
#[cfg(feature = "serde")]
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Serde<T>(pub T);

#[cfg(feature = "serde")]
impl<T: serde::Serialize + serde::de::DeserializeOwned> Codec for Serde<T> {
    /// # Panics
    /// If the value refuses to be serialized.
    fn encode(&self, out: &mut Vec<u8>) {
        let bytes = postcard::to_allocvec(&self.0).expect("a value that can be serialized");
        out.extend_from_slice(&bytes);
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
        rest.is_empty().then_some(Self(value))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Debug;

    fn encoded<T: Codec>(value: &T) -> Vec<u8> {
        let mut bytes = vec![];
        value.encode(&mut bytes);
        bytes
    }

    fn round<T: Codec + PartialEq + Debug>(value: T) {
        assert_eq!(T::decode(&encoded(&value)), Some(value));
    }

    #[test]
    fn values_come_back_from_their_bytes() {
        round(vec![0u8, 255, 7]);
        round::<Box<[u8]>>(vec![].into());
        round::<Arc<[u8]>>(vec![1].into());
        round("naïve".to_owned());
        round::<Box<str>>("".into());
        round::<Arc<str>>("a\0b".into());
        round::<Cow<'static, str>>("borrowed".into());
        round(u64::MAX);
        round(i128::MIN);
        round(usize::MAX);
        round(-1isize);
        round(());
        round(f64::MIN_POSITIVE);
        round([true, false]);
        round('ß');
        round(Duration::new(u64::MAX, 999_999_999));
        round(UNIX_EPOCH - Duration::new(1, 5));
        round(SystemTime::now());
        round::<IpAddr>([127, 0, 0, 1].into());
        round::<SocketAddr>("[fe80::1%3]:80".parse().unwrap());
        round::<SocketAddr>("1.2.3.4:80".parse().unwrap());
        round(NonZero::new(7u16).unwrap());
        round([[1u8, 2], [3, 4]]);
        round(Some(None::<u8>));
        round(Err::<u8, _>("no".to_owned()));
        round((1u8, "two".to_owned(), [3u64; 3], None::<()>));
        round(VecDeque::from([String::new(), "x".repeat(1000)]));
        round(BTreeMap::from([(1u8, vec![1u16]), (2, vec![])]));
        round(HashMap::<u8, String>::from([(1, "one".into()), (2, "two".into())]));
        round(HashSet::<char>::from(['a', 'b']));
        round(BTreeSet::from([vec![1u8]]));
        round(Box::new(Arc::new(Some(7u32))));
        round(Rc::new(7u32));
    }

    /// The documented bytes: a snapshot of an earlier version must stay readable.
    #[test]
    fn composite_values_have_the_documented_bytes() {
        assert_eq!(encoded(&vec![1u8, 2]), [1, 2]);
        assert_eq!(encoded(&[1u8; 3]), [1, 1, 1]);
        assert_eq!(encoded(&(1u8, 2u16)), [1, 1, 2, 2, 0]);
        assert_eq!(encoded(&vec!["a".to_owned(), String::new()]), [1, b'a', 0]);
        assert_eq!(encoded(&Some(5u8)), [1, 5]);
        assert_eq!(encoded(&BTreeMap::from([(1u8, 2u8)])), [4, 1, 1, 1, 2]);
        let long = encoded(&("x".repeat(300),));
        assert_eq!((&long[..2], long.len()), (&[0xac, 0x02][..], 302));
    }

    #[test]
    fn bytes_of_no_value_are_refused() {
        assert_eq!(u32::decode(&[1, 2, 3]), None);
        assert_eq!(u32::decode(&[1, 2, 3, 4, 5]), None);
        assert_eq!(String::decode(&[0xff]), None);
        assert_eq!(<()>::decode(&[0]), None);
        assert_eq!(bool::decode(&[2]), None);
        assert_eq!(char::decode(&0xd800u32.to_le_bytes()), None);
        assert_eq!(<[u8; 2]>::decode(&[1]), None);
        assert_eq!(<[u16; 2]>::decode(&[2, 0, 0]), None);
        assert_eq!(Option::<()>::decode(&[0, 0]), None);
        assert_eq!(NonZero::<u8>::decode(&[0]), None);
        assert_eq!(<(u8, u8)>::decode(&[1, 1, 1, 1, 0]), None, "bytes are left");
        assert_eq!(Duration::decode(&encoded(&(1u64, 1_000_000_000u32))), None);
        assert_eq!(
            <Vec<u16>>::decode(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            None,
            "a length of too many bits"
        );
    }

    type Nested = HashMap<String, Vec<(Option<u16>, Vec<BTreeSet<Arc<str>>>)>>;

    proptest! {
        /// No input panics, and what is decoded is a value that encodes and decodes.
        #[test]
        fn arbitrary_bytes_are_refused_or_a_value(bytes: Vec<u8>) {
            if let Some(value) = Nested::decode(&bytes) {
                prop_assert_eq!(Nested::decode(&encoded(&value)), Some(value));
            }
            _ = <Vec<Vec<()>>>::decode(&bytes);
            _ = <(SocketAddr, SystemTime, char)>::decode(&bytes);
            _ = <Vec<Result<bool, [u32; 2]>>>::decode(&bytes);
        }

        #[test]
        fn nested_values_come_back(value: (Option<u16>, Vec<String>, HashMap<u8, Vec<u16>>)) {
            prop_assert_eq!(Codec::decode(&encoded(&value)), Some(value));
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn serde_values_come_back_from_their_bytes() {
        round(Serde((7u8, "x".to_owned(), vec![Some(1u64), None])));
        assert_eq!(Serde::<u8>::decode(&[1, 2]), None);
    }
}
