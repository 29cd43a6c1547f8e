"""HTML out of data that is not to be trusted: names of files and classes may hold any bytes."""

import html
from collections.abc import Iterable, Sequence

from preprocess.report import printable

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a page may load and run: nothing. A browser keeps to it, should an escape be missing."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f5f2; --card: #ffffff; --line: #dcd9d2; --text: #1d1c1a; --faint: #6b675f; --mark: #a33a00;
  --series-1: #0b63a5; --series-2: #c2570c; --series-3: #2c7a36; --series-4: #7b3fd0; --series-5: #b0256a;
  --series-6: #6f6a00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #141516; --card: #1e2022; --line: #383b3e; --text: #e9e7e3; --faint: #a5a199; --mark: #ffb27a;
    --series-1: #5ab4ee; --series-2: #f2a65a; --series-3: #7fca83; --series-4: #bd9bf5; --series-5: #ef86b6;
    --series-6: #d2cc5c;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 80rem; padding: 1rem .75rem 3rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 0 0 .4rem; }
p, ul { margin: .4rem 0; }
ul { padding-left: 1.2rem; }
a { color: inherit; }
small, figcaption, .faint { color: var(--faint); font-size: .8rem; font-weight: normal; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .75rem; min-width: 0;
  margin: 0 0 .75rem; }
.remarks li::marker { content: "! "; color: var(--mark); font-weight: bold; }
.cards { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr));
  align-items: start; }
.cards .card { margin: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .875rem; }
th, td { text-align: right; padding: .2rem .7rem .2rem 0; vertical-align: top; white-space: nowrap; }
th { color: var(--faint); font-weight: normal; }
th:first-child, td:first-child, .words td, .words th { text-align: left; }
td:first-child, .words td { white-space: normal; min-width: 6rem; }
tr + tr > * { border-top: 1px solid var(--line); }
.plot { display: block; width: 100%; height: auto; max-width: 32rem; }
.samples { display: flex; flex-wrap: wrap; gap: .5rem .75rem; }
.sample { margin: 0; max-width: 100%; }
.strip { display: flex; flex-wrap: wrap; gap: .25rem; }
.cell { width: 4rem; text-align: center; line-height: 1.3; }
.cell img, .lost { width: 4rem; height: 4rem; object-fit: contain; background: var(--page); display: block; }
.cell .small { image-rendering: pixelated; }
.lost { display: flex; align-items: center; justify-content: center; border: 1px dashed var(--faint); padding: .2rem;
  font-size: .75rem; color: var(--mark); }
.source { border-right: 2px solid var(--line); padding-right: .25rem; width: 4.4rem; }
figcaption { width: 0; min-width: 100%; }
nav a { margin-right: .9rem; white-space: nowrap; }
pre { white-space: pre-wrap; font-size: .8rem; }
summary { cursor: pointer; }
@media (min-width: 48rem) {
  body { padding: 1.5rem 1.5rem 4rem; }
  .cell, .cell img, .lost { width: 4.75rem; }
  .cell img, .lost { height: 4.75rem; }
  .source { width: 5.15rem; }
}
"""


def text(value: object) -> str:
    """A value as text that cannot be markup, on one line, whatever bytes it is made of."""
    return html.escape(printable(str(value)))


def block(value: str) -> str:
    """Several lines as they are."""
    return f"<pre>{html.escape(value.encode('utf-8', 'backslashreplace').decode())}</pre>"


def table(heads: Sequence[object], lines: Iterable[Sequence[object]], kind: str = "") -> str:
    """A table of data.

    Parameters
    ----------
    kind : class of the element; 'words': no column is of numbers
    """
    top = "".join(f'<th scope="col">{text(head)}</th>' for head in heads)
    body = "".join("<tr>" + "".join(f"<td>{text(value)}</td>" for value in line) + "</tr>" for line in lines)
    return (
        f'<div class="scroll" tabindex="0"><table class="{kind}"><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def items(lines: Iterable[str], kind: str = "") -> str:
    """A list of data, an element each."""
    return f'<ul class="{kind}">' + "".join(f"<li>{text(line)}</li>" for line in lines) + "</ul>"


def card(*parts: str) -> str:
    """What belongs together in a frame."""
    return f'<div class="card">{"".join(parts)}</div>'


def folded(title: str, *parts: str) -> str:
    """What is shown when it is asked for."""
    return f"<details><summary>{text(title)}</summary>{''.join(parts)}</details>"


def whole_page(title: str, body: str) -> str:
    """A whole page that loads nothing and runs nothing."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )
