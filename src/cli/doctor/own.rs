//! A server of the doctor's own, on a thread of its own, with the settings given.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::report::Finding;
use crate::config::Config;
use crate::server::Server;
use crate::telemetry::Telemetry;

/// How long it may take from being bound to serving.
pub const START_PATIENCE: Duration = Duration::from_secs(10);

/// A running server.
pub struct OwnServer {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    stopped: oneshot::Receiver<()>,
    /// Kept here, so that its last lines are written also when the server hangs.
    _telemetry: Telemetry,
}

impl OwnServer {
    /// Starts it, on a free port of the loopback address. Its lines go to stderr.
    pub async fn start(mut config: Config, stop_timeout: Duration) -> Result<Self, Finding> {
        config.server.listen = (Ipv4Addr::LOCALHOST, 0).into();
        config.server.admin_listen = None;
        config.server.stop_timeout = stop_timeout;
        let telemetry = Telemetry::install(config.telemetry.clone()).map_err(anyhow::Error::msg);
        let telemetry = telemetry.map_err(|error| failed(&error))?;
        let (tell_bound, bound) = oneshot::channel();
        let (stop, asked_to_stop) = oneshot::channel::<()>();
        let (tell_stopped, stopped) = oneshot::channel();
        let started = thread::Builder::new().name("doctor-server".to_owned()).spawn(move || {
            serve(config, tell_bound, asked_to_stop);
            // Nobody waits any more after the deadline.
            let _ = tell_stopped.send(());
        });
        started.context("cannot start a thread").map_err(|error| failed(&error))?;
        match bound.await {
            Ok(Ok(address)) => Ok(Self { address, stop, stopped, _telemetry: telemetry }),
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => Err(failed(&anyhow::anyhow!("it died while it started"))),
        }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it in order, or gives it up at the deadline.
    pub async fn stop(self, deadline: Instant) {
        // It may have died, which the checks have noticed.
        let _ = self.stop.send(());
        let _ = timeout_at(deadline, self.stopped).await;
    }
}

/// Runs until it is asked to stop.
fn serve(
    config: Config,
    tell_bound: oneshot::Sender<anyhow::Result<SocketAddr>>,
    asked_to_stop: oneshot::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime.context("cannot start the runtime") {
        Ok(runtime) => runtime,
        Err(error) => return drop(tell_bound.send(Err(error))),
    };
    runtime.block_on(async {
        let server = match Server::bind(config, None).await {
            Ok(server) => server,
            Err(error) => return drop(tell_bound.send(Err(error.into()))),
        };
        let address = server.address().context("its address is not known");
        if tell_bound.send(address).is_err() {
            return;
        }
        let stopped = server.run(async { drop(asked_to_stop.await) }).await;
        if let Err(error) = stopped {
            tracing::warn!(%error, "the server of the examination did not stop in order");
        }
    });
}

fn failed(error: &anyhow::Error) -> Finding {
    // The error itself says what to do.
    Finding::fail("server", format!("cannot be started: {error:#}"), [""; 0])
}
