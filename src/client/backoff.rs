//! How long to wait before trying again.

use std::time::Duration;

use uuid::Uuid;

/// The first wait: long enough for a restarted listener, too short to be noticed.
const FIRST: Duration = Duration::from_millis(250);

/// The longest wait: a reader is back this soon after an outage of any length.
pub const LONGEST: Duration = Duration::from_secs(15);

/// The longest wait that a server can ask for: none may put a client to sleep
/// for good.
pub const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// Waits that double from 250 ms to 15 s, each shortened by chance to between
/// half and all of it, so that readers who lost a server together do not come
/// back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(LONGEST);
        full.mul_f64(0.5 + 0.5 * chance())
    }

    /// The same, and at least as long as the server asks for, up to 5 minutes.
    pub fn next_delay_after(&mut self, asked: Option<Duration>) -> Duration {
        self.next_delay().max(asked.unwrap_or_default().min(LONGEST_ASKED))
    }

    /// Starts from the shortest wait again.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }
}

/// A number from 0 up to 1, by chance.
fn chance() -> f64 {
    // The last four bytes of a version 4 UUID are random.
    let [.., a, b, c, d] = Uuid::new_v4().into_bytes();
    f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_again_after_a_reset() {
        let mut backoff = Backoff::default();
        let mut full = FIRST;
        for _ in 0..20 {
            let delay = backoff.next_delay();
            assert!(delay >= full / 2 && delay <= full, "{delay:?} of {full:?}");
            full = (full * 2).min(LONGEST);
        }
        assert_eq!(full, LONGEST);
        backoff.reset();
        assert!(backoff.next_delay() <= FIRST);
    }

    #[test]
    fn a_server_can_ask_for_more_but_not_for_ever() {
        let asked = Duration::from_secs(20);
        assert_eq!(Backoff::default().next_delay_after(Some(asked)), asked);
        assert_eq!(Backoff::default().next_delay_after(Some(Duration::MAX)), LONGEST_ASKED);
        assert!(Backoff::default().next_delay_after(Some(Duration::ZERO)) >= FIRST / 2);
    }
}
