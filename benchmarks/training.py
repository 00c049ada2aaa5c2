"""What a step of training takes, beside the same network in plain PyTorch, and beside its arithmetic alone.

    python -m benchmarks.training

EfficientNet-Lite0 at 512 × 320 on synthetic mammograms. Plain PyTorch: float32, channels last, on a batch that lies
ready, in a process as it starts; all weights learn, or all but those that the recipe leaves as they are. Ours is the
whole step of the recipe `accurate`: random changes of pictures and boxes, losses of labels and maps, AdamW, the moving
average; the stem and the first two stages stay as they are.
"""

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from benchmarks.measuring import Row, alternate, each_of, keep
from mammolens.data.prepared import PreparedSet
from mammolens.data.sources import read_source
from mammolens.data.sources.phantom import write_phantoms
from mammolens.learning import callbacks
from mammolens.learning.batches import Batches, CanvasBoxes
from mammolens.learning.fitting import compile_learner
from mammolens.learning.networks.box_loss import with_box_loss
from mammolens.learning.networks.builders import build, build_learner
from mammolens.learning.networks.heads import LOGITS
from mammolens.memory import keep_freed_memory
from mammolens.model.recipe import Recipe, read_recipe

PATIENTS = 20
REPEATS, STEPS = 3, 2
BLOCKS = 3  # of the stages that the recipe leaves as they are, besides the stem

PLAIN = """
import sys, time, torch
from efficientnet_lite_pytorch import EfficientNet
batch, height, width, frozen = map(int, sys.argv[1:])
network = EfficientNet.from_name("efficientnet-lite0", num_classes=1).to(memory_format=torch.channels_last)
for part in (network._conv_stem, network._bn0, *network._blocks[:frozen]) if frozen else ():
    part.requires_grad_(False).eval()
optimizer = torch.optim.AdamW([one for one in network.parameters() if one.requires_grad], 1e-3)
images = torch.rand(batch, 3, height, width).to(memory_format=torch.channels_last)
labels = torch.rand(batch, 1).round()
def step():
    optimizer.zero_grad()
    torch.nn.functional.binary_cross_entropy_with_logits(network(images), labels).backward()
    optimizer.step()
step()
print(flush=True)
for line in sys.stdin:
    started = time.perf_counter()
    step()
    print(time.perf_counter() - started, flush=True)
"""


@contextmanager
def plain(recipe: Recipe, frozen: int) -> Iterator[Callable[[], float]]:
    """Hold a process that steps in plain PyTorch; yield what makes a step: seconds.

    Args:
        recipe: for its sizes.
        frozen: so many blocks, and the stem before them, do not learn.
    """
    sizes = map(str, (recipe.batch_size, *recipe.preprocess.shape, frozen))
    command = [sys.executable, "-c", PLAIN, *sizes]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:

        def seconds() -> float:
            print(file=process.stdin, flush=True)
            return float(next(iter(process.stdout or ())))

        next(iter(process.stdout or ()))
        yield seconds
        process.communicate()  # and so ends what it reads


def ours(recipe: Recipe, data: PreparedSet) -> Callable[[], None]:
    """Return a step of the package's training, batch after batch."""
    network = build(recipe)
    learner = with_box_loss(build_learner(network, recipe), recipe)
    compile_learner(learner, recipe)
    places = network.get_layer(LOGITS).output.shape[1:3]
    also = range(len(data) // 2, len(data))
    rectangles = tuple(((100, 200, 140, 240),) if index in also else () for index in range(len(data)))
    boxes = CanvasBoxes(recipe.preprocess.shape, places, rectangles)
    drawn = {"also": also, "also_images": recipe.also_images, "seed": 0}
    batches = Batches(data, recipe.batch_size, augment=recipe.augment, boxes=boxes, **drawn)  # type: ignore[arg-type]
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


def operations(recipe: Recipe, images: int, *, learning: bool = True) -> float:
    """Return the operations of convolutions of so many images: forward, and twice as many backward in what learns."""
    count = 0
    for layer in build(recipe).layers:
        if type(layer).__name__ in {"Conv2D", "DepthwiseConv2D"}:
            shape = layer.output.shape[1:]
            places = math.prod(shape[1:] if layer.data_format == "channels_first" else shape[:-1])
            count += 2 * layer.kernel.value.numel() * places * (3 if learning and layer.trainable else 1)
    return float(count * images)


def speeds() -> dict[str, float]:
    """Return the most operations in a second of large matrix products and convolutions, here and now, in 1e9."""
    told = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        square = torch.rand(2048, 2048, dtype=dtype)
        images = torch.rand(16, 128, 32, 32, dtype=dtype).contiguous(memory_format=torch.channels_last)
        kernel = torch.rand(128, 128, 3, 3, dtype=dtype)
        product, convolution = partial(torch.mm, square, square), partial(torch.conv2d, images, kernel, padding=1)
        for kind, operations, run in (
            ("matrix products", 2 * 2048**3, product),
            ("convolutions", 2 * 9 * 128 * 128 * 16 * 32 * 32, convolution),
        ):
            told[f"{kind}, {name}"] = operations / min(seconds(run) for _ in range(6)) / 1e9
    return told


def seconds(run: Callable[[], object]) -> float:
    """Return how long something takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def profile(step: Callable[[], None]) -> str:
    """Say which operations take most of a step."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        step()
    took = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    most = sorted(took, key=lambda name: -took[name])[:8]
    return ", ".join(f"{name.removeprefix('aten::')} {100 * took[name] / sum(took.values()):.0f} %" for name in most)


def main() -> None:
    """Measure in turn, and keep the rows."""
    recipe = read_recipe("accurate", ["initial_weights=imagenet"])
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder, "drawn")
        write_phantoms(drawn, PATIENTS)
        os.environ["MAMMOLENS_CACHE"] = str(Path(folder, "cache"))
        data = PreparedSet.of(read_source(str(drawn)).labelled(), recipe.preprocess)
    keep_freed_memory()
    step = ours(recipe, data)
    folded = ours(recipe.model_copy(update={"normalisation": "folded"}), data)
    step()
    folded()
    fast = speeds()
    with plain(recipe, 0) as other, plain(recipe, BLOCKS) as frozen:
        own = {"ours": partial(each_of, STEPS, step), "folded": partial(each_of, STEPS, folded)}
        took = alternate({**own, "plain": other, "frozen": frozen}, REPEATS)
    work = f"a step of `accurate`, {recipe.batch_size} images, random changes included"
    against = "plain PyTorch: same network, all of it, float32, channels last, pixels in memory, no random changes"
    likewise = "the same, its stem and first two stages as frozen as ours"
    fastest = fast["convolutions, bfloat16"] * 1e9
    measured = "; ".join(f"{name} {value:.0f} GFLOP/s" for name, value in fast.items())
    arithmetic = [operations(recipe, recipe.batch_size) / fastest]
    keep(
        "training",
        [
            Row(work, took["ours"], against, took["plain"], 4.0, note=f"where it goes: {profile(step)}"),
            Row(work, took["ours"], likewise, took["frozen"], None),
            Row('the same with `normalisation = "folded"`', took["folded"], against, took["plain"], None),
            Row(
                work,
                took["ours"],
                f"its {arithmetic[0] * fastest / 1e9:.0f} GFLOP alone, at the speed of a large convolution in bfloat16",
                arithmetic,
                None,
                note=f"measured: {measured}",
            ),
        ],
    )


if __name__ == "__main__":
    main()
