"""The content of a report to write, and the page that is read back."""

from __future__ import annotations

import math
from html.parser import HTMLParser

from export.reporting.report import write_report

HOSTILE = "<script>alert('x')</script> --> ]]> $\\frac{ \x00\x1b"


def artifact(name, count=312344, **changes):
    row = {
        "format": name,
        "compression": None,
        "path": f"exports/{name}/model",
        "bytes": count,
        "gzip_bytes": count // 2,
        "latency_ms": 0.21,
        "latency_p95_ms": 0.25,
        "threads": 2,
        "batch": 1,
        "accuracy": 0.975,
        "source_accuracy": 0.978,
        "agreement": 0.994,
        "max_difference": 0.31,
        "mean_difference": 0.02,
        "relative": 0.03,
        "images": 360,
        "tolerance": {"relative": 0.25, "agreement": 0.97, "drop": 0.006},
        "passed": True,
    }
    return {**row, **changes}


def confusion(classes):
    return [[9 if i == j else int((i + 1) % classes == j) for j in range(classes)] for i in range(classes)]


def content_of_a_run():
    curve = {"loss": 2.1, "accuracy": 0.3, "val_loss": 1.9, "val_accuracy": 0.4, "learning_rate": 0.01}
    return {
        "title": "digits_resnet",
        "run": "runs/digits_resnet/20261120-210000-ab12",
        "created": "2026-11-20T21:00:00+00:00",
        "summary": {
            "model": "resnet20",
            "parameters": 269722,
            "input": [8, 8, 1],
            "classes": 4,
            "dataset": "digits",
            "train_images": 1293,
            "validation_images": 144,
            "test_images": 360,
            "epochs": 2,
            "seconds": 41.2,
            "seed": 1,
            "test_accuracy": 0.978,
            "test_loss": 0.09,
            "hardware": "2 CPU cores",
            "versions": {"keras": "3.15.1"},
        },
        "recipe": {"optimizer": {"learning_rate": 0.05}, "augment": ["shift"]},
        "curves": [{"epoch": 1, **curve}, {"epoch": 2, **curve, "val_loss": math.nan}],
        "labels": ["zero", "one", "two", "three"],
        "confusion": confusion(4),
        "artifacts": [
            artifact("tflite_int8"),
            artifact("onnx", 1101344, passed=False, max_difference=math.inf),
        ],
    }


class Page(HTMLParser):
    """Collects elements, links and visible text, and checks that elements are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.ids, self.open, self.text = set(), [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for key, value in attrs if key in ("src", "href", "srcset", "data", "action", "poster")]
        self.ids += [value for key, value in attrs if key == "id"]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def render(content, folder):
    page = Page(write_report(content, folder).read_text(encoding="utf-8"))
    assert not page.open
    page.text = " ".join(page.text.split())
    return page


def measured(latency):
    by_threads = {"1": 3 * latency, "2": latency}
    return {
        "latency": {n: {"p50": ms, "p95": 1.2 * ms, "rounds": [ms] * 9} for n, ms in by_threads.items()},
        "batch": 1,
        "cold": {"import": 150.0, "load": 20.0, "first": 1.0, "total": 171.0},
        "memory": {"peak": 72_500_000, "over_import": 10_700_000},
        "throughput": {"per_second": 25133.8, "batch": 32, "callers": 1},
    }
