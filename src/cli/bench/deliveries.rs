//! Who was sent what, and who got it.
//!
//! Events are known by player and quantity, both chosen by the sender: each player's
//! purchases count upwards from 1, so that the two make the number of the event.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::payload::{Call, Payload};
use super::stream::{self, Malformed, Message};
use super::tally::{Latency, latencies};

/// Which events the subscribers ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// All.
    None,
    /// Each subscriber those of one player, of its own.
    Player,
}

/// One event.
#[derive(Clone, Copy, Debug)]
struct Event {
    sent: Instant,
    acknowledged: bool,
    deliveries: u64,
}

/// Everything that was sent and delivered.
#[derive(Debug)]
pub struct Deliveries {
    payload: Arc<Payload>,
    filter: Filter,
    players: u64,
    subscribers: u64,
    events: Vec<Event>,
    /// The first event of the phase that is measured.
    phase: usize,
    phase_began: Instant,
    latencies: Histogram<u64>,
    last_delivery: Option<Instant>,
    /// The deliveries of all phases, also repeated and unwanted ones.
    pub all: u64,
    /// Subscribers that had everything when they were opened.
    pub caught_up: u64,
    /// Deliveries to subscribers that had the event already.
    pub repeated: u64,
    /// Deliveries to subscribers that had not asked for the event.
    pub unwanted: u64,
    /// Deliveries of events that somebody else has sent.
    pub foreign: u64,
    /// How often a subscriber was told that it is too slow.
    pub fell_behind: u64,
    /// How often one was told that events are missing.
    pub gaps: u64,
    /// Calls that failed.
    pub calls_failed: u64,
    /// Streams that ended before they were to.
    pub streams_ended: u64,
    /// What the first failure said.
    pub first_failure: Option<String>,
    /// The measurement is over: streams end now.
    pub closing: bool,
}

/// What became of the events of a phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that were acknowledged.
    pub events: u64,
    /// How often they were to be delivered.
    pub expected: u64,
    /// How often they were, repeats not counted.
    pub received: u64,
}

impl Counts {
    /// Deliveries that did not come.
    pub fn lost(self) -> u64 {
        self.expected - self.received
    }
}

impl Deliveries {
    /// None yet.
    pub fn new(
        payload: Arc<Payload>,
        filter: Filter,
        players: u64,
        subscribers: u64,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            payload,
            filter,
            players,
            subscribers,
            events: Vec::new(),
            phase: 0,
            phase_began: Instant::now(),
            latencies: latencies()?,
            last_delivery: None,
            all: 0,
            caught_up: 0,
            repeated: 0,
            unwanted: 0,
            foreign: 0,
            fell_behind: 0,
            gaps: 0,
            calls_failed: 0,
            streams_ended: 0,
            first_failure: None,
            closing: false,
        })
    }

    /// Begins a phase: what is sent from now on is counted apart.
    pub fn begin(&mut self) {
        self.phase = self.events.len();
        self.phase_began = Instant::now();
        self.latencies.reset();
        self.last_delivery = None;
    }

    /// Notes that an event is sent now, and says which.
    pub fn send(&mut self, now: Instant) -> Call {
        let number = self.events.len() as u64;
        self.events.push(Event { sent: now, acknowledged: false, deliveries: 0 });
        Call { number, player: number % self.players, sequence: number / self.players + 1 }
    }

    /// Notes that the log has an event.
    pub fn acknowledge(&mut self, call: Call) {
        if let Some(event) = self.event(call.number) {
            event.acknowledged = true;
        }
    }

    /// Notes a failure of a call. Its event may come, and need not.
    pub fn call_failed(&mut self, why: String) {
        self.calls_failed += 1;
        self.first_failure.get_or_insert(why);
    }

    /// Notes the end of a stream, unless all are to end.
    pub fn stream_ended(&mut self, why: impl FnOnce() -> String) {
        if !self.closing {
            self.streams_ended += 1;
            self.first_failure.get_or_insert_with(why);
        }
    }

    /// Notes a message that has come to a subscriber.
    pub fn take(&mut self, message: &[u8], to: &mut Subscriber) -> Result<(), Malformed> {
        match stream::message(message)? {
            Message::Batch(batch) => {
                let now = Instant::now();
                for event in stream::events(batch) {
                    let found = stream::purchase(event?)?;
                    self.deliver(found, to, now);
                }
            }
            Message::CaughtUp => {
                self.caught_up += u64::from(!to.caught_up);
                to.caught_up = true;
            }
            Message::FellBehind => self.fell_behind += 1,
            Message::Gap => self.gaps += 1,
            Message::Opened | Message::Closing | Message::Other => {}
        }
        Ok(())
    }

    fn deliver(&mut self, found: Option<(&[u8], u64)>, to: &mut Subscriber, now: Instant) {
        self.all += 1;
        let own = found.and_then(|(id, quantity)| {
            let (player, quantity) = (self.payload.player(id)?, quantity.checked_sub(1)?);
            Some((player, quantity, usize::try_from(quantity * self.players + player).ok()?))
        });
        let (Some((player, quantity, number)), phase) = (own, self.phase) else {
            self.foreign += 1;
            return;
        };
        let index = match self.filter {
            Filter::None => number as u64,
            Filter::Player if player == to.number => quantity,
            Filter::Player => {
                self.unwanted += 1;
                return;
            }
        };
        let Some(event) = self.events.get_mut(number) else {
            // With a player of this round, but never sent.
            self.foreign += 1;
            return;
        };
        if !to.seen.insert(index) {
            self.repeated += 1;
            return;
        }
        event.deliveries += 1;
        let took = now.saturating_duration_since(event.sent);
        if number >= phase {
            self.latencies.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
            self.last_delivery = Some(now);
        }
    }

    fn event(&mut self, number: u64) -> Option<&mut Event> {
        self.events.get_mut(usize::try_from(number).ok()?)
    }

    /// What became of the phase so far.
    pub fn counts(&self) -> Counts {
        let each = match self.filter {
            Filter::None => self.subscribers,
            Filter::Player => 1,
        };
        let mut counts = Counts::default();
        for event in self.events[self.phase..].iter().filter(|event| event.acknowledged) {
            counts.events += 1;
            counts.expected += each;
            counts.received += event.deliveries;
        }
        counts
    }

    /// How long the deliveries of the phase took.
    pub fn latency(&self) -> Latency {
        Latency::of(&self.latencies)
    }

    /// From the beginning of the phase to its last delivery.
    pub fn lasted(&self) -> Duration {
        let end = self.last_delivery.unwrap_or(self.phase_began);
        end.saturating_duration_since(self.phase_began)
    }

    /// From the last send of the phase to its last delivery.
    pub fn recovery(&self) -> Option<Duration> {
        let sent = self.events[self.phase..].last()?.sent;
        Some(self.last_delivery?.saturating_duration_since(sent))
    }
}

/// One subscriber, as far as it is counted.
#[derive(Debug)]
pub struct Subscriber {
    /// Which one it is; with a filter, also its player.
    number: u64,
    caught_up: bool,
    seen: Seen,
}

impl Subscriber {
    /// One that has got nothing yet.
    pub fn new(number: u64) -> Self {
        Self { number, caught_up: false, seen: Seen::default() }
    }
}

/// A set of small numbers: a bit each.
#[derive(Debug, Default)]
struct Seen(Vec<u64>);

impl Seen {
    /// Adds a number, and says whether it was not there.
    fn insert(&mut self, number: u64) -> bool {
        // Bounded by the number of events that were sent.
        let word = usize::try_from(number / 64).unwrap_or(usize::MAX);
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let bit = 1 << (number % 64);
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deliveries(filter: Filter, players: u64) -> Deliveries {
        Deliveries::new(Arc::new(Payload::new("sword")), filter, players, 2).unwrap()
    }

    fn deliver(deliveries: &mut Deliveries, call: Call, to: &mut Subscriber, at: Instant) {
        let id = deliveries.payload.player_id(call.player);
        deliveries.deliver(Some((id.as_bytes(), call.sequence)), to, at);
    }

    #[test]
    fn each_subscriber_is_to_get_every_acknowledged_event_once() {
        let mut all = deliveries(Filter::None, 3);
        let (mut first, mut second) = (Subscriber::new(0), Subscriber::new(1));
        let begun = Instant::now();
        let after = |millis| begun + Duration::from_millis(millis);
        let early = all.send(begun);
        all.acknowledge(early);
        all.begin();
        let calls: Vec<_> = (0..5).map(|_| all.send(begun)).collect();
        assert_eq!((calls[4].player, calls[4].sequence), (2, 2));
        for call in &calls[..4] {
            all.acknowledge(*call);
        }
        for call in &calls {
            deliver(&mut all, *call, &mut first, after(20));
        }
        for call in [calls[0], calls[2], calls[2], early] {
            deliver(&mut all, call, &mut second, after(40));
        }
        // The fifth was not acknowledged; the early one is of another phase.
        let counts = all.counts();
        assert_eq!(counts, Counts { events: 4, expected: 8, received: 6 });
        assert_eq!((counts.lost(), all.repeated, all.all), (2, 1, 9));
        assert!((40_000..41_000).contains(&all.latency().max), "{:?}", all.latency());
        assert_eq!(all.recovery(), Some(Duration::from_millis(40)));
        let foreign = Some((&b"alice"[..], 1));
        all.deliver(foreign, &mut first, Instant::now());
        assert_eq!((all.foreign, all.counts().received), (1, 6));
    }

    #[test]
    fn with_a_filter_each_event_is_for_one_subscriber() {
        let mut filtered = deliveries(Filter::Player, 2);
        let (mut first, mut second) = (Subscriber::new(0), Subscriber::new(1));
        let now = Instant::now();
        let calls: Vec<_> = (0..4).map(|_| filtered.send(now)).collect();
        for call in &calls {
            filtered.acknowledge(*call);
        }
        deliver(&mut filtered, calls[0], &mut first, now);
        deliver(&mut filtered, calls[1], &mut second, now);
        deliver(&mut filtered, calls[2], &mut first, now);
        deliver(&mut filtered, calls[3], &mut first, now);
        assert_eq!(filtered.counts(), Counts { events: 4, expected: 4, received: 3 });
        assert_eq!((filtered.unwanted, filtered.repeated), (1, 0));
    }

    #[test]
    fn an_empty_phase_has_no_recovery_and_nothing_lost() {
        let all = deliveries(Filter::None, 1);
        assert_eq!((all.counts(), all.recovery()), (Counts::default(), None));
        assert_eq!(all.lasted(), Duration::ZERO);
        assert_eq!(all.latency().max, 0);
    }
}
