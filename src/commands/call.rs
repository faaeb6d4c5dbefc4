//! A call whose event the log has, and what becomes of it when its caller goes away.
//!
//! The request stays under way until the log has answered. As long as the caller is there it
//! takes the answer; otherwise the lane's [`Settler`] does, which costs those nothing that
//! stay.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use uuid::Uuid;

use super::{CommandError, Commands, Outcome};
use crate::clock::Timestamp;
use crate::domain::RequestId;
use crate::event_log::{AppendError, Appended, Appending};
use crate::players::{self, Known, Ticket};
use crate::proto::game_event::Payload;

/// What the receipt of an event is made of.
pub(super) struct Submitted {
    pub ticket: Ticket,
    pub event_id: Uuid,
    pub request_id: RequestId,
    pub accept_time: Timestamp,
    pub payload: Payload,
    pub owned: i64,
}

/// How a call ends.
pub(super) enum Ended {
    Answered(Result<Outcome, CommandError>),
    /// Its event is durable, and perhaps not the first with its id. When this ends, it is known
    /// which one is.
    Twice(OwnedNotified),
}

/// A call whose event the log has. When it is dropped before its end, the lane's settler goes
/// on with it.
pub(super) struct Call<'a> {
    commands: &'a Commands,
    /// None once it has ended.
    under_way: Option<UnderWay>,
}

struct UnderWay {
    submitted: Submitted,
    appending: Appending,
}

impl<'a> Call<'a> {
    pub fn new(commands: &'a Commands, submitted: Submitted, appending: Appending) -> Self {
        Self { commands, under_way: Some(UnderWay { submitted, appending }) }
    }
}

impl Future for Call<'_> {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        let Some(under_way) = &mut self.under_way else { return Poll::Pending };
        let answer = ready!(Pin::new(&mut under_way.appending).poll(cx));
        let Some(UnderWay { submitted, .. }) = self.under_way.take() else { return Poll::Pending };
        Poll::Ready(self.commands.finish(submitted, answer))
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let Some(under_way) = self.under_way.take() {
            self.commands.orphanage.take_in(under_way);
        }
    }
}

impl Commands {
    /// Says what became of an event.
    fn finish(&self, submitted: Submitted, answer: Result<Appended, AppendError>) -> Ended {
        let Submitted { ticket, event_id, request_id, accept_time, payload, owned } = submitted;
        let metrics = &self.shared.metrics;
        let outcome = self.shared.players.settle(ticket, accept_time, &answer);
        Ended::Answered(match (outcome, answer) {
            (players::Outcome::WrittenAgain(settled), _) => return Ended::Twice(settled),
            (players::Outcome::Written(Some(there)), _) => {
                metrics.accepted.inc();
                let receipt = Some(self.receipt_of(request_id, &there, true));
                Ok(Outcome { receipt, payload, owned })
            }
            (_, Ok(appended)) => {
                metrics.accepted.inc();
                let known = Known { event_id, appended, accept_time };
                let receipt = Some(self.receipt_of(request_id, &known, false));
                Ok(Outcome { receipt, payload, owned })
            }
            (_, Err(AppendError::OutcomeUnknown(reason))) => {
                tracing::warn!(%event_id, %reason, "nobody knows whether an event is written");
                Err(self.unknown(event_id, request_id))
            }
            (players::Outcome::Unsettled, Err(_)) => Err(self.unknown(event_id, request_id)),
            (_, Err(error)) => {
                metrics.not_written.inc();
                Err(CommandError::NotWritten(error))
            }
        })
    }
}

/// The calls of a lane whose callers are gone.
#[derive(Clone)]
pub(super) struct Orphanage(Arc<Arrivals>);

#[derive(Default)]
struct Arrivals {
    // Bounded by the log's own queue: each stands for a record that it has not answered.
    waiting: Mutex<Vec<UnderWay>>,
    ready: Notify,
}

impl Arrivals {
    fn take(&self) -> Vec<UnderWay> {
        mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Waits for the answers that no caller waits for any longer; to be run on the runtime of the
/// calls.
pub struct Settler {
    commands: Commands,
    arrivals: Arc<Arrivals>,
}

impl Orphanage {
    pub fn new() -> Self {
        Self(Arc::default())
    }

    /// Who settles these calls.
    pub fn settler(&self, commands: Commands) -> Settler {
        Settler { commands, arrivals: Arc::clone(&self.0) }
    }

    fn take_in(&self, call: UnderWay) {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(call);
        self.0.ready.notify_one();
    }
}

impl Settler {
    /// Runs until dropped.
    pub async fn run(self) {
        let Self { commands, arrivals } = self;
        let settle = async |UnderWay { submitted, appending }| {
            // Nobody is there who could be told.
            let _ = commands.finish(submitted, appending.await);
        };
        let mut calls = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = arrivals.ready.notified() => {
                    let waiting = arrivals.take();
                    calls.extend(waiting.into_iter().map(settle));
                }
                Some(()) = calls.next() => {}
            }
        }
    }
}
