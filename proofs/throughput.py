"""A durable action costs little more than an empty call.

`herald bench write` runs its load against a server of its own and, in turn,
against the echo, a plain tonic handler that does nothing. What counts is the ratio
of the two in one run: calls per second depend on the machine. The gates apply to
the full size only, which takes a release build on a quiet machine, and also measures
the echo on a single-threaded runtime.
"""

import json

import checks
import running

SIZES = {
    "small": {"rounds": 1, "requests": 20_000, "gates": False},
    "full": {"rounds": 3, "requests": None, "gates": True},
}

# Name in the report, the bound, and which side of it is good.
GATES = [
    ("calls_per_second", 0.55, "at least"),
    ("server_cpu_per_call", 1.6, "at most"),
]


def gates(report):
    """The gates with what was measured, each as Herald's by the echo's."""
    echo = [ratio for ratio in report.get("ratios", []) if ratio.get("to") == "echo"]
    if len(echo) != 1:
        raise checks.Broken(f"the report does not compare with the echo: {json.dumps(report)}")
    found = []
    for name, bound, side in GATES:
        # The CPU time is null where the system does not tell it: not met.
        measured = echo[0][name]
        met = measured is not None and (
            measured >= bound if side == "at least" else measured <= bound
        )
        found.append({"ratio": name, side: bound, "measured": measured, "met": met})
    return found


def command(options):
    """What measures, of a server of its own beside the echo."""
    words = ["bench", "write", "--spawn", "--echo", "--json", "--rounds", options["rounds"]]
    if options["requests"]:
        return [*words, "--requests", options["requests"]]
    return [*words, "--echo-single-thread"]


def proof(options):
    report = json.loads(running.herald(*command(options)))
    measured = gates(report)
    return {"gates": measured if options["gates"] else [], "report": report}


if __name__ == "__main__":
    running.prove("throughput", SIZES, proof)
