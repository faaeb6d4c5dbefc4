//! The settings of the server. A placeholder: nothing can be set yet.

/// What `herald serve` can be told.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Settings {}
