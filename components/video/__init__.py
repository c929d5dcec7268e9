"""Clips in memory: decode, encode, resample, follow motion, lay out for people."""

from components.video.clip import Clip
from components.video.codec import VideoInfo, probe, read_video, write_video
from components.video.flow import interpolate_middle, optical_flow
from components.video.resample import centre_crop, crop, resample_fps, resize, window
from components.video.sheets import contact_sheet, side_by_side
from components.video.shots import cuts, shots

__all__ = [
    "Clip",
    "VideoInfo",
    "centre_crop",
    "contact_sheet",
    "crop",
    "cuts",
    "interpolate_middle",
    "optical_flow",
    "probe",
    "read_video",
    "resample_fps",
    "resize",
    "shots",
    "side_by_side",
    "window",
    "write_video",
]
