"""What is exported is what the tail gives, whichever tool reads the files.

On a real Kafka players do a bit of everything, and many buy. Then somebody else writes records
that are no events, and some events once more. What `herald export` makes of the topic, in each
layout, is read by Arrow, by DuckDB and by Spark: counts, and sums of quantities, prices and
offsets, are those that jq finds in what `herald tail --json` gives, each event id and each place
in the log once. The rows are the events themselves: turned back into JSON they are the lines of
the tail; and so are the lines that are exported as JSON. Filters by type, player and
guild give what the tail gives with the same filter.
"""

import json
import pathlib
import subprocess
import tempfile

import brokers
import checks
import exporting
import mixture
import running

# `mixed` players do a bit of everything, and `purchases` are made beside that. Of the rows, one in
# `compared_one_in` is compared with its line of the tail.
SIZES = {
    "small": {"purchases": 4_000, "mixed": 200, "compared_one_in": 1},
    "full": {"purchases": 960_000, "mixed": 4_450, "compared_one_in": 50},
}

FLAGS = ["--access-log", "off", *mixture.RECORD_REFUSALS]

# Records that are no events, and events that are there again.
FOREIGN = [b"\xff\xfe\x00garbage", b"\x78\x01", b'{"event_id": "x"}']
REPEATED = 2

LAYOUTS = {
    "hive": ["--layout", "hive"],
    "flat": ["--layout", "flat", "--compression", "zstd"],
    "by type": ["--split-by", "type", *(f"--type={name}" for name in sorted(mixture.EVENT_TYPES))],
}

FILTERS = [
    ["--type=guild_joined"],
    ["--type=item_purchased", "--type=purchase_refunded"],
    ["--player=mixed-0", "--player=mixed-7", "--player=nobody"],
    ["--guild=owls"],
    ["--guild=owls", "--guild=foxes", "--type=guild_left"],
    ["--player=mixed-1", "--player=mixed-2", "--guild=owls"],
]

# One folder for each value, in the column that has it.
SPLITS = [
    ("player", "player_id", ["mixed-0", "mixed-7"]),
    ("guild", "guild_id", ["owls", "foxes"]),
    ("type", "event_type", ["guild_left", "item_granted"]),
]


def put(kafka, folder, partition, values):
    """Writes records as a stranger would."""
    for value in values:
        file = folder / "record"
        file.write_bytes(value)
        command = ["kcat", "-b", kafka.addresses, "-t", brokers.TOPIC, "-P", "-p", partition]
        subprocess.run([*map(str, command), file], stdin=subprocess.DEVNULL, check=True)


def fill(options, server, kafka, folder):
    """Everything that is exported: the events of players, and what disturbs."""
    mixture.play_all(server.url, options["mixed"])
    running.herald(
        "bench", "write", "--server", server.url, "--requests", options["purchases"],
        "--players", 2_000,
    )  # fmt: skip
    kafka.wait_for_what_was_sent()
    newest = {partition: value for partition, _, value in kafka.records()}
    partition, value = min(newest.items())
    put(kafka, folder, partition, [value] * REPEATED + FOREIGN)


def check_rows(folder, lines, one_in):
    """The rows are the lines of the tail."""
    events = {}
    with open(lines, encoding="utf-8") as file:
        for number, line in enumerate(file):
            if number % one_in == 0:
                event = json.loads(line)
                events[event.get("partition", 0), event.get("offset", "0")] = event
    compared = 0
    for path in exporting.visible_files(folder):
        for row in exporting.delivered(exporting.read(path)):
            expected = events.get((row.get("partition", 0), row.get("offset", "0")))
            if expected not in (None, row):
                raise checks.Broken(f"in a file {row}; the tail gives {expected}")
            compared += expected is not None
    if compared != len(events):
        raise checks.Broken(f"{compared} rows for {len(events)} lines of the tail")
    return compared


def check_folders(folder):
    """What the name of a folder says is true of each row in it."""
    for path in exporting.visible_files(folder):
        table = exporting.read(path, ["event_type", "append_time", "player_id", "guild_id"])
        for part in path.relative_to(folder).parts[:-1]:
            name, value = part.split("=", 1)
            if name == "date":
                found = {f"{time:%Y-%m-%d}" for time in table["append_time"].to_pylist()}
            else:
                found = set(table[name].to_pylist())
            if found != {value}:
                raise checks.Broken(f"{path.relative_to(folder)}: {name} is {found}")


class Proof:
    def __init__(self, options, server, kafka, folder):
        self.options = options
        self.server = server
        self.kafka = kafka
        self.folder = folder
        self.lines = folder / "tail"
        exporting.tail(server.url, self.lines)
        self.expected = exporting.figures_by_jq(self.lines)

    def export(self, name, *flags):
        out = self.folder / name.replace(" ", "-")
        summary = exporting.export(*self.kafka.log(), "--out", out, *flags)
        exporting.check_finished(out, summary)
        return out, summary

    def check_summary(self, name, summary):
        events = self.expected["whole"][0][0]
        wanted = {"events": events, "duplicates": REPEATED, "foreign": len(FOREIGN)}
        if (said := {each: summary[each] for each in wanted}) != wanted:
            raise checks.Broken(f"{name}: the summary says {said}, and it is {wanted}")

    def layouts(self, spark):
        """What came of each layout, by name."""
        done = {}
        for name, flags in LAYOUTS.items():
            out, summary = self.export(name, *flags)
            self.check_summary(name, summary)
            for who, figures in (
                ("Arrow", exporting.figures_by_arrow(out)),
                ("DuckDB", exporting.figures_by_duckdb(out)),
                ("Spark", exporting.figures_by_spark(spark, out)),
            ):
                exporting.check_figures(f"{name}, {who}", figures, self.expected)
            check_folders(out)
            rows = check_rows(out, self.lines, self.options["compared_one_in"])
            done[name] = {each: summary[each] for each in ("files", "bytes", "seconds")}
            done[name]["rows_compared"] = rows
        return done

    def json_lines(self):
        out, summary = self.export("jsonl", "--format", "jsonl", "--compression", "none")
        self.check_summary("jsonl", summary)
        found = exporting.hashes(exporting.visible_files(out))
        expected = exporting.hashes([self.lines])
        if found != expected:
            same = len(set(found).intersection(expected))
            raise checks.Broken(
                f"{len(found)} lines are exported, {len(expected)} by the tail; {same} are the same"
            )
        return {each: summary[each] for each in ("files", "bytes", "seconds")}

    def filters(self):
        """How many events each filter gives."""
        counts = {}
        for number, flags in enumerate(FILTERS):
            lines = self.folder / f"tail-{number}"
            exporting.tail(self.server.url, lines, *flags)
            expected = exporting.figures_by_jq(lines)
            out, summary = self.export(f"filtered-{number}", "--layout", "flat", *flags)
            what = " ".join(flags)
            found = exporting.figures_by_arrow(out)
            exporting.check_figures(what, found, expected)
            counts[what] = summary["events"]
            if summary["events"] != expected["whole"][0][0] or not summary["events"]:
                raise checks.Broken(f"{what}: {summary}, and it is {expected['whole']}")
        return counts

    def splits(self):
        """One folder for each value of a filter, with its events and no others."""
        for by, column, values in SPLITS:
            flags = [f"--{by}={value}" for value in values]
            out, _ = self.export(f"split-{by}", "--split-by", by, *flags)
            check_folders(out)
            for value in values:
                lines = self.folder / f"tail-{by}-{value}"
                exporting.tail(self.server.url, lines, f"--{by}={value}")
                expected = exporting.figures_by_jq(lines)
                found = exporting.figures_by_duckdb(out / f"{column}={value}")
                exporting.check_figures(f"{column}={value}", found, expected)


def proof(options):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        with (
            brokers.Kafka(folder / "kafka") as kafka,
            running.Server(kafka.log(), *FLAGS) as server,
            exporting.spark() as spark,
        ):
            fill(options, server, kafka, folder)
            this = Proof(options, server, kafka, folder)
            types = {name for name, *_ in this.expected["types"]}
            if types != mixture.EVENT_TYPES:
                raise checks.Broken(f"there are events of {types} only")
            return {
                "events": this.expected["whole"][0][0],
                "by_type": {name: count for name, count, *_ in this.expected["types"]},
                "layouts": this.layouts(spark),
                "jsonl": this.json_lines(),
                "filters": this.filters(),
                "splits": this.splits() or [column for _, column, _ in SPLITS],
            }


if __name__ == "__main__":
    running.prove("export", SIZES, proof)
