"""TRIPOD+AI and CLAIM, item by item: where a report answers, and what a person must write.

Numbers are the checklists'; topics are short names of our own, never the checklists' wording.
"""

from typing import Literal, NamedTuple

REPORT, CARD = "report.html", "this card"


class Item(NamedTuple):
    """One item of a checklist.

    Attributes:
        number: as in the checklist, such as ``12e``.
        topic: in a few words.
        standing: ``answered`` by report or card, ``with the model`` in the files that it comes
            with, or ``left`` to a person.
        words: where it is answered, or what to write.
    """

    number: str
    topic: str
    standing: Literal["answered", "with the model", "left"]
    words: str

    def row(self, *, has_files: bool) -> str:
        """Return the item as a row of a Markdown table.

        Args:
            has_files: whether the model is a bundle, and not a table of scores.
        """
        if self.standing == "with the model" and not has_files:
            standing, words = "left to a person", "ask those who made the system"
        else:
            standing = "left to a person" if self.standing == "left" else "answered"
            words = self.words
        return f"| {self.number} | {self.topic} | {standing}: {words} |"


def _answered(number: str, topic: str, *where: str) -> Item:
    return Item(number, topic, "answered", "; ".join(where))


def _bundled(number: str, topic: str, *where: str) -> Item:
    return Item(number, topic, "with the model", "; ".join(where))


def _left(number: str, topic: str, what: str) -> Item:
    return Item(number, topic, "left", what)


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
    _bundled(
        "7", "Preparation of data", "bundle.json, preprocess; mammolens doctor checks the data"
    ),
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
    _answered("12a", "Use of data", f"{REPORT}, how it was computed", "splits in the manifest"),
    _bundled("12b", "Handling of predictors", "bundle.json, preprocess"),
    _bundled(
        "12c", "Type and building of the model", "recipe.toml and run.json of the training run"
    ),
    _answered(
        "12d", "Differences between clusters", f"{REPORT}, subgroups, where machines are told"
    ),
    _answered("12e", "Measures and plots", f"{REPORT}, how it was computed"),
    _answered("12f", "Updating of the model", "none: an evaluation changes nothing"),
    _answered("12g", "How predictions were calculated", f"{REPORT}, command at the foot"),
    _bundled("13", "Class imbalance", "recipe.toml, and calibration", f"{REPORT}, calibration"),
    _left("14", "Fairness", "what was done for it and why; subgroups show what came out"),
    _answered("15", "Output of the model", f"{CARD}, model details", f"{REPORT}, decisions"),
    _left("16", "Training against evaluation data", "differences in setting, eligibility, outcome"),
    _left("17", "Ethical approval", "the committee, its number, and consent or its waiver"),
    _left("18a", "Funding", "who paid, and their part in the study"),
    _left("18b", "Conflicts of interest", "of every author"),
    _left("18c", "Protocol", "where it is, or that there is none"),
    _left("18d", "Registration", "where and under which number, or that there is none"),
    _left("18e", "Sharing of data", "where the data are, and on what terms"),
    _answered("18f", "Sharing of code", "mammolens, Apache-2.0; version and command in the report"),
    _left("19", "Patients and public", "how they were involved, or that they were not"),
    _left("20a", "Flow of participants", "a diagram; report.html counts judged and left out"),
    _left("20b", "Characteristics of participants", "a table: age, density, findings, machines"),
    _left("20c", "Comparison with development data", "the same table for both"),
    _answered("21", "Numbers in each analysis", f"{REPORT}, at a glance", f"{CARD}, training data"),
    _bundled("22", "Specification of the model", "model.onnx and bundle.json, whole"),
    _answered("23a", "Performance with intervals", f"{CARD}, figures", f"{REPORT}, subgroups"),
    _answered("23b", "Performance by cluster", f"{REPORT}, subgroups, where machines are told"),
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
    _bundled("19", "Assignment to partitions", "manifest.csv of the training run"),
    _bundled("20", "Level of partitions", "by patient", f"{REPORT}, warnings: patients in both"),
    _left("21", "Size of the test set", "how it was arrived at; intervals show what it is worth"),
    _bundled("22", "Model", "model.onnx and bundle.json, whole"),
    _bundled("23", "Software", "environment.json of the training run", f"{REPORT}, footer"),
    _bundled("24", "Initial weights", "recipe.toml of the training run"),
    _bundled("25", "Training", "recipe.toml and history.csv of the training run"),
    _bundled("26", "Choice of the final model", "run.json: the epoch that did best on validation"),
    _bundled("27", "Ensembles", "none: model.onnx is one network"),
    _answered("28", "Measures of performance", f"{REPORT}, how it was computed"),
    _answered("29", "Uncertainty and significance", f"{REPORT}, how it was computed"),
    _answered("30", "Robustness", f"{CARD}, robustness, where it was asked for"),
    _answered("31", "Explainability", f"{CARD}, where it looked, where the data set has boxes"),
    _answered("32", "Internal data", f"{CARD}, figures, where data are those it learnt from"),
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
    _left("43", "Availability", "of model and data; the code is mammolens, Apache-2.0"),
    _left("44", "Funding", "who paid, and their part in the study"),
)
"""CLAIM 2024: Tejani et al. 2024, Radiology: Artificial Intelligence 6:e240300."""
