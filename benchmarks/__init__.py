"""moalign side by side with what people use today: each script measures ratios within one run.

`python -m benchmarks.sweep`, `.decode`, `.memory`, `.startup`, `.oracle`; every one takes `--quick` and `--json`.
"""
