//! How many refused actions are recorded.

use std::sync::{Mutex, PoisonError};

use crate::clock::Timestamp;

/// A token bucket: as many tokens as may be spent in a second, refilled evenly, full
/// at the start. Recording must not let a client that sends nonsense fill the log.
pub(super) struct Rejections {
    per_second: u32,
    bucket: Mutex<Bucket>,
}

struct Bucket {
    /// In thousandths of a token, which is what a token a second yields in 1 ms.
    millitokens: u64,
    filled: Timestamp,
}

impl Rejections {
    pub fn new(per_second: u32) -> Self {
        let bucket =
            Bucket { millitokens: u64::from(per_second) * 1000, filled: Timestamp::default() };
        Self { per_second, bucket: Mutex::new(bucket) }
    }

    /// Whether one more may be recorded now.
    pub fn allow(&self, now: Timestamp) -> bool {
        let full = u64::from(self.per_second) * 1000;
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back refills nothing.
        let passed = u64::try_from(now.as_millis() - bucket.filled.as_millis()).unwrap_or(0);
        let gained = passed.saturating_mul(u64::from(self.per_second));
        bucket.millitokens = bucket.millitokens.saturating_add(gained).min(full);
        bucket.filled = now;
        let allowed = bucket.millitokens >= 1000;
        if allowed {
            bucket.millitokens -= 1000;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(rejections: &Rejections, millis: i64, tries: usize) -> usize {
        (0..tries).filter(|_| rejections.allow(Timestamp::from_millis(millis))).count()
    }

    #[test]
    fn a_burst_is_cut_off_and_the_rate_holds_afterwards() {
        let rejections = Rejections::new(10);
        assert_eq!(allowed(&rejections, 1_000_000, 100), 10);
        assert_eq!(allowed(&rejections, 1_000_100, 100), 1);
        assert_eq!(allowed(&rejections, 1_000_150, 100), 0);
        assert_eq!(allowed(&rejections, 1_000_200, 100), 1);
        assert_eq!(allowed(&rejections, 2_000_000, 100), 10);
    }

    #[test]
    fn a_clock_that_is_set_back_gives_nothing_away() {
        let rejections = Rejections::new(10);
        assert_eq!(allowed(&rejections, 1_000_000, 100), 10);
        assert_eq!(allowed(&rejections, 500_000, 100), 0);
    }

    #[test]
    fn zero_records_none() {
        assert_eq!(allowed(&Rejections::new(0), 1_000_000, 10), 0);
    }
}
