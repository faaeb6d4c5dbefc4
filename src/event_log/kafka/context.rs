//! What librdkafka has to say: its log lines, its errors, its statistics.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;

/// A context that is shared by the clients of one log. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Context {
    /// Why the brokers could not be talked to, the last time.
    cause: Arc<Mutex<Option<String>>>,
    /// No broker could be reached, since the last time that all was well.
    lost_all: Arc<AtomicBool>,
    /// Counts what was heard: lines, errors, statistics.
    heard: Arc<AtomicU64>,
    metrics: Metrics,
}

impl Context {
    pub fn new(registry: &mut Registry) -> Self {
        let this = Self::default();
        this.metrics.register(registry);
        this
    }

    /// What stood between the clients and the brokers since the last
    /// [`Context::forget_cause`], for an operator.
    pub fn cause(&self) -> Option<String> {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a poll gave something, or something was heard during it: rdkafka says nothing
    /// of what it hands to a context, although more may wait behind it.
    pub fn hears(&self, poll: impl FnOnce() -> bool) -> bool {
        let before = self.heard.load(Ordering::Relaxed);
        poll() || self.heard.load(Ordering::Relaxed) != before
    }

    /// Whether no broker could be reached since then: one that cannot be is nothing yet.
    pub fn has_lost_all(&self) -> bool {
        self.lost_all.load(Ordering::Relaxed)
    }

    /// Once all is well again.
    pub fn forget_cause(&self) {
        self.lost_all.store(false, Ordering::Relaxed);
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        use RDKafkaLogLevel::{Alert, Critical, Emerg, Error, Notice, Warning};
        self.heard.fetch_add(1, Ordering::Relaxed);
        match (level, facility) {
            // Each attempt to connect that fails is one; what that means, and for how long,
            // the log itself says. And properties for writing are no use to readers.
            (_, "FAIL" | "ERROR" | "CONFWARN") => {
                tracing::debug!(target: "librdkafka", facility, "{message}");
            }
            (Emerg | Alert | Critical | Error, _) => {
                tracing::error!(target: "librdkafka", facility, "{message}");
            }
            (Warning, _) => tracing::warn!(target: "librdkafka", facility, "{message}"),
            (Notice, _) => tracing::info!(target: "librdkafka", facility, "{message}"),
            _ => tracing::debug!(target: "librdkafka", facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(target: "librdkafka", %error, "{reason}");
        // That all brokers are down is what follows from the cause, not the cause.
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => self.lost_all.store(true, Ordering::Relaxed),
            // No trouble: a reader is told so when it comes to an end, or has lost its place.
            Some(RDKafkaErrorCode::PartitionEOF | RDKafkaErrorCode::AutoOffsetReset) => {}
            _ => *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = Some(lasting(reason)),
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        if statistics.client_type == "producer" {
            self.metrics.update(&statistics);
        }
    }
}

impl ConsumerContext for Context {}

/// A reason without what differs each time, such as
/// `Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT, …)`.
fn lasting(reason: &str) -> String {
    reason.split_once(" (after ").map_or(reason, |(before, _)| before).to_owned()
}

/// The producer's statistics. Source: STATISTICS.md of librdkafka.
#[derive(Clone, Default)]
struct Metrics {
    queued_records: Gauge,
    queued_bytes: Gauge,
    retries: Counter,
    timeouts: Counter,
    errors: Counter,
    round_trip: Family<Vec<(&'static str, String)>, Gauge<f64, AtomicU64>>,
}

impl Metrics {
    fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("kafka");
        r.register("queued_records", "Records not yet acknowledged", self.queued_records.clone());
        r.register(
            "queued_bytes",
            "Bytes of records not yet acknowledged",
            self.queued_bytes.clone(),
        );
        r.register("request_retries", "Requests sent again by the producer", self.retries.clone());
        r.register(
            "request_timeouts",
            "Requests of the producer without an answer",
            self.timeouts.clone(),
        );
        r.register(
            "request_errors",
            "Requests of the producer that could not be sent",
            self.errors.clone(),
        );
        r.register_with_unit(
            "round_trip",
            "From a producer's request to a broker's answer over the last seconds",
            Unit::Seconds,
            self.round_trip.clone(),
        );
    }

    fn update(&self, statistics: &Statistics) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.queued_records.set(gauge(statistics.msg_cnt));
        self.queued_bytes.set(gauge(statistics.msg_size));
        let brokers = statistics.brokers.values();
        let (mut retries, mut timeouts, mut errors) = (0, 0, 0);
        let mut current = HashMap::new();
        for broker in brokers.filter(|broker| broker.nodeid >= 0) {
            retries += broker.txretries;
            timeouts += broker.req_timeouts;
            errors += broker.txerrs;
            if let Some(rtt) = &broker.rtt {
                current.insert(broker.nodename.clone(), (rtt.p50, rtt.p99));
            }
        }
        raise(&self.retries, retries);
        raise(&self.timeouts, timeouts);
        raise(&self.errors, errors);
        // Brokers that are gone leave no value behind.
        self.round_trip.clear();
        for (broker, (p50, p99)) in current {
            for (quantile, micros) in [("0.5", p50), ("0.99", p99)] {
                let labels = vec![("broker", broker.clone()), ("quantile", quantile.to_owned())];
                self.round_trip.get_or_create(&labels).set(micros as f64 / 1e6);
            }
        }
    }
}

/// Brings a counter to a total. A new producer counts from 0 again, which adds nothing until
/// it has come as far.
fn raise(counter: &Counter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_cause_reads_the_same_each_time() {
        let context = Context::default();
        let error = || KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure);
        context.error(error(), "h:1: Connect failed: refused (after 0ms in state CONNECT)");
        assert_eq!(context.cause().as_deref(), Some("h:1: Connect failed: refused"));
        context.error(KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        assert_eq!(context.cause().as_deref(), Some("h:1: Connect failed: refused"));
    }

    #[test]
    fn one_broker_out_of_reach_is_not_all_of_them() {
        let context = Context::default();
        let fails = |code| context.error(KafkaError::Global(code), "why");
        fails(RDKafkaErrorCode::BrokerTransportFailure);
        assert!(!context.has_lost_all());
        fails(RDKafkaErrorCode::AllBrokersDown);
        assert!(context.has_lost_all());
        context.forget_cause();
        assert!(!context.has_lost_all() && context.cause().is_none());
    }
}
