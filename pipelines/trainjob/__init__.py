"""A step on several nodes: a Kubeflow Trainer TrainJob that is created, watched, cancelled, and brought home.

Importing this package imports nothing: the compiler reads `settings` where kubernetes is not installed.
"""
