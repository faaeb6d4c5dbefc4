//! A folder in HDFS, by its own protocol and without a Java.
//!
//! The client reads `HADOOP_CONF_DIR` for what name services and security there are, and
//! `HADOOP_USER_NAME` for who it is.

use std::fmt::Display;
use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use hdfs_native::client::FileStatus;
use hdfs_native::file::FileWriter;
use hdfs_native::{Client, ClientBuilder, HdfsError, WriteOptions};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::{
    Destination, DestinationError, SUCCESS, Staged, StagedAt, TEMPORARY, Upload, is_data,
    temporary_name,
};

/// For folders that are made.
const FOLDER_PERMISSION: u32 = 0o755;

/// How long HDFS may take for one call, or to take [`PIECE_BYTES`]: as long as Hadoop's own
/// client waits for a socket.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// The same where a name service is named: a name node whose machine is gone takes the system
/// two minutes to give up on, and then the other one is asked.
const SERVICE_CALL_LIMIT: Duration = Duration::from_secs(180);

/// How much is written under one limit.
const PIECE_BYTES: usize = 1 << 20;

/// Why a call has come to nothing.
enum Failed {
    Said(HdfsError),
    Silent(Duration),
}

impl Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Said(error) => error.fmt(f),
            Self::Silent(limit) => write!(
                f,
                "no answer within {limit:?}; check the address, that the name node and the data \
                 nodes run, and that they can be reached from here"
            ),
        }
    }
}

/// Waits for HDFS, and no longer than the limit.
#[derive(Clone)]
struct Patience {
    runtime: Handle,
    limit: Duration,
}

impl Patience {
    fn wait<T>(&self, call: impl Future<Output = Result<T, HdfsError>>) -> Result<T, Failed> {
        // Timers are made within the runtime only.
        let done = self.runtime.block_on(async { timeout(self.limit, call).await });
        done.map_err(|_| Failed::Silent(self.limit))?.map_err(Failed::Said)
    }
}

/// See the module.
pub(super) struct Hdfs {
    client: Client,
    server: String,
    root: String,
    owner: String,
    patience: Patience,
}

impl Hdfs {
    pub fn open(
        server: &str,
        root: &str,
        owner: &str,
        runtime: Handle,
    ) -> Result<Self, DestinationError> {
        let is_service = !server.trim_start_matches("hdfs://").contains(':');
        let limit = if is_service { SERVICE_CALL_LIMIT } else { CALL_LIMIT };
        Self::open_within(limit, server, root, owner, runtime)
    }

    /// With a limit for each call.
    fn open_within(
        limit: Duration,
        server: &str,
        root: &str,
        owner: &str,
        runtime: Handle,
    ) -> Result<Self, DestinationError> {
        let client = ClientBuilder::new().with_url(server).with_io_runtime(runtime.clone()).build();
        let client =
            client.map_err(|error| DestinationError::new(format!("cannot use {server}"), error))?;
        let hdfs = Self {
            client,
            server: server.to_owned(),
            root: root.to_owned(),
            owner: owner.to_owned(),
            patience: Patience { runtime, limit },
        };
        hdfs.make_folder(root)?;
        Ok(hdfs)
    }

    fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.root)
    }

    fn failed<'a>(
        &'a self,
        doing: &'a str,
        path: &'a str,
    ) -> impl Fn(Failed) -> DestinationError + 'a {
        move |error| DestinationError::new(format!("cannot {doing} {}{path}", self.server), error)
    }

    fn make_folder(&self, folder: &str) -> Result<(), DestinationError> {
        let made = self.client.mkdirs(folder, FOLDER_PERMISSION, true);
        self.patience.wait(made).map_err(self.failed("make", folder))
    }

    fn exists(&self, path: &str) -> bool {
        self.patience.wait(self.client.get_file_info(path)).is_ok()
    }

    fn delete(&self, path: &str) -> Result<(), DestinationError> {
        match self.patience.wait(self.client.delete(path, true)) {
            // That it was not there is as good.
            Ok(_) | Err(Failed::Said(HdfsError::FileNotFound(_))) => Ok(()),
            Err(error) => Err(self.failed("remove", path)(error)),
        }
    }
}

impl Destination for Hdfs {
    fn files(&self) -> Result<Vec<String>, DestinationError> {
        let folder = self.client.list_status_iter(&self.root, true);
        let mut listed = Vec::new();
        // A large one takes many calls.
        let next = || self.patience.wait(async { folder.next().await.transpose() });
        while let Some(file) = next().map_err(self.failed("list", &self.root))? {
            listed.push(file);
        }
        let below = |file: FileStatus| {
            let name = file.path.strip_prefix(&self.root)?.trim_start_matches('/');
            (!file.isdir && is_data(name)).then(|| name.to_owned())
        };
        Ok(listed.into_iter().filter_map(below).collect())
    }

    fn create(&self, path: &str) -> Result<Box<dyn Upload>, DestinationError> {
        let name = temporary_name(&self.owner, path);
        let at = self.at(&name);
        let created = self.client.create(&at, WriteOptions::default());
        let file = self.patience.wait(created).map_err(self.failed("write", &at))?;
        let at = format!("{}{at}", self.server);
        let patience = self.patience.clone();
        Ok(Box::new(Writing { file, patience, at, path: path.to_owned(), name, bytes: 0 }))
    }

    fn publish(&self, file: &Staged) -> Result<(), DestinationError> {
        let StagedAt::Temporary(name) = &file.place else {
            return Err(DestinationError::new("cannot publish", "it is no file of HDFS"));
        };
        let (from, to) = (self.at(name), self.at(&file.path));
        if let Some((folder, _)) = to.rsplit_once('/') {
            self.make_folder(folder)?;
        }
        let renamed = self.patience.wait(self.client.rename(&from, &to, false));
        match renamed {
            Err(_) if !self.exists(&from) && self.exists(&to) => Ok(()),
            renamed => renamed.map_err(self.failed("rename a file to", &to)),
        }
    }

    fn remove(&self, path: &str) -> Result<(), DestinationError> {
        self.delete(&self.at(path))
    }

    fn discard(&self, file: &Staged) {
        if let StagedAt::Temporary(name) = &file.place {
            // What stays is removed by the next run.
            let _ = self.delete(&self.at(name));
        }
    }

    fn clear(&self) -> Result<(), DestinationError> {
        let all = self.at(TEMPORARY);
        self.delete(&format!("{all}/{}", self.owner))?;
        // It stays where another export has something in it.
        let _ = self.patience.wait(self.client.delete(&all, false));
        Ok(())
    }

    fn mark_success(&self) -> Result<(), DestinationError> {
        // A file cannot be replaced that may be there or not.
        self.unmark_success()?;
        let at = self.at(SUCCESS);
        let mark = async { self.client.create(&at, WriteOptions::default()).await?.close().await };
        self.patience.wait(mark).map_err(self.failed("write", &at))
    }

    fn unmark_success(&self) -> Result<(), DestinationError> {
        self.remove(SUCCESS)
    }
}

struct Writing {
    file: FileWriter,
    patience: Patience,
    at: String,
    path: String,
    name: String,
    bytes: u64,
}

impl Upload for Writing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(PIECE_BYTES) {
            self.bytes += piece.len() as u64;
            let written = self.file.write_bytes(Bytes::copy_from_slice(piece));
            self.patience
                .wait(written)
                .map_err(|error| io::Error::other(format!("{}: {error}", self.at)))?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Staged, DestinationError> {
        let failed = |error| DestinationError::new(format!("cannot write {}", self.at), error);
        match self.patience.wait(self.file.hsync()) {
            // Of erasure-coded files HDFS syncs nothing, Hadoop's own client neither; such a file
            // is on all of its data nodes when it is closed.
            Ok(()) | Err(Failed::Said(HdfsError::UnsupportedFeature(_))) => {}
            Err(error) => return Err(failed(error)),
        }
        self.patience.wait(self.file.close()).map_err(failed)?;
        Ok(Staged { path: self.path, bytes: self.bytes, place: StagedAt::Temporary(self.name) })
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// How long a test waits that would wait for ever if something were wrong.
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_name_node_that_never_answers_is_not_waited_for_for_ever() {
        // Connections come about, as the kernel keeps them, and that is all.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("hdfs://{}", listener.local_addr().unwrap());
        let (limit, handle) = (Duration::from_millis(200), Handle::current());
        let opened = tokio::task::spawn_blocking(move || {
            Hdfs::open_within(limit, &server, "/events", "once", handle).map(drop)
        });
        let said = timeout(LONG, opened).await.unwrap().unwrap().unwrap_err().to_string();
        assert!(said.contains("no answer within 200ms; check the address"), "{said}");
        assert!(said.starts_with("cannot make hdfs://127.0.0.1:"), "{said}");
        drop(listener);
    }
}
