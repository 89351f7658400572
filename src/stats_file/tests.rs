//! The format by itself: what is written is read, and no bytes make the reader panic.

use super::format::{
    self, Counter, Defect, Header, Language, RECORD, Record, SLOT_HEADER, Sample, SlotHeader, UNKNOWN,
};
use super::{Answer, parse};
use proptest::prelude::*;
use std::path::Path;
use std::time::Duration;

fn header() -> Header {
    Header {
        language: Language::C,
        pid: 7,
        start: 8,
        created: 9,
        namespace: 10,
        descriptor: 11,
        parent: 12,
        uid: 13,
        program: "server".to_owned(),
    }
}

fn record(id: u64) -> Record {
    let mut record = Record {
        id,
        weighted: true,
        capacity: 100,
        weight: 90,
        entries: 9,
        tier2: Some([1, 2, 3, 4, 5, UNKNOWN, UNKNOWN, UNKNOWN]),
        bucket_count: 2,
        ..Record::default()
    };
    record.counters = [0; format::COUNTERS].map(|_| id);
    record.counters[Counter::StaleHits as usize] = UNKNOWN;
    record.buckets.0[..2].copy_from_slice(&[1000, UNKNOWN]);
    record.buckets.1[..2].copy_from_slice(&[3, 4]);
    record.set_curve([(200, 0.5, 4096), (400, f64::NAN, 0)]);
    record
}

fn slot(sequence: u64, names: &[&str]) -> Vec<u8> {
    let mut bytes = vec![0; SLOT_HEADER + names.len() * RECORD];
    for (number, name) in names.iter().enumerate() {
        let at = SLOT_HEADER + number * RECORD;
        let sample = Sample {
            millis: 1000,
            hits: 3,
            misses: 1,
        };
        record(number as u64 + 1).encode(name, [sample].into_iter(), &mut bytes[at..at + RECORD]);
    }
    let header = SlotHeader {
        sequence,
        monotonic: 5_000_000_000,
        answered: 77,
        answer: 1,
        ..SlotHeader::default()
    };
    format::seal_slot(&mut bytes, &header);
    bytes
}

/// A file with a slot of each sequence.
fn file(slots: &[(u64, &[&str])]) -> Vec<u8> {
    let mut bytes = header().encode();
    for (sequence, names) in slots {
        let (at, slot) = (format::slot_offset(*sequence) as usize, slot(*sequence, names));
        bytes.resize(bytes.len().max(at + slot.len()), 0);
        bytes[at..at + slot.len()].copy_from_slice(&slot);
    }
    bytes
}

#[test]
fn written_file_is_read() {
    let read = parse(Path::new("a"), &file(&[(1, &["old"]), (2, &["users", "pages"])])).unwrap();
    assert_eq!((read.language, read.pid, read.parent), (Language::C, 7, 12));
    assert_eq!((read.program.as_str(), read.sequence), ("server", 2));
    assert_eq!(read.monotonic, Duration::from_secs(5));
    assert_eq!(read.answered, Some((77, Answer::Done)));
    let names: Vec<_> = read.caches.iter().map(|cache| cache.name.as_str()).collect();
    assert_eq!(names, ["users", "pages"]);
    let pages = &read.caches[1];
    assert_eq!((pages.id, pages.stats.hits, pages.stats.stale_hits), (2, 2, 0));
    assert_eq!((pages.capacity, pages.weight, pages.entries), (Some(100), 90, 9));
    assert_eq!(
        pages.load_buckets,
        [(Duration::from_nanos(1000), 3), (Duration::MAX, 4)]
    );
    assert_eq!(pages.curve.len(), 1, "a ratio that is none is left out");
    assert_eq!((pages.curve[0].capacity, pages.curve[0].hit_ratio), (200, 0.5));
    assert_eq!((pages.samples[0].hits, pages.samples[0].misses), (3, 1));
}

#[test]
fn torn_slot_leaves_the_previous_one() {
    let whole = file(&[(1, &["old"]), (2, &["new"])]);
    let at = format::slot_offset(2) as usize;
    for torn in [0, 4, SLOT_HEADER + 1, SLOT_HEADER + RECORD - 1] {
        let mut bytes = whole.clone();
        bytes[at + torn] ^= 1;
        let read = parse(Path::new("a"), &bytes).unwrap();
        assert_eq!((read.sequence, read.caches[0].name.as_str()), (1, "old"));
    }
    let before = parse(Path::new("a"), &whole[..at + 100]).map(|read| read.sequence);
    assert!(before.is_err(), "slot 0 lies first, and slot 1 is missing");
}

#[test]
fn long_name_is_cut_at_a_character() {
    let name = "é".repeat(200);
    let read = parse(Path::new("a"), &file(&[(1, &[&name])])).unwrap();
    assert_eq!((read.caches[0].name.len(), read.caches[0].is_name_cut), (256, true));
}

#[test]
fn other_files_are_refused_with_a_reason() {
    let text = |bytes: &[u8]| parse(Path::new("a"), bytes).unwrap_err().to_string();
    assert!(text(b"").contains("is not a stats file"));
    assert!(text(b"HOTSTAT\0").contains("is corrupt"));
    assert!(text(&header().encode()).contains("is corrupt"), "no slot");
    let mut newer = file(&[(1, &[])]);
    newer[8] = 2;
    assert!(text(&newer).contains("version 2"));
    let mut other = file(&[(1, &[])]);
    other[40] ^= 1;
    assert_eq!(format::decode_header(&other), Err(Defect::Corrupt));
}

/// Makes the checksums of a file right again, as an attacker would.
fn repair(bytes: &mut [u8]) {
    if bytes.len() < format::HEADER {
        return;
    }
    let sum = crc32fast::hash(&bytes[..508]);
    bytes[508..512].copy_from_slice(&sum.to_le_bytes());
    for at in [format::HEADER, format::HEADER + format::SLOT] {
        if bytes.len() < at + SLOT_HEADER {
            return;
        }
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        if (8..=bytes.len() - at).contains(&length) {
            let sum = crc32fast::hash(&bytes[at + 4..at + length]);
            bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn hostile_bytes_never_panic(
        changes in prop::collection::vec((0..format::HEADER + SLOT_HEADER + 2 * RECORD, any::<u8>()), 0..8),
        words in prop::collection::vec((0..(SLOT_HEADER + RECORD) / 4, any::<u32>()), 0..4),
        length in 0..format::HEADER + format::SLOT + SLOT_HEADER + RECORD,
        cut in any::<bool>(),
    ) {
        let mut bytes = file(&[(2, &["a", "b"]), (1, &["c"])]);
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        for (at, word) in words {
            let at = format::HEADER + 4 * at;
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        if cut {
            bytes.truncate(length);
        }
        repair(&mut bytes);
        _ = parse(Path::new("a"), &bytes);
    }
}
