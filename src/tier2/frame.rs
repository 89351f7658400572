//! What lies in the server under a key: a head of 24 bytes, and behind it what a value needs.
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 2 | magic |
//! | 2 | 1 | version |
//! | 3 | 1 | [`Kind`] |
//! | 4 | 16 | [`Stamp`], unique for each frame that was ever written |
//! | 20 | 2 | flags of the caller (compressed, signed, ..) |
//! | 22 | 2 | 0 |
//! | 24 | 8 | soft end, milliseconds of server time |
//! | 32 | 4 | microseconds that the load took |
//! | 36 | 1 | codec of the caller |
//! | 37 | 1 | number of tags |
//! | 38 | 16 | generation of the namespace |
//! | 54 | | per tag: length, name, 16 bytes of generation; then the payload |
//!
//! Numbers are little endian. Leases and tombstones are the head alone, so a server that compares
//! whole values can compare leases. Anything else (foreign values, other versions, unknown flags)
//! is [`Parsed::Dead`]: a miss.

/// Length of the head.
pub const HEAD: usize = 24;
/// Offset of the soft end in a frame that has one.
pub const SOFT_END: usize = 24;
/// Most tags that a frame carries.
pub const MAX_TAGS: usize = 16;

const MAGIC: [u8; 2] = [0xF1, b'h'];
const VERSION: u8 = 1;
const GENERATION: usize = 38;
const TAGS: usize = 54;

/// A unique identifier: 64 bits drawn per process, and a counter.
pub type Stamp = [u8; 16];

/// What a frame stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A value.
    Value = 1,
    /// The source has no value for the key.
    Negative = 2,
    /// A load of the key is in progress, led by the process that drew the stamp.
    Lease = 3,
    /// The key was invalidated, and must not be filled while this stays.
    Tombstone = 4,
    /// The value is kept in tier 1 of each process alone: too large, or not encodable.
    Local = 5,
}

/// A frame with a body, as it was read. Borrows from the reply.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Value, Negative or Local.
    pub kind: Kind,
    /// The frame's stamp.
    pub stamp: Stamp,
    /// The caller's flags.
    pub flags: u16,
    /// When the value expires, milliseconds of server time.
    pub soft_end: u64,
    /// How long the load took.
    pub load_micros: u32,
    /// The caller's codec.
    pub codec: u8,
    /// The namespace's generation when the load began.
    pub generation: Stamp,
    /// The tags: see [`Frame::tags`].
    tags: &'a [u8],
    /// Where the payload begins.
    pub offset: usize,
}

/// What a reply holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A frame with a body.
    Frame(Frame<'a>),
    /// A load in progress.
    Lease(Stamp),
    /// No fills now.
    Tombstone,
    /// Malformed, foreign, or of another version.
    Dead,
}

impl<'a> Frame<'a> {
    /// Returns the tags with their generations when the load began.
    pub fn tags(&self) -> impl Iterator<Item = (&'a [u8], Stamp)> {
        let mut rest = self.tags;
        std::iter::from_fn(move || {
            let (name, stamp, behind) = split_tag(rest)?;
            rest = behind;
            Some((name, stamp))
        })
    }
}

/// Splits the first tag off; `None` at the end, or where the bytes are too few.
fn split_tag(bytes: &[u8]) -> Option<(&[u8], Stamp, &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(length.into())?;
    let (stamp, rest) = rest.split_first_chunk::<16>()?;
    Some((name, *stamp, rest))
}

/// Reads what lies under a key. Never panics, whatever the bytes.
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    parse_checked(bytes).unwrap_or(Parsed::Dead)
}

fn parse_checked(bytes: &[u8]) -> Option<Parsed<'_>> {
    let head = bytes.first_chunk::<HEAD>()?;
    if head[..2] != MAGIC || head[2] != VERSION || head[22..] != [0, 0] {
        return None;
    }
    let stamp: Stamp = *head[4..].first_chunk()?;
    let kind = match head[3] {
        1 => Kind::Value,
        2 => Kind::Negative,
        3 if bytes.len() == HEAD => return Some(Parsed::Lease(stamp)),
        4 if bytes.len() == HEAD => return Some(Parsed::Tombstone),
        5 => Kind::Local,
        _ => return None,
    };
    let count = *bytes.get(GENERATION - 1)?;
    if usize::from(count) > MAX_TAGS {
        return None;
    }
    let mut rest = bytes.get(TAGS..)?;
    for _ in 0..count {
        rest = split_tag(rest)?.2;
    }
    let offset = bytes.len() - rest.len();
    Some(Parsed::Frame(Frame {
        kind,
        stamp,
        flags: u16::from_le_bytes([head[20], head[21]]),
        soft_end: u64::from_le_bytes(*bytes[SOFT_END..].first_chunk()?),
        load_micros: u32::from_le_bytes(*bytes[32..].first_chunk()?),
        codec: bytes[36],
        generation: *bytes[GENERATION..].first_chunk()?,
        tags: &bytes[TAGS..offset],
        offset,
    }))
}

/// Returns a head.
pub(crate) fn head(kind: Kind, stamp: Stamp, flags: u16) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..2].copy_from_slice(&MAGIC);
    head[2] = VERSION;
    head[3] = kind as u8;
    head[4..20].copy_from_slice(&stamp);
    head[20..22].copy_from_slice(&flags.to_le_bytes());
    head
}

/// The fields of a frame with a body, without its tags and payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meta {
    pub(crate) kind: Kind,
    pub(crate) stamp: Stamp,
    pub(crate) flags: u16,
    pub(crate) soft_end: u64,
    pub(crate) load_micros: u32,
    pub(crate) codec: u8,
    pub(crate) generation: Stamp,
}

/// Returns a frame up to its payload. Of the tags, at most [`MAX_TAGS`] with names of at most 255
/// bytes are allowed.
pub(crate) fn encode<'a>(meta: &Meta, tags: impl ExactSizeIterator<Item = (&'a [u8], Stamp)>) -> Vec<u8> {
    let mut frame = Vec::with_capacity(TAGS + tags.len() * 48);
    frame.extend(head(meta.kind, meta.stamp, meta.flags));
    frame.extend(meta.soft_end.to_le_bytes());
    frame.extend(meta.load_micros.to_le_bytes());
    frame.push(meta.codec);
    frame.push(u8::try_from(tags.len()).expect("at most MAX_TAGS"));
    frame.extend(meta.generation);
    for (name, stamp) in tags {
        frame.push(u8::try_from(name.len()).expect("checked when the operation was made"));
        frame.extend(name);
        frame.extend(stamp);
    }
    frame
}

/// Returns what a conditional command compares: the head, or the whole of a shorter value.
pub(crate) fn fingerprint(bytes: &[u8]) -> Vec<u8> {
    bytes[..bytes.len().min(HEAD)].to_vec()
}
