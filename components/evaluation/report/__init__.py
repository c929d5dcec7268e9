"""The report: one self-contained HTML page."""

from components.evaluation.report.page import Material, Shown, choose_pairs, read_log, render, shown_pairs

__all__ = ["Material", "Shown", "choose_pairs", "read_log", "render", "shown_pairs"]
