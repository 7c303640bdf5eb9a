//! Pictures on the pages: SVG elements. Pure.
//!
//! | file | concept |
//! |---|---|
//! | `usage` | how much of the plan is taken |
//! | `curve` | agents stopped over the time since a stop was requested |
//! | `histogram` | how long stops took |
//! | `states` | the decisions about a device over time, as reported |
//!
//! Each picture has a text alternative, and none shows anything by colour alone. Colours come from the style sheet, by
//! class, so that each has a dark variant. Only numbers, times and words of this module are drawn, and no text from
//! outside.

mod curve;
mod histogram;
mod states;
mod usage;

pub(in crate::console) use curve::{Progress, curve};
pub(in crate::console) use histogram::histogram;
pub(in crate::console) use states::{held, states};
pub(in crate::console) use usage::usage;

use std::fmt::{self, Display, Write};
use std::time::Duration;

/// The width of every picture, in its own units: about the width of a phone in pixels, so that text stays legible
/// there.
const WIDTH: f64 = 340.0;

/// A finished picture: an `svg` element, which pages embed without escaping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::console) struct Picture(String);

impl Display for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl askama::filters::HtmlSafe for Picture {}

/// The alignment of a label relative to its point.
#[derive(Clone, Copy, Debug)]
enum Anchor {
    Start,
    Middle,
    End,
}

/// A picture being drawn.
struct Drawing {
    height: f64,
    body: String,
}

impl Drawing {
    fn new(height: f64) -> Self {
        Self { height, body: String::new() }
    }

    fn rect(&mut self, class: &'static str, (x, y): (f64, f64), (width, height): (f64, f64)) {
        self.add(format_args!(
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"/>"#
        ));
    }

    fn line(&mut self, class: &'static str, points: &[(f64, f64)]) {
        let mut path = String::new();
        for (x, y) in points {
            // Writing to a string does not fail.
            let _ = write!(path, "{x:.1},{y:.1} ");
        }
        self.add(format_args!(r#"<polyline class="{class}" points="{}"/>"#, path.trim_end()));
    }

    fn label(&mut self, (x, y): (f64, f64), anchor: Anchor, text: &impl Display) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.add(format_args!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#));
    }

    fn add(&mut self, element: fmt::Arguments<'_>) {
        let _ = self.body.write_fmt(element);
    }

    /// Finishes the picture with its text alternative, which says everything that is drawn.
    fn done(self, sense: &str) -> Picture {
        let Self { height, body } = self;
        Picture(format!(
            r#"<svg class="picture" viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-label="{sense}"><title>{sense}</title>{body}</svg>"#
        ))
    }
}

/// A count as a coordinate. The precision lost beyond 2^52 is less than a pixel.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn number(count: u64) -> f64 {
    count as f64
}

/// Formats a duration with two or three digits.
fn took(span: Duration) -> String {
    let millis = span.as_millis();
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..10_000 => format!("{:.1} s", span.as_secs_f64()),
        10_000..600_000 => format!("{:.0} s", span.as_secs_f64()),
        _ => format!("{:.0} min", span.as_secs_f64() / 60.0),
    }
}

/// The median of a sorted list: the middle element, or the lower of two.
fn median(sorted: &[Duration]) -> Option<Duration> {
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests;
