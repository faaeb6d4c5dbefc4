//! `herald export`, in a build without it.

use clap::Args;

use super::exit::{Exit, UsageError};
use super::output::Output;

/// Arguments of `herald export`.
#[derive(Debug, Args)]
pub struct Export {
    /// Whatever they are.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    arguments: Vec<String>,
}

impl Export {
    /// Says how to get it.
    pub fn run(self, _output: &mut Output) -> anyhow::Result<Exit> {
        let Self { arguments: _ } = self;
        Err(missing())
    }
}

/// As the export would print it.
pub fn parquet_schema() -> anyhow::Result<String> {
    Err(missing())
}

fn missing() -> anyhow::Error {
    UsageError(
        "this herald was built without export; build it with \
         `cargo build --release --features export`, or use the container image, which has it"
            .to_owned(),
    )
    .into()
}

/// No command failed in an export.
pub fn exit(_error: &anyhow::Error) -> Option<Exit> {
    None
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        export: Export,
    }

    #[test]
    fn whoever_asks_for_an_export_is_told_how_to_get_it() {
        let cli = Cli::parse_from(["export", "--out", "x", "--cursor-file", "y", "z"]);
        let error = cli.export.run(&mut Output::new()).unwrap_err();
        assert_eq!(Exit::of(&error), Exit::Usage);
        assert!(error.to_string().contains("--features export"), "{error}");
        assert!(parquet_schema().unwrap_err().is::<UsageError>());
    }
}
