"""A study as one self-contained HTML page: the table, its figure, where it comes from."""

from base64 import b64encode
from collections.abc import Mapping
from html import escape
from pathlib import Path

from mflow_sbi.comparison.table import HEADER, StudyTable

__all__ = ["study_page"]

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 90em; padding: 0 1em;
       color: #222; background: #fff; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35em .7em; text-align: right; border-bottom: 1px solid #ddd;
         white-space: nowrap; }
th { border-bottom: 2px solid #444; white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
.wide { overflow-x: auto; }
img { max-width: 100%; }
.small { color: #555; max-width: 60em; }
"""


def study_page(
    table: StudyTable,
    title: str,
    figure: Path | None = None,
    facts: Mapping[str, str] | None = None,
) -> str:
    """Return the page.

    Args:
        table: of the study.
        title: of the page.
        figure: a PNG that the page holds.
        facts: what else it says, name -> value.
    """
    head = "".join(f"<th>{escape(name)}</th>" for name in HEADER)
    rows = "\n".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row.cells)}</tr>"
        for row in table.rows
    )
    picture = ""
    if figure is not None:
        data = b64encode(figure.read_bytes()).decode()
        picture = f'<p><img alt="{escape(title)}" src="data:image/png;base64,{data}"></p>'
    lines = "".join(
        f"<li>{escape(name)}: {escape(value)}</li>" for name, value in (facts or {}).items()
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>
<style>{STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>
{rows}
</tbody></table></div>
<p class="small">{escape(table.caption)}.</p>
{picture}
<ul class="small">{lines}</ul>
</body></html>
"""
