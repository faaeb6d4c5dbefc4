"""`herald export`, and what other tools find in the files that it makes."""

import collections
import contextlib
import hashlib
import json
import os
import pathlib
import subprocess
import tempfile

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq

import checks
import running

# How long reading a log or files by other tools may take. Far more than is needed.
SECONDS = 1_800


def export(*arguments, env=None):
    """Exports, and returns the summary."""
    return json.loads(running.herald("export", "--json", *arguments, env=env))


# --- the files ------------------------------------------------------------------


def visible_files(folder):
    """All that readers of a folder see: not what is under way, and not the mark of success."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    relative = [path.relative_to(folder) for path in paths]
    return [
        path
        for path, name in zip(paths, relative)
        if name.parts[0] != "_herald_temporary" and name != pathlib.Path("_SUCCESS")
    ]


def check_finished(folder, summary):
    """An export that ended well leaves its files and its mark, and nothing else."""
    mark = folder / "_SUCCESS"
    if not mark.is_file() or mark.stat().st_size != 0:
        raise checks.Broken(f"no empty _SUCCESS in {folder}")
    if left := [path for path in (folder / "_herald_temporary").rglob("*") if path.is_file()]:
        raise checks.Broken(f"left behind: {left[:3]}")
    files = visible_files(folder)
    found = {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}
    said = {name: summary[name] for name in found}
    if found != said:
        raise checks.Broken(f"{folder} has {found}, and the summary says {said}")


def read(path, columns=None):
    """The table in a file, all of whose pages can be read, or some of its columns."""
    with pq.ParquetFile(path) as file:
        return file.read(columns)


def read_all(folder, columns=None):
    """The tables of all files in a folder, without what their paths say."""
    return pa.concat_tables([read(path, columns) for path in visible_files(folder)])


# --- what an event is, as columns and as JSON -----------------------------------

# Of the table itself, and not of the event.
PLACE = ("partition", "offset", "append_time")
# What other columns say already.
DERIVED = ("guild_id", "raw_value")


def camel(name):
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def as_json(value, kind):
    """A value of a column, as proto3 JSON has it."""
    if pa.types.is_struct(kind):
        fields = {field.name: (value[field.name], field.type) for field in kind}
        return message(fields)
    if pa.types.is_map(kind):
        return dict(value)
    if pa.types.is_list(kind):
        return [as_json(each, kind.value_type) for each in value]
    if pa.types.is_timestamp(kind):
        return rfc3339(value)
    return str(value) if pa.types.is_int64(kind) else value


def message(fields):
    """Of values and their types by name. What is not set is left out, and so are defaults."""
    return {
        camel(name): as_json(value, kind)
        for name, (value, kind) in fields.items()
        if value is not None and (pa.types.is_struct(kind) or value not in (0, "", [], {}))
    }


def rfc3339(time):
    """In as many groups of three digits as are needed."""
    text = f"{time:%Y-%m-%dT%H:%M:%S}"
    if time.microsecond:
        digits = f"{time.microsecond:06}"
        text += "." + (digits.removesuffix("000") or digits)
    return text + "Z"


def delivered(table):
    """The rows as DeliveredEvents in proto3 JSON."""
    types = {field.name: field.type for field in table.schema}
    for batch in table.to_batches():
        for row in batch.to_pylist():
            place = {name: (row.pop(name), types[name]) for name in PLACE}
            event = {
                name: (value, types[name]) for name, value in row.items() if name not in DERIVED
            }
            yield {"event": message(event), **message(place)}


# --- the log, as the tail gives it ----------------------------------------------

# One line for each event: what is counted, with nothing lost by jq's numbers.
JQ = """
.event as $event
| ($event.itemPurchased // $event.itemGranted // $event.itemConsumed // $event.purchaseRefunded)
  as $items
| [.partition // 0, .offset // "0", $event.eventId, $event.eventType, $event.playerId // "",
   ($event.guildJoined // $event.guildLeft).guildId // "",
   $items.itemId // "", $items.quantity // 0, $items.totalPrice // "0"]
| @tsv
"""


def tail(url, file, *flags):
    """Writes what `herald tail --json` gives to a file."""
    with open(file, "wb") as out:
        done = subprocess.run(
            running.tail_command(url, "--until-caught-up", *map(str, flags)),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            env=running.environment(),
            timeout=SECONDS,
        )
    if done.returncode != 0:
        raise RuntimeError(f"herald tail ended with {done.returncode}:\n{done.stderr}")


def figures_by_jq(file):
    """The figures of a file of lines of JSON."""
    with subprocess.Popen(
        ["jq", "-r", JQ, file], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as jq:
        figures = Figures()
        for line in jq.stdout:
            figures.take(*line.rstrip("\n").split("\t"))
    if jq.returncode != 0:
        raise RuntimeError(f"jq ended with {jq.returncode}")
    return figures.all()


def hashes(files):
    """A number for each line of JSON in some files, in order of size: the same only for the same
    lines. The members of an object have no order.
    """
    numbers = []
    for path in files:
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                line = json.dumps(json.loads(line), sort_keys=True)
                numbers.append(hashlib.blake2b(line.encode(), digest_size=8).digest())
    return sorted(numbers)


# --- figures, by whatever reads the files ---------------------------------------


class Figures:
    """Counts and sums of events that are taken one by one."""

    def __init__(self):
        self._ids = set()
        self._players = set()
        self._places = set()
        self._sums = collections.defaultdict(lambda: collections.defaultdict(collections.Counter))

    def take(self, part, place, event_id, event_type, player, guild, item, quantity, price):
        part, place, quantity, price = map(int, (part, place, quantity, price))
        self._ids.add(event_id)
        self._players.add(player)
        self._places.add((part, place))
        for name, key, sums in (
            ("whole", "", {}),
            ("partitions", part, {"offsets": place}),
            ("types", event_type, {"quantity": quantity, "price": price}),
            ("items", item, {"quantity": quantity, "price": price}),
            ("guilds", guild, {}),
        ):
            self._sums[name][key].update({"events": 1} | sums)

    def all(self):
        """As `figures_of` has them."""
        sums = self._sums
        whole = [sums["whole"][""]["events"], len(self._ids), len(self._players)]
        orders = {
            "partitions": ("events", "offsets"),
            "types": ("events", "quantity", "price"),
            "items": ("events", "quantity", "price"),
            "guilds": ("events",),
        }
        return {"whole": [(*whole, len(self._places))]} | {
            name: sorted((key, *(each[what] for what in order)) for key, each in sums[name].items())
            for name, order in orders.items()
        }


# The same in SQL. DuckDB and Spark quote names differently.
EVENTS = """
SELECT {q}partition{q} AS part, {q}offset{q} AS place, event_id, event_type, player_id,
    coalesce(guild_id, '') AS guild,
    coalesce(item_purchased.item_id, item_granted.item_id, item_consumed.item_id,
        purchase_refunded.item_id, '') AS item,
    coalesce(item_purchased.quantity, item_granted.quantity, item_consumed.quantity,
        purchase_refunded.quantity, 0) AS quantity,
    coalesce(item_purchased.total_price, purchase_refunded.total_price, 0) AS price
FROM {source}
"""
QUESTIONS = {
    "whole": "SELECT count(*), count(DISTINCT event_id), count(DISTINCT player_id), "
    "count(DISTINCT place * 1000 + part) FROM events",
    "partitions": "SELECT part, count(*), sum(place) FROM events GROUP BY part",
    "types": "SELECT event_type, count(*), sum(quantity), sum(price) FROM events "
    "GROUP BY event_type",
    "items": "SELECT item, count(*), sum(quantity), sum(price) FROM events GROUP BY item",
    "guilds": "SELECT guild, count(*) FROM events GROUP BY guild",
}


def figures_of(ask):
    """The figures, from what answers SQL about `events` with rows."""

    def row(values):
        return tuple(value if isinstance(value, str) else int(value) for value in values)

    return {name: sorted(map(row, ask(question))) for name, question in QUESTIONS.items()}


def figures_by_duckdb(folder):
    source = f"read_parquet('{folder}/**/*.parquet', hive_partitioning = true)"
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        database.execute("CREATE VIEW events AS " + EVENTS.format(q='"', source=source))
        return figures_of(lambda question: database.execute(question).fetchall())


def figures_by_spark(spark, folder):
    source = f"parquet.`{folder}`"
    spark.sql(EVENTS.format(q="`", source=source)).createOrReplaceTempView("events")
    spark.sql("CACHE TABLE events")
    try:
        return figures_of(lambda question: spark.sql(question).collect())
    finally:
        spark.sql("UNCACHE TABLE events")


def figures_by_arrow(folder):
    """By Arrow's own functions, of a dataset whose folders are columns too."""
    whole = pa.dataset.dataset(folder, format="parquet", partitioning="hive").to_table()
    fields = pc.struct_field

    def first_of(name, columns, default):
        found = [fields(whole[column], name) for column in columns]
        return pc.coalesce(*found, pa.scalar(default, found[0].type))

    bought = ["item_purchased", "purchase_refunded"]
    moved = [*bought, "item_granted", "item_consumed"]
    events = pa.table(
        {
            "part": whole["partition"],
            "place": whole["offset"],
            "event_id": whole["event_id"],
            "event_type": whole["event_type"].cast(pa.string()),
            "player_id": whole["player_id"].cast(pa.string()),
            "guild": pc.fill_null(whole["guild_id"].cast(pa.string()), ""),
            "item": first_of("item_id", moved, ""),
            "quantity": first_of("quantity", moved, 0),
            "price": first_of("total_price", bought, 0),
        }
    )
    places = events.group_by(["part", "place"]).aggregate([]).num_rows
    distinct = [pc.count_distinct(events[name]).as_py() for name in ("event_id", "player_id")]

    def sums(key, *columns):
        wanted = [(key, "count"), *((column, "sum") for column in columns)]
        table = events.group_by(key).aggregate(wanted)
        names = [key, f"{key}_count", *(f"{column}_sum" for column in columns)]
        return sorted(zip(*(table[name].to_pylist() for name in names)))

    return {
        "whole": [(events.num_rows, *distinct, places)],
        "partitions": sums("part", "place"),
        "types": sums("event_type", "quantity", "price"),
        "items": sums("item", "quantity", "price"),
        "guilds": sums("guild"),
    }


@contextlib.contextmanager
def spark():
    """A Spark of its own, on this machine alone."""
    # Takes a second, which only who needs it is to wait for.
    import pyspark.sql

    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_LOCAL_DIRS": folder}
        settings = {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.shuffle.partitions": "4",
            "spark.sql.warehouse.dir": folder,
            "spark.ui.showConsoleProgress": "false",
        }
        builder = pyspark.sql.SparkSession.builder.master("local[2]")
        for name, value in settings.items():
            builder = builder.config(name, value)
        session = builder.getOrCreate()
        session.sparkContext.setLogLevel("ERROR")
        try:
            yield session
        finally:
            session.stop()


def check_figures(who, found, expected):
    """Two who counted the same events came to the same."""
    for name in expected:
        if found[name] != expected[name]:
            pairs = [pair for pair in zip(found[name], expected[name]) if pair[0] != pair[1]]
            raise checks.Broken(
                f"{who}, {name}: {len(found[name])} rows, {len(expected[name])} by the tail; "
                f"the first that differ: {pairs[:1]}"
            )
