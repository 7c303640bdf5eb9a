//! A histogram of the durations of stops.

use std::time::Duration;

use super::{Anchor, Drawing, Picture, WIDTH, median, number, took};
use crate::console::words::grouped;

/// The upper edges of all bars except the last, in milliseconds. Each is about twice the previous one: one second
/// instead of two is as much of an improvement as five instead of ten.
const EDGES: [(u64, &str); 8] = [
    (100, "0.1 s"),
    (200, "0.2"),
    (500, "0.5"),
    (1_000, "1 s"),
    (2_000, "2"),
    (5_000, "5"),
    (10_000, "10 s"),
    (30_000, "30"),
];

const HEIGHT: f64 = 130.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = HEIGHT - 20.0;
const LEFT: f64 = 4.0;

/// Draws bars: the number of stops up to each duration.
pub(in crate::console) fn histogram(took_each: &[Duration]) -> Picture {
    let mut sorted = took_each.to_vec();
    sorted.sort_unstable();
    let mut bars = [0_u64; EDGES.len() + 1];
    for span in &sorted {
        let place = EDGES.iter().position(|(edge, _)| span.as_millis() <= u128::from(*edge)).unwrap_or(EDGES.len());
        bars[place] += 1;
    }
    let most = bars.iter().copied().max().unwrap_or(0).max(1);
    let mut drawing = Drawing::new(HEIGHT);
    let width = (WIDTH - 2.0 * LEFT) / number(u64::try_from(bars.len()).unwrap_or(1));
    let mut x = LEFT;
    for (place, count) in bars.iter().enumerate() {
        let middle = x + width / 2.0;
        if *count > 0 {
            let height = ((BOTTOM - TOP) * number(*count) / number(most)).max(2.0);
            drawing.rect("part", (x + 2.0, BOTTOM - height), (width - 4.0, height));
            drawing.label((middle, BOTTOM - height - 4.0), Anchor::Middle, &grouped(*count));
        }
        let edge = EDGES.get(place).map_or("more", |(_, name)| name);
        drawing.label((middle, BOTTOM + 14.0), Anchor::Middle, &edge);
        x += width;
    }
    drawing.line("axis", &[(LEFT, BOTTOM), (WIDTH - LEFT, BOTTOM)]);
    drawing.done(&sense(&sorted, &bars))
}

fn sense(sorted: &[Duration], bars: &[u64]) -> String {
    let (Some(median), Some(longest)) = (median(sorted), sorted.last()) else { return "No stop yet".to_owned() };
    let named = EDGES.iter().map(|(edge, _)| format!("within {}", took(Duration::from_millis(*edge))));
    let named = named.chain([String::from("longer")]);
    let counted: Vec<String> = bars
        .iter()
        .zip(named)
        .filter(|(count, _)| **count > 0)
        .map(|(count, name)| format!("{} {name}", grouped(*count)))
        .collect();
    let count = grouped(u64::try_from(sorted.len()).unwrap_or(u64::MAX));
    format!(
        "How long {count} stops took: {}; half within {}, the longest {}",
        counted.join(", "),
        took(median),
        took(*longest)
    )
}
