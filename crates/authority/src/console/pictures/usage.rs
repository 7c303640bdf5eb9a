//! A bar that shows how much of the plan is used.

use super::{Drawing, Picture, WIDTH, number};
use crate::console::words::grouped;

const HEIGHT: f64 = 18.0;

/// Draws the bar: `used` of `limit` places are taken.
pub(in crate::console) fn usage(used: u64, limit: u64) -> Picture {
    let full = used >= limit;
    let share = if limit == 0 { 1.0 } else { (number(used) / number(limit)).min(1.0) };
    let mut drawing = Drawing::new(HEIGHT);
    let within = WIDTH - 2.0;
    // Any use is visible, however large the plan.
    let width = if used == 0 { 0.0 } else { (within * share).max(2.0) };
    drawing.rect(if full { "over" } else { "part" }, (1.0, 1.0), (width, HEIGHT - 2.0));
    drawing.rect("rim", (1.0, 1.0), (within, HEIGHT - 2.0));
    let full = if full { ": the plan is full" } else { "" };
    drawing.done(&format!("{} of {} places taken{full}", grouped(used), grouped(limit)))
}
