//! The registry that components put their metrics in, and its text form.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::{Metric, Registry};

/// A shared metrics registry. Clones are the same registry.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Mutex<Registry>>);

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Metrics {
    /// Registers a metric under its full name (without `_total`, which the text form adds to counters) and gives it back.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.0.lock().register(name, help, metric.clone());
        metric
    }

    /// The metrics as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.0.lock()).expect("writing to a String does not fail");
        text
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn a_registered_counter_is_printed() {
        let m = Metrics::default();
        m.register("apiserver_request", "Requests.", Counter::<u64>::default())
            .inc_by(3);
        assert!(
            m.encode().contains("apiserver_request_total 3"),
            "{}",
            m.encode()
        );
    }
}
