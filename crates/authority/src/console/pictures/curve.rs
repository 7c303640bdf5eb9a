//! A curve of the agents stopped over the time since a stop was requested.

use std::fmt::Write;
use std::time::Duration;

use super::{Anchor, Drawing, Picture, WIDTH, median, number, took};
use crate::console::words::grouped;

const HEIGHT: f64 = 170.0;
const LEFT: f64 = 36.0;
const RIGHT: f64 = WIDTH - 12.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = HEIGHT - 24.0;

/// The data of a running or finished stop. Times are relative to its request.
#[derive(Clone, Debug)]
pub(in crate::console) struct Progress {
    /// When each stopped agent ended.
    pub(in crate::console) stopped: Vec<Duration>,
    /// Agents that may still run.
    pub(in crate::console) outstanding: u64,
    /// When the last lease of those agents ends, in the worst case.
    pub(in crate::console) bound: Option<Duration>,
    /// How long ago the stop was requested.
    pub(in crate::console) since: Duration,
}

/// Draws the curve, from the request to the end of the outstanding agents.
pub(in crate::console) fn curve(progress: &Progress) -> Picture {
    let mut stopped = progress.stopped.clone();
    stopped.sort_unstable();
    let done = u64::try_from(stopped.len()).unwrap_or(u64::MAX);
    let total = done.saturating_add(progress.outstanding);
    let last = stopped.last().copied().unwrap_or_default();
    let under_way = progress.outstanding > 0;
    let end = match progress.bound.filter(|_| under_way) {
        Some(bound) => bound.max(last),
        None if under_way => progress.since.max(last),
        None => last,
    };
    let scale = Scale { end: nice(end), total: total.max(1) };
    let mut drawing = Drawing::new(HEIGHT);
    axes(&mut drawing, &scale, total);
    if let Some(bound) = progress.bound.filter(|_| under_way) {
        let x = scale.x(bound);
        drawing.line("limit", &[(x, TOP), (x, BOTTOM)]);
        let anchor = if x > WIDTH / 2.0 { Anchor::End } else { Anchor::Start };
        drawing.label((x, TOP - 6.0), anchor, &"last lease ends");
    }
    let mut points = vec![(LEFT, BOTTOM)];
    let mut height = 0;
    for at in &stopped {
        points.push((scale.x(*at), scale.y(height)));
        height += 1;
        points.push((scale.x(*at), scale.y(height)));
    }
    // Up to now, or to the end of the picture when nothing can change any more.
    let now = if under_way { progress.since.max(last) } else { scale.end };
    points.push((scale.x(now), scale.y(height)));
    drawing.line("curve", &points);
    drawing.done(&sense(&stopped, total, progress))
}

fn sense(stopped: &[Duration], total: u64, progress: &Progress) -> String {
    let count = u64::try_from(stopped.len()).unwrap_or(u64::MAX);
    let mut text = format!("{} of {} agents have stopped", grouped(count), grouped(total));
    // Writing to a string does not fail.
    if let (Some(median), Some(last)) = (median(stopped), stopped.last()) {
        let _ = write!(text, ", half of these within {}, the last after {}", took(median), took(*last));
    }
    if progress.outstanding > 0 {
        let _ = write!(text, "; {} may still run", grouped(progress.outstanding));
        if let Some(bound) = progress.bound {
            let _ = write!(text, ", at most until {} after the stop", took(bound));
        }
    }
    text
}

struct Scale {
    end: Duration,
    total: u64,
}

impl Scale {
    fn x(&self, at: Duration) -> f64 {
        LEFT + (RIGHT - LEFT) * (at.as_secs_f64() / self.end.as_secs_f64()).min(1.0)
    }

    fn y(&self, count: u64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * number(count) / number(self.total)
    }
}

fn axes(drawing: &mut Drawing, scale: &Scale, total: u64) {
    drawing.line("axis", &[(LEFT, TOP), (LEFT, BOTTOM), (RIGHT, BOTTOM)]);
    drawing.line("goal", &[(LEFT, TOP), (RIGHT, TOP)]);
    drawing.label((LEFT - 5.0, TOP + 4.0), Anchor::End, &grouped(total));
    drawing.label((LEFT - 5.0, BOTTOM), Anchor::End, &0);
    drawing.label((LEFT, BOTTOM + 15.0), Anchor::Start, &0);
    drawing.label((f64::midpoint(LEFT, RIGHT), BOTTOM + 15.0), Anchor::Middle, &took(scale.end / 2));
    drawing.label((RIGHT, BOTTOM + 15.0), Anchor::End, &took(scale.end));
}

/// The next larger round time whose half is also round.
fn nice(span: Duration) -> Duration {
    const ROUND: [u64; 22] = [
        100, 200, 400, 600, 1_000, 2_000, 3_000, 4_000, 6_000, 8_000, 10_000, 16_000, 20_000, 30_000, 40_000, 60_000,
        80_000, 120_000, 180_000, 240_000, 360_000, 600_000,
    ];
    let found = ROUND.iter().map(|millis| Duration::from_millis(*millis)).find(|round| *round >= span);
    found.unwrap_or_else(|| Duration::from_secs(span.as_secs().div_ceil(1_200) * 1_200))
}
