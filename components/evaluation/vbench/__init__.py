"""VBench's own ways: suites, file names, sampling, scoring, totals, result files."""
