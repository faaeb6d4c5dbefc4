//! Which requests were carried out, as far back as they are remembered.

use super::Options;
use super::fact::Fact;
use crate::clock::Timestamp;

/// The requests of a shard.
#[derive(Default)]
pub(super) struct Requests {}

impl Requests {
    /// Takes in an event.
    pub fn apply(&mut self, _fact: &Fact, _options: &Options, _now: Timestamp) {}
}
