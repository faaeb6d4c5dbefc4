//! The time of day, as a value that is handed in, so that tests can set it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time: whole milliseconds since 1970-01-01T00:00:00Z.
///
/// Milliseconds are what Kafka stores for a record; a finer time would not
/// survive the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The time so many milliseconds after 1970-01-01T00:00:00Z.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z; negative before.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This time less `age`, no earlier than the earliest time there is.
    pub fn minus(self, age: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            // Beyond the year 9999.
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let millis = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()),
            Err(before) => i64::try_from(before.duration().as_millis()).map(|m| -m),
        };
        Self(millis.unwrap_or(i64::MAX))
    }
}

impl From<Timestamp> for prost_types::Timestamp {
    fn from(time: Timestamp) -> Self {
        Self {
            seconds: time.0.div_euclid(1000),
            nanos: i32::try_from(time.0.rem_euclid(1000)).unwrap_or(0) * 1_000_000,
        }
    }
}

impl From<prost_types::Timestamp> for Timestamp {
    /// Whole milliseconds, rounded down.
    fn from(time: prost_types::Timestamp) -> Self {
        Self(time.seconds.saturating_mul(1000).saturating_add(i64::from(time.nanos / 1_000_000)))
    }
}

/// Tells the time.
#[derive(Clone, Default)]
pub enum Clock {
    /// The machine's.
    #[default]
    System,
    /// A test's: stands still until it is set.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands at `time`.
    pub fn manual(time: Timestamp) -> Self {
        Self::Manual(Arc::new(AtomicI64::new(time.as_millis())))
    }

    /// Sets a manual clock; the machine's cannot be set and stays as it is.
    pub fn set(&self, time: Timestamp) {
        if let Self::Manual(millis) = self {
            millis.store(time.as_millis(), Ordering::Relaxed);
        }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match self {
            #[allow(clippy::disallowed_methods, reason = "the one place that asks the machine")]
            Self::System => SystemTime::now().into(),
            Self::Manual(millis) => Timestamp(millis.load(Ordering::Relaxed)),
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::System) { "Clock::System" } else { "Clock::Manual" })
    }
}
