"""The network as it learns: the one that is kept, with auxiliary outputs, a teacher and constraints around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from training.data.pipeline.pipeline import Pipeline
from training.learning.distillation import TAUGHT, Teacher, at_stage, difference, map_name, open_teacher
from training.learning.losses import class_weights
from training.learning.regularization import (
    add_norms,
    level_names,
    normalize_kernels,
    take_weights,
    with_spatial_dropout,
)
from training.learning.tasks import TASKS
from training.recipe.recipe import Recipe
from zoo.common.errors import BadOption
from zoo.common.lazy import keras, tf

# The output that is judged, kept and exported.
KEPT = "logits"
# A term of the loss: from inputs, labels and all outputs to a number, the mean over a batch.
Term = Callable[[Any, Any, dict[str, Any]], Any]


def kept(network: Any, recipe: Recipe) -> Any:
    """Return what is evaluated, saved and exported of a network: the one without auxiliary outputs.

    Of a network with a second classifier that a teacher taught it is the average of both, as in DeiT.
    """
    outputs = _outputs(network)
    if len(outputs) == 1:
        return network
    logits = outputs[KEPT]
    if recipe.teacher and TAUGHT in outputs:
        # In the zoo's own order, that of the names.
        logits = keras.layers.Average(name="average", dtype="float32")([outputs[TAUGHT], logits])
    return keras.Model(network.input, logits, name=network.name)


def product(model: Any) -> Any:
    """Return the network that is kept of a model in training, with the weights that the model has now."""
    made = getattr(model, "product", None)
    return made() if made else model


def make_training_model(network: Any, recipe: Recipe, pipeline: Pipeline) -> Any:
    """Return the model that is trained so that a network learns what its recipe asks for.

    Args:
        network: a functional network with all its outputs.
        recipe: how it learns.
        pipeline: from what.

    Returns:
        The network itself where the loss of its logits is all there is; else a model whose `product` it is.

    Raises:
        BadOption: something that cannot apply to this network.
    """
    _check(recipe)
    _check_heads(network, recipe)
    stages = recipe.regularize.spatial_dropout or (recipe.teacher and recipe.teacher.features)
    levels = level_names(recipe, pipeline.shape) if stages else []
    graph = with_spatial_dropout(network, recipe, levels)
    add_norms(graph, recipe.regularize)
    vectors = normalize_kernels(graph) if recipe.regularize.spectral_norm else []
    outputs = _outputs(graph)
    terms = _head_terms(recipe, pipeline)
    if recipe.teacher:
        teacher = open_teacher(recipe.teacher, pipeline)
        outputs |= _compared(graph, teacher, levels)
        terms.append(_teaching(teacher, label_loss(recipe, pipeline), outputs))
    if graph is network and len(outputs) == 1 and not (terms or vectors):
        return network
    return _learner(graph, outputs, terms, vectors, lambda: _product(network, graph, recipe))


def _outputs(network: Any) -> dict[str, Any]:
    """Return the outputs of a network by name."""
    return dict(network.output) if isinstance(network.output, dict) else {KEPT: network.output}


def _product(network: Any, graph: Any, recipe: Recipe) -> Any:
    if graph is not network:
        take_weights(network, graph)
    return kept(network, recipe)


def _check(recipe: Recipe) -> None:
    if recipe.regularize.spectral_norm and recipe.optimizer.ema:
        raise BadOption(
            "The mean of normalized kernels is not normalized. Received: regularize.spectral_norm=True, "
            f"optimizer.ema={recipe.optimizer.ema}. Leave one out."
        )


def _check_heads(network: Any, recipe: Recipe) -> None:
    """Raise BadOption unless each auxiliary output has its weight, or its teacher."""
    auxiliary, given = set(_outputs(network)) - {KEPT}, recipe.loss.heads
    taught = {TAUGHT} if recipe.teacher else set()
    unknown = sorted(set(given) - (auxiliary - taught))
    if unknown or any(weight < 0 for weight in given.values()):
        have = ", ".join(sorted(auxiliary - taught)) or "none"
        raise BadOption(
            f"loss.heads gives a weight of at least 0 to auxiliary outputs of {network.name}: it has {have}. "
            f"Received: loss.heads={dict(given)}"
        )
    missing = sorted(auxiliary - set(given) - taught)
    if missing:
        raise BadOption(
            f"Each auxiliary output needs a weight. Received: {network.name} with {', '.join(missing)} beside its "
            f"logits, loss.heads={dict(given)}. Set loss.heads.{missing[0]}=0.3, say."
        )


def label_loss(recipe: Recipe, pipeline: Pipeline) -> Callable[[Any, Any], Any]:
    """Return the loss of a recipe's labels, for `compile` or to be called with labels and logits of a batch."""
    dataset = pipeline.dataset
    return TASKS[dataset.task].loss(recipe.loss, class_weights(recipe.loss, pipeline), dataset.scale)


def _head_terms(recipe: Recipe, pipeline: Pipeline) -> list[Term]:
    """Return a term for each auxiliary output: its weight times its loss of the labels."""

    def term(name: str, weight: float) -> Term:
        loss = label_loss(recipe, pipeline)
        return lambda _, y, outputs: weight * loss(y, outputs[name])

    return [term(name, weight) for name, weight in recipe.loss.heads.items() if weight]


def _teaching(teacher: Teacher, loss: Callable[[Any, Any], Any], outputs: dict[str, Any]) -> Term:
    """Return the term that moves the weight of the labels to the teacher, and adds the difference of features."""
    config, listener = teacher.config, TAUGHT if TAUGHT in outputs else KEPT

    def term(x: Any, y: Any, outputs: dict[str, Any]) -> Any:
        answers = teacher.answer(x)
        taught = teacher.loss(answers, outputs[listener])
        apart = sum(difference(answers[name], outputs[name]) for name in teacher.maps())
        mean = _per_replica(config.alpha * taught + config.beta * apart)
        # The loss that a network is compiled with is a mean over all replicas already.
        return mean - config.alpha * loss(y, outputs[KEPT])

    return term


def _per_replica(mean: Any) -> Any:
    """Return this replica's share of a mean over a batch: gradients are summed over replicas."""
    return mean / tf.distribute.get_strategy().num_replicas_in_sync


def _compared(graph: Any, teacher: Teacher, levels: Sequence[str]) -> dict[str, Any]:
    """Return the student's maps that are compared with the teacher's, by 1x1 convolutions as wide as those."""
    found = {}
    for stage in teacher.config.features:
        name, mine = map_name(stage), at_stage(graph, list(levels), stage)
        theirs = teacher.maps()[name]
        if mine.shape[1:3] != theirs[:2]:
            raise BadOption(
                f"Maps that are compared must have one size. Received: teacher.features={stage}, where the teacher "
                f"has {tuple(theirs)} and the student {tuple(mine.shape[1:])}"
            )
        if mine.shape[-1] != theirs[-1]:
            mine = keras.layers.Conv2D(theirs[-1], 1, name=f"{name}_regressor", dtype="float32")(mine)
        found[name] = keras.layers.Identity(name=name, dtype="float32")(mine)
    return found


def _learner(
    graph: Any, outputs: dict[str, Any], terms: list[Term], vectors: list[Any], make_product: Callable[[], Any]
) -> Any:
    """Return a model of all outputs whose loss in training has the terms, and in evaluation is that of the labels."""

    class Learner(keras.Model):
        """A network in training."""

        def compute_loss(
            self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
        ) -> Any:
            """Return the loss of a batch."""
            loss = super().compute_loss(x, y, y_pred[KEPT], sample_weight, training)
            return loss + sum(term(x, y, y_pred) for term in terms) if training else loss

        def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            """Return the metrics of the logits."""
            return super().compute_metrics(x, y, y_pred[KEPT], sample_weight)

        def product(self) -> Any:
            """Return the network that is kept."""
            return make_product()

    model = Learner(graph.input, outputs, name=graph.name)
    # As an attribute they are variables of the model, which a checkpoint holds.
    model.spectral_vectors = vectors
    return model
