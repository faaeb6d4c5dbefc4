//! The write path: an action comes in, a receipt goes out when its event is durable.
//!
//! # The order of things
//!
//! Check the shape; (look up the request id, once there is an index of them;) apply
//! the rules of the catalogue; append; answer. The rules come after the look-up, as a
//! retry of a success has to succeed even when the catalogue has changed.
//!
//! # What it promises
//!
//! * A receipt means: the event is durable, at that place.
//! * Every other answer says whether the event may still appear
//!   ([`CommandError::OutcomeUnknown`]) or surely will not.
//! * A refused action changes nothing. It leaves a `request_rejected` event behind,
//!   best effort, rate-limited and without delaying the answer.
//!
//! # What it may not know
//!
//! Transports and their codes.

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
use tokio::time::Instant;
use tokio::time::error::Elapsed;
use uuid::Uuid;

use crate::clock::{Clock, Timestamp};
use crate::domain::{
    Caller, Catalog, Envelope, Nothing, PlayerId, Refusal, RequestId, Source, Submission,
    Violations, cloud_event_type,
};
use crate::event_log::{
    AppendError, Appended, Appender, Appending, Attributes, NewRecord, partition_of_key,
};
use crate::feed::{Feed, proto_offset, proto_partition};
use crate::proto::{self, game_event::Payload};

use rejections::Rejections;

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
    /// How many of the event's item the player has after it, as far as is known here; 0 when
    /// the event is about no item.
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
}

#[derive(Clone, Default)]
struct Metrics {
    accepted: Counter,
    rejected: Counter,
    rejections_recorded: Counter,
    not_written: Counter,
    outcome_unknown: Counter,
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
    }
}

/// What all runtimes share of the write path.
struct Shared {
    catalog: Arc<ArcSwap<Catalog>>,
    options: Options,
    clock: Clock,
    feed: Feed,
    rejections: Rejections,
    metrics: Metrics,
}

/// The write path of one runtime. Cheap to clone.
#[derive(Clone)]
pub struct Commands {
    shared: Arc<Shared>,
    appender: Appender,
}

/// The write path before it is given to the runtimes.
#[derive(Clone)]
pub struct CommandsBuilder(Arc<Shared>);

impl CommandsBuilder {
    /// A write path with this catalogue, whoever keeps it up to date. `feed` lends its position
    /// to receipts.
    pub fn build(
        options: Options,
        catalog: Arc<ArcSwap<Catalog>>,
        clock: Clock,
        feed: Feed,
        registry: &mut Registry,
    ) -> Self {
        let metrics = Metrics::default();
        metrics.register(registry);
        let rejections = Rejections::new(options.rejections_per_second);
        Self(Arc::new(Shared { catalog, options, clock, feed, rejections, metrics }))
    }

    /// The write path for the runtime that owns `appender`.
    pub fn on(&self, appender: Appender) -> Commands {
        Commands { shared: Arc::clone(&self.0), appender }
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
        match self.begin(submission, source) {
            Err(error) => Either::Left(ready(Err(error))),
            Ok(Begun::Checked(payload)) => {
                Either::Left(ready(Ok(Outcome { receipt: None, payload, owned: 0 })))
            }
            Ok(Begun::Submitted(submitted, appended)) => {
                let deadline =
                    deadline.unwrap_or_else(|| Instant::now() + self.shared.options.write_timeout);
                let appended = tokio::time::timeout_at(deadline, appended);
                Either::Right(appended.map(|appended| self.finish(submitted, appended)))
            }
        }
    }

    /// Checks an action and hands its event to the log.
    fn begin(&self, submission: Submission, source: Source) -> Result<Begun, CommandError> {
        let shared = &*self.shared;
        let method = submission.method();
        // One for all of the action, which may change meanwhile.
        let catalog = shared.catalog.load();
        let request = match submission.parse(&catalog) {
            Ok(request) => request,
            Err(refusal) => return Err(self.refuse(method, refusal, source)),
        };
        let event_id = request.event_id();
        let payload = match request.action.decide(&catalog, &Nothing) {
            Ok(terms) => request.action.payload(event_id, &terms),
            Err(violations) => {
                return Err(self.refuse(method, request.refused(violations), source));
            }
        };
        if request.validate_only {
            return Ok(Begun::Checked(payload));
        }

        let accept_time = shared.clock.now();
        let request_id = request.request_id;
        let appended = self.append(
            Some(request.player_id),
            source,
            Draft {
                event_id,
                request_id: Some(request_id),
                client_context: request.client_context,
                accept_time,
                payload: payload.clone(),
            },
        );
        let submitted = Submitted { event_id, request_id, accept_time, payload };
        Ok(Begun::Submitted(submitted, appended))
    }

    /// Says what became of an event.
    fn finish(
        &self,
        submitted: Submitted,
        appended: Result<Result<Appended, AppendError>, Elapsed>,
    ) -> Result<Outcome, CommandError> {
        let shared = &*self.shared;
        let Submitted { event_id, request_id, accept_time, payload } = submitted;
        let unknown = || {
            shared.metrics.outcome_unknown.inc();
            CommandError::OutcomeUnknown { event_id, request_id }
        };
        match appended {
            Ok(Ok(appended)) => {
                shared.metrics.accepted.inc();
                let receipt = self.receipt(event_id, request_id, accept_time, &appended);
                Ok(Outcome { receipt: Some(receipt), payload, owned: 0 })
            }
            Ok(Err(AppendError::OutcomeUnknown(reason))) => {
                tracing::warn!(%event_id, %reason, "nobody knows whether an event is written");
                Err(unknown())
            }
            Ok(Err(error)) => {
                shared.metrics.not_written.inc();
                Err(CommandError::NotWritten(error))
            }
            Err(_) => Err(unknown()),
        }
    }

    fn receipt(
        &self,
        event_id: Uuid,
        request_id: RequestId,
        accept_time: Timestamp,
        appended: &Appended,
    ) -> proto::EventReceipt {
        proto::EventReceipt {
            event_id: event_id.to_string(),
            request_id: request_id.to_string(),
            cursor: self.shared.feed.cursor_behind(appended),
            accept_time: Some(accept_time.into()),
            replayed: false,
            partition: proto_partition(appended.partition),
            offset: proto_offset(appended.offset),
        }
    }

    /// Hands an event to the log.
    fn append(&self, player_id: Option<PlayerId>, source: Source, draft: Draft) -> Appending {
        let key = player_id.as_ref().map(|id| Bytes::copy_from_slice(id.as_str().as_bytes()));
        let attributes = Attributes {
            id: draft.event_id,
            event_type: cloud_event_type(&draft.payload),
            time: draft.accept_time,
            traceparent: source.traceparent.clone(),
        };
        // Without a player any partition is right; the event's id spreads them.
        let partition = partition_of_key(
            key.as_deref().unwrap_or(draft.event_id.as_bytes()),
            self.appender.log().key_partitions(),
        );
        let value = Envelope {
            event_id: draft.event_id,
            player_id,
            accept_time: draft.accept_time,
            checked_through: 0,
            origin: source.into_origin(draft.request_id, draft.client_context),
            payload: draft.payload,
        }
        .encode();
        self.appender.append(NewRecord { partition, key, value, attributes })
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
            let draft = Draft {
                event_id: random_id(now),
                request_id: refusal.request_id,
                client_context: refusal.client_context,
                accept_time: now,
                payload: Payload::RequestRejected(rejected),
            };
            // Handed over at once; nobody waits for what becomes of it.
            drop(self.append(refusal.player_id, source, draft));
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

/// An action that was checked.
enum Begun {
    /// And was not to be more than that.
    Checked(Payload),
    /// And whose event was handed to the log.
    Submitted(Submitted, Appending),
}

/// What the receipt of an event is made of.
struct Submitted {
    event_id: Uuid,
    request_id: RequestId,
    accept_time: Timestamp,
    payload: Payload,
}

/// What an event is made of beside its player and its source.
struct Draft {
    event_id: Uuid,
    request_id: Option<RequestId>,
    client_context: Option<proto::ClientContext>,
    accept_time: Timestamp,
    payload: Payload,
}

#[cfg(test)]
mod tests;
