//! A folder in HDFS, by its own protocol and without a Java.
//!
//! The client reads `HADOOP_CONF_DIR` for what name services and security there are, and
//! `HADOOP_USER_NAME` for who it is.

use std::io;

use bytes::Bytes;
use hdfs_native::client::FileStatus;
use hdfs_native::file::FileWriter;
use hdfs_native::{Client, ClientBuilder, HdfsError, WriteOptions};
use tokio::runtime::Handle;

use super::{
    Destination, DestinationError, SUCCESS, Staged, StagedAt, TEMPORARY, Upload, is_data,
    temporary_name,
};

/// For folders that are made.
const FOLDER_PERMISSION: u32 = 0o755;

/// See the module.
pub(super) struct Hdfs {
    client: Client,
    server: String,
    root: String,
    owner: String,
    runtime: Handle,
}

impl Hdfs {
    pub fn open(
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
            runtime,
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
    ) -> impl Fn(HdfsError) -> DestinationError + 'a {
        move |error| DestinationError::new(format!("cannot {doing} {}{path}", self.server), error)
    }

    fn make_folder(&self, folder: &str) -> Result<(), DestinationError> {
        let made = self.client.mkdirs(folder, FOLDER_PERMISSION, true);
        self.runtime.block_on(made).map_err(self.failed("make", folder))
    }

    fn exists(&self, path: &str) -> bool {
        self.runtime.block_on(self.client.get_file_info(path)).is_ok()
    }

    fn delete(&self, path: &str) -> Result<(), DestinationError> {
        match self.runtime.block_on(self.client.delete(path, true)) {
            // That it was not there is as good.
            Ok(_) | Err(HdfsError::FileNotFound(_)) => Ok(()),
            Err(error) => Err(self.failed("remove", path)(error)),
        }
    }
}

impl Destination for Hdfs {
    fn files(&self) -> Result<Vec<String>, DestinationError> {
        let listed = self.runtime.block_on(self.client.list_status(&self.root, true));
        let listed = listed.map_err(self.failed("list", &self.root))?;
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
        let file = self.runtime.block_on(created).map_err(self.failed("write", &at))?;
        let at = format!("{}{at}", self.server);
        let runtime = self.runtime.clone();
        Ok(Box::new(Writing { file, runtime, at, path: path.to_owned(), name, bytes: 0 }))
    }

    fn publish(&self, file: &Staged) -> Result<(), DestinationError> {
        let StagedAt::Temporary(name) = &file.place else {
            return Err(DestinationError::new("cannot publish", "it is no file of HDFS"));
        };
        let (from, to) = (self.at(name), self.at(&file.path));
        if let Some((folder, _)) = to.rsplit_once('/') {
            self.make_folder(folder)?;
        }
        let renamed = self.runtime.block_on(self.client.rename(&from, &to, false));
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
        let _ = self.runtime.block_on(self.client.delete(&all, false));
        Ok(())
    }

    fn mark_success(&self) -> Result<(), DestinationError> {
        // A file cannot be replaced that may be there or not.
        self.unmark_success()?;
        let at = self.at(SUCCESS);
        let mark = async { self.client.create(&at, WriteOptions::default()).await?.close().await };
        self.runtime.block_on(mark).map_err(self.failed("write", &at))
    }

    fn unmark_success(&self) -> Result<(), DestinationError> {
        self.remove(SUCCESS)
    }
}

struct Writing {
    file: FileWriter,
    runtime: Handle,
    at: String,
    path: String,
    name: String,
    bytes: u64,
}

impl Upload for Writing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        let written = self.file.write_bytes(Bytes::copy_from_slice(bytes));
        self.runtime.block_on(written).map(drop).map_err(io::Error::other)
    }

    fn finish(mut self: Box<Self>) -> Result<Staged, DestinationError> {
        let done = async {
            self.file.hsync().await?;
            self.file.close().await
        };
        self.runtime
            .block_on(done)
            .map_err(|error| DestinationError::new(format!("cannot write {}", self.at), error))?;
        Ok(Staged { path: self.path, bytes: self.bytes, place: StagedAt::Temporary(self.name) })
    }
}
