//! The oracle: all records ever appended, in plain vectors, and what a subscriber may be
//! told given those.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use prost::Message as _;

use super::steps::{Content, Deed};
use crate::clock::Timestamp;
use crate::event_log::memory::MemoryLog;
use crate::event_log::{Appended, Cursor, LogId, Offset, Partition, Position};
use crate::feed::invariants;
use crate::history;
use crate::proto::stream_events_response::Response;
use crate::proto::{self, game_event::Payload};

pub(super) const PLAYERS: [&str; 3] = ["alice", "bob", "carol"];
const TYPES: [&str; 3] = ["session_started", "item_purchased", "guild_joined"];
const GUILDS: [&str; 2] = ["wolves", "ravens"];

/// What is at an offset.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    Nothing,
    Garbage,
    Event(Event),
}

#[derive(Clone, Debug)]
pub(super) struct Event {
    id: String,
    event_type: &'static str,
    player: &'static str,
    guild: Option<&'static str>,
    checked_through: Offset,
}

/// A partition, from offset 0 on, also what was trimmed.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    pub start: Offset,
    pub records: Vec<Kept>,
}

impl Part {
    pub fn end(&self) -> Offset {
        self.records.len() as u64
    }

    /// Whether readers have to leave the event at an offset out; unknown, when only what was
    /// removed since says so: who had read that knows, and nobody else.
    fn is_duplicate(&self, offset: Offset) -> Option<bool> {
        let Kept::Event(event) = &self.records[offset as usize] else { return Some(false) };
        let is_same = |at: &Offset| {
            let record = &self.records[*at as usize];
            matches!(record, Kept::Event(earlier) if earlier.id == event.id)
        };
        let reach = event.checked_through.max(offset.saturating_sub(history::REACH));
        // The last of them is removed last.
        match (reach..offset).rfind(is_same) {
            None => Some(false),
            Some(at) => (at >= self.start).then_some(true),
        }
    }
}

/// All that was ever in one log.
#[derive(Debug)]
pub(super) struct Epoch {
    pub log: LogId,
    pub parts: Vec<Part>,
    /// What those who began said of their place: everything up to that time lies before it.
    /// Who comes by may say it too.
    pub claims: Vec<(Position, Timestamp)>,
}

impl Epoch {
    pub fn bounds(&self) -> Bounds {
        Bounds {
            start: self.parts.iter().map(|part| part.start).collect(),
            end: self.parts.iter().map(Part::end).collect(),
        }
    }

    fn partitions(&self) -> impl Iterator<Item = (Partition, &Part)> {
        (0..).zip(&self.parts)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Bounds {
    pub start: Position,
    pub end: Position,
}

/// The log, and the oracle beside it.
pub(super) struct World {
    pub log: Arc<MemoryLog>,
    /// The last one is the log's present one.
    pub epochs: Vec<Epoch>,
    /// What happens right after the next look at the log.
    pub meanwhile: Option<Deed>,
    /// The newest receipt.
    pub receipt: Option<Appended>,
}

/// Beyond these a case costs time and shows nothing new.
const MOST_PARTITIONS: usize = 5;
const MOST_EPOCHS: usize = 4;

impl World {
    pub fn new(partitions: usize) -> Arc<Mutex<Self>> {
        let log = MemoryLog::new(partitions);
        let mut this = Self { log, epochs: Vec::new(), meanwhile: None, receipt: None };
        this.begin_epoch(partitions);
        Arc::new(Mutex::new(this))
    }

    fn begin_epoch(&mut self, partitions: usize) {
        let log = self.log.id();
        self.epochs.push(Epoch {
            log,
            parts: vec![Part::default(); partitions],
            claims: Vec::new(),
        });
    }

    pub fn epoch(&self) -> usize {
        self.epochs.len() - 1
    }

    pub fn now(&self) -> &Epoch {
        &self.epochs[self.epoch()]
    }

    pub fn perform(&mut self, deed: &Deed) {
        let epoch = self.epoch();
        let number = self.now().parts.len();
        match *deed {
            Deed::Append(partition, content) => {
                self.append(partition as usize % number, content);
            }
            Deed::LeaveOut(partition) => {
                let partition = partition as usize % number;
                self.epochs[epoch].parts[partition].records.push(Kept::Nothing);
                self.log.leave_out(partition as u32);
            }
            Deed::Trim(partition, by) => {
                let partition = partition as usize % number;
                let part = &mut self.epochs[epoch].parts[partition];
                part.start = (part.start + by).min(part.end());
                self.log.trim(partition as u32, part.start);
            }
            Deed::AddPartition(first) => {
                if number < MOST_PARTITIONS {
                    self.log.add_partition();
                    self.epochs[epoch].parts.push(Part::default());
                    if let Some(content) = first {
                        self.append(number, content);
                    }
                }
            }
            Deed::Replace => {
                if self.epochs.len() < MOST_EPOCHS {
                    self.log.replace();
                    self.begin_epoch(number);
                }
            }
        }
    }

    fn append(&mut self, partition: usize, content: Content) {
        let epoch = self.epoch();
        let records = &mut self.epochs[epoch].parts[partition].records;
        let offset = records.len() as u64;
        let (kept, bytes) = match content {
            Content::Garbage => (Kept::Garbage, b"\xff\xff".to_vec()),
            Content::Event { player, kind, large } => {
                let event_type = TYPES[kind as usize % TYPES.len()];
                let event = Event {
                    // Unlike every other, so that one cannot be taken for another.
                    id: format!("{epoch}/{partition}/{offset}"),
                    event_type,
                    player: PLAYERS[player as usize % PLAYERS.len()],
                    guild: (event_type == "guild_joined")
                        .then_some(GUILDS[kind as usize / TYPES.len() % GUILDS.len()]),
                    checked_through: offset.saturating_sub(2 * u64::from(kind)),
                };
                let bytes = event.bytes(large);
                (Kept::Event(event), bytes)
            }
            Content::Again { back, unchecked } => {
                let earlier = offset.checked_sub(back.into());
                let Some(Kept::Event(event)) = earlier.map(|at| &records[at as usize]) else {
                    // There is none.
                    let content = Content::Event { player: back, kind: unchecked, large: false };
                    return self.append(partition, content);
                };
                let checked_through = offset.saturating_sub(unchecked.into());
                let event = Event { checked_through, ..event.clone() };
                let bytes = event.bytes(false);
                (Kept::Event(event), bytes)
            }
        };
        records.push(kept);
        let appended = self.log.push(partition as u32, bytes);
        assert_eq!(appended.offset + 1, self.now().parts[partition].end());
        self.receipt = Some(appended);
    }
}

impl Event {
    fn bytes(&self, large: bool) -> Vec<u8> {
        let payload = match self.guild {
            Some(guild) => Payload::GuildJoined(proto::GuildJoined { guild_id: guild.into() }),
            None => Payload::SessionStarted(proto::SessionStarted {
                // Two of these do not fit into one read.
                session_id: "x".repeat(if large { 40_000 } else { 8 }),
            }),
        };
        proto::GameEvent {
            event_id: self.id.clone(),
            event_type: self.event_type.into(),
            player_id: self.player.into(),
            checked_through_offset: self.checked_through as i64,
            payload: Some(payload),
            ..Default::default()
        }
        .encode_to_vec()
    }
}

/// What a subscriber wants, in the oracle's own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    All,
    Player,
    Guild,
    Types,
    PlayersAndType,
    Nothing,
}

impl Wants {
    pub fn filter(self) -> Option<proto::EventFilter> {
        let strings = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        let (event_types, player_ids, guild_ids): (&[&str], &[&str], &[&str]) = match self {
            Self::All => return None,
            Self::Player => (&[], &["alice"], &[]),
            Self::Guild => (&[], &[], &["wolves"]),
            Self::Types => (&["guild_joined", "session_started"], &[], &[]),
            Self::PlayersAndType => (&["item_purchased"], &["bob", "carol"], &[]),
            Self::Nothing => (&[], &["nobody"], &[]),
        };
        Some(proto::EventFilter {
            event_types: strings(event_types),
            player_ids: strings(player_ids),
            guild_ids: strings(guild_ids),
        })
    }

    fn matches(self, event: &Event) -> bool {
        match self {
            Self::All => true,
            Self::Player => event.player == "alice",
            Self::Guild => event.guild == Some("wolves"),
            Self::Types => event.event_type != "item_purchased",
            Self::PlayersAndType => event.event_type == "item_purchased" && event.player != "alice",
            Self::Nothing => false,
        }
    }
}

/// Where a subscriber has to start.
#[derive(Debug)]
pub(super) struct Start {
    /// The place of the first cursor. A range, as a partition may be trimmed meanwhile.
    pub cursor: Vec<RangeInclusive<Offset>>,
    /// What is passed over from there, with the reason, because the cursor was expired.
    pub goes_on: Option<(proto::GapReason, Position)>,
    /// The end as the log gives it.
    pub end: Position,
}

/// How a subscriber asks to start.
#[derive(Debug)]
pub(super) enum Asked {
    Latest,
    Earliest,
    Time(u64),
    Cursor(Cursor, proto::ExpiredCursorPolicy),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Epoch,
    Expired,
    Ahead,
}

/// What has to become of a start that was asked for when the log had the bounds `before`;
/// `after` are those when the answer came.
pub(super) fn start(
    asked: &Asked,
    log: LogId,
    before: &Bounds,
    after: &Bounds,
) -> Result<Start, Refused> {
    let exactly = |position: &Position, partitions: usize| {
        (0..partitions as u32).map(|p| position.get(p)..=position.get(p)).collect::<Vec<_>>()
    };
    let partitions = after.end.len();
    let end = before.end.clone();
    Ok(match asked {
        Asked::Latest => Start { cursor: exactly(&end, partitions), goes_on: None, end },
        Asked::Earliest => Start { cursor: exactly(&before.start, partitions), goes_on: None, end },
        Asked::Time(time) => {
            // The log's clock gives the record at an offset the time behind that offset.
            let cursor = (0..partitions as u32).map(|p| {
                let first = time.saturating_sub(1).max(before.start.get(p)).min(end.get(p));
                first..=first.max(after.start.get(p).min(end.get(p)))
            });
            Start { cursor: cursor.collect(), goes_on: None, end }
        }
        Asked::Cursor(cursor, policy) => {
            if cursor.epoch != log {
                return Err(Refused::Epoch);
            }
            let reached = |bounds: &Bounds| {
                bounds.end.len() >= cursor.position.len() && bounds.end.covers(&cursor.position)
            };
            // There is a second look where the first shows too little.
            let bounds = if reached(before) { before } else { after };
            if !reached(bounds) {
                return Err(Refused::Ahead);
            }
            let mut place = cursor.position.clone();
            for (partition, oldest) in bounds.start.iter().skip(cursor.position.len()) {
                place.set(partition, oldest);
            }
            let goes_on = match policy {
                _ if place.covers(&bounds.start) => None,
                proto::ExpiredCursorPolicy::Earliest => {
                    Some((proto::GapReason::Retention, bounds.start.clone()))
                }
                proto::ExpiredCursorPolicy::Latest => {
                    Some((proto::GapReason::Skipped, bounds.end.clone()))
                }
                _ => return Err(Refused::Expired),
            };
            Start { cursor: exactly(&place, partitions), goes_on, end: bounds.end.clone() }
        }
    })
}

/// Asserts that a message accounts for the move of the cursor from `from` to `to`: in each
/// partition every matching event in between is there, once and in order, but for those that
/// are duplicates, and what else is missing is in the gap.
pub(super) fn account(
    epoch: &Epoch,
    wants: Wants,
    (from, to): (&Position, &Position),
    events: &[proto::DeliveredEvent],
    gap: Option<&proto::Gap>,
) {
    assert!(invariants::never_back(from, to), "the cursor goes back");
    assert!(to.len() <= epoch.parts.len(), "a partition that is not there");
    let mut accounted = 0;
    for (partition, part) in epoch.partitions() {
        let is_here = |number: i32| number == partition as i32;
        let mut events = events.iter().filter(|event| is_here(event.partition)).peekable();
        let gap = gap.filter(|gap| is_here(gap.partition));
        let (mut place, to) = (from.clone(), to.get(partition));
        assert!(to <= part.end(), "past the end");
        let missed = gap.map_or(0, |gap| u64::try_from(gap.missed_records).unwrap());
        let gap_begins = to.checked_sub(missed).expect("a gap that is larger than the log");
        assert!(gap_begins >= from.get(partition), "the gap begins before the reader's place");
        for offset in from.get(partition)..gap_begins {
            assert!(invariants::in_order(&place, partition, offset));
            place.set(partition, offset + 1);
            match &part.records[offset as usize] {
                Kept::Garbage => panic!("passed over {partition}/{offset}, which is no event"),
                Kept::Event(event) if wants.matches(event) => {
                    let is_told = events.peek().is_some_and(|told| told.offset as u64 == offset);
                    match part.is_duplicate(offset) {
                        Some(true) => {
                            assert!(!is_told, "{event:?} was told before");
                            continue;
                        }
                        None if !is_told => continue,
                        None | Some(false) => {}
                    }
                    let told = events.next().unwrap_or_else(|| panic!("lost {event:?}"));
                    assert_eq!(told.offset as u64, offset, "not the next one");
                    assert_eq!(told.append_time, Some(time_of(offset).into()));
                    assert_eq!(told.event.as_ref().map(|event| &event.event_id), Some(&event.id));
                    accounted += 1;
                }
                Kept::Event(_) | Kept::Nothing => {}
            }
        }
        assert!(events.next().is_none(), "more than there is");
        let Some(gap) = gap else { continue };
        assert!(invariants::gap_accounts(place.get(partition), missed, to), "{gap:?} to {to}");
        match gap.reason() {
            proto::GapReason::Retention => assert!(to <= part.start, "it is still there"),
            proto::GapReason::Undecodable => {
                let record = &part.records[gap_begins as usize];
                assert!(missed == 1 && matches!(record, Kept::Garbage), "{record:?}");
            }
            proto::GapReason::Skipped => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(accounted, events.len(), "events of a partition that is not there");
    assert!(gap.is_none_or(|gap| (gap.partition as usize) < epoch.parts.len()));
}

/// The time of the newest record that a cursor has moved over from `from` to `to`.
fn newest(
    epoch: &Epoch,
    (from, to): (&Position, &Position),
    gap: Option<&proto::Gap>,
) -> Option<Timestamp> {
    let of_part = |(partition, part): (Partition, &Part)| {
        let gap = gap.filter(|gap| gap.partition as u32 == partition);
        // What was removed has no time any more.
        let removed = gap.filter(|gap| gap.reason() != proto::GapReason::Undecodable);
        let removed = removed.map_or(0, |gap| gap.missed_records as u64);
        let mut moved = from.get(partition)..to.get(partition) - removed;
        let is_record = |at: &Offset| !matches!(part.records[*at as usize], Kept::Nothing);
        moved.rfind(is_record).map(time_of)
    };
    epoch.partitions().filter_map(of_part).max()
}

fn time_of(offset: Offset) -> Timestamp {
    Timestamp::from_millis(offset as i64 + 1)
}

/// What the oracle holds against one stream.
pub(super) struct Account {
    pub epoch: usize,
    pub wants: Wants,
    pub max_events: u64,
    pub stops_when_caught_up: bool,
    pub start: Start,
    /// Whether the feed that it reads from was told to close.
    pub closing: bool,
    /// The newest cursor, once there is one.
    pub cursor: Option<(String, Cursor)>,
    /// Gaps that have to come before anything else.
    owed: VecDeque<(proto::GapReason, Partition, u64)>,
    owes_caught_up: bool,
    delivered: u64,
    said_closing: bool,
    failed: bool,
    pub ended: bool,
}

impl Account {
    pub fn new(epoch: usize, wants: Wants, limits: (u64, bool), start: Start) -> Self {
        Self {
            epoch,
            wants,
            max_events: limits.0,
            stops_when_caught_up: limits.1,
            start,
            closing: false,
            cursor: None,
            owed: VecDeque::new(),
            owes_caught_up: true,
            delivered: 0,
            said_closing: false,
            failed: false,
            ended: false,
        }
    }

    /// Whether it has been told everything there is, and will go on.
    pub fn is_at_end(&self, world: &World) -> bool {
        self.has_all(world)
            && !(self.owes_caught_up || self.stops_when_caught_up || self.has_enough())
    }

    /// Whether its newest cursor is at the end of its log.
    pub fn has_all(&self, world: &World) -> bool {
        let end = world.epochs[self.epoch].bounds().end;
        self.cursor.as_ref().is_some_and(|(_, at)| at.position.covers(&end))
    }

    fn has_enough(&self) -> bool {
        self.max_events > 0 && self.delivered >= self.max_events
    }

    /// What the stream says, or that it has ended.
    pub fn hear(&mut self, world: &World, said: super::Said) {
        assert!(!self.ended, "after the end: {said:?}");
        match said {
            None => {
                self.ended = true;
                let has_stopped = self.stops_when_caught_up && !self.owes_caught_up;
                let may_end = self.has_enough() || has_stopped || self.said_closing || self.failed;
                assert!(may_end, "it ends for no reason");
            }
            Some(Err(error)) => {
                assert!(super::is_replaced(&error), "{error:?}");
                assert!(self.epoch < world.epoch(), "its log is still there");
                assert!(!self.failed && !self.said_closing, "it has ended");
                self.failed = true;
            }
            Some(Ok(message)) => {
                assert!(!self.failed && !self.said_closing, "it has ended");
                let cursor = Cursor::decode(&message.cursor).unwrap();
                self.hear_message(world, &cursor, &message.response.unwrap());
                self.cursor = Some((message.cursor, cursor));
            }
        }
    }

    fn hear_message(&mut self, world: &World, cursor: &Cursor, response: &Response) {
        let epoch = &world.epochs[self.epoch];
        assert_eq!(cursor.epoch, epoch.log);
        let Some((_, before)) = &self.cursor else { return self.open(cursor, response) };
        let (events, gap) = match response {
            Response::Batch(batch) => (&batch.events[..], None),
            Response::Gap(gap) => (&[][..], Some(gap)),
            _ => (&[][..], None),
        };
        account(epoch, self.wants, (&before.position, &cursor.position), events, gap);
        let newest = newest(epoch, (&before.position, &cursor.position), gap);
        assert!(newest.is_none_or(|time| cursor.time >= time), "{cursor:?} is behind {newest:?}");
        let ends = cursor.position.iter().filter_map(|(_, offset)| offset.checked_sub(1));
        let claims = epoch.claims.iter().filter(|(place, _)| cursor.position.covers(place));
        let most = ends.map(time_of).chain(claims.map(|(_, time)| *time)).max().unwrap_or_default();
        assert!(cursor.time <= most, "{cursor:?} says more than {most}");
        if let Some((reason, partition, missed)) = self.owed.pop_front() {
            let gap = gap.unwrap_or_else(|| panic!("a gap is owed, not {response:?}"));
            assert_eq!((gap.partition as u32, gap.missed_records as u64), (partition, missed));
            assert_eq!(gap.reason(), reason);
            return;
        }
        match response {
            Response::Batch(batch) => {
                assert!(!batch.events.is_empty());
                self.delivered += batch.events.len() as u64;
                assert!(self.max_events == 0 || self.delivered <= self.max_events);
            }
            Response::Gap(gap) => assert_ne!(gap.reason(), proto::GapReason::Skipped),
            Response::Heartbeat(heartbeat) => {
                let most = cursor.position.distance_to(&epoch.bounds().end);
                assert!(
                    (0..=most as i64).contains(&heartbeat.lag),
                    "{heartbeat:?}, at most {most}"
                );
            }
            Response::CaughtUp(caught_up) => {
                assert!(std::mem::take(&mut self.owes_caught_up), "said twice");
                let end: Position =
                    caught_up.end_offsets.iter().map(|end| end.offset as u64).collect();
                assert!(
                    end.covers(&self.start.end) && cursor.position.covers(&end),
                    "caught up at {end:?} with {:?}, begun when the end was {:?}",
                    cursor.position,
                    self.start.end
                );
            }
            Response::FellBehind(_) => self.owes_caught_up = true,
            Response::Closing(_) => {
                assert!(self.closing);
                self.said_closing = true;
            }
            Response::Opened(_) => panic!("opened twice"),
        }
    }

    fn open(&mut self, cursor: &Cursor, response: &Response) {
        let opened = match response {
            Response::Opened(opened) => opened,
            // Closed before it was begun; the start is still where it has to be.
            Response::Closing(_) => {
                assert!(self.closing);
                self.said_closing = true;
                return self.start.check(&cursor.position);
            }
            other => panic!("{other:?} first"),
        };
        self.start.check(&cursor.position);
        let mut place = cursor.position.clone();
        if let Some((reason, to)) = &self.start.goes_on {
            for (partition, to) in to.iter() {
                let missed = to.saturating_sub(place.get(partition));
                if missed > 0 {
                    self.owed.push_back((*reason, partition, missed));
                    place.set(partition, to);
                }
            }
        }
        let told: Position = opened.start_offsets.iter().map(|at| at.offset as u64).collect();
        assert_eq!(told, place, "not where it starts");
    }
}

impl Start {
    pub fn check(&self, cursor: &Position) {
        for (partition, allowed) in (0..).zip(&self.cursor) {
            let place = cursor.get(partition);
            assert!(allowed.contains(&place), "{partition} starts at {place}, not {allowed:?}");
        }
    }
}
