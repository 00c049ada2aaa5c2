"""Writes the files of Keras 2 here, and what it answers: with TensorFlow 2.15, in its own place.

python3 -m venv tf && tf/bin/pip install 'tensorflow-cpu==2.15.*' && tf/bin/python make.py
"""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent
layers = tf.keras.layers


def transfer() -> tf.keras.Model:
    """As a tutorial has it: random changes, operators, and a frozen network within."""
    inner = tf.keras.Input((16, 16, 3))
    x = layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False)(inner)
    x = layers.BatchNormalization(name="block1/norm")(x)
    x = layers.ReLU(6.0)(x)
    x = layers.SeparableConv2D(4, 3, padding="same")(x)
    base = tf.keras.Model(inner, x, name="base")
    base.trainable = False
    changed = tf.keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)])
    image = tf.keras.Input((16, 16, 3))
    x = changed(image) / 0.5 - 1.0
    x = base(x, training=False)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    return tf.keras.Model(image, layers.Dense(2, activation="softmax")(x))


def sequence() -> tf.keras.Model:
    """Layers whose arguments have other names today, or other meanings."""
    return tf.keras.Sequential(
        [
            layers.Conv2D(2, 3, input_shape=(16, 16, 1), kernel_regularizer="l2"),
            layers.LeakyReLU(alpha=0.1),
            layers.AveragePooling2D(3, strides=2, padding="same"),
            layers.Conv2DTranspose(2, 3),
            layers.ThresholdedReLU(theta=0.05),
            layers.Flatten(),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


if __name__ == "__main__":
    tf.keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    pixels = generator.random((3, 16, 16, 1), np.float32)
    answers = {}
    for make in (transfer, sequence):
        network = make()
        for weight in network.weights:
            if len(weight.shape) == 1:
                weight.assign(generator.uniform(0.1, 0.9, weight.shape))
        shown = np.repeat(pixels, network.input_shape[-1], axis=-1)
        answers[make.__name__] = network.predict(shown)[:, -1].tolist()
        for suffix in (".h5", ".keras"):
            network.save(HERE / f"{make.__name__}{suffix}")
    (HERE / "answers.json").write_text(json.dumps(answers, indent=2) + "\n")
