//! The two text forms: OpenMetrics, and the older one of Prometheus for readers that do not ask for OpenMetrics.

/// The media type of OpenMetrics.
pub const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The media type of the older form.
pub const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether a reader accepts the older form alone, by its header `accept`. One that names neither gets OpenMetrics.
pub fn is_plain(accept: Option<&str>) -> bool {
    accept.is_some_and(|accept| accept.contains("text/plain") && !accept.contains("application/openmetrics-text"))
}

/// OpenMetrics text in the older form: there a counter's family has the name of its samples, and neither units, info nor the end
/// are known.
pub fn plain(open: &str) -> String {
    let mut text = String::with_capacity(open.len());
    let mut help: Option<(&str, &str)> = None;
    for line in open.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // Written once the type is known, which decides the name.
            help = rest.split_once(' ');
            continue;
        }
        let Some((family, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        let (end, kind) = match kind {
            "counter" => ("_total", "counter"),
            "info" => ("_info", "gauge"),
            other => ("", other),
        };
        if let Some((_, words)) = help.take().filter(|(name, _)| *name == family) {
            text.push_str(&format!("# HELP {family}{end} {words}\n"));
        }
        text.push_str(&format!("# TYPE {family}{end} {kind}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_form_names_counters_and_info_by_their_samples() {
        let open = "# HELP a_seconds A.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total{x=\"y\"} 1.0\n\
                    # HELP b B.\n# TYPE b info\nb_info{v=\"1\"} 1\n# HELP c C.\n# TYPE c histogram\nc_bucket{le=\"+Inf\"} 0\n# EOF\n";
        let expected = "# HELP a_seconds_total A.\n# TYPE a_seconds_total counter\na_seconds_total{x=\"y\"} 1.0\n\
                        # HELP b_info B.\n# TYPE b_info gauge\nb_info{v=\"1\"} 1\n# HELP c C.\n# TYPE c histogram\n\
                        c_bucket{le=\"+Inf\"} 0\n";
        assert_eq!(plain(open), expected);
    }

    #[test]
    fn readers_get_what_they_accept() {
        assert!(is_plain(Some("text/plain;version=0.0.4;q=0.5,*/*;q=0.1")));
        for other in [None, Some("*/*"), Some("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")] {
            assert!(!is_plain(other), "{other:?}");
        }
    }
}
