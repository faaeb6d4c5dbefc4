"""An event reaches every live subscriber that asked for it, once, soon and at little cost.

`herald bench fanout` opens the subscribers against a server of its own, counts what each
of them gets, and fails when anything is lost or comes twice, also while one of them does
not read. The gates apply to the full size only, which takes a release build on a quiet
machine.
"""

import json

import running

# How many subscribers may be open beside those that are measured.
SPARE_SUBSCRIBERS = 1_000

SIZES = {
    "small": {
        "runs": {
            "unfiltered": {"subscribers": 50, "connections": 5, "rate": 50, "seconds": 2,
                           "warmup": 1, "idle": 1, "burst": 100, "stalled": 1},
            "player": {"subscribers": 50, "connections": 5, "rate": 50, "seconds": 2,
                       "warmup": 1, "idle": 1, "stalled": 1, "filter": "player"},
        },
        "gates": False,
    },
    "full": {
        "runs": {
            # Idle for longer than a heartbeat interval: what only the opening took has been
            # given back by then.
            "unfiltered": {"subscribers": 10_000, "connections": 100, "rate": 10, "seconds": 30,
                           "idle": 20},
            "player": {"subscribers": 10_000, "connections": 100, "rate": 10, "seconds": 30,
                       "idle": 20, "filter": "player"},
            "burst": {"subscribers": 10_000, "connections": 100, "rate": 50, "seconds": 20,
                      "burst": 1_000, "stalled": 1},
        },
        "gates": True,
    },
}  # fmt: skip

# Of a run: where in the report, the bound that it must not pass, and what it is in words.
# With a filter each, an event is delivered to one subscriber at the most: what counts then is
# what the others cost.
EACH = [
    (("steady", "latency_micros", "p99"), 50_000, "delivery, 99th percentile, µs"),
    (("idle", "bytes_per_subscriber"), 6_144, "memory by idle subscriber, bytes"),
]
GATES = {
    "unfiltered": [
        (("steady", "server_cpu_micros_per_delivery"), 1.2, "server CPU by delivery, µs"),
        *EACH,
    ],
    "player": [
        (("steady", "server_cpu_micros_per_event"), 1.2 * 10_000, "server CPU by event, µs"),
        *EACH,
    ],
}


def measure(options, *serve):
    """The report of one run, against a server started with the flags `serve`."""
    flags = [f"--{name}={value}" for name, value in options.items()]
    most = options["subscribers"] + SPARE_SUBSCRIBERS
    serve = [f"--max-subscribers={most}", *serve]
    flags += [f"--serve-arg={argument}" for argument in serve]
    return json.loads(running.herald("bench", "fanout", "--spawn", "--json", *flags))


def part(report, name):
    """A part of a report: a phase by its name, or anything else by its own."""
    phases = {phase["name"]: phase for phase in report["phases"]}
    return phases[name] if name in phases else report[name]


def gate(run, report, path, bound, what):
    """One gate with what was measured. What the system does not tell is not met."""
    measured = part(report, path[0])
    for name in path[1:]:
        measured = measured[name]
    met = measured is not None and measured <= bound
    return {"run": run, "what": what, "at most": bound, "measured": measured, "met": met}


def proof(options):
    reports = {name: measure(run) for name, run in options["runs"].items()}
    wanted = GATES if options["gates"] else {}
    gates = [gate(run, reports[run], *each) for run, gates in wanted.items() for each in gates]
    return {"gates": gates, "reports": reports}


if __name__ == "__main__":
    running.prove("fanout", SIZES, proof)
