from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw, ImageFont
from pydantic import ValidationError
from sklearn.datasets import load_digits, load_sample_image

from mammolens.errors import DataError
from mammolens.images.breast import Pixels, find_breast, thumbnail
from mammolens.images.reading import read_image
from mammolens.model import gate as room
from mammolens.model.bundle import find_bundle, open_bundle
from mammolens.model.gate import MIN_IMAGES, STATISTICS, Gate, fit_gate, is_admitted, statistics
from mammolens.phantoms.drawing import VIEWS, draw_patient, draw_view, power_law_noise


def drawn(seed: int, patients: int) -> list[Pixels]:
    """Four phantoms a patient, as read."""
    people = [draw_patient(number, seed) for number in range(patients)]
    return [
        as_read(draw_view(breast, view, size=320).pixels)
        for person in people
        for breast in (person.left, person.right)
        for view in VIEWS
    ]


def as_read(levels: np.ndarray) -> Pixels:
    return np.asarray(levels, dtype=np.float32) / np.float32(255)


def table(images: list[Pixels]) -> np.ndarray:
    return np.stack([statistics(image) for image in images])


def piece_of(image: Pixels) -> Pixels:
    """A piece from the middle of the breast, without any background."""
    breast = find_breast(thumbnail(image, max(image.shape))).mask
    row, column = np.argwhere(breast).mean(axis=0).astype(int)
    height, width = image.shape[0] // 10, image.shape[1] // 12
    return image[max(row - height, 0) : row + height, max(column - width, 0) : column + width]


@pytest.fixture(scope="module")
def training() -> np.ndarray:
    return table(drawn(seed=1, patients=10))


@pytest.fixture(scope="module")
def gate(training: np.ndarray) -> Gate:
    return fit_gate(training)


@pytest.fixture(scope="module")
def others() -> list[Pixels]:
    """Phantoms that no gate was fitted on."""
    return drawn(seed=2, patients=8)


def photograph(name: str) -> Pixels:
    return as_read(np.asarray(Image.fromarray(load_sample_image(name)).convert("L")))


def page(paper: int = 255, ink: int = 0) -> Pixels:
    picture = Image.new("L", (480, 640), paper)
    draw = ImageDraw.Draw(picture)
    for top in range(30, 600, 24):
        draw.text((40, top), "one line of a letter", fill=ink, font=ImageFont.load_default(16))
    return as_read(np.asarray(picture))


def digit() -> Pixels:
    picture = Image.fromarray(load_digits().images[3].astype(np.float32) / np.float32(16))
    return np.asarray(picture.resize((224, 224), Image.Resampling.BILINEAR))


def ramp() -> Pixels:
    return np.tile(np.linspace(0, 1, 300, dtype=np.float32), (200, 1))


def disc() -> Pixels:
    y, x = np.mgrid[:256, :256] - 128
    return np.asarray(np.hypot(x, y) < 90, dtype=np.float32)


def clouds() -> Pixels:
    noise = power_law_noise(np.random.default_rng(3), 256, 2.8)
    return np.asarray((noise - noise.min()) / np.ptp(noise), dtype=np.float32)


def white_noise() -> Pixels:
    return np.random.default_rng(4).random((300, 260), dtype=np.float32)


def chessboard() -> Pixels:
    return np.kron(np.indices((8, 8)).sum(axis=0) % 2, np.ones((32, 32))).astype(np.float32)


NO_MAMMOGRAMS: dict[str, Callable[[], Pixels]] = {
    "photograph of a temple": lambda: photograph("china.jpg"),
    "photograph of a flower": lambda: photograph("flower.jpg"),
    "part of a photograph": lambda: photograph("china.jpg")[100:300, 200:500],
    "photograph, negative": lambda: 1 - photograph("flower.jpg"),
    "page of text": page,
    "page of text, white on black": lambda: page(0, 230),
    "digit": digit,
    "all black": lambda: np.zeros((64, 64), np.float32),
    "all grey": lambda: np.full((64, 64), 0.5, np.float32),
    "ramp": ramp,
    "disc": disc,
    "clouds": clouds,
    "white noise": white_noise,
    "chessboard": chessboard,
}


@pytest.mark.parametrize("name", NO_MAMMOGRAMS)
def test_what_is_no_mammogram_is_turned_away(gate: Gate, name: str) -> None:
    assert not gate.admits(statistics(NO_MAMMOGRAMS[name]()))


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
@pytest.mark.parametrize("scale", [0.25, 1, 3])
def test_photographs_of_any_size_are_turned_away_by_the_gate_that_ships(name: str, scale: float) -> None:
    shipped = open_bundle(find_bundle("accurate")).record.gate
    assert shipped is not None
    grey = Image.fromarray(load_sample_image(name)).convert("L")
    width, height = (round(scale * side) for side in grey.size)
    whole = as_read(np.asarray(grey.resize((width, height))))
    halves = whole[: height // 2], whole[:, : width // 2], whole[height // 2 :]
    for picture in (whole, whole[::-1], 1 - whole, *halves):
        assert not shipped.admits(statistics(picture))


def test_colour_alone_is_a_reason(gate: Gate, others: list[Pixels], png: Callable[..., Path]) -> None:
    """A phantom is let in, one that is tinted or painted on is not, whatever the gate."""
    levels = np.rint(others[0] * 255).astype(np.uint8)
    grey = np.stack([levels] * 3, axis=-1)
    tinted, painted = grey.copy(), grey.copy()
    tinted[..., 2] //= 2
    painted[20:80, 20:80] = (255, 0, 0)
    for known in (gate, None):
        assert is_admitted(read_image(png(grey, "grey.png")), known)
        assert not is_admitted(read_image(png(tinted, "tinted.png")), known)
        assert not is_admitted(read_image(png(painted, "painted.png")), known)


def test_a_piece_of_a_breast_is_turned_away(gate: Gate, others: list[Pixels]) -> None:
    assert not any(gate.admits(statistics(piece_of(image))) for image in others)


def test_other_phantoms_pass(gate: Gate, others: list[Pixels]) -> None:
    assert all(gate.admits(statistics(image)) for image in others)


def test_other_exports_of_a_mammogram_pass(gate: Gate, others: list[Pixels]) -> None:
    rng = np.random.default_rng(5)
    for image in others[::4]:
        assert gate.admits(statistics(1 - image)), "inverted"
        assert gate.admits(statistics(image * np.float32(0.06))), "12 bits in a 16-bit file"
        assert gate.admits(statistics(image**0.7)), "another contrast"
        assert gate.admits(statistics(np.pad(image, ((0, 0), (40, 60))))), "black margins"
        noise = rng.normal(0, 0.01, image.shape)
        assert gate.admits(statistics(np.clip(image + noise, 0, 1).astype(np.float32))), "grain"


def test_a_negative_a_mirror_image_and_a_stretched_one_are_as_far(gate: Gate, others: list[Pixels]) -> None:
    for image in others[::6]:
        distance = gate.distance(statistics(image))
        assert gate.distance(statistics(1 - image)) == pytest.approx(distance, abs=0.01)
        assert gate.distance(statistics(image[:, ::-1].copy())) == pytest.approx(distance, abs=0.3)
        narrow = np.asarray(Image.fromarray(image).resize((240, 320), Image.Resampling.BOX))
        assert gate.distance(statistics(narrow)) == pytest.approx(distance, abs=0.3)


def test_a_gate_outlives_json(gate: Gate, others: list[Pixels]) -> None:
    text = gate.model_dump_json()
    again = Gate.model_validate_json(text)
    assert again == gate
    assert len(text) < 20_000
    row = statistics(others[0])
    assert again.distance(row) == gate.distance(row)


def test_the_order_of_training_images_does_not_matter(gate: Gate, training: np.ndarray) -> None:
    shuffled = fit_gate(training[np.random.default_rng(6).permutation(len(training))])
    for row in training[:5]:
        assert shuffled.distance(row) == pytest.approx(gate.distance(row), rel=1e-6)


def test_a_few_blank_files_among_the_training_images_do_not_open_the_gate(
    training: np.ndarray,
) -> None:
    blank = np.tile(statistics(np.zeros((64, 64), np.float32)), (3, 1))
    gate = fit_gate(np.concatenate([training, blank]))
    assert not gate.admits(blank[0])
    assert not gate.admits(statistics(white_noise()))


def test_a_network_of_pieces_gets_a_gate_for_pieces(gate: Gate, others: list[Pixels]) -> None:
    """Where all training images are odd, the threshold gives."""
    pieces = table([piece_of(image) for image in others])
    own = fit_gate(pieces)
    assert own.threshold > gate.threshold
    assert np.mean([own.admits(row) for row in pieces]) > 0.9


def test_too_few_images_cannot_be_fitted_on(training: np.ndarray) -> None:
    with pytest.raises(DataError, match=f"at least {MIN_IMAGES} training images; received 3"):
        fit_gate(training[:3])


def test_a_gate_of_other_statistics_is_refused(gate: Gate) -> None:
    stored = gate.model_dump()
    with pytest.raises(ValidationError, match="version"):
        Gate.model_validate(stored | {"version": 0})
    with pytest.raises(ValidationError, match=f"a gate has {STATISTICS} numbers"):
        Gate.model_validate(stored | {"centre": stored["centre"][:-1]})


def test_the_reference_is_a_correlation() -> None:
    correlation = room._reference_correlation()
    assert np.linalg.eigvalsh(correlation).min() > 0
    assert all(deviation > 0 for _, _, deviation in room._REFERENCE["statistics"])


@settings(max_examples=60, deadline=None)
@given(
    arrays(
        np.float32,
        st.tuples(st.integers(16, 90), st.integers(16, 90)),
        elements=st.floats(0, 1, width=32),
    )
)
@example(np.ones((16, 5000), np.float32))
@example(np.eye(1200, 16, dtype=np.float32))
@example(np.eye(48, dtype=np.float32) * np.float32(1e-11))
def test_statistics_are_finite_whatever_the_picture(pixels: Pixels) -> None:
    found = statistics(pixels)
    assert found.shape == (STATISTICS,)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


def test_real_mammograms_pass_a_gate_of_phantoms(gate: Gate, rsna_breast: Path, cbis_ddsm_mass: Path) -> None:
    """Digital and film: neither was among the images fitted on."""
    digital = sorted((rsna_breast / "test").rglob("*.jpg"))[::6]
    film = sorted((cbis_ddsm_mass / "test").iterdir())[::12]
    for paths in (digital, film):
        images = [read_image(path).pixels for path in paths]
        assert np.mean([gate.admits(statistics(image)) for image in images]) > 0.97
        assert np.mean([gate.admits(statistics(1 - image)) for image in images[::4]]) > 0.97


def test_pieces_of_real_breasts_are_turned_away(gate: Gate, rsna_breast: Path) -> None:
    paths = sorted((rsna_breast / "test").rglob("*.jpg"))[::20]
    pieces = [piece_of(read_image(path).pixels) for path in paths]
    assert np.mean([gate.admits(statistics(piece)) for piece in pieces]) < 0.1
