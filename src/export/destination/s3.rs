//! A bucket of S3, or of what speaks its protocol.
//!
//! A file is an upload in parts, which nobody sees until it is completed; completing it is
//! publishing. An upload that is let go of is aborted. That of a process that was killed stays
//! with the store until it is told to remove it: a lifecycle rule with
//! `AbortIncompleteMultipartUpload` does that.

use std::io;
use std::mem;
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::multipart::{MultipartStore as _, PartId};
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore as _, ObjectStoreExt as _, PutPayload};
use tokio::runtime::Handle;

use super::{Destination, DestinationError, SUCCESS, Staged, StagedAt, Upload, is_data};

/// How long each part is but the last: a file may have 10,000 of them.
/// Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>.
const PART_BYTES: usize = 8 << 20;

/// The most that files may be told to have: 78 GiB make 10,000 parts, and a file gets somewhat
/// longer than it was told.
pub const MAX_FILE_SIZE: u64 = 64 << 30;

/// What is known of the store beside its name: variables that begin with `AWS_`, by name.
#[derive(Clone, Default)]
pub struct Settings(pub Vec<(String, String)>);

impl std::fmt::Debug for Settings {
    /// Without values, some of which are secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// What reaches a bucket.
fn builder(bucket: &str, settings: &Settings) -> AmazonS3Builder {
    let mut builder = AmazonS3Builder::new().with_bucket_name(bucket);
    // Those that are empty are as good as none, as for the AWS tools.
    for (name, value) in settings.0.iter().filter(|(_, value)| !value.is_empty()) {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    // The one for S3 alone wins over the one for all services.
    let endpoint = builder
        .get_config_value(&AmazonS3ConfigKey::S3Endpoint)
        .or_else(|| builder.get_config_value(&AmazonS3ConfigKey::Endpoint));
    // Who writes an address without encryption means it.
    if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
        builder = builder.with_allow_http(true);
    }
    builder
}

/// See the module.
pub(super) struct S3 {
    store: Arc<AmazonS3>,
    bucket: String,
    prefix: String,
    runtime: Handle,
}

impl S3 {
    pub fn open(
        bucket: &str,
        prefix: &str,
        settings: &Settings,
        runtime: Handle,
    ) -> Result<Self, DestinationError> {
        let store = builder(bucket, settings).build().map_err(|error| {
            DestinationError::new(format!("cannot use the bucket {bucket}"), error)
        })?;
        let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
        Ok(Self { store: Arc::new(store), bucket, prefix, runtime })
    }

    fn at(&self, path: &str) -> Path {
        let text = if self.prefix.is_empty() {
            path.to_owned()
        } else {
            format!("{}/{path}", self.prefix)
        };
        // Names are made by the layout, escaped where they have to be.
        Path::parse(&text).unwrap_or_else(|_| Path::from(text))
    }

    fn begin(&self, path: &str) -> Result<Writing, DestinationError> {
        let at = self.at(path);
        let id = self.runtime.block_on(self.store.create_multipart(&at));
        let id = id.map_err(self.failed("write", &at))?;
        Ok(Writing {
            store: Arc::clone(&self.store),
            runtime: self.runtime.clone(),
            bucket: self.bucket.clone(),
            at,
            path: path.to_owned(),
            id,
            parts: Vec::new(),
            part: Vec::new(),
            bytes: 0,
            is_finished: false,
        })
    }

    /// Whether what is listed is the mark of a folder, as consoles and file browsers make them:
    /// an empty object whose key ends in a slash, which the list of the store's client leaves
    /// out. So nothing is at the name without it.
    fn is_folder(&self, listed: &ObjectMeta) -> Result<bool, DestinationError> {
        if listed.size > 0 {
            return Ok(false);
        }
        match self.runtime.block_on(self.store.head(&listed.location)) {
            Err(Error::NotFound { .. }) => Ok(true),
            found => found.map(|_| false).map_err(self.failed("look at", &listed.location)),
        }
    }

    fn failed<'a>(
        &'a self,
        doing: &'a str,
        path: &'a Path,
    ) -> impl Fn(Error) -> DestinationError + 'a {
        move |error| self.cannot(doing, path, error)
    }

    fn cannot(&self, doing: &str, path: &Path, why: impl ToString) -> DestinationError {
        DestinationError::new(format!("cannot {doing} s3://{}/{path}", self.bucket), why)
    }
}

/// What to do about a file whose upload the store no longer has. Its rows are still where the
/// cursor is, behind which no file of the same batch may stay.
fn gone(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let batch = name.rsplit_once('-').map_or(name, |(batch, _)| batch);
    format!(
        "the store no longer has the upload, and nothing is at this name: uploads that are not \
         completed are removed by a lifecycle rule, or by whoever tidies up, and the rows of this \
         file are gone with it. Without a cursor file, export again. With one, remove the file \
         beside it that ends in .pending, and every {batch}-* that is in --out: the next run \
         exports those rows again, as far as the log still has them"
    )
}

impl Destination for S3 {
    fn files(&self) -> Result<Vec<String>, DestinationError> {
        let root = self.at("");
        let listed = self.store.list((!self.prefix.is_empty()).then_some(&root));
        let listed = self.runtime.block_on(listed.try_collect::<Vec<_>>());
        let mut names = Vec::new();
        for file in listed.map_err(self.failed("list", &root))? {
            let name = file.location.as_ref().strip_prefix(&self.prefix);
            let name = name.map(|name| name.trim_start_matches('/')).filter(|name| is_data(name));
            if let Some(name) = name
                && !self.is_folder(&file)?
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn create(&self, path: &str) -> Result<Box<dyn Upload>, DestinationError> {
        Ok(Box::new(self.begin(path)?))
    }

    fn publish(&self, file: &Staged) -> Result<(), DestinationError> {
        let StagedAt::Multipart { id, parts } = &file.place else {
            return Err(DestinationError::new("cannot publish", "it is no upload"));
        };
        let at = self.at(&file.path);
        let parts = parts.iter().map(|part| PartId { content_id: part.clone() }).collect();
        let completed = self.runtime.block_on(self.store.complete_multipart(&at, id, parts));
        let Err(error) = completed else { return Ok(()) };
        // An upload that was completed is no longer there.
        match self.runtime.block_on(self.store.head(&at)) {
            Ok(found) if found.size == file.bytes => Ok(()),
            Err(Error::NotFound { .. }) if matches!(error, Error::NotFound { .. }) => {
                Err(self.cannot("complete", &at, gone(&file.path)))
            }
            _ => Err(self.failed("complete", &at)(error)),
        }
    }

    fn remove(&self, path: &str) -> Result<(), DestinationError> {
        let at = self.at(path);
        match self.runtime.block_on(self.store.delete(&at)) {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("remove", &at)(error)),
        }
    }

    fn discard(&self, file: &Staged) {
        if let StagedAt::Multipart { id, .. } = &file.place {
            // What stays is removed by the rule of the module's comment.
            let _ = self.runtime.block_on(self.store.abort_multipart(&self.at(&file.path), id));
        }
    }

    fn clear(&self) -> Result<(), DestinationError> {
        Ok(())
    }

    fn mark_success(&self) -> Result<(), DestinationError> {
        let at = self.at(SUCCESS);
        let put = self.runtime.block_on(self.store.put(&at, PutPayload::new()));
        put.map(drop).map_err(self.failed("write", &at))
    }

    fn unmark_success(&self) -> Result<(), DestinationError> {
        self.remove(SUCCESS)
    }
}

struct Writing {
    store: Arc<AmazonS3>,
    runtime: Handle,
    bucket: String,
    at: Path,
    path: String,
    id: String,
    parts: Vec<String>,
    /// What is gathered for the next part.
    part: Vec<u8>,
    bytes: u64,
    is_finished: bool,
}

impl Writing {
    fn put(&mut self) -> Result<(), Error> {
        let part = mem::take(&mut self.part);
        let put = self.store.put_part(&self.at, &self.id, self.parts.len(), part.into());
        self.parts.push(self.runtime.block_on(put)?.content_id);
        Ok(())
    }
}

impl Upload for Writing {
    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let fits = bytes.len().min(PART_BYTES - self.part.len());
            self.part.extend_from_slice(&bytes[..fits]);
            bytes = &bytes[fits..];
            if self.part.len() == PART_BYTES {
                self.put().map_err(io::Error::other)?;
            }
        }
        Ok(())
    }

    fn held(&self) -> usize {
        self.part.capacity()
    }

    fn finish(mut self: Box<Self>) -> Result<Staged, DestinationError> {
        if !self.part.is_empty() || self.parts.is_empty() {
            self.put().map_err(|error| {
                DestinationError::new(
                    format!("cannot write s3://{}/{}", self.bucket, self.at),
                    error,
                )
            })?;
        }
        self.is_finished = true;
        let (id, parts) = (mem::take(&mut self.id), mem::take(&mut self.parts));
        let place = StagedAt::Multipart { id, parts };
        Ok(Staged { path: mem::take(&mut self.path), bytes: self.bytes, place })
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.is_finished {
            // What stays is removed by the rule of the module's comment.
            let _ = self.runtime.block_on(self.store.abort_multipart(&self.at, &self.id));
        }
    }
}

/// Against the store that `TEST_S3_ENDPOINT` and its like name (`scripts/s3 start` makes one).
/// Without it the tests are left out, unless `REQUIRE_S3=1`.
#[cfg(test)]
mod tests {
    use object_store::ClientConfigKey;
    use tokio::runtime::Runtime;
    use uuid::Uuid;

    use super::*;

    #[allow(clippy::disallowed_methods, reason = "tests are told where the store is")]
    fn variable(name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }

    /// A prefix that no other test has.
    fn store(runtime: &Runtime) -> Option<S3> {
        let given = |name: &str| variable(&format!("TEST_S3_{name}"));
        let Some(bucket) = given("BUCKET") else {
            assert_ne!(variable("REQUIRE_S3").as_deref(), Some("1"), "TEST_S3_BUCKET names none");
            eprintln!("left out: TEST_S3_BUCKET names no bucket");
            return None;
        };
        let variables = [
            ("AWS_ENDPOINT_URL", "ENDPOINT"),
            ("AWS_ACCESS_KEY_ID", "ACCESS_KEY"),
            ("AWS_SECRET_ACCESS_KEY", "SECRET_KEY"),
            ("AWS_REGION", "REGION"),
        ];
        let value = |(name, from): (&str, &str)| (name.to_owned(), given(from).unwrap());
        let settings = Settings(variables.into_iter().map(value).collect());
        let prefix = Uuid::new_v4().to_string();
        Some(S3::open(&bucket, &prefix, &settings, runtime.handle().clone()).unwrap())
    }

    #[test]
    fn an_upload_that_is_let_go_of_leaves_nothing() {
        let runtime = Runtime::new().unwrap();
        let Some(s3) = store(&runtime) else { return };
        let mut upload = s3.begin("file").unwrap();
        upload.write(&vec![0; PART_BYTES]).unwrap();
        let (at, id) = (upload.at.clone(), upload.id.clone());
        let put = || runtime.block_on(s3.store.put_part(&at, &id, 1, PutPayload::from("more")));
        put().unwrap();
        drop(upload);
        assert!(put().is_err(), "the upload is still there");
        assert!(s3.files().unwrap().is_empty());
    }

    #[test]
    fn a_file_is_published_once_however_often_it_is_tried() {
        let runtime = Runtime::new().unwrap();
        let Some(s3) = store(&runtime) else { return };
        let mut upload = s3.begin("file").unwrap();
        upload.write(b"rows").unwrap();
        let staged = Box::new(upload).finish().unwrap();
        assert!(s3.files().unwrap().is_empty());
        // As when the answer to the first was lost.
        s3.publish(&staged).unwrap();
        s3.publish(&staged).unwrap();
        assert_eq!(s3.files().unwrap(), ["file"]);
        s3.remove("file").unwrap();
        assert!(s3.publish(&staged).is_err(), "it cannot be published, and nobody is told");
    }

    fn value(settings: &[(&str, &str)], key: AmazonS3ConfigKey) -> Option<String> {
        let settings = settings.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        builder("b", &Settings(settings.collect())).get_config_value(&key)
    }

    #[test]
    fn an_address_without_encryption_leaves_the_other_settings_as_they_are() {
        let plain = ("AWS_ENDPOINT_URL", "http://s3:9000");
        let (safe, for_s3) =
            (("AWS_ENDPOINT_URL", "https://x"), ("AWS_ENDPOINT_URL_S3", "http://y"));
        let proxy = ("AWS_PROXY_URL", "http://proxy:3128");
        let allow = AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp);
        let proxy_key = AmazonS3ConfigKey::Client(ClientConfigKey::ProxyUrl);
        assert_eq!(value(&[proxy, plain], proxy_key).as_deref(), Some(proxy.1));
        for (settings, allowed) in [
            (&[plain, proxy][..], "true"),
            (&[safe, for_s3], "true"),
            (&[safe], "false"),
            (&[plain, ("AWS_ENDPOINT_URL_S3", "https://z")], "false"),
            (&[plain, ("AWS_ENDPOINT_URL_S3", "")], "true"),
        ] {
            assert_eq!(value(settings, allow).as_deref(), Some(allowed), "{settings:?}");
        }
    }
}
