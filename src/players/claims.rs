//! Claiming a request before it is written, and settling it after.
//!
//! A claim looks for the request, asks the rules and reserves what the action changes, all
//! under the lock of the player's shard: of two calls with one request id, or for the last
//! sword, one comes first. Several servers on one log do not see each other's claims; what
//! they write twice is left out by whoever reads the log, by `checked_through_offset`.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::futures::OwnedNotified;
use uuid::Uuid;

use super::key::PlayerHash;
use super::people::Standing;
use super::requests::{Answer, Found, Key, Settled, Written};
use super::{Players, Shard};
use crate::clock::Timestamp;
use crate::domain::{Catalog, PlayerId, Request, RequestId, Terms, Violations, item_change};
use crate::event_log::{AppendError, Appended, LogId, Offset, Partition};
use crate::proto::{self, game_event::Payload};

/// What a claim came to.
pub enum Claimed {
    /// The log has not been read so far that it could be answered.
    NotReady,
    /// The request is to be written, with this payload. The player has so many of its item then.
    New(Ticket, Payload, i64),
    /// It would be, and was only to be checked.
    Valid(Payload, i64),
    /// It was carried out before.
    Known(Known, Payload, i64),
    /// It is under way; what became of it can be asked when this ends.
    UnderWay(OwnedNotified),
    /// The player has used the request id for another action.
    Conflict,
    /// The rules are against it.
    Refused(Violations),
}

/// Leave to write the event of a request. Whoever has it says what became of that.
#[must_use = "the request stays under way until it is settled"]
pub struct Ticket {
    player: PlayerHash,
    key: Key,
    event_id: Uuid,
    terms: Terms,
    /// How far the log was known when the request was not found: for the event's
    /// `checked_through_offset`.
    pub checked_through: Offset,
    /// Whether an earlier try may be in the log, so that it takes longer to settle this one.
    pub again: bool,
}

/// An action that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its event.
    pub event_id: Uuid,
    /// Where that is.
    pub appended: Appended,
    /// When the action was accepted.
    pub accept_time: Timestamp,
}

/// What became of a claimed request.
pub enum Outcome {
    /// Its event is durable; here, when it is not where the log has said: another server was
    /// earlier with the same.
    Written(Option<Known>),
    /// Its event is durable, and an earlier try may be too; which of them counts can be asked
    /// when this ends.
    WrittenAgain(OwnedNotified),
    /// It is not written. The request id can be used again.
    NotWritten,
    /// Nobody knows.
    Unsettled,
}

/// What is known of a request id.
#[derive(Debug, PartialEq, Eq)]
pub enum Receipt {
    /// The log has not been read so far that it could be answered.
    NotReady,
    /// The action was carried out.
    Known(Known),
    /// It may be.
    InProgress,
    /// It was not, since then.
    Unknown(Timestamp),
}

impl Players {
    /// Looks for a request, and begins it at the time `now` when it is not there and the rules
    /// allow it.
    pub fn claim(
        &self,
        request: &Request,
        event_id: Uuid,
        partition: Partition,
        catalog: &Catalog,
        now: Timestamp,
    ) -> Claimed {
        // Before the look-up: what is taken in between is found, and only said not to be.
        let Some((read, checked_through)) = self.checked_through(partition) else {
            return Claimed::NotReady;
        };
        let player = self.key(request.player_id.as_str());
        let key = Key::new(&self.0.hasher, player.hash, request.request_id.uuid());
        let mut shard = self.lock(player.hash.shard());
        let Shard { log, people, requests } = &mut *shard;
        // Another log has taken the place of the one that was read.
        if *log != Some(read) {
            return Claimed::NotReady;
        }
        let payload = |terms: &Terms| request.action.payload(event_id, terms);
        let standing = people.standing(player, now);
        let mut again = false;
        let terms = match requests.look_up(key, event_id, now) {
            Found::Conflict => return Claimed::Conflict,
            Found::UnderWay(outcome) => return Claimed::UnderWay(outcome),
            Found::Written(written) => {
                let payload = payload(&written.terms);
                let (owned, _) = owned(&standing, &payload);
                return Claimed::Known(known(read, &written), payload, owned);
            }
            // It was accepted once, and may be in the log: the rules are not asked again.
            Found::Unsettled(terms) => {
                again = true;
                terms
            }
            Found::Nothing => match request.action.decide(catalog, &standing) {
                Ok(terms) => terms,
                Err(violations) => return Claimed::Refused(violations),
            },
        };
        let payload = payload(&terms);
        let (before, change) = owned(&standing, &payload);
        let owned = before.saturating_add(change);
        if request.validate_only {
            return Claimed::Valid(payload, owned);
        }
        requests.claim(key, event_id);
        people.reserve(player.hash, event_id, &payload, now);
        drop(shard);
        let ticket = Ticket { player: player.hash, key, event_id, terms, checked_through, again };
        Claimed::New(ticket, payload, owned)
    }

    /// Takes in what the log has said to the event of a request.
    pub fn settle(
        &self,
        ticket: Ticket,
        accept_time: Timestamp,
        answer: &Result<Appended, AppendError>,
    ) -> Outcome {
        let Ticket { player, key, event_id, terms, .. } = ticket;
        let mut shard = self.lock(player.shard());
        let Shard { log, people, requests } = &mut *shard;
        let answer = match answer {
            // Of a log that was replaced by another one: what was claimed is forgotten.
            Ok(appended) if Some(appended.log) != *log => return Outcome::Written(None),
            Ok(at) => Answer::Durable(at.partition, at.offset, at.append_time),
            Err(AppendError::OutcomeUnknown(_)) => Answer::None,
            Err(_) => Answer::NotWritten,
        };
        let now = self.0.clock.now();
        match requests.settle(key, event_id, (accept_time, terms), answer, now) {
            Settled::Written(there) => {
                people.written(player, event_id, now);
                Outcome::Written(there.zip(*log).map(|(written, log)| known(log, &written)))
            }
            Settled::Wait(outcome) => {
                people.written(player, event_id, now);
                Outcome::WrittenAgain(outcome)
            }
            Settled::Unsettled => {
                people.unanswered(player, event_id, now);
                Outcome::Unsettled
            }
            Settled::NotWritten => {
                people.release(player, event_id);
                Outcome::NotWritten
            }
        }
    }

    /// What is known of a request id.
    pub fn receipt(&self, player_id: &PlayerId, request_id: RequestId) -> Receipt {
        if !self.is_ready() {
            return Receipt::NotReady;
        }
        let player = self.key(player_id.as_str()).hash;
        let key = Key::new(&self.0.hasher, player, request_id.uuid());
        let now = self.0.clock.now();
        let shard = self.lock(player.shard());
        let Some(log) = shard.log else { return Receipt::NotReady };
        match shard.requests.receipt(key, now) {
            Ok(written) => Receipt::Known(known(log, &written)),
            Err(true) => Receipt::InProgress,
            Err(false) => {
                let forgotten = shard.requests.forgotten();
                drop(shard);
                Receipt::Unknown(self.remembered_since(forgotten, now))
            }
        }
    }

    /// How far back requests are recognised.
    pub fn horizon(&self) -> proto::RequestHorizon {
        let (mut entries, mut forgotten) = (0, None);
        for number in 0..self.0.shards.len() {
            let shard = self.lock(number);
            entries += shard.requests.len();
            forgotten = forgotten.max(shard.requests.forgotten());
        }
        let since = || self.remembered_since(forgotten, self.0.clock.now()).into();
        proto::RequestHorizon {
            start_time: self.is_ready().then(since),
            max_age: prost_types::Duration::try_from(self.0.options.request_max_age).ok(),
            entries: i64::try_from(entries).unwrap_or(i64::MAX),
            max_entries: i64::try_from(self.0.options.request_max_entries).unwrap_or(i64::MAX),
        }
    }

    /// The oldest moment of which requests are remembered.
    pub fn horizon_at_most(&self) -> Timestamp {
        self.0.clock.now().minus(self.0.options.request_max_age)
    }

    /// Since when everything is remembered that has not been forgotten up to `forgotten`.
    fn remembered_since(&self, forgotten: Option<Timestamp>, now: Timestamp) -> Timestamp {
        let next = |time: Timestamp| Timestamp::from_millis(time.as_millis().saturating_add(1));
        let aged = now.minus(self.0.options.request_max_age);
        let remembered = self.remembered();
        // Of a partition of which nothing was read since, anything may be missing.
        let begun = if remembered.unbegun.is_empty() { remembered.since } else { Some(now) };
        [forgotten.map(next), begun].into_iter().flatten().fold(aged, Timestamp::max)
    }
}

/// How many of an event's item the player has before it, and how many it adds.
fn owned(player: &Standing<'_>, payload: &Payload) -> (i64, i64) {
    item_change(payload).map_or((0, 0), |(item, change)| (player.owned(item), change))
}

fn known(log: LogId, written: &Written) -> Known {
    let &Written { event_id, partition, offset, append_time, accept_time, .. } = written;
    let appended = Appended { log, partition, offset, append_time };
    Known { event_id, appended, accept_time }
}

/// What is remembered, counted when somebody looks.
pub(super) struct Gauges(pub Players);

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauges")
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let horizon = self.0.horizon();
        let since = horizon.start_time.map(Timestamp::from);
        let back = since.map_or(0, |since| {
            self.0.0.clock.now().as_millis().saturating_sub(since.as_millis()).max(0)
        });
        for (name, help, value) in [
            ("requests_entries", "Requests that are remembered", horizon.entries as f64),
            (
                "requests_horizon_seconds",
                "How far back every request is remembered; 0 while the log is being read",
                back as f64 / 1000.0,
            ),
        ] {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(gauge)?;
        }
        Ok(())
    }
}
