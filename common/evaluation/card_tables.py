"""Robustness cards in a few lines of Markdown: one of a bundle, and all beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["card_table", "middle", "summary_table"]

Card = Mapping[str, Any]


def middle(strengths: Sequence[float]) -> Sequence[float]:
    """The strength in the middle of the list, or the two there."""
    return strengths[(len(strengths) - 1) // 2 : len(strengths) // 2 + 1]


def card_table(card: Card) -> str:
    """A row for each kind of perturbation, at its middle strength (the worse of two), and for the attack.

    Rows of fewer cases than the others say so, with the pixel AP that they are to be held against.

    Args:
        card: as ``robustness`` makes it.
    """
    lines = ["|  | strength | pixel AP | change | 95 % interval of the change |", "|---|---|---|---|---|"]
    for kind, rows in _by_kind(card).items():
        worst = _worst(rows)
        lines.append(_line(kind, f"{worst['strength']:g} {worst['unit']}", worst))
    few = " ({} cases, {:.3f} as they are)".format(*_attacked(card)) if _of_fewer(card) else ""
    for row in _middle_rows(_attacks(card), "epsilon"):
        strength = f"ε {row['epsilon']:g}"
        lines += [
            _line(f"attack{few}", strength, row["attack"]),
            _line(f"noise as large{few}", strength, row["noise"]),
        ]
    return "\n".join(lines)


def summary_table(cards: Mapping[str, Card]) -> str:
    """A row a bundle, highest AP first: pixel AP as it is, and what each kind changes it by at its middle strength.

    Below the table stands of what cases the attacks are, where these are fewer than those of the rest.

    Args:
        cards: by the name of the bundle. A kind or strength that not all of them have leaves cells empty.
    """
    heads: dict[str, None] = {}
    cells: dict[str, dict[str, str]] = {}
    for name, card in sorted(cards.items(), key=lambda item: -item[1]["clean"]["pixel_ap"]):
        cells[name] = {}
        for kind, rows in _by_kind(card).items():
            shown = ", ".join(f"{row['strength']:g}" for row in rows)
            cells[name][f"{kind} {shown}"] = f"{_worst(rows)['change']:+.3f}"
        for row in _middle_rows(_attacks(card), "epsilon"):
            cells[name][f"attack {row['epsilon']:g}"] = f"{row['attack']['change']:+.3f}"
            cells[name]["noise as large"] = f"{row['noise']['change']:+.3f}"
        heads |= dict.fromkeys(cells[name])
    lines = [f"|  | pixel AP | {' | '.join(heads)} |", "|" + "---|" * (2 + len(heads))]
    for name, row in cells.items():
        changes = " | ".join(row.get(head, "") for head in heads)
        lines.append(f"| `{name}` | {_clean(cards[name])} | {changes} |")
    few = {name: _attacked(cards[name]) for name in cells if _of_fewer(cards[name])}
    if few:
        said = ", ".join(f"`{name}` {ap:.3f} ({count} cases)" for name, (count, ap) in few.items())
        lines += ["", f"The attack and the noise as large are of fewer cases. Pixel AP of these as they are: {said}."]
    return "\n".join(lines)


def _by_kind(card: Card) -> dict[str, list[Mapping[str, Any]]]:
    """The rows of the middle strengths of each kind."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for row in card["perturbations"]:
        kinds.setdefault(row["kind"], []).append(row)
    return {kind: _middle_rows(rows, "strength") for kind, rows in kinds.items()}


def _middle_rows(rows: Sequence[Mapping[str, Any]], key: str) -> list[Mapping[str, Any]]:
    chosen = middle([row[key] for row in rows])
    return [row for row in rows if row[key] in chosen]


def _attacks(card: Card) -> Sequence[Mapping[str, Any]]:
    return card["attack"]["rows"] if card["attack"] else ()


def _of_fewer(card: Card) -> bool:
    """Whether the attack is of fewer cases than the rest."""
    return bool(card["attack"]) and card["attack"]["cases"] < card["cases"]


def _attacked(card: Card) -> tuple[int, float]:
    """How many cases were attacked, and their pixel AP without it."""
    return card["attack"]["cases"], card["attack"]["clean"]["pixel_ap"]


def _worst(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return min(rows, key=lambda row: row["change"])


def _clean(card: Card) -> str:
    low, high = card["clean"]["interval"]
    return f"{card['clean']['pixel_ap']:.3f} [{low:.2f}, {high:.2f}]"


def _line(name: str, strength: str, row: Mapping[str, Any]) -> str:
    low, high = row["change_interval"]
    return f"| {name} | {strength} | {row['pixel_ap']:.3f} | {row['change']:+.3f} | {low:+.3f} to {high:+.3f} |"
