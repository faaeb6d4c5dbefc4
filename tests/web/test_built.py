"""What is built of the page, and what the documentation says of it."""

import re

import running

WEB = running.REPOSITORY / "web"


def test_the_documentation_has_the_sizes():
    page = (running.REPOSITORY / "docs" / "web.md").read_text()
    rows = re.findall(r"^\| `([\w./]+)` \| ([\d,]+) \|", page, re.MULTILINE)
    documented = {name: int(size.replace(",", "")) for name, size in rows}
    files = [file for file in (WEB / "dist").rglob("*") if file.is_file()]
    built = {str(file.relative_to(WEB / "dist")): file.stat().st_size for file in files}
    assert documented == built


def test_the_documentation_has_the_bound():
    source = (WEB / "src" / "ring.ts").read_text()
    bound = re.search(r"MAX_ROWS = ([\d_]+)", source)[1].replace("_", ",")
    assert f"newest {bound} rows" in (running.REPOSITORY / "docs" / "web.md").read_text()
