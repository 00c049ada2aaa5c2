from pathlib import Path

import keras
import numpy as np
import pytest
from small_recipe import SMALL, small

from mammolens.errors import RecipeError
from mammolens.learning.networks.builders import as_trained, baseline_cnn, build, ensemble, with_flips
from mammolens.learning.networks.efficientnet_lite import STAGES, layers_by_stage
from mammolens.learning.networks.folded import Network
from mammolens.learning.networks.heads import ANSWER, BOTH, POOLINGS, rest_on_both, score_map_network
from mammolens.learning.onnx_model import with_score_map
from mammolens.learning.runs import save_network
from mammolens.model.recipe import Augment, read_recipe


def pixels(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((count, 64, 32, 1), dtype=np.float32)


def logit(probability: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(probability / (1 - probability)))


def test_the_baseline_has_the_parameters_of_the_original() -> None:
    network = build(read_recipe("baseline"))
    assert network.count_params() == 1_337_569
    assert network.input_shape == (None, 64, 64, 1)
    assert network.output_shape == (None, 1)


def test_the_baseline_is_built_of_the_layers_of_the_original() -> None:
    kinds = [type(layer).__name__ for layer in build(read_recipe("baseline")).layers]
    stage = ["Conv2D", "BatchNormalization", "Activation"]
    block = [*stage, *stage, "MaxPooling2D", "Dropout"]
    head = ["Flatten", "Dense", "BatchNormalization", "Activation", "Dropout", "Dense"]
    assert kinds == ["InputLayer", *block, *block, *block, *head]
    layers = {layer.name: layer for layer in build(read_recipe("baseline")).layers}
    convolutions = [layer for layer in layers.values() if type(layer).__name__ == "Conv2D"]
    assert [layer.filters for layer in convolutions] == [32, 32, 64, 64, 128, 128]
    for layer in convolutions:
        assert (layer.kernel_size, layer.padding) == ((3, 3), "same")
        assert type(layer.kernel_initializer).__name__ == "HeNormal"


def test_dropout_and_size_follow_the_recipe() -> None:
    changes = ["convolution_dropout=0.1", "dense_dropout=0.2", "preprocess.height=96"]
    network = build(read_recipe("baseline", changes))
    rates = [layer.rate for layer in network.layers if type(layer).__name__ == "Dropout"]
    assert rates == [0.1, 0.1, 0.1, 0.2]
    assert network.input_shape == (None, 96, 64, 1)


def test_answers_are_probabilities() -> None:
    pixels = np.random.default_rng(0).random((3, 32, 32, 1), dtype=np.float32)
    answers = baseline_cnn(32, 32).predict(pixels, verbose=0)
    assert answers.shape == (3, 1)
    assert ((answers > 0) & (answers < 1)).all()


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(RecipeError, match="no network 'resnet'; known are baseline_cnn"):
        build(read_recipe("baseline", ["network=resnet"]))


def test_one_high_place_counts_for_more_the_sharper_the_pooling() -> None:
    features = np.zeros((1, 4, 5, 1), np.float32)
    features[0, 2, 3] = 6
    pooled = {}
    for name in POOLINGS:
        keras.utils.set_random_seed(0)
        body = keras.Model(image := keras.Input((4, 5, 1)), keras.layers.Identity()(image))
        network = score_map_network(body, name)
        network.get_layer("logits").set_weights([np.ones((1, 1, 1, 1)), np.zeros(1)])
        pooled[name] = float(logit(network.predict(features, verbose=0))[0, 0])
    assert pooled["mean"] == pytest.approx(6 / 20, abs=1e-4)
    assert pooled["max"] == pytest.approx(6, abs=1e-3)
    assert pooled["mean_max"] == pytest.approx((6 / 20 + 6) / 2, abs=1e-3)
    assert 0 < pooled["attention"] < 6


def test_the_map_is_the_sigmoid_of_what_is_pooled() -> None:
    mapped = with_score_map(build(small("pooling=max", "dense_dropout=0.0")))
    assert mapped is not None
    probability, score_map = mapped.predict(pixels(), verbose=0)
    assert score_map.shape == (3, 2, 1, 1)
    np.testing.assert_allclose(score_map.max(axis=(1, 2)), probability, atol=1e-6)


def test_the_map_of_a_network_that_weighs_places_is_how_much_they_count(tmp_path: Path) -> None:
    network = build(small("preprocess.height=96", "preprocess.width=64", "pooling=attention"))
    images = np.random.default_rng(0).random((3, 96, 64, 1), dtype=np.float32)
    weigh = network.get_layer("attention")
    weigh.set_weights([30 * weigh.get_weights()[0], np.full(1, 5.0)])
    save_network(network, tmp_path / "breast.h5")
    keras.utils.clear_session()  # a saved network's layers have the names that new ones get
    network = keras.saving.load_model(tmp_path / "breast.h5", compile=False)
    mapped = with_score_map(network)
    assert mapped is not None
    probability, score_map = mapped.predict(images, verbose=0)
    np.testing.assert_allclose(score_map.max(axis=(1, 2)), probability, atol=1e-6)
    shares = score_map / score_map.sum(axis=(1, 2), keepdims=True)
    scores = keras.Model(network.input, network.get_layer("logits").output)
    pooled = (shares * scores.predict(images, verbose=0)).sum(axis=(1, 2))
    np.testing.assert_allclose(pooled, logit(probability), atol=1e-4)
    assert shares.max() > 1.2 / shares[0].size  # places do not count alike


@pytest.mark.parametrize("axes", [(1,), (2,), (1, 2)])
def test_with_flips_a_picture_and_its_mirror_image_get_one_answer(axes: tuple[int, ...]) -> None:
    mapped = with_score_map(build(small()))
    network = with_flips(mapped, Augment(horizontal_flip=2 in axes, vertical_flip=1 in axes))
    answer, score_map = network.predict(pixels(), verbose=0)
    assert with_flips(mapped, Augment()) is mapped
    for axis in axes:
        mirrored, mirrored_map = network.predict(np.flip(pixels(), axis), verbose=0)
        np.testing.assert_allclose(mirrored, answer, atol=1e-5)
        np.testing.assert_allclose(np.flip(mirrored_map, axis), score_map, atol=1e-5)


def test_an_ensemble_answers_with_the_mean_of_logits_and_of_maps() -> None:
    mapped = [with_score_map(build(small(f"seed={seed}"))) for seed in (0, 1)]
    members = [network for network in mapped if network is not None]
    answers = [member.predict(pixels(), verbose=0) for member in members]
    assert np.abs(answers[0][0] - answers[1][0]).max() > 0.01
    probability, score_map = ensemble(members).predict(pixels(), verbose=0)
    expected = np.mean([logit(answer[0]) for answer in answers], axis=0)
    np.testing.assert_allclose(logit(probability), expected, atol=1e-4)
    np.testing.assert_allclose(score_map, (answers[0][1] + answers[1][1]) / 2, atol=1e-5)
    assert ensemble(members[:1]) is members[0]
    without = ensemble([members[0], baseline_cnn(64, 32)])
    assert len(without.outputs) == 1


def test_frozen_stages_are_the_first() -> None:
    stages = layers_by_stage(build(small("frozen_stages=3")))
    trainable = [any(layer.trainable_weights for layer in stages[stage]) for stage in STAGES]
    assert trainable == [False] * 3 + [True] * 6


def test_weights_are_taken_over_from_a_saved_network(tmp_path: Path) -> None:
    donor = build(small("seed=1"))
    donor.save(tmp_path / "donor.h5")
    taken = build(small(f"initial_weights={tmp_path / 'donor.h5'}"))
    for name in ("stem", "head", "attention", "logits"):
        for ours, theirs in zip(taken.get_layer(name).get_weights(), donor.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_weights_that_fit_nothing_are_refused(tmp_path: Path) -> None:
    baseline_cnn(32, 32).save(tmp_path / "baseline.h5")
    for origin, said in (("baseline.h5", "no layer of it fits"), ("missing.h5", "not imagenet")):
        with pytest.raises(RecipeError, match=said):
            build(small(f"initial_weights={tmp_path / origin}"))


def test_networks_of_keras_applications_get_our_head(tmp_path: Path) -> None:
    network = build(small("network=MobileNetV2"))
    save_network(network, tmp_path / "saved.h5")
    keras.saving.load_model(tmp_path / "saved.h5", compile=False)
    assert network.input_shape == (None, 64, 32, 1)
    answer, score_map = with_score_map(network)(pixels(2), training=False)  # type: ignore[misc]
    assert tuple(answer.shape) == (2, 1)
    assert tuple(score_map.shape) == (2, 2, 1, 1)


@pytest.mark.parametrize("name", ["MobileNetV2", "EfficientNetB0", "ResNet50", "DenseNet121"])
def test_their_weights_get_the_pixels_they_were_trained_on(name: str) -> None:
    homes = {"MobileNetV2": "mobilenet_v2", "EfficientNetB0": "efficientnet"}
    homes |= {"ResNet50": "resnet", "DenseNet121": "densenet"}
    theirs = getattr(keras.applications, homes[name]).preprocess_input
    colour = np.repeat(pixels(1), 3, axis=-1)
    found = keras.ops.convert_to_numpy(as_trained(keras.ops.convert_to_tensor(colour), name))
    np.testing.assert_allclose(found, theirs(colour * 255), atol=1e-3)


def test_a_network_that_cannot_be_had_is_refused_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.utils, "get_file", _no_connection)
    monkeypatch.setattr(keras.src.applications.mobilenet_v2, "file_utils", keras.utils)
    with pytest.raises(RecipeError, match=r"MobileNetV2 at 64 x 32: cannot be built .*none"):
        build(read_recipe("lesions", [*SMALL[:2], "network=MobileNetV2"]))


def _no_connection(*_: object, **__: object) -> str:
    raise OSError("no connection")


def test_stages_are_frozen_only_where_there_are_any() -> None:
    with pytest.raises(RecipeError, match="has no stages"):
        build(small("network=MobileNetV2", "frozen_stages=2"))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_saved_network_opens_again_whatever_its_pooling(pooling: str, tmp_path: Path) -> None:
    network = build(small(f"pooling={pooling}"))
    save_network(network, tmp_path / "saved.h5")
    opened = keras.saving.load_model(tmp_path / "saved.h5", compile=False)
    np.testing.assert_allclose(opened.predict(pixels(), verbose=0), network.predict(pixels(), verbose=0), atol=1e-6)


def parts_of(network: Network, images: np.ndarray) -> np.ndarray:
    inner = keras.Model(network.input, network.get_layer(BOTH).output)
    return np.asarray(inner.predict(images, verbose=0))


@pytest.fixture
def on_both() -> Network:
    """A network that learnt nothing yet, but whose map of attention has peaks."""
    keras.utils.set_random_seed(0)
    network = build(small("pooling=attention_and_peak"))
    kernel, bias = network.get_layer("attention").get_weights()
    network.get_layer("attention").set_weights([20 * kernel, bias])
    return network


def test_until_it_rests_on_both_the_score_alone_answers(on_both: Network) -> None:
    score, peak = parts_of(on_both, pixels(8)).T
    np.testing.assert_allclose(logit(on_both.predict(pixels(8), verbose=0))[:, 0], score, atol=1e-4)
    assert np.ptp(peak) > 0.01
    assert not on_both.get_layer(ANSWER).trainable_weights


def test_a_quarter_of_the_answer_is_the_peak_brought_to_the_scale_of_the_score(on_both: Network) -> None:
    images = np.random.default_rng(1).random((12, 64, 32, 1), dtype=np.float32)
    images *= np.linspace(0.2, 1, 12, dtype=np.float32)[:, np.newaxis, np.newaxis, np.newaxis]
    rest_on_both(on_both, [images[:5], images[5:]])
    score, peak = parts_of(on_both, images).T.astype(float)
    standard = [(part - part.mean()) / part.std() for part in (score, peak)]
    expected = score.mean() + score.std() * np.average(standard, axis=0, weights=[3, 1])
    answers = logit(on_both.predict(images, verbose=0).astype(float))[:, 0]
    np.testing.assert_allclose(answers, expected, atol=1e-3 * score.std() + 1e-5)
    assert not np.allclose(answers, score, atol=0.05 * score.std())


def test_a_map_that_is_the_same_for_all_images_has_no_say(on_both: Network) -> None:
    kernel, bias = on_both.get_layer("attention").get_weights()
    on_both.get_layer("attention").set_weights([0 * kernel, bias])
    rest_on_both(on_both, [pixels(8)])
    score = parts_of(on_both, pixels(8))[:, 0]
    answers = logit(on_both.predict(pixels(8), verbose=0))[:, 0]
    np.testing.assert_allclose(answers, 0.75 * score + 0.25 * score.mean(), atol=1e-4)


def test_what_is_pooled_otherwise_does_not_change() -> None:
    network = build(small("pooling=attention"))
    before = network.get_weights()
    rest_on_both(network, [pixels(4)])
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_weights_that_are_taken_over_do_not_say_what_the_answer_rests_on(on_both: Network, tmp_path: Path) -> None:
    """Else the peak would learn from labels, and none of what it is for would be left."""
    rest_on_both(on_both, [pixels(8)])
    on_both.save(tmp_path / "donor.h5")
    taken = build(small("pooling=attention_and_peak", f"initial_weights={tmp_path / 'donor.h5'}"))
    np.testing.assert_array_equal(
        taken.get_layer("attention").get_weights()[0], on_both.get_layer("attention").get_weights()[0]
    )
    kernel, bias = taken.get_layer(ANSWER).get_weights()
    assert (kernel.ravel().tolist(), bias.tolist()) == ([1, 0], [0])


@pytest.mark.parametrize("network", ["baseline_cnn", "MobileNetV2", "EfficientNetB0"])
def test_only_networks_that_can_be_folded_are(network: str) -> None:
    with pytest.raises(RecipeError, match=f"'{network}' cannot be folded; set normalisation=batch"):
        build(small(f"network={network}", "normalisation=folded", "initial_weights=none"))


@pytest.mark.parametrize("normalisation", ["batch", "folded"])
def test_a_map_has_more_than_one_place(normalisation: str) -> None:
    """Else a last batch of one image would have one number to normalise by."""
    sizes = ("preprocess.height=32", "preprocess.width=32", "network=efficientnet_lite0", "initial_weights=none")
    with pytest.raises(RecipeError, match="32 x 32 pixels are one place to 'efficientnet_lite0'"):
        build(small(*sizes, f"normalisation={normalisation}"))
