//! `herald doctor`: whether everything is all right, from the settings to an event that was
//! written and read back.
//!
//! The order of the checks is here; what each finds is in [`settings`], [`log`] and
//! [`calls`], how that is shown in [`report`]. Unless a running server is named, [`own`]
//! starts one, and everything goes through it as through any other.
//!
//! It promises to end in time, whatever hangs: what blocks has a thread that is not waited
//! for, and everything else a deadline. It makes no topic, as the number of partitions is
//! decided with it for good; a folder for the embedded log it makes as the server would.

mod calls;
mod log;
mod own;
mod report;
mod settings;

use std::time::Duration;

use anstyle::{AnsiColor, Style};
use clap::Args;
use tokio::time::{Instant, timeout_at};

use self::calls::Calls;
use self::log::Found;
use self::own::OwnServer;
use self::report::{Finding, Outcome, Report};
use super::exit::Exit;
use super::output::{Color, Output, StdoutError};
use super::remote::duration;
use crate::clock::Clock;
use crate::config::{Config, Settings};

/// The codes, for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    all is well (also with warnings)
  1    a check failed
  2    wrong usage
  130  interrupted (Ctrl-C); 143 terminated";

/// Nobody waits longer for an answer.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

/// The part of the time that is kept for stopping the own server.
const STOP_PART: u32 = 10;

/// The part of the time that looking at the log may take, so that the other checks have
/// their turn.
const LOG_PART: u32 = 2;

/// What a server of our own is not started without. A log that is written with a wrong clock
/// has wrong times for good.
const OWN_SERVER_NEEDS: [&str; 3] = ["configuration", "clock", "log"];

const OK: Style = AnsiColor::Green.on_default();
const SKIPPED: Style = Style::new().dimmed();
const WARN: Style = AnsiColor::Yellow.on_default();
const FAIL: Style = AnsiColor::Red.on_default().bold();

/// Arguments of `herald doctor`.
#[derive(Debug, Args)]
#[command(
    mut_arg("log", |arg| arg.default_value("warn")),
    mut_arg("check_config", |arg| arg.hide(true))
)]
pub struct Doctor {
    /// Examine this running server, such as http://127.0.0.1:50051, instead of starting one;
    /// HERALD_SERVER is not looked at
    #[arg(long, value_name = "URL", help_heading = "Examination")]
    server: Option<String>,

    /// Write no event, and so read none back; make no folder either
    #[arg(long, help_heading = "Examination")]
    no_write: bool,

    /// How long all of it may take, up to an hour
    #[arg(
        long,
        value_name = "TIME",
        default_value = "30s",
        value_parser = timeout,
        help_heading = "Examination"
    )]
    timeout: Duration,

    /// Print one JSON object when all is done
    #[arg(long, help_heading = "Examination")]
    json: bool,

    /// What the server is, or would be, started with.
    #[command(flatten)]
    settings: Settings,
}

fn timeout(text: &str) -> anyhow::Result<Duration> {
    let time = duration(text)?;
    anyhow::ensure!(time <= MAX_TIMEOUT, "must be at most 1h");
    Ok(time)
}

impl Doctor {
    /// Makes all checks.
    pub fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        output.color(Color::Auto);
        super::block_on(async {
            let started = Instant::now();
            let mut own = None;
            let mut examination = Examination {
                doctor: &self,
                started,
                deadline: started + self.timeout - self.timeout / STOP_PART,
                report: Report::default(),
                output,
            };
            let examined = match examination.checks(&mut own).await {
                Ok(()) => examination.conclude(),
                Err(error) => Err(error.into()),
            };
            if let Some(own) = own {
                own.stop(started + self.timeout).await;
            }
            examined
        })
    }
}

/// One run.
struct Examination<'a> {
    doctor: &'a Doctor,
    started: Instant,
    /// When the last check has to be done.
    deadline: Instant,
    report: Report,
    output: &'a mut Output,
}

impl Examination<'_> {
    /// Every check is told of, in this order, also those that are not made.
    async fn checks(&mut self, own: &mut Option<OwnServer>) -> Result<(), StdoutError> {
        let running = self.doctor.server.as_deref();
        let (finding, config) = settings::configuration(&self.doctor.settings, running.is_some());
        self.tell(finding)?;
        self.tell(settings::clock(Clock::System.now()))?;
        if running.is_none() {
            self.tell(match &config {
                Some(config) => settings::catalogue(&config.catalog.to_response()),
                None => self.skipped("catalogue", &["configuration"]),
            })?;
        }
        let (finding, found) = self.log(config.as_ref()).await;
        self.tell(finding)?;

        let begun = Instant::now();
        let server = timeout_at(self.deadline, self.server(config, found, own)).await;
        let calls = match server.unwrap_or_else(|_| Err(report::late("server"))) {
            Ok((calls, found)) => {
                self.tell(Finding::ok("server", found).took(begun.elapsed()))?;
                calls
            }
            Err(finding) => {
                let took = (finding.outcome == Outcome::Fail).then(|| begun.elapsed());
                self.tell(Finding { latency: took, ..finding })?;
                let catalogue = running.map(|_| "catalogue");
                let others = ["feed", "write", "read", "log clock"];
                for check in std::iter::once("serving").chain(catalogue).chain(others) {
                    self.tell(self.skipped(check, &["server"]))?;
                }
                return Ok(());
            }
        };
        let patience = if running.is_some() { Duration::ZERO } else { own::START_PATIENCE };
        self.tell(calls.serving(patience).await)?;
        if running.is_some() {
            self.tell(calls.catalogue().await)?;
        }
        self.tell(calls.feed(found.epoch).await)?;
        if self.doctor.no_write {
            for check in ["write", "read", "log clock"] {
                self.tell(Finding::skipped(check, "--no-write is given"))?;
            }
        } else {
            for finding in calls.round_trip().await {
                self.tell(finding)?;
            }
        }
        Ok(())
    }

    /// Looks at the log, as far as that goes without a server.
    async fn log(&self, config: Option<&Config>) -> (Finding, Found) {
        let Some(config) = config else {
            return (self.skipped("log", &["configuration"]), Found::default());
        };
        let deadline = self.started + self.doctor.timeout / LOG_PART;
        log::look(config, self.doctor.server.is_some(), deadline).await
    }

    /// A connection to the server that is examined, and which that is; or why there is none.
    async fn server(
        &self,
        config: Option<Config>,
        found: Found,
        own: &mut Option<OwnServer>,
    ) -> Result<(Calls, String), Finding> {
        if let Some(url) = &self.doctor.server {
            let calls = Calls::connect(url, self.deadline).await?;
            return Ok((calls, format!("connected to {url}")));
        }
        let (Some(config), None) = (config, self.report.missing(&OWN_SERVER_NEEDS)) else {
            return Err(self.skipped("server", &OWN_SERVER_NEEDS));
        };
        if self.doctor.no_write && found.no_log {
            let why = "starting one would make the log, and --no-write is given";
            return Err(Finding::skipped("server", why));
        }
        let server = OwnServer::start(config, self.doctor.timeout / STOP_PART).await?;
        let address = server.address();
        *own = Some(server);
        let calls = Calls::connect(&format!("http://{address}"), self.deadline).await?;
        Ok((calls, format!("started one for this, at {address}")))
    }

    fn skipped(&self, check: &'static str, needed: &[&str]) -> Finding {
        let why = self.report.missing(needed);
        Finding::skipped(check, why.unwrap_or_else(|| "what it needs is missing".to_owned()))
    }

    /// Notes a finding and, for people, shows it at once.
    fn tell(&mut self, finding: Finding) -> Result<(), StdoutError> {
        if !self.doctor.json {
            let style = match finding.outcome {
                Outcome::Ok => OK,
                Outcome::Skipped => SKIPPED,
                Outcome::Warn => WARN,
                Outcome::Fail => FAIL,
            };
            let width = Outcome::Skipped.word().len();
            let word = format!("{:<width$}", finding.outcome.word());
            let mut lines = finding.lines().into_iter();
            let first = lines.next().unwrap_or_default();
            let word = self.output.styled(style, word);
            self.output.line(format_args!("{word}  {first}"))?;
            for line in lines {
                self.output.line(line)?;
            }
            self.output.flush()?;
        }
        self.report.add(finding);
        Ok(())
    }

    /// Shows what all of it comes to.
    fn conclude(&mut self) -> anyhow::Result<Exit> {
        if self.doctor.json {
            self.output.line(self.report.json()?)?;
        } else {
            self.output.line("")?;
            self.output.line(self.report.summary())?;
        }
        self.output.flush()?;
        Ok(if self.report.is_well() { Exit::Done } else { Exit::Failed })
    }
}
