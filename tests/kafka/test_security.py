"""Kafka that encrypts and asks who is there."""

import concurrent.futures
import itertools

import pytest

# What is given to librdkafka for each way in; {} is filled with what scripts/kafka says.
SCRAM = """\
security.protocol=SASL_SSL
sasl.mechanism=SCRAM-SHA-512
sasl.username={username}
sasl.password={password}
ssl.ca.location={ca_file}
"""
PLAIN = SCRAM.replace("SCRAM-SHA-512", "PLAIN")
MUTUAL = """\
security.protocol=SSL
ssl.ca.location={ca_file}
ssl.certificate.location={client_cert}
ssl.key.location={client_key}
"""
# As many lines as one can ask for, librdkafka's about its configuration too.
DEBUG = ["--log=debug", "--kafka-config=debug=conf,security,broker"]
WRONG_PASSWORD = "a-wrong-password"


@pytest.fixture
def secured(kafka, herald, tmp_path):
    """Starts a Herald with a file of such properties, at the listener that they are for."""

    count = itertools.count()

    def start(properties, *flags, **changes):
        names = kafka.named | changes
        file = tmp_path / f"{next(count)}.properties"
        file.write_text(properties.format(**names))
        listener = "sasl_brokers" if "SASL" in properties else "ssl_brokers"
        return herald("--kafka-config-file", file, *flags, brokers=kafka.named[listener])

    return start


def test_each_way_in_leads_to_the_same_log(kafka, secured):
    servers = [secured(SCRAM), secured(PLAIN), secured(MUTUAL)]
    for server in servers:
        server.becomes_ready()
    bought = [server.buy("alice").event_id for server in servers]
    for server in servers:
        assert server.read().ids() == bought


def everything(server):
    """All that a server shows to anybody."""
    return server.said() + server.get("/metrics")[1] + server.get("/ready")[1]


def test_the_password_is_shown_nowhere(kafka, secured):
    server = secured(SCRAM, *DEBUG)
    server.becomes_ready()
    live = server.subscribe().opened()
    live.gets([server.buy("alice").event_id])
    # To be sure that there are lines about the configuration.
    server.line("sasl.username")
    assert kafka.named["password"] not in everything(server)


# What is wrong, and how the log names it. A certificate that did not sign the brokers' is
# no CA for them.
WRONG = {
    "password": (SCRAM, {"password": WRONG_PASSWORD}, "uthentication failed"),
    "password, plain": (PLAIN, {"password": WRONG_PASSWORD}, "uthentication failed"),
    "ca": (SCRAM, {"ca_file": "{client_cert}"}, "certificate verify failed"),
    "no client certificate": ("".join(MUTUAL.splitlines(True)[:2]), {}, "certificate"),
}


def test_what_is_wrong_is_named(kafka, secured):
    def start(properties, changes, says):
        changes = {name: text.format(**kafka.named) for name, text in changes.items()}
        return secured(properties, *DEBUG, **changes), says

    # At the same time, as each gives the brokers some seconds.
    with concurrent.futures.ThreadPoolExecutor() as threads:
        started = [threads.submit(start, *wrong) for wrong in WRONG.values()]
    for future in started:
        server, says = future.result()
        server.line(f"the log takes no writes.*{says}")
        server.is_up_and_serves_nothing()
        assert WRONG_PASSWORD not in everything(server)
