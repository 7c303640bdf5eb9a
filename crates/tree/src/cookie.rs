//! Run ids in the environment of a process: the last way to find a process that has lost every other tie to its tree.
//! It fails only for a process that has emptied its environment too, or written over it: a changed title may do this
//! (`findings/process-title-erases-proc-environ.sh`).

use machineid_protocol::RunId;
use rustix::io::Errno;

use super::kernel_file;
use super::pid::Pid;

/// The variable holds a list of run ids, outermost first, separated by commas.
const VARIABLE: &[u8] = b"MACHINEID_RUN_ID=";

/// At most this much of an environment is read. An exec takes about 6 MiB at most, and what a wrapper has put there
/// stands in the first of them.
const LONGEST: usize = 4 << 20;

/// Returns the runs that an environment names.
fn named(environment: &[u8]) -> impl Iterator<Item = RunId> {
    let lists = environment.split(|&byte| byte == 0).filter_map(|entry| entry.strip_prefix(VARIABLE));
    let ids = lists.flat_map(|list| list.split(|&byte| byte == b','));
    ids.filter_map(|id| std::str::from_utf8(id).ok()?.parse().ok())
}

/// Returns the runs that the environment of the process with this number names. The list is empty when the environment
/// may not be read: the process is another user's, a kernel thread, or gone. The read may take as long as that process
/// likes.
///
/// Fails when no descriptor is available.
pub(super) fn read(pid: Pid) -> Result<Vec<RunId>, Errno> {
    let mut environment = Vec::new();
    read_environment(pid, &mut environment)?;
    Ok(named(&environment).collect())
}

/// Reads the environment of the process with this number. It is empty when it may not be read: the process is another
/// user's, a kernel thread, or gone.
///
/// Fails when no descriptor is available.
fn read_environment(pid: Pid, environment: &mut Vec<u8>) -> Result<(), Errno> {
    environment.clear();
    let path = format!("/proc/{pid}/environ");
    let file = match kernel_file::open(path.as_str()) {
        Ok(file) => file,
        Err(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => return Err(errno),
        Err(_) => return Ok(()),
    };
    let mut page = [0; 4096];
    while environment.len() < LONGEST {
        match kernel_file::read_on(&file, &mut page) {
            Ok(count @ 1..) => environment.extend_from_slice(&page[..count]),
            // The end; or the process and its memory are gone, or may not be read by this user.
            Ok(0) | Err(_) => break,
        }
    }
    Ok(())
}

/// Checks that every run found in foreign bytes is written there literally.
///
/// # Panics
///
/// When that does not hold.
pub fn fuzz_environment(data: &[u8]) {
    for run in named(data) {
        let name = run.to_string();
        assert!(data.to_ascii_lowercase().windows(name.len()).any(|window| window == name.as_bytes()), "{name}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RUN: &str = "00000000000000000000000000000007";

    fn names(environment: &[u8], run: &str) -> bool {
        named(environment).any(|named| named.to_string() == run)
    }

    #[test]
    fn a_run_is_named_as_a_whole_element_of_the_list_only() {
        let other = "10000000000000000000000000000007";
        for (environment, expected) in [
            (format!("A=1\0MACHINEID_RUN_ID={RUN}\0B=2\0"), true),
            (format!("MACHINEID_RUN_ID={other},{RUN}\0"), true),
            (format!("MACHINEID_RUN_ID={RUN},{other}"), true),
            (format!("MACHINEID_RUN_ID={other}\0MACHINEID_RUN_ID={RUN}\0"), true),
            (format!("MACHINEID_RUN_ID={other}\0"), false),
            (format!("MACHINEID_RUN_ID={RUN}0\0"), false),
            (format!("MACHINEID_RUN_ID=x{RUN}\0"), false),
            (format!("XMACHINEID_RUN_ID={RUN}\0"), false),
            (format!("A=MACHINEID_RUN_ID={RUN}\0"), false),
            (String::new(), false),
        ] {
            assert_eq!(names(environment.as_bytes(), RUN), expected, "{environment:?}");
        }
    }

    proptest! {
        #[test]
        fn an_id_is_found_among_foreign_bytes_and_nowhere_else(
            before in proptest::collection::vec(any::<u8>(), 0..100),
            after in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            prop_assert!(!names(&before, RUN));
            let entry = format!("\0MACHINEID_RUN_ID=,,{RUN}\0");
            prop_assert!(names(&[&before, entry.as_bytes(), &after].concat(), RUN));
        }
    }
}
