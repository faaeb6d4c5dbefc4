//! The ids of the newest records of one partition.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

use super::REACH;
use crate::event_log::Offset;

/// How many offsets back ids are kept as a rule: more than a server's writes that are under way
/// at once, as a writer has looked up to where it reads. Few in tests, where ids have to be
/// forgotten.
pub(super) const KEEP: u64 = if cfg!(test) { 4 } else { 4096 };

/// How much more than asked for is looked back and kept, so that the next record, which may
/// need a little more, does not make the reader look back again.
pub(super) const MORE: u64 = KEEP / 4;

/// What a reader has passed of a partition.
pub(super) struct Seen {
    /// All events from here up to where the reader is are in `ids`.
    from: Offset,
    ids: VecDeque<(Offset, Uuid)>,
    /// Where each id is, the last time that it is in `ids`.
    last: HashMap<Uuid, Offset>,
    /// How many offsets back ids are kept, and up to where more than [`KEEP`] are.
    keep: u64,
    widened_until: Offset,
}

impl Seen {
    /// Nothing, by a reader that starts at `from`.
    pub fn new(from: Offset) -> Self {
        let (ids, last) = (VecDeque::new(), HashMap::new());
        Self { from, ids, last, keep: KEEP, widened_until: 0 }
    }

    /// From where on all events are known.
    pub fn from(&self) -> Offset {
        self.from
    }

    /// Keeps ids so far back that a record at `offset` finds those from `need` on. One that
    /// needs much is followed by more of its kind; a reach later they are over.
    pub fn widen(&mut self, need: Offset, offset: Offset) {
        let back = offset - need;
        if back > KEEP {
            self.keep = self.keep.max((back + MORE).min(REACH));
            self.widened_until = offset + REACH;
        }
    }

    /// What lies from `from` on before what was known.
    pub fn add_older(&mut self, from: Offset, older: Vec<(Offset, Uuid)>) {
        for (offset, id) in older.into_iter().rev() {
            self.last.entry(id).or_insert(offset);
            self.ids.push_front((offset, id));
        }
        self.from = self.from.min(from);
    }

    /// Takes in the next event. Whether it is there already, at `need` or behind that.
    pub fn pass(&mut self, offset: Offset, id: Uuid, need: Offset) -> bool {
        let is_there = match self.last.entry(id) {
            Entry::Occupied(mut last) => last.insert(offset) >= need,
            Entry::Vacant(vacant) => {
                vacant.insert(offset);
                false
            }
        };
        self.forget(offset);
        self.ids.push_back((offset, id));
        is_there
    }

    /// Forgets what nobody behind `offset` needs.
    fn forget(&mut self, offset: Offset) {
        let narrows = self.keep > KEEP && offset > self.widened_until;
        if narrows {
            self.keep = KEEP;
        }
        let from = (offset + 1).saturating_sub(self.keep);
        while let Some((oldest, id)) = self.ids.pop_front_if(|(oldest, _)| *oldest < from) {
            if let Entry::Occupied(last) = self.last.entry(id)
                && *last.get() == oldest
            {
                last.remove();
            }
        }
        self.from = self.from.max(from);
        if narrows {
            self.ids.shrink_to_fit();
            self.last.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_grows_only_while_records_ask_for_it() {
        let mut seen = Seen::new(0);
        let mut pass = |offset: u64, back: u64| {
            seen.widen(offset - back, offset);
            assert!(!seen.pass(offset, Uuid::from_u128(offset.into()), offset - back));
            assert_eq!(seen.ids.len(), seen.last.len());
            (seen.ids.len() as u64, seen.from())
        };
        for offset in 0..10 {
            pass(offset, 0);
        }
        assert_eq!(pass(10, KEEP), (KEEP, 11 - KEEP));
        for offset in 11..100 {
            pass(offset, 50.min(offset - 6));
        }
        assert_eq!(pass(100, 0), (50 + MORE, 101 - 50 - MORE));
        let last = 99 + REACH;
        for offset in 101..last {
            pass(offset, 0);
        }
        assert_eq!(pass(last, 0).0, 50 + MORE);
        assert_eq!(pass(last + 1, 0).0, KEEP);
        for offset in last + 2..last + 2 * REACH {
            pass(offset, (offset - last).min(REACH));
        }
        assert_eq!(pass(last + 2 * REACH, REACH).0, REACH);
    }
}
