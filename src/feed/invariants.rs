//! What is true of every delivery, as functions, so that what the reader asserts of
//! itself and what the tests hold against it from outside are the same sentences.

use crate::event_log::{Offset, Partition, Position};

/// The position never goes back in any partition.
pub(super) fn never_back(earlier: &Position, later: &Position) -> bool {
    later.covers(earlier)
}

/// What is delivered or passed over in a partition lies at the reader's place or behind
/// it: what lies before has been dealt with already.
pub(super) fn in_order(position: &Position, partition: Partition, offset: Offset) -> bool {
    offset >= position.get(partition)
}

/// A batch follows on: it was read from the reader's place or from before it, so that
/// nothing lies between. A partition that the position does not name begins wherever the
/// log has its start.
pub(super) fn follows_on(position: &Position, begins: &Position) -> bool {
    position.iter().all(|(partition, offset)| begins.get(partition) <= offset)
}

/// A gap begins at the reader's place and moves it by as many records as it says, at
/// least one.
pub(super) fn gap_accounts(place: Offset, missed: u64, goes_on_at: Offset) -> bool {
    missed > 0 && place.checked_add(missed) == Some(goes_on_at)
}
