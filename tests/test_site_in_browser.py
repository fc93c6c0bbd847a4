"""Pages of the site as a browser shows them; skipped where there is no Chromium."""

import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
_BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--window-size=1200,2400",
    "--virtual-time-budget=5000",
)


def _seen(page, folder, *options):
    """The page's pixels from 0 to 1."""
    from matplotlib import image

    shot = folder / "seen.png"
    command = [_BROWSER, *_OPTIONS, *options, f"--user-data-dir={folder / 'user'}"]
    command += [f"--screenshot={shot}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return image.imread(shot)[..., :3]


@pytest.mark.slow
@pytest.mark.skipif(_BROWSER is None, reason="needs Chromium")
def test_pages_of_the_gallery_show_their_pictures(tmp_path):
    site = tmp_path / "site"
    subprocess.run([sys.executable, ROOT / "docs/make_site.py", site], check=True, cwd=ROOT)
    pages = sorted((site / "docs/gallery").rglob("*.html"))
    assert len(pages) == len(list((ROOT / "docs/gallery").glob("*.md")))
    for page in pages:
        with_pictures = _seen(page, tmp_path)
        without = _seen(page, tmp_path, "--blink-settings=imagesEnabled=false")
        is_other = np.any(np.abs(with_pictures - without) > 0.1, axis=-1)
        # Lines on white at the least; what is laid out otherwise without them, as well.
        assert np.sum(is_other) > 10_000, page
        assert np.std(without) > 0.05, f"{page} is blank"
