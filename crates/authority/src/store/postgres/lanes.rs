//! Lanes: a few connections for decisions, each with a task, on one shared queue.
//!
//! A lane takes all waiting questions and asks them in one statement, which begins after each of them was asked. While
//! one statement is running, the other lanes leave new questions for the next one, unless the statement is slow or many
//! questions wait: a few large statements cost the server a fraction of many small ones. When a lane loses its
//! connection, its unanswered questions return to the head of the queue, and the first lane with a working connection
//! takes them.
//!
//! ```text
//!   ask ─▶ queue ─┬▶ lane ── statement ── answers
//!          ▲      └▶ lane ── connection lost ─┐
//!          └──────── asked again, a few times ┘
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::super::{Presented, StoreError};
use super::health::DatabaseHealth;
use super::lookup::{LookupQuestion, LookupResult, look_up};
use super::session::{self, Server, SessionPurpose};
use super::{CONNECTED, PROBE, lost};

/// The number of lanes: one that works, and one for when the first is slow or has lost its connection.
pub(super) const LANES: usize = 2;

/// The maximum number of questions in one statement.
const TOGETHER: usize = 256;

/// From this many waiting questions on, they do not wait for a running statement.
const MANY: usize = 64;

/// A statement that runs longer than this is slow: new questions no longer wait for it.
const SWIFT: Duration = Duration::from_millis(2);

/// The maximum number of waiting questions; more are refused.
const WAITING: usize = 16_384;

/// How long a statement may take before its connection counts as lost, for the first attempt of its questions and for
/// later ones. Both together are about the time of a decision.
const PATIENCE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];

/// How often a question is asked: once on every existing connection, and once on a new one. This covers connections
/// that were cut while idle.
const TRIES: usize = LANES + 1;

/// The lanes. Cheap to clone; all clones share one queue.
#[derive(Clone, Debug)]
pub(super) struct Lanes(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    // A std mutex: held while questions are moved, never across an await.
    waiting: Mutex<WaitingQuestions>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct WaitingQuestions {
    questions: VecDeque<Question>,
    /// The number of lanes with a connection.
    connected: usize,
    /// The number of running statements that are not slow.
    swift: usize,
    closed: bool,
}

#[derive(Debug)]
struct Question {
    asked: LookupQuestion,
    tries: usize,
    reply: oneshot::Sender<LookupResult>,
}

/// Where a question waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Before all others, and when there are too many, too: that of a known key that stops agents.
    First,
    Usual,
}

/// The resources of one lane.
#[derive(Clone, Debug)]
struct Lane {
    lanes: Lanes,
    options: Arc<PgConnectOptions>,
    health: Arc<DatabaseHealth>,
    stop: CancellationToken,
}

/// Counts a lane as connected until it is dropped.
struct Connected<'a>(&'a Queue);

/// Questions taken from the queue; they count as a running statement until this is dropped.
struct Batch<'a> {
    questions: Vec<Question>,
    under_way: Swift<'a>,
}

/// Marks a fast statement: new questions wait for the next one.
struct Swift<'a> {
    queue: &'a Queue,
    counted: bool,
}

impl Lanes {
    /// Starts the lanes. None has a connection yet; each makes its own.
    pub(super) fn start(
        options: &Arc<PgConnectOptions>,
        health: &Arc<DatabaseHealth>,
        stop: &CancellationToken,
    ) -> Self {
        let lanes = Self(Arc::default());
        for _ in 0..LANES {
            let lane = Lane {
                lanes: lanes.clone(),
                options: Arc::clone(options),
                health: Arc::clone(health),
                stop: stop.clone(),
            };
            tokio::spawn(lane.keep_running());
        }
        lanes
    }

    /// Asks a question, in a snapshot that begins after this call.
    pub(super) async fn ask(&self, asked: LookupQuestion, urgency: Urgency) -> Result<Option<Presented>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.0.push(Question { asked, tries: 0, reply }, urgency)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Whether at least one lane has a connection.
    pub(super) fn connected(&self) -> bool {
        self.0.lock().connected > 0
    }

    /// Answers all waiting questions with `error`, if no lane is connected.
    pub(super) fn give_up(&self, error: &StoreError) {
        let questions = {
            let mut waiting = self.0.lock();
            if waiting.connected > 0 { VecDeque::new() } else { std::mem::take(&mut waiting.questions) }
        };
        for question in questions {
            question.answer(Err(error.clone()));
        }
    }

    /// Stops accepting questions. Waiting ones are still answered, if a lane is connected.
    pub(super) fn close(&self) {
        self.0.lock().closed = true;
        self.0.bell.notify_waiters();
    }
}

impl Question {
    fn answer(self, found: LookupResult) {
        // The receiver is gone when the request was abandoned.
        let _ = self.reply.send(found);
    }
}

impl Queue {
    fn push(&self, question: Question, urgency: Urgency) -> Result<(), StoreError> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(StoreError::Closed);
        }
        match urgency {
            Urgency::First => waiting.questions.push_front(question),
            Urgency::Usual => {
                if waiting.questions.len() >= WAITING {
                    waiting.questions.retain(|question| !question.reply.is_closed());
                    if waiting.questions.len() >= WAITING {
                        return Err(StoreError::Late);
                    }
                }
                waiting.questions.push_back(question);
            }
        }
        let now = waiting.swift == 0 || waiting.questions.len() == MANY;
        drop(waiting);
        if now {
            self.bell.notify_one();
        }
        Ok(())
    }

    /// Takes the questions of the next statement; `None` when the queue is closed and empty.
    async fn take(&self) -> Option<Batch<'_>> {
        loop {
            let rung = self.bell.notified();
            tokio::pin!(rung);
            // From here on a `close` wakes this task, too.
            rung.as_mut().enable();
            {
                let mut waiting = self.lock();
                let mut questions = Vec::new();
                if waiting.swift == 0 || waiting.questions.len() >= MANY {
                    while questions.len() < TOGETHER {
                        let Some(question) = waiting.questions.pop_front() else { break };
                        if !question.reply.is_closed() {
                            questions.push(question);
                        }
                    }
                }
                if !questions.is_empty() {
                    waiting.swift += 1;
                    return Some(Batch { questions, under_way: Swift { queue: self, counted: true } });
                }
                if waiting.closed && waiting.questions.is_empty() {
                    return None;
                }
            }
            rung.await;
        }
    }

    /// Returns questions to the queue that were not answered because of `error`; those at the maximum of attempts fail
    /// with it.
    fn ask_again(&self, batch: Vec<Question>, error: &StoreError) {
        let mut waiting = self.lock();
        for mut question in batch.into_iter().rev() {
            question.tries += 1;
            if question.tries < TRIES && !waiting.closed {
                waiting.questions.push_front(question);
            } else {
                question.answer(Err(error.clone()));
            }
        }
        drop(waiting);
        self.bell.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, WaitingQuestions> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Swift<'_> {
    /// Ends the wait for this statement.
    fn end(&mut self) {
        if std::mem::take(&mut self.counted) {
            let mut waiting = self.queue.lock();
            waiting.swift -= 1;
            let more = !waiting.questions.is_empty() || waiting.closed;
            drop(waiting);
            if more {
                self.queue.bell.notify_one();
            }
        }
    }
}

impl Drop for Swift<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<'a> Connected<'a> {
    fn new(queue: &'a Queue) -> Self {
        queue.lock().connected += 1;
        Self(queue)
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.lock().connected -= 1;
    }
}

impl Lane {
    /// Runs the lane, and restarts it after a panic: otherwise a missing lane would be noticed only at the next fault.
    async fn keep_running(self) {
        while let Err(failure) = tokio::spawn(self.clone().run()).await {
            error!(%failure, "a lane of the database failed; restarting it");
            tokio::time::sleep(PROBE).await;
        }
    }

    /// Connects and answers until the connection is lost, repeatedly.
    async fn run(self) {
        while let Some(connected) = self.stop.run_until_cancelled(self.connect()).await {
            let Ok((mut connection, server)) = connected else { continue };
            let ended = self.serve(&mut connection, server).await;
            // Dropped without an orderly close: the connection may lead nowhere, and then closing would take time.
            drop(connection);
            if ended {
                return;
            }
            self.health.suspect();
        }
    }

    async fn connect(&self) -> Result<(PgConnection, Server), ()> {
        let opening = session::open(&self.options, &self.health.known, SessionPurpose::Decisions);
        let error = match tokio::time::timeout(CONNECTED, opening).await {
            Ok(Ok(opened)) => return Ok(opened),
            Ok(Err(error)) => error,
            Err(_) => StoreError::Late,
        };
        self.health.suspect();
        // A server that refuses answers at once; there is no need to wait for the probe.
        if !lost(&error) && !matches!(error, StoreError::Late) {
            self.lanes.give_up(&error);
        }
        tokio::time::sleep(PROBE).await;
        Err(())
    }

    /// Answers until the queue is closed (true) or the connection is lost (false).
    async fn serve(&self, connection: &mut PgConnection, server: Server) -> bool {
        let queue = &self.lanes.0;
        let connected = Connected::new(queue);
        loop {
            let Some(Batch { questions: batch, mut under_way }) = queue.take().await else { return true };
            let looked = {
                let asked: Vec<&LookupQuestion> = batch.iter().map(|question| &question.asked).collect();
                let again = batch.iter().any(|question| question.tries > 0);
                let looking = tokio::time::timeout(PATIENCE[usize::from(again)], look_up(connection, &asked));
                tokio::pin!(looking);
                if let Ok(looked) = tokio::time::timeout(SWIFT, looking.as_mut()).await {
                    looked
                } else {
                    under_way.end();
                    looking.await
                }
            };
            // Dropped before the answers are sent: the other lane may take new questions, if it is faster.
            drop(under_way);
            let failure = match looked.unwrap_or(Err(StoreError::Late)) {
                // The statement ended too late for the fence.
                Ok(_) if !self.health.fence_holds() => {
                    for question in batch {
                        question.answer(Err(StoreError::Unconfirmed));
                    }
                    continue;
                }
                // The answer of an old primary counts only while no new primary is known.
                Ok(found) if self.health.known.is_current(server) => {
                    for (question, found) in batch.into_iter().zip(found) {
                        question.answer(found);
                    }
                    continue;
                }
                Ok(_) => StoreError::Superseded,
                Err(error) if ends_the_connection(&error) => error,
                // The statement failed on a working connection. A repetition would fail again.
                Err(error) => {
                    for question in batch {
                        question.answer(Err(error.clone()));
                    }
                    if !refused(&error) {
                        continue;
                    }
                    // The session may be the cause (a missing prepared statement, a plan of old tables).
                    drop(connected);
                    tokio::time::sleep(PROBE).await;
                    return false;
                }
            };
            // Dropped first: otherwise this lane's own count would prevent giving the other questions up.
            drop(connected);
            queue.ask_again(batch, &failure);
            return false;
        }
    }
}

/// Whether the database refused a statement.
fn refused(error: &StoreError) -> bool {
    matches!(error, StoreError::Postgres(error) if error.as_database_error().is_some())
}

/// Whether another connection may succeed.
fn ends_the_connection(error: &StoreError) -> bool {
    lost(error)
        || matches!(error, StoreError::Late | StoreError::Standby | StoreError::ReadOnly | StoreError::Superseded)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::keys::SecretHash;

    fn question(reply: oneshot::Sender<LookupResult>) -> Question {
        Question { asked: LookupQuestion { key: SecretHash::of_token("any"), device: None }, tries: 0, reply }
    }

    fn ask(queue: &Queue) -> oneshot::Receiver<LookupResult> {
        let (reply, answer) = oneshot::channel();
        queue.push(question(reply), Urgency::Usual).unwrap();
        answer
    }

    fn take(queue: &Queue) -> Option<Vec<Question>> {
        queue.take().now_or_never().unwrap().map(|batch| batch.questions)
    }

    #[test]
    fn all_that_wait_are_taken_together_and_those_that_were_given_up_are_not_asked() {
        let queue = Queue::default();
        let (one, two, gone) = (ask(&queue), ask(&queue), ask(&queue));
        drop(gone);
        assert_eq!(take(&queue).unwrap().len(), 2);
        drop((one, two));
        let many: Vec<_> = (0..=TOGETHER).map(|_| ask(&queue)).collect();
        assert_eq!(take(&queue).unwrap().len(), TOGETHER);
        assert_eq!(take(&queue).unwrap().len(), 1);
        drop(many);
        queue.lock().closed = true;
        assert!(take(&queue).is_none());
    }

    #[test]
    fn a_stop_is_asked_before_all_that_wait_even_when_too_many_do() {
        let queue = Queue::default();
        let crowd: Vec<_> = (0..WAITING).map(|_| ask(&queue)).collect();
        let (reply, _answer) = oneshot::channel();
        assert!(matches!(queue.push(question(reply), Urgency::Usual), Err(StoreError::Late)));
        let (reply, mut answer) = oneshot::channel();
        queue.push(question(reply), Urgency::First).unwrap();
        for question in take(&queue).unwrap() {
            question.answer(Ok(None));
        }
        assert!(matches!(answer.try_recv(), Ok(Ok(None))));
        drop(crowd);
    }

    #[test]
    fn what_comes_waits_for_a_swift_statement_and_not_for_a_slow_one_nor_with_many_others() {
        let queue = Queue::default();
        let first = ask(&queue);
        let mut batch = queue.take().now_or_never().unwrap().unwrap();
        let second = ask(&queue);
        assert!(queue.take().now_or_never().is_none());
        batch.under_way.end();
        assert_eq!(queue.take().now_or_never().unwrap().unwrap().questions.len(), 1);
        drop(batch);
        let third = ask(&queue);
        let batch = queue.take().now_or_never().unwrap().unwrap();
        let many: Vec<_> = (0..MANY).map(|_| ask(&queue)).collect();
        assert_eq!(queue.take().now_or_never().unwrap().unwrap().questions.len(), MANY);
        drop(batch);
        assert_eq!(queue.lock().swift, 0);
        drop((first, second, third, many));
    }

    #[test]
    fn a_lost_connection_is_tried_again_a_bounded_number_of_times_before_the_asker_is_told() {
        let queue = Queue::default();
        let mut answer = ask(&queue);
        for _ in 1..TRIES {
            queue.ask_again(take(&queue).unwrap(), &StoreError::Late);
            assert!(answer.try_recv().is_err());
        }
        queue.ask_again(take(&queue).unwrap(), &StoreError::Late);
        assert!(matches!(answer.try_recv().unwrap(), Err(StoreError::Late)));
    }

    #[test]
    fn only_without_any_connection_is_waiting_given_up() {
        let lanes = Lanes(Arc::default());
        let mut answer = ask(&lanes.0);
        let connected = Connected::new(&lanes.0);
        lanes.give_up(&StoreError::Down);
        assert!(answer.try_recv().is_err() && lanes.connected());
        drop(connected);
        lanes.give_up(&StoreError::Down);
        assert!(matches!(answer.try_recv().unwrap(), Err(StoreError::Down)));
    }
}
