"""The optimizer of a recipe and its learning-rate schedule."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer; weight decay skips biases, normalization, layer scales, embeddings and tokens.

    Args:
        name: "sgd", "adam", "adamw", "rmsprop", "adagrad", "lamb", "lion", "muon" or another optimizer of Keras;
            "momentum" and "nesterov" are sgd with either; "lbfgs" is SciPy's L-BFGS on the full training split, for
            small models: epochs are its iterations, and learning rate, momentum and schedule do not apply.
        learning_rate: peak learning rate, for a batch of `data.batch_size`.
        momentum: for optimizers that have it (sgd, rmsprop).
        nesterov: Nesterov momentum, for sgd.
        weight_decay: decoupled decay per step, multiplied by the learning rate.
        clip_norm: maximum global norm of all gradients; 0 for no clipping.
        clip_each: maximum norm of each gradient; 0 for no clipping.
        clip_value: maximum absolute value in a gradient; 0 for no clipping.
        beta_1: decay of the running mean of gradients (Adam and its variants); 0 for Keras' default.
        beta_2: decay of the running mean of squared gradients (Adam and its variants); 0 for Keras' default.
        epsilon: added to a denominator for numerical stability (Adam and its variants); 0 for Keras' default.
        rho: decay of the running mean of squared gradients (rmsprop, adadelta); 0 for Keras' default.
        layer_decay: factor on the learning rate from each block, or layer outside of blocks, to the one before it
            (arXiv:2003.10555); 0 or 1 for the same rate everywhere.
        accumulate: steps over which gradients are averaged before an update.
        ema: decay of the exponential moving average of the weights, smaller at first: update t uses min(ema,
            (1 + t) / (10 + t)). The average is evaluated, saved and exported. 0 for none.
    """

    name: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    clip_each: float = 0.0
    clip_value: float = 0.0
    beta_1: float = 0.0
    beta_2: float = 0.0
    epsilon: float = 0.0
    rho: float = 0.0
    layer_decay: float = 0.0
    accumulate: int = 1
    ema: float = 0.0


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """The learning-rate schedule: a linear warm-up to the peak, then a schedule by name.

    Args:
        name: "constant"; "cosine" to `end` x peak; "step", x `factor` at each of `milestones` or every `period`;
            "exponential", x `factor` every `period`; "polynomial" of `power` to `end` x peak;
            "cosine_restarts", cosines from the peak, the first over `period`, each `factor` times as long (SGDR,
            arXiv:1608.03983); "one_cycle", from peak / 25 up over 0.3 of the time and down to `end` x peak, both on
            cosines (arXiv:1708.07120); "coslog4", four cosines from 0 to the peak and back, each twice as long as the
            one before (arXiv:2407.04491); or "inverse_sqrt", peak x sqrt(warm-up steps / step), steps from 1 (equation
            3 of Vaswani et al. 2017, arXiv:1706.03762), which needs a warm-up.
        warmup_epochs: length of the warm-up, epochs.
        end: final learning rate, as a fraction of the peak.
        milestones: epochs at which "step" decays the learning rate.
        period: epochs; see `name`.
        factor: see `name`; 0 for the usual (0.1 of a step, 0.94 of an exponential, 1 of restarts).
        power: exponent of the polynomial.
    """

    name: str = "cosine"
    warmup_epochs: float = 0.0
    end: float = 0.0
    milestones: tuple[float, ...] = ()
    period: float = 0.0
    factor: float = 0.0
    power: float = 1.0
