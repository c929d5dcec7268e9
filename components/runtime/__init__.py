"""What every step stands on: params, artifacts, storage, tracking, checkpoints, seeds, progress, exit codes.

Knows no step. Import from the module a thing lives in, e.g.
`from components.runtime.artifacts.publish import publish`.
"""
