//! The write path: an action comes in, a receipt goes out when its event is durable.
//!
//! # The order of things
//!
//! Check the shape; look up the request id; apply the rules of the catalogue; append;
//! answer. The rules come after the look-up, as a retry of a success has to succeed even
//! when the catalogue has changed. Look-up and rules are one step (`players::claim`).
//!
//! # What it promises
//!
//! * A receipt means: the event is durable, at that place.
//! * Every other answer says whether the event may still appear
//!   ([`CommandError::OutcomeUnknown`]) or surely will not.
//! * A request that was carried out is answered with its first receipt, and not carried out
//!   again, as far back as requests are remembered.
//! * A request stays under way until the log has answered, whatever becomes of its caller:
//!   a record cannot be taken back ([`Settler`]).
//! * A refused action changes nothing. It leaves a `request_rejected` event behind,
//!   best effort, rate-limited and without delaying the answer.
//!
//! # What it may not know
//!
//! Transports and their codes.

mod call;
mod rejections;

use std::future::{Future, ready};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::Either;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::clock::{Clock, Timestamp};
use crate::domain::{
    Caller, Catalog, Envelope, PlayerId, Refusal, Request, RequestId, Source, Submission,
    Violations, cloud_event_type, uuid_text,
};
use crate::event_log::{
    AppendError, Appender, Appending, Attributes, NewRecord, Offset, Partition, partition_of_key,
};
use crate::feed::{Feed, proto_offset, proto_partition};
use crate::players::{Claimed, Known, Players, Receipt, Ticket};
use crate::proto::{self, game_event::Payload};

use call::{Call, Ended, Orphanage, Submitted};
use rejections::Rejections;

pub use call::Settler;

/// Settings of the write path.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a call that brings no deadline waits for its event to be durable.
    pub write_timeout: Duration,
    /// How many refused actions a second are recorded at the most; 0 records none.
    pub rejections_per_second: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { write_timeout: Duration::from_secs(10), rejections_per_second: 100 }
    }
}

/// What became of an action.
#[derive(Debug)]
pub struct Outcome {
    /// Proof that the event is durable; `None` when the action was only checked.
    pub receipt: Option<proto::EventReceipt>,
    /// What happened, or would have.
    pub payload: Payload,
    /// How many of the action's item the player has after it, as far as this process knows; 0
    /// when it is about none.
    pub owned: i64,
}

/// Why an action was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is refused. Nothing was written but, perhaps, a note of the refusal.
    #[error("the request is not valid")]
    Rejected(Violations),
    /// The log is too busy, or takes no writes. Nothing was written.
    #[error("{0}")]
    NotWritten(AppendError),
    /// Nobody can say whether the event is written. A retry with the same request id
    /// describes the same event.
    #[error("no acknowledgement came in time; retry with the same request id")]
    OutcomeUnknown {
        /// The id of the event that may or may not appear.
        event_id: Uuid,
        /// The request id to retry with.
        request_id: RequestId,
    },
    /// An earlier call with the same request id was still under way at the deadline.
    #[error("an earlier call with this request id is still under way")]
    InProgress,
    /// The player has used the request id for something else.
    #[error("the request id was used for another action, or for other fields")]
    Conflict,
    /// The action that a receipt was asked for was not accepted, as far as is remembered.
    #[error("no action with this request id was accepted since {since}")]
    ReceiptUnknown {
        /// The request id.
        request_id: RequestId,
        /// What was before is not remembered.
        since: Timestamp,
    },
}

#[derive(Clone, Default)]
struct Metrics {
    accepted: Counter,
    rejected: Counter,
    rejections_recorded: Counter,
    not_written: Counter,
    outcome_unknown: Counter,
    replayed: Counter,
    conflicts: Counter,
    in_progress: Counter,
}

impl Metrics {
    fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("commands");
        for (name, help, counter) in [
            ("accepted", "Actions whose event is durable", &self.accepted),
            ("rejected", "Actions that were refused", &self.rejected),
            (
                "rejections_recorded",
                "Refused actions handed to the log as request_rejected",
                &self.rejections_recorded,
            ),
            ("not_written", "Actions that the log did not take", &self.not_written),
            ("outcome_unknown", "Actions of which nobody knows", &self.outcome_unknown),
        ] {
            r.register(name, help, counter.clone());
        }
        let r = registry.sub_registry_with_prefix("requests");
        for (name, help, counter) in [
            ("replayed", "Retries that were answered with the first receipt", &self.replayed),
            ("conflicts", "Request ids that were used for another action", &self.conflicts),
            ("in_progress", "Retries of what was still under way", &self.in_progress),
        ] {
            r.register(name, help, counter.clone());
        }
    }
}

/// What all runtimes share of the write path.
struct Shared {
    catalog: Arc<ArcSwap<Catalog>>,
    options: Options,
    clock: Clock,
    feed: Feed,
    players: Players,
    rejections: Rejections,
    metrics: Metrics,
}

/// The write path of one runtime. Cheap to clone.
#[derive(Clone)]
pub struct Commands {
    shared: Arc<Shared>,
    appender: Appender,
    orphanage: Orphanage,
}

/// The write path before it is given to the runtimes.
#[derive(Clone)]
pub struct CommandsBuilder(Arc<Shared>);

impl CommandsBuilder {
    /// A write path with this catalogue, whoever keeps it up to date. `feed` lends its position
    /// to receipts, `players` know what was carried out.
    pub fn build(
        options: Options,
        catalog: Arc<ArcSwap<Catalog>>,
        clock: Clock,
        feed: Feed,
        players: Players,
        registry: &mut Registry,
    ) -> Self {
        let metrics = Metrics::default();
        metrics.register(registry);
        let rejections = Rejections::new(options.rejections_per_second);
        Self(Arc::new(Shared { catalog, options, clock, feed, players, rejections, metrics }))
    }

    /// The write path for the runtime that owns `appender`, and the settler that has to run
    /// there.
    pub fn on(&self, appender: Appender) -> (Commands, Settler) {
        let orphanage = Orphanage::new();
        let commands = Commands { shared: Arc::clone(&self.0), appender, orphanage };
        let settler = commands.orphanage.settler(commands.clone());
        (commands, settler)
    }
}

impl Commands {
    /// What can be bought and joined.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.shared.catalog.load_full()
    }

    /// Carries out an action: begins at once, whether what is returned is polled or not.
    /// Answers at `deadline` at the latest (or after the write timeout), with
    /// [`CommandError::OutcomeUnknown`] when the log has not answered: what has been handed to
    /// a log cannot be taken back.
    pub fn execute<'a>(
        &'a self,
        _caller: &Caller,
        submission: Submission,
        source: Source,
        deadline: Option<Instant>,
    ) -> impl Future<Output = Result<Outcome, CommandError>> + Send + use<'a> {
        // Combinators, and no async block: one that awaits what it holds takes twice the
        // room, and so does each around it, which is memory to be moved at every call.
        let by = || deadline.unwrap_or_else(|| Instant::now() + self.shared.options.write_timeout);
        let ready = |answer| Either::Left(ready(answer));
        let method = submission.method();
        let request = match submission.parse(&self.shared.catalog.load()) {
            Ok(request) => request,
            Err(refusal) => return ready(Err(self.refuse(method, refusal, source))),
        };
        let event_id = request.event_id();
        let request_id = request.request_id;
        match self.claim(&request, event_id) {
            Claim::Answered(answer) => ready(answer),
            Claim::Refused(violations) => {
                ready(Err(self.refuse(method, request.refused(violations), source)))
            }
            Claim::New(new) if !new.ticket.again => {
                let call = self.write(request, source, event_id, new);
                let unknown = move |_elapsed| self.unknown(event_id, request_id);
                Either::Right(Either::Left(timeout_at(by(), call).map(move |ended| {
                    match ended.map_err(unknown)? {
                        Ended::Answered(answer) => answer,
                        // Only what is written again, which is below.
                        Ended::Twice(_) => Err(self.unknown(event_id, request_id)),
                    }
                })))
            }
            // These are rare, and long. An event is handed over before anybody waits, so that
            // whatever is claimed is settled.
            Claim::New(new) => {
                let call = self.write(request.clone(), source.clone(), event_id, new);
                let step = Step::Ends(call);
                let patiently = self.patiently(method, request, source, step, by());
                Either::Right(Either::Right(patiently.boxed()))
            }
            Claim::UnderWay(outcome) => {
                let step = Step::Settles(outcome);
                let patiently = self.patiently(method, request, source, step, by());
                Either::Right(Either::Right(patiently.boxed()))
            }
        }
    }

    /// The receipt of an action by its request id.
    ///
    /// # Errors
    ///
    /// Also [`CommandError::InProgress`] and [`CommandError::ReceiptUnknown`].
    pub fn receipt(
        &self,
        _caller: &Caller,
        request: proto::GetReceiptRequest,
    ) -> Result<proto::EventReceipt, CommandError> {
        let mut violations = Violations::default();
        let player_id = violations.take("player_id", PlayerId::parse(request.player_id));
        let request_id = match request.request_id.as_str() {
            "" => Err("missing".into()),
            text => RequestId::parse(text),
        };
        let request_id = violations.take("request_id", request_id);
        let (Some(player_id), Some(request_id)) = (player_id, request_id) else {
            return Err(CommandError::Rejected(violations));
        };
        match self.shared.players.receipt(&player_id, request_id) {
            Receipt::NotReady => Err(not_ready()),
            Receipt::Known(known) => Ok(self.receipt_of(request_id, &known, true)),
            Receipt::InProgress => Err(CommandError::InProgress),
            Receipt::Unknown(since) => Err(CommandError::ReceiptUnknown { request_id, since }),
        }
    }

    /// How far back requests are recognised.
    pub fn horizon(&self) -> proto::RequestHorizon {
        self.shared.players.horizon()
    }

    /// Carries out a request that is under way already, or may be in the log: waits for what
    /// becomes of that, and tries anew when it is not written.
    async fn patiently<'a>(
        &'a self,
        method: &'static str,
        request: Request,
        source: Source,
        mut step: Step<'a>,
        by: Instant,
    ) -> Result<Outcome, CommandError> {
        let (event_id, request_id) = (request.event_id(), request.request_id);
        loop {
            match step {
                Step::Settles(outcome) => {
                    if timeout_at(by, outcome).await.is_err() {
                        self.shared.metrics.in_progress.inc();
                        return Err(CommandError::InProgress);
                    }
                }
                Step::Ends(call) => {
                    let ended = timeout_at(by, call).await;
                    match ended.map_err(|_elapsed| self.unknown(event_id, request_id))? {
                        Ended::Answered(answer) => return answer,
                        Ended::Twice(outcome) => {
                            step = Step::Settles(outcome);
                            continue;
                        }
                    }
                }
            }
            step = match self.claim(&request, event_id) {
                Claim::Answered(answer) => return answer,
                Claim::Refused(violations) => {
                    return Err(self.refuse(method, request.refused(violations), source));
                }
                Claim::UnderWay(outcome) => Step::Settles(outcome),
                Claim::New(new) => {
                    Step::Ends(self.write(request.clone(), source.clone(), event_id, new))
                }
            };
        }
    }

    /// Looks for a request, and begins it when it is new.
    fn claim(&self, request: &Request, event_id: Uuid) -> Claim {
        let Shared { players, catalog, metrics, .. } = &*self.shared;
        let key = request.player_id.as_str().as_bytes();
        let partition = partition_of_key(key, self.appender.log().key_partitions());
        let now = self.shared.clock.now();
        match players.claim(request, event_id, partition, &catalog.load(), now) {
            Claimed::New(ticket, payload, owned) => {
                Claim::New(New { ticket, partition, accept_time: now, payload, owned })
            }
            Claimed::UnderWay(outcome) => Claim::UnderWay(outcome),
            Claimed::Refused(violations) => Claim::Refused(violations),
            Claimed::NotReady => {
                metrics.not_written.inc();
                Claim::Answered(Err(not_ready()))
            }
            Claimed::Conflict => {
                metrics.conflicts.inc();
                Claim::Answered(Err(CommandError::Conflict))
            }
            Claimed::Valid(payload, owned) => {
                Claim::Answered(Ok(Outcome { receipt: None, payload, owned }))
            }
            Claimed::Known(_, payload, owned) if request.validate_only => {
                Claim::Answered(Ok(Outcome { receipt: None, payload, owned }))
            }
            Claimed::Known(known, payload, owned) => {
                metrics.replayed.inc();
                let receipt = Some(self.receipt_of(request.request_id, &known, true));
                Claim::Answered(Ok(Outcome { receipt, payload, owned }))
            }
        }
    }

    /// Hands the event of a claimed request to the log.
    fn write(&self, request: Request, source: Source, event_id: Uuid, new: New) -> Call<'_> {
        let New { ticket, partition, accept_time, payload, owned } = new;
        let request_id = request.request_id;
        let draft = Draft {
            event_id,
            request_id: Some(request_id),
            client_context: request.client_context,
            accept_time,
            checked_through: ticket.checked_through,
            payload,
        };
        let (appending, payload) = self.append(Some(request.player_id), partition, source, draft);
        let submitted = Submitted { ticket, event_id, request_id, accept_time, payload, owned };
        Call::new(self, submitted, appending)
    }

    fn unknown(&self, event_id: Uuid, request_id: RequestId) -> CommandError {
        self.shared.metrics.outcome_unknown.inc();
        CommandError::OutcomeUnknown { event_id, request_id }
    }

    fn receipt_of(
        &self,
        request_id: RequestId,
        known: &Known,
        replayed: bool,
    ) -> proto::EventReceipt {
        proto::EventReceipt {
            event_id: uuid_text(known.event_id),
            request_id: uuid_text(request_id.uuid()),
            cursor: self.shared.feed.cursor_behind(&known.appended),
            accept_time: Some(known.accept_time.into()),
            replayed,
            partition: proto_partition(known.appended.partition),
            offset: proto_offset(known.appended.offset),
        }
    }

    /// Hands an event to the log. Gives back what happened.
    fn append(
        &self,
        player_id: Option<PlayerId>,
        partition: Partition,
        source: Source,
        draft: Draft,
    ) -> (Appending, Payload) {
        let key = player_id.as_ref().map(|id| Bytes::copy_from_slice(id.as_str().as_bytes()));
        let attributes = Attributes {
            id: draft.event_id,
            event_type: cloud_event_type(&draft.payload),
            time: draft.accept_time,
            traceparent: source.traceparent.clone(),
        };
        let (value, payload) = Envelope {
            event_id: draft.event_id,
            player_id,
            accept_time: draft.accept_time,
            checked_through: draft.checked_through,
            origin: source.into_origin(draft.request_id, draft.client_context),
            payload: draft.payload,
        }
        .encode();
        (self.appender.append(NewRecord { partition, key, value, attributes }), payload)
    }

    /// Makes the answer to a refused action, and a note of it in the log.
    fn refuse(&self, method: &'static str, refusal: Refusal, source: Source) -> CommandError {
        let shared = &*self.shared;
        shared.metrics.rejected.inc();
        let now = shared.clock.now();
        if !refusal.validate_only && shared.rejections.allow(now) {
            shared.metrics.rejections_recorded.inc();
            let rejected = proto::RequestRejected {
                method: method.to_owned(),
                violations: refusal.violations.clone().into_vec(),
            };
            let event_id = random_id(now);
            // Without a player any partition is right; the event's id spreads them.
            let player = refusal.player_id.as_ref().map(|player| player.as_str().as_bytes());
            let key = player.unwrap_or(event_id.as_bytes());
            let partition = partition_of_key(key, self.appender.log().key_partitions());
            // Its id is random, so that none was looked for; but who reads it would.
            let checked = shared.players.checked_through(partition);
            let draft = Draft {
                event_id,
                request_id: refusal.request_id,
                client_context: refusal.client_context,
                accept_time: now,
                checked_through: checked.map_or(0, |(_, offset)| offset),
                payload: Payload::RequestRejected(rejected),
            };
            // Handed over at once; nobody waits for what becomes of it.
            drop(self.append(refusal.player_id, partition, source, draft));
        }
        CommandError::Rejected(refusal.violations)
    }
}

/// A version 7 UUID: random, and in the order of time.
fn random_id(now: Timestamp) -> Uuid {
    let millis = u64::try_from(now.as_millis()).unwrap_or(0);
    let nanos = u32::try_from(millis % 1000).unwrap_or(0) * 1_000_000;
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, millis / 1000, nanos))
}

/// What is answered until the log was read.
fn not_ready() -> CommandError {
    CommandError::NotWritten(AppendError::Unavailable("the log is still being read".into()))
}

/// What comes of looking for a request.
enum Claim {
    /// The answer.
    Answered(Result<Outcome, CommandError>),
    Refused(Violations),
    /// A wait until it is known what becomes of an earlier call.
    UnderWay(OwnedNotified),
    New(New),
}

/// What a patient call waits for.
#[allow(clippy::large_enum_variant, reason = "there is one, in a future that is boxed")]
enum Step<'a> {
    /// What becomes of another call, or of an event that may be there twice.
    Settles(OwnedNotified),
    /// Its own event.
    Ends(Call<'a>),
}

/// An event to be written.
struct New {
    ticket: Ticket,
    partition: Partition,
    accept_time: Timestamp,
    payload: Payload,
    owned: i64,
}

/// What an event is made of beside its player and its source.
struct Draft {
    event_id: Uuid,
    request_id: Option<RequestId>,
    client_context: Option<proto::ClientContext>,
    accept_time: Timestamp,
    checked_through: Offset,
    payload: Payload,
}

#[cfg(test)]
mod tests;
