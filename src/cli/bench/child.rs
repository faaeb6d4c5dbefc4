//! Servers that a benchmark starts for itself, and ends with itself.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, bail};
use uuid::Uuid;

/// How long a server may take until it says that it is ready.
const START_LIMIT: Duration = Duration::from_secs(120);

/// What the line has in it by which `herald serve` says that it takes writes.
const READY: &str = "\"writes\":true";

/// How many of a server's last lines are shown when it does not start.
const LINES_KEPT: usize = 20;

/// A running server. Ends when dropped.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    /// Where it listens, such as `http://127.0.0.1:4711`.
    pub address: String,
    _directory: Option<Directory>,
}

impl Child {
    /// Starts a yardstick on a free port, with `arguments` besides.
    pub fn echo(arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = this_program()?;
        command.args(["bench", "echo", "--listen", "127.0.0.1:0"]).args(arguments);
        command.stdout(Stdio::piped());
        Self::start(command, None, None).context("cannot start the echo server")
    }

    /// Starts `herald serve` on a free port with an empty log of its own, and
    /// with `arguments` besides.
    pub fn serve(arguments: &[String]) -> anyhow::Result<Self> {
        Self::serve_from(Directory::create()?, arguments)
    }

    /// The same with the log in `directory`, unless `arguments` name another one.
    pub fn serve_from(directory: Directory, arguments: &[String]) -> anyhow::Result<Self> {
        let mut command = this_program()?;
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "off"])
            .args(["--log-format", "json", "--data-dir"])
            .arg(&directory.0);
        command.args(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let started = Self::start(command, Some(directory), Some(READY));
        started.context("cannot start herald serve")
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Ready once it has said where it listens and, if it does that, that it is `ready`.
    fn start(
        mut command: Command,
        directory: Option<Directory>,
        ready: Option<&'static str>,
    ) -> anyhow::Result<Self> {
        let process = command.stdin(Stdio::null()).spawn()?;
        // From here on it is ended whatever happens.
        let mut child = Self { process, address: String::new(), _directory: directory };
        let stdout = child.process.stdout.take().map(|pipe| Box::new(pipe) as Box<_>);
        let stderr = child.process.stderr.take().map(|pipe| Box::new(pipe) as Box<_>);
        let pipe: Box<dyn Read + Send> = stdout.or(stderr).context("no pipe to it")?;
        let (told, address) = sync_channel(1);
        // A thread, as it reads on to the end: a server whose pipe is full stops.
        std::thread::Builder::new()
            .name("bench child".to_owned())
            .spawn(move || read_lines(pipe, ready, &told))?;
        child.address = match address.recv_timeout(START_LIMIT) {
            Ok(Ok(address)) => address,
            Ok(Err(lines)) => bail!("it ended with:\n{}", lines.join("\n")),
            Err(_) => bail!("it did not say that it is ready within {START_LIMIT:?}"),
        };
        Ok(child)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn this_program() -> anyhow::Result<Command> {
    Ok(Command::new(std::env::current_exe().context("cannot find this program")?))
}

/// Tells the address when a line has named it and one has said `ready`, or the last lines if
/// none does.
fn read_lines(
    pipe: Box<dyn Read + Send>,
    ready: Option<&str>,
    told: &SyncSender<Result<String, Vec<String>>>,
) {
    let mut pipe = BufReader::new(pipe);
    let (mut address, mut is_ready) = (None, ready.is_none());
    let mut last = VecDeque::new();
    // By bytes: a line that is no UTF-8 must not stop the reading.
    let mut line = Vec::new();
    while matches!(pipe.read_until(b'\n', &mut line), Ok(read) if read > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        address = address.or_else(|| address_in(&text));
        is_ready |= ready.is_some_and(|ready| text.contains(ready));
        if let (true, Some(address)) = (is_ready, &address) {
            let _ = told.try_send(Ok(address.clone()));
            // The rest is only kept from filling the pipe: it is a line a call, and looking
            // at each would cost the load its share of the machine.
            let _ = io::copy(&mut pipe, &mut io::sink());
            return;
        }
        if last.len() == LINES_KEPT {
            last.pop_front();
        }
        last.push_back(text);
    }
    let _ = told.try_send(Err(last.into()));
}

/// The address in a line such as `listening on http://127.0.0.1:1` or
/// `... grpc=http://127.0.0.1:1 ...` or `..."grpc":"http://127.0.0.1:1"...`.
fn address_in(line: &str) -> Option<String> {
    let (_, rest) =
        ["grpc=", "\"grpc\":", "listening on "].iter().find_map(|mark| line.split_once(mark))?;
    let rest = rest.trim_start_matches('"');
    let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '"' | ',' | '\u{1b}'));
    let address = &rest[..end.unwrap_or(rest.len())];
    address.starts_with("http://").then(|| address.to_owned())
}

/// A new directory among the system's temporary ones, removed when dropped.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// An empty one.
    pub fn create() -> anyhow::Result<Self> {
        let path: &Path = &std::env::temp_dir();
        let path = path.join(format!("herald-bench-{}", Uuid::new_v4()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What stays behind is for the system's own cleaning.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_where_it_listens() {
        for line in [
            "listening on http://127.0.0.1:4711",
            "2026-01-02 INFO ready grpc=http://127.0.0.1:4711 metrics=http://127.0.0.1:1",
            r#"{"fields":{"message":"grpc=http://127.0.0.1:4711"}}"#,
        ] {
            assert_eq!(address_in(line).as_deref(), Some("http://127.0.0.1:4711"));
        }
        assert_eq!(address_in("metrics=http://127.0.0.1:1"), None);
    }
}
