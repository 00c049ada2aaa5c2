from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw, ImageFont
from pydantic import ValidationError
from scipy import ndimage
from sklearn.datasets import load_digits, load_sample_image

from mammolens.errors import DataError
from mammolens.images import appearance
from mammolens.images.appearance import STATISTICS, WHOLE_STATISTICS, statistics, whole_statistics
from mammolens.images.breast import Pixels, anatomy, find_breast, thumbnail
from mammolens.images.image import Image as Read
from mammolens.images.reading import read_image
from mammolens.model.bundle import find_bundle, open_bundle
from mammolens.model.gate import MIN_IMAGES, Gate, Likeness, Measured, fit_gate, is_mammogram, likeness, measured
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


def passes(pixels: Pixels) -> bool:
    return is_mammogram(anatomy(pixels))


def read(pixels: Pixels) -> Read:
    return Read(pixels, "PNG", 8)


def piece_of(image: Pixels) -> Pixels:
    """A piece from the middle of the breast, without any background."""
    breast = find_breast(thumbnail(image, max(image.shape))).mask
    row, column = np.argwhere(breast).mean(axis=0).astype(int)
    height, width = image.shape[0] // 10, image.shape[1] // 12
    return image[max(row - height, 0) : row + height, max(column - width, 0) : column + width]


@pytest.fixture(scope="module")
def training() -> list[Measured]:
    return [measured(read(image)) for image in drawn(seed=1, patients=10)]


@pytest.fixture(scope="module")
def gate(training: list[Measured]) -> Gate:
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


def limb(across: bool = False) -> Pixels:
    """An X-ray of two long bones and their joint."""
    y, x = np.mgrid[:256, :256] - 128.0
    soft = np.sqrt(np.maximum(60**2 - x**2, 0)) / 60
    width = 26 + 10 * np.exp(-((y / 25) ** 2))
    bone = np.where(np.abs(x) < width, 0.4 + 0.5 * np.exp(-(((np.abs(x) / width - 0.85) / 0.1) ** 2)), 0)
    bone[np.abs(y) < 4] = 0
    grey = ndimage.gaussian_filter(0.4 * soft + 0.6 * bone, 1)
    return np.asarray(grey.T if across else grey, dtype=np.float32)


def chest() -> Pixels:
    """An X-ray of a chest: two lungs, a spine, a heart, ribs."""
    y, x = np.mgrid[:256, :256].astype(float)
    lungs = sum(np.exp(-((((x - centre) / 42) ** 2 + ((y - 120) / 85) ** 2) ** 3)) for centre in (75, 181))
    heart = np.exp(-((((x - 145) / 30) ** 2 + ((y - 160) / 38) ** 2) ** 2))
    grey = 0.75 - 0.5 * lungs + 0.3 * np.exp(-(((x - 128) / 14) ** 2)) + 0.3 * heart
    for rib in range(8):
        grey += 0.1 * np.exp(-(((y - 30 - 24 * rib - 0.25 * np.abs(x - 128)) / 4) ** 2))
    return np.asarray(np.clip(grey / 1.3, 0, 1), dtype=np.float32)


def hand() -> Pixels:
    picture = Image.new("L", (256, 256))
    draw = ImageDraw.Draw(picture)
    for tip in (50, 90, 130, 170):
        for width, grey in ((24, 80), (9, 200)):
            draw.line((128, 200, tip, 40), fill=grey, width=width)
    return np.asarray(ndimage.gaussian_filter(as_read(np.asarray(picture)), 1.5))


def ultrasound() -> Pixels:
    """The sector that a probe sees, full of speckle."""
    y, x = np.mgrid[:256, :256].astype(float)
    angle, away = np.arctan2(x - 128, y + 20), np.hypot(x - 128, y + 20)
    real, imaginary = (
        ndimage.gaussian_filter(np.random.default_rng(n).normal(size=(256, 256)), (0.6, 2)) for n in (6, 7)
    )
    echo = np.log1p(15 * np.hypot(real, imaginary)) * ((np.abs(angle) < 0.7) & (away > 50) & (away < 250))
    return np.asarray(echo / echo.max(), dtype=np.float32)


def head() -> Pixels:
    """A slice of a head: skull, brain and hollows."""
    y, x = np.mgrid[:256, :256] - 128.0
    ring = (x / 85) ** 2 + (y / 105) ** 2
    grey = np.where(ring < 1, np.where(ring > 0.85, 1.0, 0.45), 0)
    grey[((np.abs(x) - 15) / 8) ** 2 + (y / 30) ** 2 < 1] = 0.15
    return np.asarray(ndimage.gaussian_filter(grey, 1), dtype=np.float32)


def chart() -> Pixels:
    picture = Image.new("L", (300, 240), 255)
    draw = ImageDraw.Draw(picture)
    draw.line((30, 15, 30, 215, 290, 215), fill=0, width=2)
    for number, height in enumerate((60, 120, 90, 170, 40, 150)):
        draw.rectangle((45 + 40 * number, 215 - height, 75 + 40 * number, 214), fill=90 + 20 * number)
    return as_read(np.asarray(picture))


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
    "limb": limb,
    "limb, across": lambda: limb(across=True),
    "chest": chest,
    "hand": hand,
    "ultrasound": ultrasound,
    "slice of a head": head,
    "chart": chart,
    "chart, negative": lambda: 1 - chart(),
}


@pytest.mark.parametrize("name", NO_MAMMOGRAMS)
def test_what_is_no_mammogram_is_turned_away(gate: Gate, name: str) -> None:
    assert gate.likeness(anatomy(NO_MAMMOGRAMS[name]())) is Likeness.NO_MAMMOGRAM


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
@pytest.mark.parametrize("scale", [0.25, 1, 3])
def test_photographs_of_any_size_are_turned_away(name: str, scale: float) -> None:
    grey = Image.fromarray(load_sample_image(name)).convert("L")
    width, height = (round(scale * side) for side in grey.size)
    whole = as_read(np.asarray(grey.resize((width, height))))
    halves = whole[: height // 2], whole[:, : width // 2], whole[height // 2 :]
    for picture in (whole, whole[::-1], 1 - whole, *halves):
        assert not passes(np.ascontiguousarray(picture))


def test_colour_alone_is_a_reason(gate: Gate, others: list[Pixels], png: Callable[..., Path]) -> None:
    """A phantom is let in, one that is tinted or painted on is not, whatever the gate."""
    levels = np.rint(others[0] * 255).astype(np.uint8)
    grey = np.stack([levels] * 3, axis=-1)
    tinted, painted = grey.copy(), grey.copy()
    tinted[..., 2] //= 2
    painted[20:80, 20:80] = (255, 0, 0)
    for known in (gate, None):
        assert likeness(read_image(png(grey, "grey.png")), known) is Likeness.LIKE_TRAINING
        assert likeness(read_image(png(tinted, "tinted.png")), known) is Likeness.NO_MAMMOGRAM
        assert likeness(read_image(png(painted, "painted.png")), known) is Likeness.NO_MAMMOGRAM


def test_a_piece_of_a_breast_is_turned_away(others: list[Pixels]) -> None:
    assert not any(passes(piece_of(image)) for image in others)


def test_other_phantoms_are_like_those_fitted_on(gate: Gate, others: list[Pixels]) -> None:
    found = [gate.likeness(anatomy(image)) for image in others]
    assert Likeness.NO_MAMMOGRAM not in found
    assert found.count(Likeness.LIKE_TRAINING) >= 0.95 * len(found)


def test_other_exports_of_a_mammogram_pass(others: list[Pixels]) -> None:
    rng = np.random.default_rng(5)
    for image in others[::4]:
        assert passes(1 - image), "inverted"
        assert passes(image * np.float32(0.06)), "12 bits in a 16-bit file"
        assert passes(image**0.7), "another contrast"
        assert passes(np.pad(image, ((0, 0), (40, 60)))), "black margins"
        assert passes(np.pad(image, ((0, 0), (120, 120)))), "padded to a square and more"
        noise = rng.normal(0, 0.01, image.shape)
        assert passes(np.clip(image + noise, 0, 1).astype(np.float32)), "grain"


def test_a_negative_a_mirror_image_and_a_stretched_one_are_measured_alike(gate: Gate, others: list[Pixels]) -> None:
    def distance(image: Pixels) -> float:
        return gate.distance(whole_statistics(anatomy(image)))

    for image in others[::6]:
        assert distance(1 - image) == pytest.approx(distance(image), abs=0.01)
        assert distance(image[:, ::-1].copy()) == pytest.approx(distance(image), abs=0.3)
        narrow = np.asarray(Image.fromarray(image).resize((240, 320), Image.Resampling.BOX))
        assert distance(narrow) == pytest.approx(distance(image), abs=0.3)
        np.testing.assert_allclose(statistics(anatomy(1 - image)), statistics(anatomy(image)), atol=0.02)


def test_margins_are_not_looked_at(others: list[Pixels]) -> None:
    """All but the first eight statistics are of the breast's box."""
    for image in others[::6]:
        wide = np.pad(image, ((60, 60), (80, 80)))
        close = np.isclose(statistics(anatomy(wide))[8:], statistics(anatomy(image))[8:], atol=0.25)
        assert close.mean() > 0.9


def test_a_gate_outlives_json(gate: Gate, others: list[Pixels]) -> None:
    text = gate.model_dump_json()
    again = Gate.model_validate_json(text)
    assert again == gate
    assert len(text) < 20_000
    row = whole_statistics(anatomy(others[0]))
    assert again.distance(row) == gate.distance(row)


def test_gates_of_older_bundles_open(gate: Gate) -> None:
    """They say nothing of whole breasts; their distance now tells what is unlike the training images."""
    older = Gate.model_validate(gate.model_dump(exclude={"whole"}) | {"threshold": 0.0})
    assert older.whole
    assert older.likeness(anatomy(drawn(seed=3, patients=1)[0])) is Likeness.UNLIKE_TRAINING
    assert older.likeness(anatomy(page())) is Likeness.NO_MAMMOGRAM


def test_the_order_of_training_images_does_not_matter(gate: Gate, training: list[Measured]) -> None:
    shuffled = fit_gate(training[::-1])
    for one in training[:5]:
        assert shuffled.distance(one.described) == pytest.approx(gate.distance(one.described), rel=1e-6)


def test_one_in_a_hundred_validation_images_is_unlike(gate: Gate, training: list[Measured]) -> None:
    unseen = [measured(read(image)) for image in drawn(seed=4, patients=6)]
    own = fit_gate(training, unseen)
    assert (own.centre, own.precision) == (gate.centre, gate.precision)
    far = [own.distance(image.described) for image in unseen]
    assert own.threshold == pytest.approx(np.quantile(far, 0.99))
    blank = measured(read(np.zeros((64, 64), np.float32)))
    assert fit_gate(training, [*unseen, blank]).threshold == own.threshold
    assert fit_gate(training, unseen[: MIN_IMAGES - 1]) == gate


def test_a_few_blank_files_among_the_training_images_do_not_open_the_gate(training: list[Measured]) -> None:
    blank = read(np.zeros((64, 64), np.float32))
    gate = fit_gate([*training, *[measured(blank)] * 3])
    assert gate.whole
    assert likeness(blank, gate) is Likeness.NO_MAMMOGRAM
    assert likeness(read(white_noise()), gate) is Likeness.NO_MAMMOGRAM


def test_a_network_of_pieces_gets_a_gate_for_pieces(others: list[Pixels]) -> None:
    """Where what was learnt from looks like no mammogram, nothing is turned away for that."""
    pieces = [read(piece_of(image)) for image in others]
    own = fit_gate([measured(piece) for piece in pieces])
    assert not own.whole
    found = [likeness(piece, own) for piece in pieces]
    assert found.count(Likeness.LIKE_TRAINING) > 0.9 * len(found)


def test_too_few_images_cannot_be_fitted_on(training: list[Measured]) -> None:
    with pytest.raises(DataError, match=f"at least {MIN_IMAGES} training images; received 3"):
        fit_gate(training[:3])


def test_a_gate_of_other_statistics_is_refused(gate: Gate) -> None:
    stored = gate.model_dump()
    with pytest.raises(ValidationError, match="version"):
        Gate.model_validate(stored | {"version": 0})
    with pytest.raises(ValidationError, match=f"a gate has {WHOLE_STATISTICS} numbers"):
        Gate.model_validate(stored | {"centre": stored["centre"][:-1]})


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
    for measure, count in ((statistics, STATISTICS), (whole_statistics, WHOLE_STATISTICS)):
        found = measure(anatomy(pixels))
        assert found.shape == (count,)
        assert found.dtype == np.float32
        assert np.isfinite(found).all()


def test_real_mammograms_of_every_source_pass(rsna_breast: Path, cbis_ddsm_mass: Path, cesm_lesions: Path) -> None:
    """Digital, film, and a digital vendor padded to a square; as they are and negated, at most 1 % turned away."""
    for folder in (rsna_breast / "test", cbis_ddsm_mass / "test", cesm_lesions):
        images = [read_image(path).pixels for path in sorted(folder.rglob("*.jpg"))]
        assert np.mean([passes(image) for image in images]) >= 0.99
        assert np.mean([passes(1 - image) for image in images[::4]]) >= 0.97


def test_film_is_unlike_digital_training_images(rsna_breast: Path, cbis_ddsm_mass: Path) -> None:
    digital, film = (
        [read_image(path) for path in sorted(folder.rglob("*.jpg"))[::every]]
        for folder, every in ((rsna_breast / "test", 2), (cbis_ddsm_mass / "test", 12))
    )
    own = fit_gate([measured(image) for image in digital[::2]])
    unlike = [
        [likeness(image, own) is Likeness.UNLIKE_TRAINING for image in images] for images in (digital[1::2], film)
    ]
    assert np.mean(unlike[0]) < 0.06
    assert np.mean(unlike[1]) > 0.4


def test_the_models_that_ship_know_what_they_learnt_from(others: list[Pixels], rsna_breast: Path) -> None:
    own, drawing = (open_bundle(find_bundle(name)).record.gate for name in ("accurate", "phantom"))
    assert own is not None
    assert drawing is not None
    phantoms = [anatomy(image) for image in others]
    digital = [anatomy(read_image(path).pixels) for path in sorted((rsna_breast / "test").rglob("*.jpg"))[::8]]
    near = [
        np.mean([gate.likeness(seen) is Likeness.LIKE_TRAINING for seen in images])
        for gate, images in ((own, digital), (drawing, phantoms), (drawing, digital))
    ]
    assert near[0] >= 0.95
    assert near[1] >= 0.9
    assert near[2] <= 0.05


def test_pieces_of_real_breasts_are_turned_away(rsna_breast: Path) -> None:
    paths = sorted((rsna_breast / "test").rglob("*.jpg"))[::20]
    assert np.mean([passes(piece_of(read_image(path).pixels)) for path in paths]) < 0.1


@pytest.mark.parametrize("side", [96, 128])
def test_blurs_are_those_of_scipy(side: int) -> None:
    unit = np.eye(side, dtype=np.float32)
    filtered = [ndimage.gaussian_filter1d(unit, size, axis=0) for size in appearance._BLURS]
    np.testing.assert_array_equal(appearance._blurs(side), filtered)
