//! The one thread that asks the brokers about the topic: at regular intervals, and whenever
//! somebody has to know.
//!
//! Those who ask at the same time share an answer that was fetched after they asked, so that
//! ten thousand subscribers who come back together cost a few requests.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{oneshot, watch};

use super::OpenError;
use super::board::{Alarm, Board, Topic, Verdict};
use super::context::Context;
use super::ffi::Identity;
use super::settings::Options;
use super::topic::{Failure, Inspector, State};
use super::writer::Writer;
use crate::clock::Timestamp;
use crate::event_log::{Bounds, LogId, Position, ReadError};

/// How often the topic's identity is looked at: so long after it was deleted and made anew,
/// at the latest, readers of the old one are told.
const IDENTITY_INTERVAL: Duration = Duration::from_secs(5);

/// How often it is looked at while something is wrong.
const TROUBLED_INTERVAL: Duration = Duration::from_secs(1);

/// How often configuration and replicas are looked at.
const STATE_INTERVAL: Duration = Duration::from_secs(30);

/// How often trouble that lasts is mentioned again.
const REMINDER_INTERVAL: Duration = Duration::from_secs(60);

/// How long a topic that was just made may take to be known to all brokers.
const CREATION_PATIENCE: Duration = Duration::from_secs(5);
const CREATION_PAUSE: Duration = Duration::from_millis(20);

/// Questions that wait for the thread at the most; further ones are told to come again.
const MAX_QUESTIONS: usize = 16_384;

/// What can be asked.
enum Question {
    Bounds(oneshot::Sender<Result<Bounds, ReadError>>),
    PositionAt(LogId, Timestamp, oneshot::Sender<Result<Position, ReadError>>),
}

/// Asks the monitor. Cheap to clone; the thread ends with the last one.
#[derive(Clone)]
pub(super) struct Monitor {
    questions: SyncSender<Question>,
}

impl Monitor {
    /// Starts the thread. `settled` turns true after the first look at the topic.
    pub fn start(
        options: Options,
        context: Context,
        board: Arc<Board>,
        writer: Arc<Writer>,
    ) -> Result<(Self, watch::Receiver<bool>), OpenError> {
        let inspector = Inspector::new(options.clone(), context.clone())?;
        let (questions, asked) = sync_channel(MAX_QUESTIONS);
        let (settled, has_settled) = watch::channel(false);
        let watcher = Watcher {
            options,
            context,
            inspector,
            board,
            writer,
            topic: None,
            was_found: false,
            unfit: false,
            looked_at_state: None,
            failed_looks: 0,
            trouble: None,
        };
        thread::Builder::new()
            .name("kafka-monitor".to_owned())
            .spawn(move || {
                let _alarm = Alarm(Arc::clone(&watcher.board));
                watcher.run(&asked, &settled);
            })
            .map_err(OpenError::Thread)?;
        Ok((Self { questions }, has_settled))
    }

    /// The bounds of the topic, after a look at its identity.
    pub fn bounds(&self) -> BoxFuture<'static, Result<Bounds, ReadError>> {
        self.ask(Question::Bounds)
    }

    /// See [`crate::event_log::EventLog::position_at`].
    pub fn position_at(
        &self,
        log: LogId,
        time: Timestamp,
    ) -> BoxFuture<'static, Result<Position, ReadError>> {
        self.ask(|answer| Question::PositionAt(log, time, answer))
    }

    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(oneshot::Sender<Result<T, ReadError>>) -> Question,
    ) -> BoxFuture<'static, Result<T, ReadError>> {
        let (answer, answered) = oneshot::channel();
        let sent = self.questions.try_send(question(answer));
        async move {
            let gone = || ReadError::Unavailable("the log's monitor has ended".into());
            match sent {
                Ok(()) => answered.await.unwrap_or_else(|_| Err(gone())),
                Err(TrySendError::Full(_)) => {
                    Err(ReadError::Unavailable("too many ask at once; try again shortly".into()))
                }
                Err(TrySendError::Disconnected(_)) => Err(gone()),
            }
        }
        .boxed()
    }
}

/// The thread's state.
struct Watcher {
    options: Options,
    context: Context,
    inspector: Inspector,
    board: Arc<Board>,
    writer: Arc<Writer>,
    topic: Option<Topic>,
    /// A topic was found before, and so none is made any more.
    was_found: bool,
    /// It can be read and not be written.
    unfit: bool,
    looked_at_state: Option<Instant>,
    /// How many looks have failed in a row.
    failed_looks: u32,
    /// What is wrong, and when it was last mentioned.
    trouble: Option<(Failure, Instant)>,
}

impl Watcher {
    fn run(mut self, asked: &Receiver<Question>, settled: &watch::Sender<bool>) {
        let mut next_look = Instant::now();
        loop {
            let patience = next_look.saturating_duration_since(Instant::now());
            let mut questions = match asked.recv_timeout(patience) {
                Ok(question) => vec![question],
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            questions.extend(asked.try_iter().take(MAX_QUESTIONS));
            self.inspector.listen();
            let found = self.look();
            settled.send_replace(true);
            next_look =
                Instant::now() + if found.is_ok() { IDENTITY_INTERVAL } else { TROUBLED_INTERVAL };
            if !questions.is_empty() {
                self.answer(questions, found);
            }
        }
    }

    /// Whether a failed look is no trouble yet: because records get through, or because it is
    /// the first one and some broker may just have been slow.
    fn may_be_chance(&self) -> bool {
        let first = self.failed_looks == 0 && !self.context.has_lost_all();
        self.topic.is_some()
            && self.trouble.is_none()
            && (first || self.writer.is_getting_through())
    }

    /// Looks at the topic, and tells the board.
    fn look(&mut self) -> Result<Topic, Failure> {
        let found = self.find();
        match &found {
            Ok(_) => {
                self.context.forget_cause();
                self.trouble = None;
                self.failed_looks = 0;
                self.board.set_reachable(Ok(()));
                self.writer.look_is_well();
            }
            Err(failure) if self.may_be_chance() => {
                tracing::debug!(%failure, "the topic could not be looked at");
                self.failed_looks += 1;
            }
            Err(failure) => {
                // News of the log's health is told by whoever watches it.
                match &mut self.trouble {
                    Some((known, when)) if known == failure => {
                        if when.elapsed() >= REMINDER_INTERVAL {
                            tracing::warn!(%failure, "the log still cannot be used; trying on");
                            *when = Instant::now();
                        }
                    }
                    _ => self.trouble = Some((failure.clone(), Instant::now())),
                }
                self.board.set_reachable(Err(Arc::clone(&failure.0)));
            }
        }
        found
    }

    fn find(&mut self) -> Result<Topic, Failure> {
        let mut identity = self.inspector.identify()?;
        if identity.is_none() && !self.was_found {
            self.inspector.create()?;
            identity = self.wait_for_new_topic()?;
        }
        let Some(identity) = identity else {
            // Made anew only by whoever deleted it, as this may be a cluster in pieces.
            return Err(Failure(
                format!(
                    "topic {} is gone; make it again, or restart herald, which then makes it",
                    self.options.topic
                )
                .into(),
            ));
        };
        // The cluster's id does not change while it is connected.
        let log = match (identity.id, self.topic) {
            (None, Some(topic)) => topic.log,
            _ => self.inspector.log_id(&identity),
        };
        let topic = Topic { log, partitions: identity.partitions };
        if self.topic.is_some_and(|held| held.log != log) {
            // Who reads the old one must not get anything of this one, be it fit or not.
            self.topic = None;
            self.board.withdraw_topic();
        }
        let is_news = self.topic != Some(topic) || self.trouble.is_some() || self.unfit;
        let is_due = self.looked_at_state.is_none_or(|when| when.elapsed() >= STATE_INTERVAL);
        if is_news || is_due {
            let verdict = self.judge(&self.inspector.state()?, self.is_known(log))?;
            self.unfit = verdict.is_err();
            self.board.set_fit(verdict);
            self.looked_at_state = Some(Instant::now());
        }
        if !self.is_known(log) {
            self.writer.attach(log).map_err(|error| Failure(error.to_string().into()))?;
            if self.was_found {
                tracing::error!(
                    topic = self.options.topic, id = %log,
                    "the topic was deleted and made anew; cursors of the old one are refused"
                );
            } else {
                tracing::info!(
                    topic = self.options.topic, id = %log, partitions = topic.partitions,
                    "found the topic"
                );
            }
        }
        if let Some(before) = self.topic
            && before.log == log
            && before.partitions != topic.partitions
        {
            let spread = self.options.key_partitions();
            tracing::warn!(
                before = before.partitions,
                now = topic.partitions,
                "the topic has another number of partitions; players stay spread over {spread}, \
                 and from the next start on --key-partitions {spread} has to be given"
            );
        }
        self.topic = Some(topic);
        self.was_found = true;
        self.board.set_topic(topic);
        Ok(topic)
    }

    /// Waits until the brokers know a topic that was just made, and have it led.
    fn wait_for_new_topic(&self) -> Result<Option<Identity>, Failure> {
        let deadline = Instant::now() + CREATION_PATIENCE;
        loop {
            let identity = self.inspector.identify()?;
            let led = identity.is_some_and(|found| self.inspector.bounds(found.partitions).is_ok());
            if led || Instant::now() >= deadline {
                return Ok(identity);
            }
            thread::park_timeout(CREATION_PAUSE);
        }
    }

    /// Whether this log was served already.
    fn is_known(&self, log: LogId) -> bool {
        self.topic.is_some_and(|held| held.log == log)
    }

    /// Whether the topic can be written. One that is not fit to be the log is a failure,
    /// unless it was fit before: then it can still be read, and may have got more partitions,
    /// as players stay where they are.
    fn judge(&self, state: &State, is_known: bool) -> Result<Verdict, Failure> {
        let mut options = self.options.clone();
        if is_known {
            options.key_partitions = Some(options.key_partitions());
        }
        let problems = state.problems(&options);
        if !problems.is_empty() {
            let topic = &self.options.topic;
            let why = format!("topic {topic} is not fit to be the log: {}", problems.join("; "));
            return if is_known { Ok(Err(why.into())) } else { Err(Failure(why.into())) };
        }
        let key_partitions = self.options.key_partitions();
        let unwritable = state.unwritable(key_partitions);
        if unwritable.len() == key_partitions as usize {
            let why = "no partition has a leader and as many replicas in sync as \
                       min.insync.replicas asks for";
            return Ok(Err(why.into()));
        }
        if !unwritable.is_empty() {
            tracing::warn!(
                partitions = ?unwritable,
                "these partitions have no leader, or too few replicas in sync, to be written to"
            );
        }
        Ok(Ok(()))
    }

    fn answer(&self, questions: Vec<Question>, found: Result<Topic, Failure>) {
        let unavailable = |failure: Failure| ReadError::Unavailable(failure.0);
        let mut bounds = None;
        for question in questions {
            // Whoever asked and is gone needs no answer.
            match question {
                Question::Bounds(answer) => {
                    let bounds = bounds.get_or_insert_with(|| self.bounds(found.clone()?));
                    let _ = answer.send(bounds.clone().map_err(unavailable));
                }
                Question::PositionAt(log, time, answer) => {
                    let position = match &found {
                        Err(failure) => Err(unavailable(failure.clone())),
                        Ok(topic) if topic.log != log => Err(ReadError::Replaced),
                        Ok(topic) => self
                            .inspector
                            .position_at(topic.partitions, time.as_millis())
                            .map_err(unavailable),
                    };
                    let _ = answer.send(position);
                }
            }
        }
    }

    fn bounds(&self, topic: Topic) -> Result<Bounds, Failure> {
        let (start, end) = self.inspector.bounds(topic.partitions)?;
        Ok(Bounds { log: topic.log, start, end })
    }
}
