"""The reward card as Markdown, for people and the Kubeflow UI; the words are in card.md.j2."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from components.reward.card.card import Backward, Card, GateResult, Uncertainty, Wins
from components.reward.distortions import REGISTRY

#: Sets of ladders in words, in the order of their rows.
COLUMNS = {
    "world": "miniature world",
    "footage": "real footage",
    "all": "both",
    "heldout_types": "both, distortions never trained on",
    "generated": "the generator's samples",
    "heldout_types_generated": "samples, distortions never trained on",
}
PAIRS = {
    "world_ladders": "ladders in the miniature world",
    "footage_ladders": "ladders on real footage",
    "generated_ladders": "ladders on the generator's samples",
    "judged_samples": "samples of one prompt, by the oracle judge",
}
MET = {True: "yes", False: "NO", None: "unavailable"}
SIZES = ("contents_per_type", "attacks", "levels", "types")


def as_markdown(card: Card, about: str = "") -> str:
    """The page: verdict, agreement on held-out content, baselines, attacks, stillness, uncertainty and
    aspects, every distortion, data, limits. Its numbers are those of card.json.

    Args:
        about: a paragraph that follows the title.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": _number, "share": _share, "words": _words, "ranked": _ranked}
    environment.filters["suffixed"] = str.__add__
    uncertainty = card.uncertainty or Uncertainty()
    aspects = list(next(iter(uncertainty.falls.values()), {}))
    sources = list(card.data.get("sources", ())) or ["world", "footage", "generated"]
    worst = [(attack, source, wins) for attack, (source, wins) in card.worst().items()]
    stillness = card.stillness.slowed if card.stillness else {}
    gate = card.gate or GateResult()
    return environment.get_template("card.md.j2").render(
        card=card,
        about=about,
        gate=gate,
        backward=card.backward(),
        weakest=min(worst, key=lambda row: row[2].share or 0.0, default=None),
        table=_table,
        requirements=[[check.line, MET[check.passed]] for check in gate.checks],
        figures=lambda counted, figures: _figures(card, counted, figures),
        beside_baselines=lambda key, title: _beside_baselines(card, key, title),
        same=sum(wins.same for tried in card.attacks.values() for wins in tried.values()),
        attacks=_attacks(card),
        probes=[[_words(n), _share(p.wins), _number(p.gain)] for n, p in stillness.items()],
        uncertain_pairs=[_uncertain(name, **sides) for name, sides in uncertainty.pairs.items()],
        aspects=aspects,
        falls=[
            [f"{kind} damage", *(_number(row[aspect]) for aspect in aspects)]
            for kind, row in uncertainty.falls.items()
        ],
        families=_grid(
            "family",
            {f"srcc_{s}": f"SRCC {s}" for s in sources} | {f"pairs_{s}": f"pairs, {s}" for s in sources},
            card.by_family,
        ),
        types=_types(card),
        held_out=_counts(card.data.get("sources", {}), ("clips", "contents", "ladders")),
        heldout_types=card.data.get("heldout_types", ()),
        trained=_counts(card.data.get("training", {}), ("contents", "ladders")),
        sizes=[f"{_words(key)} {card.data[key]}" for key in SIZES if key in card.data],
    )


def _figures(card: Card, counted: str, figures: Mapping[str, str]) -> str:
    """A row for each column that has any of the figures."""
    rows = []
    for name, text in COLUMNS.items():
        values = [getattr(card.columns.get(name), key, None) for key in figures]
        if any(value is not None for value in values):
            rows.append([text, str(getattr(card.columns[name], counted)), *map(_number, values)])
    return _table(["content", counted, *figures.values()], rows)


def _beside_baselines(card: Card, key: str, title: str) -> str:
    names = [name for name in COLUMNS if getattr(card.columns.get(name), key, None) is not None]
    rivals = {"this reward": card.columns, **card.baselines}
    rows = [
        [_words(rival), *(_number(getattr(columns.get(name), key, None)) for name in names)]
        for rival, columns in rivals.items()
    ]
    return _table([title, *(COLUMNS[name] for name in names)], rows)


def _attacks(card: Card) -> str:
    worst, rows = card.worst(), []
    for attack in dict.fromkeys(attack for tried in card.attacks.values() for attack in tried):
        source, wins = worst.get(attack, ("", Wins(0, 0)))
        least = f"{_number(wins.share)}, {source}" if source else "-"
        tried = [each[attack] if attack in each else Wins(0, 0) for each in card.attacks.values()]
        rows.append([_words(attack), least, *map(_share, tried)])
    return _table(["attack", "worst", *card.attacks], rows)


def _uncertain(name: str, beyond: Wins, within: Wins) -> list[str]:
    total = beyond.clips + within.clips
    part = within.clips / total if total else None
    return [PAIRS.get(name, name), _share(beyond), _share(within), _number(part)]


def _types(card: Card) -> str:
    """Every distortion, sorted by its lowest correlation on any source; those with none last."""

    def lowest(row: Mapping[str, float | None]) -> float:
        known = (value for key, value in row.items() if key.startswith("srcc_") and value is not None)
        return min(known, default=math.inf)

    heldout = card.data.get("heldout_types", ())
    table = {
        name + "*" * (name in heldout): {"family": REGISTRY[name].family, **row}
        for name, row in sorted(card.by_type.items(), key=lambda item: lowest(item[1]))
    }
    shown = {"srcc_world": "SRCC world", "srcc_footage": "SRCC footage", "adjacent": "neighbours in order"}
    above = {"world": "world", "footage": "footage", "generated": "samples"}
    shown |= {f"above_{source}": f"above, {name}" for source, name in above.items()}
    return _grid("distortion", {"family": "family", **shown}, table)


def _grid(title: str, columns: Mapping[str, str], table: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each entry, a column for each key that any entry has; empty where there is none."""
    keys = [key for key in columns if any(key in row for row in table.values())]
    rows = [[name, *(_number(row.get(key)) for key in keys)] for name, row in table.items()]
    return _table([title, *(columns[key] for key in keys)], rows) if keys else ""


def _counts(table: Mapping[str, Mapping[str, int]], keys: Sequence[str]) -> list[list[str]]:
    return [[name, *(str(row.get(key, "-")) for key in keys)] for name, row in table.items()]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _ranked(row: Backward) -> str:
    figure = "" if row.srcc is None else f"SRCC {_number(row.srcc)}, "
    return f"{row.name} on {row.source} ({figure}{_number(row.pairs)} of pairs in order)"


def _number(value: float | str | None) -> str:
    return "-" if value is None else value if isinstance(value, str) else f"{value:.3f}"


def _share(wins: Wins) -> str:
    if not wins.clips:
        return "-"
    if wins.low is None:
        return f"{_number(wins.share)} of {wins.clips} ({wins.contents} contents, too few for an interval)"
    return f"{_number(wins.share)} [{wins.low:.2f}, {wins.high:.2f}] of {wins.clips}"
