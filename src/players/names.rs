//! Values that many players share, each kept once and named by a small number.

use std::borrow::Borrow;
use std::hash::Hash;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::proto::ItemPurchased;

/// Numbers for values, from 0 on. Only grows: what the catalogues of a game have ever held
/// bounds it, as clients cannot make up items or prices.
pub(super) struct Names<T> {
    numbers: HashMap<T, u32>,
    values: Vec<T>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), values: Vec::new() }
    }
}

impl<T: Clone + Eq + Hash> Names<T> {
    /// The number of a value, if it has one.
    pub fn find<Q: Eq + Hash + ?Sized>(&self, value: &Q) -> Option<u32>
    where
        T: Borrow<Q>,
    {
        self.numbers.get(value).copied()
    }

    /// The number of a value, which gets one if it has none.
    pub fn number<Q: Eq + Hash + ?Sized>(&mut self, value: &Q) -> u32
    where
        T: Borrow<Q> + for<'a> From<&'a Q>,
    {
        if let Some(number) = self.find(value) {
            return number;
        }
        let number = u32::try_from(self.values.len()).expect("fewer values than memory holds");
        let value = T::from(value);
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        number
    }

    /// The value of a number that this has given.
    pub fn value(&self, number: u32) -> &T {
        &self.values[number as usize]
    }
}

/// What was bought, and the price of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Offer {
    /// The number of the item's name.
    pub item: u32,
    /// In minor units of the currency.
    pub unit_price: i64,
    /// The number of the currency's name.
    pub currency: u32,
}

impl Offer {
    /// That of a purchase.
    pub fn of(bought: &ItemPurchased, texts: &mut Texts) -> Self {
        Self {
            item: texts.number(bought.item_id.as_str()),
            unit_price: bought.unit_price,
            currency: texts.number(bought.currency_code.as_str()),
        }
    }
}

impl From<&Self> for Offer {
    fn from(offer: &Self) -> Self {
        *offer
    }
}

/// The names of items and currencies.
pub(super) type Texts = Names<Arc<str>>;
