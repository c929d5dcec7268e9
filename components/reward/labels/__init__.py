"""The cross-type quality label of a distorted clip whose pristine original is known.

Inside a ladder the severity level is the truth and no label is needed. To set types against each other (and
for the rank correlations of the card) one number is needed: half what full-reference measures (VMAF,
MS-SSIM, colour, time) say was lost, half the designed severity; `calibration.py` has the formula.
"""
