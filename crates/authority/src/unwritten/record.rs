//! A stop as bytes of the reserve file.
//!
//! ```text
//!   header   magic (16) · generation (8) · digest (8) · first record (8) · digest (8)
//!   record   state (1) · generation (8) · length (4) · digest (8) · JSON
//! ```
//!
//! Records follow each other without a gap. A record counts when its generation is that of the header and its digest is
//! right: the first one for which that does not hold is the end, so that neither half a record of a crash nor what an
//! earlier generation left behind is ever read as a stop. A header without the last two fields, zeros in their place, is one
//! whose records begin right behind it.

use sha2::{Digest, Sha256};

use super::stop::UnwrittenStop;

/// The size of the header, a block of its own: a record that is written never tears it.
pub(super) const HEADER: usize = 4096;

const MAGIC: &[u8; 16] = b"machineid stops\n";
/// The bytes of a record before its JSON.
const HEAD: usize = 1 + 8 + 4 + 8;
const WAITING: u8 = b'w';
/// The state of a record whose stop is in the database.
pub(super) const DONE: u8 = b'd';

/// The file is not one of these, or its header is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotAHeader;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordPlace {
    pub(super) offset: u64,
    /// In bytes.
    pub(super) length: u64,
}

/// The stops of a file's content.
#[derive(Debug)]
pub(super) struct RecordedStops {
    pub(super) generation: u64,
    /// The offset of the first record.
    pub(super) start: u64,
    /// The stops that wait, with the places of their records.
    pub(super) waiting: Vec<(RecordPlace, UnwrittenStop)>,
    /// The number of records, also of those that are done.
    pub(super) records: usize,
    /// The offset behind the last record.
    pub(super) end: u64,
}

fn digest(parts: &[&[u8]]) -> [u8; 8] {
    let whole = parts.iter().fold(Sha256::new(), Digest::chain_update).finalize();
    let mut short = [0; 8];
    short.copy_from_slice(&whole[..8]);
    short
}

/// The header of a generation whose records begin at this offset.
pub(super) fn header(generation: u64, start: u64) -> Vec<u8> {
    let (number, start) = (generation.to_le_bytes(), start.to_le_bytes());
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&number);
    header.extend_from_slice(&digest(&[MAGIC, &number]));
    header.extend_from_slice(&start);
    header.extend_from_slice(&digest(&[MAGIC, &number, &start]));
    header
}

/// The record of a stop.
pub(super) fn record(generation: u64, stop: &UnwrittenStop) -> Result<Vec<u8>, serde_json::Error> {
    Ok(of_json(generation, &serde_json::to_vec(stop)?))
}

/// The same record, in another generation. `None` for bytes that are none.
pub(super) fn again(generation: u64, record: &[u8]) -> Option<Vec<u8>> {
    record.get(HEAD..).map(|json| of_json(generation, json))
}

fn of_json(generation: u64, json: &[u8]) -> Vec<u8> {
    let (number, length) = (generation.to_le_bytes(), u32::try_from(json.len()).unwrap_or(u32::MAX).to_le_bytes());
    let mut record = vec![WAITING];
    record.extend_from_slice(&number);
    record.extend_from_slice(&length);
    record.extend_from_slice(&digest(&[&number, &length, json]));
    record.extend_from_slice(json);
    record
}

/// Reads a file. `Ok(None)` for one that was allocated and has no header yet.
///
/// A record that is whole and cannot be decoded fails too: a newer version may have written it, and a revoke must not be
/// passed over.
pub(super) fn read(bytes: &[u8]) -> Result<Option<RecordedStops>, NotAHeader> {
    let head = bytes.get(..header(0, 0).len()).ok_or(NotAHeader)?;
    if head.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let (magic, rest) = head.split_at(MAGIC.len());
    let (number, rest) = rest.split_at(8);
    let (sum, rest) = rest.split_at(8);
    if magic != MAGIC || sum != digest(&[MAGIC, number]) {
        return Err(NotAHeader);
    }
    let generation = u64::from_le_bytes(number.try_into().map_err(|_| NotAHeader)?);
    let (first, sum) = rest.split_at(8);
    let start = if rest.iter().all(|byte| *byte == 0) {
        HEADER as u64
    } else if sum == digest(&[MAGIC, number, first]) {
        u64::from_le_bytes(first.try_into().map_err(|_| NotAHeader)?)
    } else {
        return Err(NotAHeader);
    };
    let mut at = usize::try_from(start).ok().filter(|start| *start >= HEADER).ok_or(NotAHeader)?;
    let mut content = RecordedStops { generation, start, waiting: Vec::new(), records: 0, end: start };
    while let Some((state, json)) = record_at(bytes, at, generation) {
        if state != DONE {
            let stop = serde_json::from_slice(json).map_err(|_| NotAHeader)?;
            let length = (HEAD + json.len()) as u64;
            content.waiting.push((RecordPlace { offset: at as u64, length }, stop));
        }
        at += HEAD + json.len();
        content.records += 1;
        content.end = at as u64;
    }
    Ok(Some(content))
}

/// The content of a file, tried with any bytes (`crate::fuzzing`): a file of one block header and these bytes, and these
/// bytes alone.
pub(crate) fn fuzz(data: &[u8]) {
    let mut file = header(1, HEADER as u64);
    file.resize(HEADER, 0);
    file.extend_from_slice(data);
    for bytes in [data, &file[..]] {
        if let Ok(Some(content)) = read(bytes) {
            assert!(content.end <= bytes.len().max(HEADER) as u64 || content.records == 0);
            assert!(content.waiting.len() <= content.records);
            for (place, stop) in &content.waiting {
                assert!((HEADER as u64..content.end).contains(&place.offset), "{stop:?}");
                let again = record(content.generation, stop).expect("what was read can be written");
                let mut file = header(content.generation, HEADER as u64);
                file.resize(HEADER, 0);
                file.extend_from_slice(&again);
                let read = read(&file).expect("a file").expect("a header");
                assert_eq!((read.waiting.len(), read.end), (1, file.len() as u64), "{stop:?}");
            }
        }
    }
}

/// The state and the JSON of the record at this offset, if it is a whole one of this generation.
fn record_at(bytes: &[u8], at: usize, generation: u64) -> Option<(u8, &[u8])> {
    let record = bytes.get(at..)?;
    let (state, rest) = record.split_first()?;
    let (number, rest) = rest.split_at_checked(8)?;
    let (length, rest) = rest.split_at_checked(4)?;
    let (sum, rest) = rest.split_at_checked(8)?;
    let size = usize::try_from(u32::from_le_bytes(length.try_into().ok()?)).ok()?;
    let json = rest.get(..size)?;
    let whole = number == generation.to_le_bytes()
        && matches!(*state, WAITING | DONE)
        && sum == digest(&[number, length, json]);
    whole.then_some((*state, json))
}
