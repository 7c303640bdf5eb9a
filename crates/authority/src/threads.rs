//! Threads by what they are for, so that nothing that is read makes a stop wait.
//!
//! ```text
//!   main runtime   accepts, reads and writes connections, validates
//!   stops          what stops agents: its handlers, and all of the admin socket · two threads
//!   reads          pages of the console and of the fleet, lists, the audit · half of the processors, of lower priority
//! ```

use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

/// How many threads run stops: one is enough for their speed, the other is there when one blocks.
const STOPPING: usize = 2;

/// How much lower the priority of reads is, as `nice` counts it.
const NICER: i32 = 10;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// It stops agents, or is a step on the way to that.
    Stop,
    /// It only reads, and may read much.
    Read,
    /// Everything else.
    Serve,
}

/// The threads beside those of the runtime that the server was started in. They end with the last clone.
#[derive(Clone, Debug)]
pub(super) struct Threads(Arc<Inside>);

#[derive(Debug)]
struct Inside {
    /// `None` once they are ended.
    stops: Option<Runtime>,
    reads: Option<Runtime>,
}

impl Threads {
    pub(super) fn start() -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let stops = Builder::new_multi_thread().worker_threads(STOPPING).thread_name("stops").enable_all().build()?;
        let reads = Builder::new_multi_thread()
            .worker_threads((cores / 2).clamp(1, 8))
            .thread_name("reads")
            .on_thread_start(yield_to_others)
            .enable_all()
            .build()?;
        Ok(Self(Arc::new(Inside { stops: Some(stops), reads: Some(reads) })))
    }

    /// Runs a task on the threads of its lane.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        lane: Lane,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let own = match lane {
            Lane::Stop => self.0.stops.as_ref(),
            Lane::Read => self.0.reads.as_ref(),
            Lane::Serve => None,
        };
        match own {
            Some(runtime) => runtime.spawn(task),
            None => tokio::spawn(task),
        }
    }

    /// The runtime of stops, to bind sockets in.
    pub(super) fn stops(&self) -> Option<&Handle> {
        self.0.stops.as_ref().map(Runtime::handle)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // Dropping a runtime waits for its threads, which is not allowed inside another one.
        for runtime in [self.stops.take(), self.reads.take()].into_iter().flatten() {
            runtime.shutdown_background();
        }
    }
}

/// Lowers the priority of the calling thread. Where that is forbidden, it competes with the others.
pub(super) fn yield_to_others() {
    // For Linux, the priority of no process in particular is that of the calling thread.
    let _ = rustix::process::setpriority_process(None, NICER);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lane_has_its_threads_and_they_end_inside_another_runtime() {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let threads = Threads::start().unwrap();
            let of = async |lane| threads.spawn(lane, async { std::thread::current().name().map(str::to_owned) }).await;
            assert_eq!(of(Lane::Stop).await.unwrap().as_deref(), Some("stops"));
            assert_eq!(of(Lane::Read).await.unwrap().as_deref(), Some("reads"));
            let other = of(Lane::Serve).await.unwrap();
            assert!(!matches!(other.as_deref(), Some("stops" | "reads")), "{other:?}");
            drop(threads);
        });
    }
}
