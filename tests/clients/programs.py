"""The programs that run the scenarios, one for each column of the table in clients/README.md."""

import dataclasses
import sys

import running

CLIENTS = running.REPOSITORY / "clients"


@dataclasses.dataclass(frozen=True)
class Program:
    """How a client's program is built and run; see scenarios.py for what it does."""

    # Below clients/; commands are run there.
    folder: str
    # The program. Its first word is a path or is found on the PATH.
    command: list[str]
    # Makes what the program needs; once for all programs of a folder, which have the same.
    build: list[str]


# The schema as Python modules, as clients/python/README.md has it.
PYTHON_BUILD = [
    sys.executable,
    *"-m grpc_tools.protoc -I../proto --python_out=. --pyi_out=. --grpc_python_out=.".split(),
    "herald/game/v1/game.proto",
]

# A JVM that starts fast rather than one that becomes fast.
JAVA = ["java", "-XX:TieredStopAtLevel=1", "-cp", "target/classes:target/test-classes:target/dependency/*"]
MAVEN_BUILD = "mvn --batch-mode --quiet test-compile".split()

# By the head of the column.
PROGRAMS = {
    "python": Program("python", [sys.executable, "scenarios.py"], PYTHON_BUILD),
    "python, asyncio": Program(
        "python", [sys.executable, "scenarios.py", "--asyncio"], PYTHON_BUILD
    ),
    "go": Program("go", ["bin/scenarios"], "go build -o bin/ ./example ./scenarios".split()),
    "kotlin": Program("kotlin", [*JAVA, "scenarios.ScenariosKt"], MAVEN_BUILD),
}
