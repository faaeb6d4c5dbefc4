//! Catching up: a few readers of the log for all subscribers that are behind the ring.
//!
//! A subscriber asks for what lies behind its place, and is given the page of the log that
//! holds it. There are [`READERS`] readers. Each has a window of the newest pages that it
//! has read, so that subscribers near one place share its reads, also when they are not
//! equally fast. Nothing is left out between a place and its page: a page begins at or
//! before the place, in every partition.
//!
//! A reader reads one page ahead of the foremost of those whom it serves: one page is on its
//! way to them while the next one is read. It serves one place for a [`TURN`] at least; then
//! whoever has been waiting for so long, and is not served by any reader, can have it. Who
//! waits longest comes first, and who loses the reader waits anew, so that nobody waits
//! for ever.
//!
//! # Memory
//!
//! [`READERS`] × [`WINDOW_BYTES`] (4 MiB), counted as the ring counts, or one page where that
//! is larger; a page under way for each reader, and the ids that it keeps (see `history`); and
//! what the back end keeps for an open reader (in Kafka 4 MiB of what was fetched ahead, and as
//! much again for each consumer that is still being closed: two for a reader, for a tenth of a
//! second). A subscriber adds its question, and the page that it has been given and has not
//! delivered yet, which is shared.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use super::batch::Batch;
use super::hub::{Hub, Join, Signal};
use super::place::Place;
use super::reader::READ_LIMITS;
use crate::event_log::{EventLog, Position, ReadError};
use crate::history::Reader;

/// How many readers there are. With Kafka each is a consumer: a few threads and a connection
/// to each broker.
const READERS: usize = 4;

/// Most bytes of the pages in one reader's window, counted as the ring counts; the newest
/// page is there in any case. Four full pages of small records at the least, so that
/// subscribers may be as far apart.
const WINDOW_BYTES: usize = 1 << 20;

/// How long a reader serves one place, and how long somebody else waits, before it goes
/// elsewhere. Far more than it costs to go elsewhere, also with Kafka: there it takes a new
/// consumer, and 10 to 20 ms until the first page (a broker on the same two cores; no more
/// than to assign a consumer anew took), and is done twice in this time at the most.
const TURN: Duration = Duration::from_millis(100);

/// The turn of a reader that has given nothing since it began: a first page that is given up
/// again and again would be worse than one that comes late.
const FIRST_PAGE_TURN: Duration = Duration::from_secs(2);

/// How long a reader that is not asked is kept for those whom it served: they ask again
/// when they have sent what they were given.
pub(super) const GRACE: Duration = Duration::from_millis(10);

/// How long a reader that is not asked stays open, and keeps its window.
const IDLE: Duration = Duration::from_secs(5);

/// What catching up gives.
#[derive(Debug)]
pub(super) enum Caught {
    /// A batch that begins at or before the place and ends behind it.
    Page(Arc<Batch>),
    /// The ring can be joined, or holds another log: look there again.
    Look,
}

/// What catching up counts.
#[derive(Clone, Default)]
pub(super) struct Gauges {
    /// The bytes in the windows.
    pub bytes: Gauge,
    /// Questions that wait.
    pub waiting: Gauge,
}

/// See the module.
pub(super) struct CatchUp {
    desk: Mutex<Desk>,
    /// Notified when a question has to wait.
    asked: Notify,
    /// One for each reader, notified when there may be something else for it to do.
    wake: [Arc<Notify>; READERS],
}

impl CatchUp {
    /// Serves nobody until [`CatchUp::run`] runs.
    pub fn new(gauges: Gauges) -> Self {
        let wake: [_; READERS] = std::array::from_fn(|_| Arc::new(Notify::new()));
        let seats = wake.iter().cloned().map(Seat::new).collect();
        let desk = Desk { seats, queue: VecDeque::new(), swept: Instant::now(), gauges };
        Self { desk: Mutex::new(desk), asked: Notify::new(), wake }
    }

    /// Asks for what lies behind `place`. Dropping the receiver takes the question back.
    pub fn ask(&self, place: &Arc<Place>) -> oneshot::Receiver<Result<Caught, ReadError>> {
        let (answer, receiver) = oneshot::channel();
        let question = Question {
            place: Arc::clone(place),
            answer: Some(answer),
            since: Instant::now(),
            is_looked_up: false,
        };
        if self.desk().take(question) {
            self.asked.notify_one();
        }
        receiver
    }

    /// Reads for those who ask, for as long as it is polled.
    pub async fn run(&self, log: &Arc<dyn EventLog>, hub: &Hub) {
        let signal = hub.add_lane();
        let mut readers: FuturesUnordered<_> =
            (0..READERS).map(|number| self.read(number, log)).collect();
        tokio::join!(self.deal(hub, &signal), readers.next());
    }

    /// Gives readers to those who wait, and sends to the ring who can join it.
    async fn deal(&self, hub: &Hub, signal: &Arc<Signal>) {
        // Only while somebody waits: a signal without listeners costs nothing.
        let mut listener = None;
        let mut is_news = false;
        loop {
            let due = {
                let mut desk = self.desk();
                if desk.waiting() > 0 {
                    // Before the look at the ring, so that no publication after it is missed.
                    listener.get_or_insert_with(|| signal.listen());
                    desk.look(hub, is_news);
                }
                let due = desk.deal(Instant::now());
                if desk.waiting() == 0 {
                    listener = None;
                }
                due
            };
            is_news = tokio::select! {
                () = signal.news(), if listener.is_some() => true,
                () = self.asked.notified() => false,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => false,
            };
        }
    }

    /// One reader.
    async fn read(&self, number: usize, log: &Arc<dyn EventLog>) {
        let wake = &self.wake[number];
        let mut reader = None;
        loop {
            let order = self.desk().seats[number].order();
            match order {
                Order::Close => reader = None,
                Order::Rest => {}
                Order::Read(goal) => {
                    let read = {
                        let mut page = pin!(next_page(&mut reader, log, &goal));
                        loop {
                            tokio::select! {
                                biased;
                                read = &mut page => break Some(read),
                                // The read goes on while others ask: begun anew each time, it
                                // might never end.
                                () = wake.notified() => {}
                            }
                            if !self.desk().seats[number].goes_on(&goal) {
                                break None;
                            }
                        }
                    };
                    if let Some(Err(_)) = read {
                        reader = None;
                    }
                    if let Some(read) = read {
                        self.desk().put(number, &goal, read.map(Arc::new));
                    }
                    continue;
                }
            }
            wake.notified().await;
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader, and the move that brought it where it is.
type Placed = Option<(Reader, u64)>;

/// The next page of a goal. Dropping the future loses nothing.
async fn next_page(
    placed: &mut Placed,
    log: &Arc<dyn EventLog>,
    goal: &Goal,
) -> Result<Batch, ReadError> {
    let (reader, at) = match placed {
        Some(placed) => placed,
        None => {
            let Place { log: id, position, .. } = &*goal.place;
            let opened = Reader::open(Arc::clone(log), *id, position.clone()).await?;
            placed.insert((opened, goal.number))
        }
    };
    if *at != goal.number {
        reader.seek(goal.place.log, goal.place.position.clone());
        *at = goal.number;
    }
    debug_assert!(reader.position().covers(&goal.place.position));
    reader.next(READ_LIMITS).await.map(|read| Batch::new(Arc::clone(&goal.place), read))
}

/// Who wants to know what lies behind a place.
struct Question {
    place: Arc<Place>,
    /// None once it was answered.
    answer: Option<oneshot::Sender<Result<Caught, ReadError>>>,
    /// Since when it waits in the queue, if it does.
    since: Instant,
    /// The ring was looked at for it.
    is_looked_up: bool,
}

impl Question {
    /// Whether somebody heard the answer.
    fn answer(&mut self, with: Result<Caught, ReadError>) -> bool {
        self.answer.take().is_some_and(|answer| answer.send(with).is_ok())
    }

    /// Whether somebody still waits for the answer.
    fn is_open(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| !answer.is_closed())
    }

    /// Answers it if its place can go on with the ring; whether it was answered.
    fn look(&mut self, hub: &Hub, is_news: bool) -> bool {
        if std::mem::replace(&mut self.is_looked_up, true) && !is_news {
            return false;
        }
        match hub.join(&self.place) {
            Join::At(_) => {}
            // Without news it knew that when it asked, and may be right: then the tail has not
            // noticed yet that there is another log.
            Join::Replaced if is_news => {}
            Join::Replaced | Join::Behind => return false,
        }
        self.answer(Ok(Caught::Look));
        true
    }
}

/// What a reader has to do.
enum Order {
    /// Let go of what is open.
    Close,
    /// Wait.
    Rest,
    Read(Goal),
}

/// The page to read next.
struct Goal {
    /// Counts the moves, to tell a place from where the reader was sent since.
    number: u64,
    place: Arc<Place>,
}

/// One reader, as those see it who ask.
struct Seat {
    wake: Arc<Notify>,
    /// Where its next page begins; none while it is closed.
    end: Option<Arc<Place>>,
    /// How often it was sent elsewhere.
    moves: u64,
    /// Its newest pages, each where the one before it ends.
    window: VecDeque<Arc<Batch>>,
    bytes: usize,
    /// Questions that wait for its next page, or one just behind that.
    asked: Vec<Question>,
    /// Somebody was given the newest page, and will want the next one.
    is_ahead_wanted: bool,
    /// When it was sent to this place, and whether it has given anything since.
    begun: Instant,
    has_given: bool,
    /// When it last was of use; never, when none.
    used: Option<Instant>,
}

impl Seat {
    fn new(wake: Arc<Notify>) -> Self {
        Self {
            wake,
            end: None,
            moves: 0,
            window: VecDeque::new(),
            bytes: 0,
            asked: Vec::new(),
            is_ahead_wanted: false,
            begun: Instant::now(),
            has_given: false,
            used: None,
        }
    }

    fn order(&self) -> Order {
        match &self.end {
            None => Order::Close,
            Some(end) if self.is_ahead_wanted || !self.asked.is_empty() => {
                Order::Read(Goal { number: self.moves, place: Arc::clone(end) })
            }
            Some(_) => Order::Rest,
        }
    }

    fn goes_on(&self, goal: &Goal) -> bool {
        matches!(self.order(), Order::Read(now) if now.number == goal.number)
    }

    /// Answers a question from the window, or takes it in if the next page may answer it.
    /// Returns it if this reader is of no use to it.
    fn serve(&mut self, mut question: Question, now: Instant) -> Option<Question> {
        let Some(end) = self.end.as_ref().filter(|end| end.log == question.place.log) else {
            return Some(question);
        };
        let place = &question.place.position;
        let begun = self.window.partition_point(|page| place.covers(&page.before.position));
        let page = begun.checked_sub(1).map(|index| &self.window[index]);
        if let Some(page) = page.filter(|page| answers(page, place)) {
            let is_given = question.answer(Ok(Caught::Page(Arc::clone(page))));
            self.gave(is_given, begun == self.window.len(), now);
            return None;
        }
        let is_near = end.position.distance_to(place) <= READ_LIMITS.records as u64;
        if is_near && place.covers(&end.position) {
            self.asked.push(question);
            self.used = Some(now);
            self.wake.notify_one();
            return None;
        }
        Some(question)
    }

    fn gave(&mut self, is_given: bool, is_newest: bool, now: Instant) {
        if is_given {
            self.has_given = true;
            self.used = Some(now);
            if is_newest && !std::mem::replace(&mut self.is_ahead_wanted, true) {
                self.wake.notify_one();
            }
        }
    }

    /// Sends it to the place of a question. Returns those who lose it.
    fn go_to(&mut self, question: Question, now: Instant) -> Vec<Question> {
        self.close();
        self.end = Some(Arc::clone(&question.place));
        self.moves += 1;
        self.begun = now;
        self.has_given = false;
        self.used = Some(now);
        std::mem::replace(&mut self.asked, vec![question])
    }

    /// Lets go of the place and of all that was read.
    fn close(&mut self) {
        self.end = None;
        self.window.clear();
        self.bytes = 0;
        self.is_ahead_wanted = false;
        self.wake.notify_one();
    }

    fn push(&mut self, page: Arc<Batch>) {
        self.end = Some(Arc::clone(&page.after));
        self.bytes += page.bytes();
        self.window.push_back(page);
        while self.bytes > WINDOW_BYTES && self.window.len() > 1 {
            if let Some(oldest) = self.window.pop_front() {
                self.bytes -= oldest.bytes();
            }
        }
    }

    /// When it is closed, if nobody asks until then.
    fn closes_at(&self) -> Option<Instant> {
        let used = self.used.filter(|_| self.end.is_some() && self.asked.is_empty())?;
        Some(used + IDLE)
    }

    /// From when on somebody else can have it who has been waiting since `since`; at any time,
    /// when none.
    fn free_at(&self, since: Instant) -> Option<Instant> {
        let used = self.used.filter(|_| self.end.is_some())?;
        let turn = if self.has_given { TURN } else { FIRST_PAGE_TURN };
        let over = (self.begun + turn).max(since + TURN);
        Some(if self.asked.is_empty() { over.min(used + GRACE) } else { over })
    }
}

/// Whether a page is what lies behind a place. The rule of [`Hub::join`], for a page whose end
/// is known.
fn answers(page: &Batch, place: &Position) -> bool {
    place.covers(&page.before.position) && !place.covers(&page.after.position)
}

/// Who asks, and who reads for whom.
struct Desk {
    seats: Vec<Seat>,
    /// Questions that no reader is of use to, who waits longest first. As many as there are
    /// subscribers at the most.
    queue: VecDeque<Question>,
    /// When it was last looked for questions that were taken back.
    swept: Instant,
    gauges: Gauges,
}

impl Desk {
    /// How many questions wait.
    fn waiting(&self) -> usize {
        self.queue.len() + self.seats.iter().map(|seat| seat.asked.len()).sum::<usize>()
    }

    /// Answers a question, or has it wait; whether it waits.
    fn take(&mut self, question: Question) -> bool {
        let (now, before) = (question.since, self.waiting());
        let left = self.serve(question, now);
        self.queue.extend(left);
        self.count();
        self.waiting() > before
    }

    fn serve(&mut self, question: Question, now: Instant) -> Option<Question> {
        self.seats.iter_mut().try_fold(question, |question, seat| seat.serve(question, now))
    }

    /// Hands on what a reader has read.
    fn put(&mut self, number: usize, goal: &Goal, read: Result<Arc<Batch>, ReadError>) {
        let now = Instant::now();
        let seat = &mut self.seats[number];
        if seat.moves != goal.number || seat.end.is_none() {
            // It was sent elsewhere in the same moment.
            return;
        }
        match read {
            Ok(page) => {
                seat.push(Arc::clone(&page));
                seat.is_ahead_wanted = false;
                let mut is_given = false;
                seat.asked.retain_mut(|question| {
                    let is_answered = answers(&page, &question.place.position);
                    if is_answered {
                        is_given |= question.answer(Ok(Caught::Page(Arc::clone(&page))));
                    }
                    !is_answered
                });
                seat.gave(is_given, true, now);
                self.serve_queue(number, now);
            }
            Err(error) => {
                seat.close();
                for mut question in seat.asked.drain(..) {
                    question.answer(Err(error.clone()));
                }
            }
        }
        self.count();
    }

    /// Lets a reader answer those in the queue to whom it has come to be of use.
    fn serve_queue(&mut self, number: usize, now: Instant) {
        if self.queue.is_empty() {
            return;
        }
        let seat = &mut self.seats[number];
        let queue = std::mem::take(&mut self.queue);
        self.queue = queue.into_iter().filter_map(|question| seat.serve(question, now)).collect();
    }

    /// Answers those who can go on with the ring; without news, only those for whom it was
    /// not looked at yet.
    fn look(&mut self, hub: &Hub, is_news: bool) {
        let attached = self.seats.iter_mut().flat_map(|seat| &mut seat.asked);
        let answered =
            attached.chain(&mut self.queue).filter_map(|q| q.look(hub, is_news).then_some(()));
        if answered.count() > 0 {
            self.forget();
        }
    }

    /// Forgets what was answered or taken back.
    fn forget(&mut self) {
        self.queue.retain(Question::is_open);
        for seat in &mut self.seats {
            let before = seat.asked.len();
            seat.asked.retain(Question::is_open);
            if seat.asked.len() < before {
                // It may not have to read on.
                seat.wake.notify_one();
            }
        }
    }

    /// Gives readers that are free to those who wait longest, closes those that nobody uses.
    /// Returns when it has to be done again.
    fn deal(&mut self, now: Instant) -> Option<Instant> {
        if now >= self.swept + TURN {
            self.swept = now;
            self.forget();
        }
        let mut due = None;
        while let Some(question) = self.queue.pop_front() {
            let free_at = |seat: &Seat| seat.free_at(question.since);
            // Those that were never used come first, then those that nobody asks.
            let Some((number, seat)) = self
                .seats
                .iter_mut()
                .enumerate()
                .filter(|(_, seat)| free_at(seat).is_none_or(|at| at <= now))
                .min_by_key(|(_, seat)| (!seat.asked.is_empty(), seat.used))
            else {
                due = self.seats.iter().filter_map(free_at).min();
                self.queue.push_front(question);
                break;
            };
            let lost = seat.go_to(question, now);
            self.serve_queue(number, now);
            for question in lost {
                if let Some(question) = self.serve(question, now) {
                    self.queue.push_back(Question { since: now, ..question });
                }
            }
        }
        for seat in &mut self.seats {
            match seat.closes_at() {
                Some(at) if at <= now => seat.close(),
                at => due = due.into_iter().chain(at).min(),
            }
        }
        self.count();
        due.into_iter().chain((self.waiting() > 0).then_some(self.swept + TURN)).min()
    }

    fn count(&self) {
        let bytes = self.seats.iter().map(|seat| seat.bytes).sum::<usize>();
        self.gauges.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.gauges.waiting.set(i64::try_from(self.waiting()).unwrap_or(i64::MAX));
    }
}
