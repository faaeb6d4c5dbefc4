//! What each player has.
//!
//! A player takes some 450 bytes (`size_tests` measures it): names are kept once a shard, and
//! offers too, so that a purchase is its event id and two small numbers.

use std::hash::RandomState;
use std::sync::Arc;

use hashbrown::HashTable;
use prometheus_client::metrics::gauge::Gauge;
use uuid::Uuid;

use super::fact::Fact;
use super::guilds::Guilds;
use super::key::{PlayerHash, PlayerKey};
use super::names::{Names, Offer, Texts};
use super::purchases::{Bought, Purchases};
use super::reserved::Reserved;
use crate::clock::Timestamp;
use crate::domain::{ItemId, Possessions, Price, Purchase};
use crate::event_log::Offset;
use crate::proto::game_event::Payload;
use crate::proto::{self, InventoryItem};

/// The players of a shard.
pub(super) struct People {
    /// By the hash of the player's id.
    pub(super) players: HashTable<Entry>,
    /// The one that players are hashed with.
    hasher: RandomState,
    pub(super) texts: Texts,
    pub(super) offers: Names<Offer>,
    guilds: Arc<Guilds>,
    reserved: Reserved,
    /// How many players there are, over all shards.
    known: Gauge,
}

/// A player with its id.
pub(super) struct Entry {
    pub id: Arc<str>,
    pub player: Box<Player>,
}

/// A player.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Player {
    /// Behind the newest event that is in here, in the player's partition. An event before it
    /// is in already.
    pub next_offset: Offset,
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
    pub sessions: u64,
    /// Nil when there was none.
    pub last_session: Uuid,
    /// The guild index has the text.
    pub guild: Option<Arc<str>>,
    /// By the item's number; none of 0.
    pub inventory: Vec<Stack>,
    pub purchases: Purchases,
}

/// Some of one item.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stack {
    pub item: u32,
    pub quantity: i64,
}

impl Player {
    fn quantity(&self, item: u32) -> i64 {
        let found = self.inventory.binary_search_by_key(&item, |stack| stack.item);
        found.map_or(0, |at| self.inventory[at].quantity)
    }

    /// Adds some of an item, or takes some away, down to none at the most.
    fn add(&mut self, item: u32, quantity: i64) {
        match self.inventory.binary_search_by_key(&item, |stack| stack.item) {
            Ok(at) => {
                let stack = &mut self.inventory[at];
                stack.quantity = stack.quantity.saturating_add(quantity);
                if stack.quantity <= 0 {
                    self.inventory.remove(at);
                }
            }
            Err(at) if quantity > 0 => self.inventory.insert(at, Stack { item, quantity }),
            Err(_) => {}
        }
    }

    fn change_guild(&mut self, id: &Arc<str>, to: Option<&str>, guilds: &Guilds) {
        if self.guild.as_deref() == to {
            return;
        }
        if let Some(guild) = self.guild.take() {
            guilds.leave(&guild, id);
        }
        self.guild = to.map(|guild| guilds.join(guild, id));
    }
}

impl Entry {
    fn hash(&self, hasher: &RandomState) -> u64 {
        PlayerHash::of(hasher, &self.id).value()
    }
}

impl People {
    /// Nobody yet.
    pub fn new(guilds: Arc<Guilds>, known: Gauge, hasher: RandomState) -> Self {
        Self {
            players: HashTable::new(),
            hasher,
            texts: Texts::default(),
            offers: Names::default(),
            guilds,
            reserved: Reserved::default(),
            known,
        }
    }

    /// Takes in an event, unless it is in already, and drops what was reserved for it.
    pub fn apply(&mut self, hash: PlayerHash, fact: &Fact<'_>) {
        self.reserved.remove(hash, fact.event_id);
        let Self { players, hasher, texts, offers, guilds, known, .. } = self;
        let is_this = |entry: &Entry| *entry.id == *fact.player_id;
        let Entry { id, player } = match players.find_entry(hash.value(), is_this) {
            Ok(found) => {
                let entry = found.into_mut();
                if fact.offset < entry.player.next_offset {
                    return;
                }
                entry
            }
            Err(absent) => {
                known.inc();
                let player = Player { first_seen: fact.accept_time, ..Player::default() };
                let entry = Entry { id: fact.player_id.into(), player: Box::new(player) };
                let table = absent.into_table();
                table.insert_unique(hash.value(), entry, |entry| entry.hash(hasher)).into_mut()
            }
        };
        player.next_offset = fact.offset + 1;
        player.last_seen = fact.accept_time;
        match &fact.payload {
            Some(Payload::SessionStarted(_)) => {
                player.sessions = player.sessions.saturating_add(1);
                // A session's id is that of its event.
                player.last_session = fact.event_id;
            }
            Some(Payload::ItemPurchased(bought)) => {
                let offer = Offer::of(bought, texts);
                player.add(offer.item, bought.quantity.into());
                player.purchases.push(Bought {
                    event_id: fact.event_id,
                    offer: offers.number(&offer),
                    quantity: bought.quantity,
                    refunded: false,
                });
            }
            Some(Payload::ItemGranted(given)) => {
                player.add(texts.number(given.item_id.as_str()), given.quantity.into());
            }
            Some(Payload::ItemConsumed(used)) => {
                if let Some(item) = texts.find(used.item_id.as_str()) {
                    player.add(item, -i64::from(used.quantity));
                }
            }
            Some(Payload::PurchaseRefunded(refund)) => {
                let id = Uuid::try_parse(&refund.purchase_event_id).ok();
                let bought = id.and_then(|id| player.purchases.find_mut(id));
                // Two servers may have refunded it at the same time: it counts once, as far as
                // the purchase is remembered.
                let again = bought.is_some_and(|b| std::mem::replace(&mut b.refunded, true));
                if let Some(item) = texts.find(refund.item_id.as_str())
                    && !again
                {
                    player.add(item, -i64::from(refund.quantity));
                }
            }
            Some(Payload::GuildJoined(joined)) => {
                player.change_guild(id, Some(&joined.guild_id), guilds);
            }
            Some(Payload::GuildLeft(left)) => {
                if player.guild.as_deref() == Some(&*left.guild_id) {
                    player.change_guild(id, None, guilds);
                }
            }
            Some(Payload::RequestRejected(_)) | None => {}
        }
    }

    /// Puts a player in as it was written down, who is not there yet; false when there is one.
    pub(super) fn insert(&mut self, key: PlayerKey<'_>, mut player: Player) -> bool {
        if self.find(key).is_some() {
            return false;
        }
        let id = key.id.into();
        let guild = player.guild.take();
        player.guild = guild.map(|guild| self.guilds.join(&guild, &id));
        self.known.inc();
        let entry = Entry { id, player: Box::new(player) };
        let hash_of = |entry: &Entry| entry.hash(&self.hasher);
        self.players.insert_unique(key.hash.value(), entry, hash_of);
        true
    }

    /// By what a player is found.
    pub(super) fn key<'a>(&self, id: &'a str) -> PlayerKey<'a> {
        PlayerKey::new(&self.hasher, id)
    }

    /// A player; none when there was no event of it.
    pub(super) fn find(&self, key: PlayerKey<'_>) -> Option<&Player> {
        let found = self.players.find(key.hash.value(), |entry| *entry.id == *key.id)?;
        Some(&found.player)
    }

    /// What a player has, without `history_start_time`, and the offset behind the newest event
    /// that is in it; none when there was no event of the player.
    pub fn player(&self, key: PlayerKey<'_>) -> Option<(proto::Player, Offset)> {
        let player = self.find(key)?;
        let stacks = player.inventory.iter();
        let mut inventory: Vec<_> = stacks
            .map(|stack| InventoryItem {
                item_id: self.texts.value(stack.item).as_ref().to_owned(),
                quantity: stack.quantity,
            })
            .collect();
        inventory.sort_unstable_by(|a, b| a.item_id.cmp(&b.item_id));
        let session = Some(player.last_session).filter(|id| !id.is_nil());
        let state = proto::Player {
            player_id: key.id.to_owned(),
            guild_id: player.guild.as_deref().unwrap_or_default().to_owned(),
            inventory,
            session_count: i64::try_from(player.sessions).unwrap_or(i64::MAX),
            last_session_id: session.map(|id| id.to_string()).unwrap_or_default(),
            first_seen_time: Some(player.first_seen.into()),
            last_seen_time: Some(player.last_seen.into()),
            history_start_time: None,
        };
        Some((state, player.next_offset))
    }

    /// A player as the rules see it at the time `now`, with what is under way.
    pub fn standing(&self, key: PlayerKey<'_>, now: Timestamp) -> Standing<'_> {
        Standing { people: self, player: self.find(key), key: key.hash, now }
    }

    /// Counts an action that is about to be appended against the player: until its event is
    /// applied, it is released, or `RESERVATION_AGE` has passed since the log's answer.
    pub fn reserve(
        &mut self,
        player: PlayerHash,
        event_id: Uuid,
        payload: &Payload,
        now: Timestamp,
    ) {
        let Self { reserved, texts, offers, .. } = self;
        reserved.add(player, event_id, payload, texts, offers, now);
    }

    /// Says that an event for which something was reserved is written: what it adds is the
    /// player's, also before it is applied.
    pub fn written(&mut self, player: PlayerHash, event_id: Uuid, now: Timestamp) {
        self.reserved.written(player, event_id, now);
    }

    /// Says that nobody knows whether an event is written for which something was reserved.
    pub fn unanswered(&mut self, player: PlayerHash, event_id: Uuid, now: Timestamp) {
        self.reserved.unanswered(player, event_id, now);
    }

    /// Takes back what was reserved for an event that is known not to be written.
    pub fn release(&mut self, player: PlayerHash, event_id: Uuid) {
        self.reserved.remove(player, event_id);
    }
}

/// A player as the rules see it.
pub(super) struct Standing<'a> {
    people: &'a People,
    player: Option<&'a Player>,
    key: PlayerHash,
    now: Timestamp,
}

impl Standing<'_> {
    /// How many of an item the player has once all that is under way has ended well.
    pub fn owned(&self, item: &str) -> i64 {
        let Some(item) = self.people.texts.find(item) else { return 0 };
        let change = self.people.reserved.change(self.key, item, self.now);
        self.quantity(item).saturating_add(change).max(0)
    }

    fn quantity(&self, item: u32) -> i64 {
        self.player.map_or(0, |player| player.quantity(item))
    }
}

impl Possessions for Standing<'_> {
    fn most(&self, item: &ItemId) -> i64 {
        let Some(item) = self.people.texts.find(item.as_str()) else { return 0 };
        let coming = self.people.reserved.coming(self.key, item, self.now);
        self.quantity(item).saturating_add(coming)
    }

    fn least(&self, item: &ItemId) -> i64 {
        let Some(item) = self.people.texts.find(item.as_str()) else { return 0 };
        let coming = self.people.reserved.written_to_come(self.key, item, self.now);
        let going = self.people.reserved.going(self.key, item, self.now);
        self.quantity(item).saturating_add(coming).saturating_sub(going).max(0)
    }

    fn guild(&self) -> Option<&str> {
        let now = self.player.and_then(|player| player.guild.as_deref());
        self.people.reserved.guild(self.key, now, self.now)
    }

    fn purchase(&self, event_id: Uuid) -> Option<Purchase> {
        let reserved = &self.people.reserved;
        let (offer, quantity) = match self.player.and_then(|player| player.purchases.find(event_id))
        {
            Some(bought) if bought.refunded => return None,
            Some(bought) => (bought.offer, bought.quantity),
            None => {
                let (offer, quantity) = reserved.bought(self.key, event_id, self.now)?;
                (offer, i32::try_from(quantity).ok()?)
            }
        };
        if reserved.refunds(self.key, event_id, self.now) {
            return None;
        }
        let offer = self.people.offers.value(offer);
        Some(Purchase {
            item_id: Arc::clone(self.people.texts.value(offer.item)),
            quantity,
            price: Arc::new(Price {
                unit_price: offer.unit_price,
                currency_code: Arc::clone(self.people.texts.value(offer.currency)),
                // A refund does not name it.
                catalog_version: Arc::default(),
            }),
        })
    }
}
