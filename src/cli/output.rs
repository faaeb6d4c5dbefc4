//! The one place that writes to stdout and stderr.
//!
//! Data goes to stdout, buffered until [`Output::flush`]; all else goes to
//! stderr, behind the data written before it. A reader of stdout that goes away,
//! as `head` does, is an error here that ends the command with success
//! ([`super::exit`]).

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write};
use std::os::fd::AsFd as _;

use anstyle::Style;
use clap::ValueEnum;
use tokio::io::Interest;
use tokio::net::unix::pipe;

/// How much is gathered before it is written: a few hundred lines.
const BUFFER_BYTES: usize = 64 * 1024;

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// In any case.
    Always,
    /// In no case.
    Never,
}

/// Stdout takes no more.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to stdout")]
pub struct StdoutError(#[from] io::Error);

impl StdoutError {
    /// Nobody reads it any more.
    pub fn reader_is_gone_now() -> Self {
        Self(io::ErrorKind::BrokenPipe.into())
    }

    /// Whether nobody reads it any more, which is no failure of ours.
    pub fn reader_is_gone(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Stdout and stderr.
#[derive(Debug)]
pub struct Output {
    stdout: BufWriter<Stdout>,
    colored: bool,
}

impl Output {
    /// Without colours.
    pub fn new() -> Self {
        Self { stdout: BufWriter::with_capacity(BUFFER_BYTES, io::stdout()), colored: false }
    }

    /// Uses colours from now on, or does not.
    pub fn color(&mut self, color: Color) {
        self.colored = match color {
            Color::Always => true,
            Color::Never => false,
            // NO_COLOR, CLICOLOR, TERM=dumb and whether it is a terminal.
            Color::Auto => {
                anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never
            }
        };
    }

    /// `text` in a style, where colours are used.
    pub fn styled<T: fmt::Display>(&self, style: Style, text: T) -> Styled<T> {
        Styled { style: if self.colored { style } else { Style::new() }, text }
    }

    /// Writes one line of data.
    pub fn line(&mut self, line: impl fmt::Display) -> Result<(), StdoutError> {
        Ok(writeln!(self.stdout, "{line}")?)
    }

    /// Writes data that is no line, as it is.
    pub fn raw(&mut self, data: &[u8]) -> Result<(), StdoutError> {
        Ok(self.stdout.write_all(data)?)
    }

    /// Whether data goes to a terminal.
    pub fn is_terminal(&self) -> bool {
        self.stdout.get_ref().is_terminal()
    }

    /// Hands all data to whoever reads it.
    pub fn flush(&mut self) -> Result<(), StdoutError> {
        Ok(self.stdout.flush()?)
    }

    /// Hands over all data and, where it goes to a file, makes it outlive a crash of the
    /// machine.
    pub fn sync(&mut self) -> Result<(), StdoutError> {
        self.flush()?;
        let synced = io::stdout().as_fd().try_clone_to_owned().map(File::from)?.sync_data();
        match synced.map_err(|error| (error.kind(), error)) {
            // A pipe or a terminal, which keeps nothing.
            Err((io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported, _)) | Ok(()) => Ok(()),
            Err((_, error)) => Err(StdoutError(error)),
        }
    }

    /// Writes one line for people.
    pub fn note(&mut self, line: &str) {
        // What fails here fails again at the next flush, which tells.
        let _ = self.stdout.flush();
        // Nobody is left to tell that stderr is gone.
        let _ = writeln!(io::stderr(), "herald: {line}");
    }
}

/// Waits until nobody reads stdout any more, for a command that may have nothing to write
/// for long. Never returns where that cannot be told, as for a file.
pub async fn reader_gone() {
    // Of a pipe whose reader is gone, the writing end is in the state of an error. It is
    // only asked for that, so it need not be set to non-blocking, which is what is not
    // checked here.
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    if let Ok(stdout) = stdout.and_then(pipe::Sender::from_owned_fd_unchecked)
        && stdout.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// A text in a style.
#[derive(Clone, Copy, Debug)]
pub struct Styled<T> {
    style: Style,
    text: T,
}

impl<T: fmt::Display> fmt::Display for Styled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:#}", self.style, self.text, self.style)
    }
}
