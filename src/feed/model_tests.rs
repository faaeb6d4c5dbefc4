//! The feed against a plain oracle: random interleavings of all that can happen to a log,
//! to the feed and to its subscribers, over the real tail, ring and readers.
//!
//! Every message has to account for the whole way that its cursor has come, see
//! [`oracle::account`]; so whoever is told everything up to the end of the log has been
//! told each event once and in order, and whoever resumes from any cursor is, too.
//!
//! The number of interleavings is three times `PROPTEST_CASES`, which is 256 by default:
//! some mistakes show only in one of a hundred. Time is paused and there is
//! one thread: nothing depends on how fast the machine is.

mod oracle;
mod steps;

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use proptest::prelude::*;

use super::*;
use crate::event_log::memory::MemoryLog;
use crate::event_log::{Ack, Health, LogId, LogReader, NewRecord};
use crate::proto::stream_events_request::Start;
use crate::proto::stream_events_response::Response;
use crate::tasks::{Death, Tasks};
use oracle::{Account, Asked, Refused, Wants, World};
use steps::{Ask, Begin, Content, Deed, Step, steps};

/// The server's time, which stands still, in milliseconds.
const NOW: i64 = 1_700_000_000_000;

const CALLER: Caller = Caller::Anonymous { may_read_origin: false };

/// What a stream says next; nothing at its end.
type Said = Option<Result<proto::StreamEventsResponse, FeedError>>;

/// The one place that knows how a reader is asked.
async fn next_message(reader: &mut Reader) -> Said {
    reader.next().await
}

fn is_replaced(error: &FeedError) -> bool {
    matches!(error, FeedError::Log(ReadError::Replaced))
}

/// The log of a [`World`], in which something may happen between two looks at it.
struct Meddled {
    world: Arc<Mutex<World>>,
    log: Arc<MemoryLog>,
}

impl Meddled {
    fn meddle(&self) {
        let mut world = self.world.lock().unwrap();
        if let Some(deed) = world.meanwhile.take() {
            world.perform(&deed);
        }
    }
}

impl EventLog for Meddled {
    fn key_partitions(&self) -> u32 {
        self.log.key_partitions()
    }

    fn submit(&self, record: NewRecord, ack: Ack) {
        self.log.submit(record, ack);
    }

    fn bounds(&self) -> BoxFuture<'_, Result<Bounds, ReadError>> {
        self.log.bounds().inspect(|_| self.meddle()).boxed()
    }

    fn open_reader(
        &self,
        log: LogId,
        from: Position,
    ) -> BoxFuture<'_, Result<Box<dyn LogReader>, ReadError>> {
        self.log.open_reader(log, from).inspect(|_| self.meddle()).boxed()
    }

    fn position_at(
        &self,
        log: LogId,
        time: Timestamp,
    ) -> BoxFuture<'_, Result<Position, ReadError>> {
        self.log.position_at(log, time).inspect(|_| self.meddle()).boxed()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.log.health()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.log.close()
    }
}

/// A feed with two lanes; its tail does not run at first.
struct Running {
    feed: Feed,
    lanes: [Lane; 2],
    tasks: Tasks,
    has_tail: bool,
}

impl Running {
    fn new(world: &Arc<Mutex<World>>, ring_bytes: usize) -> Self {
        let log = Arc::clone(&world.lock().unwrap().log);
        let log = Arc::new(Meddled { world: Arc::clone(world), log });
        let options = Options { ring_bytes, max_stream_age: None, ..Options::default() };
        let clock = Clock::manual(Timestamp::from_millis(NOW));
        let feed = Feed::build(log, options, clock, &mut Registry::default());
        let tasks = Tasks::new();
        let reading = feed.clone();
        tasks.spawn("catch-up", Death::Fatal, async move { reading.run_catch_up().await });
        let lanes = [(); 2].map(|()| {
            let (lane, relay) = feed.lane();
            tasks.spawn("relay", Death::Fatal, relay.run());
            lane
        });
        Self { feed, lanes, tasks, has_tail: false }
    }

    fn start_tail(&mut self) {
        if !std::mem::replace(&mut self.has_tail, true) {
            let feed = self.feed.clone();
            self.tasks.spawn("tail", Death::Fatal, async move { feed.run_tail().await });
        }
    }
}

struct Client {
    reader: Reader,
    account: Account,
}

struct Model {
    world: Arc<Mutex<World>>,
    ring_bytes: usize,
    running: Running,
    clients: Vec<Client>,
    /// Every cursor that was ever given out.
    cursors: Vec<String>,
}

/// More subscribers at once show nothing new.
const MOST_CLIENTS: usize = 5;

impl Model {
    fn new(partitions: usize, ring_bytes: usize) -> Self {
        let world = World::new(partitions);
        let running = Running::new(&world, ring_bytes);
        Self { world, ring_bytes, running, clients: Vec::new(), cursors: Vec::new() }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    async fn step(&mut self, step: Step) {
        let number = self.clients.len();
        let pick = |client: u8| (number > 0).then(|| client as usize % number);
        match step {
            Step::Do(deed) => self.perform(&deed),
            Step::Overflow(partition, times) => {
                for kind in 0..times {
                    let content = Content::Event { player: 0, kind, large: false };
                    self.perform(&Deed::Append(partition, content));
                    turns(3).await;
                }
            }
            Step::Subscribe(ask) => {
                if let Some(client) = self.subscribe(&ask).await {
                    if number == MOST_CLIENTS {
                        self.clients.remove(0);
                    }
                    self.clients.push(client);
                }
            }
            Step::Poll(ask) => self.poll(&ask).await,
            Step::Next(client, turns, meanwhile) => {
                let Some(client) = pick(client) else { return };
                self.world().meanwhile = meanwhile;
                self.next(client, turns).await;
                self.world().meanwhile = None;
            }
            Step::Drain(client) => {
                let Some(client) = pick(client) else { return };
                while self.next(client, 0).await {}
            }
            Step::Resume(client, policy) => {
                let Some(client) = pick(client) else { return };
                let client = self.clients.remove(client);
                self.resume(client, policy).await;
            }
            Step::Leave(client) => {
                if let Some(client) = pick(client) {
                    self.clients.remove(client);
                }
            }
            Step::Restart { closed } => self.restart(closed).await,
            Step::StartTail => self.running.start_tail(),
            Step::Turns(number) => turns(number).await,
            Step::Wait => tokio::time::advance(DEFAULT_HEARTBEAT).await,
        }
    }

    fn perform(&mut self, deed: &Deed) {
        self.world().perform(deed);
        let receipt = self.world().receipt.take();
        self.cursors.extend(receipt.map(|appended| self.running.feed.cursor_behind(&appended)));
    }

    /// What somebody sends who asks for that, and what it means.
    fn asked(&self, ask: &Ask) -> (Start, Asked) {
        let of_cursor = |text: &str| {
            let cursor = Cursor::decode(text).unwrap();
            (Start::AfterCursor(text.to_owned()), Asked::Cursor(cursor, ask.policy))
        };
        let latest = Start::StartPosition(proto::StartPosition::Latest.into());
        let seen = self.cursors.len();
        match ask.from {
            Begin::Seen(index) if seen > 0 => of_cursor(&self.cursors[index % seen]),
            Begin::Recent(index) if seen > 0 => {
                of_cursor(&self.cursors[seen.saturating_sub(index + 1)])
            }
            Begin::Latest | Begin::Seen(_) | Begin::Recent(_) => (latest, Asked::Latest),
            Begin::Earliest => {
                let earliest = proto::StartPosition::Earliest.into();
                (Start::StartPosition(earliest), Asked::Earliest)
            }
            Begin::Time(time) => {
                let millis = Timestamp::from_millis(i64::try_from(time).unwrap());
                (Start::StartTime(millis.into()), Asked::Time(time))
            }
            Begin::Ahead(partition, by) => {
                let world = self.world();
                let mut position = world.now().bounds().end;
                let partition = partition as usize % position.len();
                position.set(partition as u32, position.get(partition as u32) + by);
                of_cursor(&Cursor::of(world.now().log, &position, Timestamp::default()))
            }
        }
    }

    async fn subscribe(&mut self, ask: &Ask) -> Option<Client> {
        let (start, asked) = self.asked(ask);
        let subscription = Subscription {
            start: Some(start),
            filter: ask.wants.filter(),
            max_events: i64::try_from(ask.max_events).unwrap(),
            stop_when_caught_up: ask.stop_when_caught_up,
            expired_cursor_policy: ask.policy.into(),
            ..Default::default()
        };
        let (epoch, log, before) = self.before(ask);
        let lane = &self.running.lanes[self.clients.len() % 2];
        let opened = lane.subscribe(&CALLER, subscription).await;
        let reader = self.opened(opened, epoch);
        let after = self.after(epoch);
        let expected = oracle::start(&asked, log, &before, &after);
        match (reader, expected) {
            (Ok(reader), Ok(start)) => {
                self.claim(epoch, &asked, &start);
                let limits = (ask.max_events, ask.stop_when_caught_up);
                Some(Client { reader, account: Account::new(epoch, ask.wants, limits, start) })
            }
            (Err(Some(refused)), Err(expected)) => {
                assert_eq!(refused, expected);
                None
            }
            (Err(None), _) => None,
            (Ok(_), Err(expected)) => panic!("not refused as {expected:?}"),
            (Err(refused), Ok(start)) => panic!("{refused:?} instead of {start:?}"),
        }
    }

    async fn poll(&mut self, ask: &Ask) {
        use proto::poll_events_request::Start as PollStart;
        let (start, asked) = self.asked(ask);
        let request = proto::PollEventsRequest {
            start: Some(match start {
                Start::StartPosition(position) => PollStart::StartPosition(position),
                Start::AfterCursor(cursor) => PollStart::AfterCursor(cursor),
                Start::StartTime(time) => PollStart::StartTime(time),
            }),
            filter: ask.wants.filter(),
            max_wait: Some(prost_types::Duration::default()),
            max_events: i32::try_from(ask.max_events).unwrap(),
            expired_cursor_policy: ask.policy.into(),
            ..Default::default()
        };
        let (epoch, log, before) = self.before(ask);
        let answer = self.running.lanes[0].poll(&CALLER, request, None).await;
        let answer = answer.map(PollAnswer::read);
        let answer = self.opened(answer, epoch);
        let after = self.after(epoch);
        let (answer, start) = match (answer, oracle::start(&asked, log, &before, &after)) {
            (Ok(answer), Ok(start)) => (answer, start),
            (Err(Some(refused)), Err(expected)) => return assert_eq!(refused, expected),
            (Err(None), _) => return,
            (answer, start) => panic!("{answer:?} and not {start:?}"),
        };
        self.claim(epoch, &asked, &start);
        let cursor = Cursor::decode(&answer.cursor).unwrap();
        let from = start.cursor.iter().map(|place| *place.end()).collect();
        {
            let world = self.world();
            let epoch = &world.epochs[epoch];
            assert_eq!(cursor.epoch, epoch.log);
            let moved = (&from, &cursor.position);
            oracle::account(epoch, ask.wants, moved, &answer.events, answer.gap.as_ref());
        }
        let reason = answer.gap.map(|gap| gap.reason());
        match start.goes_on {
            Some((expected, _)) => assert_eq!(reason, Some(expected)),
            None => assert_ne!(reason, Some(proto::GapReason::Skipped)),
        }
        assert!(ask.max_events == 0 || answer.events.len() as u64 <= ask.max_events);
        if answer.caught_up {
            // Between the cursor and the end of that time lies at most what is not wanted.
            let mut end = cursor.position.clone();
            for (partition, to) in start.end.iter() {
                end.set(partition, to.max(end.get(partition)));
            }
            let epoch = &self.world().epochs[epoch];
            oracle::account(epoch, ask.wants, (&cursor.position, &end), &[], None);
        } else {
            assert!(reason.is_some() || !answer.events.is_empty(), "nothing for no reason");
        }
        self.cursors.push(answer.cursor);
    }

    /// Notes what somebody who begins there may say of the time.
    fn claim(&self, epoch: usize, asked: &Asked, start: &oracle::Start) {
        let time = match asked {
            Asked::Latest => Timestamp::from_millis(NOW),
            Asked::Earliest => Timestamp::default(),
            Asked::Time(time) => Timestamp::from_millis(i64::try_from(*time).unwrap()),
            Asked::Cursor(cursor, _) => cursor.time,
        };
        let place = start.cursor.iter().map(|place| *place.start()).collect();
        self.world().epochs[epoch].claims.push((place, time));
    }

    /// The log before somebody asks, to whom something may happen.
    fn before(&self, ask: &Ask) -> (usize, LogId, oracle::Bounds) {
        let mut world = self.world();
        world.meanwhile.clone_from(&ask.meanwhile);
        (world.epoch(), world.now().log, world.now().bounds())
    }

    fn after(&self, epoch: usize) -> oracle::Bounds {
        self.world().epochs[epoch].bounds()
    }

    /// What was answered; the error is none where the log was replaced while it was asked.
    fn opened<T>(
        &mut self,
        answer: Result<T, FeedError>,
        epoch: usize,
    ) -> Result<T, Option<Refused>> {
        self.world().meanwhile = None;
        let was_replaced = self.world().epoch() > epoch;
        answer.map_err(|error| match error {
            FeedError::EpochChanged if was_replaced => None,
            error if is_replaced(&error) && was_replaced => None,
            FeedError::EpochChanged => Some(Refused::Epoch),
            FeedError::CursorAhead(valid) => {
                self.cursors.extend([valid.earliest, valid.latest]);
                Some(Refused::Ahead)
            }
            FeedError::CursorExpired(valid) => {
                self.cursors.extend([valid.earliest, valid.latest]);
                Some(Refused::Expired)
            }
            error => panic!("{error:?}"),
        })
    }

    /// One message, if it comes within so many turns; whether it came.
    async fn next(&mut self, client: usize, patience: u8) -> bool {
        if self.clients[client].account.ended {
            return false;
        }
        let said = {
            let mut next = pin!(next_message(&mut self.clients[client].reader));
            let mut said = None;
            for turn in 0..=patience {
                if turn > 0 {
                    turns(1).await;
                }
                if let Poll::Ready(ready) = futures_util::poll!(next.as_mut()) {
                    said = Some(ready);
                    break;
                }
            }
            said
        };
        let Some(said) = said else { return false };
        self.hear(client, said);
        true
    }

    fn hear(&mut self, client: usize, said: Said) {
        let account = &mut self.clients[client].account;
        account.hear(&self.world.lock().unwrap(), said);
        self.cursors.extend(account.cursor.iter().map(|(text, _)| text.clone()));
    }

    async fn resume(&mut self, client: Client, policy: proto::ExpiredCursorPolicy) {
        let account = &client.account;
        let Some((text, _)) = &account.cursor else { return };
        self.cursors.push(text.clone());
        let ask = Ask {
            from: Begin::Recent(0),
            wants: account.wants,
            max_events: account.max_events,
            stop_when_caught_up: account.stops_when_caught_up,
            policy,
            meanwhile: None,
        };
        drop(client);
        let resumed = self.subscribe(&ask).await;
        self.clients.extend(resumed);
    }

    async fn restart(&mut self, closed: bool) {
        if closed {
            self.running.feed.close();
            for client in 0..self.clients.len() {
                self.clients[client].account.closing = true;
                while !self.clients[client].account.ended {
                    let said = next_message(&mut self.clients[client].reader).await;
                    self.hear(client, said);
                }
            }
        }
        self.running.tasks.stop();
        self.running = Running::new(&self.world, self.ring_bytes);
        for client in std::mem::take(&mut self.clients) {
            self.resume(client, proto::ExpiredCursorPolicy::Earliest).await;
        }
    }

    /// Lets everybody hear all there is.
    async fn finish(&mut self) {
        self.running.start_tail();
        for client in 0..self.clients.len() {
            let mut quiet = 0;
            loop {
                let account = &self.clients[client].account;
                let is_there = account.epoch == self.world().epoch();
                if account.ended || (is_there && account.is_at_end(&self.world())) {
                    break;
                }
                let begun = Instant::now();
                let said = next_message(&mut self.clients[client].reader).await;
                let is_heartbeat = matches!(&said, Some(Ok(message))
                    if matches!(message.response, Some(Response::Heartbeat(_))));
                quiet = if is_heartbeat { quiet + 1 } else { 0 };
                assert!(quiet < 3, "no more is said, although there is more");
                // Somebody else may have had the last of the readers for those who are behind.
                let has_waited = begun.elapsed() > catch_up::GRACE;
                self.hear(client, said);
                // Time goes on only when nobody has anything to do.
                let account = &self.clients[client].account;
                assert!(
                    !has_waited || account.has_all(&self.world()),
                    "it was not woken {:?}",
                    begun.elapsed()
                );
            }
        }
    }
}

/// Lets the tail and the relays run.
async fn turns(number: u8) {
    for _ in 0..number {
        tokio::task::yield_now().await;
    }
}

/// Goes through the steps and lets everybody hear the rest, also of what comes then.
fn run(steps: Vec<Step>, partitions: usize, ring_bytes: usize, with_tail: bool) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let mut model = Model::new(partitions, ring_bytes);
        if with_tail {
            model.running.start_tail();
        }
        for step in steps {
            model.step(step).await;
        }
        model.finish().await;
        for partition in 0..5 {
            let content = Content::Event { player: partition, kind: partition, large: false };
            model.perform(&Deed::Append(partition, content));
        }
        model.finish().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 3 * ProptestConfig::default().cases,
        ..ProptestConfig::default()
    })]

    /// However all that interleaves: every subscriber is told each matching event once and
    /// in the order of its partition, or of a gap that accounts for the difference.
    #[test]
    fn every_interleaving_gives_each_event_once_or_a_gap(
        steps in steps(),
        partitions in 1..4usize,
        ring_bytes in prop_oneof![2 => Just(1usize), 2 => Just(900), 1 => Just(1 << 20)],
        with_tail in prop::bool::weighted(0.7),
    ) {
        run(steps, partitions, ring_bytes, with_tail);
    }
}

fn ask(from: Begin) -> Ask {
    Ask {
        from,
        wants: Wants::All,
        max_events: 0,
        stop_when_caught_up: false,
        policy: proto::ExpiredCursorPolicy::Fail,
        meanwhile: None,
    }
}

#[test]
fn a_poll_has_not_caught_up_while_something_is_left_to_say() {
    let garbage = || Step::Do(Deed::Append(0, Content::Garbage));
    run(vec![garbage(), garbage(), Step::Poll(ask(Begin::Earliest))], 1, 1, false);
}

#[test]
fn a_stream_may_be_opened_before_the_tail_has_noticed_another_log() {
    let opened = Step::Subscribe(ask(Begin::Latest));
    run(vec![Step::Turns(3), Step::Do(Deed::Replace), opened], 1, 1, true);
}

#[test]
fn a_partition_added_between_two_looks_at_the_log_is_read_from_its_start() {
    let event = Content::Event { player: 0, kind: 0, large: false };
    let meanwhile = Some(Deed::AddPartition(Some(event)));
    let opened = Step::Subscribe(Ask { meanwhile, ..ask(Begin::Time(1000)) });
    run(vec![opened], 1, 1, true);
}

#[test]
fn who_is_ahead_of_the_tail_and_falls_behind_is_told_no_end_before_its_place() {
    let event = |kind, large| Content::Event { player: 0, kind, large };
    let append = |at, content| Step::Do(Deed::Append(at, content));
    let meanwhile = Some(Deed::Trim(3, 1));
    let steps = vec![
        append(164, event(0, true)),
        append(74, event(0, true)),
        Step::Do(Deed::AddPartition(None)),
        append(101, Content::Garbage),
        Step::Restart { closed: false },
        append(59, Content::Garbage),
        Step::Poll(Ask { meanwhile, ..ask(Begin::Latest) }),
        append(134, event(0, true)),
        append(0, Content::Garbage),
        Step::Do(Deed::Trim(145, 1000)),
        Step::Subscribe(ask(Begin::Time(4))),
        append(89, event(1, false)),
    ];
    run(steps, 3, 1, false);
}
