"""The tracking stack on one machine: MLflow's server with users, and an S3 server, each a real process.

`python -m pipelines.stack up | status | down`; everything it keeps is in one folder, `.stack`.
"""
