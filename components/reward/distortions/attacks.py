"""Cheap tricks that raise a weak reward, each a distortion at a level. A reward must see through them."""

from __future__ import annotations

#: What a policy could learn instead of quality: name of the attack, the distortion that makes it, its level.
ATTACKS: dict[str, tuple[str, int]] = {
    "frozen": ("freeze", 5),
    "blank": ("blank", 5),
    "oversmoothed": ("oversmooth", 4),
    "blurred": ("blur", 4),
    "looped": ("loop", 5),
    "flickering": ("flicker_white", 3),
    "ramped": ("brightness_ramp", 3),
    "latticed": ("lattice", 3),
    "erased": ("erase", 5),
    "ghosted": ("ghost", 4),
    "oversaturated": ("oversaturate", 3),
}

#: The same for ladders that the generator itself draws (`GENERATIVE`).
GENERATED_ATTACKS: dict[str, tuple[str, int]] = {
    "few_steps": ("few_steps", 4),
    "early_checkpoint": ("noisy_weights", 3),
}
