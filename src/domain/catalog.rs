//! What can be bought and which guilds can be joined.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::ids::{GuildId, ItemId, check_text};
use super::possessions::Price;
use crate::proto;

/// The most items, and the most guilds, that a catalogue may list: GetCatalog
/// answers with all of them in one message of at most 4 MiB.
pub const MAX_CATALOG_ENTRIES: usize = 10_000;

/// The highest price: 10^12 minor units, so that the highest quantity (10^6) times
/// it stays below 2^63.
const MAX_PRICE: i64 = 1_000_000_000_000;

/// The default catalogue.
const BUILT_IN: &str = r#"
currency = "gold"

[[items]]
id = "sword"
name = "Sword"
price = 100

[[items]]
id = "knife"
name = "Knife"
price = 25

[[items]]
id = "shield"
name = "Shield"
price = 75

[[items]]
id = "horse"
name = "Horse"
price = 500
"#;

/// The form of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    currency: String,
    #[serde(default)]
    items: Vec<FileItem>,
    guilds: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileItem {
    id: String,
    name: String,
    price: i64,
    max_per_player: Option<i64>,
    requires_item: Option<String>,
}

/// Why a text is no catalogue: every reason, one a line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct CatalogError(pub Vec<String>);

/// A valid catalogue.
#[derive(Clone, Debug)]
pub struct Catalog {
    currency: Arc<str>,
    items: BTreeMap<ItemId, Item>,
    /// `None`: any guild can be joined.
    guilds: Option<BTreeSet<GuildId>>,
    version: Arc<str>,
}

/// What is known of an item.
#[derive(Clone, Debug)]
pub struct Item {
    name: String,
    price: Arc<Price>,
    /// The most of it that a player may have, if there is a bound; at least 1.
    pub max_per_player: Option<i64>,
    /// The item of this catalogue that a player has to have to buy it, if there is one.
    pub requires: Option<ItemId>,
}

impl Item {
    /// The price of one, shared by all that have it.
    pub fn price(&self) -> Arc<Price> {
        Arc::clone(&self.price)
    }
}

impl Catalog {
    /// The default: sword, knife, shield and horse; guilds open.
    pub fn built_in() -> Self {
        Self::parse(BUILT_IN).expect("the built-in catalogue is valid, as a test shows")
    }

    /// Reads a TOML text:
    ///
    /// ```toml
    /// currency = "gold"
    /// guilds = ["mascots"]     # leave out: any guild can be joined
    ///
    /// [[items]]
    /// id = "sword"             # 1 to 64 bytes, once only
    /// name = "Sword"
    /// price = 100              # minor units, 0 to 10^12
    /// max_per_player = 3       # at least 1; leave out: no bound
    /// requires_item = "belt"   # an item of this file; leave out: none
    /// ```
    ///
    /// # Errors
    ///
    /// All that is wrong with it, with the line where the form itself is wrong.
    pub fn parse(text: &str) -> Result<Self, CatalogError> {
        let file: File = toml::from_str(text)
            .map_err(|e| CatalogError(vec![e.to_string().trim_end().into()]))?;
        let mut errors = Vec::new();
        if file.currency.is_empty() {
            errors.push("currency: missing".to_owned());
        } else if let Err(reason) = check_text(&file.currency, 16) {
            errors.push(format!("currency: {reason}"));
        }
        for (what, count) in
            [("items", file.items.len()), ("guilds", file.guilds.as_ref().map_or(0, Vec::len))]
        {
            if count > MAX_CATALOG_ENTRIES {
                errors.push(format!("{what}: more than {MAX_CATALOG_ENTRIES}"));
            }
        }
        let mut items = BTreeMap::new();
        for (i, item) in file.items.into_iter().enumerate() {
            if let Err(reason) = check_text(&item.name, super::MAX_TEXT_BYTES) {
                errors.push(format!("items[{i}].name: {reason}"));
            }
            if !(0..=MAX_PRICE).contains(&item.price) {
                errors.push(format!("items[{i}].price: not in the range of 0 to {MAX_PRICE}"));
            }
            if item.max_per_player.is_some_and(|max| max < 1) {
                errors.push(format!("items[{i}].max_per_player: below 1; leave it out for none"));
            }
            let requires = item.requires_item.map(ItemId::parse).transpose();
            let requires = requires.unwrap_or_else(|reason| {
                errors.push(format!("items[{i}].requires_item: {reason}"));
                None
            });
            match ItemId::parse(item.id) {
                Err(reason) => errors.push(format!("items[{i}].id: {reason}")),
                Ok(id) => {
                    let FileItem { name, price, max_per_player, .. } = item;
                    // Its version is known once all is.
                    let price = Price { unit_price: price, ..Price::default() };
                    let entry = Item { name, price: price.into(), max_per_player, requires };
                    if items.insert(id, entry).is_some() {
                        errors.push(format!("items[{i}].id: listed before"));
                    }
                }
            }
        }
        check_requirements(&items, &mut errors);
        let guilds = file.guilds.map(|names| {
            let mut guilds = BTreeSet::new();
            for (i, name) in names.into_iter().enumerate() {
                match GuildId::parse(name) {
                    Err(reason) => errors.push(format!("guilds[{i}]: {reason}")),
                    Ok(id) => {
                        if !guilds.insert(id) {
                            errors.push(format!("guilds[{i}]: listed before"));
                        }
                    }
                }
            }
            guilds
        });
        if !errors.is_empty() {
            return Err(CatalogError(errors));
        }
        let version = version_of(&file.currency, &items, guilds.as_ref());
        let (currency, version) = (Arc::from(file.currency), Arc::from(version));
        for item in items.values_mut() {
            let unit_price = item.price.unit_price;
            let (currency_code, catalog_version) = (Arc::clone(&currency), Arc::clone(&version));
            item.price = Arc::new(Price { unit_price, currency_code, catalog_version });
        }
        Ok(Self { currency, items, guilds, version })
    }

    /// What is known of an item, if it can be bought.
    pub fn item(&self, id: &ItemId) -> Option<&Item> {
        self.items.get(id)
    }

    /// Whether a guild can be joined.
    pub fn has_guild(&self, guild: &GuildId) -> bool {
        self.guilds.as_ref().is_none_or(|guilds| guilds.contains(guild))
    }

    /// Names the content: the same content has the same version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The whole catalogue as GetCatalog answers it.
    pub fn to_response(&self) -> proto::GetCatalogResponse {
        proto::GetCatalogResponse {
            items: self
                .items
                .iter()
                .map(|(id, item)| proto::CatalogItem {
                    item_id: id.as_str().to_owned(),
                    display_name: item.name.clone(),
                    unit_price: item.price.unit_price,
                    max_per_player: item.max_per_player,
                    requires_item_id: item
                        .requires
                        .as_ref()
                        .map(ItemId::to_string)
                        .unwrap_or_default(),
                })
                .collect(),
            guilds_open: self.guilds.is_none(),
            guild_ids: self.guilds.iter().flatten().map(|id| id.as_str().to_owned()).collect(),
            currency_code: self.currency.as_ref().to_owned(),
            catalog_version: self.version.as_ref().to_owned(),
        }
    }
}

/// Notes items that require what is not there, and those that could never be bought because
/// each of them requires another one first.
fn check_requirements(items: &BTreeMap<ItemId, Item>, errors: &mut Vec<String>) {
    let required = |id: &ItemId| items.get(id).and_then(|item| item.requires.as_ref());
    for (id, item) in items {
        if item.requires.as_ref().is_some_and(|required| !items.contains_key(required)) {
            errors.push(format!("item {id}: requires_item: not an item of this catalogue"));
        }
    }
    // From where each item was first come to: a way that comes to an item of its own has gone
    // round. Each item is passed once, so this takes no longer than the catalogue is.
    let mut from: BTreeMap<&ItemId, &ItemId> = BTreeMap::new();
    for start in items.keys() {
        let mut next = Some(start);
        while let Some(id) = next {
            match from.get(id) {
                Some(begun) if *begun == start => {
                    errors.push(format!("item {id}: requires_item: leads back to itself"));
                    break;
                }
                Some(_) => break,
                None => from.insert(id, start),
            };
            next = required(id);
        }
    }
}

/// The first 16 hexadecimal digits of a SHA-256 over the content.
fn version_of(
    currency: &str,
    items: &BTreeMap<ItemId, Item>,
    guilds: Option<&BTreeSet<GuildId>>,
) -> String {
    let mut hash = Sha256::new();
    // Control characters cannot occur in any of the texts, so they separate.
    hash.update(format!("{currency}\n"));
    for (id, item) in items {
        hash.update(format!("item\t{id}\t{}\t{}\n", item.name, item.price.unit_price));
        // Only what is said, so that a catalogue without them has the version it always had.
        if let Some(max) = item.max_per_player {
            hash.update(format!("max\t{max}\n"));
        }
        if let Some(required) = &item.requires {
            hash.update(format!("requires\t{required}\n"));
        }
    }
    match guilds {
        None => hash.update("guilds open\n"),
        Some(guilds) => guilds.iter().for_each(|id| hash.update(format!("guild\t{id}\n"))),
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_catalogue_sells_four_things_and_opens_all_guilds() {
        let catalog = Catalog::built_in();
        let ids: Vec<_> = catalog.items.keys().map(ItemId::as_str).collect();
        assert_eq!(ids, ["horse", "knife", "shield", "sword"]);
        assert!(catalog.has_guild(&GuildId::parse("anything".into()).unwrap()));
    }

    #[test]
    fn listed_guilds_are_the_only_ones() {
        let catalog = Catalog::parse("currency = 'gold'\nguilds = ['mascots']").unwrap();
        assert!(catalog.has_guild(&GuildId::parse("mascots".into()).unwrap()));
        assert!(!catalog.has_guild(&GuildId::parse("others".into()).unwrap()));
    }

    #[test]
    fn everything_wrong_is_reported_at_once() {
        let text = "currency = ''\nguilds = ['a', 'a']\n[[items]]\nid = ''\nname = 'x'\nprice = -1";
        let CatalogError(errors) = Catalog::parse(text).unwrap_err();
        assert_eq!(errors.len(), 4, "{errors:?}");
    }

    const STABLE: &str = "
        currency = 'gold'
        [[items]]
        id = 'horse'
        name = 'Horse'
        price = 500
        max_per_player = 2
        [[items]]
        id = 'saddle'
        name = 'Saddle'
        price = 50
        requires_item = 'horse'
    ";

    #[test]
    fn an_item_can_have_a_bound_and_require_another_one() {
        let catalog = Catalog::parse(STABLE).unwrap();
        let items = catalog.to_response().items;
        assert_eq!((items[0].max_per_player, items[0].requires_item_id.as_str()), (Some(2), ""));
        assert_eq!((items[1].max_per_player, items[1].requires_item_id.as_str()), (None, "horse"));
    }

    #[test]
    fn bounds_and_requirements_that_cannot_be_met_are_refused() {
        let requires = "requires_item = 'horse'";
        for (right, wrong, expected) in [
            ("player = 2", "player = 0", "items[0].max_per_player: below 1"),
            (requires, "requires_item = ''", "items[1].requires_item: missing"),
            (requires, "requires_item = 'cow'", "item saddle: requires_item: not an item"),
            (requires, "requires_item = 'saddle'", "item saddle: requires_item: leads back"),
            (
                "max_per_player = 2",
                "requires_item = 'saddle'",
                "item horse: requires_item: leads back",
            ),
        ] {
            let CatalogError(errors) = Catalog::parse(&STABLE.replace(right, wrong)).unwrap_err();
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert!(errors[0].starts_with(expected), "{errors:?}");
        }
    }

    #[test]
    fn what_leads_to_a_circle_is_no_part_of_it() {
        let item = |id: &str, requires: &str| {
            format!("[[items]]\nid='{id}'\nname='x'\nprice=1\nrequires_item='{requires}'\n")
        };
        let circle = ["a", "b"].map(|id| item(id, if id == "a" { "b" } else { "a" })).concat();
        let text = format!("currency='g'\n{}{circle}{}", item("c", "a"), item("0", "c"));
        let CatalogError(errors) = Catalog::parse(&text).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
    }

    /// Computed by Python's hashlib: stored events name versions.
    #[test]
    fn the_version_is_what_it_always_was_and_covers_the_rules() {
        let version = |text: &str| Catalog::parse(text).unwrap().version().to_owned();
        let plain = STABLE.replace("max_per_player = 2", "");
        let plain = plain.replace("requires_item = 'horse'", "");
        assert_eq!(version(&plain), "9c217febe5080f3f");
        assert_eq!(version(STABLE), "d7419de212604c15");
    }

    #[test]
    fn a_misspelt_key_is_not_passed_over() {
        let error = Catalog::parse("currency = 'gold'\nguild = ['mascots']").unwrap_err();
        assert!(error.to_string().contains("guild"), "{error}");
    }

    #[test]
    fn the_version_follows_the_content_and_not_the_form() {
        let a = Catalog::parse("currency='g'\n[[items]]\nid='a'\nname='A'\nprice=1\n").unwrap();
        let b = Catalog::parse("currency = 'g' # x\n[[items]]\nprice=1\nname='A'\nid='a'").unwrap();
        let c = Catalog::parse("currency='g'\n[[items]]\nid='a'\nname='A'\nprice=2\n").unwrap();
        assert_eq!(a.version, b.version);
        assert_ne!(a.version, c.version);
    }
}
