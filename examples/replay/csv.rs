//! The reader of CSV traces: libCacheSim's `time,obj,size,...` and Twitter's
//! `time,key,key_size,value_size,client,op,ttl`, with or without a header.

use crate::formats::quoted;
use crate::trace::{Recorder, integer, key_of};

/// A column as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// Counted from 0.
    At(usize),
    /// As the header spells it.
    Named(String),
}

/// The columns of the command line; those absent are guessed from the first line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns {
    pub(crate) key: Option<Column>,
    pub(crate) size: Option<Column>,
}

/// Names of a key's column in the headers of known traces, in lower case.
const KEYS: [&str; 8] = [
    "key",
    "obj",
    "obj_id",
    "object",
    "object_id",
    "objid",
    "id",
    "anonymized key",
];
const SIZES: [&str; 5] = ["size", "obj_size", "object_size", "objsize", "bytes"];
/// Names that only mark a line as a header.
const OTHERS: [&str; 6] = [
    "time",
    "timestamp",
    "clock_time",
    "key_size",
    "value_size",
    "next_access_vtime",
];

/// Where the fields of interest are.
struct Layout {
    columns: usize,
    key: usize,
    /// Their sum is the size: Twitter's traces have one column for the key's and one for the value's.
    sizes: Vec<usize>,
}

/// Reads the lines of one file. Its memory is bounded by the longest line and the most columns.
pub(crate) struct CsvReader<'a> {
    requested: &'a Columns,
    layout: Option<Layout>,
    tokens: Tokens,
}

impl<'a> CsvReader<'a> {
    pub(crate) fn new(requested: &'a Columns) -> Self {
        Self {
            requested,
            layout: None,
            tokens: Tokens::new(),
        }
    }

    /// Reads one line; the first decides the layout.
    pub(crate) fn line(&mut self, line: &[u8], recorder: &mut Recorder) -> Result<(), String> {
        // A comment sign marks a header; it is no part of the first column's name.
        let first = self.layout.is_none();
        let content = line.strip_prefix(b"#").filter(|_| first).unwrap_or(line);
        let found = self.tokens.split(content)?;
        let layout = match &self.layout {
            Some(layout) => layout,
            None => {
                let (layout, header) = Layout::of(line, &self.tokens, found, self.requested)?;
                let layout = self.layout.insert(layout);
                if header {
                    return Ok(());
                }
                layout
            }
        };
        if found != layout.columns {
            return Err(format!(
                "expected {} columns, found {found}: {}",
                layout.columns,
                quoted(line)
            ));
        }
        let mut size = None;
        for &column in &layout.sizes {
            let part = self.tokens.field(column);
            let part = integer(part).ok_or_else(|| format!("the size is not a whole number: {}", quoted(part)))?;
            size = Some(part.saturating_add(size.unwrap_or(0)));
        }
        let key = self.tokens.field(layout.key);
        if key.is_empty() {
            return Err(format!("the key is empty: {}", quoted(line)));
        }
        recorder.push(key_of(key), size)
    }
}

/// The fields of one line, unquoted.
struct Tokens {
    reader: csv_core::Reader,
    text: Vec<u8>,
    /// Where each field ends in `text`.
    ends: Vec<usize>,
}

impl Tokens {
    fn new() -> Self {
        Self {
            // A carriage return inside a line is a byte like any other.
            reader: csv_core::ReaderBuilder::new()
                .terminator(csv_core::Terminator::Any(b'\n'))
                .build(),
            text: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Splits a line, and returns the number of its fields.
    fn split(&mut self, line: &[u8]) -> Result<usize, String> {
        self.reader.reset();
        // A field is never longer than its source, and a line of n bytes has at most n + 1 fields.
        // The tokenizer reads nothing, not even the end of the line, where it cannot write a byte.
        self.text.resize(line.len() + 1, 0);
        self.ends.resize(line.len() + 1, 0);
        let (mut read, mut written, mut fields) = (0, 0, 0);
        let mut input = line;
        loop {
            let (text, ends) = (&mut self.text[written..], &mut self.ends[fields..]);
            let (result, r, w, f) = self.reader.read_record(input, text, ends);
            (read, written, fields) = (read + r, written + w, fields + f);
            match result {
                csv_core::ReadRecordResult::Record => return Ok(fields),
                // The line has been read: its end is the record's, unless a quote is open.
                csv_core::ReadRecordResult::InputEmpty if read == line.len() => input = b"\n",
                csv_core::ReadRecordResult::InputEmpty => {
                    return Err(format!("a quote is not closed in {}", quoted(line)));
                }
                csv_core::ReadRecordResult::End => return Ok(0),
                csv_core::ReadRecordResult::OutputFull | csv_core::ReadRecordResult::OutputEndsFull => {
                    return Err(format!("a field is longer than its line: {}", quoted(line)));
                }
            }
        }
    }

    /// Returns field `n` without the white space around it.
    fn field(&self, n: usize) -> &[u8] {
        let start = if n == 0 { 0 } else { self.ends[n - 1] };
        let field = &self.text[start..self.ends[n]];
        let trimmed = field.trim_ascii();
        // To the tokenizer, a quote after white space is text like any other.
        let after_space = field.first().is_some_and(u8::is_ascii_whitespace);
        let inner = || trimmed.strip_prefix(b"\"")?.strip_suffix(b"\"");
        inner().filter(|_| after_space).unwrap_or(trimmed)
    }
}

impl Layout {
    /// Derives the layout from the first line, and returns whether that line is a header.
    fn of(first: &[u8], tokens: &Tokens, columns: usize, requested: &Columns) -> Result<(Self, bool), String> {
        let names: Vec<String> = (0..columns)
            .map(|n| String::from_utf8_lossy(tokens.field(n)).trim().to_ascii_lowercase())
            .collect();
        let at = |wanted: &[&str]| names.iter().position(|name| wanted.contains(&name.as_str()));
        let by_name = [&requested.key, &requested.size]
            .iter()
            .any(|c| matches!(c, Some(Column::Named(_))));
        let header = by_name || at(&KEYS).or(at(&SIZES)).or(at(&OTHERS)).is_some();
        let resolve = |column: &Column, what: &str| match column {
            Column::At(at) if *at < columns => Ok(*at),
            Column::At(at) => Err(format!("no column {} for the {what}: there are {columns}", at + 1)),
            Column::Named(name) => (names.iter().position(|n| *n == name.to_ascii_lowercase()))
                .ok_or_else(|| format!("no {what} column {name:?} in the header {}", quoted(first))),
        };
        let key = match &requested.key {
            Some(column) => resolve(column, "key")?,
            None if header => at(&KEYS)
                .ok_or_else(|| format!("no key column known in the header {}; give --key-column", quoted(first)))?,
            // A lone column can only be the key; otherwise the time comes first.
            None => usize::from(columns > 1),
        };
        let sizes = match &requested.size {
            Some(column) => vec![resolve(column, "size")?],
            None if header => match (at(&["key_size"]), at(&["value_size"])) {
                (Some(key), Some(value)) => vec![key, value],
                _ => at(&SIZES).into_iter().collect(),
            },
            // The sixth of Twitter's seven columns is a word, as "get"; libCacheSim's further ones are numbers.
            None if columns == 7 && names[5].starts_with(|c: char| c.is_ascii_alphabetic()) => vec![2, 3],
            None if columns > 2 => vec![2],
            None => Vec::new(),
        };
        Ok((Self { columns, key, sizes }, header))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Trace;

    fn parse(requested: &Columns, text: &str) -> Result<Trace, String> {
        let (mut csv, mut recorder) = (CsvReader::new(requested), Recorder::new(None));
        text.lines()
            .try_for_each(|line| csv.line(line.as_bytes(), &mut recorder))?;
        recorder.finish("t".into())
    }

    fn guess(text: &str) -> (Vec<u32>, Option<Vec<u64>>) {
        let trace = parse(&Columns::default(), text).unwrap();
        (trace.keys, trace.sizes)
    }

    #[test]
    fn libcachesim() {
        let expected = (vec![0, 1, 0], Some(vec![10, 20, 10]));
        assert_eq!(guess("0,a,10\n1,b,20\n2,a,10"), expected);
        assert_eq!(
            guess("time, object, size, next_access_vtime\n0,a,10,2\n1,b,20,-2\n2,a,10,-2"),
            expected
        );
        assert_eq!(guess("# size,\"obj_id\"\n10,a\n20,b\n10,\"a\""), expected);
        assert_eq!(guess("0,5\n1,6\n2,5"), (vec![0, 1, 0], None));
        assert_eq!(guess("5\n6\n5"), (vec![0, 1, 0], None));
    }

    #[test]
    fn twitter() {
        let expected = (vec![0, 1, 0], Some(vec![13, 21, 13]));
        let lines = "0,ab,3,10,1,get,0\n0,c,1,20,2,set,60\n1,ab,3,10,1,get,0";
        assert_eq!(guess(lines), expected);
        assert_eq!(
            guess(&format!("timestamp,key,key_size,value_size,client_id,op,ttl\n{lines}")),
            expected
        );
        // Seven columns of numbers are libCacheSim's.
        assert_eq!(guess("0,5,7,1,1,1,1"), (vec![0], Some(vec![7])));
    }

    #[test]
    fn columns_as_asked() {
        let requested = Columns {
            key: Some(Column::Named("URL".into())),
            size: Some(Column::At(0)),
        };
        let trace = parse(&requested, "len,url\n3,x\n4,y\n").unwrap();
        assert_eq!((trace.keys, trace.sizes), (vec![0, 1], Some(vec![3, 4])));
        assert!(
            parse(&requested, "len,path\n3,x\n")
                .unwrap_err()
                .contains("no key column \"URL\"")
        );
        let requested = Columns {
            key: Some(Column::At(4)),
            size: None,
        };
        assert!(parse(&requested, "1,2,3\n").unwrap_err().contains("no column 5"));
    }

    #[test]
    fn quoted_fields_may_hold_separators() {
        let expected = (vec![0, 1, 0], Some(vec![5, 6, 5]));
        assert_eq!(guess("1,\"a,b\",5\n2,\"a\"\"b\",6\n3,\"a,b\",5"), expected);
        assert_eq!(guess("1,a,5\n2, \"b\",6\n3,\"a\" ,5"), expected);
    }

    #[test]
    fn malformed_lines() {
        let fails = |text: &str, what: &str| {
            let error = parse(&Columns::default(), text).unwrap_err();
            assert!(error.contains(what), "{error}");
        };
        fails("1,a,5\n2,b", "expected 3 columns, found 2");
        fails("1,a,5\n2,b,5,6", "expected 3 columns, found 4");
        fails("1,a,5\n2,b,big", "the size is not a whole number");
        fails("1,a,5\n2,,5", "the key is empty");
        fails("1,a,5\n2,\"b,5,6", "a quote is not closed");
        fails("1,a,5\n2,a,5\r6", "the size is not a whole number");
        fails("time,size\n1,2", "give --key-column");
        fails(
            "1,a,18446744073709551615,18446744073709551615,1,get,0",
            "over the limit",
        );
    }
}
