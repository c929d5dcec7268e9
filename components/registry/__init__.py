"""Gate, promotion and roll-back of aligned generators in the MLflow model registry.

The public face is the step, ``components.registry.step.run``, and ``python -m components.registry``.
"""
