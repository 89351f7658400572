//! How values are bytes on the server.

/// Encodes values for the server, and decodes them. Programs that share values have the same.
///
/// [`Bytes`] and `Json` read and write what the codecs "bytes" and "json" of the
/// Python package do.
pub trait Codec<V>: Send + Sync + 'static {
    /// The codec's name, which is a part of every key: codecs with different names share no values.
    ///
    /// It consists of ASCII letters, digits and `_`, and is always the same.
    fn name(&self) -> &str;

    /// Returns the bytes of `value`; `None` if it has none, so that it stays in the first tier.
    fn encode(&self, value: &V) -> Option<Vec<u8>>;

    /// Returns the value of `bytes`, which another program may have written; `None` if it is no
    /// value: then it is a miss, and counted.
    fn decode(&self, bytes: &[u8]) -> Option<V>;
}

/// Values that are bytes, or UTF-8 text, as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bytes;

impl Codec<Vec<u8>> for Bytes {
    fn name(&self) -> &str {
        "bytes"
    }

    fn encode(&self, value: &Vec<u8>) -> Option<Vec<u8>> {
        Some(value.clone())
    }

    fn decode(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        Some(bytes.to_vec())
    }
}

impl Codec<String> for Bytes {
    fn name(&self) -> &str {
        "bytes"
    }

    fn encode(&self, value: &String) -> Option<Vec<u8>> {
        Some(value.clone().into_bytes())
    }

    fn decode(&self, bytes: &[u8]) -> Option<String> {
        String::from_utf8(bytes.to_vec()).ok()
    }
}

/// Values that serde can serialize, as JSON.
#[cfg(feature = "json")]
#[cfg_attr(docsrs, doc(cfg(feature = "json")))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

#[cfg(feature = "json")]
impl<V: serde::Serialize + serde::de::DeserializeOwned> Codec<V> for Json {
    fn name(&self) -> &str {
        "json"
    }

    fn encode(&self, value: &V) -> Option<Vec<u8>> {
        serde_json::to_vec(value).ok()
    }

    fn decode(&self, bytes: &[u8]) -> Option<V> {
        serde_json::from_slice(bytes).ok()
    }
}

/// The version of what values look like. It is a part of every key, so that programs before and
/// after a change share no values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schema {
    /// There is none, as `schema=None` in Python.
    #[default]
    None,
    /// A number, as an `int` in Python.
    Number(u64),
}

impl Schema {
    pub(super) fn text(&self) -> String {
        match self {
            Self::None => "None".into(),
            Self::Number(number) => number.to_string(),
        }
    }
}

/// The numbers that frames have for codecs; a program's own have the last one.
pub(super) fn number(name: &str) -> u8 {
    match name {
        "bytes" => 2,
        "json" => 3,
        _ => 5,
    }
}
