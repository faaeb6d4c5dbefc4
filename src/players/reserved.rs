//! What is under way: actions that are being appended, counted against their players.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::key::PlayerHash;
use super::names::{Names, Offer, Texts};
use crate::clock::Timestamp;
use crate::proto::game_event::Payload;

/// How long an action counts once the log has answered, or has given its record up, when its
/// event is not read from the log: far longer than either takes to appear there. While the log
/// still has the record, it counts however long that takes.
pub(super) const RESERVATION_AGE: Duration = Duration::from_secs(60);

/// The actions under way of a shard's players. They are as few as the log's queue is long, and
/// those that the log has answered and that do not appear are forgotten after
/// [`RESERVATION_AGE`].
#[derive(Default)]
pub(super) struct Reserved {
    /// By player, of whom the hash is enough, so that there is nothing to allocate, and by event
    /// id. Two players with one hash, should there ever be any, are bounded together.
    under_way: BTreeMap<(PlayerHash, Uuid), Action>,
    /// How many were ever added.
    added: u64,
    /// When those that are too old were forgotten last.
    swept: Timestamp,
}

/// An action.
struct Action {
    /// In the order in which they were handed to the log.
    number: u64,
    stage: Stage,
    change: Change,
}

/// How far an action has come.
enum Stage {
    /// The log has its record.
    UnderWay,
    /// Its event is written, since then, and only has to be read.
    Written(Timestamp),
    /// The log has given no answer, since then.
    Unknown(Timestamp),
}

/// What it changes.
enum Change {
    /// With its offer when it is a purchase.
    Adds {
        item: u32,
        quantity: i64,
        offer: Option<u32>,
    },
    Takes {
        item: u32,
        quantity: i64,
        refunds: Option<Uuid>,
    },
    Joins(Arc<str>),
    Leaves(Arc<str>),
}

impl Reserved {
    /// Adds an action, if it changes what a player has.
    pub fn add(
        &mut self,
        player: PlayerHash,
        event_id: Uuid,
        payload: &Payload,
        texts: &mut Texts,
        offers: &mut Names<Offer>,
        now: Timestamp,
    ) {
        let mut takes = |item: &str, quantity: i32, refunds| Change::Takes {
            item: texts.number(item),
            quantity: quantity.into(),
            refunds,
        };
        let change = match payload {
            Payload::ItemConsumed(used) => takes(&used.item_id, used.quantity, None),
            Payload::PurchaseRefunded(refund) => {
                let refunds = Uuid::try_parse(&refund.purchase_event_id).ok();
                takes(&refund.item_id, refund.quantity, refunds)
            }
            Payload::ItemPurchased(bought) => {
                let offer = Offer::of(bought, texts);
                let (item, quantity) = (offer.item, bought.quantity.into());
                Change::Adds { item, quantity, offer: Some(offers.number(&offer)) }
            }
            Payload::ItemGranted(given) => Change::Adds {
                item: texts.number(given.item_id.as_str()),
                quantity: given.quantity.into(),
                offer: None,
            },
            Payload::GuildJoined(joined) => Change::Joins(joined.guild_id.as_str().into()),
            Payload::GuildLeft(left) => Change::Leaves(left.guild_id.as_str().into()),
            Payload::SessionStarted(_) | Payload::RequestRejected(_) => return,
        };
        if now.minus(RESERVATION_AGE) >= self.swept {
            self.under_way.retain(|_, action| action.is_live(now));
            self.swept = now;
        }
        self.added += 1;
        let action = Action { number: self.added, stage: Stage::UnderWay, change };
        self.under_way.insert((player, event_id), action);
    }

    /// Notes that the event of an action is written, if the action is there.
    pub fn written(&mut self, player: PlayerHash, event_id: Uuid, now: Timestamp) {
        if let Some(action) = self.under_way.get_mut(&(player, event_id)) {
            action.stage = Stage::Written(now);
        }
    }

    /// Notes that the log has said nothing of an action's event, if the action is there.
    pub fn unanswered(&mut self, player: PlayerHash, event_id: Uuid, now: Timestamp) {
        if let Some(action) = self.under_way.get_mut(&(player, event_id)) {
            action.stage = Stage::Unknown(now);
        }
    }

    /// Drops an action, if it is there.
    pub fn remove(&mut self, player: PlayerHash, event_id: Uuid) {
        self.under_way.remove(&(player, event_id));
    }

    /// How many of an item a player gets or loses, once all has ended well.
    pub fn change(&self, player: PlayerHash, item: u32, now: Timestamp) -> i64 {
        self.of(player, now).map(|action| action.adds(item) - action.takes(item)).sum()
    }

    /// How many of an item a player may get.
    pub fn coming(&self, player: PlayerHash, item: u32, now: Timestamp) -> i64 {
        self.of(player, now).map(|action| action.adds(item)).sum()
    }

    /// How many of them the player surely gets: those whose event is written.
    pub fn written_to_come(&self, player: PlayerHash, item: u32, now: Timestamp) -> i64 {
        let written = self.of(player, now).filter(|action| action.is_written());
        written.map(|action| action.adds(item)).sum()
    }

    /// How many of an item a player may lose.
    pub fn going(&self, player: PlayerHash, item: u32, now: Timestamp) -> i64 {
        self.of(player, now).map(|action| action.takes(item)).sum()
    }

    /// The offer and the quantity of a purchase that is written.
    pub fn bought(&self, player: PlayerHash, purchase: Uuid, now: Timestamp) -> Option<(u32, i64)> {
        let action = self.under_way.get(&(player, purchase))?;
        if !action.is_live(now) {
            return None;
        }
        match action.change {
            Change::Adds { quantity, offer: Some(offer), .. } if action.is_written() => {
                Some((offer, quantity))
            }
            _ => None,
        }
    }

    /// Whether a purchase is being refunded.
    pub fn refunds(&self, player: PlayerHash, purchase: Uuid, now: Timestamp) -> bool {
        self.of(player, now).any(|action| {
            matches!(action.change, Change::Takes { refunds, .. } if refunds == Some(purchase))
        })
    }

    /// The guild that a player who is in `guild` will be in.
    pub fn guild<'a>(
        &'a self,
        player: PlayerHash,
        guild: Option<&'a str>,
        now: Timestamp,
    ) -> Option<&'a str> {
        let joins = self.of(player, now).filter_map(|action| match &action.change {
            Change::Joins(guild) => Some((action.number, Some(&**guild))),
            _ => None,
        });
        let (number, guild) = joins.max_by_key(|(number, _)| *number).unwrap_or((0, guild));
        let left = self.of(player, now).any(|action| {
            let leaves = matches!(&action.change, Change::Leaves(left) if Some(&**left) == guild);
            leaves && action.number > number
        });
        guild.filter(|_| !left)
    }

    fn of(&self, player: PlayerHash, now: Timestamp) -> impl Iterator<Item = &Action> {
        let all = self.under_way.range((player, Uuid::nil())..=(player, Uuid::max()));
        all.map(|(_, action)| action).filter(move |action| action.is_live(now))
    }
}

impl Action {
    /// How many of an item it adds.
    fn adds(&self, item: u32) -> i64 {
        match self.change {
            Change::Adds { item: other, quantity, .. } if other == item => quantity,
            _ => 0,
        }
    }

    /// How many of an item it takes.
    fn takes(&self, item: u32) -> i64 {
        match self.change {
            Change::Takes { item: other, quantity, .. } if other == item => quantity,
            _ => 0,
        }
    }

    fn is_written(&self) -> bool {
        matches!(self.stage, Stage::Written(_))
    }

    fn is_live(&self, now: Timestamp) -> bool {
        match self.stage {
            Stage::UnderWay => true,
            Stage::Written(since) | Stage::Unknown(since) => since > now.minus(RESERVATION_AGE),
        }
    }
}
