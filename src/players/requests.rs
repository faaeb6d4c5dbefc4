//! Which requests were carried out, as far back as they are remembered, and which are under way.
//!
//! # The memory of a request
//!
//! What was carried out lies in a ring, the oldest first, and a table of 32-bit numbers finds
//! it by its key: 80 bytes in the ring and 10 in the table when the ring is full. Terms are
//! shared by the requests that have the same.
//!
//! # The states of a request
//!
//! ```text
//! nothing ── claimed ──► under way ── durable ──► written ── read from the log ──► in the ring
//!    ▲                    │  │ ▲                                   ▲
//!    └── not written ─────┘  │ └ claimed again ┐                   │
//!                            └── no answer ──► unsettled ──────────┘
//! ```
//!
//! An unsettled request may be in the log, or may still come. Who claims it again writes the
//! same event once more, on the first terms: whichever of the two is second is left out by
//! everybody who reads the log, as each says truly how far its writer had looked. So only what
//! is read from the log settles it, which then is the first of the two.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use uuid::Uuid;

use super::key::PlayerHash;
use crate::clock::Timestamp;
use crate::domain::Terms;
use crate::event_log::{Offset, Partition};

/// How long a request stays unsettled: far longer than it can take until a record appears that
/// the log has given up. Then it is a new action again.
const UNSETTLED_AGE: Duration = Duration::from_secs(300);

/// How many requests of a shard are unsettled at the most; the oldest are then new again.
const MOST_UNSETTLED: usize = 1_024;

/// How far append times may go back before the ring counts as out of order: partitions are read
/// in turns, and clocks of brokers differ.
const DISORDER: Duration = Duration::from_secs(1);

/// Which part of a full ring is forgotten at once, one in so many: in one go the processor
/// fetches what lies far apart in memory side by side.
const FORGOTTEN_PART: usize = 256;

/// The same of a ring that is out of order, so that it is not sorted for every few entries.
const FORGOTTEN_PART_OF_DISORDER: usize = 16;

/// How many requests of a shard are under way or not read from the log yet before those that
/// are durable are entered at once: when what is written is not read.
const MOST_PENDING: usize = 4_096;

/// For how many entries of a shard there is room from the beginning.
const MOST_ROOM: usize = 1 << 16;

/// Below this, terms that nobody uses any longer are not looked for.
const FEW_TERMS: usize = 256;

/// A player and a request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// Of both, keyed: nobody outside can make it collide.
    hash: u64,
    /// In two halves, so that nothing is lost to alignment.
    request: (u64, u64),
}

impl Key {
    pub fn new(hasher: &RandomState, player: PlayerHash, request_id: Uuid) -> Self {
        let request = request_id.as_u64_pair();
        Self { hash: hasher.hash_one((player, request)), request }
    }
}

/// What is remembered of a request that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub event_id: Uuid,
    pub partition: Partition,
    pub offset: Offset,
    pub append_time: Timestamp,
    pub accept_time: Timestamp,
    pub terms: Terms,
}

/// The same in the ring.
struct Entry {
    key: Key,
    event_id: Uuid,
    offset: Offset,
    append_time: Timestamp,
    accept_time: Timestamp,
    /// None when there are none.
    terms: Option<Arc<Terms>>,
    partition: Partition,
}

impl Entry {
    fn written(&self) -> Written {
        Written {
            event_id: self.event_id,
            partition: self.partition,
            offset: self.offset,
            append_time: self.append_time,
            accept_time: self.accept_time,
            terms: self.terms.as_deref().cloned().unwrap_or(Terms::None),
        }
    }
}

/// A request whose outcome is not known yet.
struct Pending {
    key: Key,
    event_id: Uuid,
    state: State,
    waiters: Waiters,
}

enum State {
    /// The log has the record and has not answered.
    UnderWay,
    /// The same, and an earlier try is unsettled.
    Again,
    /// The log has it, and it has not been read from there yet. As many as the reading is
    /// behind; to enter them in the ring twice would cost more.
    Durable(Written),
    /// The log has given up. The first terms, and since when.
    Unsettled(Box<Terms>, Timestamp),
}

/// Who waits for an outcome. They are woken when this is dropped.
#[derive(Default)]
struct Waiters(Option<Arc<Notify>>);

impl Waiters {
    /// What is returned is woken also when that happens before it is polled.
    fn wait(&mut self) -> OwnedNotified {
        Arc::clone(self.0.get_or_insert_default()).notified_owned()
    }
}

impl Drop for Waiters {
    fn drop(&mut self) {
        if let Some(notify) = &self.0 {
            notify.notify_waiters();
        }
    }
}

/// How much is remembered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How old an entry becomes, by its append time.
    pub max_age: Duration,
    /// How many entries a shard has.
    pub max_entries: usize,
}

/// What is known of a request.
pub(super) enum Found {
    Nothing,
    Written(Written),
    /// The request id was used for another event.
    Conflict,
    UnderWay(OwnedNotified),
    /// It may be in the log. The terms of the first try.
    Unsettled(Terms),
}

/// What the log has said to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Durable(Partition, Offset, Timestamp),
    NotWritten,
    None,
}

/// What became of a request that was claimed.
pub(super) enum Settled {
    /// It is in the log; there, when that is another place than the one answered.
    Written(Option<Written>),
    /// It is in the log twice, perhaps; which is first is known when this ends.
    Wait(OwnedNotified),
    /// It is not in the log, and does not come.
    NotWritten,
    Unsettled,
}

/// The requests of a shard.
pub(super) struct Requests {
    limits: Limits,
    /// Bounded by the log's own queue, and by [`MOST_UNSETTLED`].
    pending: HashTable<Pending>,
    /// Those that became unsettled, the oldest first; some have been settled since.
    unsettled: VecDeque<(Timestamp, Key)>,
    ring: VecDeque<Entry>,
    /// The numbers of entries, which count up and wrap around.
    table: HashTable<u32>,
    /// The number of the first entry of the ring.
    first: u32,
    /// Whether the oldest entry is the first of the ring.
    in_order: bool,
    terms: TermsTable,
    /// The append time of the newest entry that was forgotten before its age.
    forgotten: Option<Timestamp>,
}

impl Requests {
    pub fn new(limits: Limits) -> Self {
        let room = limits.max_entries.min(MOST_ROOM);
        Self {
            limits,
            pending: HashTable::new(),
            unsettled: VecDeque::new(),
            // Room for all, so that nothing is moved while it fills; the memory is used as it
            // does.
            ring: VecDeque::with_capacity(room),
            table: HashTable::with_capacity(room),
            first: 0,
            in_order: true,
            terms: TermsTable::default(),
            forgotten: None,
        }
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// How many terms are kept.
    #[cfg(test)]
    pub fn terms_kept(&self) -> usize {
        self.terms.known.len()
    }

    /// The append time of the newest entry that was forgotten before its age.
    pub fn forgotten(&self) -> Option<Timestamp> {
        self.forgotten
    }

    /// Looks for a request that describes this event.
    pub fn look_up(&mut self, key: Key, event_id: Uuid, now: Timestamp) -> Found {
        if let Some(entry) = self.entry(key, now) {
            return if entry.event_id == event_id {
                Found::Written(entry.written())
            } else {
                Found::Conflict
            };
        }
        let Ok(mut found) = self.pending.find_entry(key.hash, |pending| pending.key == key) else {
            return Found::Nothing;
        };
        let pending = found.get_mut();
        match &pending.state {
            State::Unsettled(_, since) if *since < now.minus(UNSETTLED_AGE) => {
                // As good as none.
                found.remove();
                Found::Nothing
            }
            _ if pending.event_id != event_id => Found::Conflict,
            State::Unsettled(terms, _) => Found::Unsettled((**terms).clone()),
            State::Durable(written) => Found::Written(written.clone()),
            State::UnderWay | State::Again => Found::UnderWay(pending.waiters.wait()),
        }
    }

    /// What was carried out under a request id, or whether something is under way.
    pub fn receipt(&self, key: Key, now: Timestamp) -> Result<Written, bool> {
        if let Some(entry) = self.entry(key, now) {
            return Ok(entry.written());
        }
        let pending = self.pending.find(key.hash, |pending| pending.key == key);
        match pending.map(|pending| &pending.state) {
            None => Err(false),
            Some(State::Durable(written)) => Ok(written.clone()),
            Some(State::Unsettled(_, since)) => Err(*since >= now.minus(UNSETTLED_AGE)),
            Some(State::UnderWay | State::Again) => Err(true),
        }
    }

    /// Notes that a request is under way that was found nowhere, or unsettled.
    pub fn claim(&mut self, key: Key, event_id: Uuid) {
        let found = self.pending.find_mut(key.hash, |pending| pending.key == key);
        if let Some(pending) = found {
            pending.state = State::Again;
            return;
        }
        let (state, waiters) = (State::UnderWay, Waiters::default());
        let pending = Pending { key, event_id, state, waiters };
        self.pending.insert_unique(key.hash, pending, |pending| pending.key.hash);
    }

    /// Takes in what the log has said to the record of a claimed request.
    pub fn settle(
        &mut self,
        key: Key,
        event_id: Uuid,
        (accept_time, terms): (Timestamp, Terms),
        answer: Answer,
        now: Timestamp,
    ) -> Settled {
        let is_this = |pending: &Pending| pending.key == key && pending.event_id == event_id;
        let is_crowded = self.pending.len() > MOST_PENDING;
        let Ok(mut found) = self.pending.find_entry(key.hash, is_this) else {
            // It has come from the log before the answer.
            return match answer {
                Answer::Durable(partition, offset, append_time) => {
                    let new =
                        Written { event_id, partition, offset, append_time, accept_time, terms };
                    self.remember(key, new, now)
                }
                Answer::NotWritten | Answer::None => match self.entry(key, now) {
                    Some(entry) if entry.event_id == event_id => {
                        Settled::Written(Some(entry.written()))
                    }
                    _ if answer == Answer::None => Settled::Unsettled,
                    _ => Settled::NotWritten,
                },
            };
        };
        let pending = found.get_mut();
        if let State::Durable(written) = &mut pending.state {
            // Of a try that was answered later than one after it, and that counts for nothing.
            return match answer {
                Answer::Durable(partition, offset, append_time) if offset < written.offset => {
                    (written.partition, written.offset) = (partition, offset);
                    (written.append_time, written.accept_time) = (append_time, accept_time);
                    Settled::Written(None)
                }
                _ => Settled::Written(Some(written.clone())),
            };
        }
        match (answer, &pending.state) {
            (Answer::Durable(..), State::Again) => Settled::Wait(pending.waiters.wait()),
            (Answer::Durable(partition, offset, append_time), _) => {
                let new = Written { event_id, partition, offset, append_time, accept_time, terms };
                if is_crowded {
                    found.remove();
                    return self.remember(key, new, now);
                }
                pending.state = State::Durable(new);
                // It is known what has become of it.
                pending.waiters = Waiters::default();
                Settled::Written(None)
            }
            (Answer::NotWritten, State::UnderWay) => {
                found.remove();
                Settled::NotWritten
            }
            // Nothing is known of the try before this one.
            (Answer::NotWritten | Answer::None, _) => {
                pending.state = State::Unsettled(Box::new(terms), now);
                // They are the ones to try again.
                pending.waiters = Waiters::default();
                self.unsettled.push_back((now, key));
                self.give_up_the_oldest(now);
                Settled::Unsettled
            }
        }
    }

    /// Takes in an event that was read from the log, where it has no earlier one with its id.
    /// `terms` are asked for only when they are needed.
    pub fn apply(
        &mut self,
        key: Key,
        event: Written,
        terms: impl FnOnce() -> Terms,
        now: Timestamp,
    ) {
        let is_this = |pending: &Pending| pending.key == key && pending.event_id == event.event_id;
        let mut pending = match self.pending.find_entry(key.hash, is_this) {
            // Those who wait are woken when it is known where it is.
            Ok(pending) => Some(pending.remove().0),
            Err(_) => None,
        };
        let too_old = event.append_time < now.minus(self.limits.max_age)
            || self.forgotten.is_some_and(|forgotten| event.append_time <= forgotten);
        self.forget_aged(now);
        let found = self.find(key);
        let known = found.is_some_and(|at| {
            self.ring[at].event_id == event.event_id && !is_later(&self.ring[at], &event)
        });
        // One that somebody waits for is told in any case.
        if !known && (!too_old || pending.is_some()) {
            let terms = match pending.as_mut().map(|pending| &mut pending.state) {
                Some(State::Durable(written)) => mem::replace(&mut written.terms, Terms::None),
                _ => terms(),
            };
            self.enter(found, key, Written { terms, ..event }, now);
        }
    }

    /// Enters what was carried out. Of two under one key the earlier one stays.
    fn remember(&mut self, key: Key, new: Written, now: Timestamp) -> Settled {
        self.forget_aged(now);
        self.enter(self.find(key), key, new, now)
    }

    /// The same, of a key that was `found` there in the ring, or nowhere.
    fn enter(&mut self, found: Option<usize>, key: Key, new: Written, now: Timestamp) -> Settled {
        let oldest = now.minus(self.limits.max_age);
        if let Some(at) = found {
            let entry = &mut self.ring[at];
            if entry.append_time >= oldest && !is_later(entry, &new) {
                // It may be this very record, read from the log before the answer came.
                let elsewhere = entry.event_id == new.event_id && entry.offset != new.offset;
                return Settled::Written(elsewhere.then(|| entry.written()));
            }
            let Written { event_id, partition, offset, append_time, accept_time, terms } = new;
            entry.terms = self.terms.share(terms);
            (entry.event_id, entry.partition, entry.offset) = (event_id, partition, offset);
            (entry.append_time, entry.accept_time) = (append_time, accept_time);
            return Settled::Written(None);
        }
        self.make_room();
        let Written { event_id, partition, offset, append_time, accept_time, terms } = new;
        let terms = self.terms.share(terms);
        let newest = self.ring.back().map_or(append_time, |newest| newest.append_time);
        self.in_order &= append_time >= newest.minus(DISORDER);
        if self.ring.len() == self.ring.capacity() {
            // Doubled, as it would be, but never beyond what will be used.
            let room = self.limits.max_entries.saturating_sub(self.ring.len());
            self.ring.reserve_exact(self.ring.len().max(16).min(room).max(1));
        }
        let number = self.first.wrapping_add(self.ring.len() as u32);
        let entry = Entry { key, event_id, offset, append_time, accept_time, terms, partition };
        self.ring.push_back(entry);
        let (ring, first) = (&self.ring, self.first);
        self.table.insert_unique(key.hash, number, |&number| hash_of(ring, first, number));
        Settled::Written(None)
    }

    /// Forgets what is too old.
    fn forget_aged(&mut self, now: Timestamp) {
        let oldest = now.minus(self.limits.max_age);
        while self.ring.front().is_some_and(|entry| entry.append_time < oldest) {
            self.forget_first();
        }
    }

    /// Forgets so much that there is room for one more.
    fn make_room(&mut self) {
        if self.ring.len() < self.limits.max_entries {
            return;
        }
        let mut part = FORGOTTEN_PART;
        if !self.in_order {
            self.sort();
            part = FORGOTTEN_PART_OF_DISORDER;
        }
        for _ in 0..=self.ring.len() / part {
            if let Some(append_time) = self.forget_first() {
                self.forgotten = self.forgotten.max(Some(append_time));
            }
        }
    }

    fn forget_first(&mut self) -> Option<Timestamp> {
        let entry = self.ring.pop_front()?;
        if let Ok(number) = self.table.find_entry(entry.key.hash, |&number| number == self.first) {
            number.remove();
        }
        self.first = self.first.wrapping_add(1);
        Some(entry.append_time)
    }

    /// Puts the oldest first, after a log was read one partition after the other.
    fn sort(&mut self) {
        self.ring.make_contiguous().sort_by_key(|entry| entry.append_time);
        self.in_order = true;
        self.first = 0;
        self.table.clear();
        let ring = &self.ring;
        for (number, entry) in (0..).zip(ring) {
            let hash_of = |&number: &u32| hash_of(ring, 0, number);
            self.table.insert_unique(entry.key.hash, number, hash_of);
        }
    }

    /// Forgets unsettled requests that are too old or too many.
    fn give_up_the_oldest(&mut self, now: Timestamp) {
        let oldest = now.minus(UNSETTLED_AGE);
        while let Some(&(since, key)) = self.unsettled.front()
            && (since < oldest || self.unsettled.len() > MOST_UNSETTLED)
        {
            self.unsettled.pop_front();
            let is_still = |pending: &Pending| {
                pending.key == key
                    && matches!(pending.state, State::Unsettled(_, then) if then == since)
            };
            if let Ok(pending) = self.pending.find_entry(key.hash, is_still) {
                pending.remove();
            }
        }
    }

    /// An entry that is not too old.
    fn entry(&self, key: Key, now: Timestamp) -> Option<&Entry> {
        let entry = &self.ring[self.find(key)?];
        (entry.append_time >= now.minus(self.limits.max_age)).then_some(entry)
    }

    /// Where in the ring a key is.
    fn find(&self, key: Key) -> Option<usize> {
        let at = |number: u32| number.wrapping_sub(self.first) as usize;
        self.table.find(key.hash, |&number| self.ring[at(number)].key == key).map(|&n| at(n))
    }
}

fn hash_of(ring: &VecDeque<Entry>, first: u32, number: u32) -> u64 {
    ring[number.wrapping_sub(first) as usize].key.hash
}

/// Whether an entry lies later in the log than an event. A player has one partition.
fn is_later(entry: &Entry, event: &Written) -> bool {
    entry.partition == event.partition && entry.offset > event.offset
}

/// Terms that are in use, each once.
#[derive(Default)]
struct TermsTable {
    known: HashSet<Arc<Terms>>,
    /// Most actions have the terms of the one before them, or nearly so.
    last: Option<Arc<Terms>>,
    /// With how many those that nobody uses any longer are looked for.
    sweep_at: usize,
}

impl TermsTable {
    fn share(&mut self, terms: Terms) -> Option<Arc<Terms>> {
        if terms == Terms::None {
            return None;
        }
        if let Some(last) = self.last.as_ref().filter(|last| ***last == terms) {
            return Some(Arc::clone(last));
        }
        let shared = match self.known.get(&terms) {
            Some(known) => Arc::clone(known),
            None => {
                if self.known.len() >= self.sweep_at.max(FEW_TERMS) {
                    self.known.retain(|terms| Arc::strong_count(terms) > 1);
                    self.sweep_at = self.known.len() * 2;
                }
                let new = Arc::new(terms);
                self.known.insert(Arc::clone(&new));
                new
            }
        };
        self.last = Some(Arc::clone(&shared));
        Some(shared)
    }
}
