"""Kubeflow's API: submit and watch runs."""
