"""The schema's modules, among those of others."""

import subprocess
import sys

import pytest

OTHER = """
syntax = "proto3";
package other.v1;
message Score {
  int64 points = 1;
}
"""

PROGRAM = """
from herald.game.v1 import game_pb2 as ours
import game_pb2 as theirs
assert ours.GameEvent().DESCRIPTOR.full_name == "game.v1.GameEvent"
assert theirs.Score(points=3).points == 3
"""


@pytest.mark.parametrize("herald_first", [True, False])
def test_a_second_game_proto_can_be_loaded(tmp_path, pytestconfig, herald_first):
    (tmp_path / "game.proto").write_text(OTHER)
    protoc = ["-m", "grpc_tools.protoc", f"-I{tmp_path}", f"--python_out={tmp_path}", "game.proto"]
    subprocess.run([sys.executable, *protoc], check=True)
    _, ours, theirs, *checks = PROGRAM.splitlines()
    imports = [ours, theirs] if herald_first else [theirs, ours]
    program = "\n".join([*imports, *checks])
    paths = f"{pytestconfig.rootpath}:{tmp_path}"
    subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": paths}, check=True)
