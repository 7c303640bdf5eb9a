//! The metrics page of daemon and authority, in Prometheus' own text format.
//!
//! The library writes `OpenMetrics`. There the family of a counter is named without `_total`, that of an info without
//! `_info`, and some types do not exist in the older format: its scrapers would show those as untyped and without help.

#![forbid(unsafe_code)]

use std::fmt::Write;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// The page's content type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The page with all metrics of the registry.
#[must_use]
pub fn page(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, registry);
    translate(&text)
}

fn translate(open_metrics: &str) -> String {
    // Writing to a string does not fail.
    let mut page = String::with_capacity(open_metrics.len());
    let mut help: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        if let Some(about) = line.strip_prefix("# HELP ") {
            help = about.split_once(' ');
            continue;
        }
        let Some(about) = line.strip_prefix("# TYPE ") else {
            if !line.starts_with('#') {
                page.push_str(line);
                page.push('\n');
            }
            continue;
        };
        let Some((name, kind)) = about.split_once(' ') else { continue };
        let (suffix, kind) = match kind {
            "counter" => ("_total", "counter"),
            "info" => ("_info", "gauge"),
            other => ("", other),
        };
        if let Some((_, text)) = help.take().filter(|(about, _)| *about == name) {
            let _ = writeln!(page, "# HELP {name}{suffix} {text}");
        }
        let _ = writeln!(page, "# TYPE {name}{suffix} {kind}");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_the_names_of_their_series() {
        let text = "# HELP a_x Counted.\n# TYPE a_x counter\na_x_total{b=\"c\"} 1\n# HELP a_build B.\n# TYPE a_build info\n\
                    a_build_info{v=\"1\"} 1\n# HELP a_g G.\n# TYPE a_g gauge\na_g 2\n# EOF\n";
        let expected = "# HELP a_x_total Counted.\n# TYPE a_x_total counter\na_x_total{b=\"c\"} 1\n\
                        # HELP a_build_info B.\n# TYPE a_build_info gauge\na_build_info{v=\"1\"} 1\n\
                        # HELP a_g G.\n# TYPE a_g gauge\na_g 2\n";
        assert_eq!(translate(text), expected);
    }
}
