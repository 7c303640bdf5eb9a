//! Who is left.

use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A living process with one of the marks asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) pid: i32,
    /// What `ps -o comm` shows.
    pub(crate) comm: String,
    /// Which of the marks.
    pub(crate) mark: usize,
}

impl Found {
    /// A wrapper, a guardian or a namespace's first process: none of the tree. One inside another tree is, and not told
    /// apart here.
    pub(crate) fn is_supervisor(&self) -> bool {
        self.comm.starts_with("machineid-")
    }
}

/// The living processes with one of these texts in their command lines. (A zombie's is empty.)
pub(crate) fn with_marks(marks: &[&str]) -> Vec<Found> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if let Some(mark) = mark_of(pid, marks) {
            let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.push(Found { pid, comm: comm.trim_end().to_owned(), mark });
        }
    }
    found
}

fn mark_of(pid: i32, marks: &[&str]) -> Option<usize> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    marks.iter().position(|mark| line.windows(mark.len()).any(|window| window == mark.as_bytes()))
}

/// Ends the processes that have one of these marks, and no other one that got such a number meanwhile.
pub(crate) fn end_those_with(marks: &[&str]) {
    for found in with_marks(marks) {
        let Some(pid) = Pid::from_raw(found.pid) else { continue };
        let Ok(held) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if mark_of(found.pid, marks).is_some() {
            let _ = pidfd_send_signal(held, Signal::KILL);
        }
    }
}
