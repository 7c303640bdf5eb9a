//! Verifies that an audit file is as it was written. Pure: takes lines, returns findings.

use super::chain::{AuditRecord, Hash, LONGEST_LINE};
use super::key::Chain;

/// One problem of an audit file, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditFinding {
    /// The line, counted from 1; 0 stands for the file as a whole.
    pub line: u64,
    /// The problem, as text.
    pub problem: String,
}

/// The result for a whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditVerdict {
    /// The number of records.
    pub records: u64,
    /// The hash of the record before the file's first one; `None` when that is the first of all, or the file is empty.
    pub follows: Option<Hash>,
    /// The hash of the last record.
    pub last: Option<Hash>,
    /// How often the file itself declares lost records.
    pub gaps: u64,
    /// The number of records that it declares lost.
    pub lost: u64,
    /// The number of torn lines that it declares.
    pub torn: u64,
    /// The problems of the file.
    pub findings: Vec<AuditFinding>,
}

/// The most findings that are kept: more of them would say nothing new.
const MOST_FINDINGS: usize = 100;

/// Verifies a file line by line.
#[derive(Debug, Default)]
pub struct Verifier {
    chain: Chain,
    /// Whether the file says that it was written with a key where none was given, or without one where one was.
    other_chain: bool,
    verdict: AuditVerdict,
    line: u64,
    /// Lines that are no records, which the next record must declare.
    undeclared: Vec<(u64, Hash)>,
    /// Whether the newest line is no record and has no newline.
    unfinished: bool,
}

impl Verifier {
    /// A verifier for files whose records are hashed like this.
    #[must_use]
    pub fn of(chain: Chain) -> Self {
        Self { chain, ..Self::default() }
    }

    /// Takes the next line, without its newline. `ended`: whether it had one.
    pub fn take(&mut self, line: &[u8], ended: bool) {
        self.line += 1;
        let record = if line.len() > LONGEST_LINE { None } else { AuditRecord::read(line) };
        let Some(record) = record else {
            self.undeclared.push((self.line, self.chain.hash(line)));
            self.unfinished = !ended;
            return;
        };
        if record.keyed.is_some_and(|keyed| keyed != self.chain.is_keyed())
            && !std::mem::replace(&mut self.other_chain, true)
        {
            let problem = if self.chain.is_keyed() {
                "the daemon had no key from here on: what follows could have been forged. Move the file away when you set a key"
            } else {
                "the records from here on have a key: verify the file with --key-file"
            };
            self.find(self.line, problem);
        }
        let undeclared = std::mem::take(&mut self.undeclared);
        let found: Vec<Hash> = undeclared.iter().map(|(_, hash)| *hash).collect();
        if found == record.torn || (self.other_chain && found.len() == record.torn.len()) {
            self.verdict.torn += found.len() as u64;
        } else if let Some((at, _)) = undeclared.first() {
            self.find(*at, "it is not an audit record, and the record after it does not declare it as torn");
        } else {
            self.find(self.line, "it declares a torn line before it, and there is none: lines were removed here");
        }
        match self.verdict.last {
            None if self.verdict.records == 0 => {
                self.verdict.follows = Some(record.prev).filter(|prev| *prev != Hash::NOTHING);
            }
            Some(last) if last == record.prev => {}
            // Its hashes cannot be judged, which was said.
            Some(_) if self.other_chain => {}
            Some(_) | None => self.find(
                self.line,
                "it does not follow the record before it: something was changed, removed, inserted or reordered between \
                 them",
            ),
        }
        if record.lost > 0 {
            self.verdict.gaps += 1;
            self.verdict.lost += record.lost;
        }
        self.verdict.records += 1;
        self.verdict.last = Some(self.chain.hash(line));
    }

    /// Takes the end of the file. `expect`: the hash that its last record must have.
    #[must_use]
    pub fn end(mut self, expect: Option<Hash>) -> AuditVerdict {
        let undeclared = std::mem::take(&mut self.undeclared);
        if let Some((at, _)) = undeclared.first() {
            let problem = if self.unfinished && undeclared.len() == 1 {
                "it is not complete: the daemon was killed while it wrote it and has not been started again since, or the \
                 file was cut"
            } else {
                "it is not an audit record, and no record declares it as torn"
            };
            self.find(*at, problem);
        }
        if let Some(expect) = expect
            && self.verdict.last != Some(expect)
        {
            self.find(0, "its last record is not the expected one: the file was cut or rewritten, or has grown since");
        }
        self.verdict
    }

    fn find(&mut self, line: u64, problem: &str) {
        if self.verdict.findings.len() < MOST_FINDINGS {
            self.verdict.findings.push(AuditFinding { line, problem: problem.to_owned() });
        }
    }
}

/// Verifies a whole file that is in memory.
#[cfg(test)]
#[must_use]
pub fn verify(bytes: &[u8], expect: Option<Hash>) -> AuditVerdict {
    verify_by(&Chain::default(), bytes, expect)
}

/// The same with a key.
#[cfg(test)]
#[must_use]
pub fn verify_by(chain: &Chain, bytes: &[u8], expect: Option<Hash>) -> AuditVerdict {
    let mut verifier = Verifier::of(chain.clone());
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        verifier.take(line.strip_suffix(b"\n").unwrap_or(line), line.ends_with(b"\n"));
    }
    verifier.end(expect)
}
