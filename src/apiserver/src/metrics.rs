//! What the server counts.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use kontiki_base::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerbLabels {
    verb: &'static str,
    resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    request_kind: &'static str,
}

/// Upper bounds of the buckets of request durations, in seconds.
const DURATION_BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

/// The server's metrics.
#[derive(Clone)]
pub(crate) struct ServerMetrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<VerbLabels, Histogram, fn() -> Histogram>,
    in_flight: Family<KindLabels, Gauge>,
    watches: Gauge,
    connections: Gauge,
    pub(crate) handshakes_failed: Counter,
    pub(crate) all: Metrics,
}

/// What a finished request was about.
pub(crate) struct Observed<'a> {
    pub(crate) verb: &'static str,
    pub(crate) group: &'a str,
    pub(crate) version: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) code: u16,
}

impl ServerMetrics {
    pub(crate) fn new(all: &Metrics) -> ServerMetrics {
        let histogram: fn() -> Histogram = || Histogram::new(DURATION_BUCKETS);
        ServerMetrics {
            requests: all.register(
                "apiserver_request",
                "Requests by verb, resource and code.",
                Family::default(),
            ),
            durations: all.register(
                "apiserver_request_duration_seconds",
                "Time from the request's head to the answer's head.",
                Family::new_with_constructor(histogram),
            ),
            in_flight: all.register(
                "apiserver_current_inflight_requests",
                "Requests being served.",
                Family::default(),
            ),
            watches: all.register(
                "apiserver_registered_watchers",
                "Watches being served.",
                Gauge::default(),
            ),
            connections: all.register(
                "apiserver_connections",
                "Open connections.",
                Gauge::default(),
            ),
            handshakes_failed: all.register(
                "apiserver_tls_handshake_errors",
                "TLS handshakes that failed.",
                Counter::default(),
            ),
            all: all.clone(),
        }
    }

    pub(crate) fn observe(&self, o: &Observed<'_>, took: Duration) {
        let labels = RequestLabels {
            verb: o.verb,
            group: o.group.to_owned(),
            version: o.version.to_owned(),
            resource: o.resource.to_owned(),
            subresource: o.subresource.to_owned(),
            code: o.code,
        };
        self.requests.get_or_create(&labels).inc();
        // Watches and proxied streams last as long as their clients like.
        if o.verb != "WATCH" && o.verb != "CONNECT" {
            let labels = VerbLabels {
                verb: o.verb,
                resource: o.resource.to_owned(),
            };
            self.durations
                .get_or_create(&labels)
                .observe(took.as_secs_f64());
        }
    }

    pub(crate) fn watching(&self) -> Gauged {
        Gauged::new(self.watches.clone())
    }

    pub(crate) fn connected(&self) -> Gauged {
        Gauged::new(self.connections.clone())
    }

    pub(crate) fn serving(&self, mutating: bool) -> Gauged {
        let request_kind = if mutating { "mutating" } else { "readOnly" };
        Gauged::new(
            self.in_flight
                .get_or_create(&KindLabels { request_kind })
                .clone(),
        )
    }
}

/// The content type of the older text form, which scrapers get unless they ask for OpenMetrics.
const CLASSIC_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// The metrics in the form that the client asks for.
pub(crate) fn exposition(all: &Metrics, accept: Option<&str>) -> (&'static str, String) {
    let text = all.encode();
    if accept.is_some_and(|a| a.contains("application/openmetrics-text")) {
        return (kontiki_base::metrics::CONTENT_TYPE, text);
    }
    (CLASSIC_TYPE, classic(&text))
}

/// OpenMetrics text in the older form: a counter's family is called as its sample is, and there is no mark of the end.
fn classic(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let counters: std::collections::HashSet<&str> = text
        .lines()
        .filter_map(|l| l.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    for line in text.lines().filter(|l| *l != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what @ ("HELP" | "TYPE")), Some(name), Some(rest))
                if counters.contains(name) =>
            {
                out.push_str(&format!("# {what} {name}_total {rest}\n"));
            }
            (Some("#"), Some("UNIT"), ..) => {}
            (Some("#"), Some("TYPE"), Some(name), Some("unknown")) => {
                out.push_str(&format!("# TYPE {name} untyped\n"));
            }
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

/// Counts itself in a gauge while it lives.
pub(crate) struct Gauged(Gauge<i64, AtomicI64>);

impl Gauged {
    fn new(g: Gauge<i64, AtomicI64>) -> Gauged {
        g.inc();
        Gauged(g)
    }
}

impl Drop for Gauged {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrapers_get_the_form_that_they_ask_for() {
        let all = Metrics::default();
        all.register("a", "Things.", Counter::<u64>::default())
            .inc_by(2);
        all.register("b", "Level.", Gauge::<i64>::default());
        let (content_type, text) = exposition(&all, Some("*/*"));
        assert!(content_type.starts_with("text/plain; version=0.0.4"));
        assert_eq!(
            text,
            "# HELP a_total Things..\n# TYPE a_total counter\na_total 2\n# HELP b Level..\n# TYPE b gauge\nb 0\n"
        );
        let (content_type, text) =
            exposition(&all, Some("application/openmetrics-text;version=1.0.0,*/*"));
        assert!(content_type.starts_with("application/openmetrics-text"));
        assert!(text.ends_with("# EOF\n"));
    }
}
