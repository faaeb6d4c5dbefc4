//! Who is in which guild: the players' own state, the other way round.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Over how many locks guilds are spread.
const SHARDS: usize = 16;

/// The members of some guilds, by the guild's id. A guild without members is not kept.
type Members = HashMap<Arc<str>, BTreeSet<Arc<str>>>;

/// All guilds. Members are spread over the shards of players, so that guilds have locks of
/// their own; one of them may be taken under the lock of a player's shard, and never the other
/// way round.
pub(super) struct Guilds {
    hasher: RandomState,
    shards: Vec<Mutex<Members>>,
}

/// Some members of a guild.
pub(super) struct Page {
    /// In byte order.
    pub members: Vec<Arc<str>>,
    /// Whether there are others behind them.
    pub more: bool,
    /// How many members the guild has.
    pub total: usize,
}

impl Guilds {
    pub fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { hasher: RandomState::new(), shards }
    }

    /// Adds a member; returns the guild's id, which all members share.
    pub fn join(&self, guild: &str, player: &Arc<str>) -> Arc<str> {
        let mut shard = self.shard(guild);
        let id = shard.get_key_value(guild).map_or_else(|| guild.into(), |(id, _)| Arc::clone(id));
        shard.entry(Arc::clone(&id)).or_default().insert(Arc::clone(player));
        id
    }

    /// Takes a member out.
    pub fn leave(&self, guild: &str, player: &str) {
        let mut shard = self.shard(guild);
        if let Some(members) = shard.get_mut(guild) {
            members.remove(player);
            if members.is_empty() {
                shard.remove(guild);
            }
        }
    }

    /// The members behind `after`, `size` of them at the most.
    pub fn page(&self, guild: &str, after: Option<&str>, size: usize) -> Page {
        let shard = self.shard(guild);
        let Some(all) = shard.get(guild) else {
            return Page { members: Vec::new(), more: false, total: 0 };
        };
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut behind = all.range::<str, _>((after, Bound::Unbounded));
        let members = behind.by_ref().take(size).cloned().collect();
        Page { members, more: behind.next().is_some(), total: all.len() }
    }

    /// Forgets all of them.
    pub fn clear(&self) {
        for shard in &self.shards {
            *shard.lock().unwrap_or_else(PoisonError::into_inner) = Members::new();
        }
    }

    fn shard(&self, guild: &str) -> MutexGuard<'_, Members> {
        let number = self.hasher.hash_one(guild) as usize % self.shards.len();
        self.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
