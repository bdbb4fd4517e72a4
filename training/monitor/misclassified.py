"""Show misclassified validation examples with truth, prediction and score in TensorBoard."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator
from typing import Any

import zoo
from training.data.outputs import label_slices
from training.data.pipeline.pipeline import Pipeline
from training.monitor.tensorboard import TensorBoardWriter
from training.recipe.recipe import Recipe
from zoo.common.lazy import np, tf
from zoo.specs.tasks import task_of
from zoo.specs.text import SPECIAL

# Number of predicted examples, spread over the split.
EXAMPLES = 512
COLUMNS = 4
SHOWN = 100  # characters of a text


@dataclasses.dataclass(frozen=True)
class Misclassified:
    """A misclassified example.

    Args:
        number: its index among the predicted examples.
        truth: its label.
        prediction: the model's prediction.
        score: the confidence of the prediction, or its error; the largest come first.
    """

    number: int
    truth: str
    prediction: str
    score: float


def show_misclassified(model: Any, pipeline: Pipeline, board: TensorBoardWriter, recipe: Recipe) -> None:
    """Write the worst misclassified validation examples to TensorBoard: images as a grid, others as a table."""
    if not recipe.log.misclassified:
        return
    x, y = pipeline.raw("validation", EXAMPLES)
    find = FINDERS[pipeline.dataset.task]
    found = sorted(find(model, pipeline, x, np.asarray(y)), key=lambda m: -m.score)[: recipe.log.misclassified]
    if not found:
        return
    if len(pipeline.shape) == 3:
        board.image("misclassified", grid(x, found), recipe.epochs)
    else:
        board.text("misclassified", _table(_described(pipeline, x), found), recipe.epochs)


def _outputs(model: Any, pipeline: Pipeline, x: Any, y: Any) -> Any:
    """Return the logits or values of raw examples, float32; by name if there are several targets."""
    size, found = pipeline.batch_size, []
    for start in range(0, len(y), size):
        part = tf.nest.map_structure(lambda t, s=start: tf.convert_to_tensor(t[s : s + size]), x)
        outputs = model(
            pipeline.encoder.prepare(part, tf.convert_to_tensor(y[start : start + size]))[0], training=False
        )
        outputs = outputs.get("logits", outputs) if isinstance(outputs, dict) else outputs
        found.append(tf.nest.map_structure(np.asarray, outputs))
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts).astype("float32"), *found)


def _classes(model: Any, pipeline: Pipeline, x: Any, y: Any) -> Iterator[Misclassified]:
    """Yield examples with another predicted class, scored by its probability."""
    scores = _softmax(_outputs(model, pipeline, x, y))
    labels, predicted = pipeline.dataset.labels, scores.argmax(-1)
    for i in np.flatnonzero(predicted != y):
        yield Misclassified(int(i), labels[y[i]], labels[predicted[i]], float(scores[i, predicted[i]]))


def _tags(model: Any, pipeline: Pipeline, x: Any, y: Any) -> Iterator[Misclassified]:
    """Yield texts with a wrong tag, scored by the fraction of wrong ones."""
    predicted, labels = _outputs(model, pipeline, x, y).argmax(-1), pipeline.dataset.labels
    for i in np.flatnonzero(((predicted != y) & (y >= 0)).any(-1)):
        real = y[i] >= 0
        truth, found = (" ".join(labels[n] for n in row[real]) for row in (y[i], predicted[i]))
        yield Misclassified(int(i), truth, found, float((predicted[i] != y[i])[real].mean()))


def _labels(model: Any, pipeline: Pipeline, x: Any, y: Any) -> Iterator[Misclassified]:
    """Yield examples with missing or extra labels, scored by the fraction of wrong ones."""
    predicted, truth, labels = _outputs(model, pipeline, x, y) > 0, y == 1, pipeline.dataset.labels
    # -1 is an unknown label.
    wrong = (predicted != truth) & (y >= 0)

    def names(row: Any) -> str:
        return ", ".join(label for label, there in zip(labels, row, strict=True) if there) or "none"

    for i in np.flatnonzero(wrong.any(-1)):
        yield Misclassified(int(i), names(truth[i]), names(predicted[i]), float(wrong[i].mean()))


def _numbers(model: Any, pipeline: Pipeline, x: Any, y: Any) -> Iterator[Misclassified]:
    """Yield all examples, scored by the absolute error."""
    predicted = _outputs(model, pipeline, x, y).reshape(len(y), -1)
    truth = y.reshape(len(y), -1)
    for i, distance in enumerate(np.abs(predicted - truth).mean(-1)):
        yield Misclassified(
            i, *(", ".join(f"{v:.4g}" for v in row) for row in (truth[i], predicted[i])), float(distance)
        )


def _targets(model: Any, pipeline: Pipeline, x: Any, y: Any) -> Iterator[Misclassified]:
    """Yield examples with a wrong class in any of several targets, scored by the fraction of wrong ones."""
    placed = [each for each in label_slices(pipeline.dataset.outputs) if task_of(each[0].task).indexed]
    if not placed:
        return
    outputs, y = _outputs(model, pipeline, x, y), y.astype("float32")
    truth = np.stack([y[:, place.start] for _, place in placed], axis=1)
    found = np.stack([outputs[output.name].argmax(-1) for output, _ in placed], axis=1)
    wrong = (found != truth) & ~np.isnan(truth)

    def names(row: Any, which: Any) -> str:
        return ", ".join(placed[i][0].labels[int(row[i])] for i in np.flatnonzero(which))

    for i in np.flatnonzero(wrong.any(-1)):
        yield Misclassified(int(i), names(truth[i], wrong[i]), names(found[i], wrong[i]), float(wrong[i].mean()))


def _sequences(model: Any, pipeline: Pipeline, x: Any, y: Any) -> Iterator[Misclassified]:
    """Yield sequences that are not generated exactly, scored by the fraction of wrong tokens."""
    few = slice(0, pipeline.batch_size)
    generated, y, vocabulary = np.asarray(zoo.generate(model, x["source"][few])), y[few], pipeline.text.vocabulary

    def words(row: Any) -> str:
        return " ".join(vocabulary[n] for n in row if n >= len(SPECIAL))

    for i in np.flatnonzero((generated != y).any(-1)):
        yield Misclassified(int(i), words(y[i]), words(generated[i]), float((generated[i] != y[i]).mean()))


FINDERS: dict[str, Callable[..., Iterator[Misclassified]]] = {
    "classify": _classes,
    "tag": _tags,
    "generate": _sequences,
    "multilabel": _labels,
    "regress": _numbers,
    "multitask": _targets,
}


def _softmax(logits: Any) -> Any:
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def _described(pipeline: Pipeline, x: Any) -> list[str]:
    """Return the texts, or the feature values."""
    if pipeline.text is not None:
        return pipeline.strings("validation", EXAMPLES)
    return [", ".join(f"{value:.4g}" for value in np.ravel(row)) for row in x]


def _table(texts: list[str], examples: list[Misclassified]) -> str:
    """Return a table in Markdown."""
    lines = ["| input | truth | prediction | score |", "|---|---|---|---|"]
    for example in examples:
        cells = (texts[example.number], example.truth, example.prediction)
        safe = [" ".join(cell.split()).replace("|", "\\|")[:SHOWN] for cell in cells]
        lines.append(f"| {' | '.join(safe)} | {example.score:.2f} |")
    return "\n".join(lines)


def grid(images: Any, examples: list[Misclassified]) -> Any:
    """Return one image of examples, each with "truth: prediction score" above it.

    Args:
        images: raw values, 0 to 255, (n, height, width, channels).
        examples: which of them, the first at the top left.

    Returns:
        uint8 (height, width, 3).
    """
    from matplotlib.figure import Figure
    from PIL import Image

    rows = -(-len(examples) // COLUMNS)
    figure = Figure((2 * COLUMNS, 2.3 * rows), dpi=80)
    # One plot for all: a plot each takes ten times as long.
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, COLUMNS), ylim=(rows, 0))
    axes.set_axis_off()
    for i, example in enumerate(examples):
        left, top = i % COLUMNS, i // COLUMNS
        pixels = np.clip(images[example.number], 0, 255).astype("uint8")
        pixels = pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels[..., :3]
        place = (left + 0.05, left + 0.95, top + 0.97, top + 0.17)
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=place, aspect="auto")
        title = f"{example.truth}: {example.prediction} {example.score:.2f}"
        axes.text(left + 0.5, top + 0.14, title, fontsize=9, ha="center", parse_math=False)
    axes.set(xlim=(0, COLUMNS), ylim=(rows, 0))
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file).convert("RGB"))
