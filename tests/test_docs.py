"""The pages that show code show code that runs."""

import pytest
import re

from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.mark.parametrize("page", ["extend.md", "spde.md"])
def test_the_examples_of_a_page_run(page):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.S)
    assert blocks
    namespace = {"__name__": page}
    for block in blocks:
        exec(compile(block, page, "exec"), namespace)


def test_every_page_is_in_the_table_of_contents():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    pages = {page.stem for page in DOCS.glob("*.md")} - {"index"}
    toctree = index.split("{toctree}")[1]
    assert pages == {line for line in toctree.split() if (DOCS / f"{line}.md").exists()}
