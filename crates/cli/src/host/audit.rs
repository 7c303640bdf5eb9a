//! `machineid audit verify`: checks whether an audit file is as the daemon wrote it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use machineid_audit::chain::{Hash, LONGEST_LINE};
use machineid_audit::key::Chain;
use machineid_audit::verify::{AuditFinding, AuditVerdict, Verifier};
use machineid_protocol::Exit;
use serde_json::{Value, json};

use crate::args::AuditVerifyArgs;
use crate::printer::{Colour, Line, Printer};
use crate::problem::Problem;
use crate::words::count;

/// The largest file of a key, in bytes.
const LONGEST_KEY: u64 = 4096;

pub(crate) fn verify(args: &AuditVerifyArgs, printer: &mut Printer) -> Result<Exit, Problem> {
    let expect = args.expect.as_deref().map(|text| {
        Hash::parse(text).ok_or_else(|| Problem::usage(format!("--expect {text:?} is not a hash: 64 hex digits")))
    });
    let expect = expect.transpose()?;
    let chain = match &args.key_file {
        Some(path) => key(path)?,
        None => Chain::default(),
    };
    let mut verdicts: Vec<(&Path, AuditVerdict)> = Vec::new();
    for (at, path) in args.files.iter().enumerate() {
        let expect = expect.filter(|_| at + 1 == args.files.len());
        let mut verdict = read(path, &chain, expect)
            .map_err(|error| Problem::usage(format!("cannot read {}: {error}", path.display())))?;
        if let Some((before, earlier)) = verdicts.last()
            && verdict.follows != earlier.last
        {
            let problem = format!("it does not continue where {} ends", before.display());
            verdict.findings.insert(0, AuditFinding { line: 1, problem });
        }
        verdicts.push((path, verdict));
    }
    let sound = verdicts.iter().all(|(_, verdict)| verdict.findings.is_empty());
    if args.json {
        let files: Vec<Value> = verdicts.iter().map(|(path, verdict)| value(path, verdict)).collect();
        printer.json(&json!({ "sound": sound, "files": files }));
    } else {
        for (path, verdict) in &verdicts {
            show(path, verdict, printer);
        }
        if sound && expect.is_none() {
            printer.note(
                "to find out whether its end was cut, give the last hash from machineid status or the daemon's log: \
                 --expect HASH",
            );
        }
    }
    Ok(if sound { Exit::Success } else { Exit::Failure })
}

/// The chain with the key in this file.
fn key(path: &Path) -> Result<Chain, Problem> {
    let wrong = |error: &dyn std::fmt::Display| Problem::usage(format!("--key-file {}: {error}", path.display()));
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST_KEY).read_to_end(&mut text));
    read.map_err(|error| wrong(&error))?;
    Chain::keyed(&text).map_err(|error| wrong(&error))
}

fn read(path: &Path, chain: &Chain, expect: Option<Hash>) -> std::io::Result<AuditVerdict> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut verifier = Verifier::of(chain.clone());
    let most = u64::try_from(LONGEST_LINE).unwrap_or(u64::MAX) + 2;
    loop {
        let mut line = Vec::new();
        if (&mut reader).take(most).read_until(b'\n', &mut line)? == 0 {
            return Ok(verifier.end(expect));
        }
        let ended = line.ends_with(b"\n");
        if !ended && line.len() > LONGEST_LINE {
            // No record is this long, so the rest of the line is skipped.
            reader.skip_until(b'\n')?;
        }
        verifier.take(line.strip_suffix(b"\n").unwrap_or(&line), ended);
    }
}

fn show(path: &Path, verdict: &AuditVerdict, printer: &mut Printer) {
    let mut line = Line::default();
    line.push(&format!("{}: ", path.display()), None);
    match verdict.findings.len() {
        0 => line.push("sound", Some(Colour::Good)),
        findings => line.push(&count(findings, "finding", "findings").to_uppercase(), Some(Colour::Bad)),
    }
    line.push(&format!(", {}", count(number(verdict.records), "record", "records")), None);
    if verdict.gaps > 0 {
        let gaps = count(number(verdict.gaps), "gap", "gaps");
        line.push(&format!(", {gaps} that the daemon declares ({} lost)", verdict.lost), Some(Colour::Unclear));
    }
    if verdict.torn > 0 {
        line.push(&format!(", {}", count(number(verdict.torn), "torn line", "torn lines")), Some(Colour::Unclear));
    }
    printer.line(line);
    for finding in &verdict.findings {
        match finding.line {
            0 => printer.line(format!("{}: {}", path.display(), finding.problem)),
            line => printer.line(format!("{}:{line}: {}", path.display(), finding.problem)),
        }
    }
    if let Some(follows) = verdict.follows {
        printer.line(format!("  follows {follows}, the last record of an earlier file"));
    }
    if let Some(last) = verdict.last {
        printer.line(format!("  ends at {last}"));
    }
}

fn number(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn value(path: &Path, verdict: &AuditVerdict) -> Value {
    let findings: Vec<Value> = verdict
        .findings
        .iter()
        .map(|finding| json!({ "line": Some(finding.line).filter(|line| *line > 0), "problem": finding.problem }))
        .collect();
    json!({
        "file": path.display().to_string(),
        "records": verdict.records,
        "follows": verdict.follows.map(|hash| hash.to_string()),
        "last_hash": verdict.last.map(|hash| hash.to_string()),
        "declared_gaps": verdict.gaps,
        "declared_lost": verdict.lost,
        "torn_lines": verdict.torn,
        "findings": findings,
    })
}
