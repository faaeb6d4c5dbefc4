//! The actions: what callers send, checked and turned into payloads.
//!
//! A [`Submission`] is a request as it came; a [`Request`] one whose shape is
//! right. Shape is what can be judged without the catalogue. The two steps are
//! apart because a retry is recognised between them: a retry of a success has to
//! succeed even when the catalogue has changed since.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::catalog::Catalog;
use super::event;
use super::ids::{GuildId, ItemId, MAX_TEXT_BYTES, PlayerId, RequestId, check_text};
use super::possessions::{Possessions, Price, Terms};
use super::violation::Violations;
use crate::proto::{self, game_event::Payload};

/// The most of one item that one purchase may buy.
const MAX_QUANTITY: i32 = 1_000_000;

/// An action as it was sent.
#[derive(Clone, Debug)]
pub struct Submission {
    method: &'static str,
    request_id: String,
    player_id: String,
    validate_only: bool,
    client_context: Option<proto::ClientContext>,
    fields: Fields,
}

/// The fields of each action's own.
#[derive(Clone, Debug)]
enum Fields {
    StartSession,
    PurchaseItem { item_id: String, quantity: Option<i32> },
    JoinGuild { guild_id: String },
}

/// An action whose shape is right.
#[derive(Clone, Debug)]
pub struct Request {
    /// The caller's name for it, or a random one.
    pub request_id: RequestId,
    /// Who acts.
    pub player_id: PlayerId,
    /// Whether it is only to be checked.
    pub validate_only: bool,
    /// What the client said of itself.
    pub client_context: Option<proto::ClientContext>,
    /// What is to be done.
    pub action: Action,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a play session.
    StartSession,
    /// Buy some of an item.
    PurchaseItem {
        /// What.
        item: ItemId,
        /// How many: 1 to 1,000,000.
        quantity: i32,
    },
    /// Join a guild.
    JoinGuild {
        /// Which.
        guild: GuildId,
    },
}

macro_rules! submission {
    ($request:ident, $method:literal, |$r:ident| $fields:expr) => {
        impl From<proto::$request> for Submission {
            fn from($r: proto::$request) -> Self {
                Self {
                    method: $method,
                    fields: $fields,
                    request_id: $r.request_id,
                    player_id: $r.player_id,
                    validate_only: $r.validate_only,
                    client_context: $r.client_context,
                }
            }
        }
    };
}

submission!(StartSessionRequest, "StartSession", |r| Fields::StartSession);
submission!(PurchaseItemRequest, "PurchaseItem", |r| Fields::PurchaseItem {
    item_id: r.item_id,
    quantity: r.quantity,
});
submission!(JoinGuildRequest, "JoinGuild", |r| Fields::JoinGuild { guild_id: r.guild_id });

/// An action that is refused: what can be told and recorded of it.
#[derive(Debug)]
pub struct Refusal {
    /// Everything that is wrong.
    pub violations: Violations,
    /// Who wanted to act, when that much could be read.
    pub player_id: Option<PlayerId>,
    /// The caller's name for it, when there was a valid one.
    pub request_id: Option<RequestId>,
    /// What the client said of itself, when that was checked.
    pub client_context: Option<proto::ClientContext>,
    /// Whether it was only to be checked.
    pub validate_only: bool,
}

impl Submission {
    /// The RPC that was called.
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// Checks the shape. When it is wrong, the catalogue's violations are reported
    /// together with the shape's, so that a caller can mend all at once.
    #[allow(clippy::result_large_err, reason = "what is refused is as large as what is not")]
    pub fn parse(self, catalog: &Catalog) -> Result<Request, Refusal> {
        let mut violations = Violations::default();
        let request_id = match self.request_id.as_str() {
            "" => Some(None),
            text => violations.take("request_id", RequestId::parse(text)).map(Some),
        };
        let player_id = violations.take("player_id", PlayerId::parse(self.player_id));
        if let Some(context) = &self.client_context {
            check_context(context, &mut violations);
        }
        let action = self.fields.parse(&mut violations);
        match (request_id, player_id, action) {
            (Some(request_id), Some(player_id), Some(action)) if violations.is_empty() => {
                Ok(Request {
                    request_id: request_id.unwrap_or_else(RequestId::random),
                    player_id,
                    validate_only: self.validate_only,
                    client_context: self.client_context,
                    action,
                })
            }
            (request_id, player_id, action) => {
                if let Some(action) = action {
                    action.check_rules(catalog, &mut violations);
                }
                Err(Refusal {
                    violations,
                    player_id,
                    request_id: request_id.flatten(),
                    client_context: None,
                    validate_only: self.validate_only,
                })
            }
        }
    }
}

impl Fields {
    fn parse(self, violations: &mut Violations) -> Option<Action> {
        match self {
            Self::StartSession => Some(Action::StartSession),
            Self::PurchaseItem { item_id, quantity } => {
                let item = violations.take("item_id", ItemId::parse(item_id));
                let quantity = violations.take("quantity", check_quantity(quantity.unwrap_or(1)));
                Some(Action::PurchaseItem {
                    item: item?,
                    // The price does not depend on it, so the item can still be
                    // looked up.
                    quantity: quantity.unwrap_or(1),
                })
            }
            Self::JoinGuild { guild_id } => {
                let guild = violations.take("guild_id", GuildId::parse(guild_id))?;
                Some(Action::JoinGuild { guild })
            }
        }
    }
}

fn check_quantity(quantity: i32) -> Result<i32, std::borrow::Cow<'static, str>> {
    if (1..=MAX_QUANTITY).contains(&quantity) {
        Ok(quantity)
    } else {
        Err(format!("not in the range of 1 to {MAX_QUANTITY}").into())
    }
}

fn check_context(context: &proto::ClientContext, violations: &mut Violations) {
    for (field, text) in [
        ("client_context.session_id", &context.session_id),
        ("client_context.build_version", &context.build_version),
        ("client_context.platform", &context.platform),
    ] {
        violations.take(field, check_text(text, MAX_TEXT_BYTES));
    }
    if let Some(time) = &context.client_time {
        // The range of google.protobuf.Timestamp: years 1 to 9999.
        if !(-62_135_596_800..=253_402_300_799).contains(&time.seconds)
            || !(0..=999_999_999).contains(&time.nanos)
        {
            violations.add("client_context.client_time", "not a valid google.protobuf.Timestamp");
        }
    }
}

impl Request {
    /// The refusal of this request, for these reasons.
    pub fn refused(self, violations: Violations) -> Refusal {
        Refusal {
            violations,
            player_id: Some(self.player_id),
            request_id: Some(self.request_id),
            client_context: self.client_context,
            validate_only: self.validate_only,
        }
    }

    /// The id of the event that this request describes; the same for every retry.
    pub fn event_id(&self) -> Uuid {
        event::event_id(
            &self.player_id,
            self.request_id,
            self.action.event_type(),
            &self.action.content_hash(),
        )
    }
}

impl Action {
    /// The type of the event that this action writes.
    pub fn event_type(&self) -> &'static str {
        match self {
            Self::StartSession => "session_started",
            Self::PurchaseItem { .. } => "item_purchased",
            Self::JoinGuild { .. } => "guild_joined",
        }
    }

    /// Notes what the catalogue has against it.
    pub fn check_rules(&self, catalog: &Catalog, violations: &mut Violations) {
        match self {
            Self::StartSession => {}
            Self::PurchaseItem { item, .. } => {
                if catalog.price(item).is_none() {
                    violations.add("item_id", "not in the catalogue; GetCatalog lists what is");
                }
            }
            Self::JoinGuild { guild } => {
                if !catalog.has_guild(guild) {
                    violations.add("guild_id", "not in the catalogue; GetCatalog lists what is");
                }
            }
        }
    }

    /// What the server adds to the action.
    ///
    /// # Errors
    ///
    /// What the catalogue, or what the player has, speaks against it.
    pub fn decide(
        &self,
        catalog: &Catalog,
        _player: &dyn Possessions,
    ) -> Result<Terms, Violations> {
        let mut violations = Violations::default();
        self.check_rules(catalog, &mut violations);
        if !violations.is_empty() {
            return Err(violations);
        }
        Ok(match self {
            Self::StartSession | Self::JoinGuild { .. } => Terms::None,
            Self::PurchaseItem { item, .. } => Terms::Price(Price {
                unit_price: catalog.price(item).unwrap_or_default(),
                currency_code: catalog.currency().into(),
                catalog_version: catalog.version().into(),
            }),
        })
    }

    /// The payload of the event. The same for a retry, which is given the first terms.
    pub fn payload(&self, event_id: Uuid, terms: &Terms) -> Payload {
        match (self, terms) {
            (Self::StartSession, _) => {
                Payload::SessionStarted(proto::SessionStarted { session_id: event_id.to_string() })
            }
            (Self::PurchaseItem { item, quantity }, terms) => {
                let price = terms.price().cloned().unwrap_or_default();
                Payload::ItemPurchased(proto::ItemPurchased {
                    item_id: item.as_str().to_owned(),
                    quantity: *quantity,
                    unit_price: price.unit_price,
                    // Both are bounded: at most 10^6 times 10^12.
                    total_price: i64::from(*quantity) * price.unit_price,
                    currency_code: price.currency_code.as_ref().to_owned(),
                    catalog_version: price.catalog_version.as_ref().to_owned(),
                })
            }
            (Self::JoinGuild { guild }, _) => {
                Payload::GuildJoined(proto::GuildJoined { guild_id: guild.as_str().to_owned() })
            }
        }
    }

    /// SHA-256 over the fields that the client chose, and over nothing that the
    /// server added, so that it can be computed again from the stored event: for
    /// each field in the order of its tag, its name and its value, each preceded by
    /// its length in bytes (32 bits, big endian); numbers in decimal.
    pub fn content_hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut field = |name: &str, value: &str| {
            for part in [name, value] {
                hash.update(event::length_prefix(part));
                hash.update(part);
            }
        };
        match self {
            Self::StartSession => {}
            Self::PurchaseItem { item, quantity } => {
                field("item_id", item.as_str());
                field("quantity", &quantity.to_string());
            }
            Self::JoinGuild { guild } => field("guild_id", guild.as_str()),
        }
        hash.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Nothing;
    use super::*;

    fn purchase(player: &str, item: &str, quantity: Option<i32>) -> Submission {
        proto::PurchaseItemRequest {
            player_id: player.into(),
            item_id: item.into(),
            quantity,
            ..Default::default()
        }
        .into()
    }

    fn violations(submission: Submission) -> Vec<(String, String)> {
        let refusal = submission.parse(&Catalog::built_in()).unwrap_err();
        refusal.violations.into_vec().into_iter().map(|v| (v.field, v.description)).collect()
    }

    #[test]
    fn every_violation_of_shape_and_catalogue_is_reported_at_once() {
        let fields: Vec<_> =
            violations(purchase("", "hat", Some(0))).into_iter().map(|(f, _)| f).collect();
        assert_eq!(fields, ["player_id", "quantity", "item_id"]);
    }

    #[test]
    fn a_field_with_a_wrong_shape_is_named_once() {
        assert_eq!(violations(purchase("alice", "", None)), [("item_id".into(), "missing".into())]);
    }

    #[test]
    fn a_violation_never_repeats_the_value() {
        let evil = "\u{1b}[31mred";
        for (_, description) in violations(purchase(evil, evil, Some(-77))) {
            assert!(!description.contains("red") && !description.contains("77"), "{description}");
        }
    }

    #[test]
    fn quantities_have_a_range_and_one_is_the_default() {
        for quantity in [0, -1, i32::MIN, MAX_QUANTITY + 1, i32::MAX] {
            assert_eq!(violations(purchase("alice", "sword", Some(quantity))).len(), 1);
        }
        let request = purchase("alice", "sword", None).parse(&Catalog::built_in()).unwrap();
        assert_eq!(
            request.action,
            Action::PurchaseItem { item: ItemId::parse("sword".into()).unwrap(), quantity: 1 }
        );
    }

    #[test]
    fn the_price_is_the_catalogues() {
        let catalog = Catalog::built_in();
        let request = purchase("alice", "sword", Some(3)).parse(&catalog).unwrap();
        let terms = request.action.decide(&catalog, &Nothing).unwrap();
        let Payload::ItemPurchased(bought) = request.action.payload(request.event_id(), &terms)
        else {
            panic!("not a purchase")
        };
        assert_eq!((bought.unit_price, bought.total_price), (100, 300));
    }

    #[test]
    fn a_client_context_is_checked_too() {
        let submission: Submission = proto::JoinGuildRequest {
            player_id: "alice".into(),
            guild_id: "mascots".into(),
            client_context: Some(proto::ClientContext {
                client_time: Some(prost_types::Timestamp { seconds: 0, nanos: -1 }),
                session_id: "x\n".into(),
                build_version: "x".repeat(129),
                platform: "ok".into(),
            }),
            ..Default::default()
        }
        .into();
        let fields: Vec<_> = violations(submission).into_iter().map(|(f, _)| f).collect();
        assert_eq!(
            fields,
            [
                "client_context.session_id",
                "client_context.build_version",
                "client_context.client_time"
            ]
        );
    }
}
