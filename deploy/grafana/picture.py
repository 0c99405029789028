#!/usr/bin/env python3
"""Draws the dashboard's first two rows from a running Prometheus: picture.py PROMETHEUS_URL JOB SECONDS FILE.

Draws the results of the panels' own queries for the job's last SECONDS seconds. Needs matplotlib
(Debian: python3-matplotlib); `tests/alerts --picture FILE` draws the picture in the README.
"""

import json
import math
import pathlib
import sys
import time
import urllib.parse
import urllib.request

DASHBOARD = pathlib.Path(__file__).with_name("dashboard.json")
ROWS = ("Health", "Credential")
COLOURS = ("#73bf69", "#5794f2", "#f2cc0c", "#ff9830", "#f2495c", "#b877d9")
BACKGROUND, PANEL, GRID, TEXT, FAINT = "#111217", "#181b1f", "#2c3235", "#d8d9da", "#9fa7b3"
BAD = "#f2495c"


def rows():
    """The dashboard's panels by row, in order."""
    found = {}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        if panel["type"] == "row":
            found[panel["title"]] = []
        else:
            found[next(reversed(found))].append(panel)
    return found


def substitute(expression, job, seconds, rate_interval):
    """A panel's query as Grafana sends it."""
    for name, value in (
        ("$__rate_interval", rate_interval),
        ("$__range", f"{seconds}s"),
        ("$job", job),
        ("$namespace", ".*"),
        ("$pod", ".*"),
    ):
        expression = expression.replace(name, value)
    if "$" in expression:
        raise ValueError(f"unknown variable in {expression}")
    return expression


def ask(prometheus, path, **parameters):
    """The data of Prometheus' response."""
    url = f"{prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters, doseq=True)}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)["data"]


def ask_range(prometheus, expression, seconds, end):
    """The series over the last `seconds` seconds: (labels, [(time, value)])."""
    data = ask(prometheus, "query_range", query=expression, start=end - seconds, end=end, step=1)
    return [(one["metric"], [(t, float(v)) for t, v in one["values"]]) for one in data["result"]]


def legend(template, labels):
    for name in ("http_response_status_code", "pod", "source", "outcome", "kind"):
        template = template.replace("{{" + name + "}}", labels.get(name, ""))
    return template.strip()


def format_value(value, unit):
    """A value in Grafana's format."""
    if math.isnan(value):
        return "–"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
    if unit == "reqps":
        return f"{value:.3g}/s"
    return f"{value:.3g}"


def draw(prometheus, job, seconds, file):
    """Draws the picture to a PNG or SVG file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker
    from matplotlib.patches import FancyBboxPatch

    pyplot.rcParams.update({"font.family": "DejaVu Sans", "font.size": 8, "text.color": TEXT})
    width, row_height = 15.0, 3.1
    chosen = [(title, rows()[title]) for title in ROWS]
    height = len(chosen) * row_height
    figure = pyplot.figure(figsize=(width, height), facecolor=BACKGROUND)
    end = time.time()
    for number, (title, panels) in enumerate(chosen):
        top = height - number * row_height
        figure.text(0.1 / width, (top - 0.24) / height, title, size=10, weight="bold")
        for panel in panels:
            place = panel["gridPos"]
            left, right = (place["x"] / 24 * width + 0.06, (place["x"] + place["w"]) / 24 * width - 0.06)
            low, high = top - row_height + 0.06, top - 0.36
            figure.add_artist(FancyBboxPatch(
                (left / width, low / height), (right - left) / width, (high - low) / height,
                boxstyle="square,pad=0", facecolor=PANEL, edgecolor=GRID, linewidth=0.8, zorder=-1))
            figure.text((left + 0.1) / width, (high - 0.22) / height, panel["title"], size=8.5, weight="medium")
            queries = [(one["legendFormat"], substitute(one["expr"], job, seconds, "10s")) for one in panel["targets"]]
            unit = panel["fieldConfig"]["defaults"]["unit"]
            if panel["type"] == "stat":
                steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
                for index, (name, expression) in enumerate(queries):
                    result = ask(prometheus, "query", query=expression, time=end)["result"]
                    value = float(result[0]["value"][1]) if result else math.nan
                    colour = COLOURS[0]
                    for step in steps:
                        if step["value"] is None or value >= step["value"]:
                            colour = {"green": COLOURS[0], "red": BAD}[step["color"]]
                    middle = (left + (right - left) * (index + 0.5) / len(queries)) / width
                    figure.text(middle, (low + 1.25) / height, format_value(value, unit), size=22 if unit == "none" else 17,
                                color=colour, ha="center", va="center", weight="bold")
                    figure.text(middle, (low + 0.75) / height, name, size=8, color=FAINT, ha="center", va="center")
                continue
            axes = figure.add_axes([
                (left + 0.52) / width, (low + 0.74) / height,
                (right - left - 0.66) / width, (high - low - 1.12) / height], facecolor=PANEL)
            custom = panel["fieldConfig"]["defaults"]["custom"]
            stacked, bottom = "stacking" in custom, {}
            lines = [(legend(name, labels), points) for name, expression in queries
                     for labels, points in ask_range(prometheus, expression, seconds, end)]
            for index, (name, points) in enumerate(sorted(lines)):
                colour = COLOURS[index % len(COLOURS)]
                times = [t - end for t, _ in points]
                values = [v + (bottom.get(t, 0.0) if stacked else 0.0) for t, v in points]
                if custom["drawStyle"] == "bars":
                    axes.bar(times, values, width=1.0, color=colour, alpha=0.8, label=name)
                else:
                    axes.plot(times, values, color=colour, linewidth=1.2, label=name)
                    if custom["fillOpacity"]:
                        below = [bottom.get(t, 0.0) if stacked else 0.0 for t, _ in points]
                        axes.fill_between(times, below, values, color=colour, alpha=0.12, linewidth=0)
                if stacked:
                    bottom.update({t: value for (t, _), value in zip(points, values)})
            for step in panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", []):
                if step["value"] is not None:
                    axes.axhline(step["value"], color=BAD, linewidth=0.9, linestyle=(0, (4, 3)))
            axes.set_xlim(-seconds, 0)
            axes.set_ylim(bottom=0)
            axes.margins(y=0.15)
            axes.xaxis.set_major_locator(ticker.MaxNLocator(4, integer=True, steps=[1, 2, 3, 6, 10]))
            axes.xaxis.set_major_formatter(lambda value, _: "now" if value == 0 else f"−{-value:g} s")
            axes.yaxis.set_major_locator(ticker.MaxNLocator(5))
            axes.yaxis.set_major_formatter(lambda value, _, unit=unit: format_value(value, unit))
            axes.grid(color=GRID, linewidth=0.6)
            axes.set_axisbelow(True)
            axes.tick_params(colors=FAINT, labelsize=7, length=0)
            for spine in axes.spines.values():
                spine.set_visible(False)
            names = figure.legend(
                *axes.get_legend_handles_labels(), loc="lower left", frameon=False, fontsize=7, ncol=2,
                bbox_to_anchor=((left + 0.02) / width, (low + 0.01) / height), handlelength=1.2, columnspacing=1.0,
                labelspacing=0.25, borderaxespad=0.2)
            for text in names.get_texts():
                text.set_color(FAINT)
    figure.savefig(file, dpi=110, facecolor=BACKGROUND)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    draw(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
