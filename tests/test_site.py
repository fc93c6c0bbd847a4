"""The site is made of the pages as they stand, and none of its links leads nowhere."""

import html.parser
import pathlib
import subprocess
import sys
import urllib.parse

import pytest

ROOT = pathlib.Path(__file__).parent.parent


class _Page(html.parser.HTMLParser):
    """What a page links to, and what can be linked to in it."""

    def __init__(self, path):
        super().__init__()
        self.links, self.names = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.names |= {given.get("id"), given.get("name")}
        self.links += [given[name] for name in ("href", "src") if given.get(name)]


def _dead_links(site):
    pages = {path: _Page(path) for path in sorted(site.rglob("*.html"))}
    found, count = [], 0
    for path, page in pages.items():
        for link in page.links:
            address = urllib.parse.urlsplit(link)
            if address.scheme or address.netloc:
                continue
            count += 1
            inside = urllib.parse.unquote(address.path)
            # From the root, as the page for those who are lost has them, or from the page.
            base = site if inside.startswith("/") else path.parent
            target = (base / inside.lstrip("/")).resolve() if inside else path
            target = target / "index.html" if target.is_dir() else target
            name = urllib.parse.unquote(address.fragment)
            is_dead = not target.exists()
            is_dead |= bool(name) and target in pages and name not in pages[target].names
            if is_dead:
                found.append(f"{path.relative_to(site)}: {link}")
    return found, count


@pytest.mark.slow
def test_no_link_of_the_site_is_dead(tmp_path):
    site = tmp_path.resolve() / "site"
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "make_site.py"), str(site)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found, count = _dead_links(site)
    assert not found
    assert count > 2000
    notebooks = {path.stem for path in (ROOT / "tutorials").glob("*.ipynb")}
    assert notebooks == {path.stem for path in (site / "tutorials").glob("*.html")}
    assert len(list((site / "tutorials").rglob("*.png"))) >= 2 * len(notebooks)
    assert (site / "api" / "keras_grow.html").exists()


def test_dead_links_are_found(tmp_path):
    site = tmp_path.resolve()
    (site / "a.html").write_text('<a href="b.html#here"></a><a href="#no"></a><p id="x">')
    (site / "b.html").write_text('<i id="here"></i><img src="none.png"><a href="/a.html#x"></a>')
    assert _dead_links(site) == (["a.html: #no", "b.html: none.png"], 4)
