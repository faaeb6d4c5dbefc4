"""Purchases, guilds and players over time: pictures, and a page that shows them."""

import html
import pathlib
import re

from pyspark.sql import Window
from pyspark.sql import functions as F

from herald_spark.problems import Problem
from herald_spark.topics import UNITS

# About so many steps are in a picture, unless the step is given.
STEPS = 40

# Steps that people think in, in seconds.
NICE = [1, 5, 10, 30, 60, 300, 900, 1_800, 3_600, 21_600, 86_400, 604_800]

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Herald: report</title>
<style>
body {{ font: 16px sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }}
img {{ max-width: 100% }} table {{ border-collapse: collapse }}
td, th {{ padding: .2em .8em; text-align: left; border-bottom: 1px solid #ccc }}
</style>
<h1>What happened</h1>
<p>{count} events from {first} to {last} (UTC), in steps of {step} s.</p>
{sections}
</html>
"""


def step_of(events, every):
    """The length of a step in seconds."""
    if every:
        found = re.fullmatch(r"([1-9]\d{0,5})([smhd])", every)
        if not found:
            raise Problem(f"{every!r} is no step in time: give one such as 30s, 5m, 1h or 1d")
        return int(found[1]) * UNITS[found[2]]
    seconds = events.selectExpr(
        "CAST(max(append_time) AS long) - CAST(min(append_time) AS long)"
    ).first()[0]
    return next((step for step in NICE if step * STEPS >= (seconds or 0)), NICE[-1])


def with_step(events, step):
    return events.withColumn("step", F.window("append_time", f"{step} seconds")["start"])


def purchases(events, step):
    """How much of each item was bought in each step, less what was taken back."""
    bought = F.coalesce(F.col("item_purchased.quantity"), -F.col("purchase_refunded.quantity"))
    item = F.coalesce(F.col("item_purchased.item_id"), F.col("purchase_refunded.item_id"))
    return (
        with_step(events, step)
        .where("item_purchased IS NOT NULL OR purchase_refunded IS NOT NULL")
        .groupBy(item.alias("name"), "step")
        .agg(F.sum(bought).alias("count"))
    )


def memberships(events, step):
    """By how many members each guild grew in each step. Who joins another guild leaves the old
    one; leaving a guild that one is not in changes nothing.
    """
    moves = with_step(events, step).where("guild_joined IS NOT NULL OR guild_left IS NOT NULL")
    # All events of a player are in one partition, and in order there.
    order = Window.partitionBy("player_id").orderBy("partition", "offset")
    before = F.lag("now").over(order)
    now = F.coalesce(F.col("guild_joined.guild_id"), F.lit(""))
    moves = moves.withColumn("now", now).withColumn("before", F.coalesce(before, F.lit("")))
    changes = moves.selectExpr("step", "inline(array(struct(now AS name, 1 AS one), "
                               "struct(before AS name, -1 AS one)))")  # fmt: skip
    return changes.where("name != ''").groupBy("name", "step").agg(F.sum("one").alias("count"))


def players(events, top):
    """Who spent most, with what was given back taken off."""
    spent = F.coalesce(
        F.col("item_purchased.total_price"), -F.col("purchase_refunded.total_price"), F.lit(0)
    )
    return (
        events.where("player_id != ''")
        .groupBy(F.col("player_id").alias("name"))
        .agg(F.sum(spent).alias("count"), F.count(F.lit(1)).alias("events"))
        .orderBy(F.desc("count"), "name")
        .limit(top)
    )


def series(rows, top, adds_up):
    """The largest by name: (times, values), each with every step in which there was anything."""
    totals, steps = {}, sorted({row["step"] for row in rows})
    values = {}
    for row in rows:
        totals[row["name"]] = totals.get(row["name"], 0) + row["count"]
        values[row["name"], row["step"]] = row["count"]
    found = {}
    for name in sorted(totals, key=lambda name: (-totals[name], name))[:top]:
        line, total = [], 0
        for step in steps:
            now = values.get((name, step), 0)
            total = total + now if adds_up else now
            line.append(total)
        found[name] = (steps, line)
    return found


def plain(text):
    """A name as a label: matplotlib would take what is between dollars for a formula."""
    return text.replace("$", r"\$")


def draw(path, title, unit, lines=None, bars=None):
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import dates, pyplot, ticker

    figure, axes = pyplot.subplots(figsize=(9, 4.5), layout="constrained")
    counts = axes.xaxis if bars else axes.yaxis
    counts.set_label_text(unit)
    counts.set_major_locator(ticker.MaxNLocator(integer=True))
    for name, (times, values) in (lines or {}).items():
        axes.plot(times, values, marker=".", label=plain(name))
    if lines:
        axes.legend()
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(axes.xaxis.get_major_locator()))
    if bars:
        axes.barh([plain(name) for name in bars][::-1], list(bars.values())[::-1])
    axes.set_title(title)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def table(heads, rows):
    def line(tag, cells):
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(c))}</{tag}>" for c in cells) + "</tr>"

    return "<table>" + line("th", heads) + "".join(line("td", row) for row in rows) + "</table>"


def report(events, out, every=None, top=10):
    """Writes the pictures and the page. Returns where the page is."""
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    events = events.persist()
    count, first, last = events.selectExpr(
        "count(1)", "string(min(append_time))", "string(max(append_time))"
    ).first()
    if not count:
        raise Problem("there are no events to report of")
    step = step_of(events, every)
    bought = series(purchases(events, step).collect(), top, adds_up=False)
    members = series(memberships(events, step).collect(), top, adds_up=True)
    spent = players(events, top).collect()
    events.unpersist()
    draw(out / "purchases.png", "Bought, less what was taken back", "items", lines=bought)
    draw(out / "guilds.png", "Growth of guilds", "more members", lines=members)
    bars = {row["name"]: row["count"] for row in spent}
    draw(out / "players.png", "Spent, less what was given back", "smallest coins", bars=bars)
    totals = [(name, sum(values)) for name, (_, values) in bought.items()]
    sizes = [(name, values[-1]) for name, (_, values) in members.items()]
    sections = [
        ("Purchases by item", "purchases.png", table(["item", "bought"], totals)),
        ("Guilds", "guilds.png", table(["guild", "more members"], sizes)),
        ("Players", "players.png", table(["player", "spent", "events"], spent)),
    ]
    text = "\n".join(
        f'<h2>{title}</h2>\n<img src="{picture}" alt="{title}">\n{numbers}'
        for title, picture, numbers in sections
    )
    page = out / "index.html"
    page.write_text(
        PAGE.format(count=count, first=first, last=last, step=step, sections=text),
        encoding="utf-8",
    )
    return page
