"""Base beside aligned on held-out prompts: dimensions, an oracle judge, paired statistics, a report.

The public face is the step, ``components.evaluation.step.run``, and ``python -m components.evaluation``.
"""
