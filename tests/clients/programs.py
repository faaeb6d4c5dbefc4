"""The programs that run the scenarios, one for each column of the table in clients/README.md."""

import dataclasses
import os
import pathlib
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
    # What its server is started with besides.
    flags: tuple[str, ...] = ()


# The schema as Python modules, as clients/python/README.md has it.
PYTHON_BUILD = [
    sys.executable,
    *"-m grpc_tools.protoc -I../proto --python_out=. --pyi_out=. --grpc_python_out=.".split(),
    "herald/game/v1/game.proto",
]

# As clients/typescript/README.md has it, and the pages.
TYPESCRIPT_BUILD = ["npm", "run", "--silent", "from-nothing"]

# An older Go fetches the one that the client wants.
os.environ.setdefault("GOTOOLCHAIN", "auto")

# A JVM that starts fast rather than one that becomes fast.
JAVA = ["java", "-XX:TieredStopAtLevel=1", "-cp"]
JAVA += ["target/classes:target/test-classes:target/dependency/*"]
MAVEN = ["mvn", "--batch-mode", "--quiet"]

# As scripts/test has it, so that nothing is built twice.
CACHE = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
os.environ.setdefault("CARGO_TARGET_DIR", f"{CACHE}/herald/target")
EXAMPLES = pathlib.Path(os.environ["CARGO_TARGET_DIR"], "debug", "examples")
CARGO = {name: ["cargo", name, "--locked", "--features", "export"] for name in ("build", "test")}

# By the head of the column of the table.
PROGRAMS = {
    "Python": Program("python", [sys.executable, "scenarios.py"], PYTHON_BUILD),
    "Python, asyncio": Program(
        "python", [sys.executable, "scenarios.py", "--asyncio"], PYTHON_BUILD
    ),
    "TypeScript, Node": Program(
        "typescript", ["node", "dist/scenarios/node.js"], TYPESCRIPT_BUILD
    ),
    # The page that calls is of another origin.
    "TypeScript, Chromium": Program(
        "typescript",
        [sys.executable, str(running.REPOSITORY / "tests/clients/in_chromium.py"), "pages"],
        TYPESCRIPT_BUILD,
        flags=("--cors=loopback",),
    ),
    "Go": Program("go", ["bin/scenarios"], "go build -o bin/ ./example ./scenarios".split()),
    "Kotlin": Program("kotlin", [*JAVA, "scenarios.ScenariosKt"], [*MAVEN, "test-compile"]),
    "Rust": Program(
        "rust",
        [str(EXAMPLES / "client-scenarios")],
        [*CARGO["build"], "--example", "client-scenarios"],
    ),
}

# What runs a client's own tests, by folder, once its programs are built: for what no scenario
# reaches.
OWN_TESTS = {
    "go": [str(running.REPOSITORY / "scripts" / "go")],
    "kotlin": [*MAVEN, "test"],
    "python": [sys.executable, "-m", "pytest", "-q"],
    "typescript": ["npm", "test"],
    "rust": [*CARGO["test"], "--lib", "client::"],
}

FOLDERS = sorted({program.folder for program in PROGRAMS.values()})
