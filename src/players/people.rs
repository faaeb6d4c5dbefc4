//! What each player has.

use super::fact::Fact;

/// The players of a shard.
#[derive(Default)]
pub(super) struct People {}

impl People {
    /// Takes in an event.
    pub fn apply(&mut self, _fact: &Fact) {}
}
