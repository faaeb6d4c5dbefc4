"""Which events, and what is rewritten in them."""

from functools import reduce

from pyspark.sql import functions as F

from herald_spark.problems import Problem


def any_of(column, values):
    return F.coalesce(column.isin(*values), F.lit(False))


def chosen(events, types=(), players=(), guilds=(), items=()):
    """As the feed chooses: one match within a kind is enough, and each kind that is given has to
    match. `items` is of the payload, whichever it is.
    """
    structs = {f.name: f.dataType for f in events.schema if hasattr(f.dataType, "names")}
    item_of = F.coalesce(
        *[F.col(f"{name}.item_id") for name, kind in structs.items() if "item_id" in kind.names]
    )
    conditions = [
        any_of(column, values)
        for column, values in (
            (F.col("event_type"), types),
            (F.col("player_id"), players),
            (F.col("guild_id"), guilds),
            (item_of, items),
        )
        if values
    ]
    return events.where(reduce(lambda a, b: a & b, conditions)) if conditions else events


def headers_of(texts):
    """NAME=VALUE, by name in lower case, as headers are kept."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name.strip() or not equals:
            raise Problem(f"--set-header takes NAME=VALUE, not {text!r}")
        found[name.strip().lower()] = value
    return found


def with_headers(events, headers):
    """The events with these headers in their origin: instead of what was there, or added. An event
    without an origin stays without.
    """
    if not headers:
        return events
    pairs = [F.lit(text) for pair in headers.items() for text in pair]
    others = F.map_filter(
        F.col("origin.headers"), lambda name, _: ~F.lower(name).isin(*headers)
    )
    origin = F.col("origin").withField("headers", F.map_concat(others, F.create_map(*pairs)))
    return events.withColumn("origin", F.when(F.col("origin").isNotNull(), origin))


def as_json(events):
    """A row as JSON, as far as it says something."""
    return F.to_json(F.struct(*[F.col(name) for name in events.columns if name != "raw_value"]))
