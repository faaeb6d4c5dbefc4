//! Answers in one sentence, for people and scripts.

use prost::{DecodeError, Message as _};

use crate::proto::{
    EventReceipt, GetCatalogResponse, GetPlayerResponse, JoinGuildRequest, JoinGuildResponse,
    LeaveGuildRequest, LeaveGuildResponse, PurchaseItemResponse, StartSessionResponse,
};

/// Says what an answer says, from the encoded request and the encoded answer.
pub(super) type Words = fn(&[u8], &[u8]) -> Result<String, DecodeError>;

/// Without a receipt nothing was written.
fn done(receipt: Option<&EventReceipt>, what: String) -> String {
    if receipt.is_some() { what } else { format!("valid, nothing was written: {what}") }
}

pub(super) fn session(_: &[u8], answer: &[u8]) -> Result<String, DecodeError> {
    let answer = StartSessionResponse::decode(answer)?;
    let what = format!("started session {}", answer.session_id);
    Ok(done(answer.receipt.as_ref(), what.trim_end().to_owned()))
}

pub(super) fn purchase(_: &[u8], answer: &[u8]) -> Result<String, DecodeError> {
    let answer = PurchaseItemResponse::decode(answer)?;
    let bought = answer.purchase.unwrap_or_default();
    let what = format!("bought {} {}", bought.quantity, bought.item_id);
    Ok(done(answer.receipt.as_ref(), what))
}

pub(super) fn joined(request: &[u8], answer: &[u8]) -> Result<String, DecodeError> {
    let guild = JoinGuildRequest::decode(request)?.guild_id;
    let answer = JoinGuildResponse::decode(answer)?;
    Ok(done(answer.receipt.as_ref(), format!("joined {guild}")))
}

pub(super) fn left(request: &[u8], answer: &[u8]) -> Result<String, DecodeError> {
    let guild = LeaveGuildRequest::decode(request)?.guild_id;
    let answer = LeaveGuildResponse::decode(answer)?;
    Ok(done(answer.receipt.as_ref(), format!("left {guild}")))
}

pub(super) fn player(_: &[u8], answer: &[u8]) -> Result<String, DecodeError> {
    let player = GetPlayerResponse::decode(answer)?.player.unwrap_or_default();
    let items = player.inventory.iter().map(|item| format!("{} {}", item.quantity, item.item_id));
    let has = list(items, "nothing");
    let guild = if player.guild_id.is_empty() { "no guild" } else { &player.guild_id };
    Ok(format!("{} has {has} and is in {guild}", player.player_id))
}

pub(super) fn catalog(_: &[u8], answer: &[u8]) -> Result<String, DecodeError> {
    let catalog = GetCatalogResponse::decode(answer)?;
    let currency = &catalog.currency_code;
    let items = catalog.items.iter();
    let items = items.map(|item| format!("{} for {} {currency}", item.item_id, item.unit_price));
    let guilds = if catalog.guilds_open {
        "any guild".to_owned()
    } else {
        list(catalog.guild_ids.into_iter(), "no guild")
    };
    Ok(format!("to buy: {}; to join: {guilds}", list(items, "nothing")))
}

fn list(items: impl Iterator<Item = String>, none: &str) -> String {
    let text = items.collect::<Vec<_>>().join(", ");
    if text.is_empty() { none.to_owned() } else { text }
}
