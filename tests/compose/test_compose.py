"""docker-compose.yml is what it says, as far as that shows without Docker.

Docker Compose itself reads the file, herald checks the settings that it gets there,
and Kafka starts with the settings that it gets there, through the same class that
prepares a start in Kafka's image. What is not shown: that the images can be pulled
and built.
"""

import json
import os
import re
import shlex
import socket
import subprocess
import time

import pytest

import running

# A broker is up in a few seconds, and a tool has ended. What takes longer hangs.
SECONDS = 90
# The least that the image's start takes for a configuration of log lines.
LOGGING = "Configuration: {Loggers: {Root: {level: info}, Logger: []}}"
KAFKA = running.REPOSITORY / "scripts" / "kafka"


def run(*command, **options):
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        **options,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


def composed(*flags):
    """The services, as Docker Compose understands them. scripts/test sets COMPOSE."""
    compose = shlex.split(os.environ.get("COMPOSE", "docker compose"))
    file = running.REPOSITORY / "docker-compose.yml"
    words = [*compose, "--file", file, *flags, "config", "--format", "json"]
    return json.loads(run(*words))["services"]


@pytest.fixture(scope="module")
def services():
    return composed()


def listeners(text):
    """NAME://HOST:PORT,… by name."""
    return dict(one.split("://") for one in text.split(","))


def serve_help():
    return run(running.binary(), "serve", "--help", env=running.environment())


def test_ports_are_published_on_loopback_only(services):
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}


def test_kafka_can_be_reached_from_both_sides(services):
    kafka = services["kafka"]
    advertised = listeners(kafka["environment"]["KAFKA_ADVERTISED_LISTENERS"])
    assert services["herald"]["environment"]["HERALD_KAFKA_BROKERS"] == advertised["INTERNAL"]
    published = [f"{port['host_ip']}:{port['published']}" for port in kafka["ports"]]
    assert [advertised["HOST"]] == published


def test_kafka_keeps_its_data_and_says_when_it_is_healthy(services):
    kafka = services["kafka"]
    volumes = {v["target"]: v["type"] for v in kafka["volumes"]}
    assert volumes[kafka["environment"]["KAFKA_LOG_DIRS"]] == "volume"
    assert kafka["environment"]["KAFKA_LOG_RETENTION_MS"] == "-1"
    assert kafka["healthcheck"]["test"][0] == "CMD"
    assert services["herald"]["depends_on"]["kafka"]["condition"] == "service_healthy"


def test_the_kafka_here_and_there_is_the_same(services):
    lib = (running.REPOSITORY / "scripts" / "lib.sh").read_text()
    version = re.search(r"^kafka_version=(.+)$", lib, re.MULTILINE)[1]
    assert services["kafka"]["image"] == f"apache/kafka:{version}"


def test_herald_takes_its_settings(services):
    environment = services["herald"]["environment"]
    known = re.findall(r"\[env:\s+(HERALD_\w+)=", serve_help())
    assert set(environment) - set(known) == set(), "not settings of herald serve"
    run(running.binary(), "serve", "--check-config", env=running.environment() | environment)


def test_herald_gets_the_time_to_stop(services):
    stop = re.search(r"\[env:\s+HERALD_STOP_TIMEOUT=\]\s+\[default:\s+(\d+)s\]", serve_help())
    grace = re.fullmatch(r"(\d+)s", services["herald"]["stop_grace_period"])
    assert "HERALD_STOP_TIMEOUT" not in services["herald"]["environment"]
    assert int(grace[1]) > int(stop[1])


class Moved:
    """Addresses of the containers, each on a free port of loopback instead."""

    def __init__(self):
        self.ports = {}

    def __call__(self, text):
        return re.sub(r"\b(?:kafka|localhost|0\.0\.0\.0|127\.0\.0\.1):(\d+)", self._address, text)

    def _address(self, found):
        if found[1] not in self.ports:
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.ports[found[1]] = free.getsockname()[1]
        return f"127.0.0.1:{self.ports[found[1]]}"


def wait_for_port(address, process, log):
    host, port = address.split(":")
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the broker has ended:\n{log.read_text()}"
        try:
            socket.create_connection((host, int(port)), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"the broker does not answer:\n{log.read_text()}")


def test_kafka_starts_with_its_settings(services, tmp_path):
    kafka = services["kafka"]
    moved = Moved()
    settings = {name: moved(value) for name, value in kafka["environment"].items()}
    settings["KAFKA_LOG_DIRS"] = str(tmp_path / "data")
    # What the image does when it starts: settings from the environment into a file,
    # and an empty data folder made ready. It has defaults, here there are none: what
    # is not in the compose file is not there.
    folders = {name: tmp_path / name for name in ("default", "mounted", "final")}
    for folder in folders.values():
        folder.mkdir()
    for name in ("log4j2.yaml", "tools-log4j2.yaml"):
        (folders["default"] / name).write_text(LOGGING)
    run(
        *(KAFKA, "tool", "kafka.docker.KafkaDockerWrapper", "setup"),
        *(f"--{name}-configs-dir={folder}" for name, folder in folders.items()),
        env=os.environ | settings,
    )
    log = tmp_path / "log"
    with log.open("w") as output:
        broker = subprocess.Popen(
            [KAFKA, "tool", "kafka.Kafka", folders["final"] / "server.properties"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        host = listeners(settings["KAFKA_ADVERTISED_LISTENERS"])["HOST"]
        wait_for_port(host, broker, log)
        # The health check, by the class behind the script.
        script, *arguments = kafka["healthcheck"]["test"][1:]
        assert script == "/opt/kafka/bin/kafka-broker-api-versions.sh"
        tool = "org.apache.kafka.tools.BrokerApiVersionsCommand"
        run(KAFKA, "tool", tool, *map(moved, arguments))
        # As a program on the machine uses it.
        topics = (KAFKA, "tool", "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", host)
        run(*topics, "--create", "--topic", "events")
        assert run(*topics, "--list").split() == ["events"]
    finally:
        broker.terminate()
        try:
            broker.wait(SECONDS)
        except subprocess.TimeoutExpired:
            broker.kill()
            broker.wait()
