//! How far back what is known of players goes, in each partition.

use super::snapshot::HistoryStart;
use crate::clock::Timestamp;
use crate::event_log::{Partition, Position, Record};

/// See the module. A partition that it does not name was read from its first record on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct History(Vec<HistoryStart>);

impl History {
    /// The history of what is read from `position` on.
    pub fn from(position: &Position) -> Self {
        let starts = position.iter();
        Self(starts.map(|(_, offset)| HistoryStart { trimmed: offset > 0, since: None }).collect())
    }

    /// The same, as it was written down.
    pub fn read_back(starts: Vec<HistoryStart>) -> Self {
        Self(starts)
    }

    /// To be written down.
    pub fn starts(&self) -> Vec<HistoryStart> {
        self.0.clone()
    }

    /// Retention has removed records before they were read: what is known is whole only from
    /// the next record on.
    pub fn interrupt(&mut self, partition: Partition) {
        let at = partition as usize;
        if at >= self.0.len() {
            self.0.resize(at + 1, HistoryStart::default());
        }
        self.0[at] = HistoryStart { trimmed: true, since: None };
    }

    /// Whether some partition waits for its first record.
    pub fn is_open(&self) -> bool {
        self.0.iter().any(|start| start.trimmed && start.since.is_none())
    }

    /// Notes a record that is applied.
    pub fn note(&mut self, record: &Record) {
        if let Some(start) = self.0.get_mut(record.partition as usize)
            && start.trimmed
            && start.since.is_none()
        {
            start.since = Some(record.append_time.as_millis());
        }
    }

    /// From when on the history of a partition is whole; none when all of it is. `now` where
    /// nothing has come since some of it was lost.
    pub fn start(&self, partition: Partition, now: Timestamp) -> Option<Timestamp> {
        let start = self.0.get(partition as usize).filter(|start| start.trimmed)?;
        Some(start.since.map_or(now, Timestamp::from_millis))
    }
}
