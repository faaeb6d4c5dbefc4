"""A change of the schema that breaks clients is refused, and says which."""

import re
import shutil
import subprocess

import running


def breaking(folder):
    command = [running.REPOSITORY / "scripts" / "breaking", folder]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def copy_of_schema(tmp_path):
    return shutil.copytree(running.REPOSITORY / "proto", tmp_path / "proto")


def test_the_schema_as_it_is_breaks_nobody(tmp_path):
    done = breaking(copy_of_schema(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_removed_field_is_refused_and_named(tmp_path):
    folder = copy_of_schema(tmp_path)
    schema = (folder / "game.proto").read_text()
    changed, count = re.subn(
        r"(message PurchaseItemRequest \{.*?)  string player_id = 2;\n",
        r"\1",
        schema,
        count=1,
        flags=re.DOTALL,
    )
    assert count == 1, "the test no longer finds its field"
    (folder / "game.proto").write_text(changed)
    done = breaking(folder)
    assert done.returncode != 0
    assert '"player_id"' in done.stdout + done.stderr
    assert '"PurchaseItemRequest"' in done.stdout + done.stderr
