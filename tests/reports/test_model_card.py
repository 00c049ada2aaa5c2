import json
import math
import re
from typing import Any

from mammolens.judging.schema import (
    AgeFigures,
    ConformalReport,
    Counts,
    Decision,
    LevelReport,
    Mistake,
    Model,
    PredictiveValues,
    Report,
    Robustness,
    Subgroup,
)
from mammolens.levels import Level
from mammolens.measures.curves import CalibrationReport, Curve, DecisionCurve, ReliabilityBin
from mammolens.measures.intervals import Estimate
from mammolens.measures.localisation import Localisation
from mammolens.records import LABEL_NAMES, Split
from mammolens.reports.evaluation import model_card

NOT_DEFINED = Estimate(math.nan, math.nan, math.nan)
HOSTILE = "<b>&\"'one_1.png"
ROWS = {
    "Subjects": ("{level}.subjects", "count"),
    "Patients": ("{level}.patients", "count"),
    "Tumors": ("{level}.tumors", "count"),
    "AUC": ("{level}.discrimination.roc_auc", "three"),
    "Average precision": ("{level}.discrimination.average_precision", "three"),
    "Sensitivity at 90 % specificity": (
        "{level}.discrimination.sensitivity_at_90_specificity",
        "percent",
    ),
    "Something new": ("{level}.discrimination.something_new", "three"),
    "Sensitivity, balanced": ("{level}.decisions.balanced.measures.sensitivity", "percent"),
    "Specificity, balanced": ("{level}.decisions.balanced.measures.specificity", "percent"),
    "Positive predictive value, balanced": (
        "{level}.decisions.balanced.measures.precision",
        "percent",
    ),
    "Calibration: Slope (ideal: 1)": ("{level}.calibration.slope", "three"),
    "Calibration: Intercept (ideal: 0)": ("{level}.calibration.in_the_large", "three"),
    "Calibration: Brier score": ("{level}.calibration.brier", "three"),
    "Calibration: Expected calibration error": (
        "{level}.calibration.expected_calibration_error",
        "three",
    ),
}


def figure(value: float) -> Estimate:
    """A different estimate for each value, none of them round."""
    return Estimate(value, value - 0.01234, value + 0.01357)


def decision(at: float) -> Decision:
    return Decision(
        threshold=at / 7,
        confusion=((1130 + round(100 * at), 557), (26, 86)),
        measures={
            name: figure(at + place / 100)
            for place, name in enumerate(("sensitivity", "specificity", "precision", "mcc"))
        },
        at_own_prevalence=PredictiveValues(prevalence=0.0622, positive=figure(0.134), negative=figure(0.978)),
        at_screening_prevalence=PredictiveValues(
            prevalence=0.005,
            positive=Estimate(0.0116, 0.0067, 0.0213),
            negative=Estimate(1.0, 0.99961, 1.0),
        ),
    )


def at_level(level: Level, at: float) -> LevelReport:
    return LevelReport(
        level=level,
        subjects=1799,
        patients=450,
        tumors=112,
        majority_accuracy=0.9377,
        discrimination={
            "roc_auc": figure(at),
            "average_precision": figure(at / 2),
            "sensitivity_at_90_specificity": figure(at / 3),
            "something_new": figure(-at / 4),
        },
        delong=figure(at + 0.0001),
        decisions={"balanced": decision(at), "sensitivity-90": decision(at + 0.1)},
        calibration=CalibrationReport(
            slope=figure(1.4 * at),
            in_the_large=figure(-0.6 * at),
            brier=figure(0.05),
            expected_calibration_error=figure(0.044),
            reliability=0.00163,
            resolution=0.0072,
            uncertainty=0.0584,
            bins=(
                ReliabilityBin(subjects=900, mean_probability=0.021, observed=figure(0.0131)),
                ReliabilityBin(subjects=899, mean_probability=0.318, observed=figure(0.297)),
            ),
        ),
        conformal=ConformalReport(
            promised=0.9,
            coverage={name: figure(0.9 + at / 30) for name in LABEL_NAMES},
            uncertain=figure(0.351),
            error=figure(0.152),
        ),
        roc=Curve(x=(0.0, 0.1, 1.0), y=(0.0, at, 1.0)),
        precision_recall=Curve(x=(0.0, at, 1.0), y=(1.0, 0.4, 0.06)),
        risk_coverage=Curve(x=(0.0, 0.5, 1.0), y=(0.0, 0.02, at / 3)),
        decision_curve=DecisionCurve(thresholds=(0.01, 0.02), model=(0.05, at / 30), treat_all=(0.05, 0.04)),
    )


def full() -> Report:
    """A report with every part filled."""
    groups = [
        Subgroup(
            variable="density",
            value=value,
            images=708,
            patients=177,
            tumors=40,
            roc_auc=figure(area),
            difference=figure(difference),
            p_value=p,
            adjusted=p,
            stands_out=p < 0.05,
        )
        for value, area, difference, p in (
            ("B", 0.891, 0.111, 0.0004),
            ("C <dense>", 0.77, -0.088, 0.021),
            ("D", 0.8, -0.0004, 0.567),
        )
    ]
    where = Localisation(images=60, patients=30, hit_rate=figure(0.58), chance_rate=0.054, iou=figure(0.196))
    return Report(
        model=Model(
            name="rsna-lite1-512 <b>",
            is_bundle=True,
            gate=True,
            licence="CC-BY-NC-4.0",
            training_data="RSNA 2022",
            training_images=40120,
            training_patients=8734,
            training_prevalence=0.0212,
            synthetic=True,
            calibration="platt",
        ),
        data="RSNA <2 sites>",
        split=Split.TEST,
        command="mammolens evaluate runs/rsna2 'data & more.csv' --split test",
        default_point="balanced",
        counts=Counts(
            images=1799,
            patients=450,
            tumors=112,
            without_label=1234,
            without_answer=1,
            not_like_training=17,
            patients_also_in_training=2,
        ),
        levels={
            Level.IMAGE: at_level(Level.IMAGE, 0.82149),
            Level.BREAST: at_level(Level.BREAST, 0.86551),
            Level.PATIENT: at_level(Level.PATIENT, 0.84707),
        },
        references={"age": figure(0.633), "metadata": figure(0.628)},
        subgroups=tuple(groups),
        with_age={
            level: AgeFigures(
                subjects=1733,
                patients=433,
                tumors=109,
                picture=figure(0.81 + place / 100),
                age=figure(0.62 + place / 100),
                both=figure(0.83 + place / 100),
                difference=figure(0.02 + place / 100),
            )
            for place, level in enumerate(Level)
        },
        localisation=where.model_copy(update={"by_label": {"tumor": where}}),
        robustness=(
            Robustness(
                change="JPEG, quality 70",
                images=400,
                patients=100,
                roc_auc=figure(0.811),
                drop=figure(0.0112),
                decisions_changed=figure(0.0431),
            ),
        ),
        mistakes=(
            Mistake(path=HOSTILE, truth="no tumor", probability=0.7801),
            Mistake(path="train/11288_L_CC.dcm", truth="tumor", probability=0.0292),
        ),
    )


def bare() -> Report:
    """A report of healthy images only, by image alone, of a system of which nothing is known."""
    one = at_level(Level.IMAGE, 0.8)
    empty = Curve(x=(), y=())
    undefined = decision(0.5).model_copy(
        update={
            "measures": dict.fromkeys(("sensitivity", "precision"), NOT_DEFINED) | {"specificity": figure(0.7)},
            "at_own_prevalence": PredictiveValues(prevalence=0, positive=NOT_DEFINED, negative=NOT_DEFINED),
        }
    )
    level = one.model_copy(
        update={
            "tumors": 0,
            "discrimination": dict.fromkeys(one.discrimination, NOT_DEFINED),
            "delong": NOT_DEFINED,
            "decisions": {"fixed": undefined},
            "calibration": None,
            "conformal": None,
            "roc": empty,
            "precision_recall": empty,
        }
    )
    return full().model_copy(
        update={
            "model": Model(name="scores.csv"),
            "data": "",
            "split": None,
            "command": "",
            "default_point": "fixed",
            "counts": Counts(
                images=9,
                patients=1,
                tumors=0,
                without_label=0,
                without_answer=0,
                not_like_training=0,
                patients_also_in_training=0,
            ),
            "levels": {Level.IMAGE: level},
            "references": {},
            "with_age": {},
            "subgroups": (),
            "localisation": None,
            "robustness": (),
            "mistakes": (),
        }
    )


def in_json(stored: object, path: str) -> Any:
    found: Any = stored
    for key in path.split("."):
        found = found[int(key)] if isinstance(found, list) else found[key]
    return found


def as_written(value: Any, form: str) -> str:
    """How a value must look: written down here a second time, on purpose."""
    if value is None:
        return "not told" if form == "text" else "not defined"
    if form == "text":
        return str(value)
    if form == "p" and value < 0.001:
        return "< 0.001"
    digits = {"three": 3, "p": 3, "probability": 4, "count": 0, "plain": 6}.get(form, 1)
    scale = 100 if form in ("percent", "hundredths") else 1
    if scale == 100:
        near = 100 * min(abs(value), abs(1 - value))
        digits = 2 if 0.01 <= near < 0.1 else 3 if 0.001 <= near < 0.01 else 1
    text = format(abs(value) * scale, f",.{digits}f" if form == "count" else f".{digits}f")
    text = text.rstrip("0").rstrip(".") if form == "plain" else text
    sign = "\N{MINUS SIGN}" if value < 0 and float(text.replace(",", "")) else ""
    return sign + text + (" %" if form == "percent" else "")


def section(report: Report, title: str) -> str:
    return model_card(report).split(f"\n## {title}\n")[1].split("\n## ")[0]


def table(text: str) -> list[list[str]]:
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return rows[2:]


def expected(found: Any, form: str) -> str:
    if not isinstance(found, dict):
        return as_written(found, form)
    if found["value"] is None:
        return "not defined"
    bare_form = "hundredths" if form == "percent" else form
    low, high = (as_written(found[edge], bare_form) for edge in ("low", "high"))
    return f"{as_written(found['value'], form)} ({low} to {high})"


def test_each_number_of_the_figures_is_that_of_the_json() -> None:
    stored = json.loads(full().model_dump_json())["levels"]
    rows = {name: cells for name, *cells in table(section(full(), "Figures"))}
    assert set(rows) == set(ROWS)
    for name, cells in rows.items():
        path, form = ROWS[name]
        values = [in_json(stored, path.format(level=level)) for level in Level]
        assert cells == [expected(value, form) for value in values], name


def test_other_numbers_are_those_of_the_json() -> None:
    made, stored = full(), json.loads(full().model_dump_json())
    groups = table(section(made, "Subgroups that stand out"))
    assert [row[0] for row in groups] == ["density B", "density C <dense>"]
    assert groups[1][1:] == [
        "708",
        "40",
        expected(stored["subgroups"][1]["roc_auc"], "three"),
        expected(stored["subgroups"][1]["difference"], "three"),
        "0.021",
    ]
    assert groups[0][-1] == "< 0.001"
    assert table(section(made, "Robustness")) == [
        [
            "JPEG, quality 70",
            "400",
            expected(stored["robustness"][0]["roc_auc"], "three"),
            expected(stored["robustness"][0]["drop"], "three"),
            expected(stored["robustness"][0]["decisions_changed"], "percent"),
        ]
    ]
    assert "In 60 images with boxes" in section(made, "Where it looked")
    assert "5.4 %" in section(made, "Where it looked")
    assert f"age alone: AUC {expected(stored['references']['age'], 'three')}" in model_card(made)
    both, more = (expected(stored["with_age"]["image"][name], "three") for name in ("both", "difference"))
    said = " ".join(section(made, "Figures").split())
    assert f"has an AUC by image of {both}; its difference from that of the picture alone" in said
    assert f"paired by patient, is {more}." in said
    assert "Where age is known" not in model_card(bare())
    assert "Images in training and validation: 40,120\n- Patients: 8,734" in section(made, "Training data")
    assert "Images: 1,799, of 450 patients; 112 with a tumor" in section(made, "Evaluation data")


def test_what_is_not_known_is_said() -> None:
    card = model_card(bare())
    assert "Calibration is not defined" in section(bare(), "Figures")
    for words in (
        "Licence: not told",
        "Pictures: not told",
        "validation: not told",
        "not named, all",
    ):
        assert words in card
    assert "None could be assessed" in section(bare(), "Subgroups that stand out")
    assert "Not tried" in section(bare(), "Robustness")
    assert "Not assessed" in section(bare(), "Where it looked")
    assert not re.search(r"\bnan\b|\bnull\b|\bNone\b(?! could)", card)
    assert "None stands out" in section(
        full().model_copy(update={"subgroups": full().subgroups[2:]}), "Subgroups that stand out"
    )


def test_warnings_stand_before_the_first_section() -> None:
    start = model_card(full()).split("\n## ")[0]
    assert "**Error**: 2 patients evaluated here" in start
    assert "**Error**: The model learnt from drawn" in start
    assert "**Note**: 1,234 images without a label" in start
    train = model_card(bare().model_copy(update={"split": Split.TRAIN})).split("\n## ")[0]
    assert "The training split is evaluated" in train
    assert "**Error**" not in model_card(bare())
