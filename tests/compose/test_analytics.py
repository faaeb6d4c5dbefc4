"""The profile `analytics` of docker-compose.yml, as far as it shows without Docker: Docker Compose
reads it, its versions are those that are tested, and the jobs that docs/spark.md runs in it are
jobs.
"""

import re
import shlex

import pytest

import running
from herald_spark import cli
from test_compose import composed


@pytest.fixture(scope="module")
def services():
    return composed("--profile", "analytics")


def repository_file(*names):
    return running.REPOSITORY.joinpath(*names).read_text()


def test_nothing_of_it_starts_unless_it_is_asked_for(services):
    assert set(services) - set(composed()) == {"schema", "namenode", "datanode", "spark"}


def test_the_jobs_get_the_topic_and_the_schema(services):
    environment = services["spark"]["environment"]
    assert environment["HERALD_KAFKA_BROKERS"] == (
        services["herald"]["environment"]["HERALD_KAFKA_BROKERS"]
    )
    assert environment["HERALD_DESCRIPTOR_SET"] in services["schema"]["command"]
    volumes = {v["target"]: v for v in services["spark"]["volumes"]}
    assert volumes["/schema"]["source"] == services["schema"]["volumes"][0]["source"]
    condition = services["spark"]["depends_on"]["schema"]["condition"]
    assert condition == "service_completed_successfully"


def test_the_command_for_the_schema_is_one(services, tmp_path):
    words = services["schema"]["command"]
    written = tmp_path / "game.desc"
    running.herald(*[written if word.startswith("/") else word for word in words])
    assert written.stat().st_size > 0


def test_spark_here_and_there_is_the_same():
    version = re.search(r"^spark_version=(.+)$", repository_file("scripts", "lib.sh"), re.MULTILINE)[1]
    assert f"pyspark=={version}\n" in repository_file("tests", "python", "requirements.txt")
    image = repository_file("analytics", "Dockerfile")
    assert f"FROM apache/spark:{version}-python3\n" in image
    for artifact in ("spark-sql-kafka-0-10", "spark-protobuf"):
        assert f"{artifact}_2.12:{version}" in image


def test_what_the_docs_run_in_it_are_jobs(services):
    docs = repository_file("docs", "spark.md")
    jobs = re.findall(r"^docker compose --profile analytics run --rm spark (.*)$", docs, re.MULTILINE)
    assert {line.split()[0] for line in jobs} == {"extract", "filter", "stream", "report"}
    root = services["namenode"]["environment"]["CORE-SITE.XML_fs.defaultFS"]
    for line in jobs:
        options = cli.parser().parse_args(shlex.split(line))
        assert options.out.startswith((root, "/reports"))
