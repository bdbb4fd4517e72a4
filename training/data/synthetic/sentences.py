"""Random sentences about animals from a grammar, where word order and voice decide who did what."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator

ANIMALS = ("bear", "cat", "dog", "duck", "fox", "goat", "horse", "wolf")
LOOKS = ("big", "black", "brown", "grey", "hungry", "little", "old", "tired", "white", "young")
# Past tense and participle.
VERBS = (
    ("bit", "bitten"), ("called", "called"), ("chased", "chased"), ("followed", "followed"), ("found", "found"),
    ("helped", "helped"), ("passed", "passed"), ("pushed", "pushed"), ("saw", "seen"), ("scared", "scared"),
    ("stopped", "stopped"), ("woke", "woken"),
)  # fmt: skip
PLACES = ("behind the barn", "by the lake", "in the garden", "near the river", "on the hill", "under the bridge")
TIMES = ("again", "at noon", "before dinner", "in the morning", "last night", "yesterday")
ROLES = ("other", "agent", "action", "patient", "place", "time")

Words = list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Sentence:
    """A sentence in lower case without punctuation.

    Args:
        words: its words.
        roles: what each word is part of, one of `ROLES`.
        agent: the animal that acts.
    """

    words: tuple[str, ...]
    roles: tuple[str, ...]
    agent: str


def sentences(seed: int) -> Iterator[Sentence]:
    """Yield unique sentences without end: active or passive, plain or cleft, with other animals nearby."""
    draw, seen = random.Random(seed), set()
    while True:
        agent, patient, *others = draw.sample(ANIMALS, 4)
        words = _clause(draw, _animal(draw, agent, "agent"), _animal(draw, patient, "patient"))
        for extra in draw.sample(_extras(draw, *others), draw.randint(0, 2)):
            words = extra + words if draw.random() < 0.3 else words + extra
        sentence = Sentence(*zip(*words, strict=True), agent)
        if sentence.words not in seen:
            seen.add(sentence.words)
            yield sentence


def _clause(draw: random.Random, agent: Words, patient: Words) -> Words:
    """Return a clause in one of five constructions."""
    past, participle = draw.choice(VERBS)
    did, done = _all(past, "action"), _all(f"was {participle}", "action")
    start, that, by = _all("it was"), _all("that"), _all("by")
    return draw.choice(
        [
            agent + did + patient,
            patient + done + by + agent,
            start + agent + that + did + patient,
            start + patient + that + agent + did,
            start + patient + that + done + by + agent,
        ]
    )


def _extras(draw: random.Random, near: str, asleep: str) -> list[Words]:
    """Return adjuncts before or after a clause; two of them name animals that do not take part."""
    return [
        _all(draw.choice(PLACES), "place"),
        _all(draw.choice(TIMES), "time"),
        _all("near") + _animal(draw, near, "other"),
        _all("while") + _animal(draw, asleep, "other") + _all("slept"),
    ]


def _animal(draw: random.Random, name: str, role: str) -> Words:
    looks = [draw.choice(LOOKS)] if draw.random() < 0.5 else []
    return _all(" ".join(["the", *looks, name]), role)


def _all(text: str, role: str = "other") -> Words:
    return [(word, role) for word in text.split()]
