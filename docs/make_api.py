"""Makes the API reference from docstrings, in docs/api or the folder that is named: `make docs`."""

import html
import pathlib
import re
import sys
import types

import pdoc

import keras_grow

HERE = pathlib.Path(__file__).parent


def main(folder: pathlib.Path) -> None:
    """Writes a page for the package, and one for each module among its public names."""
    public = [getattr(keras_grow, name) for name in keras_grow.__all__]
    modules = [value.__name__ for value in public if isinstance(value, types.ModuleType)]
    pdoc.render.configure(docformat="google", math=True, show_source=False)
    # The package brings its own modules along.
    others = [name for name in modules if name.count(".") > 1]
    pdoc.pdoc("keras_grow", *others, output_directory=folder)
    for page in folder.rglob("*.html"):
        page.write_text(_without_dead_links(page.read_text(encoding="utf-8")), encoding="utf-8")


def _without_dead_links(page: str) -> str:
    """A page without pdoc's links to what it leaves out: private bases, what has no docstring."""
    names = set(re.findall(r'id="([^"]+)"', page))
    return re.sub(
        r' href="#([^"]+)"', lambda link: link[0] if html.unescape(link[1]) in names else "", page
    )


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "api")
