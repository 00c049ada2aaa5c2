"""A viewer that others wrote (OHIF) shows results beside the pictures that they are of, out of the archive."""

import contextlib
import itertools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from loop import Orthanc, four_views, hospital, until

from mammolens.dicom_results.heat import BANDS

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[2]
OHIF = ROOT / "build" / "ohif" / "package" / "dist"
SETTINGS = """window.config = {
  routerBasename: '/', extensions: [], modes: [], showStudyList: true, defaultDataSourceName: 'archive',
  investigationalUseDialog: {option: 'never'},
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'archive',
    configuration: {
      friendlyName: 'archive', name: 'archive', wadoUriRoot: '/dicom-web', qidoRoot: '/dicom-web',
      wadoRoot: '/dicom-web', imageRendering: 'wadors', thumbnailRendering: 'wadors', enableStudyLazyLoad: true,
      supportsFuzzyMatching: false, supportsWildcard: true, singlepart: 'bulkdata',
      omitQuotationForMultipartRequest: true,
    },
  }],
};"""


class Viewer(SimpleHTTPRequestHandler):
    """OHIF, and behind it the archive's DICOMweb."""

    archive: Orthanc

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, directory=str(OHIF))

    def do_GET(self) -> None:
        if self.path.startswith("/dicom-web/"):
            asked = requests.get(self.archive.url + self.path, headers={"Accept": self.headers["Accept"]}, timeout=60)
            self._answer(asked.status_code, asked.headers.get("Content-Type", ""), asked.content)
        elif self.path == "/app-config.js":
            self._answer(200, "text/javascript", SETTINGS.encode())
        else:
            if not (OHIF / self.path.partition("?")[0][1:]).is_file():
                self.path = "/index.html"
            super().do_GET()

    def _answer(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def viewer(archive: Orthanc) -> Iterator[str]:
    """The viewer's address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), type("OfArchive", (Viewer,), {"archive": archive})) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.skipif(not OHIF.is_dir(), reason="no OHIF in build/ohif (make browser gets it from npm)")
def test_a_viewer_shows_results_beside_the_pictures(tmp_path: Path, browser: "Browser") -> None:
    study, files = four_views(tmp_path / "pictures", 1, 640)
    with hospital(tmp_path / "hospital") as (archive, _), viewer(archive) as url:
        archive.take(files)
        assert archive.pass_on(study)
        until(lambda: archive.results().get(study, {}).get("CAD report"), "a report")
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{url}/viewer?StudyInstanceUIDs={study}")
        page.set_default_timeout(120_000)
        for kind in ("capture L", "capture R", "heat L CC", "CAD report"):
            page.get_by_text(f"mammolens {kind}. For research use only").first.wait_for()
        page.get_by_text("Skip all").click()
        page.get_by_text("mammolens capture L. For research use only").first.dblclick()
        page.get_by_text("(1/2)").first.wait_for()  # it is drawn
        page.locator("[data-cy='panelSegmentation-btn']").click()
        page.get_by_text("mammolens heat L CC. For research use only").first.dblclick()
        page.get_by_text("Yes", exact=True).click()  # over its picture
        for low, high in itertools.pairwise((*BANDS, 1)):
            page.get_by_text(f"Map from {low} to {high}. Not a lesion outline").wait_for()
        page.wait_for_load_state("networkidle")
        shots = ROOT / "build" / "screenshots"
        shots.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=shots / "ohif.png")
        page.close()
