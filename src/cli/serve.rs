//! `herald serve`: from the settings to the running server and back to an exit code.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::exit::Exit;
use super::output::Output;
use crate::config::Settings;
use crate::server::Server;
use crate::telemetry::Telemetry;

/// Runs the server until SIGTERM or SIGINT. A second signal ends the process at once.
pub fn run(settings: &Settings, output: &mut Output) -> anyhow::Result<Exit> {
    let config = match settings.load() {
        Ok(config) => config,
        Err(error) => {
            for problem in error.0 {
                output.note(&problem);
            }
            return Ok(Exit::Usage);
        }
    };
    if settings.check_config {
        output.note("the configuration is valid");
        return Ok(Exit::Done);
    }
    let telemetry = Telemetry::install(config.telemetry.clone()).map_err(anyhow::Error::msg)?;
    // Accepts, tails the log and answers the operator; calls have the lanes' runtimes.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let stopped = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let data_dir = config.log.data_dir.clone();
        let server = Server::bind(config, Some(&telemetry)).await?;
        announce(&server, &data_dir);
        let asked = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let asked_again = async {
            // The first one of each has been taken, or is still to come.
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            for _ in 0..2 {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            }
            anyhow::Ok(())
        };
        tokio::select! {
            stopped = server.run(asked) => Ok(stopped?),
            again = asked_again => {
                again?;
                anyhow::bail!("stopped at once by a second signal")
            }
        }
    });
    if stopped.is_ok() {
        tracing::info!("stopped");
    }
    stopped.map(|()| Exit::Done)
}

/// Says where everything is.
fn announce(server: &Server, data_dir: &std::path::Path) {
    let Some(grpc) = server.address() else { return };
    let admin =
        server.admin_address().map_or("off".to_owned(), |address| format!("http://{address}"));
    tracing::info!(
        "herald {} is listening: grpc=http://{grpc} admin={admin} data={}",
        env!("CARGO_PKG_VERSION"),
        data_dir.display()
    );
    tracing::info!("grpcurl: grpcurl -plaintext {grpc} list");
    tracing::info!(
        "grpcurl: grpcurl -plaintext -d '{{\"player_id\":\"alice\",\"item_id\":\"sword\"}}' {grpc} \
         game.v1.GameService/PurchaseItem"
    );
    tracing::info!("herald:  herald tail --server http://{grpc} --from earliest");
    tracing::info!("curl:    curl http://{grpc}/ and curl {admin}/metrics");
    tracing::info!("browser: gRPC-web clients use http://{grpc} as their base address");
}
