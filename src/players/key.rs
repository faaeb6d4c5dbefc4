//! By what a player is found.

use std::hash::{BuildHasher as _, RandomState};

use super::SHARDS;

/// The hash of a player's id: made once a call and once an event, for all tables. Keyed:
/// nobody outside can make those of two players collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PlayerHash(u64);

impl PlayerHash {
    pub fn of(hasher: &RandomState, player_id: &str) -> Self {
        Self(hasher.hash_one(player_id))
    }

    /// For a table.
    pub fn value(self) -> u64 {
        self.0
    }

    /// The shard that the player is in: by bits that tables do not use.
    pub fn shard(self) -> usize {
        (self.0 >> 32) as usize % SHARDS
    }
}

/// A player's id with its hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlayerKey<'a> {
    pub id: &'a str,
    pub hash: PlayerHash,
}

impl<'a> PlayerKey<'a> {
    pub fn new(hasher: &RandomState, id: &'a str) -> Self {
        Self { id, hash: PlayerHash::of(hasher, id) }
    }
}
