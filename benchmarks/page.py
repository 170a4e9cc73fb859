"""Results as one HTML page that needs nothing else: no script, no font, no request. Light and dark
follow the reader's system.
"""

from base64 import b64encode
from collections.abc import Sequence
from typing import Final

from benchmarks.document import Result
from benchmarks.plots import DARK, LIGHT, plots
from benchmarks.report import by_scenario, machine_lines, overview, remarks, stages

__all__ = ["page"]

TEMPLATE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>safelight bench</title>
<style>
:root { --paper: {{ light.paper }}; --ink: {{ light.ink }}; --line: {{ light.line }}; }
@media (prefers-color-scheme: dark) {
  :root { --paper: {{ dark.paper }}; --ink: {{ dark.ink }}; --line: {{ dark.line }}; }
}
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif;
  margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.3rem; margin-top: 2.5rem; } h3 { font-size: 1.05rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .8rem .3rem 0; text-align: left;
  white-space: nowrap; }
figure { margin: 1.5rem 0; } figcaption { font-weight: 600; } img { max-width: 100%; }
details { margin: 1rem 0; } summary { cursor: pointer; }
.warning { border-left: 4px solid #d55e00; margin: .5rem 0; padding-left: .7rem; }
</style>
</head>
<body>
<h1>safelight bench</h1>
{% for group in groups %}
<h2>{{ group.title }}</h2>
{{ table(group.overview) }}
{% for warning in group.warnings %}<p class="warning">{{ warning }}</p>{% endfor %}
{% for plot in group.plots %}
<figure>
<figcaption>{{ plot.title }}</figcaption>
<picture>
<source media="(prefers-color-scheme: dark)" srcset="data:image/svg+xml;base64,{{ plot.dark }}">
<img src="data:image/svg+xml;base64,{{ plot.light }}" alt="{{ plot.says }}">
</picture>
</figure>
{% endfor %}
<details><summary>All stages</summary>{{ table(group.stages) }}</details>
<h3>Machines</h3>
{% for machine in group.machines %}<p>{{ machine }}</p>{% endfor %}
{% endfor %}
</body>
</html>
"""
TABLE: Final = """{% macro table(content) %}<div class="wide"><table>
<thead><tr>{% for cell in content[0] %}<th scope="col">{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in content[1] %}<tr>
{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</tbody>
</table></div>{% endmacro %}"""


def page(results: Sequence[Result]) -> str:
    """Give the page. Raises MissingError where matplotlib is not installed."""
    from jinja2 import Environment

    groups = []
    for first, entries in by_scenario(results):
        row = first.scenario
        weights = ", random weights" if row.random_weights else ""
        groups.append(
            {
                "title": f"{row.name}, version {row.version}{weights}",
                "overview": _plain(overview(entries)),
                "stages": stages(entries),
                "warnings": [line.removeprefix("- ") for line in remarks(entries)],
                "machines": list(machine_lines(entries)),
                "plots": [
                    {
                        "title": plot.title,
                        "says": plot.says,
                        "light": b64encode(plot.draw(LIGHT, "svg")).decode(),
                        "dark": b64encode(plot.draw(DARK, "svg")).decode(),
                    }
                    for plot in plots(entries)
                ],
            }
        )
    template = Environment(autoescape=True).from_string(TABLE + TEMPLATE)
    return template.render(groups=groups, light=LIGHT, dark=DARK)


def _plain(content: tuple[list[str], list[list[str]]]) -> tuple[list[str], list[list[str]]]:
    heading, rows = content
    return heading, [[cell.replace("**", "") for cell in row] for row in rows]
