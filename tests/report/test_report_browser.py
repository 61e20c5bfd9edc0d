"""The page in a real browser: no error in the console, no network request, no sideways scroll."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from bpqp_portfolio.report.figures import PLOTS
from bpqp_portfolio.report.page import SECTIONS, write_report

pytestmark = pytest.mark.browser

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--allow-file-access-from-files",
    "--enable-logging=stderr",
)


@dataclass(frozen=True)
class Visit:
    """What one visit left: the document, the console's lines, addresses the page asked for."""

    dom: str
    console: list[str]
    requests: list[str]


def visit(chromium: str, page: Path, scratch: Path, width: int = 1280) -> Visit:
    log = scratch / "net.json"
    command = [
        chromium,
        *FLAGS,
        f"--user-data-dir={scratch / 'profile'}",
        f"--log-net-log={log}",
        f"--window-size={width},900",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    events = json.loads(log.read_text())["events"]
    params = [event.get("params") or {} for event in events]
    # The browser itself also asks its maker for updates; those requests have no origin.
    requests = [
        p["url"]
        for p in params
        if isinstance(p.get("url"), str)
        and p.get("initiator", "not an origin") != "not an origin"
        and p["url"].startswith(("http", "ws", "ftp"))
    ]
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return Visit(done.stdout, console, requests)


@pytest.fixture(scope="module")
def page(run, tmp_path_factory) -> Path:
    return write_report(run, tmp_path_factory.mktemp("page") / "report.html")


def test_the_check_itself_sees_errors_and_requests(chromium, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<!DOCTYPE html><img src="http://127.0.0.1:9/planted.png"><script>absent()</script>'
    )
    seen = visit(chromium, bad, tmp_path)
    assert seen.requests == ["http://127.0.0.1:9/planted.png"]
    assert len(seen.console) == 1 and "absent is not defined" in seen.console[0]


def test_it_renders_without_errors_and_without_the_network(chromium, page, tmp_path):
    seen = visit(chromium, page, tmp_path)
    assert seen.console == []
    assert seen.requests == []
    for key in (*SECTIONS, *(f"figure-{plot.key}" for plot in PLOTS)):
        assert f'id="{key}"' in seen.dom
    assert seen.dom.count("<svg") == 2 * len(PLOTS)
    assert seen.dom.rstrip().endswith("</html>")


@pytest.mark.parametrize("width", [360, 700, 1280])
def test_no_sideways_scroll_and_the_fitting_figures(chromium, page, tmp_path, width):
    # A frame has a width of its own, however narrow; a headless window does not go below 500.
    frame = tmp_path / "frame.html"
    frame.write_text(f"""<!DOCTYPE html>
<iframe src="{page.as_uri()}" style="width: {width}px; height: 800px; border: 0"></iframe>
<script>
document.querySelector("iframe").onload = event => {{
  const inner = event.target.contentDocument;
  const shown = side => [...inner.querySelectorAll("figure ." + side + " svg")]
    .filter(svg => svg.getBoundingClientRect().height > 50).length;
  document.title = ["measured", inner.documentElement.scrollWidth, shown("wide"),
    shown("narrow")].join(" ");
}};
</script>""")
    seen = visit(chromium, frame, tmp_path, 1400)
    measured = re.search(r"<title>measured (\d+) (\d+) (\d+)</title>", seen.dom)
    assert measured, seen.console
    scroll, wide, narrow = map(int, measured.groups())
    assert scroll <= width
    assert (wide, narrow) == ((len(PLOTS), 0) if width > 600 else (0, len(PLOTS)))
