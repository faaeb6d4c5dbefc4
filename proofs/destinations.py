"""Where files are exported to: a folder, an object store, HDFS. Each shows what is there."""

import json
import pathlib
import urllib.error
import urllib.parse
import urllib.request

import pyarrow.fs

# How long HDFS may take for one answer. Far more than is needed.
SECONDS = 60


class Folder:
    """A folder of this machine."""

    env = {}

    def __init__(self, path):
        self.url = path
        self._path = path

    def look(self):
        """A folder that has all files that are there now."""
        self._path.mkdir(exist_ok=True)
        return self._path


class Mirrored:
    """Somewhere else. Files that were seen before are not fetched again."""

    def __init__(self, mirror):
        self._mirror = mirror

    def look(self):
        """A folder that has all files that are there now."""
        sizes = dict(self._sizes())
        self._mirror.mkdir(parents=True, exist_ok=True)
        for path in [path for path in self._mirror.rglob("*") if path.is_file()]:
            if sizes.get(path.relative_to(self._mirror).as_posix()) != path.stat().st_size:
                path.unlink()
        for name in sizes:
            path = self._mirror / name
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self._read(name))
        return self._mirror


class S3(Mirrored):
    """A prefix in the bucket that scripts/s3 tells of."""

    def __init__(self, values, prefix, mirror):
        super().__init__(mirror)
        self._prefix = f"{values['bucket']}/{prefix}"
        self.url = f"s3://{self._prefix}"
        self.env = {
            "AWS_ACCESS_KEY_ID": values["access_key"],
            "AWS_SECRET_ACCESS_KEY": values["secret_key"],
            "AWS_REGION": values["region"],
            "AWS_ENDPOINT_URL": values["endpoint"],
            "AWS_ALLOW_HTTP": "true",
        }
        self.files = pyarrow.fs.S3FileSystem(
            access_key=values["access_key"],
            secret_key=values["secret_key"],
            region=values["region"],
            endpoint_override=values["endpoint"],
        )

    def _sizes(self):
        everything = pyarrow.fs.FileSelector(self._prefix, allow_not_found=True, recursive=True)
        for info in self.files.get_file_info(everything):
            if info.is_file:
                yield info.path.removeprefix(f"{self._prefix}/"), info.size

    def _read(self, name):
        with self.files.open_input_stream(f"{self._prefix}/{name}") as file:
            return file.read()


class Hdfs(Mirrored):
    """A folder in the HDFS that scripts/hdfs tells of, looked at by its WebHDFS."""

    env = {}

    def __init__(self, values, path, mirror):
        super().__init__(mirror)
        self.url = f"{values['url']}/{path}"
        self._http = f"{values['http']}/webhdfs/v1/{path}"

    def _get(self, name, operation):
        url = f"{self._http}/{urllib.parse.quote(name)}".rstrip("/")
        with urllib.request.urlopen(f"{url}?op={operation}", timeout=SECONDS) as answer:
            return answer.read()

    def _sizes(self, folder=""):
        try:
            found = json.loads(self._get(folder, "LISTSTATUS"))
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return
            raise
        for status in found["FileStatuses"]["FileStatus"]:
            name = str(pathlib.PurePosixPath(folder, status["pathSuffix"]))
            if status["type"] == "DIRECTORY":
                yield from self._sizes(name)
            else:
                yield name, status["length"]

    def _read(self, name):
        return self._get(name, "OPEN")
