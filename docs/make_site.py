"""Makes the documentation as a site, in docs/site or the folder that is named: `make docs`.

The site is laid out as the repository is, so that links between pages are the same on both: the
README in front, the pages of docs/, notebooks as they were run, results of benchmarks, and the API
reference. What links to nothing stops the build.
"""

import logging
import pathlib
import re
import shutil
import sys
import tempfile

import mkdocs.commands.build
import mkdocs.config
import nbconvert
from pymdownx.slugs import slugify

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent
REPOSITORY = "https://github.com/keras-grow/keras_grow"
# What pages link to.
FILES = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "CITATION.cff",
    "tests/README.md",
    "docs/**/*.md",
    "docs/*.png",
    "docs/*.gif",
    "tutorials/*.ipynb",
    "tutorials/*.py",
    "benchmarks/results/*.md",
    "benchmarks/results/*.png",
)


def assemble(source: pathlib.Path) -> None:
    """Copies what the site is made of, and makes the API reference beside it."""
    for pattern in FILES:
        for path in ROOT.glob(pattern):
            inside = path.relative_to(ROOT)
            if inside.parts[:2] in (("docs", "api"), ("docs", "site")):
                continue
            copy = source / inside
            copy.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".ipynb":
                _convert(path, copy)
            elif path.suffix == ".md":
                copy.write_text(_linked(path.read_text(encoding="utf-8")), encoding="utf-8")
            else:
                shutil.copy(path, copy)
    sys.path.insert(0, str(HERE))
    import make_api

    make_api.main(source / "api")


def _convert(notebook: pathlib.Path, copy: pathlib.Path) -> None:
    """Writes a notebook as it was run as a page, its pictures beside it."""
    folder = f"{notebook.stem}_files"
    named = {"unique_key": notebook.stem, "output_files_dir": folder}
    page, found = nbconvert.MarkdownExporter().from_filename(str(notebook), resources=named)
    copy.with_suffix(".md").write_text(_linked(page), encoding="utf-8")
    for name, content in found["outputs"].items():
        picture = copy.parent / name
        picture.parent.mkdir(exist_ok=True)
        picture.write_bytes(content)


def _linked(page: str) -> str:
    """A page whose links to notebooks, and to sections as Jupyter calls them, are the site's."""
    page = re.sub(r"(\]\((?!https?:)[^)\s]+)\.ipynb\b", r"\1.md", page)
    return re.sub(r"\]\(#[^)\s]+\)", lambda link: link[0].lower(), page)


def title_of(page: pathlib.Path) -> str:
    """The heading of a page in Markdown."""
    lines = page.read_text(encoding="utf-8").splitlines()
    return next(line[2:] for line in lines if line.startswith("# "))


def navigation(source: pathlib.Path) -> list:
    """The pages in the order in which they are shown."""

    def pages(pattern: str) -> list:
        found = sorted(source.glob(pattern))
        return [{title_of(path): path.relative_to(source).as_posix()} for path in found]

    return [
        {"keras_grow": "README.md"},
        {"Tutorials": pages("tutorials/*.md")},
        {"Guides": [*pages("docs/*.md"), *pages("docs/coming_from/*.md")]},
        {"Gallery": pages("docs/gallery/*.md")},
        {"API": "api/index.html"},
        {"Benchmarks": pages("benchmarks/results/*.md")},
        {
            "Project": [
                {"Changes": "CHANGELOG.md"},
                {"Contributing": "CONTRIBUTING.md"},
                {"What is promised, and what proves it": "tests/README.md"},
            ]
        },
    ]


def build(source: pathlib.Path, site: pathlib.Path) -> None:
    """Builds the site; raises `SystemExit` where a page links to nothing."""
    # Lines of code of 100 characters stand without a scroll bar.
    (source / "wide.css").write_text(".md-grid { max-width: 78rem; }\n")
    config_file = source.parent / "mkdocs.yml"
    config_file.write_text("site_name: keras_grow\n")
    config = mkdocs.config.load_config(
        str(config_file),
        docs_dir=str(source),
        site_dir=str(site),
        strict=True,
        use_directory_urls=False,
        repo_url=REPOSITORY,
        edit_uri="",
        nav=navigation(source),
        theme={
            "name": "material",
            "font": False,  # None is fetched from elsewhere.
            "features": ["navigation.tabs", "navigation.top", "content.code.copy", "toc.follow"],
            "palette": [
                {
                    "media": f"(prefers-color-scheme: {scheme})",
                    "scheme": name,
                    "toggle": {"icon": f"material/weather-{icon}", "name": f"To {other} colors"},
                }
                for scheme, name, icon, other in (
                    ("light", "default", "sunny", "dark"),
                    ("dark", "slate", "night", "light"),
                )
            ],
        },
        markdown_extensions=[
            "admonition",
            "tables",
            "pymdownx.superfences",
            "pymdownx.highlight",
            {"pymdownx.arithmatex": {"generic": True}},
            {"toc": {"permalink": True, "slugify": slugify(case="lower")}},
        ],
        plugins=["search"],
        extra_css=["wide.css"],
        extra_javascript=["https://cdn.jsdelivr.net/npm/mathjax@3/es5/tex-mml-chtml.js"],
        validation={
            "omitted_files": "ignore",
            "absolute_links": "warn",
            "unrecognized_links": "warn",
            "anchors": "warn",
        },
    )
    mkdocs.commands.build.build(config)


def main(site: pathlib.Path) -> None:
    """Makes the site from nothing."""
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "source"
        assemble(source)
        build(source, site)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else HERE / "site")
