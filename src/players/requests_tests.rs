//! The memory of requests, against a plain model and at its bounds.

use std::collections::BTreeMap;
use std::hash::RandomState;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use uuid::Uuid;

use super::key::PlayerHash;
use super::requests::{Answer, Found, Key, Limits, Requests, Settled, Written};
use super::{Claimed, Options, Players};
use crate::clock::{Clock, Timestamp};
use crate::domain::{Catalog, Envelope, PlayerId, Price, RequestId, Submission, Terms};
use crate::event_log::{Appended, Bounds, LogId, Position, Record, Trimmed};
use crate::proto::{self, game_event::Payload};

static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

const AGE: Duration = Duration::from_secs(1_000);
const UNSETTLED_MILLIS: i64 = 300_000;

fn key_of(player: &str, request: Uuid) -> Key {
    Key::new(&HASHER, PlayerHash::of(&HASHER, player), request)
}

fn key(number: u8) -> Key {
    key_of("alice", Uuid::from_u128(number.into()))
}

fn event(key: u8, content: u8) -> Uuid {
    Uuid::from_u128((u128::from(key) << 8 | u128::from(content)) + 1)
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn written(event_id: Uuid, offset: u64, millis: i64) -> Written {
    let (append_time, accept_time) = (at(millis), at(millis));
    Written { event_id, partition: 0, offset, append_time, accept_time, terms: Terms::None }
}

#[derive(Clone, Debug)]
enum Step {
    /// A call with this key and this content.
    Call(u8, u8),
    /// A record that was handed over is appended.
    Append(usize),
    /// The log answers to one; vaguely, if so.
    Answer(usize, bool),
    /// Another server writes.
    Foreign(u8, u8),
    /// So much of the log is read.
    Read(usize),
    /// Time passes.
    Wait(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6u8, 0..2u8).prop_map(|(key, content)| Step::Call(key, content)),
        3 => any::<usize>().prop_map(Step::Append),
        3 => (any::<usize>(), prop::bool::weighted(0.3))
            .prop_map(|(index, vague)| Step::Answer(index, vague)),
        1 => (0..6u8, 0..2u8).prop_map(|(key, content)| Step::Foreign(key, content)),
        2 => (0..4usize).prop_map(Step::Read),
        1 => prop_oneof![1..2_000i64, 100_000..1_100_000i64].prop_map(Step::Wait),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    UnderWay,
    Again,
    Unsettled(i64),
}

/// A record that was handed to the log.
#[derive(Debug)]
struct Flight {
    key: u8,
    event: Uuid,
    checked: usize,
    appended: Option<usize>,
    answered: bool,
    /// It is not appended any more.
    dead: bool,
}

struct Logged {
    key: u8,
    event: Uuid,
    checked: usize,
    time: i64,
}

/// What happens in the world, and what has to be known of it.
struct Model {
    requests: Requests,
    max_entries: usize,
    now: i64,
    log: Vec<Logged>,
    read: usize,
    flights: Vec<Flight>,
    pending: BTreeMap<u8, (Uuid, State)>,
    /// The offsets of what the index was told to be in the log.
    told: BTreeMap<u8, Vec<usize>>,
}

impl Model {
    fn new(max_entries: usize) -> Self {
        Self {
            requests: Requests::new(Limits { max_age: AGE, max_entries }),
            max_entries,
            now: 10_000_000,
            log: Vec::new(),
            read: 0,
            flights: Vec::new(),
            pending: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    fn is_duplicate(&self, offset: usize) -> bool {
        let record = &self.log[offset];
        let earlier = record.checked.min(offset)..offset;
        self.log[earlier].iter().any(|other| other.event == record.event)
    }

    /// The first record that was told of, when it has to be remembered.
    fn sure(&self, key: u8) -> Option<usize> {
        let first = *self.told.get(&key)?.iter().min()?;
        let time = at(self.log[first].time);
        let forgotten = self.requests.forgotten().is_some_and(|forgotten| time <= forgotten);
        (time >= at(self.now).minus(AGE) && !forgotten).then_some(first)
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Call(number, content) => self.call(number, event(number, content)),
            Step::Append(index) => {
                let flights = self.flights.len().max(1);
                let Some(flight) = self.flights.get_mut(index % flights) else { return };
                if flight.appended.is_none() && !flight.dead {
                    flight.appended = Some(self.log.len());
                    let (key, event, checked) = (flight.key, flight.event, flight.checked);
                    self.log.push(Logged { key, event, checked, time: self.now });
                }
            }
            Step::Answer(index, vague) => self.answer(index, vague),
            Step::Foreign(number, content) => {
                let event = event(number, content);
                self.log.push(Logged { key: number, event, checked: self.read, time: self.now });
            }
            Step::Read(count) => {
                for offset in self.read..self.log.len().min(self.read + count) {
                    self.read = offset + 1;
                    let Logged { key: number, event, time, .. } = self.log[offset];
                    if self.is_duplicate(offset) {
                        continue;
                    }
                    if self.pending.get(&number).is_some_and(|pending| pending.0 == event) {
                        self.pending.remove(&number);
                    }
                    self.told.entry(number).or_default().push(offset);
                    let event = written(event, offset as u64, time);
                    self.requests.apply(key(number), event, || Terms::None, at(self.now));
                }
            }
            Step::Wait(millis) => self.now += millis,
        }
    }

    fn call(&mut self, number: u8, event: Uuid) {
        let found = self.requests.look_up(key(number), event, at(self.now));
        if let Found::Written(found) = &found {
            let record = &self.log[found.offset as usize];
            assert_eq!((record.key, record.event, record.event), (number, event, found.event_id));
        }
        if let Some(sure) = self.sure(number) {
            match found {
                Found::Written(found) => assert_eq!(found.offset as usize, sure),
                Found::Conflict => assert_ne!(self.log[sure].event, event),
                _ => panic!("what was at {sure} is forgotten"),
            }
            return;
        }
        let pending = self.pending.get(&number).copied();
        let is_old = |since: i64| since < self.now - UNSETTLED_MILLIS;
        let pending = pending.filter(|p| !matches!(p.1, State::Unsettled(since) if is_old(since)));
        match (found, pending) {
            // It was told of, and may have been forgotten.
            (Found::Written(_) | Found::Conflict, _) if self.told.contains_key(&number) => return,
            (Found::Nothing, None) => {}
            (Found::Unsettled(_), Some((id, State::Unsettled(_)))) => assert_eq!(id, event),
            (Found::Conflict, Some((id, _))) => return assert_ne!(id, event),
            (Found::UnderWay(_), Some((id, state))) => {
                assert_eq!(id, event);
                return assert!(!matches!(state, State::Unsettled(_)));
            }
            (_, pending) => panic!("not what {pending:?} comes to"),
        }
        let again = pending.is_some();
        let state = if again { State::Again } else { State::UnderWay };
        self.pending.insert(number, (event, state));
        self.requests.claim(key(number), event);
        let (checked, appended) = (self.read, None);
        let flight = Flight { key: number, event, checked, appended, answered: false, dead: false };
        self.flights.push(flight);
    }

    fn answer(&mut self, index: usize, vague: bool) {
        let flights = self.flights.len().max(1);
        let Some(flight) = self.flights.get_mut(index % flights) else { return };
        if std::mem::replace(&mut flight.answered, true) {
            return;
        }
        let (number, event) = (flight.key, flight.event);
        let answer = match flight.appended {
            _ if vague => Answer::None,
            Some(offset) => Answer::Durable(0, offset as u64, at(self.log[offset].time)),
            None => {
                flight.dead = true;
                Answer::NotWritten
            }
        };
        let appended = flight.appended;
        let state = self.pending.get(&number).filter(|p| p.0 == event).map(|p| p.1);
        match (answer, state) {
            (Answer::Durable(..), Some(State::Again)) => {}
            (Answer::Durable(..), _) => {
                self.told.entry(number).or_default().extend(appended);
                if state.is_some() {
                    self.pending.remove(&number);
                }
            }
            (Answer::NotWritten, Some(State::UnderWay)) => {
                self.pending.remove(&number);
            }
            (_, Some(_)) => {
                self.pending.insert(number, (event, State::Unsettled(self.now)));
                let oldest = self.now - UNSETTLED_MILLIS;
                let is_old =
                    |state: State| matches!(state, State::Unsettled(since) if since < oldest);
                self.pending.retain(|_, pending| !is_old(pending.1));
            }
            (_, None) => {}
        }
        let terms = (at(self.now), Terms::None);
        let settled = self.requests.settle(key(number), event, terms, answer, at(self.now));
        if let Settled::Written(Some(there)) = settled {
            assert_eq!(self.log[there.offset as usize].event, event);
        }
    }

    fn check(&self) {
        assert!(self.requests.len() <= self.max_entries);
    }
}

proptest! {
    #[test]
    fn what_is_known_of_requests_is_what_has_happened(
        steps in prop::collection::vec(step(), 1..120),
        max_entries in prop_oneof![Just(3usize), Just(1_000)],
    ) {
        let mut model = Model::new(max_entries);
        for step in steps {
            model.run(step);
            model.check();
        }
    }

    /// One server, which forgets nothing: under each request id one event is seen by those who
    /// leave out duplicates.
    #[test]
    fn a_request_is_carried_out_once(steps in prop::collection::vec(step(), 1..150)) {
        let mut model = Model::new(1_000);
        let alone = |step: &Step| !matches!(step, Step::Foreign(..) | Step::Wait(100_000..));
        for step in steps.into_iter().filter(alone) {
            model.run(step);
        }
        let seen = (0..model.log.len()).filter(|&offset| !model.is_duplicate(offset));
        let mut keys: Vec<_> = seen.map(|offset| model.log[offset].key).collect();
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        prop_assert_eq!(keys.len(), all);
    }
}

#[test]
fn a_request_is_forgotten_when_it_is_too_old() {
    let mut requests = Requests::new(Limits { max_age: AGE, max_entries: 100 });
    for number in 0..10u8 {
        let millis = i64::from(number) * 100_000;
        let event = written(event(number, 0), number.into(), millis);
        requests.apply(key(number), event, || Terms::None, at(millis));
    }
    let mut found = |number: u8, now| {
        matches!(requests.look_up(key(number), event(number, 0), at(now)), Found::Written(_))
    };
    assert!(found(0, 1_000_000) && !found(0, 1_000_001) && found(1, 1_000_001));
    // Nothing was forgotten early.
    assert_eq!(requests.forgotten(), None);
    let new = written(event(10, 0), 10, 1_250_000);
    requests.apply(key(10), new, || Terms::None, at(1_250_000));
    assert_eq!(requests.len(), 8, "three are gone");
}

#[test]
fn beyond_the_bound_the_oldest_are_forgotten_and_that_is_told() {
    let mut requests = Requests::new(Limits { max_age: AGE, max_entries: 4 });
    for number in 0..10u8 {
        let event = written(event(number, 0), number.into(), number.into());
        requests.apply(key(number), event, || Terms::None, at(10));
        assert!(requests.len() <= 4);
    }
    assert_eq!(requests.forgotten(), Some(at(5)));
    for number in 0..10u8 {
        let found = requests.look_up(key(number), event(number, 0), at(10));
        assert_eq!(matches!(found, Found::Written(_)), number > 5, "{number}");
    }
}

/// A log is read one partition after the other; what is forgotten goes by time all the same.
#[test]
fn the_oldest_are_forgotten_whatever_the_order_of_reading() {
    const EACH: i64 = 1_000;
    let mut requests = Requests::new(Limits { max_age: AGE, max_entries: 1_000 });
    let request = |partition: u32, number: i64| {
        let id = Uuid::from_u128((u128::from(partition) << 64) + number as u128);
        (key_of("alice", id), id)
    };
    for partition in 0..3 {
        for number in 0..EACH {
            let (key, event_id) = request(partition, number);
            // All partitions tell of the same time.
            let event = Written { partition, ..written(event_id, number as u64, number * 100) };
            requests.apply(key, event, || Terms::None, at(EACH * 100));
        }
    }
    assert!(requests.len() <= 1_000);
    // A third of the time fits; what is forgotten at once takes a part of it.
    let forgotten = requests.forgotten().unwrap().as_millis();
    assert!((66_000..75_000).contains(&forgotten), "{forgotten}");
    for partition in 0..3 {
        for number in 0..EACH {
            let (key, event_id) = request(partition, number);
            let found = requests.look_up(key, event_id, at(EACH * 100));
            assert!(
                matches!(found, Found::Written(_)) || number * 100 <= forgotten,
                "{partition} {number}"
            );
        }
    }
}

#[test]
fn terms_are_kept_once_and_let_go() {
    let mut requests = Requests::new(Limits { max_age: AGE, max_entries: 1_000 });
    let terms = |number: i64| {
        let (currency_code, catalog_version) = ("gold".into(), "v".into());
        Terms::Price(Price { unit_price: number / 2, currency_code, catalog_version }.into())
    };
    for number in 0..5_000i64 {
        let id = Uuid::from_u128(number as u128);
        let key = key_of("alice", id);
        requests.apply(key, written(id, number as u64, number), || terms(number), at(number));
        let Found::Written(found) = requests.look_up(key, id, at(number)) else { panic!("new") };
        assert_eq!(found.terms, terms(number));
    }
    assert!(requests.terms_kept() <= 1_100, "{}", requests.terms_kept());
}

#[tokio::test]
async fn who_waits_is_woken_by_the_outcome_and_by_a_new_log() {
    let mut requests = Requests::new(Limits { max_age: AGE, max_entries: 4 });
    let wait = |requests: &mut Requests| match requests.look_up(key(1), event(1, 0), at(0)) {
        Found::UnderWay(outcome) => outcome,
        _ => panic!("it is under way"),
    };
    requests.claim(key(1), event(1, 0));
    let first = wait(&mut requests);
    let terms = (at(0), Terms::None);
    requests.settle(key(1), event(1, 0), terms, Answer::NotWritten, at(0));
    assert!(first.now_or_never().is_some());
    requests.claim(key(1), event(1, 0));
    let second = wait(&mut requests);
    drop(requests);
    assert!(second.now_or_never().is_some());
}

fn session(partition: u32, offset: u64, millis: i64, request_id: RequestId) -> Record {
    let event_id = Uuid::from_u128(request_id.uuid().as_u128() ^ 1);
    let player_id = PlayerId::parse("alice".into()).unwrap();
    session_of(player_id, event_id, partition, offset, millis, request_id)
}

fn session_of(
    player_id: PlayerId,
    event_id: Uuid,
    partition: u32,
    offset: u64,
    millis: i64,
    request_id: RequestId,
) -> Record {
    let (value, _) = Envelope {
        event_id,
        player_id: Some(player_id),
        accept_time: at(millis),
        checked_through: 0,
        origin: proto::Origin { request_id: request_id.to_string(), ..Default::default() },
        payload: Payload::SessionStarted(proto::SessionStarted::default()),
    }
    .encode();
    Record { partition, offset, append_time: at(millis), key: None, value }
}

#[test]
fn the_horizon_is_the_latest_of_age_bound_and_beginning() {
    let clock = Clock::manual(at(10_000_000));
    let options = Options { request_max_age: AGE, request_max_entries: 128, ..Options::default() };
    let mut registry = Registry::default();
    let players = Players::build(options, 2, clock.clone(), &mut registry);
    let since = || players.horizon().start_time.map(|time| Timestamp::from(time).as_millis());
    let log = LogId(Uuid::from_u128(1));

    players.restart(log, Position::zero(2));
    assert_eq!(since(), None, "the log is still being read");
    players.set_ready();
    assert_eq!(since(), Some(9_000_000), "all of the log was read");

    // Retention has removed the beginning of a partition.
    players.restart(log, Position::from(vec![5, 0]));
    let records: Vec<_> =
        (5..7).map(|at| session(0, at, 9_100_000 + at as i64, RequestId::random())).collect();
    players.apply(records.iter(), &Position::from(vec![7, 0]));
    players.set_ready();
    assert_eq!(since(), Some(9_100_005));
    assert_eq!(players.horizon().entries, 2);
    clock.set(at(10_200_000));
    assert_eq!(since(), Some(9_200_000), "and by then it does not matter any more");

    // It was faster than the reader.
    players.missed(&[Trimmed { partition: 0, from: 7, to: 9 }]);
    assert_eq!(since(), Some(10_200_000), "what was lost may be as new as that");
    let next = session(0, 9, 9_900_000, RequestId::random());
    players.apply([&next].into_iter(), &Position::from(vec![10, 0]));
    assert_eq!(since(), Some(9_900_000));
    clock.set(at(10_900_000));

    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("requests_entries 1.0"), "{text}");
    assert!(text.contains("requests_horizon_seconds 1000.0"), "{text}");
}

#[tokio::test]
async fn the_horizon_reaches_no_further_back_than_what_was_read() {
    let options = Options { request_max_age: AGE, request_max_entries: 128, ..Options::default() };
    let clock = Clock::manual(at(10_000_000));
    let players = Players::build(options, 2, clock, &mut Registry::default());
    let since = || players.horizon().start_time.map(|time| Timestamp::from(time).as_millis());
    let log = LogId(Uuid::from_u128(1));

    // Nothing is left of a partition: what was in it may be as new as now.
    let all = Position::from(vec![5, 0]);
    let bounds = Bounds { log, start: all.clone(), end: all.clone() };
    assert_eq!(players.begin_at(&bounds, &all).await, all);
    players.set_ready();
    assert_eq!(since(), Some(10_000_000));

    // Two of these have room, and what was forgotten is not in the horizon.
    players.restart(log, Position::zero(2));
    let records: Vec<_> =
        (0..3).map(|at| session(0, at, 9_100_000 + at as i64, RequestId::random())).collect();
    players.apply(records.iter(), &Position::from(vec![3, 0]));
    players.set_ready();
    assert_eq!(since(), Some(9_100_001));
}

/// What a request costs with an empty index and with a full one. Run it by name, in release.
#[test]
#[ignore = "a measurement"]
fn what_a_request_costs() {
    const EACH: u64 = 100_000;
    let options = Options::default();
    let entries = options.request_max_entries as u64;
    let (clock, log) = (Clock::manual(at(10_000_000)), LogId(Uuid::from_u128(1)));
    let players = Players::build(options, 1, clock, &mut Registry::default());
    players.restart(log, Position::zero(1));
    players.set_ready();
    let catalog = Catalog::built_in();
    let mut offset = 0;
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    };
    let mut measure = |name: &str| {
        let requests: Vec<_> = (0..EACH)
            .map(|number| {
                let request = proto::StartSessionRequest {
                    player_id: format!("player-{}", number % 5_000),
                    ..Default::default()
                };
                let request = Submission::from(request).parse(&catalog).unwrap();
                let event_id = request.event_id();
                (request, event_id)
            })
            .collect();
        let begun = Instant::now();
        let tickets: Vec<_> = requests
            .iter()
            .map(|(request, event_id)| {
                match players.claim(request, *event_id, 0, &catalog, at(10_000_000)) {
                    Claimed::New(ticket, ..) => ticket,
                    _ => panic!("it is new"),
                }
            })
            .collect();
        let claimed = begun.elapsed();
        let answers: Vec<_> = (offset..)
            .zip(&requests)
            .map(|(offset, _)| {
                Ok(Appended { log, partition: 0, offset, append_time: at(10_000_000) })
            })
            .collect();
        let begun = Instant::now();
        for (ticket, answer) in tickets.into_iter().zip(&answers) {
            players.settle(ticket, at(10_000_000), answer);
        }
        let settled = begun.elapsed();
        let records: Vec<_> = (offset..)
            .zip(&requests)
            .map(|(offset, (request, event_id))| {
                let player = request.player_id.clone();
                session_of(player, *event_id, 0, offset, 10_000_000, request.request_id)
            })
            .collect();
        let begun = Instant::now();
        for records in records.chunks(256) {
            offset += records.len() as u64;
            players.apply(records.iter(), &Position::from(vec![offset]));
        }
        let applied = begun.elapsed();
        let [claim, settle, apply] =
            [claimed, settled, applied].map(|time| time.as_nanos() / u128::from(EACH));
        println!("{name}: claim {claim} ns, settle {settle} ns, apply {apply} ns");
    };
    measure("empty");
    let (before, had) = (resident(), players.horizon().entries);
    let fill = |name: &str, count: u64| {
        for number in 0..count {
            let id = RequestId::random();
            let player = format!("player-{}", number % 100_000);
            let (key, event) = (key_of(&player, id.uuid()), id.uuid());
            let mut shard = players.lock(players.key(&player).hash.shard());
            let terms = || Terms::None;
            shard.requests.apply(key, written(event, number, 10_000_000), terms, at(10_000_000));
        }
        let bytes = resident().saturating_sub(before);
        let new = players.horizon().entries - had;
        println!("{name}: {new} more entries, {} bytes each", bytes / new.max(1) as u64);
    };
    fill("filled", entries * 6 / 5);
    measure("full");
}

#[test]
fn an_unsettled_request_that_was_given_up_is_tried_anew_as_one_that_may_be_there() {
    let clock = Clock::manual(at(10_000_000));
    let players = Players::build(Options::default(), 1, clock.clone(), &mut Registry::default());
    let log = LogId(Uuid::from_u128(1));
    players.restart(log, Position::zero(1));
    players.set_ready();
    let catalog = Catalog::built_in();
    let request = proto::StartSessionRequest {
        player_id: "alice".into(),
        request_id: RequestId::random().to_string(),
        ..Default::default()
    };
    let request = Submission::from(request).parse(&catalog).unwrap();
    let claim = || match players.claim(&request, request.event_id(), 0, &catalog, clock.now()) {
        Claimed::New(ticket, ..) => ticket,
        _ => panic!("it is not new"),
    };
    let unknown = Err(crate::event_log::AppendError::OutcomeUnknown("gone".into()));
    players.settle(claim(), at(0), &unknown);
    clock.set(at(10_000_001 + UNSETTLED_MILLIS));
    let ticket = claim();
    let again = ticket.again;
    let appended = Appended { log, partition: 0, offset: 0, append_time: at(10_000_000) };
    let outcome = players.settle(ticket, at(0), &Ok(appended));
    let waits = matches!(outcome, super::Outcome::WrittenAgain(_));
    assert_eq!(again, waits, "who does not know that it is the second cannot wait");
}
