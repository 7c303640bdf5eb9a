//! The decisions about a device over time, as its sidecars reported them.

use jiff::Timestamp;
use machineid_protocol::report::EventKind;
use machineid_protocol::status::StandingKind;

use super::{Anchor, Drawing, Picture, WIDTH};
use crate::reports::KnownEvent;

/// The row in which a span is drawn. The row alone says the decision; the colour is additional.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::console) enum Lane {
    Allowed,
    Denied,
    /// There was no answer yet, or not any more.
    Undecided,
}

impl Lane {
    const ALL: [Self; 3] = [Self::Allowed, Self::Denied, Self::Undecided];

    const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "Allowed",
            Self::Denied => "Denied",
            Self::Undecided => "Undecided",
        }
    }

    const fn class(self) -> &'static str {
        match self {
            Self::Allowed => "good",
            Self::Denied => "bad",
            Self::Undecided => "halt",
        }
    }

    const fn top(self) -> f64 {
        match self {
            Self::Allowed => 4.0,
            Self::Denied => 4.0 + ROW,
            Self::Undecided => 4.0 + 2.0 * ROW,
        }
    }
}

/// The start of a time in a lane; it lasts until the next span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::console) struct Span {
    pub(super) from: Timestamp,
    pub(super) lane: Lane,
}

/// The decisions over time, from the events in `told`, the newest first.
pub(in crate::console) fn held(told: &[KnownEvent]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for known in told.iter().rev().filter(|known| known.event.event == EventKind::Decision) {
        let lane = match known.event.standing {
            Some(StandingKind::Allowed) => Lane::Allowed,
            Some(StandingKind::Denied) => Lane::Denied,
            Some(StandingKind::Unknown | StandingKind::Unavailable) | None => Lane::Undecided,
        };
        if spans.last().is_none_or(|last| last.lane != lane) {
            spans.push(Span { from: known.at, lane });
        }
    }
    spans
}

const ROW: f64 = 22.0;
const BARS: f64 = 3.0 * ROW + 4.0;
const HEIGHT: f64 = BARS + 20.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = WIDTH - 4.0;

/// Draws bars, one row for each lane, from the first of the sorted `spans` to `now`.
pub(in crate::console) fn states(spans: &[Span], now: Timestamp) -> Picture {
    let mut drawing = Drawing::new(HEIGHT);
    let begin = spans.first().map_or(now, |span| span.from.min(now));
    let seconds = |at: Timestamp| at.duration_since(begin).as_secs_f64();
    let whole = seconds(now).max(1.0);
    let x = |at: Timestamp| LEFT + (RIGHT - LEFT) * (seconds(at) / whole).clamp(0.0, 1.0);
    for lane in Lane::ALL {
        drawing.label((LEFT - 6.0, lane.top() + 14.0), Anchor::End, &lane.name());
        drawing.line("goal", &[(LEFT, lane.top() + 10.0), (RIGHT, lane.top() + 10.0)]);
    }
    for (place, span) in spans.iter().enumerate() {
        let end = spans.get(place + 1).map_or(now, |next| next.from);
        // A short span stays visible.
        let width = (x(end) - x(span.from)).max(2.0);
        drawing.rect(span.lane.class(), (x(span.from).min(RIGHT - 2.0), span.lane.top() + 3.0), (width, ROW - 8.0));
    }
    drawing.line("axis", &[(LEFT, BARS), (RIGHT, BARS)]);
    let today = begin.strftime("%F").to_string() == now.strftime("%F").to_string();
    let begin = begin.strftime(if today { "%T" } else { "%F %H:%M" }).to_string();
    drawing.label((LEFT, BARS + 14.0), Anchor::Start, &begin);
    drawing.label((RIGHT, BARS + 14.0), Anchor::End, &now.strftime("now, %T"));
    drawing.done(&sense(spans))
}

fn sense(spans: &[Span]) -> String {
    let Some(last) = spans.last() else { return "Nothing is known yet".to_owned() };
    let count = |lane| spans.iter().filter(|span| span.lane == lane).count();
    let times = |lane, word: &str| match count(lane) {
        0 => format!("never {word}"),
        1 => format!("once {word}"),
        several => format!("{several} times {word}"),
    };
    format!(
        "{} since {}; in the time shown {}, {}, {}",
        last.lane.name(),
        last.from.strftime("%F %T UTC"),
        times(Lane::Allowed, "allowed"),
        times(Lane::Denied, "denied"),
        times(Lane::Undecided, "undecided"),
    )
}
