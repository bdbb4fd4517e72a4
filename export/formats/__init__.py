"""One file per export format.

To add a format, add a file here (or an entry point in the group `zoo.formats`) that calls `export.register_format`:

1. `write(source, path, options)` converts an `export.source.source.SourceModel`; it runs in a child process and may
   build on another format with `source.artifact_path("onnx")`.
2. `load(path, threads=None)` returns an `export.Runtime` for the file; see `export/backends`.
3. `tolerance` is one of `export/core/tolerance.py`: how far an artifact may be from its source model.
4. `guarantees` name properties from `export/core/guarantees.py` that are checked in every artifact.
5. `rules` yield reasons to refuse a model before conversion; see `export/core/precheck.py`.

No other file changes: the format is in `zoo formats`, `zoo export`, `zoo doctor` and the tests of all formats.
"""
