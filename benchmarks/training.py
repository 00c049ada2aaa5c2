"""How fast a step of training is, beside the same network in plain PyTorch.

    python -m benchmarks.training

EfficientNet-Lite0 at 512 × 320 on synthetic mammograms. Plain PyTorch: float32, channels last, all
weights learn, on a batch that lies ready. Ours is the whole step of the recipe `accurate`: random
changes of pictures and boxes, losses of labels and maps, AdamW, the moving average; three stages
stay as they are. For comparison, too: ours with folded normalisation. Ways are measured in turn,
the smallest of several rounds counts; ratios within one run are what to compare.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped]
from rich.console import Console
from rich.table import Table

from mammolens.data.prepared import PreparedSet
from mammolens.data.sources import read_source
from mammolens.data.sources.phantom import write_phantoms
from mammolens.learning import callbacks
from mammolens.learning.batches import Batches, CanvasBoxes
from mammolens.learning.fitting import compile_learner
from mammolens.learning.networks.box_loss import with_box_loss
from mammolens.learning.networks.builders import build, build_folded
from mammolens.learning.networks.heads import LOGITS
from mammolens.model.recipe import Recipe, read_recipe

PATIENTS = 20
ROUNDS, STEPS = 3, 6


def plain(batch: int, height: int, width: int) -> Callable[[], None]:
    """Return a step of plain PyTorch."""
    network = EfficientNet.from_name("efficientnet-lite0", num_classes=1).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    images = torch.rand(batch, 3, height, width).to(memory_format=torch.channels_last)
    labels = torch.rand(batch, 1).round()

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(network(images), labels).backward()
        optimizer.step()

    return step


def ours(recipe: Recipe, data: PreparedSet) -> Callable[[], None]:
    """Return a step of the package's training, batch after batch."""
    network = build(recipe)
    body = build_folded(network, recipe) if recipe.normalisation == "folded" else network
    learner = with_box_loss(body, recipe)
    compile_learner(learner, recipe)
    places = network.get_layer(LOGITS).output.shape[1:3]
    also = range(len(data) // 2, len(data))
    rectangles = tuple(((100, 200, 140, 240),) if index in also else () for index in range(len(data)))
    boxes = CanvasBoxes(recipe.preprocess.shape, places, rectangles)
    batches = Batches(
        data,
        recipe.batch_size,
        augment=recipe.augment,
        boxes=boxes,
        also=also,
        also_images=recipe.also_images,
        seed=0,
    )
    average = callbacks.MovingAverage(recipe.moving_average)
    average.set_model(learner)
    taken = 0

    def step() -> None:
        nonlocal taken
        inputs, labels, weights = batches[taken % (len(batches) - 1)]
        learner.train_on_batch(inputs, labels, weights)
        average.on_train_batch_end(taken)
        taken += 1

    return step


def main() -> None:
    """Measure and print."""
    recipe = read_recipe("accurate", ["initial_weights=imagenet"])
    with tempfile.TemporaryDirectory() as folder:
        write_phantoms(Path(folder), PATIENTS)
        data = PreparedSet.of(read_source(folder).labelled(), recipe.preprocess)
    ways = {
        "plain PyTorch, float32": plain(recipe.batch_size, *recipe.preprocess.shape),
        "mammolens, as the recipe has it": ours(recipe, data),
        "mammolens, folded": ours(recipe.model_copy(update={"normalisation": "folded"}), data),
        "mammolens, folded, nothing frozen": ours(
            recipe.model_copy(update={"normalisation": "folded", "frozen_stages": 0}), data
        ),
    }
    best = dict.fromkeys(ways, np.inf)
    for step in ways.values():
        step()
    for _ in range(ROUNDS):
        for way, step in ways.items():
            started = time.perf_counter()
            for _ in range(STEPS):
                step()
            best[way] = min(best[way], (time.perf_counter() - started) / STEPS / recipe.batch_size)
    table = Table("a step of training", "ms an image", "times as fast")
    first = next(iter(best.values()))
    for way, seconds in best.items():
        table.add_row(way, f"{1000 * seconds:.0f}", f"{first / seconds:.1f}")
    Console().print(
        f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, {recipe.batch_size} images a step"
    )
    Console().print(table)


if __name__ == "__main__":
    main()
