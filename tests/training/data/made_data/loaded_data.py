"""What tests look at in loaded data, and in errors about it."""

from __future__ import annotations


def one_line(error):
    """Return the message, and check that it has one line."""
    assert "\n" not in str(error.value)
    return str(error.value)


def rows(split):
    """Return the examples of a split as (list of x, list of labels)."""
    x, y = zip(*split.examples.as_numpy_iterator(), strict=True)
    return list(x), [int(label) for label in y]
