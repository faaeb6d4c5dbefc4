//! What each player has.

use uuid::Uuid;

use super::fact::Fact;
use crate::domain::{Nothing, Possessions};
use crate::proto::game_event::Payload;

/// The players of a shard.
#[derive(Default)]
pub(super) struct People {}

impl People {
    /// Takes in an event.
    pub fn apply(&mut self, _fact: &Fact) {}

    /// What a player has, with what is under way counted against the player.
    pub fn standing(&self, _player_id: &str) -> impl Possessions + '_ {
        Nothing
    }

    /// Counts an event that is under way; anew, when it was counted before.
    pub fn reserve(&mut self, _player_id: &str, _event_id: Uuid, _payload: &Payload) {}

    /// Stops counting an event that is known not to be written.
    pub fn release(&mut self, _player_id: &str, _event_id: Uuid) {}
}
