"""The service does what its OpenAPI document says: Schemathesis asks for what it allows, and for what it does not."""

from collections.abc import Iterator
from typing import Any

import pytest
from asking import SLOW, served
from hypothesis import HealthCheck, given, settings

import brightness

schemathesis = pytest.importorskip("schemathesis", reason="pip install 'mammolens[dev]'")


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    place = tmp_path_factory.mktemp("service")
    with served(place / "log.txt", "--model", brightness.bundle(place / "bundle").folder) as (url, _):
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_it_does_what_its_document_says(document: Any, mode: Any) -> None:
    asked = []
    for found in document.get_all_operations():
        operation = found.ok()
        if mode is schemathesis.GenerationMode.NEGATIVE and operation.method == "get":
            continue  # nothing that could be wrong is sent

        @settings(max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck])
        @given(case=operation.as_strategy(generation_mode=mode))
        def asks(case: Any) -> None:
            asked.append(case.path)
            case.call_and_validate(timeout=SLOW)

        asks()
    assert {"/v1/predict", "/v1/dicom"} <= {*asked}
