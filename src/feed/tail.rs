//! The one reader per process that fills the ring.

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::batch::Batch;
use super::place::Place;
use super::reader::READ_LIMITS;
use crate::clock::Timestamp;
use crate::event_log::{Position, ReadError};
use crate::history::{Reader, Verdict};

/// How many records before the end of the log the tail begins, in each partition, so
/// that subscribers who come back after a restart find their place in the ring.
const HEAD_START: u64 = 2_000;

/// The pauses between attempts to read a log that cannot be read: doubling from the
/// first up to the second.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Fills the ring for as long as it is polled.
pub(super) async fn run(shared: &Shared) {
    let mut pause = RETRY_PAUSES.0;
    let mut resume = None;
    let mut head_start = HEAD_START;
    let mut told = None;
    loop {
        let error = read(shared, &mut resume, head_start, &mut pause).await;
        if pause == RETRY_PAUSES.0 {
            // It could be read in between.
            told = None;
            head_start = HEAD_START;
        }
        if shared.closing.is_cancelled() {
            // The log goes before the tail; that it cannot be read then is no news.
            return std::future::pending().await;
        }
        shared.live.send_if_modified(|live| std::mem::replace(live, false));
        match error {
            ReadError::Replaced => {
                tracing::error!(
                    "the log was replaced by another one; its readers have to begin anew"
                );
                continue;
            }
            // What is missing does not come back: from its end on there is a feed again,
            // and who is before that reads the log, and is told.
            ReadError::Damaged(_) => {
                resume = None;
                head_start = 0;
            }
            ReadError::Unavailable(_) => {}
        }
        // One that stays the same is said once.
        if told.as_ref() == Some(&error) {
            tracing::debug!(%error, "the tail of the log still cannot be read");
        } else {
            tracing::warn!(%error, "the tail of the log cannot be read; trying again");
            told = Some(error);
        }
        let mut health = shared.log.health();
        health.mark_unchanged();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // What lets it be written again, as a rule lets it be read.
            Ok(()) = health.changed() => {}
        }
        pause = (pause * 2).min(RETRY_PAUSES.1);
    }
}

/// Reads on from `resume`, or from `head_start` records before the end, until that fails.
async fn read(
    shared: &Shared,
    resume: &mut Option<Arc<Place>>,
    head_start: u64,
    pause: &mut Duration,
) -> ReadError {
    let bounds = match shared.log.bounds().await {
        Err(error) => return error,
        Ok(bounds) => bounds,
    };
    let near_the_end = || {
        let ends = bounds.end.iter();
        ends.map(|(partition, end)| end.saturating_sub(head_start).max(bounds.start.get(partition)))
            .collect::<Position>()
    };
    resume.take_if(|place| place.log != bounds.log);
    let from = resume
        .clone()
        .unwrap_or_else(|| Arc::new(Place::new(bounds.log, near_the_end(), Timestamp::default())));
    let log = Arc::clone(&shared.log);
    let mut reader = match Reader::open_tail(log, bounds.log, from.position.clone()).await {
        Err(error) => return error,
        Ok(reader) => reader,
    };
    // What there is has to be read before it counts as live.
    let nothing_to_read = from.position.covers(&bounds.end);
    let mut before = from;
    if resume.is_none() {
        shared.hub.restart(Arc::clone(&before));
        *resume = Some(Arc::clone(&before));
    }
    shared.live.send_if_modified(|live| nothing_to_read && !std::mem::replace(live, true));
    loop {
        match reader.next(READ_LIMITS).await {
            Err(error) => return error,
            Ok(read) => {
                *pause = RETRY_PAUSES.0;
                let is_duplicate = |verdict: &&Verdict| **verdict == Verdict::Duplicate;
                let duplicates = read.verdicts.iter().filter(is_duplicate).count();
                shared.metrics.duplicates.inc_by(duplicates as u64);
                let batch = Batch::new(before, read);
                before = Arc::clone(&batch.after);
                *resume = Some(Arc::clone(&before));
                shared.hub.publish(batch);
                shared.live.send_if_modified(|live| !std::mem::replace(live, true));
            }
        }
    }
}
