//! `herald serve`: from the settings to the running server and back to an exit code.

use anyhow::Context as _;
use clap::Args as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::Exit;
use super::output::Output;
use super::signals::Signals;
use crate::config::{Config, LogOptions, Settings};
use crate::server::{CatalogReload, Server};
use crate::telemetry::{self, Format, Telemetry};

/// The variables that other commands read.
const OTHER_VARIABLES: [&str; 1] = ["HERALD_SERVER"];

/// Files that are open beside those of connections: the log's, the runtimes', the
/// listeners'.
const OTHER_FILES: u64 = 256;

/// The number of SIGXFSZ on Linux and the BSDs: sent when a file reaches the size that
/// the process is allowed. A handler, whatever it does, makes the write fail instead of
/// ending the process.
const SIGXFSZ: i32 = 25;

/// Runs the server until SIGTERM or SIGINT, or SIGHUP when there is no catalogue to read again.
/// A second SIGTERM or SIGINT ends the process at once.
pub fn run(settings: &Settings, output: &mut Output) -> anyhow::Result<Exit> {
    let config = match settings.load() {
        Ok(config) => config,
        Err(error) => {
            // A collector of JSON lines is to get this too; who asks, reads it.
            if settings.format() == Format::Json && !settings.check_config {
                let _telemetry = Telemetry::install(telemetry::Options::for_failures());
                error.0.iter().for_each(|problem| tracing::error!("{problem}"));
            } else {
                error.0.iter().for_each(|problem| output.note(problem));
            }
            return Ok(Exit::Usage);
        }
    };
    let unknown = unknown_variables();
    if settings.check_config {
        unknown.iter().for_each(|name| output.note(&format!("warning: {name} is no setting")));
        output.note("the configuration is valid");
        return Ok(Exit::Done);
    }
    let format = config.telemetry.format;
    let telemetry = Telemetry::install(config.telemetry.clone()).map_err(anyhow::Error::msg)?;
    unknown.iter().for_each(|name| tracing::warn!("{name} is in the environment and no setting"));
    match serve(config, &telemetry, format) {
        Ok(()) => {
            tracing::info!("stopped");
            Ok(Exit::Done)
        }
        Err(error) => {
            tracing::error!("{error:#}");
            Ok(Exit::Failed)
        }
    }
}

fn serve(config: Config, telemetry: &Telemetry, format: Format) -> anyhow::Result<()> {
    // Accepts, tails the log and answers the operator; calls have the lanes' runtimes.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    raise_file_limit(config.server.max_connections);
    runtime.block_on(async {
        let (mut asked, mut asked_again) = (Signals::listen()?, Signals::listen()?);
        let hangup = signal(SignalKind::hangup())?;
        let _too_large = signal(SignalKind::from_raw(SIGXFSZ))?;
        let place = place(&config.log);
        let server = Server::bind(config, Some(telemetry)).await?;
        announce(&server, &place, format);
        let gone = hung_up(hangup, server.catalog_reload());
        let stop = async {
            tokio::select! { _ = asked.next() => {}, () = gone => {} }
        };
        tokio::select! {
            stopped = server.run(stop) => Ok(stopped?),
            _ = async { asked_again.next().await; asked_again.next().await } => {
                anyhow::bail!("stopped at once by a second signal")
            }
        }
    })
}

/// Lets the process open as many files as it is allowed to, and says so when that is too
/// few for all the connections.
fn raise_file_limit(connections: usize) {
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHER_FILES);
    match rlimit::increase_nofile_limit(wanted) {
        Ok(limit) if limit < wanted => tracing::warn!(
            limit,
            wanted,
            "fewer files can be open than --max-connections needs; raise the limit (ulimit -n) \
             or lower the setting"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised"),
    }
}

/// Has the catalogue read again at each SIGHUP. Without a file to read, ends at the first: then
/// it means what it means to most processes, that their terminal is gone.
async fn hung_up(mut hangup: Signal, reload: Option<CatalogReload>) {
    while hangup.recv().await.is_some() {
        match &reload {
            Some(reload) => reload.ask(),
            None => return,
        }
    }
}

/// Variables that look like settings and are none: slips of the pen, as a rule.
pub fn unknown_variables() -> Vec<String> {
    let command = Settings::augment_args(clap::Command::new("serve"));
    let known: Vec<_> = command.get_arguments().filter_map(|arg| arg.get_env()).collect();
    std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.as_encoded_bytes().starts_with(b"HERALD_"))
        .filter(|name| !known.contains(&name.as_os_str()))
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| !OTHER_VARIABLES.contains(&name.as_str()))
        .collect()
}

/// Where the events are, in a word.
pub fn place(log: &LogOptions) -> String {
    match log {
        LogOptions::Local(options) => options.data_dir.display().to_string(),
        LogOptions::Kafka(options) => format!("kafka://{}/{}", options.brokers, options.topic),
    }
}

/// Says where everything is, and to people how to use it.
fn announce(server: &Server, data: &str, format: Format) {
    let Some(address) = server.address() else { return };
    let grpc = format!("http://{address}");
    let admin = server.admin_address().map_or("off".to_owned(), |admin| format!("http://{admin}"));
    let version = env!("CARGO_PKG_VERSION");
    let list = format!("grpcurl -plaintext {address} list");
    let buy = format!(
        "grpcurl -plaintext -d '{{\"player_id\":\"alice\",\"item_id\":\"sword\"}}' {address} \
         game.v1.GameService/PurchaseItem"
    );
    let tail = format!("herald tail --server {grpc} --from earliest");
    let curl = format!("curl {grpc}/");
    match format {
        Format::Json => tracing::info!(
            grpc,
            admin,
            data,
            version,
            try_grpcurl = list,
            try_purchase = buy,
            try_tail = tail,
            try_curl = curl,
            try_browser = grpc,
            "listening"
        ),
        Format::Text => {
            tracing::info!("herald {version} is listening: grpc={grpc} admin={admin} data={data}");
            tracing::info!("grpcurl: {list}");
            tracing::info!("         {buy}");
            tracing::info!("herald:  {tail}");
            tracing::info!("curl:    {curl} and curl {admin}/metrics");
            tracing::info!(
                "browser: {grpc} in an address bar, or as the base of a gRPC-web client"
            );
        }
    }
}
