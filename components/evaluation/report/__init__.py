"""The report: one self-contained HTML page.

recommendation.py (what may be said) and reward_section.py (what the reward step measured) say what is shown,
side_by_side.py which clips and how; charts.py and svg_marks.py draw; page.py puts all of it into the
templates of assets/; write.py does this for a finished comparison.
"""
