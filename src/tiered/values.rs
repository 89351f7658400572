//! The codec "values" of the Python package: simple values with their exact types.
//!
//! A value is a byte for its kind, and the kind's data. Numbers are little endian, lengths have 32
//! bits. Bytes are not trusted: no length is believed, and the depth is bounded.

use super::codec::Codec;

/// The greatest depth of values within values.
const DEPTH: usize = 100;
/// The classes of the Python package's codec that have a text alone.
const DECIMAL: u8 = 5;
const UUID: u8 = 6;

/// A value of the Python package's codec "values", for [`Values`].
///
/// Values are compared in their order, those of a set and of a dict too.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// `None`.
    None,
    /// A `bool`.
    Bool(bool),
    /// An `int` of at most 128 bits.
    Int(i128),
    /// A `float`.
    Float(f64),
    /// A `complex`: its real and its imaginary part.
    Complex(f64, f64),
    /// A `str` without unpaired surrogates.
    Str(String),
    /// A `bytes`.
    Bytes(Vec<u8>),
    /// A `tuple`.
    Tuple(Vec<Self>),
    /// A `list`.
    List(Vec<Self>),
    /// A `dict`: its keys and values.
    Dict(Vec<(Self, Self)>),
    /// A `set`.
    Set(Vec<Self>),
    /// A `frozenset`.
    FrozenSet(Vec<Self>),
    /// A `decimal.Decimal`, as text.
    Decimal(String),
    /// A `uuid.UUID`, as text.
    Uuid(String),
}

macro_rules! from {
    ($($from:ty => $value:ident: $variant:expr;)*) => {$(
        impl From<$from> for Value {
            fn from($value: $from) -> Self {
                $variant
            }
        }
    )*};
}

from! {
    bool => value: Self::Bool(value);
    i32 => value: Self::Int(value.into());
    i64 => value: Self::Int(value.into());
    u64 => value: Self::Int(value.into());
    f64 => value: Self::Float(value);
    &str => value: Self::Str(value.to_owned());
    String => value: Self::Str(value);
    Vec<u8> => value: Self::Bytes(value);
}

/// The codec "values" of the Python package, the one that its caches have if none is named.
///
/// Values of the classes of `datetime`, integers of more than 128 bits, and text with unpaired
/// surrogates are misses in Rust: Python's programs keep them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Values;

impl Codec<Value> for Values {
    fn name(&self) -> &str {
        "values"
    }

    fn encode(&self, value: &Value) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        encode(value, &mut out, DEPTH)?;
        Some(out)
    }

    fn decode(&self, mut bytes: &[u8]) -> Option<Value> {
        let value = decode(&mut bytes, DEPTH)?;
        bytes.is_empty().then_some(value)
    }
}

fn text(kind: u8, bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    out.push(kind);
    out.extend_from_slice(&u32::try_from(bytes.len()).ok()?.to_le_bytes());
    out.extend_from_slice(bytes);
    Some(())
}

fn begin(kind: u8, count: usize, out: &mut Vec<u8>, depth: usize) -> Option<usize> {
    out.push(kind);
    out.extend_from_slice(&u32::try_from(count).ok()?.to_le_bytes());
    depth.checked_sub(1)
}

fn items(kind: u8, items: &[Value], out: &mut Vec<u8>, depth: usize) -> Option<()> {
    let depth = begin(kind, items.len(), out, depth)?;
    items.iter().try_for_each(|item| encode(item, out, depth))
}

fn float(value: f64, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

/// Encodes an object of a class whose only argument is a text.
fn object(class: u8, argument: &str, out: &mut Vec<u8>, depth: usize) -> Option<()> {
    out.extend_from_slice(&[b'o', class]);
    begin(b't', 1, out, depth.checked_sub(1)?)?;
    text(b's', argument.as_bytes(), out)
}

fn encode(value: &Value, out: &mut Vec<u8>, depth: usize) -> Option<()> {
    match value {
        Value::None => out.push(b'n'),
        Value::Bool(value) => out.push(if *value { b'T' } else { b'F' }),
        Value::Int(value) => match i64::try_from(*value) {
            Ok(small) => {
                out.push(b'i');
                out.extend_from_slice(&small.to_le_bytes());
            }
            Err(_) => {
                let (mut bytes, sign) = ([0; 17], if *value < 0 { 0xFF } else { 0 });
                bytes[..16].copy_from_slice(&value.to_le_bytes());
                bytes[16] = sign;
                let bits = (u128::BITS - value.unsigned_abs().leading_zeros()) as usize;
                return text(b'I', &bytes[..=bits / 8], out);
            }
        },
        Value::Float(value) => {
            out.push(b'f');
            float(*value, out);
        }
        Value::Complex(real, imaginary) => {
            out.push(b'c');
            float(*real, out);
            float(*imaginary, out);
        }
        Value::Str(value) => return text(b's', value.as_bytes(), out),
        Value::Bytes(value) => return text(b'b', value, out),
        Value::Tuple(all) => return items(b't', all, out, depth),
        Value::List(all) => return items(b'l', all, out, depth),
        Value::Set(all) => return items(b'S', all, out, depth),
        Value::FrozenSet(all) => return items(b'z', all, out, depth),
        Value::Dict(all) => {
            let depth = begin(b'd', all.len(), out, depth)?;
            return all.iter().try_for_each(|(key, value)| {
                encode(key, out, depth)?;
                encode(value, out, depth)
            });
        }
        Value::Decimal(value) => return object(DECIMAL, value, out, depth),
        Value::Uuid(value) => return object(UUID, value, out, depth),
    }
    Some(())
}

fn take<'b>(bytes: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn array<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

fn length(bytes: &mut &[u8]) -> Option<usize> {
    Some(u32::from_le_bytes(array(bytes)?) as usize)
}

fn read_text<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = length(bytes)?;
    take(bytes, length)
}

fn read_float(bytes: &mut &[u8]) -> Option<f64> {
    Some(f64::from_bits(u64::from_le_bytes(array(bytes)?)))
}

fn read_int(digits: &[u8]) -> Option<i128> {
    let is_negative = digits.last().is_some_and(|last| last & 0x80 != 0);
    let sign = if is_negative { 0xFF } else { 0 };
    let (low, high) = digits.split_at(digits.len().min(16));
    let mut bytes = [sign; 16];
    bytes[..low.len()].copy_from_slice(low);
    let value = i128::from_le_bytes(bytes);
    // Other integers have more bits.
    (high.iter().all(|&byte| byte == sign) && (value < 0) == is_negative).then_some(value)
}

fn read_items(bytes: &mut &[u8], depth: usize) -> Option<Vec<Value>> {
    let depth = depth.checked_sub(1)?;
    let count = length(bytes)?;
    // An item has at least a byte, and the memory grows as items are read.
    if count > bytes.len() {
        return None;
    }
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(decode(bytes, depth)?);
    }
    Some(all)
}

fn read_pairs(bytes: &mut &[u8], depth: usize) -> Option<Vec<(Value, Value)>> {
    let depth = depth.checked_sub(1)?;
    let count = length(bytes)?;
    if count > bytes.len() / 2 {
        return None;
    }
    let mut all = Vec::new();
    for _ in 0..count {
        let key = decode(bytes, depth)?;
        all.push((key, decode(bytes, depth)?));
    }
    Some(all)
}

fn read_object(bytes: &mut &[u8], depth: usize) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    let [class] = array(bytes)?;
    let Value::Tuple(arguments) = decode(bytes, depth)? else {
        return None;
    };
    let [Value::Str(text)] = <[Value; 1]>::try_from(arguments).ok()? else {
        return None;
    };
    match class {
        DECIMAL => Some(Value::Decimal(text)),
        UUID => Some(Value::Uuid(text)),
        _ => None,
    }
}

fn decode(bytes: &mut &[u8], depth: usize) -> Option<Value> {
    let [kind] = array(bytes)?;
    Some(match kind {
        b'n' => Value::None,
        b'F' | b'T' => Value::Bool(kind == b'T'),
        b'i' => Value::Int(i64::from_le_bytes(array(bytes)?).into()),
        b'I' => Value::Int(read_int(read_text(bytes)?)?),
        b'f' => Value::Float(read_float(bytes)?),
        b'c' => Value::Complex(read_float(bytes)?, read_float(bytes)?),
        b's' => Value::Str(std::str::from_utf8(read_text(bytes)?).ok()?.to_owned()),
        b'b' => Value::Bytes(read_text(bytes)?.to_vec()),
        b't' => Value::Tuple(read_items(bytes, depth)?),
        b'l' => Value::List(read_items(bytes, depth)?),
        b'S' => Value::Set(read_items(bytes, depth)?),
        b'z' => Value::FrozenSet(read_items(bytes, depth)?),
        b'd' => Value::Dict(read_pairs(bytes, depth)?),
        b'o' => read_object(bytes, depth)?,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Value> {
        let ints = [0, -1, 255, i64::MAX.into(), i64::MIN.into()].map(Value::Int);
        let large = [1 << 63, -(1 << 63) - 1, 1 << 64, -(1 << 64), i128::MAX, i128::MIN].map(Value::Int);
        let mut all = vec![
            Value::None,
            Value::from(true),
            Value::from(3.25),
            Value::Complex(1.0, -0.5),
            Value::from("te\u{e9}"),
            Value::from(b"\0\xFF".to_vec()),
            Value::Decimal("3.20".into()),
            Value::Uuid("12345678-1234-5678-1234-567812345678".into()),
            Value::Set(vec![1.into()]),
            Value::FrozenSet(vec![]),
        ];
        all.extend(ints.into_iter().chain(large));
        all.push(Value::Tuple(all.clone()));
        all.push(Value::List(all.clone()));
        all.push(Value::Dict(vec![("all".into(), Value::List(all.clone()))]));
        all
    }

    #[test]
    fn values_survive_encoding() {
        for value in samples() {
            let bytes = Values.encode(&value).unwrap();
            assert_eq!(Values.decode(&bytes), Some(value));
        }
    }

    // What `hotset._hotset.dumps` returns.
    #[test]
    fn values_are_encoded_as_python_encodes_them() {
        let encoded = |value: Value| Values.encode(&value).unwrap();
        assert_eq!(encoded(7.into()), b"i\x07\0\0\0\0\0\0\0");
        assert_eq!(encoded(Value::Int(1 << 63)), b"I\x09\0\0\0\0\0\0\0\0\0\0\x80\0");
        assert_eq!(
            encoded(Value::Int(-(1 << 63) - 1)),
            b"I\x09\0\0\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F\xFF"
        );
        let pair = Value::Tuple(vec!["a".into(), Value::None]);
        assert_eq!(
            encoded(Value::Dict(vec![(pair, false.into())])),
            b"d\x01\0\0\0t\x02\0\0\0s\x01\0\0\0anF"
        );
        assert_eq!(encoded(Value::Decimal("3".into())), b"o\x05t\x01\0\0\0s\x01\0\0\x003");
    }

    #[test]
    fn corrupt_values_are_misses() {
        for value in samples() {
            let bytes = Values.encode(&value).unwrap();
            for length in 0..bytes.len() {
                assert_eq!(Values.decode(&bytes[..length]), None);
            }
            assert_eq!(Values.decode(&[&bytes[..], b"n"].concat()), None);
        }
        let others: [&[u8]; 6] = [
            b"x",
            b"l\xFF\xFF\xFF\xFFn",
            b"d\x01\0\0\0n",
            b"s\x01\0\0\0\xFF",
            b"o\x00t\x01\0\0\0s\x00\0\0\0",
            b"I\x11\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x80\0",
        ];
        for bytes in others {
            assert_eq!(Values.decode(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn depth_is_bounded_as_in_python() {
        let nested = |depth| (0..depth).fold(Value::None, |inner, _| Value::List(vec![inner]));
        assert!(Values.encode(&nested(100)).is_some());
        assert_eq!(Values.encode(&nested(101)), None);
        let bytes = [&b"l\x01\0\0\0".repeat(1_000)[..], b"n"].concat();
        assert_eq!(Values.decode(&bytes), None);
    }
}
