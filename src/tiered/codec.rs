//! How values are bytes on the server.

/// Encodes values for the server, and decodes them. Programs that share values have the same.
///
/// [`Bytes`], [`Values`](super::Values) and `Json` read and write what the codecs "bytes", "values"
/// and "json" of the Python package do.
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Schema {
    /// There is none, as `schema=None` in Python.
    #[default]
    None,
    /// A number, as an `int` in Python.
    Number(u64),
    /// ASCII text, as a `str` in Python.
    Text(String),
}

impl Schema {
    pub(super) fn text(&self) -> String {
        match self {
            Self::None => "None".into(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => repr(text),
        }
    }

    /// Returns whether [`text`](Self::text) is what Python writes. Which other characters Python
    /// escapes depends on its version of Unicode.
    pub(super) fn is_valid(&self) -> bool {
        !matches!(self, Self::Text(text) if !text.is_ascii())
    }
}

/// Returns what Python's `repr` does of ASCII text.
fn repr(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut written = String::from(quote);
    for character in text.chars() {
        match character {
            '\\' => written.push_str("\\\\"),
            '\n' => written.push_str("\\n"),
            '\r' => written.push_str("\\r"),
            '\t' => written.push_str("\\t"),
            _ if character == quote => written.extend(['\\', quote]),
            ' '..='~' => written.push(character),
            _ => written.push_str(&format!("\\x{:02x}", u32::from(character))),
        }
    }
    written.push(quote);
    written
}

/// The numbers that frames have for codecs; a program's own have the last one.
pub(super) fn number(name: &str) -> u8 {
    match name {
        "values" => 1,
        "bytes" => 2,
        "json" => 3,
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schema_text_is_written_as_python_writes_it() {
        let written = |text: &str| Schema::Text(text.into()).text();
        assert_eq!(written("v2"), "'v2'");
        assert_eq!(written("it's"), "\"it's\"");
        assert_eq!(written("\"it's\""), "'\"it\\'s\"'");
        assert_eq!(written("\\\n\r\t\x00\x7F"), "'\\\\\\n\\r\\t\\x00\\x7f'");
    }
}
