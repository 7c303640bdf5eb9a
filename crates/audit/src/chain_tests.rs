use machineid_protocol::event::AuthorityUp;
use proptest::prelude::*;

use super::*;
use crate::verify::{AuditVerdict, verify, verify_by};

fn line_of(mark: u8, torn: &[Hash], prev: Hash) -> String {
    let what = Happening::AuthorityUp(AuthorityUp { url: format!("http://{mark}/\u{e9}\n\"") });
    let caller = Caller { pid: None, uid: 7, exe: None };
    let entry = match mark % 4 {
        0 => ChainedEntry::Opened { keyed: false },
        1 => ChainedEntry::Gap { lost: u64::from(mark), reason: "the disk is full" },
        _ => ChainedEntry::Happened(&what, Some(&caller)),
    };
    line("2026-11-24T00:00:00Z", entry, torn, prev)
}

/// A file as written by a daemon that is killed in the middle of every line whose mark is a multiple of 7.
fn file(marks: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    for mark in marks {
        let tail = Tail::of(&file, &Chain::default()).unwrap();
        let prev = tail.last.unwrap_or(Hash::NOTHING);
        let line = line_of(if tail.torn.is_empty() { *mark } else { 0 }, &tail.torn, prev);
        if tail.open {
            file.push(b'\n');
        }
        // The first record is whole: before it there is no chain to continue.
        if mark % 7 == 0 && tail.last.is_some() {
            file.extend_from_slice(&line.as_bytes()[..=usize::from(*mark) % (line.len() - 1)]);
        } else {
            file.extend_from_slice(line.as_bytes());
            file.push(b'\n');
        }
    }
    file
}

/// A file that ends with a whole record.
fn whole(marks: &[u8]) -> Vec<u8> {
    file(&[marks, &[1]].concat())
}

fn lines(file: &[u8]) -> Vec<Vec<u8>> {
    file.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

fn is_sound(verdict: &AuditVerdict) -> bool {
    verdict.findings.is_empty()
}

proptest! {
    #[test]
    fn what_a_daemon_writes_is_sound_wherever_it_was_killed(marks in proptest::collection::vec(0_u8.., 0..12)) {
        let file = whole(&marks);
        let last = Tail::of(&file, &Chain::default()).unwrap().last;
        let verdict = verify(&file, last);
        prop_assert!(is_sound(&verdict), "{verdict:?}\n{}", String::from_utf8_lossy(&file));
        prop_assert_eq!((verdict.last, verdict.follows), (last, None));
    }

    #[test]
    fn any_changed_byte_is_found(marks in proptest::collection::vec(0_u8.., 0..6), at in 0_usize.., to in 0_u8..) {
        let mut file = whole(&marks);
        let expect = Tail::of(&file, &Chain::default()).unwrap().last;
        let at = at % file.len();
        prop_assume!(file[at] != to);
        file[at] = to;
        // Without its last newline the last record still has all its content.
        prop_assume!(at + 1 != file.len());
        prop_assert!(!is_sound(&verify(&file, expect)), "at {at}: {}", String::from_utf8_lossy(&file));
    }

    #[test]
    fn a_removed_repeated_or_exchanged_line_is_found(
        marks in proptest::collection::vec(0_u8.., 2..10), at in 0_usize.., other in 0_usize..,
    ) {
        let file = whole(&marks);
        let expect = Tail::of(&file, &Chain::default()).unwrap().last;
        let lines = lines(&file);
        let (at, other) = (at % lines.len(), other % lines.len());
        // The first ones may be cut off: then the file says that it continues another, which the next test is about.
        if at > 0 {
            let mut removed = lines.clone();
            removed.remove(at);
            prop_assert!(!is_sound(&verify(&removed.concat(), expect)), "removed {at}");
        }
        let mut repeated = lines.clone();
        repeated.insert(at, lines[at].clone());
        prop_assert!(!is_sound(&verify(&repeated.concat(), expect)), "repeated {at}");
        if lines[at] != lines[other] {
            let mut exchanged = lines.clone();
            exchanged.swap(at, other);
            prop_assert!(!is_sound(&verify(&exchanged.concat(), expect)), "exchanged {at} and {other}");
        }
    }

    #[test]
    fn a_file_that_was_cut_shows_against_its_last_hash(marks in proptest::collection::vec(0_u8.., 0..8), at in 0_usize..) {
        let file = whole(&marks);
        let expect = Tail::of(&file, &Chain::default()).unwrap().last;
        let kept = at % (file.len() - 1);
        prop_assert!(!is_sound(&verify(&file[..kept], expect)), "kept {kept} of {}", file.len());
    }

    #[test]
    fn the_rest_of_a_file_says_that_it_continues_another(marks in proptest::collection::vec(1_u8..6, 2..8), at in 1_usize..) {
        let file = whole(&marks);
        let lines = lines(&file);
        let at = 1 + at % (lines.len() - 1);
        let verdict = verify(&lines[at..].concat(), None);
        prop_assert!(is_sound(&verdict));
        let before = &lines[at - 1];
        prop_assert_eq!(verdict.follows, Some(Chain::default().hash(&before[..before.len() - 1])));
    }
}

#[test]
fn what_is_no_audit_file_is_not_gone_on_with() {
    for foreign in ["hello\n", "hello", "{}\n", "{\"time\":\"\",\"event\":\"x\",\"prev\":\"0\"}\n", "\n"] {
        assert_eq!(Tail::of(foreign.as_bytes(), &Chain::default()), Err(NoAuditFile), "{foreign:?}");
    }
    assert_eq!(Tail::of(b"", &Chain::default()), Ok(Tail::default()));
}

#[test]
fn a_torn_line_is_declared_by_nothing_but_the_writers_own_records() {
    let first = line_of(0, &[], Hash::NOTHING);
    let torn = "{\"time\"";
    let prev = Chain::default().hash(first.as_bytes());
    let declared = line_of(2, &[Chain::default().hash(torn.as_bytes())], prev);
    let text = format!("{first}\n{torn}\n{declared}\n");
    assert_eq!(verify(text.as_bytes(), None).findings.len(), 1);
    let unfinished = verify(format!("{first}\n{torn}").as_bytes(), None);
    assert!(unfinished.findings[0].problem.contains("not complete"), "{unfinished:?}");
}

#[test]
fn every_record_names_time_event_device_and_caller() {
    let text = line_of(2, &[], Hash::NOTHING);
    let expected = "{\"time\":\"2026-11-24T00:00:00Z\",\"event\":\"authority-up\",\"device_id\":null,\"code\":null,\
                    \"request_id\":null,\"caller\":{\"exe\":null,\"pid\":null,\"uid\":7},\
                    \"url\":\"http://2/\u{e9}\\n\\\"\",\"prev\":\"";
    assert_eq!(text, format!("{expected}{}\"}}", "0".repeat(64)));
}

/// A file of three records, written with this key.
fn keyed(chain: &Chain) -> Vec<u8> {
    let mut file = Vec::new();
    for _ in 0..3 {
        let prev = Tail::of(&file, chain).unwrap().last.unwrap_or(Hash::NOTHING);
        let line = line("2026-11-24T00:00:00Z", ChainedEntry::Opened { keyed: chain.is_keyed() }, &[], prev);
        file.extend_from_slice(line.as_bytes());
        file.push(b'\n');
    }
    file
}

#[test]
fn a_chain_that_was_made_without_the_key_is_found() {
    let chain = |key: u8| Chain::keyed(&[key; 32]).unwrap();
    let file = keyed(&chain(b'a'));
    assert!(is_sound(&verify_by(&chain(b'a'), &file, None)));
    let with_another = verify_by(&chain(b'b'), &file, None);
    assert_eq!(with_another.findings.len(), 2, "each record that follows another: {with_another:?}");
    let without = verify(&file, None);
    assert!(without.findings.len() == 1 && without.findings[0].problem.contains("--key-file"), "{without:?}");
    // Rewritten by a program that can write the file and has no key.
    let forged = verify_by(&chain(b'a'), &keyed(&Chain::default()), None);
    assert!(forged.findings.iter().any(|found| found.problem.contains("no key")), "{forged:?}");
    let lying = String::from_utf8(keyed(&Chain::default())).unwrap().replace("\"pid\"", "\"keyed\":true,\"pid\"");
    assert!(!is_sound(&verify_by(&chain(b'a'), lying.as_bytes(), None)));
}
