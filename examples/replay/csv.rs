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

/// The columns asked for; those left out are guessed from the first line.
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
    /// Summed up: Twitter's traces tell the key's size and the value's apart.
    sizes: Vec<usize>,
}

pub(crate) struct CsvReader<'a> {
    asked: &'a Columns,
    layout: Option<Layout>,
}

impl<'a> CsvReader<'a> {
    pub(crate) fn new(asked: &'a Columns) -> Self {
        Self { asked, layout: None }
    }

    /// Takes one line, of which the first decides the layout.
    pub(crate) fn line(&mut self, line: &[u8], recorder: &mut Recorder) -> Result<(), String> {
        let layout = match &self.layout {
            Some(layout) => layout,
            None => {
                let (layout, header) = Layout::of(line, self.asked)?;
                let layout = self.layout.insert(layout);
                if header {
                    return Ok(());
                }
                layout
            }
        };
        let (mut found, mut key, mut size) = (0, &line[..0], None);
        for field in fields(line) {
            if found == layout.key {
                key = unquoted(field)?;
            }
            if layout.sizes.contains(&found) {
                let part = unquoted(field)?;
                let part = integer(part).ok_or_else(|| format!("the size is not a whole number: {}", quoted(part)))?;
                size = Some(part.saturating_add(size.unwrap_or(0)));
            }
            found += 1;
        }
        if found != layout.columns {
            return Err(format!(
                "expected {} columns, found {found}: {}",
                layout.columns,
                quoted(line)
            ));
        }
        if key.is_empty() {
            return Err(format!("the key is empty: {}", quoted(line)));
        }
        recorder.push(key_of(key), size)
    }
}

fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|&c| c == b',').map(<[u8]>::trim_ascii)
}

/// A field without the quotes around it. A quoted comma would have been taken for a separator, so it must not pass.
fn unquoted(field: &[u8]) -> Result<&[u8], String> {
    match field.strip_prefix(b"\"") {
        None => Ok(field),
        Some(rest) => rest
            .strip_suffix(b"\"")
            .ok_or_else(|| format!("a quote is not closed in {}", quoted(field))),
    }
}

impl Layout {
    /// The layout that the first line tells, and whether that line is a header.
    fn of(first: &[u8], asked: &Columns) -> Result<(Self, bool), String> {
        let names: Vec<String> = fields(first.strip_prefix(b"#").unwrap_or(first))
            .map(|field| {
                String::from_utf8_lossy(unquoted(field).unwrap_or(field))
                    .trim()
                    .to_ascii_lowercase()
            })
            .collect();
        let columns = names.len();
        let at = |wanted: &[&str]| names.iter().position(|name| wanted.contains(&name.as_str()));
        let by_name = [&asked.key, &asked.size]
            .iter()
            .any(|c| matches!(c, Some(Column::Named(_))));
        let header = by_name || at(&KEYS).or(at(&SIZES)).or(at(&OTHERS)).is_some();
        let resolve = |column: &Column, what: &str| match column {
            Column::At(at) if *at < columns => Ok(*at),
            Column::At(at) => Err(format!("no column {} for the {what}: there are {columns}", at + 1)),
            Column::Named(name) => (names.iter().position(|n| *n == name.to_ascii_lowercase()))
                .ok_or_else(|| format!("no {what} column {name:?} in the header {}", quoted(first))),
        };
        let key = match &asked.key {
            Some(column) => resolve(column, "key")?,
            None if header => at(&KEYS)
                .ok_or_else(|| format!("no key column known in the header {}; give --key-column", quoted(first)))?,
            // A lone column can only be the key; otherwise the time comes first.
            None => usize::from(columns > 1),
        };
        let sizes = match &asked.size {
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

    fn parse(asked: &Columns, text: &str) -> Result<Trace, String> {
        let (mut csv, mut recorder) = (CsvReader::new(asked), Recorder::new(None));
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
        let asked = Columns {
            key: Some(Column::Named("URL".into())),
            size: Some(Column::At(0)),
        };
        let trace = parse(&asked, "len,url\n3,x\n4,y\n").unwrap();
        assert_eq!((trace.keys, trace.sizes), (vec![0, 1], Some(vec![3, 4])));
        assert!(
            parse(&asked, "len,path\n3,x\n")
                .unwrap_err()
                .contains("no key column \"URL\"")
        );
        let asked = Columns {
            key: Some(Column::At(4)),
            size: None,
        };
        assert!(parse(&asked, "1,2,3\n").unwrap_err().contains("no column 5"));
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
        fails("1,a,5\n2,\"b,5\",6", "a quote is not closed");
        fails("time,size\n1,2", "give --key-column");
        fails(
            "1,a,18446744073709551615,18446744073709551615,1,get,0",
            "over the limit",
        );
    }
}
