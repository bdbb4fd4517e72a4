"""What a trained network gets wrong, for people to look at: validation examples with truth, prediction and score."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator
from typing import Any

import zoo
from training.data.pipeline.pipeline import Pipeline
from training.monitor.tensorboard import Board
from training.recipe.recipe import Recipe
from zoo.common.lazy import np, tf
from zoo.specs.text import SPECIAL

# Examples, spread over the split, among which mistakes are looked for.
LOOK = 512
COLUMNS = 4
SHOWN = 100  # characters of a text


@dataclasses.dataclass(frozen=True)
class Mistake:
    """One example that is answered wrongly.

    Args:
        number: its place among those looked at.
        truth: what it is.
        prediction: what the network says.
        score: how sure the network is, or how far off; the largest come first.
    """

    number: int
    truth: str
    prediction: str
    score: float


def show_mistakes(model: Any, pipeline: Pipeline, board: Board, recipe: Recipe) -> None:
    """Tell TensorBoard the worst mistakes among validation examples: images as a grid, all else as a table."""
    if not recipe.log.mistakes:
        return
    x, y = pipeline.raw("validation", LOOK)
    find = FINDERS[pipeline.dataset.task]
    found = sorted(find(model, pipeline, x, np.asarray(y)), key=lambda m: -m.score)[: recipe.log.mistakes]
    if not found:
        return
    if len(pipeline.shape) == 3:
        board.image("mistakes", grid(x, found), recipe.epochs)
    else:
        board.text("mistakes", _table(_described(pipeline, x), found), recipe.epochs)


def _outputs(model: Any, pipeline: Pipeline, x: Any, y: Any) -> Any:
    """Return the logits or values of raw examples, float32."""
    size, found = pipeline.batch_size, []
    for start in range(0, len(y), size):
        part = tf.nest.map_structure(lambda t, s=start: tf.convert_to_tensor(t[s : s + size]), x)
        outputs = model(
            pipeline.encoder.prepare(part, tf.convert_to_tensor(y[start : start + size]))[0], training=False
        )
        found.append(np.asarray(outputs["logits"] if isinstance(outputs, dict) else outputs))
    return np.concatenate(found).astype("float32")


def _classes(model: Any, pipeline: Pipeline, x: Any, y: Any) -> Iterator[Mistake]:
    """Yield the examples whose class is another one, scored by the probability of the wrong one."""
    scores = _softmax(_outputs(model, pipeline, x, y))
    labels, predicted = pipeline.dataset.labels, scores.argmax(-1)
    for i in np.flatnonzero(predicted != y):
        yield Mistake(int(i), labels[y[i]], labels[predicted[i]], float(scores[i, predicted[i]]))


def _tags(model: Any, pipeline: Pipeline, x: Any, y: Any) -> Iterator[Mistake]:
    """Yield the texts with a wrong tag, scored by the share of wrong ones."""
    predicted, labels = _outputs(model, pipeline, x, y).argmax(-1), pipeline.dataset.labels
    for i in np.flatnonzero(((predicted != y) & (y >= 0)).any(-1)):
        real = y[i] >= 0
        truth, found = (" ".join(labels[n] for n in row[real]) for row in (y[i], predicted[i]))
        yield Mistake(int(i), truth, found, float((predicted[i] != y[i])[real].mean()))


def _several(model: Any, pipeline: Pipeline, x: Any, y: Any) -> Iterator[Mistake]:
    """Yield the examples with a label too many or too few, scored by the share of wrong ones."""
    said, truth, labels = _outputs(model, pipeline, x, y) > 0, y == 1, pipeline.dataset.labels
    # -1 stands for a label that nobody knows of an example.
    wrong = (said != truth) & (y >= 0)

    def names(row: Any) -> str:
        return ", ".join(label for label, there in zip(labels, row, strict=True) if there) or "none"

    for i in np.flatnonzero(wrong.any(-1)):
        yield Mistake(int(i), names(truth[i]), names(said[i]), float(wrong[i].mean()))


def _numbers(model: Any, pipeline: Pipeline, x: Any, y: Any) -> Iterator[Mistake]:
    """Yield all examples, scored by how far the answer is off."""
    said = _outputs(model, pipeline, x, y).reshape(len(y), -1)
    truth = y.reshape(len(y), -1)
    for i, distance in enumerate(np.abs(said - truth).mean(-1)):
        yield Mistake(i, *(", ".join(f"{v:.4g}" for v in row) for row in (truth[i], said[i])), float(distance))


def _written(model: Any, pipeline: Pipeline, x: Any, y: Any) -> Iterator[Mistake]:
    """Yield what is not written as it should be, scored by the share of other tokens."""
    few = slice(0, pipeline.batch_size)
    written, y, vocabulary = np.asarray(zoo.generate(model, x["source"][few])), y[few], pipeline.text.vocabulary

    def words(row: Any) -> str:
        return " ".join(vocabulary[n] for n in row if n >= len(SPECIAL))

    for i in np.flatnonzero((written != y).any(-1)):
        yield Mistake(int(i), words(y[i]), words(written[i]), float((written[i] != y[i]).mean()))


FINDERS: dict[str, Callable[..., Iterator[Mistake]]] = {
    "classify": _classes,
    "tag": _tags,
    "generate": _written,
    "multilabel": _several,
    "regress": _numbers,
}


def _softmax(logits: Any) -> Any:
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def _described(pipeline: Pipeline, x: Any) -> list[str]:
    """Return the texts, or the values of features."""
    if pipeline.text is not None:
        return pipeline.strings("validation", LOOK)
    return [", ".join(f"{value:.4g}" for value in np.ravel(row)) for row in x]


def _table(texts: list[str], mistakes: list[Mistake]) -> str:
    """Return a table in Markdown."""
    lines = ["| input | truth | prediction | score |", "|---|---|---|---|"]
    for mistake in mistakes:
        cells = (texts[mistake.number], mistake.truth, mistake.prediction)
        safe = [" ".join(cell.split()).replace("|", "\\|")[:SHOWN] for cell in cells]
        lines.append(f"| {' | '.join(safe)} | {mistake.score:.2f} |")
    return "\n".join(lines)


def grid(images: Any, mistakes: list[Mistake]) -> Any:
    """Return one picture of mistakes, each with "truth: prediction score" above it.

    Args:
        images: raw values, 0 to 255, (n, height, width, channels).
        mistakes: which of them, the first at the top left.

    Returns:
        uint8 (height, width, 3).
    """
    from matplotlib.figure import Figure
    from PIL import Image

    rows = -(-len(mistakes) // COLUMNS)
    figure = Figure((2 * COLUMNS, 2.3 * rows), dpi=80)
    # One plot for all: a plot each takes ten times as long.
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, COLUMNS), ylim=(rows, 0))
    axes.set_axis_off()
    for i, mistake in enumerate(mistakes):
        left, top = i % COLUMNS, i // COLUMNS
        pixels = np.clip(images[mistake.number], 0, 255).astype("uint8")
        pixels = pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels[..., :3]
        place = (left + 0.05, left + 0.95, top + 0.97, top + 0.17)
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=place, aspect="auto")
        title = f"{mistake.truth}: {mistake.prediction} {mistake.score:.2f}"
        axes.text(left + 0.5, top + 0.14, title, fontsize=9, ha="center", parse_math=False)
    axes.set(xlim=(0, COLUMNS), ylim=(rows, 0))
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file).convert("RGB"))
