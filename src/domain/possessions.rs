//! What the rules ask of a player, and what they add to an action.

use std::sync::Arc;

use uuid::Uuid;

use super::ids::ItemId;
use crate::proto::game_event::Payload;

/// What a player has, as the rules see it. Actions that are under way count against the
/// player: what they may add counts for a bound, and what they may take is gone.
pub trait Possessions {
    /// The most of an item that the player may have once all that is under way has ended.
    fn most(&self, item: &ItemId) -> i64;

    /// What the player surely has of an item, whatever becomes of what is under way.
    fn least(&self, item: &ItemId) -> i64;

    /// The guild that the player is in, once all that is under way has ended well.
    fn guild(&self) -> Option<&str>;

    /// A purchase of the player's that can be refunded, by its event id.
    fn purchase(&self, event_id: Uuid) -> Option<Purchase>;
}

/// A player who has nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nothing;

impl Possessions for Nothing {
    fn most(&self, _: &ItemId) -> i64 {
        0
    }

    fn least(&self, _: &ItemId) -> i64 {
        0
    }

    fn guild(&self) -> Option<&str> {
        None
    }

    fn purchase(&self, _: Uuid) -> Option<Purchase> {
        None
    }
}

/// What the server adds to an action when it accepts it: all of an event's payload that the
/// client has not said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Terms {
    /// Nothing.
    None,
    /// The price of one.
    Price(Arc<Price>),
    /// What is taken back.
    Purchase(Purchase),
}

/// The price of one of an item.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Price {
    /// In minor units of the currency.
    pub unit_price: i64,
    /// The currency.
    pub currency_code: Arc<str>,
    /// The version of the catalogue that it is from.
    pub catalog_version: Arc<str>,
}

/// A purchase that was made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Purchase {
    /// What was bought.
    pub item_id: Arc<str>,
    /// How many.
    pub quantity: i32,
    /// The price of one.
    pub price: Arc<Price>,
}

impl Terms {
    /// The terms that a payload was made with.
    pub fn of(payload: &Payload) -> Self {
        match payload {
            Payload::ItemPurchased(bought) => Self::Price(Arc::new(Price {
                unit_price: bought.unit_price,
                currency_code: bought.currency_code.as_str().into(),
                catalog_version: bought.catalog_version.as_str().into(),
            })),
            Payload::PurchaseRefunded(refunded) => Self::Purchase(Purchase {
                item_id: refunded.item_id.as_str().into(),
                quantity: refunded.quantity,
                price: Arc::new(Price {
                    unit_price: refunded.unit_price,
                    currency_code: refunded.currency_code.as_str().into(),
                    catalog_version: Arc::default(),
                }),
            }),
            _ => Self::None,
        }
    }

    /// The price, where there is one.
    pub fn price(&self) -> Option<&Arc<Price>> {
        match self {
            Self::None => None,
            Self::Price(price) | Self::Purchase(Purchase { price, .. }) => Some(price),
        }
    }
}

/// The item that an event gives to its player or takes away, and how many (below zero when it
/// takes them).
pub fn item_change(payload: &Payload) -> Option<(&str, i64)> {
    match payload {
        Payload::ItemPurchased(e) => Some((&e.item_id, e.quantity.into())),
        Payload::ItemGranted(e) => Some((&e.item_id, e.quantity.into())),
        Payload::ItemConsumed(e) => Some((&e.item_id, -i64::from(e.quantity))),
        Payload::PurchaseRefunded(e) => Some((&e.item_id, -i64::from(e.quantity))),
        _ => None,
    }
}
