//! A place in the whole log: one next offset per partition.

use super::{Offset, Partition};

/// The offset to read next, for each partition from 0 on. A partition that it
/// does not name is at offset 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position(Vec<Offset>);

impl Position {
    /// The start of `partitions` partitions that were never trimmed.
    pub fn zero(partitions: usize) -> Self {
        Self(vec![0; partitions])
    }

    /// The next offset of a partition.
    pub fn get(&self, partition: Partition) -> Offset {
        self.0.get(partition as usize).copied().unwrap_or(0)
    }

    /// Sets the next offset of a partition, naming it if it was not.
    pub fn set(&mut self, partition: Partition, offset: Offset) {
        let index = partition as usize;
        if index >= self.0.len() {
            self.0.resize(index + 1, 0);
        }
        self.0[index] = offset;
    }

    /// Moves forward to where `other` is, in each partition where that is further.
    pub fn advance_to(&mut self, other: &Self) {
        for (partition, offset) in other.iter() {
            self.set(partition, self.get(partition).max(offset));
        }
    }

    /// Whether this is at or behind `other` in every partition.
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|(partition, offset)| self.get(partition) >= offset)
    }

    /// How many records lie from here to `end`, counting no partition negative.
    pub fn distance_to(&self, end: &Self) -> u64 {
        end.iter().map(|(partition, offset)| offset.saturating_sub(self.get(partition))).sum()
    }

    /// How many partitions are named.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no partition is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The partitions and their next offsets, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Partition, Offset)> + '_ {
        (0..).zip(self.0.iter().copied())
    }
}

impl From<Vec<Offset>> for Position {
    fn from(offsets: Vec<Offset>) -> Self {
        Self(offsets)
    }
}

impl FromIterator<Offset> for Position {
    fn from_iter<I: IntoIterator<Item = Offset>>(offsets: I) -> Self {
        Self(offsets.into_iter().collect())
    }
}
