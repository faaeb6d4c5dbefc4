//! One runtime's share of the feed: hands the batches of the ring to the live readers there.
//!
//! The tail wakes each runtime once; what it has published is handed out there, where to wake
//! a reader is cheap. A reader for whom nothing has come is not woken. Its place follows the
//! lane's, as the lane has looked at all that lies before it in the reader's stead: by an
//! index over the filters, at the price of a look-up for each event, however many readers
//! there are.
//!
//! All that readers touch for each event is the lane's own, down to the counts of its `Arc`s:
//! what two processors write to costs many times as much. One timer serves all of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::batch::{Batch, Keys};
use super::filter::{Field, Filter};
use super::hub::{Found, Hub, Listener, Signal};
use super::invariants;
use super::place::Place;

/// Hands out batches on one runtime.
pub(super) struct Dispatcher {
    hub: Arc<Hub>,
    signal: Arc<Signal>,
    state: Mutex<State>,
    /// Notified when somebody wants to be woken earlier than all others.
    hurry: Notify,
    /// Events handed out; shared with the other lanes.
    delivered: Counter,
}

#[derive(Default)]
struct State {
    /// The number of the next batch to hand out, and the place before it. Of no meaning while
    /// there are no seats.
    next: u64,
    place: Option<Arc<Place>>,
    /// The batch before it, which most readers want: found without the lock that all lanes
    /// share.
    newest: Option<Newest>,
    slots: Slots,
    index: Index,
    /// Filtered readers who want to be woken by whatever comes next.
    looking: BTreeSet<Key>,
    /// When each reader wants to look up, whatever comes.
    alarms: BTreeSet<(Instant, Key)>,
    /// When a batch was handed out last.
    handed_out: Option<Instant>,
    /// Events handed out that are not counted yet.
    delivered: u64,
    /// The readers have to end.
    closed: bool,
}

/// Which slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    is_filtered: bool,
    index: usize,
}

/// Readers who want everything, and those with a filter.
#[derive(Default)]
struct Slots {
    unfiltered: Slab<Slot>,
    filtered: Slab<Slot>,
}

impl Slots {
    fn of_kind(&mut self, is_filtered: bool) -> &mut Slab<Slot> {
        if is_filtered { &mut self.filtered } else { &mut self.unfiltered }
    }

    /// The slot of a seat.
    fn of(&mut self, key: Key) -> &mut Slot {
        &mut self.of_kind(key.is_filtered)[key.index]
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.unfiltered.iter_mut().chain(&mut self.filtered).map(|(_, slot)| slot)
    }

    fn is_empty(&self) -> bool {
        self.unfiltered.is_empty() && self.filtered.is_empty()
    }
}

/// The batch that was handed out last.
struct Newest {
    batch: Arc<Batch>,
    /// Its message without origins, and with them; the lane's own copies, made when first
    /// needed.
    messages: [Option<Bytes>; 2],
}

impl Newest {
    /// The batch as one message, if it is one.
    fn message(&mut self, with_origins: bool) -> Option<Bytes> {
        let Self { batch, messages } = self;
        let copy = &mut messages[usize::from(with_origins)];
        if copy.is_none() && batch.is_whole() && batch.events > 0 {
            *copy = Some(Bytes::copy_from_slice(batch.message(with_origins)));
        }
        copy.clone()
    }
}

/// A live reader as the lane sees it.
struct Slot {
    standing: Standing,
    is_waiting: bool,
    /// The time of its alarm has come.
    has_rung: bool,
    waker: Waker,
    /// Where it was left by the lane, until it takes this over.
    left_at: Option<Arc<Place>>,
    filter: Option<Arc<Filter>>,
    alarm: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// At the lane's place, wherever that goes.
    WithLane,
    /// Where the lane left it, before the batch of this number.
    Left(u64),
    /// At its own place, to go on with the batch of this number.
    At(u64),
}

impl Slot {
    /// There is something for it in the batch `number`, which begins at `place`.
    fn mark(&mut self, number: u64, place: Option<&Arc<Place>>) {
        if self.standing == Standing::WithLane {
            self.standing = Standing::Left(number);
            self.left_at = place.cloned();
        }
        self.wake();
    }

    fn wake(&mut self) {
        if std::mem::take(&mut self.is_waiting) {
            self.waker.wake_by_ref();
        }
    }

    fn wait(&mut self, cx: &Context<'_>) {
        if !self.waker.will_wake(cx.waker()) {
            self.waker.clone_from(cx.waker());
        }
        self.is_waiting = true;
    }

    /// Puts where the reader stands into `place`, if the lane knows better.
    fn take_over(&mut self, lane: Option<&Arc<Place>>, place: &mut Arc<Place>) {
        let better = match self.standing {
            Standing::WithLane => lane.filter(|lane| !lane.is_same(place)).cloned(),
            Standing::Left(number) => {
                self.standing = Standing::At(number);
                self.left_at.take()
            }
            Standing::At(_) => None,
        };
        if let Some(better) = better {
            debug_assert!(invariants::never_back(&place.position, &better.position));
            *place = place.onward(&better);
        }
    }
}

/// Filtered readers by a value that every event they want has.
#[derive(Default)]
struct Index {
    event_types: HashMap<Box<str>, BTreeSet<Key>>,
    players: HashMap<Box<str>, BTreeSet<Key>>,
    guilds: HashMap<Box<str>, BTreeSet<Key>>,
}

impl Index {
    fn field(&mut self, field: Field) -> &mut HashMap<Box<str>, BTreeSet<Key>> {
        match field {
            Field::EventType => &mut self.event_types,
            Field::Player => &mut self.players,
            Field::Guild => &mut self.guilds,
        }
    }

    fn add(&mut self, filter: &Filter, key: Key) {
        let (field, values) = filter.narrowest();
        let map = self.field(field);
        for value in values {
            map.entry(value.into()).or_default().insert(key);
        }
    }

    fn remove(&mut self, filter: &Filter, key: Key) {
        let (field, values) = filter.narrowest();
        let map = self.field(field);
        for value in values {
            if let Some(keys) = map.get_mut(value) {
                keys.remove(&key);
                if keys.is_empty() {
                    map.remove(value);
                }
            }
        }
    }

    /// Those who may want an event.
    fn candidates(&self, event: &Keys) -> impl Iterator<Item = Key> {
        let guild = event.guild_id.as_ref().and_then(|guild| self.guilds.get(guild));
        let found =
            [self.players.get(&event.player_id), guild, self.event_types.get(&event.event_type)];
        found.into_iter().flatten().flatten().copied()
    }
}

impl State {
    /// Hands out the next batch.
    fn hand_out(&mut self, batch: Arc<Batch>) {
        debug_assert!(self.place.as_ref().is_some_and(|place| place.is_same(&batch.before)));
        let (number, place) = (self.next, self.place.as_ref());
        for (_, slot) in &mut self.slots.unfiltered {
            slot.mark(number, place);
        }
        for key in std::mem::take(&mut self.looking) {
            self.slots.of(key).wake();
        }
        if self.slots.filtered.is_empty() {
            // Then nobody has to know what is in it yet.
        } else if batch.is_whole() {
            for event in batch.keys().iter().flatten() {
                for key in self.index.candidates(event) {
                    let slot = self.slots.of(key);
                    if slot.filter.as_ref().is_some_and(|filter| event.are_wanted_by(filter)) {
                        slot.mark(number, place);
                    }
                }
            }
        } else {
            // Whoever stands here is told of a gap.
            for (_, slot) in &mut self.slots.filtered {
                slot.mark(number, place);
            }
        }
        self.next += 1;
        self.place = Some(Arc::new(batch.after.copy()));
        self.newest = Some(Newest { batch, messages: [None, None] });
    }

    /// Goes on with what comes next. Everybody is left where he is, which is in the ring no
    /// longer.
    fn skip_to(&mut self, head: (u64, Option<Arc<Place>>)) {
        let (number, place) = (self.next, self.place.take());
        for slot in self.slots.all() {
            slot.mark(number, place.as_ref());
        }
        self.looking.clear();
        self.newest = None;
        (self.next, self.place) = head;
    }

    /// The batch of a number. What the lane has not handed out yet will be, and is nothing
    /// until then.
    fn find(&self, hub: &Hub, number: u64) -> Found {
        match &self.newest {
            _ if number >= self.next => Found::Nothing,
            Some(newest) if number + 1 == self.next => Found::Batch(Arc::clone(&newest.batch)),
            _ => hub.find(number),
        }
    }

    /// Sets the alarm of a seat. Whether it is the first to ring.
    fn set_alarm(&mut self, key: Key, at: Instant) -> bool {
        let slot = self.slots.of(key);
        slot.has_rung = false;
        self.alarms.remove(&(slot.alarm, key));
        slot.alarm = at;
        self.alarms.insert((at, key));
        self.alarms.first() == Some(&(at, key))
    }

    /// Wakes those whose time has come.
    fn ring(&mut self, now: Instant) {
        while let Some(&(at, key)) = self.alarms.first().filter(|(at, _)| *at <= now) {
            self.alarms.remove(&(at, key));
            let slot = self.slots.of(key);
            slot.has_rung = true;
            slot.wake();
        }
    }
}

impl Dispatcher {
    pub fn new(hub: Arc<Hub>, delivered: Counter) -> Arc<Self> {
        let signal = hub.add_lane();
        Arc::new(Self { hub, signal, state: Mutex::default(), hurry: Notify::new(), delivered })
    }

    /// Hands out what is published and wakes whoever wants to be woken, for as long as it is
    /// polled.
    pub async fn run(&self) {
        loop {
            let alarm = self.state().alarms.first().map(|(at, _)| *at);
            tokio::select! {
                () = self.signal.news() => self.hand_out(),
                () = sleep_until(alarm.unwrap_or_else(Instant::now)), if alarm.is_some() => {
                    self.ring();
                }
                () = self.hurry.notified() => {}
            }
        }
    }

    /// Hands out what was published.
    fn hand_out(&self) {
        let mut state = self.state();
        state.handed_out = Some(Instant::now());
        while !state.slots.is_empty() {
            match self.hub.find(state.next) {
                Found::Batch(batch) => state.hand_out(batch),
                Found::Nothing => break,
                Found::Gone => state.skip_to(self.hub.head()),
            }
        }
        self.count(&mut state);
    }

    /// Wakes those whose time has come. A lane where nothing comes any more counts here what it
    /// has handed out, one heartbeat later at the most.
    fn ring(&self) {
        let mut state = self.state();
        state.ring(Instant::now());
        self.count(&mut state);
    }

    fn count(&self, state: &mut State) {
        self.delivered.inc_by(std::mem::take(&mut state.delivered));
    }

    /// Ends all readers.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        for slot in state.slots.all() {
            slot.wake();
        }
    }

    /// A seat for a reader that goes on with the batch `number`, and wants to look up at
    /// `alarm`.
    pub fn seat(
        self: &Arc<Self>,
        number: u64,
        filter: Option<Arc<Filter>>,
        alarm: Instant,
    ) -> Seat {
        // Before the look at the hub: what is published after it, the lane is told of.
        let listener = self.signal.listen();
        let mut state = self.state();
        if state.slots.is_empty() {
            state.skip_to(self.hub.head());
        }
        let slot = Slot {
            standing: Standing::At(number),
            is_waiting: false,
            has_rung: false,
            waker: Waker::noop().clone(),
            left_at: None,
            filter: filter.clone(),
            alarm,
        };
        let is_filtered = filter.is_some();
        let key = Key { is_filtered, index: state.slots.of_kind(is_filtered).insert(slot) };
        if let Some(filter) = &filter {
            state.index.add(filter, key);
        }
        if state.set_alarm(key, alarm) {
            self.hurry.notify_one();
        }
        drop(state);
        Seat { lane: Arc::clone(self), key, _listener: listener }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a live reader finds.
pub(super) enum Next {
    /// A batch to go on with.
    Batch {
        batch: Arc<Batch>,
        /// How many more wait behind it.
        waiting: u64,
        /// About the time now, which to ask for each time would cost more than all else here.
        now: Instant,
    },
    /// The next batch is not wanted now.
    Later,
    /// The next batch has left the ring.
    Gone,
    /// It is time to look up.
    Alarm,
    /// Nothing comes any more.
    Closed,
}

/// A live reader's place in its lane; given back when dropped.
pub(super) struct Seat {
    lane: Arc<Dispatcher>,
    key: Key,
    _listener: Listener,
}

impl Seat {
    /// The message of the newest batch, for a reader that wants everything, if it has everything
    /// else and is not late for anything; and about the time now.
    pub fn take_whole(&self, with_origins: bool) -> Option<(Bytes, Instant)> {
        let mut state = self.lane.state();
        let state = &mut *state;
        let slot = state.slots.of(self.key);
        let is_next = slot.standing == Standing::Left(state.next.wrapping_sub(1));
        if !is_next || slot.has_rung || state.closed {
            return None;
        }
        let newest = state.newest.as_mut()?;
        let message = newest.message(with_origins)?;
        slot.standing = Standing::WithLane;
        slot.left_at = None;
        state.delivered += newest.batch.events as u64;
        Some((message, state.handed_out?))
    }

    /// Looks for the next batch for a reader that stands at `place`; where it goes on from is
    /// put there. Takes the batch only if `is_wanted` says so. A reader that `may_follow` is
    /// not woken again before there is something for it, or before `alarm`.
    pub fn poll(
        &self,
        cx: &Context<'_>,
        place: &mut Arc<Place>,
        alarm: Instant,
        may_follow: bool,
        is_wanted: impl FnOnce(&Batch) -> bool,
    ) -> Poll<Next> {
        let mut state = self.lane.state();
        let state = &mut *state;
        if state.closed {
            return Poll::Ready(Next::Closed);
        }
        let slot = state.slots.of(self.key);
        slot.take_over(state.place.as_ref(), place);
        if slot.has_rung {
            if Instant::now() >= alarm {
                return Poll::Ready(Next::Alarm);
            }
            // It was set before the last message.
            if state.set_alarm(self.key, alarm) {
                self.lane.hurry.notify_one();
            }
        }
        if let Standing::At(number) = state.slots.of(self.key).standing {
            match state.find(&self.lane.hub, number) {
                Found::Batch(batch) if !is_wanted(&batch) => return Poll::Ready(Next::Later),
                Found::Batch(batch) => {
                    let waiting = state.next - number - 1;
                    state.slots.of(self.key).standing = Standing::At(number + 1);
                    let now = state.handed_out.unwrap_or_else(Instant::now);
                    return Poll::Ready(Next::Batch { batch, waiting, now });
                }
                Found::Gone => return Poll::Ready(Next::Gone),
                Found::Nothing => {}
            }
            let is_there = number == state.next
                && state.place.as_ref().is_some_and(|lane| lane.is_same(place));
            let slot = state.slots.of(self.key);
            if may_follow && is_there {
                slot.standing = Standing::WithLane;
            } else if self.key.is_filtered {
                state.looking.insert(self.key);
            }
        }
        state.slots.of(self.key).wait(cx);
        Poll::Pending
    }

    /// Puts where the reader stands into `place`, if the lane knows better.
    pub fn update(&self, place: &mut Arc<Place>) {
        let mut state = self.lane.state();
        let state = &mut *state;
        state.slots.of(self.key).take_over(state.place.as_ref(), place);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.lane.state();
        let slot = state.slots.of_kind(self.key.is_filtered).remove(self.key.index);
        state.alarms.remove(&(slot.alarm, self.key));
        state.looking.remove(&self.key);
        if let Some(filter) = &slot.filter {
            state.index.remove(filter, self.key);
        }
        self.lane.count(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::event_log::LogId;

    #[tokio::test(start_paused = true)]
    async fn who_looks_at_whatever_comes_is_noted_once() {
        let place = |offset: u64| {
            let log = LogId(uuid::Uuid::nil());
            Arc::new(Place::new(log, vec![offset].into(), Timestamp::default()))
        };
        let hub = Arc::new(Hub::new(1));
        hub.restart(place(0));
        let lane = Dispatcher::new(hub, Counter::default());
        let alarm = Instant::now();
        // Ahead of the tail, which does not come.
        let seat = lane.seat(1, Some(Arc::default()), alarm);
        for _ in 0..3 {
            let cx = Context::from_waker(Waker::noop());
            assert!(seat.poll(&cx, &mut place(2), alarm, true, |_| true).is_pending());
            lane.state().slots.of(seat.key).wake();
        }
        assert_eq!(lane.state().looking.len(), 1);
        drop(seat);
        assert!(lane.state().looking.is_empty());
    }
}
