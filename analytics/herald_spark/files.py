"""Folders in whatever Hadoop reaches: this machine, HDFS."""

from pyspark.sql import functions as F

from herald_spark.problems import Problem


def write(frame, out, mode, layout="flat"):
    """Writes Parquet. `hive` makes folders by day and type, as `herald export` does."""
    from pyspark.errors import AnalysisException

    writer = frame
    if layout == "hive":
        writer = frame.withColumn("date", F.to_date("append_time"))
    writer = writer.write.mode(mode).option("compression", "snappy")
    if layout == "hive":
        writer = writer.partitionBy("date", "event_type")
    try:
        writer.parquet(str(out))
    except AnalysisException as error:
        if "already exists" not in str(error):
            raise
        raise Problem(
            f"{out} is there already; give --mode overwrite to replace it, or --mode append"
        ) from None


class Folder:
    """A folder, wherever its URL leads."""

    def __init__(self, spark, url):
        self._jvm = spark._jvm
        self._gateway = spark.sparkContext._gateway
        self._path = self._jvm.org.apache.hadoop.fs.Path(str(url))
        conf = spark._jsc.hadoopConfiguration()
        self._files = self._path.getFileSystem(conf)
        self._path = self._path.makeQualified(self._files.getUri(), self._files.getWorkingDirectory())
        self._context = self._jvm.org.apache.hadoop.fs.FileContext.getFileContext(
            self._path.toUri(), conf
        )

    def _at(self, name):
        return self._jvm.org.apache.hadoop.fs.Path(self._path, name) if name else self._path

    def url(self, name=""):
        return self._at(name).toString()

    def has(self, name=""):
        return self._files.exists(self._at(name))

    def names(self):
        """Of what is in it; none where it is not there."""
        if not self.has():
            return []
        return sorted(each.getPath().getName() for each in self._files.listStatus(self._path))

    def make(self, name=""):
        self._files.mkdirs(self._at(name))

    def remove(self, name=""):
        self._files.delete(self._at(name), True)

    def rename(self, name, to):
        """In one step; an error where there is something."""
        kind = self._jvm.org.apache.hadoop.fs.Options.Rename
        self._context.rename(self._at(name), self._at(to), self._gateway.new_array(kind, 0))

    def read(self, name):
        """A small text."""
        stream = self._files.open(self._at(name))
        try:
            return self._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8")
        finally:
            stream.close()

    def write(self, name, text):
        """A small text; whoever sees it sees all of it."""
        partial = f"{name}.partial"
        stream = self._files.create(self._at(partial), True)
        stream.write(bytearray(text.encode()))
        stream.close()
        self.rename(partial, name)
