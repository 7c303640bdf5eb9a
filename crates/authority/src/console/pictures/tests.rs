use jiff::Timestamp;
use serde_json::json;

use super::states::{Lane, Span};
use super::*;
use crate::reports::KnownEvent;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// The text alternative, as a screen reader says it.
fn sense(picture: &Picture) -> &str {
    let text = &picture.0;
    let begin = text.find("aria-label=\"").unwrap() + 12;
    &text[begin..begin + text[begin..].find('"').unwrap()]
}

/// The numbers of an attribute of every element of this class.
fn numbers(picture: &Picture, class: &str, attribute: &str) -> Vec<f64> {
    let elements = picture.0.split('<').filter(|element| element.contains(&format!("class=\"{class}\"")));
    let values = elements.filter_map(|element| element.split(&format!(" {attribute}=\"")).nth(1));
    values.filter_map(|value| value.split('"').next()?.parse().ok()).collect()
}

/// The corners of the line of this class.
fn corners(picture: &Picture, class: &str) -> Vec<(f64, f64)> {
    let element = picture.0.split('<').find(|element| element.contains(&format!("class=\"{class}\""))).unwrap();
    let points = element.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
    let pair = |pair: &str| pair.split_once(',').map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()));
    points.split(' ').filter_map(pair).collect()
}

#[test]
fn a_picture_is_well_formed_says_its_sense_and_stays_within_itself() {
    let progress = |stopped: &[u64], outstanding, bound: Option<u64>, since| Progress {
        stopped: stopped.iter().copied().map(millis).collect(),
        outstanding,
        bound: bound.map(millis),
        since: millis(since),
    };
    let spans = [Span { from: at(0), lane: Lane::Allowed }, Span { from: at(60), lane: Lane::Denied }];
    for picture in [
        usage(0, 0),
        usage(u64::MAX, 1),
        usage(3, u64::MAX),
        curve(&progress(&[], 0, None, 0)),
        curve(&progress(&[], 3, None, u64::MAX)),
        curve(&progress(&[5, 1, 7_000_000], 3, Some(100), 50)),
        histogram(&[]),
        histogram(&[Duration::MAX, Duration::ZERO]),
        states(&[], at(0)),
        states(&spans, at(61)),
        states(&spans, at(-10)),
    ] {
        let text = picture.to_string();
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>") && !sense(&picture).is_empty(), "{text}");
        assert!(!text.contains("NaN") && !text.contains("inf") && !text.contains("style"), "{text}");
        for open in ["<text", "<title"] {
            let close = open.replace('<', "</");
            assert_eq!(text.matches(open).count(), text.matches(&close).count(), "{text}");
        }
        for attribute in ["x", "y", "width", "height"] {
            let values =
                text.split('<').skip(2).filter_map(|element| element.split(&format!(" {attribute}=\"")).nth(1));
            for value in values.filter_map(|value| value.split('"').next()?.parse::<f64>().ok()) {
                assert!((0.0..=WIDTH).contains(&value), "{attribute}={value} in {text}");
            }
        }
    }
}

#[test]
fn a_bar_is_as_long_as_what_is_taken() {
    let bar = usage(250, 1_000);
    assert_eq!((sense(&bar), numbers(&bar, "part", "width")), ("250 of 1,000 places taken", vec![84.5]));
    assert_eq!(numbers(&usage(1, 1_000_000), "part", "width"), [2.0], "one is seen");
    assert_eq!(numbers(&usage(0, 10), "part", "width"), [0.0]);
    let full = usage(1_200, 1_000);
    assert_eq!(
        (sense(&full), numbers(&full, "over", "width")),
        ("1,200 of 1,000 places taken: the plan is full", vec![338.0])
    );
}

#[test]
fn a_curve_climbs_with_each_agent_and_stays_below_what_is_outstanding() {
    let stopped = [300, 100, 200].map(millis).to_vec();
    let under_way = curve(&Progress { stopped, outstanding: 1, bound: Some(millis(41_000)), since: millis(2_000) });
    assert_eq!(
        sense(&under_way),
        "3 of 4 agents have stopped, half of these within 200 ms, the last after 300 ms; 1 may still run, \
         at most until 41 s after the stop"
    );
    let line = corners(&under_way, "curve");
    assert!(line.is_sorted_by(|one, next| one.0 <= next.0 && one.1 >= next.1), "{line:?}");
    let goal = corners(&under_way, "goal")[0].1;
    assert!(line.last().unwrap().1 > goal, "not all have stopped: {line:?}");
    let limit = corners(&under_way, "limit");
    assert!(line.last().unwrap().0 < limit[0].0, "the lease has not ended: {limit:?}");

    let stopped = [100, 200].map(millis).to_vec();
    let done = curve(&Progress { stopped, outstanding: 0, bound: Some(millis(41_000)), since: millis(60_000) });
    let (goal, line) = (corners(&done, "goal"), corners(&done, "curve"));
    assert_eq!(line.last(), goal.last(), "all have stopped");
    assert!(!done.0.contains("limit") && done.0.contains("200 ms"), "drawn at the scale of what happened: {done}");
}

#[test]
fn a_histogram_counts_each_stop_once() {
    let picture = histogram(&[90, 100, 101, 800, 31_000].map(millis));
    assert_eq!(
        sense(&picture),
        "How long 5 stops took: 2 within 100 ms, 1 within 200 ms, 1 within 1.0 s, 1 longer; half within 101 ms, \
         the longest 31 s"
    );
    let heights = numbers(&picture, "part", "height");
    assert_eq!(heights.len(), 4);
    assert!(
        (heights[0] - 2.0 * heights[1]).abs() < 0.2
            && heights[1..].iter().all(|height| (height - heights[1]).abs() < 0.2)
    );
    assert_eq!(sense(&histogram(&[])), "No stop yet");
}

#[test]
fn the_state_of_a_device_is_told_by_its_row() {
    let spans = [
        Span { from: at(0), lane: Lane::Allowed },
        Span { from: at(30), lane: Lane::Undecided },
        Span { from: at(40), lane: Lane::Allowed },
        Span { from: at(80), lane: Lane::Denied },
    ];
    let picture = states(&spans, at(100));
    assert_eq!(
        sense(&picture),
        "Denied since 2027-01-15 08:01:20 UTC; in the time shown 2 times allowed, once denied, once undecided"
    );
    let widths = |class| numbers(&picture, class, "width");
    assert_eq!(widths("good"), [81.0, 108.0]);
    assert_eq!((widths("halt"), widths("bad")), (vec![27.0], vec![54.0]));
    let row = |class| numbers(&picture, class, "y")[0];
    assert!(row("good") < row("bad") && row("bad") < row("halt"));
}

#[test]
fn the_state_is_what_was_told_of_decisions() {
    let told = |number: i64, event: &str, standing: Option<&str>| {
        let body = json!({"id": format!("00000001-{number}"), "deviceId": "a", "agoMs": 0, "event": event, "standing": standing});
        KnownEvent::read(&"0".repeat(32), at(number), &body.to_string()).unwrap()
    };
    let newest_first = [
        told(6, "decision", Some("unavailable")),
        told(5, "decision", Some("denied")),
        told(4, "agent-started", None),
        told(3, "decision", Some("allowed")),
        told(2, "decision", Some("allowed")),
        told(1, "decision", Some("unknown")),
    ];
    let expected = [(1, Lane::Undecided), (2, Lane::Allowed), (5, Lane::Denied), (6, Lane::Undecided)];
    assert_eq!(held(&newest_first), expected.map(|(from, lane)| Span { from: at(from), lane }));
}

#[test]
fn durations_are_as_exact_as_they_are_read() {
    let texts = [0, 999, 1_000, 9_949, 9_999, 10_000, 599_000, 3_600_000].map(|span| took(millis(span)));
    assert_eq!(texts, ["0 ms", "999 ms", "1.0 s", "9.9 s", "10.0 s", "10 s", "599 s", "60 min"]);
}
