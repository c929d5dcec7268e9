"""The report: one self-contained HTML page.

standing.py (what may be said) and reward_page.py (what the reward step measured) say what is shown, clips.py
which clips and how; charts.py and marks.py draw; page.py puts all of it into the templates of assets/.
"""

from components.evaluation.report.page import Material, render
from components.evaluation.report.reward_section import read_log, read_reward, read_versions
from components.evaluation.report.side_by_side import Shown, choose_pairs, shown_pairs

__all__ = [
    "Material",
    "Shown",
    "choose_pairs",
    "read_log",
    "read_reward",
    "read_versions",
    "render",
    "shown_pairs",
]
