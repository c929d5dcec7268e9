"""The reward card as Markdown, for people and the Kubeflow UI: the numbers of card.json, none of its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from components.reward.card.card import Backward, Card, Stillness, Uncertainty, Wins
from components.reward.card.gate import Check
from components.reward.distortions import REGISTRY

_COLUMNS = {
    "world": "miniature world",
    "footage": "real footage",
    "all": "both",
    "heldout_types": "both, distortions never trained on",
    "generated": "the generator's samples",
    "heldout_types_generated": "samples, distortions never trained on",
}
_AGREEMENT = {
    "srcc": "SRCC",
    "krcc": "KRCC",
    "plcc": "PLCC",
    "rmse": "RMSE",
    "srcc_fidelity": "SRCC, full-reference only",
}
_ORDER = {
    "reference_above": "original above",
    "adjacent_ordered": "neighbours in order",
    "two_apart_ordered": "two apart in order",
    "pairs_ordered": "all pairs in order",
    "fully_ordered": "ladders without fault",
}
_BESIDE = {
    "srcc": "SRCC with the label",
    "adjacent_ordered": "Neighbouring levels in order",
    "two_apart_ordered": "Levels two apart in order",
}
_PAIRS = {
    "world_ladders": "ladders in the miniature world",
    "footage_ladders": "ladders on real footage",
    "generated_ladders": "ladders on the generator's samples",
    "judged_samples": "samples of one prompt, by the independent judge",
}
_TRAINED = ("contents", "ladders")
_SHOWN = ("contents_per_type", "attacks", "levels", "types")
_LIMITS = (
    "Labels are no human's: half a full-reference measurement (VMAF, MS-SSIM, colour, time), half the "
    "designed severity.",
    "On the generator's samples only the order is known: no label, hence no correlation.",
    "Clips of one content are alike: figures on footage rest on as many contents as the table above says, "
    "not on as many clips.",
    "An attack that is not in the table has not been tried.",
)


def as_markdown(card: Card, checks: Sequence[Check], refused: Sequence[str]) -> str:
    """The page: verdict, agreement on held-out content, baselines, attacks, stillness, spread and aspects,
    every distortion, what it all rests on.

    Args:
        card: the measurements.
        checks: the gate's requirements.
        refused: the gate's reasons to refuse; empty if it is open.
    """
    parts = ["# Reward card", _verdict(checks, refused), *_warnings(card)]
    parts.append(_table(["requirement", "met"], ([c.line(), _met(c)] for c in checks)))
    parts += ["## Agreement on held-out content", _figures(card, _AGREEMENT, "clips")]
    parts += [
        "Order inside ladders, wherever two clips can be told apart:",
        _figures(card, _ORDER, "ladders"),
    ]
    if card.judge is not None:
        parts.append(
            f"Rank correlation with the independent judge inside a prompt: {_number(card.judge.value)} "
            f"[{_number(card.judge.low)}, {_number(card.judge.high)}] over {card.judge.clusters} prompts; "
            f"pairs in the judge's order: {_number(card.judge_pairs)}."
        )
    parts += _beside_baselines(card)
    parts += _attacks(card)
    if card.stillness is not None:
        parts += _stillness(card.stillness, checks)
    if _known(card.time_reversal_change):
        parts.append(
            f"Played backwards, a clip's score changes by {_number(card.time_reversal_change)} standard "
            "deviations of the scores on average; near 0 is right."
        )
    if card.uncertainty is not None:
        parts += _uncertainty(card.uncertainty)
    if card.by_type:
        parts += _backward(card)
        parts += _types(card)
    parts += _data(card)
    parts += ["## Limits", "\n".join(f"- {limit}" for limit in _LIMITS)]
    if card.unavailable:
        parts += ["## Not measured", "\n".join(f"- {name}: {why}" for name, why in card.unavailable.items())]
    return "\n\n".join(parts) + "\n"


def _verdict(checks: Sequence[Check], refused: Sequence[str]) -> str:
    if refused:
        return "**Refused**: " + "; ".join(refused)
    unknown = sum(check.passed is None for check in checks)
    if not unknown:
        return "**Passed** every requirement of its gate."
    return (
        f"**Passed** every requirement of its gate that could be measured; {unknown} of {len(checks)} could "
        "not be."
    )


def _warnings(card: Card) -> list[str]:
    """What the gate's figures, which are of many clips together, do not show."""
    found = []
    for kind, table in (("Families", card.by_family), ("Distortions", card.by_type)):
        named = [one for one in card.backward() if one.name in table]
        if named:
            listed = ", ".join(_told(one) for one in named)
            found.append(f"**{kind} ranked backwards**, the more damage the better: {listed}.")
    worst = min(card.worst().items(), key=lambda item: item[1][1].share or 0.0, default=None)
    if worst is not None:
        attack, (source, wins) = worst
        found.append(
            f"Of all attacks {attack.replace('_', ' ')} on {source} clips succeeds most often: the honest "
            f"original lies above it in {_share(wins)} pairs."
        )
    return found


def _told(one: Backward) -> str:
    figure = f"SRCC {_number(one.srcc)}, " if _known(one.srcc) else ""
    return f"{one.name} on {one.source} ({figure}{_number(one.pairs)} of pairs in order)"


def _figures(card: Card, figures: dict[str, str], counted: str) -> str:
    """A row for each column that has any of the figures."""
    rows = []
    for name, text in _COLUMNS.items():
        column = card.columns.get(name)
        if column is None or not any(_known(getattr(column, key)) for key in figures):
            continue
        rows.append([text, str(getattr(column, counted)), *(_number(getattr(column, f)) for f in figures)])
    return _table(["content", counted, *figures.values()], rows)


def _beside_baselines(card: Card) -> list[str]:
    if not card.baselines:
        return []
    parts = ["## Beside simple baselines, on the same clips"]
    for key, title in _BESIDE.items():
        names = [n for n in _COLUMNS if n in card.columns and _known(getattr(card.columns[n], key))]
        rows = [["this reward", *(_number(getattr(card.columns[n], key)) for n in names)]]
        rows += [
            [
                rival.replace("_", " "),
                *(_number(getattr(columns[n], key)) if n in columns else "-" for n in names),
            ]
            for rival, columns in card.baselines.items()
        ]
        parts.append(_table([title, *(_COLUMNS[n] for n in names)], rows))
    return parts


def _attacks(card: Card) -> list[str]:
    if not card.attacks:
        return []
    pooled, worst, sources = card.pooled(), card.worst(), list(card.attacks)
    rows = []
    for attack in pooled:
        each = [card.attacks[source].get(attack) for source in sources]
        least = f"{worst[attack][1].share:.3f}, {worst[attack][0]}" if attack in worst else "-"
        rows.append([attack.replace("_", " "), least, *("-" if w is None else _share(w) for w in each)])
    same = sum(wins.same for wins in pooled.values())
    return [
        "## Attacked clips scored below their honest originals",
        "Share of pairs with its 95 % interval, and their number."
        + (f" Left out, as original and copy look the same: {same} pairs." if same else ""),
        _table(["attack", "worst", *sources], rows),
    ]


def _stillness(found: Stillness, checks: Sequence[Check]) -> list[str]:
    motion = ", ".join(f"{source} {_number(value)}" for source, value in found.motion.items())
    rows = [
        [name.replace("_", " "), _share(probe.wins), _number(probe.gain)]
        for name, probe in found.slowed.items()
    ]
    return [
        "## Stillness",
        _still(found, checks) + " In each probe the same content moves, and moves more slowly.",
        _table(["probe", "moving clip above", "gain of moving less, levels"], rows),
        f"Rank correlation of score and amount of motion over honest clips: {motion}.",
    ]


def _still(found: Stillness, checks: Sequence[Check]) -> str:
    """What the probes say, by the gate's own measure where it has one."""
    if found.worst is None:
        return "No probe of stillness could be made."
    gain, probe = found.verdict, found.worst.replace("_", " ")
    most = f"at most {_number(gain)} levels of a ladder in any probe ({probe})"
    check = next((check for check in checks if check.name == "stillness_gain"), None)
    if gain <= 0:
        return f"The score does not reward stillness: moving less gains {most}."
    if check is None:
        return f"Moving less gains {most}."
    if check.passed:
        return f"Moving less gains {most}, within the {check.least:g} that the gate allows."
    return f"The score rewards stillness: moving less gains {most}; the gate allows {check.least:g}."


def _uncertainty(found: Uncertainty) -> list[str]:
    rows = []
    for name, wins in found.pairs.items():
        total = wins["beyond"].clips + wins["within"].clips
        rows.append(
            [
                _PAIRS.get(name, name),
                *(_share(wins[side]) for side in ("beyond", "within")),
                _number(wins["within"].clips / total if total else None),
            ]
        )
    aspects = list(next(iter(found.falls.values()), {}))
    falls = [[f"{kind} damage", *(_number(row[a]) for a in aspects)] for kind, row in found.falls.items()]
    return [
        "## Spread and aspects",
        "Pairs told apart rightly, by whether their scores lie further apart than their mean spread. Rank "
        f"correlation of the spread with the error against the label: {_number(found.error_srcc)}.",
        _table(["pairs", "beyond the spread", "within it", "share within"], rows),
        "How far each aspect falls from the original to the worst level, 1 being its fall on its own family:",
        _table(["", *(f"{aspect} aspect" for aspect in aspects)], falls),
    ]


def _types(card: Card) -> list[str]:
    heldout = set(card.data.get("heldout_types", ()))
    keys = {
        "srcc_world": "SRCC world",
        "srcc_footage": "SRCC footage",
        "adjacent": "neighbours in order",
        "above_world": "above, world",
        "above_footage": "above, footage",
        "above_generated": "above, samples",
    }
    shown = {key: text for key, text in keys.items() if any(key in row for row in card.by_type.values())}
    order = sorted(card.by_type, key=lambda name: _hardest(card.by_type[name]))
    rows = [
        [
            name + "*" * (name in heldout),
            REGISTRY[name].family,
            *(_number(card.by_type[name].get(key, None)) for key in shown),
        ]
        for name in order
    ]
    return [
        "## Every distortion, the hardest first",
        "Agreement with the label, and how often the original scores above its distorted copies. "
        "Never trained on: *.",
        _table(["distortion", "family", *shown.values()], rows),
    ]


def _hardest(row: dict[str, float]) -> float:
    """What a distortion is sorted by: its lowest correlation on any source; those with none last."""
    return min((_last(value) for key, value in row.items() if key.startswith("srcc_")), default=math.inf)


def _backward(card: Card) -> list[str]:
    """Every family by source, and what is ranked the wrong way round."""
    sources = list(card.data.get("sources", ())) or ["world", "footage", "generated"]
    figures = [(f"srcc_{s}", f"SRCC {s}") for s in sources] + [(f"pairs_{s}", f"pairs, {s}") for s in sources]
    shown = [(key, text) for key, text in figures if any(key in row for row in card.by_family.values())]
    rows = [
        [family, *(_number(row.get(key, None)) for key, _ in shown)] for family, row in card.by_family.items()
    ]
    backward = card.backward()
    told = (
        f"Ranked backwards on a source, by a negative rank correlation or most pairs in the wrong order: "
        f"{', '.join(_told(one) for one in backward)}."
        if backward
        else "No family and no distortion is ranked backwards on any source."
    )
    table = [_table(["family", *(text for _, text in shown)], rows)] if shown else []
    return ["## Every family, source by source", told, *table]


def _data(card: Card) -> list[str]:
    sources, training = card.data.get("sources", {}), card.data.get("training", {})
    if not sources:
        return []
    rows = [
        [name, *(str(counts.get(key, "-")) for key in ("clips", "contents", "ladders"))]
        for name, counts in sources.items()
    ]
    trained = [[name, *(str(counts[key]) for key in _TRAINED)] for name, counts in training.items()]
    told = ", ".join(f"{key.replace('_', ' ')} {card.data[key]}" for key in _SHOWN if key in card.data)
    heldout = ", ".join(card.data.get("heldout_types", ())) or "none"
    return [
        "## What it rests on",
        "Held-out content, none of it in the training:",
        _table(["source", "clips", "contents", "ladders"], rows),
        f"{told[:1].upper()}{told[1:]}. Types never trained on: {heldout}.",
        *(["Trained on:", _table(["source", *_TRAINED], trained)] if trained else []),
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _met(check: Check) -> str:
    return {True: "yes", False: "NO", None: "unavailable"}[check.passed]


def _known(value: float | None) -> bool:
    return value is not None


def _last(value: float | None) -> float:
    return math.inf if value is None else value


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _share(wins: Wins) -> str:
    if not wins.clips:
        return "-"
    if wins.low is None:
        return f"{_number(wins.share)} of {wins.clips} ({wins.contents} contents, too few for an interval)"
    return f"{wins.share:.3f} [{wins.low:.2f}, {wins.high:.2f}] of {wins.clips}"
