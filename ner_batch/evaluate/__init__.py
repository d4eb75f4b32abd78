"""The evaluation job: predictions against gold, with intervals, errors and comparisons."""
