"""What Keras on TensorFlow does, as the original project has it. Runs in TensorFlow's environment.

    build/tensorflow/bin/python -P benchmarks/keras_way.py train NETWORK DATA EPOCHS
    build/tensorflow/bin/python -P benchmarks/keras_way.py answer NETWORK PIXELS

`train` fits a network to the class folders below DATA, reading each JPEG in each epoch, and prints a line an epoch.
`answer` makes an answer for one picture, and then for each line that it reads so many as that says: it prints how
long one took, in seconds.
"""

import sys
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

BATCH, RATE = 16, 1e-4


def train(path: str, data: str, epochs: str) -> None:
    """Train, validate after each epoch, judge on the test split, save."""
    network = keras.saving.load_model(path, compile=False)
    network.compile(
        keras.optimizers.Adam(RATE),
        keras.losses.BinaryCrossentropy(),
        metrics=["accuracy", keras.metrics.AUC(name="auc"), keras.metrics.Recall(name="recall")],
    )
    height, width = network.input_shape[1:3]
    of_split = {
        split: tf.keras.preprocessing.image.ImageDataGenerator(rescale=1 / 255).flow_from_directory(
            Path(data) / split,
            target_size=(height, width),
            color_mode="grayscale",
            batch_size=BATCH,
            class_mode="binary",
            shuffle=split == "train",
        )
        for split in ("train", "valid", "test")
    }
    said = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, _: print(f"epoch {epoch + 1}", flush=True))
    network.fit(of_split["train"], validation_data=of_split["valid"], epochs=int(epochs), verbose=0, callbacks=[said])
    network.evaluate(of_split["test"], verbose=0)
    network.save(Path(path).with_name("learnt.keras"))


def answer(path: str, pixels: str) -> None:
    """Answer as often as each line says."""
    network, picture = keras.saving.load_model(path, compile=False), np.load(pixels)
    network.predict(picture, verbose=0)
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(int(line)):
            network.predict(picture, verbose=0)
        print((time.perf_counter() - started) / int(line), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(*sys.argv[2:])
    else:
        answer(*sys.argv[2:])
