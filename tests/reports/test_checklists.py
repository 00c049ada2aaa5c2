"""What card and checklists claim of a model is what its record tells, or is left to a person."""

import re

import pytest
from test_model_card import full, section, table

from mammolens.judging.judge import model_of
from mammolens.judging.schema import Model, Report
from mammolens.model.bundle import BundleRecord, Learnt, find_bundle, open_bundle
from mammolens.reports.evaluation import CHECKLISTS, checklist, model_card

NAMES = ("TRIPOD+AI", "CLAIM 2024")
AUTHORS, MAKERS = CHECKLISTS["left"]["authors"], CHECKLISTS["left"]["makers"]

SUB_ITEMS = {3: "abc", 5: "ab", 6: "abc", 8: "abc", 9: "abc", 12: "abcdefg", 18: "abcdef"} | {
    20: "abc",
    23: "ab",
    27: "abc",
}
"""Of TRIPOD+AI (Collins et al. 2024, table 2): 52 in all."""


ONE = Learnt(
    network="baseline_cnn",
    data="drawn",
    started_from="random weights",
    optimizer="adam",
    monitor="loss",
)
OTHER = ONE.model_copy(update={"network": "efficientnet_lite0", "monitor": "nothing"})


def shipped(name: str, **changes: object) -> BundleRecord:
    return open_bundle(find_bundle(name)).record.model_copy(update=changes)


def reported(model: Model) -> Report:
    return full().model_copy(update={"model": model})


def with_bundle(*learnt: Learnt, **changes: object) -> Report:
    return reported(model_of(shipped("phantom", learnt=learnt or None, **changes)))


def said(report: Report, items: str, number: str) -> str:
    return {row[0]: row[2] for row in table(section(report, items))}[number]


def test_every_item_of_tripod_ai_is_there_once() -> None:
    numbers = [f"{number}{letter}" for number in range(1, 28) for letter in SUB_ITEMS.get(number, [""])]
    assert len(numbers) == 52
    assert [number for number, *_ in checklist("TRIPOD+AI", full())] == numbers
    assert [row[0] for row in table(section(full(), "TRIPOD+AI"))] == numbers


def test_every_item_of_claim_is_there_once() -> None:
    numbers = [str(number) for number in range(1, 45)]
    assert [number for number, *_ in checklist("CLAIM 2024", full())] == numbers
    assert [row[0] for row in table(section(full(), "CLAIM 2024"))] == numbers


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("report", [full(), with_bundle(ONE)], ids=["not recorded", "recorded"])
def test_an_item_is_answered_or_left_to_someone_by_name(name: str, report: Report) -> None:
    rows = table(section(report, name))
    assert [tuple(row) for row in rows] == checklist(name, report)
    for _, topic, words in rows:
        assert topic
        assert re.fullmatch(rf"(answered|{AUTHORS}|{MAKERS}): [^|]+", words), words


SCORES = reported(Model(name="theirs.csv"))
FOREIGN = with_bundle(
    training_data=shipped("phantom").training_data.model_copy(  # type: ignore[union-attr]
        update={"calibration_only": True}
    )
)
WAYS = {
    "the epoch is chosen on validation": (with_bundle(ONE), "epoch with the lowest loss", "one, "),
    "the last epoch is kept": (with_bundle(OTHER), "last epoch; validation chose none", "one, "),
    "two that differ": (
        with_bundle(ONE, OTHER),
        "lowest loss on validation and those of the last epoch",
        "mean of the logits of 2 networks (baseline_cnn and efficientnet_lite0)",
    ),
    "an older bundle": (with_bundle(), "not recorded", "not recorded"),
    "a file trained elsewhere": (FOREIGN, "not recorded", "not recorded"),
    "scores alone": (SCORES, "not recorded", "not recorded"),
}


@pytest.mark.parametrize("way", WAYS)
def test_how_weights_were_chosen_and_how_many_answer_is_what_was_recorded(way: str) -> None:
    report, choice, networks = WAYS[way]
    assert choice in said(report, "CLAIM 2024", "26")
    assert networks in said(report, "CLAIM 2024", "27")
    details = section(report, "Model details")
    assert choice in details
    assert networks in details
    if report.model.learnt is None:
        for number in ("23", "24", "25", "26", "27", "19"):
            assert said(report, "CLAIM 2024", number).startswith(MAKERS)


def test_what_ships_says_how_it_was_learnt() -> None:
    accurate, phantom = (reported(model_of(shipped(name))) for name in ("accurate", "phantom"))
    assert "those of the last epoch" in said(accurate, "CLAIM 2024", "26")
    assert "another network" in said(accurate, "CLAIM 2024", "24")
    assert "lowest loss on validation" in said(phantom, "CLAIM 2024", "26")
    for report in (accurate, phantom):
        assert "no ensemble" in said(report, "CLAIM 2024", "27")


def test_what_a_network_was_calibrated_on_is_not_called_what_it_learnt_from() -> None:
    data = section(FOREIGN, "Training data")
    assert "Learnt from: not recorded" in data
    assert "Calibrated on: phantom:250" in data
    assert "learnt from drawn" not in model_card(FOREIGN)
    assert "learnt from synthetic" not in model_card(FOREIGN)
    assert "Data set: phantom:250" in section(with_bundle(ONE), "Training data")


def test_scores_are_not_promised_what_only_a_bundle_has() -> None:
    for title in NAMES:
        assert "bundle.json" in section(full(), title)
        assert not re.search(r"bundle\.json|recipe\.toml|model\.onnx", section(SCORES, title))
        assert "nothing but scores is known" in section(SCORES, title)
    details = section(SCORES, "Model details")
    assert "gives an image a score" in details
    assert "cannot be read" not in details
    assert "no decision" not in details
    assert "marked" not in section(with_bundle(ONE, gate=None), "Model details")
    assert "no earlier images" not in section(SCORES, "Limitations")


def test_what_was_not_judged_is_not_called_answered() -> None:
    tried, untried = full(), full().model_copy(update={"robustness": (), "localisation": None})
    for number in ("30", "31"):
        assert said(tried, "CLAIM 2024", number).startswith("answered")
        assert said(untried, "CLAIM 2024", number).startswith(AUTHORS)
    assert "no machine is told" in said(tried, "TRIPOD+AI", "12d")
    group = tried.subgroups[0].model_copy(update={"variable": "machine_id"})
    told = tried.model_copy(update={"subgroups": (group,)})
    assert said(told, "TRIPOD+AI", "12d").startswith("answered")


def test_splits_are_by_patient_only_where_no_patient_is_on_both_sides() -> None:
    assert said(full(), "CLAIM 2024", "20").startswith("answered: not by patient")
    counts = full().counts.model_copy(update={"patients_also_in_training": 0})
    apart = full().model_copy(update={"counts": counts})
    assert said(apart, "CLAIM 2024", "20").startswith(AUTHORS)


def test_sections_that_are_pointed_at_exist() -> None:
    titles = re.findall(r"^## (.+)$", model_card(full()), flags=re.MULTILINE)
    for name in NAMES:
        for *_, words in checklist(name, full()):
            for place in re.findall(r"this card, ([a-z ]+)", words):
                assert any(title.startswith(place.strip().capitalize()) for title in titles), place
