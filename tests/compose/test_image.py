"""The Dockerfile, as far as it shows without building: what it copies is there, is
let through, and is all that the binary is built from; what it makes has no rights."""

import pathlib
import re
import tomllib

import pytest

import running

DOCKERFILE = running.REPOSITORY / "Dockerfile"


def instructions(text):
    """(NAME, ARGUMENTS) of each instruction; lines that go on are one."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def stages(text):
    """The instructions of each stage, FROM first."""
    found = []
    for name, arguments in instructions(text):
        if name == "FROM":
            found.append([])
        found[-1].append((name, arguments))
    return found


def values(stage, name):
    return [arguments for each, arguments in stage if each == name]


def copied(stage):
    """What the stage copies from the repository."""
    sources = []
    for arguments in values(stage, "COPY"):
        words = [word for word in arguments.split() if not word.startswith("--")]
        if "--from=" not in arguments:
            sources += words[:-1]
    return sources


def let_through(ignore):
    """What .dockerignore lets through: it ignores everything but a list."""
    lines = [line for line in ignore.splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*", "the first line ignores everything"
    assert all(re.fullmatch(r"![\w./-]+", line) for line in lines[1:])
    return [line[1:] for line in lines[1:]]


def sources_of_the_binary():
    """What the binary is built from, which cargo writes down beside it."""
    binary = pathlib.Path(running.binary())
    listed = binary.with_name("herald.d").read_text().split(": ", 1)[1]
    files = [pathlib.Path(file) for file in listed.split()]
    inside = [f.relative_to(running.REPOSITORY) for f in files if f.is_relative_to(running.REPOSITORY)]
    if not inside:
        pytest.fail(f"{binary} was built from another folder than {running.REPOSITORY}")
    return inside


@pytest.fixture
def build_and_last():
    found = stages(DOCKERFILE.read_text())
    assert len(found) == 2
    return found


def test_what_is_copied_is_there_and_let_through(build_and_last):
    build, last = build_and_last
    assert copied(last) == []
    assert copied(build)
    assert all((running.REPOSITORY / source).exists() for source in copied(build))
    ignore = (running.REPOSITORY / ".dockerignore").read_text()
    assert sorted(let_through(ignore)) == sorted(copied(build))


def test_what_is_copied_is_all_that_the_build_needs(build_and_last):
    here = [pathlib.Path(source) for source in copied(build_and_last[0])]
    needed = [*sources_of_the_binary(), pathlib.Path("Cargo.toml"), pathlib.Path("Cargo.lock")]
    missing = [n for n in needed if not any(n.is_relative_to(source) for source in here)]
    assert missing == []


def test_rust_is_that_of_the_manifest(build_and_last):
    manifest = tomllib.loads((running.REPOSITORY / "Cargo.toml").read_text())
    image = values(build_and_last[0], "FROM")[0].split()[0]
    assert image == f"rust:{manifest['package']['rust-version']}-bookworm"
    (built,) = [run for run in values(build_and_last[0], "RUN") if "cargo build" in run]
    assert "--release --locked" in built


def test_the_image_holds_the_binary_alone_and_has_no_rights(build_and_last):
    build, last = build_and_last
    assert values(last, "FROM") != values(build, "FROM")
    assert values(last, "RUN") == []
    (user,) = values(last, "USER")
    assert re.fullmatch(r"([1-9]\d*):([1-9]\d*)", user), "a number, and not root"
    (volume,) = values(last, "VOLUME")
    assert f"HERALD_DATA_DIR={volume}" in values(last, "ENV")
    assert any(f"--chown={user} " in c and c.endswith(volume) for c in values(last, "COPY"))
    (entrypoint,) = values(last, "ENTRYPOINT")
    assert entrypoint == '["/usr/local/bin/herald"]'
    assert any(copy.endswith(" /usr/local/bin/herald") for copy in values(last, "COPY"))


def test_instructions_and_stages_are_told_apart():
    text = "# a\nFROM x AS build\nRUN a && \\\n  b\n# c\nFROM y\nCOPY --from=build q /r\nCOPY s t /u\n"
    build, last = stages(text)
    assert build == [("FROM", "x AS build"), ("RUN", "a &&    b")]
    assert copied(last) == ["s", "t"]
