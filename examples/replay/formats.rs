//! Readers of trace files. Files come from strangers: every line is bounded and checked, and an error names its place.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::csv::{Columns, CsvReader};
use crate::progress::Progress;
use crate::trace::{Recorder, Trace, integer, key_of};

/// A line longer than this is no trace's: without a bound, a small compressed file could unpack into one huge line.
const MAX_LINE: u64 = 64 << 10;
/// The most keys one line of an ARC trace may stand for.
const MAX_RUN: u64 = 1 << 20;

/// How a file writes its requests down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    U32,
    U64,
    Arc,
    Lirs,
    Text,
    Csv,
}

impl Format {
    /// Every format: its name, and the extension that stands for it where that is another.
    pub(crate) const ALL: [(&str, Option<&str>, Self); 6] = [
        ("u32", None, Self::U32),
        ("u64", None, Self::U64),
        ("arc", Some("lis"), Self::Arc),
        ("lirs", Some("trc"), Self::Lirs),
        ("text", Some("txt"), Self::Text),
        ("csv", None, Self::Csv),
    ];

    /// Returns the format with this name or extension.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let known = Self::ALL.iter().find(|known| known.0 == name || known.1 == Some(name));
        known.map(|known| known.2)
    }

    /// Returns the format of the file's extension, below `.gz` or `.zst`.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let stem = path.file_stem().map(Path::new);
        let inner = if Packing::of(path) == Packing::None {
            Some(path)
        } else {
            stem
        };
        Self::named(&inner?.extension()?.to_str()?.to_ascii_lowercase())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Packing {
    None,
    Gzip,
    Zstd,
}

impl Packing {
    /// Told by the name and not by the content, since raw keys may begin with any bytes.
    fn of(path: &Path) -> Self {
        match path
            .extension()
            .and_then(|e| e.to_str())
            .map(str::to_ascii_lowercase)
            .as_deref()
        {
            Some("gz") => Self::Gzip,
            Some("zst") => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Reads the trace at `path`, no more than `limit` requests of it. An error begins with the file and, for text, the line.
pub(crate) fn read(path: &Path, format: Format, columns: &Columns, limit: Option<usize>) -> Result<Trace, String> {
    let shown = path.display();
    let file = File::open(path).map_err(|e| format!("{shown}: {e}"))?;
    let info = file.metadata().map_err(|e| format!("{shown}: {e}"))?;
    if info.is_dir() {
        return Err(format!("{shown}: is a directory"));
    }
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let name: String = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let progress = Progress::new(format!("{name}: reading"), info.len());
    let file = Watched {
        inner: file,
        progress: &progress,
    };
    let mut input: Box<dyn BufRead> = match Packing::of(path) {
        Packing::None => Box::new(BufReader::with_capacity(1 << 16, file)),
        // "Multi": a gzip file may be several joined end to end.
        Packing::Gzip => Box::new(BufReader::with_capacity(
            1 << 16,
            flate2::read::MultiGzDecoder::new(file),
        )),
        Packing::Zstd => {
            let decoder = zstd::stream::read::Decoder::new(file).map_err(|e| format!("{shown}: {e}"))?;
            Box::new(BufReader::with_capacity(1 << 16, decoder))
        }
    };
    let mut recorder = Recorder::new(limit);
    match format {
        Format::U32 => raw::<4>(&mut input, &mut recorder, |b| u32::from_le_bytes(b).into()),
        Format::U64 => raw::<8>(&mut input, &mut recorder, u64::from_le_bytes),
        Format::Arc => lines(&mut input, &mut recorder, arc),
        Format::Lirs => lines(&mut input, &mut recorder, lirs),
        Format::Text => {
            let mut sized = None;
            lines(&mut input, &mut recorder, |line, recorder| {
                text(line, recorder, &mut sized)
            })
        }
        Format::Csv => {
            let mut csv = CsvReader::new(columns);
            lines(&mut input, &mut recorder, |line, recorder| csv.line(line, recorder))
        }
    }
    // `place` is ":LINE" for text and nothing for raw keys.
    .map_err(|(place, what)| format!("{shown}{place}: {what}"))?;
    recorder.finish(name).map_err(|what| format!("{shown}: {what}"))
}

/// Tells the progress how much of the file, as stored, has been read.
struct Watched<'a> {
    inner: File,
    progress: &'a Progress,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.progress.add(read as u64);
        Ok(read)
    }
}

/// A place inside a file, ready to be put behind its name, and what is wrong there.
type Fault = (String, String);

fn io_fault(error: &std::io::Error) -> String {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        return "the compressed data ends early (is the file truncated?)".to_owned();
    }
    format!("cannot be read: {error}")
}

/// Reads keys of `N` bytes.
fn raw<const N: usize>(
    input: &mut dyn BufRead,
    recorder: &mut Recorder,
    decode: impl Fn([u8; N]) -> u64,
) -> Result<(), Fault> {
    let mut bytes = [0; N];
    for at in 0u64.. {
        let mut filled = 0;
        // A short read is no end: only a read of nothing is.
        while filled < N {
            match input.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err((String::new(), io_fault(&e))),
            }
        }
        if filled == 0 || recorder.full() {
            break;
        }
        if filled < N {
            let what = format!("the length is no multiple of {N} bytes: {filled} left over after {at} keys");
            return Err((String::new(), what));
        }
        recorder
            .push(decode(bytes), None)
            .map_err(|what| (String::new(), what))?;
    }
    Ok(())
}

/// Hands every line that is not blank to `parse`, stripped of white space around it.
fn lines(
    input: &mut dyn BufRead,
    recorder: &mut Recorder,
    mut parse: impl FnMut(&[u8], &mut Recorder) -> Result<(), String>,
) -> Result<(), Fault> {
    let mut line = Vec::new();
    for number in 1u64.. {
        let fault = |what| (format!(":{number}"), what);
        line.clear();
        let mut bounded = (&mut *input).take(MAX_LINE);
        let read = bounded.read_until(b'\n', &mut line).map_err(|e| fault(io_fault(&e)))?;
        if read == 0 || recorder.full() {
            break;
        }
        if read as u64 == MAX_LINE && line.last() != Some(&b'\n') {
            return Err(fault(format!("the line is longer than {MAX_LINE} bytes")));
        }
        // Some editors put a byte order mark before the first line.
        let content = if number == 1 {
            line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line)
        } else {
            &line
        };
        let content = content.trim_ascii();
        if !content.is_empty() {
            parse(content, recorder).map_err(fault)?;
        }
    }
    Ok(())
}

/// What a stranger's bytes look like in a message: short, and harmless to the terminal.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(160)]);
    let short: String = text.chars().take(40).collect();
    format!(
        "\"{}{}\"",
        short.escape_debug(),
        if short.len() < bytes.len() { "..." } else { "" }
    )
}

fn number(field: &[u8], what: &str) -> Result<u64, String> {
    integer(field).ok_or_else(|| format!("{what} is not a whole number: {}", quoted(field)))
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// ARC: "start count ignored request-number", for `count` keys from `start` on.
fn arc(line: &[u8], recorder: &mut Recorder) -> Result<(), String> {
    let mut fields = [0; 4];
    let mut found = 0;
    for word in words(line) {
        let name = ["the start", "the count", "the third field", "the request number"];
        if let Some(field) = fields.get_mut(found) {
            *field = number(word, name[found])?;
        }
        found += 1;
    }
    if found != 4 {
        return Err(format!(
            "expected 4 fields (start, count, ignored, request number), found {found}: {}",
            quoted(line)
        ));
    }
    let [start, count, ..] = fields;
    if count > MAX_RUN {
        return Err(format!("a count of {count} is over the limit of {MAX_RUN}"));
    }
    let end = start
        .checked_add(count)
        .ok_or_else(|| format!("{count} keys from {start} on leave 64 bits"))?;
    (start..end).try_for_each(|key| recorder.push(key, None))
}

/// LIRS: one block number per line; lines of '*' only part the trace's phases.
fn lirs(line: &[u8], recorder: &mut Recorder) -> Result<(), String> {
    if line.starts_with(b"*") {
        return Ok(());
    }
    recorder.push(number(line, "the block")?, None)
}

/// Plain text: a key per line, or a key and a size; `sized` remembers which the first line chose.
fn text(line: &[u8], recorder: &mut Recorder, sized: &mut Option<bool>) -> Result<(), String> {
    let mut fields = words(line);
    let key = fields.next().unwrap_or_default();
    let size = fields.next();
    if fields.next().is_some() {
        return Err(format!("expected KEY or KEY SIZE, found more: {}", quoted(line)));
    }
    if *sized.get_or_insert(size.is_some()) != size.is_some() {
        let what = if size.is_some() {
            "a size, but the first line has none"
        } else {
            "no size, but the first line has one"
        };
        return Err(format!("{what}: {}", quoted(line)));
    }
    let size = size.map(|field| number(field, "the size")).transpose()?;
    recorder.push(key_of(key), size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::Xoshiro256PlusPlus;
    use rand::{RngExt, SeedableRng};
    use std::io::Write;
    use std::path::PathBuf;

    /// A file of its own for each test, removed at the end.
    struct Sample(PathBuf);

    impl Sample {
        fn new(name: &str, content: &[u8]) -> Self {
            use std::sync::atomic::{AtomicU32, Ordering};
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let unique = format!(
                "hotset-replay-{}-{}",
                std::process::id(),
                COUNT.fetch_add(1, Ordering::Relaxed)
            );
            let folder = std::env::temp_dir().join(unique);
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join(name), content).unwrap();
            Self(folder.join(name))
        }

        fn read_limited(&self, limit: Option<usize>) -> Result<Trace, String> {
            read(&self.0, Format::of(&self.0).unwrap(), &Columns::default(), limit)
        }
    }

    impl Drop for Sample {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
        }
    }

    fn keys(name: &str, content: &[u8]) -> Vec<u32> {
        Sample::new(name, content).read_limited(None).unwrap().keys
    }

    /// The error, without the folder before the file's name.
    fn error(name: &str, content: &[u8]) -> String {
        let sample = Sample::new(name, content);
        let error = sample.read_limited(None).unwrap_err();
        let folder = format!("{}{}", sample.0.parent().unwrap().display(), std::path::MAIN_SEPARATOR);
        error
            .strip_prefix(&folder)
            .unwrap_or_else(|| panic!("no file in {error}"))
            .to_owned()
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(3);
        (0..len).map(|_| random.random()).collect()
    }

    #[test]
    fn raw_keys() {
        let small: Vec<u8> = [7u32, 9, 7].iter().flat_map(|k| k.to_le_bytes()).collect();
        assert_eq!(keys("a.u32", &small), [0, 1, 0]);
        let large: Vec<u8> = [7u64, 7 + (1 << 32), 7].iter().flat_map(|k| k.to_le_bytes()).collect();
        assert_eq!(keys("a.u64", &large), [0, 1, 0]);
        assert_eq!(keys("a.u64.gz", &gzip(&large)), [0, 1, 0]);
        assert_eq!(keys("a.U64.zst", &zstd::encode_all(&large[..], 1).unwrap()), [0, 1, 0]);
    }

    #[test]
    fn raw_keys_cut_short() {
        assert_eq!(
            error("a.u32", &[0; 11]),
            "a.u32: the length is no multiple of 4 bytes: 3 left over after 2 keys"
        );
        assert!(error("a.u64", &[0; 12]).contains("multiple of 8"));
        assert_eq!(error("a.u32", &[]), "a.u32: holds no requests");
    }

    #[test]
    fn arc_lines_are_runs_of_keys() {
        assert_eq!(
            keys("a.lis", b"10 3 0 1\n11 1 0 2\r\n\n5 0 0 3\n10 1 0 4"),
            [0, 1, 2, 1, 0]
        );
        assert_eq!(
            error("a.lis", b"1 1 0 1\n1 x 0 2\n"),
            "a.lis:2: the count is not a whole number: \"x\""
        );
        assert!(error("a.lis", b"1 1 0\n").starts_with("a.lis:1: expected 4 fields"));
        assert!(error("a.lis", b"1 1 0 1 1\n").contains("found 5"));
        assert!(error("a.lis", b"0 99999999999 0 1\n").contains("over the limit"));
        assert!(error("a.lis", b"18446744073709551615 2 0 1\n").contains("leave 64 bits"));
        assert!(error("a.lis", b"18446744073709551616 2 0 1\n").contains("not a whole number"));
    }

    #[test]
    fn lirs_lines_are_blocks() {
        assert_eq!(keys("a.trc", b"4\n*\n5 \n4\n"), [0, 1, 0]);
        assert_eq!(
            error("a.trc", b"4\n*\n-5\n"),
            "a.trc:3: the block is not a whole number: \"-5\""
        );
        assert_eq!(error("a.trc", b"*\n"), "a.trc: holds no requests");
    }

    #[test]
    fn text_lines_are_keys_with_or_without_sizes() {
        assert_eq!(
            keys("a.txt", b"\xef\xbb\xbfalpha\nbeta\nalpha\n7\n\xff\xfe\n"),
            [0, 1, 0, 2, 3]
        );
        let sized = Sample::new("a.txt", b"a 10\nb 0\na 12\n").read_limited(None).unwrap();
        assert_eq!(sized.sizes, Some(vec![10, 1, 12]));
        assert_eq!(sized.smallest_sizes(), Some(vec![10, 1]));
        assert_eq!(
            error("a.txt", b"a\nb 3\n"),
            "a.txt:2: a size, but the first line has none: \"b 3\""
        );
        assert!(error("a.txt", b"a 3\nb\n").starts_with("a.txt:2: no size"));
        assert!(error("a.txt", b"a 3 4\n").starts_with("a.txt:1: expected KEY"));
        assert!(error("a.txt", b"a 1.5\n").contains("the size is not a whole number"));
        assert!(error("a.txt", b"a 99999999999999\n").starts_with("a.txt:1: a size of"));
    }

    #[test]
    fn csv_by_its_columns() {
        let trace = Sample::new("a.csv", b"1,k,5\n2,j,6\n3,k,5\n")
            .read_limited(None)
            .unwrap();
        assert_eq!((trace.keys, trace.sizes), (vec![0, 1, 0], Some(vec![5, 6, 5])));
        assert_eq!(
            error("a.csv", b"1,k,5\n2,j\n"),
            "a.csv:2: expected 3 columns, found 2: \"2,j\""
        );
    }

    #[test]
    fn compressed_data_cut_short_or_damaged() {
        let plain = noise(1 << 16);
        for cut in [5, 30_000] {
            let mut packed = gzip(&plain);
            packed.truncate(packed.len() - cut);
            assert!(error("a.u32.gz", &packed).contains("ends early"));
            let mut packed = zstd::encode_all(&plain[..], 1).unwrap();
            packed.truncate(packed.len() - cut);
            assert!(error("a.u32.zst", &packed).starts_with("a.u32.zst: "));
        }
        let mut packed = gzip(b"1\n2\n3\n");
        packed.truncate(packed.len() - 8);
        assert!(error("a.trc.gz", &packed).contains("ends early"));
        let mut packed = gzip(&plain);
        let middle = packed.len() / 2;
        packed[middle] ^= 0x55;
        assert!(error("a.u32.gz", &packed).starts_with("a.u32.gz: "));
        assert!(error("a.txt.gz", b"not gzip at all").starts_with("a.txt.gz:1: cannot be read"));
        assert!(error("a.txt.zst", b"not zstd at all").starts_with("a.txt.zst:1: cannot be read"));
        assert!(error("a.txt.gz", b"").starts_with("a.txt.gz"));
    }

    #[test]
    fn joined_members_are_one_file() {
        let packed = [gzip(b"1\n2\n"), gzip(b"1\n")].concat();
        assert_eq!(keys("a.trc.gz", &packed), [0, 1, 0]);
        let packed = [
            zstd::encode_all(&b"1\n2\n"[..], 1).unwrap(),
            zstd::encode_all(&b"1\n"[..], 1).unwrap(),
        ]
        .concat();
        assert_eq!(keys("a.trc.zst", &packed), [0, 1, 0]);
    }

    #[test]
    fn a_bomb_of_one_line_is_stopped() {
        let bomb = gzip(&vec![b'a'; 8 << 20]);
        assert!(bomb.len() < 64 << 10);
        assert_eq!(
            error("a.txt.gz", &bomb),
            "a.txt.gz:1: the line is longer than 65536 bytes"
        );
    }

    #[test]
    fn the_limit_spares_the_rest() {
        let sample = Sample::new("a.lis", b"0 1000000 0 1\nbroken\n");
        assert_eq!(sample.read_limited(Some(3)).unwrap().keys, [0, 1, 2]);
    }

    #[test]
    fn noise_is_an_error_and_never_a_panic() {
        let noise = noise(1 << 14);
        for name in ["a.lis", "a.trc", "a.csv.gz", "a.csv.zst"] {
            assert!(!error(name, &noise).is_empty());
        }
        // Text takes any bytes for keys, and CSV of noise has no second column.
        let _ = Sample::new("a.txt", &noise).read_limited(None);
        let _ = Sample::new("a.csv", &noise).read_limited(None);
    }

    #[test]
    fn strange_bytes_are_shown_harmlessly() {
        assert_eq!(quoted(b"\x1b[2Jx"), r#""\u{1b}[2Jx""#);
        assert!(quoted(&[b'a'; 1_000]).ends_with("...\""));
    }
}
