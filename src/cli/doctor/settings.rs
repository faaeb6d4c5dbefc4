//! The checks of what is given: settings, clock, catalogue.

use super::report::Finding;
use crate::cli::serve;
use crate::clock::Timestamp;
use crate::config::{Config, Settings};
use crate::proto::GetCatalogResponse;

/// No clock that is right tells an earlier time: 2026-01-01.
const EARLIEST_TIME: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// Nor a later one, while there is this version: 2100-01-01.
const LATEST_TIME: Timestamp = Timestamp::from_millis(4_102_444_800_000);

/// Whether the settings are valid. Of a running server nothing is known here.
pub fn configuration(settings: &Settings, running: bool) -> (Finding, Option<Config>) {
    const CHECK: &str = "configuration";
    let config = match settings.load() {
        Ok(config) => config,
        Err(error) => {
            let found = match error.0.len() {
                1 => "1 setting is wrong".to_owned(),
                count => format!("{count} settings are wrong"),
            };
            return (Finding::fail(CHECK, found, error.0), None);
        }
    };
    let found = if running {
        "valid; a running server has its own".to_owned()
    } else {
        format!("valid; events are kept in {}", serve::place(&config.log))
    };
    let unknown = serve::unknown_variables();
    let unknown: Vec<_> = unknown
        .iter()
        .map(|name| format!("{name} is in the environment and no setting; check its name"))
        .collect();
    let finding = if unknown.is_empty() {
        Finding::ok(CHECK, found)
    } else {
        Finding::warn(CHECK, found, unknown)
    };
    (finding, Some(config))
}

/// Whether the clock of this machine can be right.
pub fn clock(now: Timestamp) -> Finding {
    if (EARLIEST_TIME..LATEST_TIME).contains(&now) {
        Finding::ok("clock", now.to_string())
    } else {
        let advice = "set it, and keep it right with NTP: the times of events come from clocks";
        Finding::fail("clock", format!("{now} cannot be right"), [advice])
    }
}

/// What can be bought and joined.
pub fn catalogue(catalogue: &GetCatalogResponse) -> Finding {
    let items = match catalogue.items.len() {
        0 => "no items".to_owned(),
        1 => "1 item".to_owned(),
        count => format!("{count} items"),
    };
    let guilds = match catalogue.guild_ids.len() {
        _ if catalogue.guilds_open => "any guild can be joined".to_owned(),
        0 => "no guilds".to_owned(),
        1 => "1 guild".to_owned(),
        count => format!("{count} guilds"),
    };
    let mut advice = Vec::new();
    if catalogue.items.is_empty() {
        advice.push("nothing can be bought; add [[items]] to the file of --catalog");
    }
    if !catalogue.guilds_open && catalogue.guild_ids.is_empty() {
        advice.push(
            "no guild can be joined; name some in the file of --catalog, or leave out guilds",
        );
    }
    let found = format!("{items}, {guilds}");
    if advice.is_empty() {
        Finding::ok("catalogue", found)
    } else {
        Finding::warn("catalogue", found, advice)
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Outcome;
    use super::*;
    use crate::domain::Catalog;

    #[test]
    fn a_clock_that_was_never_set_is_no_clock() {
        for (millis, outcome) in [
            (0, Outcome::Fail),
            (EARLIEST_TIME.as_millis(), Outcome::Ok),
            (LATEST_TIME.as_millis(), Outcome::Fail),
        ] {
            assert_eq!(clock(Timestamp::from_millis(millis)).outcome, outcome, "{millis}");
        }
        assert!(clock(EARLIEST_TIME).found.starts_with("2026-01-01"));
        assert!(clock(LATEST_TIME).found.starts_with("2100-01-01"));
    }

    #[test]
    fn a_catalogue_with_nothing_in_it_is_worth_a_look() {
        let finding = catalogue(&Catalog::built_in().to_response());
        assert_eq!(finding.outcome, Outcome::Ok);
        assert_eq!(finding.found, "4 items, any guild can be joined");
        let empty = Catalog::parse("currency = 'gold'\nguilds = []").unwrap();
        let finding = catalogue(&empty.to_response());
        assert_eq!((finding.outcome, finding.advice.len()), (Outcome::Warn, 2));
        assert_eq!(finding.found, "no items, no guilds");
    }
}
