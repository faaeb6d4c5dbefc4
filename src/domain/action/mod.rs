//! The actions: what callers send, checked and turned into payloads.
//!
//! A [`Submission`] is a request as it came; a [`Request`] one whose shape is
//! right. Shape is what can be judged without the catalogue. The two steps are
//! apart because a retry is recognised between them: a retry of a success has to
//! succeed even when the catalogue has changed since.
//!
//! What is one action's own is in a file of its own, as a [`Deed`]. This one knows what all
//! of them have in common. `docs/add-an-action.md` shows how to add one.

mod consume_item;
mod grant_item;
mod join_guild;
mod leave_guild;
mod purchase_item;
mod refund_purchase;
mod start_session;

use std::borrow::Cow;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::catalog::{Catalog, Item};
use super::event;
use super::ids::{ItemId, MAX_TEXT_BYTES, PlayerId, RequestId, check_text};
use super::possessions::{Possessions, Terms};
use super::violation::Violations;
use crate::proto::{self, game_event::Payload};

use consume_item::ConsumeItem;
use grant_item::GrantItem;
use join_guild::JoinGuild;
use leave_guild::LeaveGuild;
use purchase_item::PurchaseItem;
use refund_purchase::RefundPurchase;
use start_session::StartSession;

/// The most of one item that one action may move.
pub(super) const MAX_QUANTITY: i32 = 1_000_000;

/// What the catalogue has against an item or a guild that is not in it.
const NOT_IN_CATALOG: &str = "not in the catalogue; GetCatalog lists what is";

/// What is one action's own.
trait Deed {
    /// The type of the event that it writes.
    fn event_type(&self) -> &'static str;

    /// Notes what the catalogue has against it.
    fn check(&self, _: &Catalog, _: &mut Violations) {}

    /// Notes what the player's possessions have against it; returns what the server adds, which
    /// counts only when nothing was noted here or in `check`.
    fn decide(&self, _: &Catalog, _: &dyn Possessions, _: &mut Violations) -> Terms {
        Terms::None
    }

    /// The payload of its event.
    fn payload(&self, event_id: Uuid, terms: &Terms) -> Payload;

    /// Names the fields that the client chose and their values, in the order of their tags.
    fn content(&self, _field: &mut dyn FnMut(&str, &str)) {}
}

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident($request:ident),)*) => {
        /// What is to be done.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Action {
            $($(#[$doc])* $name($name),)*
        }

        impl Action {
            fn deed(&self) -> &dyn Deed {
                match self {
                    $(Self::$name(deed) => deed,)*
                }
            }
        }

        $(impl From<proto::$request> for Submission {
            fn from(mut request: proto::$request) -> Self {
                let mut violations = Violations::default();
                Self {
                    method: stringify!($name),
                    request_id: std::mem::take(&mut request.request_id),
                    player_id: std::mem::take(&mut request.player_id),
                    validate_only: request.validate_only,
                    client_context: request.client_context.take(),
                    action: $name::read(request, &mut violations).map(Action::$name),
                    violations,
                }
            }
        })*
    };
}

// Each is a type with a `read`, which takes the fields of its own off a request and notes what
// is wrong with them. `None`, when too little is right to ask the catalogue.
actions! {
    /// Start a play session.
    StartSession(StartSessionRequest),
    /// Buy some of an item.
    PurchaseItem(PurchaseItemRequest),
    /// Join a guild.
    JoinGuild(JoinGuildRequest),
    /// Leave the guild that one is in.
    LeaveGuild(LeaveGuildRequest),
    /// Be given some of an item for nothing.
    GrantItem(GrantItemRequest),
    /// Use up some of an item.
    ConsumeItem(ConsumeItemRequest),
    /// Give back what was bought.
    RefundPurchase(RefundPurchaseRequest),
}

/// An action as it was sent.
#[derive(Clone, Debug)]
pub struct Submission {
    method: &'static str,
    request_id: String,
    player_id: String,
    validate_only: bool,
    client_context: Option<proto::ClientContext>,
    action: Option<Action>,
    /// What is wrong with the fields of the action's own.
    violations: Violations,
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
        violations.append(self.violations);
        match (request_id, player_id, self.action) {
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
                    action.deed().check(catalog, &mut violations);
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

/// An item and how many of it; one when nothing is said.
fn read_quantity(
    item_id: String,
    quantity: Option<i32>,
    violations: &mut Violations,
) -> Option<(ItemId, i32)> {
    let item = violations.take("item_id", ItemId::parse(item_id));
    let quantity = violations.take("quantity", check_quantity(quantity.unwrap_or(1)));
    // The catalogue is not asked for the quantity, so the item can still be looked up.
    Some((item?, quantity.unwrap_or(1)))
}

/// Notes when a player would have more of an item than the catalogue lets one have.
fn check_room(
    item: &Item,
    player: &dyn Possessions,
    (id, quantity): (&ItemId, i32),
    violations: &mut Violations,
) {
    let Some(max) = item.max_per_player else { return };
    let has = player.most(id);
    if has.saturating_add(quantity.into()) > max {
        let reason = format!("a player may have at most {max} of it, and this one has {has}");
        violations.add("quantity", reason);
    }
}

fn check_quantity(quantity: i32) -> Result<i32, Cow<'static, str>> {
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
        self.deed().event_type()
    }

    /// What the server adds to the action.
    ///
    /// # Errors
    ///
    /// What the catalogue, or what the player has, speaks against it.
    pub fn decide(&self, catalog: &Catalog, player: &dyn Possessions) -> Result<Terms, Violations> {
        let mut violations = Violations::default();
        self.deed().check(catalog, &mut violations);
        let terms = self.deed().decide(catalog, player, &mut violations);
        if violations.is_empty() { Ok(terms) } else { Err(violations) }
    }

    /// The payload of the event. The same for a retry, which is given the first terms.
    pub fn payload(&self, event_id: Uuid, terms: &Terms) -> Payload {
        self.deed().payload(event_id, terms)
    }

    /// SHA-256 over the fields that the client chose, and over nothing that the
    /// server added, so that it can be computed again from the stored event: for
    /// each field in the order of its tag, its name and its value, each preceded by
    /// its length in bytes (32 bits, big endian); numbers in decimal, UUIDs in lower case with
    /// hyphens.
    pub fn content_hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        self.deed().content(&mut |name, value| {
            for part in [name, value] {
                hash.update(event::length_prefix(part));
                hash.update(part);
            }
        });
        hash.finalize().into()
    }
}

#[cfg(test)]
mod tests;
