//! The one reader per process that fills the ring.

use std::time::Duration;

use super::Shared;
use super::hub::Batch;
use super::reader::READ_LIMITS;
use crate::event_log::{Position, ReadError};

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
    loop {
        let error = read(shared, &mut resume, &mut pause).await;
        if shared.closing.is_cancelled() {
            // The log goes before the tail; that it cannot be read then is no news.
            return std::future::pending().await;
        }
        shared.live.send_if_modified(|live| std::mem::replace(live, false));
        tracing::warn!(%error, "the tail of the log cannot be read; trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_PAUSES.1);
    }
}

/// Reads on from `resume`, or from near the end, until that fails.
async fn read(shared: &Shared, resume: &mut Option<Position>, pause: &mut Duration) -> ReadError {
    let from = match resume {
        Some(position) => position.clone(),
        None => match shared.log.bounds().await {
            Err(error) => return error,
            Ok(bounds) => bounds
                .end
                .iter()
                .map(|(partition, end)| {
                    end.saturating_sub(HEAD_START).max(bounds.start.get(partition))
                })
                .collect(),
        },
    };
    let mut reader = match shared.log.open_reader(from.clone()).await {
        Err(error) => return error,
        Ok(reader) => reader,
    };
    if resume.is_none() {
        shared.hub.restart(from);
    }
    shared.live.send_replace(true);
    loop {
        let before = reader.position().clone();
        match reader.next(READ_LIMITS).await {
            Err(error) => return error,
            Ok(read) => {
                *pause = RETRY_PAUSES.0;
                let batch = Batch::new(before, read);
                *resume = Some(batch.after.clone());
                shared.hub.publish(batch);
            }
        }
    }
}
