"""Self-contained HTML pages: one look for every report, with the limits of use at its end."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.files import write_atomic

__all__ = ["picture", "plain", "write_page"]

_STYLE = """
:root { color-scheme: light dark; --text: #1d2126; --faint: #5c6670; --line: #d9dee3; --page: #ffffff; --soft: #f5f7f9 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e3e6ea; --faint: #9aa4ae; --line: #343b43; --page: #15181c; --soft: #1d2126 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2.5rem 1.25rem; max-width: 68rem; background: var(--page); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
h1 { font-size: 1.6rem; font-weight: 600; margin: 0 0 .25rem } h3 { font-size: 1rem; font-weight: 600; margin: 0 }
h2 { font-size: 1.15rem; font-weight: 600; margin: 2.5rem 0 .75rem; padding-top: 1rem;
  border-top: 1px solid var(--line) }
p, ul { max-width: 46rem } .scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .9rem }
caption { text-align: left; color: var(--faint); padding-bottom: .5rem }
th, td { text-align: left; vertical-align: top; padding: .4rem .9rem .4rem 0; border-bottom: 1px solid var(--line) }
thead th { color: var(--faint); font-weight: 500 } tbody th { font-weight: 500 } tr > .number {
  text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; padding-right: 1.6rem }
.meaning { color: var(--faint) }
figure { margin: 1.5rem 0 } figure img { display: block; width: 100%; height: auto; background: #000;
  border-radius: 4px; margin-top: .5rem } figcaption { color: var(--faint); font-size: .9rem; margin-top: .4rem }
aside { background: var(--soft); border-left: 3px solid var(--faint); padding: .1rem 1.25rem; margin: 2.5rem 0 0 }
aside h2 { border: 0; margin: .75rem 0 0; padding: 0 }
"""

_LIMITS = """<aside aria-labelledby="limits"><h2 id="limits">What this is not</h2>
<p>This is not a medical device and no diagnosis. It is research software: it was not tested for clinical use and
must not guide the care of a patient.</p>
<p>An anomaly map shows where an image differs from what a model of healthy images would draw. That may be a lesion,
and it may be a rare but healthy anatomy, another scanner, motion, or an error of the model; a lesion may also go
unmarked. The pseudo-healthy image is a synthesis, not a picture of the person.</p></aside>"""


def write_page(path: str | Path, title: str, parts: Sequence[str], *, intro: str = "", style: str = "") -> None:
    """Write one HTML file that needs no other, readable in light and dark; whole or not at all.

    Args:
        path: the file.
        title: heading, as plain text.
        parts: HTML, whose texts are escaped already.
        intro: HTML below the heading.
        style: CSS besides that of all pages.
    """
    content = [f"<header><h1>{html.escape(title)}</h1>{intro}</header>", "<main>", *parts, "</main>", _LIMITS]
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}{style}</style></head>\n<body>\n"
        + "\n".join(content)
        + "\n</body></html>\n"
    )
    write_atomic(path, page.encode())


def picture(png: bytes, alt: str) -> str:
    """An image inside the page; ``alt`` says what it shows and is escaped already."""
    return f'<img alt="{alt}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def plain(value: Any) -> str:
    """A number with four significant digits, an integer in full, a dash for nothing, all else as it is; escaped."""
    value = value.item() if isinstance(value, (np.generic, torch.Tensor)) else value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}" if not value.is_integer() else f"{value:.0f}"
    return html.escape(f"{value:,}" if isinstance(value, int) else str(value))
