//! `ConsumeItem`.

use uuid::Uuid;

use super::{Deed, Violations, read_quantity};
use crate::domain::{Catalog, ItemId, Possessions, Terms};
use crate::proto::{self, game_event::Payload};

/// Use up some of an item, which need not be in the catalogue any longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumeItem {
    item: ItemId,
    quantity: i32,
}

impl ConsumeItem {
    pub(super) fn read(
        request: proto::ConsumeItemRequest,
        violations: &mut Violations,
    ) -> Option<Self> {
        let (item, quantity) = read_quantity(request.item_id, request.quantity, violations)?;
        Some(Self { item, quantity })
    }
}

impl Deed for ConsumeItem {
    fn event_type(&self) -> &'static str {
        "item_consumed"
    }

    fn decide(&self, _: &Catalog, player: &dyn Possessions, violations: &mut Violations) -> Terms {
        let has = player.least(&self.item).max(0);
        if has < self.quantity.into() {
            violations.add("quantity", format!("more than the player has, which is {has}"));
        }
        Terms::None
    }

    fn payload(&self, _: Uuid, _: &Terms) -> Payload {
        Payload::ItemConsumed(proto::ItemConsumed {
            item_id: self.item.as_str().to_owned(),
            quantity: self.quantity,
        })
    }

    fn content(&self, field: &mut dyn FnMut(&str, &str)) {
        field("item_id", self.item.as_str());
        field("quantity", &self.quantity.to_string());
    }
}
