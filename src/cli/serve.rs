//! `herald serve`: hands the settings to the server.

use super::exit::Exit;
use crate::config::Settings;

/// Runs the server until it is told to stop.
pub fn run(settings: Settings) -> anyhow::Result<Exit> {
    let Settings {} = settings;
    anyhow::bail!("this build has no server")
}
