//! What a fan-out came to, in numbers and in words.

use std::time::Duration;

use serde::Serialize;

use super::deliveries::{Counts, Deliveries};
use super::machine::Machine;
use super::report::{Versions, micros, millis};
use super::tally::Latency;
use crate::cli::output::{Output, StdoutError};

/// A whole measurement; `L` is what was asked for.
#[derive(Debug, Serialize)]
pub struct Report<L> {
    machine: Machine,
    versions: Versions,
    load: L,
    idle: Idle,
    /// In the order in which they were measured; the warm-up counts for losses only.
    phases: Vec<Phase>,
    /// The memory of the server when all was over.
    server_memory_bytes: Option<u64>,
    total: Total,
    troubles: Troubles,
}

/// The server with open streams on which nothing happens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Idle {
    subscribers: u64,
    /// How long it took until all streams were open and had everything.
    seconds_to_open: f64,
    /// Of one core.
    server_cpu_share: Option<f64>,
    server_memory_bytes_before: Option<u64>,
    server_memory_bytes: Option<u64>,
    /// The difference, with a subscriber's share of its connection.
    bytes_per_subscriber: Option<f64>,
}

/// What was measured in a phase.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Sent and delivered.
    pub counts: Counts,
    /// From the first send to the last delivery.
    pub time: Duration,
    /// CPU time of the server.
    pub cpu: Option<Duration>,
    /// From the send of an event to its receipt by a subscriber.
    pub latency: Latency,
    /// From the last send to the last delivery.
    pub recovery: Option<Duration>,
}

/// One phase.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "each name is its own documentation")]
pub struct Phase {
    pub name: &'static str,
    pub seconds: f64,
    pub events_sent: u64,
    pub deliveries_expected: u64,
    pub deliveries_received: u64,
    pub deliveries_lost: u64,
    pub deliveries_per_second: f64,
    pub server_cpu_micros_per_delivery: Option<f64>,
    pub server_cpu_micros_per_event: Option<f64>,
    pub latency_micros: Latency,
    pub recovery_micros: Option<u64>,
}

/// All phases together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Total {
    events_sent: u64,
    deliveries_expected: u64,
    deliveries_received: u64,
    deliveries_lost: u64,
}

/// What should not be, or is worth to know.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Troubles {
    repeated: u64,
    unwanted: u64,
    gaps: u64,
    calls_failed: u64,
    streams_ended: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_failure: Option<String>,
    /// No failure: subscribers that were slow, and then got everything from the log.
    fell_behind: u64,
    /// No failure: events of others.
    foreign: u64,
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}

fn by(time: Option<Duration>, count: u64) -> Option<f64> {
    // Less than a tick of the kernel's clock cannot be told from nothing.
    let time = time.filter(|time| count > 0 && !time.is_zero())?;
    Some(time.as_secs_f64() * 1e6 / number(count))
}

impl Idle {
    /// From memory and CPU time, each before and after.
    pub fn new(
        subscribers: u64,
        opening: Duration,
        memory: Option<(u64, u64)>,
        cpu: Option<(Duration, Duration)>,
        time: Duration,
    ) -> Self {
        Self {
            subscribers,
            seconds_to_open: opening.as_secs_f64(),
            server_cpu_share: cpu
                .map(|(before, after)| (after - before).as_secs_f64() / time.as_secs_f64()),
            server_memory_bytes_before: memory.map(|(before, _)| before),
            server_memory_bytes: memory.map(|(_, after)| after),
            bytes_per_subscriber: memory.map(|(before, after)| {
                number(after.saturating_sub(before)) / number(subscribers.max(1))
            }),
        }
    }
}

impl Phase {
    /// From what was measured.
    pub fn new(name: &'static str, measured: &Measured) -> Self {
        let Measured { counts, time, cpu, latency, recovery } = *measured;
        let seconds = time.as_secs_f64();
        Self {
            name,
            seconds,
            events_sent: counts.events,
            deliveries_expected: counts.expected,
            deliveries_received: counts.received,
            deliveries_lost: counts.lost(),
            deliveries_per_second: number(counts.received) / seconds.max(f64::MIN_POSITIVE),
            server_cpu_micros_per_delivery: by(cpu, counts.received),
            server_cpu_micros_per_event: by(cpu, counts.events),
            latency_micros: latency,
            recovery_micros: recovery
                .map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        }
    }
}

impl Troubles {
    /// What was noted.
    pub fn of(deliveries: &Deliveries) -> Self {
        Self {
            repeated: deliveries.repeated,
            unwanted: deliveries.unwanted,
            gaps: deliveries.gaps,
            calls_failed: deliveries.calls_failed,
            streams_ended: deliveries.streams_ended,
            first_failure: deliveries.first_failure.clone(),
            fell_behind: deliveries.fell_behind,
            foreign: deliveries.foreign,
        }
    }
}

impl<L> Report<L> {
    /// From all phases.
    pub fn new(
        load: L,
        idle: Idle,
        phases: Vec<Phase>,
        server_memory_bytes: Option<u64>,
        troubles: Troubles,
    ) -> Self {
        let total = phases.iter().fold(Total::default(), |total, phase| Total {
            events_sent: total.events_sent + phase.events_sent,
            deliveries_expected: total.deliveries_expected + phase.deliveries_expected,
            deliveries_received: total.deliveries_received + phase.deliveries_received,
            deliveries_lost: total.deliveries_lost + phase.deliveries_lost,
        });
        Self {
            machine: Machine::this(),
            versions: Versions::this(),
            load,
            idle,
            phases,
            server_memory_bytes,
            total,
            troubles,
        }
    }

    /// Writes it for people.
    pub fn table(&self, output: &mut Output) -> Result<(), StdoutError> {
        let idle = &self.idle;
        output.line(format_args!(
            "{} subscribers open after {:.2} s; idle they take {} bytes each and {} of a core",
            idle.subscribers,
            idle.seconds_to_open,
            idle.bytes_per_subscriber.map_or_else(|| "-".to_owned(), |bytes| format!("{bytes:.0}")),
            idle.server_cpu_share
                .map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0)),
        ))?;
        output.line(format_args!(
            "{:<8} {:>8} {:>11} {:>8} {:>10} {:>9} {:>9} {:>9} {:>9} {:>12} {:>12}",
            "",
            "events",
            "deliveries",
            "lost",
            "per s",
            "p50 ms",
            "p90 ms",
            "p99 ms",
            "max ms",
            "CPU µs each",
            "recovery ms"
        ))?;
        for phase in &self.phases {
            let latency = &phase.latency_micros;
            output.line(format_args!(
                "{:<8} {:>8} {:>11} {:>8} {:>10.0} {:>9} {:>9} {:>9} {:>9} {:>12} {:>12}",
                phase.name,
                phase.events_sent,
                phase.deliveries_received,
                phase.deliveries_lost,
                phase.deliveries_per_second,
                millis(latency.p50),
                millis(latency.p90),
                millis(latency.p99),
                millis(latency.max),
                micros(phase.server_cpu_micros_per_delivery),
                phase.recovery_micros.map_or_else(|| "-".to_owned(), millis),
            ))?;
        }
        let total = &self.total;
        output.line(format_args!(
            "{} of {} deliveries came, {} were repeated; {} times a subscriber fell behind",
            total.deliveries_received,
            total.deliveries_expected,
            self.troubles.repeated,
            self.troubles.fell_behind,
        ))
    }

    /// What went wrong, in words; none when everything came once.
    pub fn failures(&self) -> Option<String> {
        let troubles = &self.troubles;
        let counts = [
            (self.total.deliveries_lost, "deliveries lost"),
            (troubles.repeated, "deliveries repeated"),
            (troubles.unwanted, "deliveries of events that were not asked for"),
            (troubles.gaps, "gaps"),
            (troubles.calls_failed, "calls failed"),
            (troubles.streams_ended, "streams ended"),
        ];
        let mut words: Vec<_> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if words.is_empty() {
            return None;
        }
        words.extend(troubles.first_failure.as_ref().map(|why| format!("the first: {why}")));
        Some(words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(expected: u64, received: u64) -> Measured {
        Measured {
            counts: Counts { events: 10, expected, received },
            time: Duration::from_secs(2),
            cpu: Some(Duration::from_millis(50)),
            latency: Latency::default(),
            recovery: Some(Duration::from_micros(1_500)),
        }
    }

    fn report(phases: Vec<Phase>, troubles: Troubles) -> Report<()> {
        let idle = Idle::new(1, Duration::ZERO, None, None, Duration::ZERO);
        Report::new((), idle, phases, None, troubles)
    }

    #[test]
    fn cpu_time_is_by_delivery_and_unknown_below_a_tick() {
        let phase = Phase::new("steady", &measured(1_000, 1_000));
        assert_eq!(phase.server_cpu_micros_per_delivery, Some(50.0));
        assert_eq!(phase.server_cpu_micros_per_event, Some(5_000.0));
        assert_eq!((phase.deliveries_per_second, phase.recovery_micros), (500.0, Some(1_500)));
        let none = Measured { cpu: Some(Duration::ZERO), ..measured(1_000, 1_000) };
        assert_eq!(Phase::new("steady", &none).server_cpu_micros_per_delivery, None);
        let nothing = Phase::new("steady", &measured(1_000, 0));
        assert_eq!(nothing.server_cpu_micros_per_delivery, None);
    }

    #[test]
    fn memory_is_by_subscriber_and_idle_time_by_core() {
        let second = Duration::from_secs(1);
        let idle = Idle::new(
            100,
            second,
            Some((1_000_000, 1_400_000)),
            Some((second, second + Duration::from_millis(20))),
            2 * second,
        );
        assert_eq!((idle.bytes_per_subscriber, idle.server_cpu_share), (Some(4_000.0), Some(0.01)));
        // A process that gave memory back.
        let less = Idle::new(100, second, Some((2, 1)), None, second);
        assert_eq!(less.bytes_per_subscriber, Some(0.0));
    }

    #[test]
    fn whatever_is_lost_or_repeated_in_any_phase_is_a_failure() {
        let phases = |lost: u64| {
            vec![
                Phase::new("warm-up", &measured(5, 5 - lost)),
                Phase::new("steady", &measured(9, 9)),
            ]
        };
        assert_eq!(report(phases(0), Troubles::default()).failures(), None);
        let slow = Troubles { fell_behind: 3, foreign: 2, ..Troubles::default() };
        assert_eq!(report(phases(0), slow).failures(), None);
        let failures =
            report(phases(2), Troubles { repeated: 1, ..Troubles::default() }).failures();
        assert_eq!(failures.as_deref(), Some("2 deliveries lost, 1 deliveries repeated"));
    }
}
