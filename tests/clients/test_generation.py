"""What makes the stubs: buf.gen.yaml for all languages at once, and those of the clients.

Their plugins run elsewhere, where no test can reach; those that are here too take their places.
"""

import json
import os
import re
import shutil
import subprocess

import pytest
import yaml

import running
from programs import CLIENTS
from stub import INCLUDES

OVERVIEW = running.REPOSITORY / "buf.gen.yaml"
TEMPLATES = sorted(CLIENTS.glob("*/buf.gen.yaml"))
SCHEMA = "herald/game/v1/game.proto"
SECONDS = 120

REMOTE = re.compile(r"buf\.build/(?P<name>[\w-]+/[\w-]+):v(?P<version>\d+(\.\d+)+)")
# Plugins that Go fetches and runs by itself, and what they are called elsewhere.
GO_RUN = re.compile(r"google\.golang\.org/.*/(?P<name>protoc-gen-[\w-]+)@v(?P<version>[\d.]+)")
GO_NAMES = {"protoc-gen-go": "protocolbuffers/go", "protoc-gen-go-grpc": "grpc/go"}

# What says in a client which version it is made with, or runs with. What is made must not be newer
# than what runs it; where the two are the same program it is the same version.
FITS = [
    ("protocolbuffers/go", "==", "go/go.mod", r"google\.golang\.org/protobuf v(.+)"),
    ("protocolbuffers/java", "==", "kotlin/pom.xml", r"<protobuf\.version>4\.(.+)<"),
    ("protocolbuffers/kotlin", "==", "kotlin/pom.xml", r"<protobuf\.version>4\.(.+)<"),
    ("grpc/java", "==", "kotlin/pom.xml", r"<grpc\.version>(.+)<"),
    ("grpc/kotlin", "==", "kotlin/pom.xml", r"<grpc\.kotlin\.version>(.+)<"),
    ("protocolbuffers/python", "<=", "python/requirements.txt", r"^protobuf==7\.(.+)"),
    ("protocolbuffers/pyi", "<=", "python/requirements.txt", r"^protobuf==7\.(.+)"),
    ("grpc/python", "<=", "python/requirements.txt", r"^grpcio==(.+)"),
    ("bufbuild/es", "==", "typescript/package.json", r'"@bufbuild/protoc-gen-es": "(.+)"'),
    # The oldest runtime that it may be installed with.
    ("bufbuild/es", "<=", "typescript/package.json", r'"@bufbuild/protobuf": "\^(.+)"'),
    ("apple/swift", "==", "swift/Package.swift", r'swift-protobuf\.git", from: "(.+)"'),
    (
        "grpc/swift-protobuf",
        "==",
        "swift/Package.swift",
        r'grpc-swift-protobuf\.git", from: "(.+)"',
    ),
    ("protocolbuffers/dart", "==", "dart/pubspec.yaml", r"protoc_plugin: \^(.+)"),
    (
        "protocolbuffers/csharp",
        "==",
        "csharp/Herald/Herald.csproj",
        r'"Google\.Protobuf" Version="3\.(.+?)"',
    ),
]
# The versions of these are counted otherwise than those of what runs what they make.
COUNTED_OTHERWISE = {
    "grpc/go",
    "grpc/csharp",
    "community/neoeinstein-prost",
    "community/neoeinstein-tonic",
}


def plugins(file):
    """The plugins of a template."""
    template = yaml.safe_load(file.read_text())
    assert template["version"] == "v2"
    return template["plugins"]


def pin(plugin):
    """The name of a plugin and its version; none for one that its package pins."""
    if "remote" in plugin:
        found = REMOTE.fullmatch(plugin["remote"])
        assert found, f"{plugin['remote']} has no whole version"
        return found["name"], found["version"]
    found = GO_RUN.search(" ".join(plugin["local"]))
    return (GO_NAMES[found["name"]], found["version"]) if found else None


def pins(file):
    return dict(filter(None, map(pin, plugins(file))))


def options(plugin):
    given = plugin.get("opt", [])
    return [given] if isinstance(given, str) else given


def numbers(version):
    return tuple(map(int, version.split(".")))


def test_the_overview_makes_something_of_each_client():
    template = yaml.safe_load(OVERVIEW.read_text())
    assert template["inputs"] == [{"directory": "clients/proto"}]
    folders = {plugin["out"].removeprefix("gen/") for plugin in template["plugins"]}
    clients = {folder.name for folder in CLIENTS.iterdir() if (folder / "README.md").is_file()}
    assert clients <= folders
    assert all("remote" in plugin for plugin in template["plugins"])


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda file: file.parent.name)
def test_a_client_has_the_plugins_of_the_overview(template):
    assert pins(template).items() <= pins(OVERVIEW).items()
    overview = {pin(plugin)[0]: plugin for plugin in plugins(OVERVIEW)}
    for plugin in plugins(template):
        if "remote" in plugin:
            assert options(plugin) == options(overview[pin(plugin)[0]])


@pytest.mark.parametrize("plugin, sign, manifest, pattern", FITS)
def test_what_is_made_fits_what_runs_it(plugin, sign, manifest, pattern):
    file = CLIENTS / manifest
    if not file.parent.is_dir():
        pytest.skip(f"there is no {file.parent.name}")
    there = re.search(pattern, file.read_text(), re.MULTILINE)
    assert there, f"{manifest} has no {pattern}"
    made, runs = numbers(pins(OVERVIEW)[plugin]), numbers(there[1])
    # 36 is 36.0.
    made += (0,) * (len(runs) - len(made))
    assert made == runs if sign == "==" else made <= runs


def test_each_plugin_is_looked_at():
    assert pins(OVERVIEW).keys() == {plugin for plugin, *_ in FITS} | COUNTED_OTHERWISE


@pytest.fixture(scope="module")
def protoc():
    path = os.environ.get("PROTOC") or shutil.which("protoc")
    if not path:
        raise FileNotFoundError("no protoc on the PATH; install it, or set PROTOC")
    return path


def test_buf_makes_what_the_overview_says(built, protoc, tmp_path):
    """With protoc's own generators, and that of the TypeScript client."""
    built("typescript")
    commands = CLIENTS / "typescript" / "node_modules" / ".bin"
    here = []
    for plugin in plugins(OVERVIEW):
        name, _ = pin(plugin)
        owner, generator = name.split("/")
        kept = {key: value for key, value in plugin.items() if key != "remote"}
        if name == "bufbuild/es":
            here.append({"local": str(commands / "protoc-gen-es"), **kept})
        elif owner == "protocolbuffers" and generator not in ("go", "dart"):
            here.append({"protoc_builtin": generator, "protoc_path": protoc, **kept})
    template = yaml.safe_load(OVERVIEW.read_text()) | {"plugins": here}
    subprocess.run(
        [commands / "buf", "generate", "--template", json.dumps(template), "--output", tmp_path],
        cwd=running.REPOSITORY,
        check=True,
        timeout=SECONDS,
    )
    for made in (
        "kotlin/com/herald/game/v1/PurchaseItemRequest.java",
        "kotlin/com/herald/game/v1/PurchaseItemRequestKt.kt",
        "python/herald/game/v1/game_pb2.py",
        "python/herald/game/v1/game_pb2.pyi",
        "typescript/herald/game/v1/game_pb.ts",
        "csharp/Game.cs",
    ):
        assert (tmp_path / "gen" / made).is_file(), made


@pytest.mark.parametrize(
    "language, file, name",
    [
        ("csharp", "Game.cs", "class PurchaseItemRequest :"),
        ("objc", "herald/game/v1/Game.pbobjc.h", "@interface GV1PurchaseItemRequest :"),
    ],
)
def test_protoc_alone_makes_the_messages(protoc, tmp_path, language, file, name):
    subprocess.run(
        [protoc, f"-I{CLIENTS / 'proto'}", INCLUDES[1], f"--{language}_out={tmp_path}", SCHEMA],
        check=True,
        timeout=SECONDS,
    )
    made = (tmp_path / file).read_text()
    assert name in made
    # The name by which the runtime knows the file.
    assert SCHEMA in made
