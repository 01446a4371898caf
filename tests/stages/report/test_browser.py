"""A browser opens the page from disk: every picture decodes, every drawing has a size, nothing is fetched."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from hand_made import config

from children import HANG_S
from lwd.stages.report import write_page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PROBE = """<script>addEventListener("load", () => {
  const images = [...document.images], drawings = [...document.querySelectorAll("svg")], root = document.documentElement
  root.dataset.images = images.filter(image => image.naturalWidth > 0).length + "/" + images.length
  root.dataset.drawings = drawings.filter(svg => svg.getBBox().width > 100).length + "/" + drawings.length
  root.dataset.fetched = performance.getEntriesByType("resource").filter(e => !e.name.startsWith("data:")).length
  root.dataset.overflow = root.scrollWidth - root.clientWidth
})</script></body>"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on the PATH")
@pytest.mark.parametrize("width", [1200, 500])
def test_it_opens_in_a_browser(output, tmp_path, width):
    page = write_page(config(output))
    probed = tmp_path / "probed.html"
    probed.write_text(page.read_text().replace("</body>", PROBE))
    size, profile = f"--window-size={width},4000", f"--user-data-dir={tmp_path / 'profile'}"
    command = [BROWSER, *FLAGS, profile, size, "--dump-dom", probed.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, check=True).stdout
    data = dict(re.findall(r'data-(images|drawings|fetched|overflow)="([^"]*)"', dom.split(">", 2)[1] + ">"))
    images, drawings = 4 + 3 * 3 * 3 * 5, 12  # sheets; variants x samples x rows x states
    assert data == {
        "images": f"{images}/{images}",
        "drawings": f"{drawings}/{drawings}",
        "fetched": "0",
        "overflow": "0",
    }
    assert "The learned schedule" in dom and "Which part forms first?" in dom
