//! How keys and values become bytes, and bytes become keys and values.

use std::sync::Arc;

/// What a snapshot can keep: a type that can be written as bytes and made from them.
///
/// The bytes that [`decode`](Self::decode) gets are those that [`encode`](Self::encode) wrote: a snapshot's checksums are
/// verified first. But a file can be made by anyone who can write it, so `decode` must refuse what it does not
/// understand, and must not trust a length it finds there.
///
/// Keys are found again by their [`Hash`](std::hash::Hash): it must feed the hasher the same in the next process. What is derived does, as
/// long as the type stays the same; a key that hashes an address or a process's random number does not.
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
pub trait Codec: Sized {
    /// Appends the bytes of this value.
    fn encode(&self, out: &mut Vec<u8>);
    /// The value with these bytes; `None` if there is none.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// How a cache's entries become bytes, where that is not up to each of their types: where key and value share their memory. For
/// the bindings to other languages.
#[doc(hidden)]
pub trait EntryCodec<K, V> {
    /// Appends the key's bytes.
    fn encode_key(key: &K, out: &mut Vec<u8>);
    /// Appends the value's bytes.
    fn encode_value(value: &V, out: &mut Vec<u8>);
    /// The entry with these bytes; `None` if there is none.
    fn decode(key: &[u8], value: &[u8]) -> Option<(K, V)>;
}

/// The key by its [`Codec`], the value by its own.
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

/// Types that are a slice of bytes, or a string.
macro_rules! slices {
    ($($type:ty: $as:ident, $from:expr;)*) => {$(
        impl Codec for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(self.$as());
            }
            fn decode(bytes: &[u8]) -> Option<Self> {
                $from(bytes)
            }
        }
    )*};
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

slices! {
    Vec<u8>: as_slice, |bytes: &[u8]| Some(bytes.to_vec());
    Box<[u8]>: as_ref, |bytes: &[u8]| Some(bytes.into());
    Arc<[u8]>: as_ref, |bytes: &[u8]| Some(bytes.into());
    String: as_bytes, |bytes| text(bytes).map(str::to_owned);
    Box<str>: as_bytes, |bytes| text(bytes).map(Box::from);
    Arc<str>: as_bytes, |bytes| text(bytes).map(Arc::from);
}

macro_rules! integers {
    ($($type:ty)*) => {$(
        /// Little-endian.
        impl Codec for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn decode(bytes: &[u8]) -> Option<Self> {
                Some(Self::from_le_bytes(bytes.try_into().ok()?))
            }
        }
    )*};
}

integers!(u8 u16 u32 u64 u128 i8 i16 i32 i64 i128);

/// As 64 bits, whatever the machine has.
impl Codec for usize {
    fn encode(&self, out: &mut Vec<u8>) {
        (*self as u64).encode(out);
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        u64::decode(bytes)?.try_into().ok()
    }
}

/// As 64 bits, whatever the machine has.
impl Codec for isize {
    fn encode(&self, out: &mut Vec<u8>) {
        (*self as i64).encode(out);
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        i64::decode(bytes)?.try_into().ok()
    }
}

impl Codec for () {
    fn encode(&self, _: &mut Vec<u8>) {}
    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.is_empty().then_some(())
    }
}

/// Anything that serde can serialize, in postcard's format. With the cargo feature `serde`.
///
/// That format does not describe itself: give the snapshot another [schema](crate::snapshot::SaveOptions::schema) when the type changes.
#[cfg(feature = "serde")]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn round<T: Codec + PartialEq + std::fmt::Debug>(value: T) {
        let mut bytes = vec![];
        value.encode(&mut bytes);
        assert_eq!(T::decode(&bytes), Some(value));
    }

    #[test]
    fn round_trips() {
        round(vec![0u8, 255, 7]);
        round::<Box<[u8]>>(vec![].into());
        round::<Arc<[u8]>>(vec![1].into());
        round("naïve".to_owned());
        round::<Box<str>>("".into());
        round::<Arc<str>>("a\0b".into());
        round(u64::MAX);
        round(i128::MIN);
        round(usize::MAX);
        round(-1isize);
        round(());
    }

    #[test]
    fn what_is_no_value_is_refused() {
        assert_eq!(u32::decode(&[1, 2, 3]), None);
        assert_eq!(u32::decode(&[1, 2, 3, 4, 5]), None);
        assert_eq!(String::decode(&[0xff]), None);
        assert_eq!(<()>::decode(&[0]), None);
    }

    #[cfg(feature = "serde")]
    #[test]
    fn serde_too() {
        round(Serde((7u8, "x".to_owned(), vec![Some(1u64), None])));
        assert_eq!(Serde::<u8>::decode(&[1, 2]), None);
    }
}
