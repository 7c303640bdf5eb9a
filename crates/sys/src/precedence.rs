//! Scheduling of the calling thread: before all ordinary processes for a moment, in short time slices, or as a batch
//! thread.

#![expect(unsafe_code, reason = "neither nix nor rustix has sched_setscheduler or sched_setattr")]

use std::marker::PhantomData;

use rustix::io::Errno;

/// While this value lives, no ordinary process preempts the calling thread.
///
/// A process that is woken may run before the process that woke it, whatever their niceness: a thread that signals a
/// thousand processes would wait for most of them to act first. Only for work that is short and does not wait. Nothing
/// changes where the kernel does not permit it (it takes `CAP_SYS_NICE`, or `RLIMIT_RTPRIO` above 0), and for a thread
/// to which an administrator has given another scheduling policy than the ordinary one.
#[derive(Debug)]
pub struct Uninterrupted {
    changed: bool,
    /// Keeps the value on the thread that made it.
    _here: PhantomData<*const ()>,
}

impl Uninterrupted {
    /// Raises the calling thread's priority until the value is dropped.
    #[must_use]
    pub fn begin() -> Self {
        // The lowest real-time priority is above every ordinary process, and below the real-time priorities that the
        // kernel and administrators use.
        let changed = is_ordinary() && schedule(libc::SCHED_FIFO, 1).is_ok();
        Self { changed, _here: PhantomData }
    }
}

impl Drop for Uninterrupted {
    fn drop(&mut self) {
        if self.changed {
            // Returning to the ordinary policy is always permitted, and the niceness is kept.
            let _ = schedule(libc::SCHED_OTHER, 0);
        }
    }
}

/// Schedules the calling thread as a batch thread: when it is woken it does not preempt the running thread, which most
/// likely has just woken it. Its share of the processor stays the same. Changes nothing for a thread to which an
/// administrator has given another policy than the ordinary one.
pub fn use_batch_scheduling() {
    if is_ordinary() {
        // Any process may set this policy.
        let _ = schedule(libc::SCHED_BATCH, 0);
    }
}

/// The shortest time slice that the kernel gives, in nanoseconds.
const SHORT_SLICE: u64 = 100_000;

/// How long the calling thread runs at a time when others wait for its processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeSlice {
    /// As long as any other thread.
    Ordinary,
    /// Many short slices instead of few long ones: a client need not wait until the thread has answered all others. Its
    /// share of the processor stays the same.
    Short,
}

/// Sets the time slice of the calling thread. Changes nothing before Linux 6.12, and for a thread to which an
/// administrator has given another policy than the ordinary one.
pub fn set_time_slice(slice: TimeSlice) {
    let sched_runtime = match slice {
        // The kernel's default.
        TimeSlice::Ordinary => 0,
        TimeSlice::Short => SHORT_SLICE,
    };
    if let Ok(attributes) = attributes()
        && attributes.sched_policy.cast_signed() == libc::SCHED_OTHER
    {
        // Any process may set this. Where system calls are filtered it may be refused, and nothing changes.
        let _ = set_attributes(libc::sched_attr { sched_runtime, ..attributes });
    }
}

/// Reads the scheduling attributes of the calling thread.
fn attributes() -> Result<libc::sched_attr, Errno> {
    let mut attributes = libc::sched_attr {
        size: 0,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: a thread number of 0 is the caller's own; the kernel writes no more than the size it is told.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size_of::<libc::sched_attr>(), 0) };
    if result == 0 { Ok(attributes) } else { Err(super::process::last_errno()) }
}

fn set_attributes(attributes: libc::sched_attr) -> Result<(), Errno> {
    // SAFETY: a thread number of 0 is the caller's own; the kernel only reads the live local, which says its size.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 { Ok(()) } else { Err(super::process::last_errno()) }
}

fn is_ordinary() -> bool {
    // SAFETY: takes a number alone; 0 is the caller's own.
    unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) == libc::c_long::from(libc::SCHED_OTHER) }
}

/// Sets the policy of the calling thread. Not through the C library: musl's function always fails.
fn schedule(policy: libc::c_int, priority: libc::c_int) -> Result<(), Errno> {
    // SAFETY: a thread number of 0 is the caller's own; the kernel only reads the live local, which is its whole
    // `sched_param`: the kernel does not know the fields that C libraries add to it.
    let result = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const priority) };
    if result == 0 { Ok(()) } else { Err(super::process::last_errno()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The policy and niceness of the calling thread, as `/proc` shows them.
    fn scheduling() -> (String, String) {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let field = |number: usize| fields.split(' ').nth(number - 3).unwrap().to_owned();
        (field(41), field(19))
    }

    #[test]
    fn it_ends_where_it_began_and_keeps_the_niceness() {
        std::thread::spawn(|| {
            rustix::process::setpriority_process(Some(rustix::thread::gettid()), 3).unwrap();
            let ordinary = ("0".to_owned(), "3".to_owned());
            assert_eq!(scheduling(), ordinary);
            let uninterrupted = Uninterrupted::begin();
            let during = scheduling().0;
            let expected = if uninterrupted.changed { "1" } else { "0" };
            assert_eq!(during, expected);
            drop(uninterrupted);
            assert_eq!(scheduling(), ordinary);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_thread_in_no_hurry_keeps_its_share() {
        std::thread::spawn(|| {
            rustix::process::setpriority_process(Some(rustix::thread::gettid()), 3).unwrap();
            use_batch_scheduling();
            assert_eq!(scheduling(), (libc::SCHED_BATCH.to_string(), "3".to_owned()));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn short_turns_change_neither_policy_nor_share() {
        std::thread::spawn(|| {
            rustix::process::setpriority_process(Some(rustix::thread::gettid()), 3).unwrap();
            let before = attributes().unwrap().sched_runtime;
            set_time_slice(TimeSlice::Short);
            assert_eq!(scheduling(), ("0".to_owned(), "3".to_owned()));
            // A kernel without time slices reports none.
            let expected = if before == 0 { 0 } else { SHORT_SLICE };
            assert_eq!(attributes().unwrap().sched_runtime, expected);
            set_time_slice(TimeSlice::Ordinary);
            assert_eq!(attributes().unwrap().sched_runtime, before);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn what_an_administrator_has_set_stays() {
        std::thread::spawn(|| {
            schedule(libc::SCHED_BATCH, 0).unwrap();
            let before = scheduling();
            let turns = attributes().unwrap().sched_runtime;
            set_time_slice(TimeSlice::Short);
            assert_eq!((scheduling(), attributes().unwrap().sched_runtime), (before.clone(), turns));
            let uninterrupted = Uninterrupted::begin();
            assert_eq!(scheduling(), before);
            drop(uninterrupted);
            assert_eq!(scheduling(), before);
        })
        .join()
        .unwrap();
    }
}
