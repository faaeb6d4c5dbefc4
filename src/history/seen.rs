//! The ids of the newest records of one partition.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::mem;

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

/// How many places there are for each id, at the least and when there are few.
const PLACES: usize = 2;
const FEW_PLACES: usize = 16;

/// What a reader has passed of a partition.
pub(super) struct Seen {
    /// All events from here up to where the reader is are in `ids`.
    from: Offset,
    /// In the order of the log.
    ids: VecDeque<Passed>,
    /// By the hash of an id, which others may have too: behind the newest event with it. That
    /// this lies before all that a record needs is found out at once for nearly all records,
    /// and what is forgotten need not be taken out.
    behind: Vec<Offset>,
    /// Keyed: nobody outside can make ids collide.
    hasher: RandomState,
    /// How many offsets back ids are kept, and up to where more than [`KEEP`] are.
    keep: u64,
    widened_until: Offset,
}

struct Passed {
    offset: Offset,
    id: Uuid,
    /// Behind the event before this one whose id has the same place; 0 when there is none.
    behind: Offset,
}

impl Seen {
    /// Nothing, by a reader that starts at `from`.
    pub fn new(from: Offset) -> Self {
        let (ids, behind) = (VecDeque::new(), vec![0; FEW_PLACES]);
        Self { from, ids, behind, hasher: RandomState::new(), keep: KEEP, widened_until: 0 }
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
            self.ids.push_front(Passed { offset, id, behind: 0 });
        }
        self.place_all();
        self.from = self.from.min(from);
    }

    /// Takes in the next event. Whether it is there already, at `need` or behind that.
    pub fn pass(&mut self, offset: Offset, id: Uuid, need: Offset) -> bool {
        let is_there = self.is_there(id, need);
        self.forget(offset);
        if self.ids.len() * PLACES >= self.behind.len() {
            self.place_all();
        }
        let place = self.place(id);
        let behind = mem::replace(&mut self.behind[place], offset + 1);
        self.ids.push_back(Passed { offset, id, behind });
        is_there
    }

    /// Whether an id is there at `need` or behind that.
    fn is_there(&self, id: Uuid, need: Offset) -> bool {
        let mut behind = self.behind[self.place(id)];
        while behind > need {
            let found = self.ids.binary_search_by_key(&(behind - 1), |passed| passed.offset);
            let Ok(index) = found else { break };
            if self.ids[index].id == id {
                return true;
            }
            behind = self.ids[index].behind;
        }
        false
    }

    /// Forgets what nobody behind `offset` needs.
    fn forget(&mut self, offset: Offset) {
        let narrows = self.keep > KEEP && offset > self.widened_until;
        if narrows {
            self.keep = KEEP;
        }
        let from = (offset + 1).saturating_sub(self.keep);
        while self.ids.pop_front_if(|oldest| oldest.offset < from).is_some() {}
        self.from = self.from.max(from);
        if narrows {
            self.ids.shrink_to_fit();
            self.place_all();
        }
    }

    /// Where an id belongs. There is a power of two of places.
    fn place(&self, id: Uuid) -> usize {
        self.hasher.hash_one(id.as_u128()) as usize & (self.behind.len() - 1)
    }

    /// Puts each id in its place anew, with as many places as are needed for one more.
    fn place_all(&mut self) {
        let places = ((self.ids.len() + 1) * PLACES).next_power_of_two().max(FEW_PLACES);
        self.behind = vec![0; places];
        for index in 0..self.ids.len() {
            let place = self.place(self.ids[index].id);
            let passed = &mut self.ids[index];
            passed.behind = mem::replace(&mut self.behind[place], passed.offset + 1);
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
            let (ids, places) = (seen.ids.len(), seen.behind.len());
            assert!(ids * PLACES <= places && places <= (4 * ids * PLACES).max(FEW_PLACES));
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
