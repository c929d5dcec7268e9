"""The Kubeflow side: wraps each step of `components` for Kubeflow Pipelines, and holds no logic of its own.

Importing this package imports nothing: images carry it without kfp.
"""
