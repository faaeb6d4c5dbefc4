//! The readers over a log that counts its reads. Time is paused: what takes time is slept.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::watch;
use tokio::time::{advance, sleep};

use super::*;
use crate::clock::Timestamp;
use crate::event_log::memory::MemoryLog;
use crate::event_log::{Ack, Bounds, Health, LogId, LogReader, NewRecord, ReadBatch, ReadLimits};
use crate::feed::invariants;
use crate::tasks::{Death, Tasks};

/// Records of one page, when they are small.
const PAGE: u64 = READ_LIMITS.records as u64;

fn at(log: LogId, offset: u64) -> Arc<Place> {
    Arc::new(Place::new(log, vec![offset].into(), Timestamp::default()))
}

/// What was done with a log, and how it behaves.
#[derive(Default)]
struct Log {
    inner: Option<Arc<MemoryLog>>,
    /// Readers that were opened, and of those the open ones.
    opened: AtomicUsize,
    open: AtomicUsize,
    /// Reads that gave something.
    reads: AtomicUsize,
    /// How long a read takes.
    takes: Duration,
    /// Why the next reads fail, if they do.
    failing: Mutex<Option<ReadError>>,
}

impl Log {
    fn inner(&self) -> &MemoryLog {
        self.inner.as_ref().unwrap()
    }
}

/// A log with what was done with it.
#[derive(Clone)]
struct Counted(Arc<Log>);

impl EventLog for Counted {
    fn key_partitions(&self) -> u32 {
        self.0.inner().key_partitions()
    }

    fn submit(&self, record: NewRecord, ack: Ack) {
        self.0.inner().submit(record, ack);
    }

    fn bounds(&self) -> BoxFuture<'_, Result<Bounds, ReadError>> {
        self.0.inner().bounds()
    }

    fn open_reader(
        &self,
        log: LogId,
        from: Position,
    ) -> BoxFuture<'_, Result<Box<dyn LogReader>, ReadError>> {
        async move {
            let reader = self.0.inner().open_reader(log, from).await?;
            self.0.opened.fetch_add(1, SeqCst);
            self.0.open.fetch_add(1, SeqCst);
            Ok(Box::new(CountedReader { log: Arc::clone(&self.0), reader }) as Box<dyn LogReader>)
        }
        .boxed()
    }

    fn position_at(
        &self,
        log: LogId,
        time: Timestamp,
    ) -> BoxFuture<'_, Result<Position, ReadError>> {
        self.0.inner().position_at(log, time)
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.0.inner().health()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.0.inner().close()
    }
}

struct CountedReader {
    log: Arc<Log>,
    reader: Box<dyn LogReader>,
}

impl Drop for CountedReader {
    fn drop(&mut self) {
        self.log.open.fetch_sub(1, SeqCst);
    }
}

impl LogReader for CountedReader {
    fn next(&mut self, limits: ReadLimits) -> BoxFuture<'_, Result<ReadBatch, ReadError>> {
        async move {
            sleep(self.log.takes).await;
            if let Some(error) = self.log.failing.lock().unwrap().clone() {
                return Err(error);
            }
            let read = self.reader.next(limits).await;
            self.log.reads.fetch_add(usize::from(read.is_ok()), SeqCst);
            read
        }
        .boxed()
    }

    fn seek(&mut self, log: LogId, from: Position) {
        self.reader.seek(log, from);
    }

    fn position(&self) -> &Position {
        self.reader.position()
    }
}

struct Fixture {
    log: Counted,
    hub: Arc<Hub>,
    pool: Arc<CatchUp>,
    gauges: Gauges,
    tasks: Tasks,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Fixture {
    /// A log of so many pages of small records, in one partition.
    fn new(pages: u64, takes: Duration) -> Self {
        let inner = MemoryLog::new(1);
        for _ in 0..pages * PAGE {
            inner.push(0, "small");
        }
        Self::of(inner, takes)
    }

    fn of(inner: Arc<MemoryLog>, takes: Duration) -> Self {
        let log = Counted(Arc::new(Log { inner: Some(inner), takes, ..Log::default() }));
        let gauges = Gauges::default();
        let pool = Arc::new(CatchUp::new(gauges.clone()));
        let hub = Arc::new(Hub::new(1));
        let tasks = Tasks::new();
        let as_log = Arc::new(log.clone()) as Arc<dyn EventLog>;
        let running = (Arc::clone(&pool), as_log, Arc::clone(&hub));
        tasks.spawn("catch-up", Death::Fatal, async move {
            let (pool, log, hub) = running;
            pool.run(&log, &hub).await;
        });
        Self { log, hub, pool, gauges, tasks }
    }

    fn inner(&self) -> &MemoryLog {
        self.log.0.inner()
    }

    fn ask(&self, place: u64) -> oneshot::Receiver<Result<Caught, ReadError>> {
        self.pool.ask(&at(self.inner().id(), place))
    }

    /// The page for a place.
    async fn page(&self, place: u64) -> Arc<Batch> {
        match answer(self.ask(place)).await {
            Ok(Caught::Page(page)) => {
                let place = vec![place].into();
                let (before, after) = (&page.before.position, &page.after.position);
                assert!(invariants::follows_on(&place, before), "{place:?}: left out");
                assert!(!place.covers(after), "{place:?}: of no use");
                page
            }
            other => panic!("{other:?}"),
        }
    }

    /// Reads from a place to the end that the log has now, as a subscriber who takes so long
    /// for each page.
    async fn catch_up(&self, from: u64, takes: Duration) {
        let end = self.inner().bounds().await.unwrap().end;
        let mut place = from;
        while place < end.get(0) {
            let page = self.page(place).await;
            for record in &page.records {
                if record.offset >= place {
                    assert_eq!(record.offset, place);
                    place += 1;
                }
            }
            if takes > Duration::ZERO {
                sleep(takes).await;
            }
        }
    }

    fn reads(&self) -> usize {
        self.log.0.reads.load(SeqCst)
    }

    fn opened(&self) -> usize {
        self.log.0.opened.load(SeqCst)
    }
}

/// The answer, which comes long before a minute of the test's time has gone by.
async fn answer(asked: oneshot::Receiver<Result<Caught, ReadError>>) -> Result<Caught, ReadError> {
    let patience = Duration::from_secs(60);
    tokio::time::timeout(patience, asked).await.expect("it comes").expect("it is not forgotten")
}

/// Lets everybody do what can be done without time.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

const NO_TIME: Duration = Duration::ZERO;

#[tokio::test(start_paused = true)]
async fn many_at_one_place_share_each_read() {
    let some_time = Duration::from_millis(5);
    for (reading, sending) in [(some_time, NO_TIME), (NO_TIME, some_time), (some_time, some_time)] {
        let fixture = Fixture::new(10, reading);
        join_all((0..100).map(|_| fixture.catch_up(0, sending))).await;
        assert_eq!((fixture.opened(), fixture.reads()), (1, 10));
    }
}

#[tokio::test(start_paused = true)]
async fn more_places_than_readers_are_all_served_to_the_end() {
    // Far apart, so that no reader is of use for two of them.
    const PLACES: u64 = 9;
    let fixture = Fixture::new(PLACES * 20, Duration::from_millis(20));
    let begun = Instant::now();
    // Before anybody has had two turns.
    let soon = TURN * (2 * PLACES as u32).div_ceil(READERS as u32);
    join_all((0..PLACES).map(async |number| {
        let place = number * 20 * PAGE;
        fixture.page(place).await;
        assert!(begun.elapsed() < soon, "{number} began after {:?}", begun.elapsed());
        fixture.catch_up(place, NO_TIME).await;
    }))
    .await;
    assert_eq!(fixture.opened(), READERS);
}

#[tokio::test(start_paused = true)]
async fn a_reader_is_left_to_those_it_serves_for_a_turn_and_no_longer_than_they_need_it() {
    let fixture = Fixture::new(READERS as u64 * 200, NO_TIME);
    let far = |number: u64| number * 100 * PAGE;
    for number in 0..READERS as u64 {
        fixture.page(far(number)).await;
    }
    // They have gone away.
    let begun = Instant::now();
    fixture.page(far(4)).await;
    assert_eq!(begun.elapsed(), GRACE);
    advance(TURN).await;
    settle().await;

    let begun = Instant::now();
    let other = async {
        settle().await;
        fixture.page(far(7)).await;
        begun.elapsed()
    };
    let busy = (0..READERS as u64).map(async |number| {
        for page in 0..60 {
            fixture.page(far(number) + page * PAGE).await;
            sleep(GRACE / 2).await;
        }
    });
    let (waited, _) = tokio::join!(other, join_all(busy));
    assert_eq!(waited, TURN);
}

#[tokio::test(start_paused = true)]
async fn one_page_is_read_ahead_and_not_more() {
    let fixture = Fixture::new(10, NO_TIME);
    for pages in 1..5 {
        fixture.page((pages - 1) * PAGE).await;
        settle().await;
        assert_eq!(fixture.reads() as u64, pages + 1);
        // Also not for who asks for what is in the window.
        fixture.page(0).now_or_never().expect("it is there");
        settle().await;
        assert_eq!(fixture.reads() as u64, pages + 1);
        fixture.page(pages * PAGE - 1).now_or_never().expect("it is there");
    }
}

#[tokio::test(start_paused = true)]
async fn a_little_ahead_is_waited_for_and_far_ahead_is_read_by_another() {
    let fixture = Fixture::new(20, NO_TIME);
    fixture.page(0).await;
    settle().await;
    let ahead = fixture.page(3 * PAGE).await;
    assert_eq!((fixture.opened(), ahead.before.position.get(0)), (1, 3 * PAGE));
    settle().await;
    fixture.page(10 * PAGE).await;
    assert_eq!(fixture.opened(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_slow_one_holds_up_nobody_and_misses_nothing() {
    let fixture = Fixture::new(100, NO_TIME);
    let begun = Instant::now();
    let fast = async {
        fixture.catch_up(0, NO_TIME).await;
        begun.elapsed()
    };
    let slow = fixture.catch_up(0, Duration::from_millis(30));
    let (fast, ()) = tokio::join!(fast, slow);
    assert_eq!(fast, NO_TIME);

    // As long as it is not far behind, it finds all in the window.
    let fixture = Fixture::new(100, NO_TIME);
    for place in 0..3 {
        fixture.page(place * PAGE).await;
    }
    settle().await;
    let reads = fixture.reads();
    for place in 0..3 {
        fixture.page(place * PAGE).await;
    }
    settle().await;
    assert_eq!(fixture.reads(), reads);
}

#[tokio::test(start_paused = true)]
async fn windows_are_bounded_and_counted_and_go_when_nobody_needs_them() {
    let inner = MemoryLog::new(1);
    for _ in 0..4000 {
        inner.push(0, vec![7; 16 << 10]);
    }
    let fixture = Fixture::of(inner, NO_TIME);
    let held = || {
        let desk = fixture.pool.desk();
        let of = |seat: &Seat| seat.window.iter().map(|page| page.bytes()).sum::<usize>();
        desk.seats.iter().map(of).collect::<Vec<_>>()
    };
    let kept = |place: u64| {
        let held = held();
        assert!(held.iter().all(|bytes| *bytes <= WINDOW_BYTES), "{held:?} at {place}");
        assert_eq!(fixture.gauges.bytes.get(), held.iter().sum::<usize>() as i64);
        held.iter().filter(|bytes| **bytes > WINDOW_BYTES / 2).count()
    };
    for number in 0..READERS as u64 {
        for page in 0..30 {
            let place = number * 1000 + page * 4;
            fixture.page(place).await;
            kept(place);
        }
        settle().await;
        // Filled, and no more than that.
        assert_eq!(kept(number) as u64, number + 1);
    }
    assert_eq!(fixture.log.0.open.load(SeqCst), READERS);
    sleep(IDLE + TURN).await;
    assert_eq!(fixture.gauges.bytes.get(), 0);
    assert_eq!(fixture.log.0.open.load(SeqCst), 0);
    // And all goes on.
    fixture.page(0).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_back_is_forgotten() {
    let fixture = Fixture::new(0, NO_TIME);
    let questions: Vec<_> = [0, 0, 5000, 10_000, 15_000, 20_000].map(|at| fixture.ask(at)).into();
    settle().await;
    assert_eq!(fixture.gauges.waiting.get(), 6);
    drop(questions);
    sleep(TURN).await;
    settle().await;
    assert_eq!(fixture.gauges.waiting.get(), 0);
    fixture.inner().push(0, "for nobody");
    settle().await;
    assert_eq!(fixture.reads(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_can_join_the_ring_is_sent_there() {
    let fixture = Fixture::new(3, NO_TIME);
    let log = fixture.inner().id();
    let mut waiting = fixture.ask(3 * PAGE);
    settle().await;
    assert!((&mut waiting).now_or_never().is_none(), "the tail has not begun");
    fixture.hub.restart(at(log, 3 * PAGE));
    assert!(matches!(answer(waiting).await, Ok(Caught::Look)));
    // At once, if the ring came to it before it asked.
    assert!(matches!(answer(fixture.ask(3 * PAGE)).await, Ok(Caught::Look)));

    // Another log in the ring is news once. Without news nobody is sent to and fro.
    fixture.hub.restart(at(LogId(uuid::Uuid::max()), 0));
    let mut waiting = fixture.ask(3 * PAGE);
    settle().await;
    assert!((&mut waiting).now_or_never().is_none(), "there is no news");
    fixture.hub.restart(at(LogId(uuid::Uuid::max()), 1));
    assert!(matches!(answer(waiting).await, Ok(Caught::Look)));
}

#[tokio::test(start_paused = true)]
async fn a_read_ends_although_others_ask_and_the_tail_publishes_all_the_time() {
    let takes = Duration::from_millis(50);
    let fixture = Fixture::new(3, takes);
    fixture.hub.restart(at(fixture.inner().id(), 3 * PAGE));
    let begun = Instant::now();
    let publishing = async {
        loop {
            sleep(Duration::from_millis(1)).await;
            drop(fixture.ask(0));
            fixture.hub.restart(at(fixture.inner().id(), 3 * PAGE));
        }
    };
    tokio::select! {
        _ = fixture.page(0) => {}
        () = publishing => {}
    }
    assert_eq!(begun.elapsed(), takes);
}

#[tokio::test(start_paused = true)]
async fn errors_reach_all_whom_the_reader_serves_and_nobody_else() {
    let fixture = Fixture::new(3, NO_TIME);
    let old = fixture.inner().id();
    let waiting = [fixture.ask(3 * PAGE), fixture.ask(3 * PAGE + 1), fixture.ask(9 * PAGE)];
    settle().await;
    fixture.inner().replace();
    for told in join_all(waiting.map(answer)).await {
        assert!(matches!(told, Err(ReadError::Replaced)), "{told:?}");
    }
    // Who comes too late is told too; the new log is another place.
    fixture.inner().push(0, "new");
    let late = fixture.pool.ask(&at(old, 0));
    let (late, page) = tokio::join!(answer(late), fixture.page(0));
    assert!(matches!(late, Err(ReadError::Replaced)), "{late:?}");
    assert_eq!(page.records.len(), 1);

    // Not by those who wait at the end already.
    sleep(IDLE + TURN).await;
    let why = ReadError::Unavailable("on purpose".into());
    *fixture.log.0.failing.lock().unwrap() = Some(why.clone());
    let before = fixture.opened();
    let asked = [fixture.ask(1), fixture.ask(1), fixture.ask(9000)];
    for told in join_all(asked.map(answer)).await {
        assert!(matches!(&told, Err(error) if *error == why), "{told:?}");
    }
    *fixture.log.0.failing.lock().unwrap() = None;
    fixture.page(0).await;
    assert!(fixture.opened() > before, "with a new reader");
    assert_eq!(fixture.gauges.waiting.get(), 0);
}
