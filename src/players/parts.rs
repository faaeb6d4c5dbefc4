//! Players to parts of a snapshot and back.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::names::Offer;
use super::people::{People, Player, Stack};
use super::purchases::{Bought, Purchases};
use super::snapshot::{OfferEntry, Part, PlayerEntry};
use crate::clock::Timestamp;

impl People {
    /// The ids of all players.
    pub fn ids(&self) -> Vec<Arc<str>> {
        self.players.iter().map(|entry| Arc::clone(&entry.id)).collect()
    }

    /// Some players, as they are now.
    pub fn write_down(&self, ids: &[Arc<str>]) -> Part {
        let mut part = PartWriter::new(self);
        for key in ids.iter().map(|id| self.key(id)) {
            let Some(player) = self.find(key) else { continue };
            let entry = part.entry(key.id, player);
            part.part.players.push(entry);
        }
        part.part
    }

    /// Puts in a player of `part`; false when the entry is none, or there is the player already.
    pub fn read_back(&mut self, part: &Part, entry: &PlayerEntry) -> bool {
        let Some(player) = self.player_of(part, entry) else { return false };
        self.insert(self.key(&entry.player_id), player)
    }

    fn player_of(&mut self, part: &Part, entry: &PlayerEntry) -> Option<Player> {
        let purchases = entry.purchase_offers.len();
        let complete = entry.items.len() == entry.quantities.len()
            && entry.purchases.len() == purchases * size_of::<Uuid>()
            && entry.purchase_quantities.len() == purchases
            && entry.purchase_refunded.len() == purchases
            && !entry.player_id.is_empty();
        if !complete {
            return None;
        }
        let mut inventory = Vec::with_capacity(entry.items.len());
        for (item, quantity) in entry.items.iter().zip(&entry.quantities) {
            let item = self.texts.number(part.texts.get(*item as usize)?.as_str());
            inventory.push(Stack { item, quantity: *quantity });
        }
        inventory.sort_unstable_by_key(|stack| stack.item);
        let mut bought = Vec::with_capacity(purchases);
        for (at, id) in entry.purchases.chunks_exact(size_of::<Uuid>()).enumerate() {
            let offer = part.offers.get(entry.purchase_offers[at] as usize)?;
            let offer = Offer {
                item: self.texts.number(part.texts.get(offer.item as usize)?.as_str()),
                unit_price: offer.unit_price,
                currency: self.texts.number(part.texts.get(offer.currency as usize)?.as_str()),
            };
            bought.push(Bought {
                event_id: Uuid::from_slice(id).ok()?,
                offer: self.offers.number(&offer),
                quantity: entry.purchase_quantities[at],
                refunded: entry.purchase_refunded[at],
            });
        }
        let last_session = match &*entry.last_session {
            [] => Uuid::nil(),
            id => Uuid::from_slice(id).ok()?,
        };
        Some(Player {
            next_offset: entry.next_offset,
            first_seen: Timestamp::from_millis(entry.first_seen),
            last_seen: Timestamp::from_millis(entry.last_seen),
            sessions: entry.sessions,
            last_session,
            guild: Some(entry.guild.as_str()).filter(|id| !id.is_empty()).map(Arc::from),
            inventory,
            purchases: Purchases::read_back(bought)?,
        })
    }
}

/// A part in the making: the places in it of the shard's texts and offers.
struct PartWriter<'a> {
    people: &'a People,
    part: Part,
    texts: HashMap<u32, u32>,
    offers: HashMap<u32, u32>,
}

impl<'a> PartWriter<'a> {
    fn new(people: &'a People) -> Self {
        let (texts, offers) = (HashMap::new(), HashMap::new());
        Self { people, part: Part::default(), texts, offers }
    }

    fn text(&mut self, number: u32) -> u32 {
        let Self { people, part, texts, .. } = self;
        *texts.entry(number).or_insert_with(|| {
            part.texts.push(people.texts.value(number).as_ref().to_owned());
            part.texts.len() as u32 - 1
        })
    }

    fn offer(&mut self, number: u32) -> u32 {
        if let Some(place) = self.offers.get(&number) {
            return *place;
        }
        let offer = *self.people.offers.value(number);
        let (item, currency) = (self.text(offer.item), self.text(offer.currency));
        let place = self.part.offers.len() as u32;
        self.part.offers.push(OfferEntry { item, unit_price: offer.unit_price, currency });
        self.offers.insert(number, place);
        place
    }

    fn entry(&mut self, id: &str, player: &Player) -> PlayerEntry {
        let bought = &player.purchases;
        let session = Some(player.last_session).filter(|id| !id.is_nil());
        PlayerEntry {
            player_id: id.to_owned(),
            next_offset: player.next_offset,
            first_seen: player.first_seen.as_millis(),
            last_seen: player.last_seen.as_millis(),
            sessions: player.sessions,
            last_session: session.map(|id| id.as_bytes().to_vec()).unwrap_or_default(),
            guild: player.guild.as_deref().unwrap_or_default().to_owned(),
            items: player.inventory.iter().map(|stack| self.text(stack.item)).collect(),
            quantities: player.inventory.iter().map(|stack| stack.quantity).collect(),
            purchases: bought.iter().flat_map(|bought| *bought.event_id.as_bytes()).collect(),
            purchase_offers: bought.iter().map(|bought| self.offer(bought.offer)).collect(),
            purchase_quantities: bought.iter().map(|bought| bought.quantity).collect(),
            purchase_refunded: bought.iter().map(|bought| bought.refunded).collect(),
        }
    }
}
