//! `GrantItem`.

use uuid::Uuid;

use super::{Deed, NOT_IN_CATALOG, Violations, check_room, read_quantity};
use crate::domain::ids::{MAX_TEXT_BYTES, check_text};
use crate::domain::{Catalog, ItemId, Possessions, Terms};
use crate::proto::{self, game_event::Payload};

/// Be given some of an item for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantItem {
    item: ItemId,
    quantity: i32,
    /// May be empty.
    reason: String,
}

impl GrantItem {
    pub(super) fn read(
        request: proto::GrantItemRequest,
        violations: &mut Violations,
    ) -> Option<Self> {
        let item = read_quantity(request.item_id, request.quantity, violations);
        violations.take("reason", check_text(&request.reason, MAX_TEXT_BYTES));
        let (item, quantity) = item?;
        Some(Self { item, quantity, reason: request.reason })
    }
}

impl Deed for GrantItem {
    fn event_type(&self) -> &'static str {
        "item_granted"
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
        if let Some(item) = catalog.item(&self.item) {
            check_room(item, player, (&self.item, self.quantity), violations);
        }
        Terms::None
    }

    fn payload(&self, _: Uuid, _: &Terms) -> Payload {
        Payload::ItemGranted(proto::ItemGranted {
            item_id: self.item.as_str().to_owned(),
            quantity: self.quantity,
            reason: self.reason.clone(),
        })
    }

    fn content(&self, field: &mut dyn FnMut(&str, &str)) {
        field("item_id", self.item.as_str());
        field("quantity", &self.quantity.to_string());
        field("reason", &self.reason);
    }
}
