//! `PurchaseItem`.

use uuid::Uuid;

use super::{Deed, NOT_IN_CATALOG, Violations, check_room, read_quantity};
use crate::domain::{Catalog, ItemId, Possessions, Price, Terms};
use crate::proto::{self, game_event::Payload};

/// Buy some of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurchaseItem {
    item: ItemId,
    quantity: i32,
}

impl PurchaseItem {
    pub(super) fn read(
        request: proto::PurchaseItemRequest,
        violations: &mut Violations,
    ) -> Option<Self> {
        let (item, quantity) = read_quantity(request.item_id, request.quantity, violations)?;
        Some(Self { item, quantity })
    }
}

impl Deed for PurchaseItem {
    fn event_type(&self) -> &'static str {
        "item_purchased"
    }

    fn check(&self, catalog: &Catalog, violations: &mut Violations) {
        if catalog.item(&self.item).is_none() {
            violations.add("item_id", NOT_IN_CATALOG);
        }
    }

    fn decide(
        &self,
        catalog: &Catalog,
        player: &dyn Possessions,
        violations: &mut Violations,
    ) -> Terms {
        let Some(item) = catalog.item(&self.item) else { return Terms::None };
        check_room(item, player, (&self.item, self.quantity), violations);
        if let Some(required) = &item.requires
            && player.least(required) < 1
        {
            violations.add("item_id", format!("the player has to have {required} first"));
        }
        Terms::Price(item.price())
    }

    fn payload(&self, _: Uuid, terms: &Terms) -> Payload {
        let none = Price::default();
        let price = terms.price().map_or(&none, |price| price);
        Payload::ItemPurchased(proto::ItemPurchased {
            item_id: self.item.as_str().to_owned(),
            quantity: self.quantity,
            unit_price: price.unit_price,
            // Both are bounded: at most 10^6 times 10^12.
            total_price: i64::from(self.quantity) * price.unit_price,
            currency_code: price.currency_code.as_ref().to_owned(),
            catalog_version: price.catalog_version.as_ref().to_owned(),
        })
    }

    fn content(&self, field: &mut dyn FnMut(&str, &str)) {
        field("item_id", self.item.as_str());
        field("quantity", &self.quantity.to_string());
    }
}
