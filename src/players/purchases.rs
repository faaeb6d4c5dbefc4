//! A player's newest purchases.

use uuid::Uuid;

/// How many of a player's purchases are remembered, and so can be refunded: the newest ones.
/// Source: the comment of `RefundPurchase` in `proto/game.proto`.
pub(super) const REFUNDABLE_PURCHASES: usize = 16;

/// A purchase.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bought {
    pub event_id: Uuid,
    pub offer: u32,
    pub quantity: i32,
    pub refunded: bool,
}

/// See the module; a ring, so that another one moves none of the others.
#[derive(Debug, Default)]
pub(super) struct Purchases {
    /// At most [`REFUNDABLE_PURCHASES`].
    ring: Vec<Bought>,
    /// Where the oldest one is.
    first: u8,
}

impl Purchases {
    /// These, the oldest first; none when they are too many.
    pub fn read_back(ring: Vec<Bought>) -> Option<Self> {
        (ring.len() <= REFUNDABLE_PURCHASES).then_some(Self { ring, first: 0 })
    }

    /// Adds one, in the place of the oldest if there are as many as there may be.
    pub fn push(&mut self, bought: Bought) {
        let first = usize::from(self.first);
        if self.ring.len() < REFUNDABLE_PURCHASES {
            self.ring.push(bought);
        } else {
            self.ring[first] = bought;
            self.first = ((first + 1) % REFUNDABLE_PURCHASES) as u8;
        }
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Bought> {
        let (newer, older) = self.ring.split_at(self.first.into());
        older.iter().chain(newer)
    }

    /// The oldest one with this event id; several have it where a request was repeated that
    /// nobody remembered.
    pub fn find(&self, event_id: Uuid) -> Option<&Bought> {
        self.iter().find(|bought| bought.event_id == event_id)
    }

    /// The same.
    pub fn find_mut(&mut self, event_id: Uuid) -> Option<&mut Bought> {
        let (newer, older) = self.ring.split_at_mut(self.first.into());
        older.iter_mut().chain(newer).find(|bought| bought.event_id == event_id)
    }
}

impl PartialEq for Purchases {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bought(number: u32) -> Bought {
        // Every fifth id is there twice.
        let event_id = Uuid::from_u128((number - number % 5 / 4).into());
        Bought { event_id, offer: number, quantity: 1, refunded: false }
    }

    #[test]
    fn the_newest_are_kept_and_read_back_in_their_order() {
        let (mut purchases, mut model) = (Purchases::default(), Vec::new());
        for number in 0..50 {
            purchases.push(bought(number));
            model.push(bought(number));
            if model.len() > REFUNDABLE_PURCHASES {
                model.remove(0);
            }
            if number % 3 == 0 {
                let id = bought(number / 2).event_id;
                let found = model.iter_mut().find(|bought| bought.event_id == id);
                let mine = purchases.find_mut(id);
                assert_eq!(mine, found);
                mine.into_iter().chain(found).for_each(|bought| bought.refunded = true);
            }
            assert!(purchases.iter().eq(&model));
            for bought in &model {
                let first = model.iter().find(|other| other.event_id == bought.event_id);
                assert_eq!(purchases.find(bought.event_id), first);
            }
            let mut read_back = Purchases::read_back(model.clone()).unwrap();
            assert_eq!(read_back, purchases);
            read_back.push(bought(1000));
            assert_ne!(read_back, purchases);
        }
        model.push(bought(1000));
        assert_eq!(Purchases::read_back(model), None);
    }
}
