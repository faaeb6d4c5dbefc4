//! `RefundPurchase`.

use uuid::Uuid;

use super::{Deed, Violations};
use crate::domain::{Catalog, ItemId, Possessions, Terms};
use crate::proto::{self, game_event::Payload};

/// The field that names the purchase, in violations and in what is hashed.
const FIELD: &str = "purchase_event_id";

/// Give back what was bought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundPurchase {
    purchase: Uuid,
}

impl RefundPurchase {
    pub(super) fn read(
        request: proto::RefundPurchaseRequest,
        violations: &mut Violations,
    ) -> Option<Self> {
        let purchase = match request.purchase_event_id.as_str() {
            "" => Err("missing".into()),
            text => Uuid::try_parse(text)
                .map_err(|_| "not a UUID; the receipt of the purchase has it as event_id".into()),
        };
        Some(Self { purchase: violations.take(FIELD, purchase)? })
    }
}

impl Deed for RefundPurchase {
    fn event_type(&self) -> &'static str {
        "purchase_refunded"
    }

    fn decide(&self, _: &Catalog, player: &dyn Possessions, violations: &mut Violations) -> Terms {
        let Some(purchase) = player.purchase(self.purchase) else {
            let reason = "not among the newest purchases of the player, or refunded before";
            violations.add(FIELD, reason);
            return Terms::None;
        };
        let item = ItemId::parse(purchase.item_id.as_ref().to_owned());
        if !item.is_ok_and(|item| player.least(&item) >= purchase.quantity.into()) {
            violations.add(FIELD, "the player no longer has all that was bought");
        }
        Terms::Purchase(purchase)
    }

    fn payload(&self, _: Uuid, terms: &Terms) -> Payload {
        let mut refunded = proto::PurchaseRefunded {
            purchase_event_id: self.purchase.to_string(),
            ..Default::default()
        };
        if let Terms::Purchase(purchase) = terms {
            refunded.item_id = purchase.item_id.as_ref().to_owned();
            refunded.quantity = purchase.quantity;
            refunded.unit_price = purchase.price.unit_price;
            // As bounded as they were in the purchase, which was read from the log.
            refunded.total_price =
                i64::from(purchase.quantity).saturating_mul(purchase.price.unit_price);
            refunded.currency_code = purchase.price.currency_code.as_ref().to_owned();
        }
        Payload::PurchaseRefunded(refunded)
    }

    fn content(&self, field: &mut dyn FnMut(&str, &str)) {
        field(FIELD, &self.purchase.to_string());
    }
}
