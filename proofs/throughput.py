"""A durable action costs little more than an empty call.

`herald bench write` runs its load against a server of its own and, in turn,
against the echo, a plain tonic handler that does nothing. What counts is the ratio
of the two in one run: calls per second depend on the machine. The gates apply to
the full size only, which takes a release build on a quiet machine.
"""

import json

import checks
import running

SIZES = {
    "small": {"rounds": 1, "requests": 2_000, "gates": False},
    "full": {"rounds": 3, "requests": None, "gates": True},
}

# Name in the report's "ratios", the bound, and whether more is better.
GATES = [
    ("calls_per_second", 0.55, "at least"),
    ("cpu_per_call", 1.6, "at most"),
]


def gates(report):
    """The gates with what was measured, both as durable action to echo."""
    found = []
    for name, bound, side in GATES:
        try:
            measured = float(report["ratios"][name])
        except (KeyError, TypeError):
            raise checks.Broken(f"no ratios.{name} in the report: {json.dumps(report)}") from None
        met = measured >= bound if side == "at least" else measured <= bound
        found.append({"ratio": name, side: bound, "measured": measured, "met": met})
    return found


def proof(options):
    command = ["bench", "write", "--spawn", "--echo", "--json", "--rounds", options["rounds"]]
    if options["requests"]:
        command += ["--requests", options["requests"]]
    report = json.loads(running.herald(*command))
    measured = gates(report)
    return {"gates": measured if options["gates"] else [], "ratios": measured, "report": report}


if __name__ == "__main__":
    running.prove("throughput", SIZES, proof)
