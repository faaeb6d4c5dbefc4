//! What is measured on, as Linux tells it; elsewhere most of it stays unknown.

use std::fs;
use std::num::NonZero;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

/// Linux counts the CPU time of a process in hundredths of a second, on every
/// architecture it shows to programs (USER_HZ).
const TICK: Duration = Duration::from_millis(10);

/// The machine, without its name.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "each name is its own documentation")]
pub struct Machine {
    pub cpu_model: Option<String>,
    pub cores: usize,
    pub memory_bytes: Option<u64>,
    pub kernel: Option<String>,
}

impl Machine {
    /// This machine.
    pub fn this() -> Self {
        let field = |path: &str, name: &str| {
            let text = fs::read_to_string(path).ok()?;
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kilobytes = |text: String| text.strip_suffix(" kB")?.parse::<u64>().ok();
        Self {
            cpu_model: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, NonZero::get),
            memory_bytes: field("/proc/meminfo", "MemTotal")
                .and_then(kilobytes)
                .map(|count| count * 1024),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .ok()
                .map(|release| release.trim().to_owned()),
        }
    }
}

/// The CPU time, user and system, that a process has used so far.
pub fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse_cpu_time(&stat).with_context(|| format!("{path} is of another form than known"))
}

fn parse_cpu_time(stat: &str) -> Option<Duration> {
    // The name of the program, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_ascii_whitespace().skip(11).map_while(|n| n.parse::<u32>().ok());
    Some(TICK * ticks.next()?.checked_add(ticks.next()?)?)
}

/// The memory that a process has in use now (its resident set), in bytes.
pub fn memory(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse_memory(&status).with_context(|| format!("{path} is of another form than known"))
}

fn parse_memory(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_whatever_the_program_is_called() {
        let stat = "42 (a) 1 2 (b) S 1 42 42 0 -1 4194560 100 0 0 0 150 25 0 0 20 0 3 0 99";
        assert_eq!(parse_cpu_time(stat), Some(Duration::from_millis(1_750)));
        assert_eq!(parse_cpu_time("42 (x) S"), None);
    }

    #[test]
    fn memory_is_what_is_resident() {
        let status = "Name:\tx\nVmHWM:\t  900 kB\nVmRSS:\t    12 kB\nRssAnon:\t 5 kB\n";
        assert_eq!(parse_memory(status), Some(12 * 1024));
        assert_eq!(parse_memory("Name:\tx\n"), None);
    }
}
