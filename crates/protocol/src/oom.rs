//! What is said about processes that the kernel ended for lack of memory.

/// A sentence with the remedy.
#[must_use]
pub fn oom_in_words(kills: u64) -> String {
    let processes = if kills == 1 { "a process".to_owned() } else { format!("{kills} processes") };
    format!(
        "the kernel ended {processes} of its control group for lack of memory (OOM kill); give the group more (memory.max, \
         MemoryMax=) or the agent less to do"
    )
}
