//! Events and receipts in words, fit for a terminal whatever is in them.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::proto::game_event::Payload;
use crate::proto::{CatalogItem, EventReceipt, GameEvent, ItemPurchased, PurchaseRefunded};

/// Whether a terminal might obey a character instead of showing it: control
/// characters, and those that turn the direction of what follows or start a line.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text with its unsafe characters escaped.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) { safe.extend(c.escape_unicode()) } else { safe.push(c) }
    }
    Cow::Owned(safe)
}

/// An identifier, in quotes where it could be taken for something else: a player
/// may be called "alice bought 1 sword".
pub fn name(id: &str) -> Cow<'_, str> {
    let plain = |c: char| !is_unsafe(c) && !c.is_whitespace() && c != '"' && c != '\\';
    if !id.is_empty() && id.chars().all(plain) {
        return Cow::Borrowed(id);
    }
    let escaped = id.replace('\\', "\\\\").replace('"', "\\\"");
    Cow::Owned(format!("\"{}\"", printable(&escaped)))
}

/// An amount of money in its smallest coin, such as `100 gold`.
pub fn money(minor_units: i64, currency: &str) -> String {
    let mut text = minor_units.to_string();
    if !currency.is_empty() {
        let _ = write!(text, " {}", name(currency));
    }
    text
}

/// What was bought, such as `1 sword for 100 gold`.
pub fn purchase(purchase: &ItemPurchased) -> String {
    let price = money(purchase.total_price, &purchase.currency_code);
    format!("{} for {price}", items(purchase.quantity, &purchase.item_id))
}

/// How many of what, such as `2 horse`.
pub fn items(quantity: i32, item: &str) -> String {
    format!("{quantity} {}", name(item))
}

/// What was given back, such as `1 sword for 100 gold`.
pub fn refund(refund: &PurchaseRefunded) -> String {
    let price = money(refund.total_price, &refund.currency_code);
    format!("{} for {price}", items(refund.quantity, &refund.item_id))
}

/// The name of an item in the catalogue, and its rules.
pub fn catalog_item(item: &CatalogItem) -> String {
    let mut text = printable(&item.display_name).into_owned();
    if let Some(max) = item.max_per_player {
        let _ = write!(text, ", {max} a player");
    }
    if !item.requires_item_id.is_empty() {
        let _ = write!(text, ", needs {}", name(&item.requires_item_id));
    }
    text
}

/// What happened, without who did it.
pub fn payload(event: &GameEvent) -> String {
    match &event.payload {
        Some(Payload::SessionStarted(_)) => "started a session".to_owned(),
        Some(Payload::ItemPurchased(item)) => format!("bought {}", purchase(item)),
        Some(Payload::GuildJoined(joined)) => format!("joined {}", name(&joined.guild_id)),
        Some(Payload::GuildLeft(left)) => format!("left {}", name(&left.guild_id)),
        Some(Payload::ItemGranted(item)) => {
            format!("was given {}", items(item.quantity, &item.item_id))
        }
        Some(Payload::ItemConsumed(item)) => {
            format!("used up {}", items(item.quantity, &item.item_id))
        }
        Some(Payload::PurchaseRefunded(refunded)) => format!("gave back {}", refund(refunded)),
        Some(Payload::RequestRejected(rejected)) => {
            let mut text = format!("refused {}", name(&rejected.method));
            for (index, violation) in rejected.violations.iter().enumerate() {
                let _ = write!(
                    text,
                    "{} {}: {}",
                    if index == 0 { ":" } else { ";" },
                    printable(&violation.field),
                    printable(&violation.description)
                );
            }
            text
        }
        None => "of a kind that this build does not know".to_owned(),
    }
}

/// Where a receipt's event is.
pub fn receipt(receipt: &EventReceipt) -> String {
    format!(
        "event {}  partition {} offset {}{}",
        name(&receipt.event_id),
        receipt.partition,
        receipt.offset,
        if receipt.replayed { "  (written before)" } else { "" }
    )
}

/// A time in UTC to the millisecond, such as `2026-01-02T03:04:05.006Z`.
pub fn time(time: Option<&prost_types::Timestamp>) -> String {
    time.and_then(|time| jiff::Timestamp::new(time.seconds, time.nanos).ok())
        .map_or_else(|| "-".to_owned(), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{RequestRejected, Violation};

    #[test]
    fn a_hostile_id_reaches_the_terminal_as_text() {
        assert_eq!(name("alice"), "alice");
        assert_eq!(name("Åsa-☃"), "Åsa-☃");
        assert_eq!(name(""), r#""""#);
        assert_eq!(name("alice bought 1 sword"), r#""alice bought 1 sword""#);
        assert_eq!(name("a\"b\\"), r#""a\"b\\""#);
        assert_eq!(name("\u{1b}]0;x\u{7}"), r#""\u{1b}]0;x\u{7}""#);
        assert_eq!(name("\u{9b}2J"), r#""\u{9b}2J""#);
        assert_eq!(name("bob\u{202e}ecila"), r#""bob\u{202e}ecila""#);
        assert_eq!(printable("two\nlines"), r"two\u{a}lines");
    }

    #[test]
    fn events_in_words() {
        let bought = ItemPurchased {
            item_id: "sword".to_owned(),
            quantity: 3,
            unit_price: 100,
            total_price: 300,
            currency_code: "gold".to_owned(),
            catalog_version: String::new(),
        };
        let event = |payload| GameEvent { payload: Some(payload), ..Default::default() };
        assert_eq!(payload(&event(Payload::ItemPurchased(bought))), "bought 3 sword for 300 gold");
        let violation = |field: &str, description: &str| Violation {
            field: field.to_owned(),
            description: description.to_owned(),
        };
        let rejected = RequestRejected {
            method: "PurchaseItem".to_owned(),
            violations: vec![violation("item_id", "not sold"), violation("quantity", "below 1")],
        };
        assert_eq!(
            payload(&event(Payload::RequestRejected(rejected))),
            "refused PurchaseItem: item_id: not sold; quantity: below 1"
        );
        let mut saddle = CatalogItem { display_name: "Saddle".to_owned(), ..Default::default() };
        assert_eq!(catalog_item(&saddle), "Saddle");
        saddle.max_per_player = Some(2);
        saddle.requires_item_id = "war horse".to_owned();
        assert_eq!(catalog_item(&saddle), "Saddle, 2 a player, needs \"war horse\"");
        assert_eq!(money(100, "gold"), "100 gold");
        assert_eq!(money(i64::MIN, ""), "-9223372036854775808");
    }

    #[test]
    fn times_in_utc_to_the_millisecond() {
        let at = prost_types::Timestamp { seconds: 1_767_323_045, nanos: 6_000_000 };
        assert_eq!(time(Some(&at)), "2026-01-02T03:04:05.006Z");
        assert_eq!(time(None), "-");
    }
}
