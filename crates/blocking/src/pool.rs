//! The threads of one kind of call, and waiting for an answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, io, thread};

use machineid_clock::BootTime;
use tokio::sync::oneshot;

use super::queue::{Bounds, CallOwner, OVERDUE, Queue};

/// How long an idle thread is kept.
const IDLE: Duration = Duration::from_secs(10);

/// The threads of one kind of call. Cheap to clone; clones share their threads.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Shared>);

/// Why a call brought no answer.
#[derive(Debug)]
pub enum Lost {
    /// The call has not returned in time.
    Late,
    /// The call panicked, which the log says.
    Panicked,
    /// No thread can be started for the call.
    NoThread(io::Error),
}

#[derive(Debug)]
struct Shared {
    name: &'static str,
    state: Mutex<State>,
    wakeup: Condvar,
}

#[derive(Debug)]
struct State {
    queue: Queue<Box<dyn Call>>,
    threads: usize,
    /// Threads that wait on the condition variable and have not been notified.
    idle: usize,
    /// Threads that have been notified and have not woken yet.
    notified: usize,
}

/// A call that waits for a thread.
trait Call: Send + fmt::Debug {
    /// Whether a caller still waits for the answer.
    fn is_wanted(&self) -> bool;
    fn make(self: Box<Self>);
}

struct Asked<W, T> {
    work: W,
    reply: oneshot::Sender<T>,
}

impl<W, T> fmt::Debug for Asked<W, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asked")
    }
}

impl<W: FnOnce() -> T + Send, T: Send> Call for Asked<W, T> {
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn make(self: Box<Self>) {
        let Self { work, reply } = *self;
        // A caller that has gone needs no answer.
        let _ = reply.send(work());
    }
}

impl Pool {
    /// Makes a pool without threads, which are started when there is work. `name` is the threads' name.
    #[must_use]
    pub fn new(name: &'static str, bounds: Bounds) -> Self {
        let state = State { queue: Queue::new(bounds), threads: 0, idle: 0, notified: 0 };
        Self(Arc::new(Shared { name, state: Mutex::new(state), wakeup: Condvar::new() }))
    }

    /// Makes a call for `owner` and waits for its result, however long that takes.
    ///
    /// If the future is dropped, a call that has begun goes on, and one that has not begun is not made.
    ///
    /// Fails when the call panics, or no thread can be started.
    pub async fn call<T, W>(&self, owner: CallOwner, work: W) -> Result<T, Lost>
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        let (reply, mut answer) = oneshot::channel();
        self.0.push(owner, Box::new(Asked { work, reply }))?;
        loop {
            match tokio::time::timeout(OVERDUE, &mut answer).await {
                Ok(answered) => return answered.map_err(|_| Lost::Panicked),
                // Calls before this one may be overdue by now.
                Err(_) => self.0.dispatch(&mut self.0.lock())?,
            }
        }
    }

    /// Makes a call for the daemon, and waits for its result up to a time limit.
    ///
    /// Fails as [`Pool::call`] does, and when the time is over; a call that has begun goes on then.
    pub async fn call_within<T, W>(&self, limit: Duration, work: W) -> Result<T, Lost>
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        tokio::time::timeout(limit, self.call(CallOwner::DAEMON, work)).await.unwrap_or(Err(Lost::Late))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(self: &Arc<Self>, owner: CallOwner, call: Box<dyn Call>) -> Result<(), Lost> {
        let mut state = self.lock();
        // While every thread hangs, no call leaves the queue, and it must not grow without end.
        state.queue.keep(|call| call.is_wanted());
        state.queue.push(owner, call);
        self.dispatch(&mut state)
    }

    /// Has a thread take the next call, if one may run now.
    fn dispatch(self: &Arc<Self>, state: &mut State) -> Result<(), Lost> {
        // Threads that were started or notified, and have not reached the queue: each will take a call.
        let coming = state.threads - state.queue.running() - state.idle;
        if state.queue.may_begin(BootTime::now()) <= coming {
            return Ok(());
        }
        if state.idle > 0 {
            state.idle -= 1;
            state.notified += 1;
            self.wakeup.notify_one();
            return Ok(());
        }
        let shared = Arc::clone(self);
        match thread::Builder::new().name(self.name.to_owned()).spawn(move || shared.work()) {
            Ok(_) => state.threads += 1,
            // A busy thread takes the call when it has finished.
            Err(_) if state.threads > 0 => {}
            Err(error) => return Err(Lost::NoThread(error)),
        }
        Ok(())
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some((id, call)) = state.queue.begin(BootTime::now()) {
                drop(state);
                // The caller learns of a panic because the reply is dropped.
                let _ = catch_unwind(AssertUnwindSafe(|| call.make()));
                state = self.lock();
                state.queue.end(id);
                continue;
            }
            state.idle += 1;
            let waited = self.wakeup.wait_timeout_while(state, IDLE, |state| state.notified == 0);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.notified == 0 {
                state.idle -= 1;
                state.threads -= 1;
                return;
            }
            state.notified -= 1;
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => f.write_str("it does not answer"),
            Self::Panicked => f.write_str("internal error: the log says where"),
            Self::NoThread(error) => write!(f, "no thread can be started: {error}"),
        }
    }
}

impl std::error::Error for Lost {}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    const BOUNDS: Bounds = Bounds { at_a_time: 4, most: 8 };

    /// Makes calls that hang until the returned senders are dropped.
    fn hanging(pool: &Pool, owner: CallOwner, calls: usize) -> Vec<Sender<()>> {
        let hang = || {
            let (release, wait) = channel::<()>();
            let pool = pool.clone();
            tokio::spawn(async move { pool.call(owner, move || wait.recv()).await });
            release
        };
        (0..calls).map(|_| hang()).collect()
    }

    #[tokio::test]
    async fn a_call_brings_its_answer_and_a_panic_is_no_answer() {
        let pool = Pool::new("test", BOUNDS);
        for round in 0..50 {
            assert_eq!(pool.call(CallOwner::DAEMON, move || round).await.unwrap(), round);
        }
        assert!(matches!(pool.call(CallOwner::DAEMON, || panic!("on purpose")).await, Err::<(), _>(Lost::Panicked)));
        assert_eq!(pool.call(CallOwner::DAEMON, || 1).await.unwrap(), 1);
        assert!(pool.0.lock().threads <= BOUNDS.at_a_time);
    }

    #[tokio::test]
    async fn another_users_call_gets_through_while_one_users_calls_hang() {
        let pool = Pool::new("test", BOUNDS);
        let (one, other) = (CallOwner::user(1, false), CallOwner::user(2, false));
        let held = hanging(&pool, one, 100);
        tokio::task::yield_now().await;
        assert_eq!(pool.call(other, || 1).await.unwrap(), 1);
        let late = pool.call_within(Duration::from_millis(500), move || drop(held)).await;
        assert!(late.is_ok(), "an operator's too: {late:?}");
    }

    #[tokio::test]
    async fn a_kind_whose_every_thread_hangs_is_late_keeps_nothing_and_works_again_when_they_return() {
        let pool = Pool::new("test", Bounds { at_a_time: 2, most: 2 });
        let held = hanging(&pool, CallOwner::DAEMON, 2);
        tokio::task::yield_now().await;
        for _ in 0..50 {
            let late = pool.call_within(Duration::from_millis(2), || ()).await;
            assert!(matches!(late, Err(Lost::Late)), "{late:?}");
        }
        drop(held);
        let made = pool.call_within(Duration::from_secs(20), || 7).await;
        assert_eq!(made.unwrap(), 7);
        assert!(pool.0.lock().threads <= 2);
    }

    #[tokio::test]
    async fn calls_that_hang_for_long_make_room_for_others() {
        let pool = Pool::new("test", Bounds { at_a_time: 2, most: 8 });
        let held = hanging(&pool, CallOwner::DAEMON, 2);
        tokio::task::yield_now().await;
        let made = pool.call_within(Duration::from_secs(20), || 7).await;
        assert_eq!(made.unwrap(), 7, "although the two are still under way");
        drop(held);
    }
}
