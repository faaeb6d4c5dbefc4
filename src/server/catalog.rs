//! Keeps the catalogue in step with its file.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::CatalogFile;
use crate::domain::Catalog;

/// How often the file is looked at. A change is taken in when it has rested for as long.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Asks for the file of the catalogue to be read again. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct CatalogReload(Arc<Notify>);

impl CatalogReload {
    /// Has it read at once, changed or not. Those who ask while it is being read share one
    /// more reading.
    pub fn ask(&self) {
        self.0.notify_one();
    }
}

/// What is counted of readings of the file.
#[derive(Clone, Default)]
pub(super) struct Metrics {
    reloads: Family<[(&'static str, &'static str); 1], Counter>,
}

impl Metrics {
    /// Registers them, and the version of the catalogue in force.
    pub fn register(&self, catalog: &Arc<ArcSwap<Catalog>>, registry: &mut Registry) {
        for result in ["changed", "unchanged", "refused"] {
            // There from the start, as 0.
            let _ = self.reloads.get_or_create(&[("result", result)]);
        }
        registry.register(
            "catalog_reloads",
            "Times that the file of the catalogue was read again, by what came of it",
            self.reloads.clone(),
        );
        registry.register_collector(Box::new(InForce(Arc::clone(catalog))));
    }

    fn count(&self, result: &'static str) {
        self.reloads.get_or_create(&[("result", result)]).inc();
    }
}

/// Tells the version of the catalogue when it is asked.
struct InForce(Arc<ArcSwap<Catalog>>);

impl fmt::Debug for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.load().version())
    }
}

impl Collector for InForce {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let info = Info::new([("version", self.0.load().version().to_owned())]);
        let help = "The catalogue in force";
        let kind = info.metric_type();
        info.encode(encoder.encode_descriptor("catalog", help, None, kind)?)
    }
}

/// Reads the file again whenever it has changed or somebody asks, until it is dropped.
pub(super) async fn follow(
    mut file: CatalogFile,
    catalog: Arc<ArcSwap<Catalog>>,
    asked: CatalogReload,
    metrics: Metrics,
) {
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let asked = tokio::select! {
            () = asked.0.notified() => true,
            _ = looks.tick() => false,
        };
        // The folder may be on another machine, which must not hold up what else this thread
        // does.
        let read = tokio::task::spawn_blocking(move || {
            let read = (asked || file.has_changed()).then(|| file.read());
            (file, read)
        });
        let read = match read.await {
            Ok((again, read)) => {
                file = again;
                read
            }
            // The runtime is ending.
            Err(_) => return,
        };
        match read {
            None => {}
            Some(Ok(new)) => {
                let to = Arc::new(new);
                let from = catalog.swap(Arc::clone(&to));
                let (from, to) = (from.version(), to.version());
                if from == to {
                    metrics.count("unchanged");
                    tracing::info!(version = to, "the catalogue was read again, and is the same");
                } else {
                    metrics.count("changed");
                    tracing::info!(from, to, "the catalogue has changed");
                }
            }
            Some(Err(problems)) => {
                metrics.count("refused");
                let problems = problems.join("; ");
                tracing::warn!(
                    version = catalog.load().version(),
                    problems,
                    "the file of the catalogue is refused, what was read before stays in force"
                );
            }
        }
    }
}
