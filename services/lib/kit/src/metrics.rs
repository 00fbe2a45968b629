//! Counters, gauges and histograms in the Prometheus text format, on atomics.
//!
//! A metric is registered once with static names and labels and is then a cheap handle; registering the
//! same name and labels again gives the same metric. Names get the prefix `baetyl_<service>_`, so one
//! process with several roles keeps them apart. Label values are fixed at registration: nothing that grows
//! with traffic (ids, paths) can become a label.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bounds in seconds that suit most waits, from a local call to a slow link.
pub const SECONDS: &[f64] = &[
    0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// Where a process's metrics are registered; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    families: Arc<Mutex<BTreeMap<String, Family>>>,
    prefix: String,
}

#[derive(Debug)]
struct Family {
    help: String,
    kind: Kind,
    series: BTreeMap<String, Series>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Clone, Debug)]
enum Series {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

/// A number that only grows.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

/// A number that goes up and down.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicU64>);

/// How often values fell below each of a fixed set of bounds.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    /// One more than bounds: the last counts what is above all of them. Not cumulative.
    counts: Vec<AtomicU64>,
    sum: AtomicU64,
}

impl Metrics {
    /// An empty registry whose names start with `baetyl_<service>_`.
    pub fn new(service: &str) -> Self {
        Self {
            families: Arc::default(),
            prefix: prefix(service),
        }
    }

    /// The same registry for another service in this process.
    pub fn child(&self, service: &str) -> Self {
        Self {
            families: Arc::clone(&self.families),
            prefix: prefix(service),
        }
    }

    /// A counter; by convention its name ends in `_total`.
    pub fn counter(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Counter {
        let made = Counter::default();
        match self.register(
            name,
            help,
            labels,
            Kind::Counter,
            Series::Counter(made.clone()),
        ) {
            Some(Series::Counter(counter)) => counter,
            _ => made,
        }
    }

    /// A gauge.
    pub fn gauge(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Gauge {
        let made = Gauge::default();
        match self.register(name, help, labels, Kind::Gauge, Series::Gauge(made.clone())) {
            Some(Series::Gauge(gauge)) => gauge,
            _ => made,
        }
    }

    /// A histogram with ascending `bounds` (use [`SECONDS`] for waits).
    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        bounds: &'static [f64],
    ) -> Histogram {
        let made = Histogram::new(bounds);
        match self.register(
            name,
            help,
            labels,
            Kind::Histogram,
            Series::Histogram(made.clone()),
        ) {
            Some(Series::Histogram(histogram)) => histogram,
            _ => made,
        }
    }

    /// None when the name is taken by another kind: the caller then keeps a metric nobody sees, which is
    /// better than a service that dies of its metrics. The log says so.
    fn register(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        kind: Kind,
        series: Series,
    ) -> Option<Series> {
        let name = format!("{}{name}", self.prefix);
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let family = families.entry(name.clone()).or_insert_with(|| Family {
            help: help.to_owned(),
            kind,
            series: BTreeMap::new(),
        });
        if family.kind != kind {
            tracing::error!(metric = %name, "metric is already registered as another kind");
            return None;
        }
        let series = family.series.entry(render_labels(labels)).or_insert(series);
        Some(series.clone())
    }

    /// Everything in the Prometheus text format 0.0.4.
    pub fn render(&self) -> String {
        let families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = String::new();
        for (name, family) in families.iter() {
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, series) in &family.series {
                series.render(name, labels, &mut out);
            }
        }
        out
    }
}

impl Series {
    fn render(&self, name: &str, labels: &str, out: &mut String) {
        match self {
            Self::Counter(counter) => {
                let _ = writeln!(out, "{name}{} {}", braced(labels), counter.get());
            }
            Self::Gauge(gauge) => {
                let _ = writeln!(out, "{name}{} {}", braced(labels), gauge.get());
            }
            Self::Histogram(histogram) => histogram.render(name, labels, out),
        }
    }
}

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Gauge {
    /// Replaces the value.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    /// Adds `delta`, which may be negative.
    pub fn add(&self, delta: f64) {
        add_f64(&self.0, delta);
    }

    /// The value now.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self(Arc::new(Buckets {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0f64.to_bits()),
        }))
    }

    /// Counts one value.
    pub fn observe(&self, value: f64) {
        let slot = self.0.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.0.counts.get(slot) {
            count.fetch_add(1, Relaxed);
            add_f64(&self.0.sum, value);
        }
    }

    /// Counts one duration, in seconds.
    pub fn observe_duration(&self, duration: Duration) {
        self.observe(duration.as_secs_f64());
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.0.counts.iter().map(|count| count.load(Relaxed)).sum()
    }

    fn render(&self, name: &str, labels: &str, out: &mut String) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut total = 0;
        for (index, count) in self.0.counts.iter().enumerate() {
            total += count.load(Relaxed);
            let bound = self
                .0
                .bounds
                .get(index)
                .map_or_else(|| "+Inf".to_owned(), f64::to_string);
            let _ = writeln!(
                out,
                "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}"
            );
        }
        let labels = braced(labels);
        let sum = f64::from_bits(self.0.sum.load(Relaxed));
        let _ = writeln!(
            out,
            "{name}_sum{labels} {sum}\n{name}_count{labels} {total}"
        );
    }
}

fn add_f64(cell: &AtomicU64, delta: f64) {
    let add = |bits| Some((f64::from_bits(bits) + delta).to_bits());
    // The closure never gives up, so neither does the update.
    let _ = cell.fetch_update(Relaxed, Relaxed, add);
}

fn prefix(service: &str) -> String {
    format!("baetyl_{}_", service.replace(['-', '/', '.'], "_"))
}

fn braced(labels: &str) -> String {
    if labels.is_empty() {
        String::new()
    } else {
        format!("{{{labels}}}")
    }
}

fn render_labels(labels: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in labels {
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        let comma = if out.is_empty() { "" } else { "," };
        let _ = write!(out, "{comma}{name}=\"{value}\"");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_format_is_what_prometheus_reads() {
        let metrics = Metrics::new("function-proxy");
        metrics
            .counter("calls_total", "Calls seen.", &[("code", "ok")])
            .add(3);
        metrics
            .counter("calls_total", "Calls seen.", &[("code", "a\"b")])
            .inc();
        metrics.gauge("inflight", "Calls running.", &[]).set(1.5);
        let wait = metrics.histogram("wait_seconds", "Wait.", &[("q", "x")], &[0.1, 1.0]);
        wait.observe(0.1);
        wait.observe(0.5);
        wait.observe_duration(Duration::from_secs(5));
        assert_eq!(
            metrics.render(),
            r#"# HELP baetyl_function_proxy_calls_total Calls seen.
# TYPE baetyl_function_proxy_calls_total counter
baetyl_function_proxy_calls_total{code="a\"b"} 1
baetyl_function_proxy_calls_total{code="ok"} 3
# HELP baetyl_function_proxy_inflight Calls running.
# TYPE baetyl_function_proxy_inflight gauge
baetyl_function_proxy_inflight 1.5
# HELP baetyl_function_proxy_wait_seconds Wait.
# TYPE baetyl_function_proxy_wait_seconds histogram
baetyl_function_proxy_wait_seconds_bucket{q="x",le="0.1"} 1
baetyl_function_proxy_wait_seconds_bucket{q="x",le="1"} 2
baetyl_function_proxy_wait_seconds_bucket{q="x",le="+Inf"} 3
baetyl_function_proxy_wait_seconds_sum{q="x"} 5.6
baetyl_function_proxy_wait_seconds_count{q="x"} 3
"#
        );
    }

    #[test]
    fn registering_twice_gives_the_same_counter() {
        let metrics = Metrics::new("node");
        metrics.counter("n", "N.", &[]).inc();
        metrics.counter("n", "N.", &[]).inc();
        assert_eq!(metrics.counter("n", "N.", &[]).get(), 2);
    }

    #[test]
    fn a_name_taken_by_another_kind_stays_what_it_was() {
        let metrics = Metrics::new("node");
        metrics.counter("n", "N.", &[]).inc();
        metrics.gauge("n", "N.", &[]).set(9.0);
        assert!(metrics.render().contains("baetyl_node_n 1\n"));
    }

    #[test]
    fn roles_of_one_process_share_the_page_and_not_the_names() {
        let metrics = Metrics::new("edge");
        let node = metrics.child("node");
        node.counter("n", "N.", &[]).inc();
        metrics.counter("n", "N.", &[]).add(2);
        let page = metrics.render();
        assert!(page.contains("baetyl_node_n 1\n") && page.contains("baetyl_edge_n 2\n"));
    }

    #[test]
    fn a_gauge_goes_up_and_down() {
        let gauge = Gauge::default();
        gauge.add(2.0);
        gauge.add(-0.5);
        assert!((gauge.get() - 1.5).abs() < f64::EPSILON);
    }
}
