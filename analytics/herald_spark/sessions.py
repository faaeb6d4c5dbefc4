"""The Spark session of a job."""

# Times are UTC, and as fine as those of `herald export`: Spark's own default is INT96, which other
# tools no longer write. Files appear when a job commits, and not as its tasks end.
SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.compression.codec": "snappy",
    "spark.hadoop.mapreduce.fileoutputcommitter.algorithm.version": "1",
    # What it finds to be empty it cuts out of a plan, with what counts records there. How many
    # parts there are follows from the records instead.
    "spark.sql.adaptive.enabled": "false",
}

# So many records for each part of a shuffle, and so for each file; and so many parts at the most.
PART_RECORDS = 250_000
MOST_PARTS = 2_000


def session(name):
    """A session as `scripts/spark` or spark-submit have configured it."""
    # Takes a second, which `--help` is not to wait for.
    import pyspark.sql

    builder = pyspark.sql.SparkSession.builder.appName(f"herald-{name}")
    for key, value in SETTINGS.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def size_shuffles(spark, records):
    """As many parts as so many records need, and work for each core as soon as there is enough."""
    cores = spark.sparkContext.defaultParallelism
    wanted = max(records // PART_RECORDS + 1, min(cores, records // 10_000 + 1))
    spark.conf.set("spark.sql.shuffle.partitions", str(min(wanted, MOST_PARTS)))
