"""Predictions + manifest → an honest report: `judge` computes it, `page.write_report` writes it."""

from mammolens.evaluation.judging import Question, judge, model_of
from mammolens.evaluation.schema import Model, Report, Robustness
from mammolens.triage import Rules

__all__ = ["Model", "Question", "Report", "Robustness", "Rules", "judge", "model_of"]
