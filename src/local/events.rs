//! `GET /v1/events`: what happens on this host, as server-sent events.
//!
//! All readers share the journal's buffer, each at its own pace, so that a slow reader costs nothing but its connection. Ids
//! are `<life of the daemon>-<number>`; a reader that reconnects with an id continues after that event. Events that are no
//! longer available are reported by an event `gap`, never skipped silently.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use machineid_openapi::{AnswerDoc, EVENTS, JSON, Operation, Parameter};
use machineid_protocol::event::{AgentStart, Event as HostEvent, Happening};
use machineid_protocol::{Code, RunId};
use thiserror::Error;
use tokio::sync::watch;

use super::openapi::NO;
use super::peer::Peer;
use super::rights::AgentScope;
use super::{Context, reply, status};
use crate::telemetry::Journal;
use crate::telemetry::ring::{EventNumber, RingRead, TimedEvent};

/// Interval of comments while there are no events, so that both sides notice a lost connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The pause that a reader should make before it reconnects.
const RETRY: Duration = Duration::from_secs(1);

/// The parameters of an event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StreamOptions {
    /// Begin with the oldest event that is kept, not with the next new one.
    from_oldest: bool,
    /// Keep the stream open for new events.
    follow: bool,
}

pub(super) const EVENTS_OF_HOST: Operation = Operation {
    path: "/v1/events",
    method: "get",
    summary: "Events of this host, as server-sent events whose data is an Event; an event `gap` says that some \
              are no longer available",
    parameters: &[
        Parameter("query", "from", "now (the default) or oldest: what is still kept comes first."),
        Parameter("query", "follow", "true (the default), or false: end when everything has been told."),
        Parameter("header", "Last-Event-ID", "Continue after the event with this id."),
    ],
    body: None,
    answers: &[AnswerDoc(200, EVENTS, Some("Event"), "a stream"), AnswerDoc(400, JSON, NO, "a parameter is unknown")],
};

/// `GET /v1/events?from=oldest|now&follow=true|false`, `Last-Event-ID`.
pub(super) async fn events(
    State(context): State<Arc<Context>>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let wish = match StreamOptions::parse(query.as_deref().unwrap_or("")) {
        Ok(wish) => wish,
        Err(error) => return reply::refusal(StatusCode::BAD_REQUEST, Code::BadRequest, error.to_string()),
    };
    let last = headers.get("last-event-id").map(|id| id.to_str().unwrap_or(""));
    let scope = AgentScope::of(&peer, &context.settings());
    let journal = Arc::clone(&context.journal);
    let knows_commands: KnowsCommands = {
        let scope = scope.clone();
        Box::new(move |run| status::knows_commands(&scope, &peer, &context, run))
    };
    let reader = Reader::new(journal, scope, knows_commands, wish, last);
    let alive = KeepAlive::new().interval(KEEP_ALIVE).text("nothing new");
    ([(header::CACHE_CONTROL, "no-store")], Sse::new(reader.into_stream()).keep_alive(alive)).into_response()
}

/// A parameter that the event stream does not have.
#[derive(Debug, Error)]
#[error("{0:?} is unknown; write from=oldest|now or follow=true|false")]
struct UnknownParameter(String);

impl StreamOptions {
    fn parse(query: &str) -> Result<Self, UnknownParameter> {
        let mut wish = Self { from_oldest: false, follow: true };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair {
                "from=oldest" => wish.from_oldest = true,
                "from=now" => wish.from_oldest = false,
                "follow=true" => wish.follow = true,
                "follow=false" => wish.follow = false,
                other => return Err(UnknownParameter(other.to_owned())),
            }
        }
        Ok(wish)
    }
}

/// Whether the reader may know the command line of a run.
type KnowsCommands = Box<dyn Fn(RunId) -> bool + Send>;

struct Reader {
    journal: Arc<Journal>,
    scope: AgentScope,
    knows_commands: KnowsCommands,
    newest: watch::Receiver<EventNumber>,
    next: EventNumber,
    follow: bool,
    /// Events that are sent before those of the journal.
    greeting: std::vec::IntoIter<Event>,
}

impl Reader {
    fn new(
        journal: Arc<Journal>,
        scope: AgentScope,
        knows_commands: KnowsCommands,
        wish: StreamOptions,
        last: Option<&str>,
    ) -> Self {
        let newest = journal.watch();
        let (ring_oldest, ring_newest) = {
            let ring = journal.ring();
            (ring.oldest(), ring.newest())
        };
        let (next, gap) = match last {
            Some(id) => match number_of(id, &journal).filter(|number| *number <= ring_newest) {
                Some(number) => (number + 1, None),
                None => (ring_oldest, Some("this daemon knows no such id: it was started again since")),
            },
            None if wish.from_oldest => (ring_oldest, None),
            None => (ring_newest + 1, None),
        };
        // An id without data: a reader that loses the connection before the first event knows where to continue.
        let mut greeting = vec![Event::default().retry(RETRY).id(id(&journal, next - 1))];
        greeting.extend(gap.map(|reason| gap_event(&journal, next, reason)));
        Self { journal, scope, knows_commands, newest, next, follow: wish.follow, greeting: greeting.into_iter() }
    }

    fn into_stream(self) -> impl Stream<Item = Result<Event, Infallible>> {
        futures_util::stream::unfold(self, |mut reader| async move {
            let event = reader.next_event().await?;
            Some((Ok(event), reader))
        })
    }

    /// The next event; `None` at the end, when the reader does not follow.
    async fn next_event(&mut self) -> Option<Event> {
        if let Some(greeting) = self.greeting.next() {
            return Some(greeting);
        }
        loop {
            self.newest.mark_unchanged();
            // The buffer is locked for one event at a time: recording an event must not wait for a reader.
            let read = self.journal.ring().read(self.next);
            match read {
                RingRead::Nothing if !self.follow => return None,
                // The sender lives in the journal that this reader holds.
                RingRead::Nothing => self.newest.changed().await.ok()?,
                RingRead::Missed(oldest) => {
                    self.next = oldest;
                    return Some(gap_event(
                        &self.journal,
                        oldest,
                        "the reader is too slow: older events are no longer \
                                                                  kept",
                    ));
                }
                RingRead::Event(number, told) => {
                    self.next = number + 1;
                    if self.may_see(&told) {
                        let event = &told.event;
                        // Every field has a JSON form, and JSON text contains no newline.
                        let data = serde_json::to_string(&*self.without_foreign_commands(event)).unwrap_or_default();
                        let id = id(&self.journal, number);
                        return Some(Event::default().id(id).event(event.what.name()).data(data));
                    }
                }
            }
        }
    }
}

impl Reader {
    fn may_see(&self, told: &TimedEvent) -> bool {
        match &told.owner {
            Some(owner) => self.scope.covers(owner),
            None => told.event.what.agent_of().is_none() || self.scope.is_all(),
        }
    }

    fn without_foreign_commands<'a>(&self, event: &'a HostEvent) -> Cow<'a, HostEvent> {
        match &event.what {
            Happening::AgentStarted(start) if !(self.knows_commands)(start.agent.run_id) => {
                let start = AgentStart { command: Vec::new(), ..start.clone() };
                Cow::Owned(HostEvent { what: Happening::AgentStarted(start), ..event.clone() })
            }
            Happening::AgentStarted(_)
            | Happening::Decision(_)
            | Happening::AgentStopping(_)
            | Happening::AgentSurvived(_)
            | Happening::AgentStopped(_)
            | Happening::AgentEnded(_)
            | Happening::OutsideHelper(_)
            | Happening::AuthorityUp(_)
            | Happening::AuthorityDown(_)
            | Happening::ConfigReloaded(_)
            | Happening::DeviceHeld(_)
            | Happening::DeviceReleased(_)
            | Happening::FilesRestored(_) => Cow::Borrowed(event),
        }
    }
}

fn id(journal: &Journal, number: EventNumber) -> String {
    format!("{}-{number}", journal.life())
}

fn gap_event(journal: &Journal, next: EventNumber, reason: &str) -> Event {
    let data = serde_json::json!({ "event": "gap", "reason": reason });
    Event::default().id(id(journal, next - 1)).event("gap").data(data.to_string())
}

/// The event number in an id of this daemon's life.
fn number_of(id: &str, journal: &Journal) -> Option<EventNumber> {
    let (life, number) = id.split_once('-')?;
    (life == journal.life().to_string()).then(|| number.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;
    use machineid_protocol::event::{AgentEnd, AgentName, AuthorityUp};
    use machineid_tree::{Pid, PidNamespaces, ProcessEntry};

    use crate::telemetry::AgentOwner;

    fn here() -> PidNamespaces {
        PidNamespaces::of(ProcessEntry::read(Pid::own()).unwrap().unwrap().identity)
    }

    fn journal() -> Arc<Journal> {
        let journal = Journal::start(None).unwrap();
        for mark in 1..=3 {
            journal.tell(Happening::AuthorityUp(AuthorityUp { url: mark.to_string() }));
        }
        journal
    }

    async fn read(journal: &Arc<Journal>, query: &str, last: Option<&str>) -> String {
        let wish = StreamOptions::parse(query).unwrap();
        let scope = AgentScope::Own { uid: 7, place: here() };
        let reader = Reader::new(Arc::clone(journal), scope, Box::new(|_| false), wish, last);
        let body = Sse::new(reader.into_stream()).into_response().into_body();
        String::from_utf8(axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_reader_that_comes_back_goes_on_behind_what_it_has() {
        let journal = journal();
        let life = journal.life();
        let all = read(&journal, "from=oldest&follow=false", None).await;
        assert!(all.starts_with(&format!("retry: 1000\nid: {life}-0\n\nid: {life}-1\nevent: authority-up\ndata: {{")));
        assert_eq!(all.matches("event: ").count(), 3);
        let rest = read(&journal, "follow=false", Some(&format!("{life}-2"))).await;
        assert!(rest.matches("event: ").count() == 1 && rest.contains("\"url\":\"3\""), "{rest}");
        assert_eq!(read(&journal, "follow=false", None).await, format!("retry: 1000\nid: {life}-3\n\n"));
    }

    #[tokio::test]
    async fn an_id_of_another_life_or_of_the_future_is_a_gap_and_then_everything() {
        let journal = journal();
        for id in ["00000000-2", "", "x", &format!("{}-9", journal.life()), &format!("{}-", journal.life())] {
            let text = read(&journal, "follow=false", Some(id)).await;
            assert_eq!((text.matches("event: gap").count(), text.matches("event: ").count()), (1, 4), "{id}: {text}");
        }
    }

    #[tokio::test]
    async fn other_users_agents_are_nobodys_business() {
        let journal = journal();
        for (uid, namespaces) in [(7, here()), (8, here()), (7, PidNamespaces::unknown())] {
            let agent = AgentName {
                run_id: "0".repeat(32).parse().unwrap(),
                device_id: "d".parse().unwrap(),
                name: None,
                pid: None,
                uid,
            };
            journal.tell_of(
                &AgentOwner { uid, namespaces },
                Happening::AgentEnded(AgentEnd { agent, oom_kills: 0 }),
                None,
            );
        }
        let text = read(&journal, "from=oldest&follow=false", None).await;
        assert!(text.matches("agent-ended").count() == 2 && text.contains("\"uid\":7"), "name and data: {text}");
    }

    #[tokio::test]
    async fn a_reader_who_is_too_slow_is_told_that_it_missed_something() {
        let journal = journal();
        let wish = StreamOptions::parse("from=oldest").unwrap();
        let reader = Reader::new(Arc::clone(&journal), AgentScope::All, Box::new(|_| true), wish, None);
        let mut told = Sse::new(reader.into_stream()).into_response().into_body().into_data_stream();
        told.next().await.unwrap().unwrap();
        for mark in 0..5_000 {
            journal.tell(Happening::AuthorityUp(AuthorityUp { url: mark.to_string() }));
        }
        let text = String::from_utf8(told.next().await.unwrap().unwrap().to_vec()).unwrap();
        assert!(text.contains("event: gap"), "{text}");
    }

    #[test]
    fn what_is_asked_must_be_understood() {
        for query in ["from=yesterday", "follow", "x=1"] {
            assert!(StreamOptions::parse(query).is_err(), "{query}");
        }
    }
}
