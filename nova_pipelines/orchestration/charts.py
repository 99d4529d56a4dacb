"""Small charts of the reports as PNG, to be shown in the Dagster UI. Each currency has axes of its own.

Floats appear here only, as lengths of bars. matplotlib is imported inside functions: workers of workflows load
this module too.
"""

from __future__ import annotations

import base64
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nova_pipelines.domain.money import format_amount
from nova_pipelines.orchestration.frames import UNKNOWN

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MAX_CURRENCIES = 4
MAX_MONTHS = 24
MAX_SUPPLIERS = 10
#: colours that the colour-blind can tell apart (Okabe and Ito)
_COLOURS = {"accepted": "#0072B2", "pending_approval": "#E69F00"}
_OTHER = "#999999"
_SPANISH = str.maketrans(".,", ",.")


def month_chart(frame: pd.DataFrame, cache: Path) -> bytes | None:
    """Totals by month, stacked by status, of the last MAX_MONTHS months; None if there is nothing to draw.

    `cache`: a folder where matplotlib may keep what it found out about fonts.
    """
    return _chart(frame, cache, _draw_months)


def supplier_chart(frame: pd.DataFrame, cache: Path) -> bytes | None:
    """The MAX_SUPPLIERS suppliers with the greatest totals of each currency; None if there are none."""
    return _chart(frame, cache, _draw_suppliers)


def as_markdown(png: bytes | None, description: str) -> str:
    """The picture inside of a text, so that the UI needs no other place to fetch it from."""
    if png is None:
        return "There are no invoices yet."
    return f"![{description}](data:image/png;base64,{base64.b64encode(png).decode()})"


def _chart(frame: pd.DataFrame, cache: Path, draw: Callable[[Axes, list[dict[str, Any]], str], None]) -> bytes | None:
    rows = frame.to_dict("records")
    shown = currencies(rows)
    if not shown:
        return None
    # in containers HOME is often not writable, and without a cache each process measures all fonts again
    os.environ.setdefault("MPLCONFIGDIR", str(cache))
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.8 * len(shown)), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, currency in zip(figure.subplots(len(shown), squeeze=False)[:, 0], shown, strict=True):
        draw(axes, [row for row in rows if row["currency"] == currency], currency)
    left_out = len({row["currency"] for row in rows}) - len(shown)
    if left_out:
        figure.supxlabel(f"{left_out} more currencies are in the table", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def currencies(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The currencies with the most invoices, MAX_CURRENCIES at most."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts[row["currency"]] += row["count"]
    return sorted(counts, key=lambda currency: (-counts[currency], currency))[:MAX_CURRENCIES]


def _draw_months(axes: Axes, rows: list[dict[str, Any]], currency: str) -> None:
    months = shown_months({row["month"] for row in rows})
    above, below = [0.0] * len(months), [0.0] * len(months)
    for status in sorted({row["status"] for row in rows}):
        totals = {row["month"]: float(row["total"]) for row in rows if row["status"] == status}
        heights = [totals.get(month, 0.0) for month in months]
        # credit notes hang below the line: stacked on the others they would hide in them
        bottoms = [(above if height >= 0 else below)[i] for i, height in enumerate(heights)]
        colour = _COLOURS.get(status, _OTHER)
        axes.bar(range(len(months)), heights, bottom=bottoms, color=colour, label=readable(status.replace("_", " ")))
        for i, height in enumerate(heights):
            (above if height >= 0 else below)[i] += height
    _label(axes.set_xticks(range(len(months)), months, rotation=45, ha="right", fontsize=8))
    axes.set_title(f"Invoices by month of issue, {readable(currency)}", fontsize=10, parse_math=False)
    axes.yaxis.set_major_formatter(_thousands)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xlim(-0.6, max(len(months), 8) - 0.4)  # one month alone is no wall
    axes.legend(fontsize=8, loc="upper right")


def shown_months(months: set[str]) -> list[str]:
    """The last MAX_MONTHS months, with the gaps between them where there is room; unknown months at the end.

    A misread date (1924, 2099) may neither stretch the chart nor push the true months out of it.
    """
    known = sorted(months - {UNKNOWN})
    numbers = [int(month[:4]) * 12 + int(month[5:]) - 1 for month in known]
    if numbers and numbers[-1] - numbers[0] < MAX_MONTHS:
        known = [f"{number // 12:04}-{number % 12 + 1:02}" for number in range(numbers[0], numbers[-1] + 1)]
    return known[-MAX_MONTHS:] + ([UNKNOWN] if UNKNOWN in months else [])


def _draw_suppliers(axes: Axes, rows: list[dict[str, Any]], currency: str) -> None:
    greatest = sorted(rows, key=lambda row: -row["total"])[:MAX_SUPPLIERS][::-1]
    totals: list[Decimal] = [row["total"] for row in greatest]
    bars = axes.barh(range(len(greatest)), [float(total) for total in totals], color=_COLOURS["accepted"])
    labels = [readable(format_amount(total, currency)) for total in totals]
    _label(axes.bar_label(bars, labels=labels, padding=3, fontsize=8))
    _label(axes.set_yticks(range(len(greatest)), [readable(row["supplier"]) for row in greatest], fontsize=8))
    axes.set_title(f"Suppliers by total, {readable(currency)}", fontsize=10, parse_math=False)
    axes.xaxis.set_major_formatter(_thousands)
    axes.margins(x=0.25)  # room for the amounts beside the bars
    axes.set_ylim(len(greatest) - 0.4 - max(len(greatest), 4), len(greatest) - 0.4)


def _label(things: Iterable[Any]) -> None:
    """Texts of documents are no formulas: `$…$` would be read as TeX and fail."""
    for thing in things:
        getattr(thing, "label1", thing).set_parse_math(False)


def _thousands(value: float, _position: object) -> str:
    text = f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"
    return text.translate(_SPANISH)  # as amounts are written in the tables


def readable(text: str, longest: int = 32) -> str:
    """A text that matplotlib's own font can draw, cut to `longest` characters."""
    from matplotlib import font_manager

    known = font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap()
    drawn = "".join(c if ord(c) in known and c.isprintable() else "?" for c in " ".join(text.split()))
    return drawn if len(drawn) <= longest else drawn[: longest - 1] + "…"
