"""TRIPOD+AI and CLAIM, item by item: where a report answers, and what a person must write.

Numbers are the checklists'; topics are short names of our own, never the checklists' wording.
"""

from collections.abc import Callable
from typing import NamedTuple

from mammolens.judging.schema import Report
from mammolens.model.bundle import Learnt

REPORT, CARD = "report.html", "this card"
AUTHORS = "to be filled in by the authors"
MAKERS = "to be filled in by whoever made the model"

Told = Callable[[Report], str | None]
"""Where a report answers an item, or None where it does not."""


class Item(NamedTuple):
    """One item of a checklist.

    Attributes:
        number: as in the checklist, such as ``12e``.
        topic: in a few words.
        told: where it is answered; derived from the report, which has it from the bundle's record.
        left: who answers it otherwise, and with what.
    """

    number: str
    topic: str
    told: Told
    left: str

    def row(self, report: Report) -> str:
        """Return the item as a row of a Markdown table."""
        told = self.told(report)
        return f"| {self.number} | {self.topic} | {f'answered: {told}' if told else self.left} |"


def _answered(number: str, topic: str, *where: str) -> Item:
    return Item(number, topic, lambda _: "; ".join(where), "")


def _left(number: str, topic: str, what: str) -> Item:
    return Item(number, topic, lambda _: None, f"{AUTHORS}: {what}")


def _bundled(number: str, topic: str, where: str) -> Item:
    """Return an item that the files of a bundle answer, where there is one."""
    return Item(
        number,
        topic,
        lambda report: where if report.model.is_bundle else None,
        f"{MAKERS}: nothing but scores is known here",
    )


def _learnt(number: str, topic: str, say: Callable[[tuple[Learnt, ...]], str]) -> Item:
    """Return an item that the record of learning answers, where the bundle holds one."""
    return Item(
        number,
        topic,
        lambda report: say(report.model.learnt) if report.model.learnt else None,
        f"{MAKERS}: how it was learnt is not recorded",
    )


def _if(number: str, topic: str, known: Callable[[Report], object], where: str, left: str) -> Item:
    """Return an item that is answered where something was judged."""
    return Item(number, topic, lambda report: where if known(report) else None, left)


def _each(names: tuple[str, ...]) -> str:
    return " and ".join(dict.fromkeys(names))


def choice_of_weights(learnt: tuple[Learnt, ...]) -> str:
    """Return how the weights of each network were chosen."""
    chosen = {
        "loss": "those of the epoch with the least loss on validation",
        "auc": "those of the epoch with the largest AUC on validation",
        "nothing": "those of the last epoch; validation chose none",
    }
    at_once = "found at once, by logistic regression; there is no epoch to choose"
    return _each(tuple(at_once if one.optimizer == "lbfgs" else chosen[one.monitor] for one in learnt))


def networks_that_answer(learnt: tuple[Learnt, ...]) -> str:
    """Return how many networks answer, and which."""
    names = _each(tuple(one.network for one in learnt))
    if len(learnt) == 1:
        return f"one, {names}; no ensemble"
    return f"the mean of the logits of {len(learnt)} networks ({names})"


def first_weights(learnt: tuple[Learnt, ...]) -> str:
    """Return what each network started from."""
    return _each(tuple(one.started_from for one in learnt))


def _partition(report: Report) -> str | None:
    shared = report.counts.patients_also_in_training
    return f"not by patient: {REPORT}, warnings" if shared else None


def _of_the_run(files: str) -> Callable[[tuple[Learnt, ...]], str]:
    return lambda learnt: f"{files} of the training run{'s' if len(learnt) > 1 else ''}"


_NOT_TRIED = f"{AUTHORS}: not judged here"
_MACHINES = ("machine_id", "manufacturer", "site_id")


def _machines(number: str, topic: str) -> Item:
    def known(report: Report) -> bool:
        return any(group.variable in _MACHINES for group in report.subgroups)

    return _if(number, topic, known, f"{REPORT}, subgroups", f"{_NOT_TRIED}: no machine is told")


TRIPOD_AI = (
    _left("1", "Title", "name model, population and outcome, and say development or evaluation"),
    _left("2", "Abstract", "follow TRIPOD+AI for Abstracts; take figures from report.json"),
    _left("3a", "Context and rationale", "the clinical question, and which models exist already"),
    _left("3b", "Population, purpose and users", "whom it is for, where in care, who uses it"),
    _left("3c", "Health inequalities", "which groups are known to be served worse, and why"),
    _left("4", "Objectives", "what was to be shown, and whether by development or evaluation"),
    _left("5a", "Sources of data", "how the data came about and whom they stand for"),
    _left("5b", "Dates", "first and last date of the examinations, and of any follow-up"),
    _left("6a", "Setting and centres", "screening or diagnostic, how many centres, and where"),
    _left("6b", "Eligibility", "who was taken and who was not"),
    _left("6c", "Treatments", "what was done before the mammogram, such as surgery or implants"),
    _bundled("7", "Preparation of data", "bundle.json, preprocess"),
    _left("8a", "Outcome", "what counts as a tumor, by which test, and within what time"),
    _left("8b", "Who assessed the outcome", "their number, training and experience"),
    _left("8c", "Blinding of the outcome", "whether assessors knew of other results"),
    _bundled("9a", "Choice of predictors", "the pixels of the mammogram alone"),
    _bundled("9b", "Definition of predictors", "one image, prepared as bundle.json says"),
    _left("9c", "Who measured predictors", "who took and chose the images"),
    _left("10", "Sample size", "how it was arrived at; intervals show what it is worth"),
    _answered(
        "11",
        "Missing data",
        f"{REPORT}, warnings: images without label or answer are counted and left out",
    ),
    _answered("12a", "Use of data", f"{REPORT}, header and how it was computed"),
    _bundled("12b", "Handling of predictors", "bundle.json, preprocess"),
    _learnt("12c", "Type and building of the model", _of_the_run("recipe.toml and run.json")),
    _machines("12d", "Differences between clusters"),
    _answered("12e", "Measures and plots", f"{REPORT}, how it was computed"),
    _answered("12f", "Updating of the model", "none: an evaluation changes nothing"),
    _answered("12g", "How predictions were calculated", f"{REPORT}, command at the foot"),
    _learnt("13", "Class imbalance", _of_the_run("recipe.toml, class_weights and sampling,")),
    _left("14", "Fairness", "what was done for it and why; subgroups show what came out"),
    _answered("15", "Output of the model", f"{CARD}, model details", f"{REPORT}, decisions"),
    _left("16", "Training against evaluation data", "differences in setting, eligibility, outcome"),
    _left("17", "Ethical approval", "the committee, its number, and consent or its waiver"),
    _left("18a", "Funding", "who paid, and their part in the study"),
    _left("18b", "Conflicts of interest", "of every author"),
    _left("18c", "Protocol", "where it is, or that there is none"),
    _left("18d", "Registration", "where and under which number, or that there is none"),
    _left("18e", "Sharing of data", "where the data are, and on what terms"),
    _left(
        "18f",
        "Sharing of code",
        f"that of the model; what judged it is mammolens, Apache-2.0, version and command in {REPORT}",
    ),
    _left("19", "Patients and public", "how they were involved, or that they were not"),
    _left("20a", "Flow of participants", "a diagram; report.html counts judged and left out"),
    _left("20b", "Characteristics of participants", "a table: age, density, findings, machines"),
    _left("20c", "Comparison with development data", "the same table for both"),
    _answered("21", "Numbers in each analysis", f"{REPORT}, at a glance", f"{CARD}, evaluation data"),
    _bundled("22", "Specification of the model", "model.onnx and bundle.json, whole"),
    _answered("23a", "Performance with intervals", f"{CARD}, figures", f"{REPORT}, subgroups"),
    _machines("23b", "Performance by cluster"),
    _answered("24", "Results of updating", "none: an evaluation changes nothing"),
    _left("25", "Interpretation", "what the figures mean beside the aims and earlier studies"),
    _answered("26", "Limitations", f"{CARD}, limitations; a person adds those of the data"),
    _bundled("27a", "Poor or missing input", f"{CARD}, model details"),
    _left("27b", "Users and their skill", "who handles images and answers; what they must know"),
    _left("27c", "Next steps", "what must be shown before any use, and in whom"),
)
"""TRIPOD+AI: Collins et al. 2024, BMJ 385:e078378."""

CLAIM = (
    _left("1", "Title", "name the kind of method: deep learning, convolutional network"),
    _left("2", "Abstract", "design, methods, results, conclusions; figures from report.json"),
    _left("3", "Background and intended role", "the clinical question and the part of the model"),
    _left("4", "Aims and hypotheses", "what was to be shown, fixed beforehand"),
    _left("5", "Prospective or retrospective", "which of them"),
    _left("6", "Goal of the study", "such as making a model, feasibility, non-inferiority"),
    _left("7", "Sources of data", "where the images come from, and links"),
    _left("8", "Inclusion and exclusion", "who was taken, when and where"),
    _bundled("9", "Preprocessing", "bundle.json, preprocess"),
    _answered("10", "Subsets of data", f"{REPORT}, header and warnings: what was judged, left out"),
    _left("11", "De-identification", "how, and against which rules"),
    _answered("12", "Missing data", f"{REPORT}, warnings: counted and left out"),
    _left("13", "Image acquisition", "machines, views, and settings"),
    _left("14", "Reference standard", "how it was found that there is a tumor, or none"),
    _left("15", "Why this reference standard", "and what else could have been taken"),
    _left("16", "Source of annotations", "who annotated, their training and experience"),
    _left("17", "Annotation of the test set", "by whom, with which tool"),
    _left("18", "Variability of annotators", "agreement, and how differences were settled"),
    _learnt("19", "Assignment to partitions", _of_the_run("manifest.csv")),
    Item(
        "20",
        "Level of partitions",
        _partition,
        f"{AUTHORS}: patients, breasts or images; no patient was found on both sides here",
    ),
    _left("21", "Size of the test set", "how it was arrived at; intervals show what it is worth"),
    _bundled("22", "Model", "model.onnx and bundle.json, whole"),
    _learnt("23", "Software", _of_the_run("environment.json")),
    _learnt("24", "Initial weights", first_weights),
    _learnt("25", "Training", _of_the_run("recipe.toml")),
    _learnt("26", "Choice of the final model", choice_of_weights),
    _learnt("27", "Ensembles", networks_that_answer),
    _answered("28", "Measures of performance", f"{REPORT}, how it was computed"),
    _answered("29", "Uncertainty and significance", f"{REPORT}, how it was computed"),
    _if("30", "Robustness", lambda r: r.robustness, f"{CARD}, robustness", _NOT_TRIED),
    _if("31", "Explainability", lambda r: r.localisation, f"{CARD}, where it looked", _NOT_TRIED),
    _left("32", "Internal data", "whether the data judged come from where it learnt"),
    _left("33", "External data", "judge the model on another centre's data, or say why not"),
    _left("34", "Registration of a trial", "where and under which number, if it is a trial"),
    _left("35", "Numbers and flow", "a diagram; report.html counts judged and left out"),
    _left("36", "Characteristics by partition", "a table: age, density, findings, machines"),
    _answered("37", "Performance", f"{CARD}, figures", f"{REPORT}, discrimination, subgroups"),
    _answered("38", "Diagnostic accuracy", f"{CARD}, figures", f"{REPORT}, decisions"),
    _answered("39", "Failures", f"{REPORT}, most confident mistakes; a radiologist says why"),
    _answered("40", "Limitations", f"{CARD}, limitations; a person adds those of the data"),
    _left("41", "Implications for practice", "what would have to be shown before any use"),
    _left("42", "Protocol and details", "where they are"),
    _left("43", "Availability", "of model, code and data"),
    _left("44", "Funding", "who paid, and their part in the study"),
)
"""CLAIM 2024: Tejani et al. 2024, Radiology: Artificial Intelligence 6:e240300."""
