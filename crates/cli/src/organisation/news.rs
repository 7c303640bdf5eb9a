//! The news of changed devices from the authority: one stream, which is opened again after a failure.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::Stream;
use machineid_client::{AuthorityClient, EventStream, Failure, ServerSentEvent};
use machineid_clock::Doubling;
use machineid_org_key::OrgKey;
use serde::Deserialize;
/// How long a stream may be silent, also before its first event. An authority sends something every five seconds.
const SILENCE: Duration = Duration::from_secs(12);

/// How long to wait before a broken stream is opened again: the first and the longest pause.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A piece of news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Changes are told from now on.
    Watching,
    /// Something about these devices changed.
    Changed(BTreeSet<String>),
    /// Something about any device may have changed.
    Everything,
    /// No changes are told until [`News::Watching`].
    Lost,
}

enum State {
    Closed { pause: Duration, failures: u32 },
    Open(Box<EventStream>),
}

/// An endless stream of news.
pub(super) fn news(client: &AuthorityClient, key: &OrgKey) -> impl Stream<Item = News> {
    let start = State::Closed { pause: Duration::ZERO, failures: 0 };
    futures_util::stream::unfold(start, async move |mut state| {
        loop {
            let (news, next) = step(client, key, state).await;
            if let Some(news) = news {
                return Some((news, next));
            }
            state = next;
        }
    })
}

async fn step(client: &AuthorityClient, key: &OrgKey, state: State) -> (Option<News>, State) {
    match state {
        State::Closed { pause, failures } => {
            tokio::time::sleep(pause).await;
            match opened(client, key).await {
                Ok(stream) => (Some(News::Watching), State::Open(Box::new(stream))),
                Err(failure) => (Some(News::Lost), closed(failures + 1, failure.as_ref())),
            }
        }
        State::Open(mut stream) => match tokio::time::timeout(SILENCE, stream.next()).await {
            Ok(Ok(Some(event))) => (read(&event), State::Open(stream)),
            Ok(Ok(None) | Err(_)) | Err(_) => (Some(News::Lost), closed(1, None)),
        },
    }
}

fn closed(failures: u32, failure: Option<&Failure>) -> State {
    let pause = Doubling { first: FIRST_PAUSE, longest: LONGEST_PAUSE }.after(failures);
    State::Closed { pause: pause.max(failure.and_then(Failure::retry_after).unwrap_or_default()), failures }
}

/// A stream whose first event has arrived.
async fn opened(client: &AuthorityClient, key: &OrgKey) -> Result<EventStream, Option<Failure>> {
    let mut stream = client.changes(key).await.map_err(Some)?;
    let first = tokio::time::timeout(SILENCE, stream.next()).await.map_err(|_| None)?;
    match first.map_err(Some)? {
        Some(ServerSentEvent::Named { name, .. }) if name == "ready" => Ok(stream),
        Some(_) | None => Err(None),
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Changed {
    device_ids: BTreeSet<String>,
}

/// The news in an event. An unknown event may be about any device.
fn read(event: &ServerSentEvent) -> Option<News> {
    let ServerSentEvent::Named { name, data } = event else { return None };
    if name != "changed" {
        return None;
    }
    match serde_json::from_str::<Changed>(data) {
        Ok(Changed { device_ids }) if !device_ids.is_empty() => Some(News::Changed(device_ids)),
        Ok(_) | Err(_) => Some(News::Everything),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_may_be_about_anything() {
        let of =
            |name: &str, data: &str| read(&ServerSentEvent::Named { name: name.to_owned(), data: data.to_owned() });
        let some = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        assert_eq!(of("changed", r#"{"deviceIds":["b","a","a"],"more":1}"#), Some(News::Changed(some)));
        for data in [r#"{"all":true}"#, r#"{"deviceIds":[]}"#, "{", r#"{"deviceIds":"a"}"#] {
            assert_eq!(of("changed", data), Some(News::Everything), "{data}");
        }
        assert_eq!((of("ready", "{}"), of("validate", "{}"), read(&ServerSentEvent::Alive)), (None, None, None));
    }
}
