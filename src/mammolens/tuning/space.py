"""What differs from trial to trial: fields of a recipe, each with a range or with choices, read from TOML."""

import json
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from optuna import Trial
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mammolens.errors import RecipeError, reason
from mammolens.files import why_not_opened
from mammolens.model.recipe import Recipe, read_recipe, recipe_names

Settings = Mapping[str, Any]
"""Values of single fields by their dotted names, such as ``augment.rotation``."""

_WORDS = {"low", "high", "log", "choices"}


class Range(BaseModel):
    """Numbers from `low` to `high`, whole where both are; `log` takes each power of ten to be as likely as another."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.low >= self.high:
            raise ValueError("low must be less than high")
        if self.log and self.low <= 0:
            raise ValueError("log needs low > 0")
        return self


class Choices(BaseModel):
    """Some of `choices`: values, or tables of fields that change together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    choices: Annotated[tuple[Any, ...], Field(min_length=2)]


@dataclass(frozen=True)
class Start:
    """The recipe that a search starts from.

    Attributes:
        name: of a recipe that ships, or the path of a TOML file.
        changes: ``key=value`` settings made on top.
    """

    name: str
    changes: tuple[str, ...] = ()

    def recipe(self, settings: Settings | None = None) -> Recipe:
        """Return the recipe, with some settings changed.

        Raises:
            RecipeError: there is no such recipe or field, or a value will not do.
        """
        name = self.name if self.name in recipe_names() else str(Path(self.name).absolute())
        written = {key: json.dumps(value, ensure_ascii=False, default=str) for key, value in (settings or {}).items()}
        changed = (f"{key}={value}" for key, value in written.items())
        return read_recipe(name, [*self.changes, *changed])


@dataclass(frozen=True)
class Space:
    """What may be tried: ranges and choices of fields, by dotted name."""

    fields: Mapping[str, Range | Choices]

    def propose(self, trial: Trial) -> None:
        """Have a trial choose a value of each field."""
        for name, one in self.fields.items():
            if isinstance(one, Choices):
                trial.suggest_categorical(name, [json.dumps(choice, default=str) for choice in one.choices])
            elif isinstance(one.low, int) and isinstance(one.high, int):
                trial.suggest_int(name, one.low, one.high, log=one.log)
            else:
                trial.suggest_float(name, one.low, one.high, log=one.log)

    def settings(self, chosen: Settings) -> dict[str, Any]:
        """Return the values of single fields that a trial chose: choices travel as JSON."""
        values = {
            name: json.loads(chosen[name]) if isinstance(one, Choices) else chosen[name]
            for name, one in self.fields.items()
            if name in chosen
        }
        return dict(_spread(values))


def read_space(path: Path, start: Start) -> Space:
    """Read a space, and see that the recipe takes each end of a range and each choice.

    Raises:
        RecipeError: the file is not such, or names a field that no recipe has (the nearest is named), or a value
            will not do.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RecipeError(f"{path}: {why_not_opened(path, error, 'a TOML file')}") from error
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path}: cannot be read as TOML ({reason(error)}).") from error
    try:
        fields = [(name, _field(name, words, start)) for name, words in _described(content)]
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error
    if not fields:
        raise RecipeError(f"{path}: names no field. Such as: learning_rate = {{low=1e-5, high=1e-2, log=true}}")
    varied = Counter(single for name, one in fields for single in _singles(name, one))
    if twice := [name for name, times in varied.items() if times > 1]:
        raise RecipeError(f"{path}: {twice[0]} varies in two places. Leave one out.")
    return Space(dict(fields))


def _singles(name: str, one: Range | Choices) -> set[str]:
    """Return the single values that a field changes."""
    values = one.choices if isinstance(one, Choices) else (one.low,)
    return {single for value in values for single, _ in _spread({name: value})}


def _field(name: str, words: Mapping[str, Any], start: Start) -> Range | Choices:
    try:
        one = Choices.model_validate(words) if "choices" in words else Range.model_validate(words)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join([name, *map(str, first["loc"][:1])])
        raise RecipeError(f"{key}: {first['msg'].removeprefix('Value error, ')}.") from error
    values = one.choices if isinstance(one, Choices) else (one.low, one.high)
    recipes = [start.recipe(dict(_spread({name: value}))) for value in values]
    if len(set(recipes)) < len(recipes):
        raise RecipeError(f"{name}: two choices are one. Leave one out.")
    return one if isinstance(one, Choices) else _of_kind(one, name, start.recipe())


def _of_kind(one: Range, name: str, recipe: Recipe) -> Range:
    """Return a range of whole numbers, or of others, as the field is.

    Raises:
        RecipeError: it holds no numbers.
    """
    value: Any = recipe
    for part in name.split("."):
        value = getattr(value, part)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecipeError(f"{name} = {value!r} is not a number: give choices.")
    return one.model_copy(update={"low": type(value)(one.low), "high": type(value)(one.high)})


def _described(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each field with what is said of it; tables lead further down."""
    for key, value in content.items():
        name = f"{above}{key.strip()}"
        if not isinstance(value, dict):
            raise RecipeError(f"{name} = {value!r}: expected {{low=…, high=…}} or {{choices=[…, …]}}.")
        if _WORDS & value.keys():
            yield name, value
        else:
            yield from _described(value, f"{name}.")


def _spread(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each single value by its dotted name."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _spread(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
