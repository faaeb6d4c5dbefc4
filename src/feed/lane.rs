//! One runtime's share of the feed: hands the batches of the ring to the live readers there.
//!
//! The tail wakes each runtime once; what it has published is handed out there, where to wake
//! a reader is cheap. A reader for whom nothing has come is not woken. Its place follows the
//! lane's, as the lane has looked at all that lies before it in the reader's stead: by an
//! index over the filters, at the price of a look-up for each event, however many readers
//! there are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use slab::Slab;
use tokio::time::Instant;

use super::batch::{Batch, Keys};
use super::filter::{Field, Filter};
use super::hub::{Found, Hub, Listener, Signal};
use super::invariants;
use super::place::Place;

/// Hands out batches on one runtime.
pub(super) struct Dispatcher {
    signal: Arc<Signal>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The number of the next batch to hand out, and the place before it. Of no meaning while
    /// there are no seats.
    next: u64,
    place: Option<Arc<Place>>,
    /// The batch before it, which most readers want: found without the lock that all lanes
    /// share.
    newest: Option<Arc<Batch>>,
    /// Readers who want everything, and those with a filter.
    unfiltered: Slab<Slot>,
    filtered: Slab<Slot>,
    index: Index,
    /// Filtered readers who want to be woken by whatever comes next.
    looking: Vec<usize>,
    /// When that was.
    handed_out: Option<Instant>,
    /// The readers have to end.
    closed: bool,
}

/// A live reader as the lane sees it.
struct Slot {
    filter: Option<Arc<Filter>>,
    standing: Standing,
    /// Where it stands, since it was taken out of the lane's place; until it takes this over.
    left_at: Option<Arc<Place>>,
    waker: Waker,
    is_waiting: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// At the lane's place, wherever that goes.
    WithLane,
    /// At its own place, to go on with the batch of this number.
    At(u64),
}

impl Slot {
    /// There is something for it in the batch `number`, which begins at `place`.
    fn mark(&mut self, number: u64, place: Option<&Arc<Place>>) {
        if self.standing == Standing::WithLane {
            self.standing = Standing::At(number);
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
}

/// Filtered readers by a value that every event they want has.
#[derive(Default)]
struct Index {
    event_types: HashMap<Box<str>, Vec<usize>>,
    players: HashMap<Box<str>, Vec<usize>>,
    guilds: HashMap<Box<str>, Vec<usize>>,
}

impl Index {
    fn field(&mut self, field: Field) -> &mut HashMap<Box<str>, Vec<usize>> {
        match field {
            Field::EventType => &mut self.event_types,
            Field::Player => &mut self.players,
            Field::Guild => &mut self.guilds,
        }
    }

    fn add(&mut self, filter: &Filter, key: usize) {
        let (field, values) = filter.narrowest();
        let map = self.field(field);
        for value in values {
            map.entry(value.into()).or_default().push(key);
        }
    }

    fn remove(&mut self, filter: &Filter, key: usize) {
        let (field, values) = filter.narrowest();
        let map = self.field(field);
        for value in values {
            if let Some(keys) = map.get_mut(value) {
                keys.retain(|other| *other != key);
                if keys.is_empty() {
                    map.remove(value);
                }
            }
        }
    }

    /// Those who may want an event.
    fn candidates(&self, event: &Keys) -> impl Iterator<Item = usize> {
        let guild = event.guild_id.as_ref().and_then(|guild| self.guilds.get(guild));
        let found =
            [self.players.get(&event.player_id), guild, self.event_types.get(&event.event_type)];
        found.into_iter().flatten().flatten().copied()
    }
}

impl State {
    fn slots(&mut self, is_filtered: bool) -> &mut Slab<Slot> {
        if is_filtered { &mut self.filtered } else { &mut self.unfiltered }
    }

    fn is_empty(&self) -> bool {
        self.unfiltered.is_empty() && self.filtered.is_empty()
    }

    /// Hands out the next batch.
    fn hand_out(&mut self, batch: Arc<Batch>) {
        debug_assert!(self.place.as_ref().is_some_and(|place| place.is_same(&batch.before)));
        for (_, slot) in &mut self.unfiltered {
            slot.mark(self.next, None);
        }
        for key in self.looking.drain(..) {
            if let Some(slot) = self.filtered.get_mut(key) {
                slot.wake();
            }
        }
        if self.filtered.is_empty() {
            // Then nobody has to know what is in it yet.
        } else if batch.is_whole() {
            for event in batch.events().iter().flatten() {
                for key in self.index.candidates(event) {
                    let slot = &mut self.filtered[key];
                    if slot.filter.as_ref().is_some_and(|filter| filter.matches(event)) {
                        slot.mark(self.next, self.place.as_ref());
                    }
                }
            }
        } else {
            // Whoever stands here is told of a gap.
            for (_, slot) in &mut self.filtered {
                slot.mark(self.next, self.place.as_ref());
            }
        }
        self.next += 1;
        self.place = Some(Arc::clone(&batch.after));
        self.newest = Some(batch);
    }

    /// Goes on with what comes next. Everybody is left where he is, which is in the ring no
    /// longer.
    fn skip_to(&mut self, head: (u64, Option<Arc<Place>>)) {
        let (number, place) = (self.next, self.place.take());
        for (_, slot) in self.unfiltered.iter_mut().chain(&mut self.filtered) {
            slot.mark(number, place.as_ref());
        }
        self.looking.clear();
        self.newest = None;
        (self.next, self.place) = head;
    }

    fn wake_all(&mut self) {
        for (_, slot) in self.unfiltered.iter_mut().chain(&mut self.filtered) {
            slot.wake();
        }
    }

    /// The batch of a number. What the lane has not handed out yet will be, and is nothing
    /// until then.
    fn find(&self, hub: &Hub, number: u64) -> Found {
        match &self.newest {
            _ if number >= self.next => Found::Nothing,
            Some(newest) if number + 1 == self.next => Found::Batch(Arc::clone(newest)),
            _ => hub.find(number),
        }
    }
}

impl Dispatcher {
    pub fn new(signal: Arc<Signal>) -> Arc<Self> {
        Arc::new(Self { signal, state: Mutex::default() })
    }

    /// Waits until something was published that has not been handed out.
    pub async fn news(&self) {
        self.signal.news().await;
    }

    /// Hands out what was published.
    pub fn hand_out(&self, hub: &Hub) {
        let mut state = self.state();
        state.handed_out = Some(Instant::now());
        while !state.is_empty() {
            match hub.find(state.next) {
                Found::Batch(batch) => state.hand_out(batch),
                Found::Nothing => break,
                Found::Gone => state.skip_to(hub.head()),
            }
        }
    }

    /// Ends all readers.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.wake_all();
    }

    /// A seat for a reader that goes on with the batch `number`.
    pub fn seat(self: &Arc<Self>, hub: &Hub, number: u64, filter: Option<Arc<Filter>>) -> Seat {
        // Before the look at the hub: what is published after it, the lane is told of.
        let listener = self.signal.listen();
        let mut state = self.state();
        if state.is_empty() {
            state.skip_to(hub.head());
        }
        let slot = Slot {
            filter: filter.clone(),
            standing: Standing::At(number),
            left_at: None,
            waker: Waker::noop().clone(),
            is_waiting: false,
        };
        let is_filtered = filter.is_some();
        let key = state.slots(is_filtered).insert(slot);
        if let Some(filter) = &filter {
            state.index.add(filter, key);
        }
        drop(state);
        Seat { lane: Arc::clone(self), key, is_filtered, _listener: listener }
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
    /// Nothing comes any more.
    Closed,
}

/// A live reader's place in its lane; given back when dropped.
pub(super) struct Seat {
    lane: Arc<Dispatcher>,
    key: usize,
    is_filtered: bool,
    _listener: Listener,
}

impl Seat {
    /// Looks for the next batch for a reader that stands at `place`, where it goes on from is
    /// put there. Takes the batch only if `is_wanted` says so. A reader that `may_follow` is
    /// not woken again before there is something for it.
    pub fn poll(
        &self,
        cx: &Context<'_>,
        hub: &Hub,
        place: &mut Arc<Place>,
        may_follow: bool,
        is_wanted: impl FnOnce(&Batch) -> bool,
    ) -> Poll<Next> {
        let mut state = self.lane.state();
        let state = &mut *state;
        if state.closed {
            return Poll::Ready(Next::Closed);
        }
        self.take_over(state, place);
        let slot = &state.slots(self.is_filtered)[self.key];
        if let Standing::At(number) = slot.standing {
            match state.find(hub, number) {
                Found::Batch(batch) if !is_wanted(&batch) => return Poll::Ready(Next::Later),
                Found::Batch(batch) => {
                    let waiting = state.next - number - 1;
                    state.slots(self.is_filtered)[self.key].standing = Standing::At(number + 1);
                    let now = state.handed_out.unwrap_or_else(Instant::now);
                    return Poll::Ready(Next::Batch { batch, waiting, now });
                }
                Found::Gone => return Poll::Ready(Next::Gone),
                Found::Nothing => {}
            }
            let is_there = number == state.next
                && state.place.as_ref().is_some_and(|lane| lane.is_same(place));
            if may_follow && is_there {
                state.slots(self.is_filtered)[self.key].standing = Standing::WithLane;
            } else if self.is_filtered && !state.filtered[self.key].is_waiting {
                state.looking.push(self.key);
            }
        }
        state.slots(self.is_filtered)[self.key].wait(cx);
        Poll::Pending
    }

    /// Puts where the reader stands into `place`, if the lane knows better.
    pub fn update(&self, place: &mut Arc<Place>) {
        self.take_over(&mut self.lane.state(), place);
    }

    fn take_over(&self, state: &mut State, place: &mut Arc<Place>) {
        let slot = &mut state.slots(self.is_filtered)[self.key];
        match slot.standing {
            Standing::At(_) => {
                if let Some(left_at) = slot.left_at.take() {
                    debug_assert!(invariants::never_back(&place.position, &left_at.position));
                    *place = left_at;
                }
            }
            Standing::WithLane => {
                if let Some(lane) = &state.place
                    && !lane.is_same(place)
                {
                    debug_assert!(invariants::never_back(&place.position, &lane.position));
                    place.clone_from(lane);
                }
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.lane.state();
        let slot = state.slots(self.is_filtered).remove(self.key);
        if let Some(filter) = &slot.filter {
            state.index.remove(filter, self.key);
        }
    }
}
