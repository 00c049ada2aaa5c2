"""The mammograms of a study, fetched from a DICOMweb server (PS3.18) into files."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dicomweb_client.api import DICOMwebClient
from pydicom.uid import BreastTomosynthesisImageStorage
from requests import RequestException, Session

from mammolens.errors import DataError
from mammolens.images.archives import Input

_CLASS, _SOP, _SERIES = "00080016", "00080018", "0020000E"  # SOP class and instance, series instance (PS3.18 F.2)


def fetched(url: str, study: str, series: str | None, folder: Path) -> Iterator[Input]:
    """Yield each mammogram of a study, once it is in `folder`, named by its SOP Instance UID.

    Credentials are those that `~/.netrc` has for the server. One that the server does not give, and each tomosynthesis,
    which is not read and not fetched, is yielded with its reason.

    Args:
        url: of the DICOMweb service, to which ``/studies`` is added.
        study: Study Instance UID.
        series: Series Instance UID; None: all series of the modality MG.
        folder: that is there.

    Raises:
        DataError: the server is not there, refuses, or does not know of mammograms in that study or series.
    """
    session = Session()
    session.max_redirects = 0  # no other server is asked
    client = DICOMwebClient(url.rstrip("/"), session=session)
    client.set_http_retry_params(retry=False)
    try:
        with warnings.catch_warnings(action="ignore"):  # they may quote what is odd
            found = _listed(client, study, series)
    except Exception as error:
        raise DataError(f"{url}: does not say what is in that study ({_kind(error)}).") from error
    if not found:
        raise DataError(f"{url}: has no mammogram in that study or series.")
    for number, (of_series, sop, kind) in enumerate(found):
        name, path = Path(sop), folder / f"{number:04d}.dcm"
        if kind == BreastTomosynthesisImageStorage:
            yield Input(name, path, problem="is a tomosynthesis, which is not read.")
            continue
        problem = None
        try:
            with warnings.catch_warnings(action="ignore"):
                client.retrieve_instance(study, of_series, sop).save_as(path, enforce_file_format=True)
        except Exception as error:  # noqa: BLE001 - pydicom has no one error for what makes no sense
            problem = f"could not be fetched ({_kind(error)})."
        yield Input(name, path, problem=problem)


def _listed(client: DICOMwebClient, study: str, series: str | None) -> list[tuple[str, str, str]]:
    """Return series, instance and class of each picture."""
    filters = {"Modality": "MG"} | ({} if series is None else {"SeriesInstanceUID": series})
    known = client.search_for_series(study, search_filters=filters)
    of_series = [_text(one, _SERIES) for one in known]
    listed = [(one, entry) for one in of_series for entry in client.search_for_instances(study, one)]
    return [(one, _text(entry, _SOP), _text(entry, _CLASS)) for one, entry in listed]


def _text(entry: dict[str, Any], tag: str) -> str:
    return str(entry[tag]["Value"][0])


def _kind(error: Exception) -> str:
    """Say what went wrong without a word of what was asked for."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"HTTP {status}" if isinstance(error, RequestException) and status else type(error).__name__
