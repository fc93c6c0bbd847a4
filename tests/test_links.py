"""Links between the pages of the repository lead somewhere."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FOLDERS = ("docs", "tests", "benchmarks", "tutorials", ".github")
PAGES = sorted(
    [*ROOT.glob("*.md"), *(page for name in FOLDERS for page in (ROOT / name).rglob("*.md"))]
)


def anchors_of(text: str) -> set[str]:
    """What GitHub lets a link name in a page: its headings, in lower case and with hyphens."""
    anchors: set[str] = set()
    for heading in re.findall(r"^#{1,6} (.+)$", without_code_blocks(text), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = 1
        anchor = slug
        while anchor in anchors:
            anchor, number = f"{slug}-{number}", number + 1
        anchors.add(anchor)
    return anchors


def links_of(text: str) -> list[str]:
    """Where the links and pictures of a page lead, but those to other sites."""
    bare = re.sub(r"`[^`\n]*`", "", without_code_blocks(text))
    targets = re.findall(r"\]\(([^()\s]+)\)", bare)
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def without_code_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def broken(page: pathlib.Path) -> list[str]:
    """The links of a page that lead nowhere."""
    found = []
    for link in links_of(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            found.append(f"{link}: no such file")
        elif anchor and anchor not in anchors_of(target.read_text(encoding="utf-8")):
            found.append(f"{link}: no such heading")
    return found


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_link_of_a_page_leads_somewhere(page):
    assert broken(page) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "other.md").write_text("# A *title*, twice\n\n# A title, twice\n", "utf-8")
    page = tmp_path / "page.md"
    page.write_text(
        "[one](other.md) [two](other.md#a-title-twice-1) [three](https://keras.io)\n"
        "`[code](no.md)` [four](no.md) [five](other.md#no) ![a picture\nof six](no.png)\n"
        "```python\nx[0](none.md)\n```\n",
        "utf-8",
    )
    assert broken(page) == [
        "no.md: no such file",
        "other.md#no: no such heading",
        "no.png: no such file",
    ]
