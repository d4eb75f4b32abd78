"""The plots of an ablation, as PNG."""

from __future__ import annotations

from collections.abc import Sequence

from ner_batch.experiments.curve import Line
from ner_batch.experiments.results import Result, axes, place
from ner_batch.jobs.plots import canvas, png


def f1_plot(results: Sequence[Result]) -> bytes:
    """Strict F1 of every cell with its interval."""
    drawn, plot = canvas(9, 1.2 + 0.3 * len(results))
    values = [result.strict["micro"]["f1"]["value"] for result in results]
    ends = [result.strict["micro"]["f1"]["interval"] for result in results]
    spread = [
        [v - low for v, (low, _) in zip(values, ends, strict=True)],
        [h - v for v, (_, h) in zip(values, ends, strict=True)],
    ]
    places = range(len(results))
    plot.barh(places, values, xerr=[[max(0.0, x) for x in side] for side in spread], color="tab:blue", capsize=3)
    plot.set_yticks(places, [place(result, axes(results)) for result in results])
    plot.invert_yaxis()
    plot.set(xlabel="strict F1, 95 % interval", xlim=(0, 1))
    return png(drawn)


def cost_plot(results: Sequence[Result]) -> bytes:
    """Strict F1 over the tokens a text costs."""
    drawn, plot = canvas(8, 5)
    for number, result in enumerate(results):
        tokens, f1 = result.prompt_tokens + result.completion_tokens, result.strict["micro"]["f1"]["value"]
        plot.plot(tokens, f1, "o", label=f"{number + 1} {place(result, axes(results))}")
        plot.annotate(str(number + 1), (tokens, f1), textcoords="offset points", xytext=(5, 4), fontsize=8)
    plot.set(xlabel="tokens per text, prompts and answers", ylabel="strict F1", ylim=(0, 1), xlim=(0, None))
    drawn.legend(loc="outside right upper", fontsize=7, frameon=False)
    return png(drawn)


def curve_plot(lines: Sequence[Line]) -> bytes:
    """F1 by the number of annotated examples: means, every draw as a dot, and the range of the draws shaded."""
    drawn, plot = canvas(8, 5)
    for line in lines:
        sizes = list(line.points)
        means = [sum(values) / len(values) for values in line.points.values()]
        (curve,) = plot.plot(sizes, means, "--" if line.flat else "o-", markersize=4, label=line.name)
        if line.flat:
            continue
        ends = ([pick(values) for values in line.points.values()] for pick in (min, max))
        plot.fill_between(sizes, *ends, alpha=0.15, color=curve.get_color())
        for size, values in line.points.items():
            plot.plot([size] * len(values), values, ".", markersize=3, color=curve.get_color())
    sizes = sorted({size for line in lines for size in line.points})
    plot.set_xscale("log")
    plot.set_xticks(sizes, [f"{size:,}" for size in sizes])
    plot.minorticks_off()
    highest = max(value for line in lines for values in line.points.values() for value in values)
    plot.set(xlabel="annotated examples", ylabel="strict F1", ylim=(0, min(1.0, 1.25 * highest + 0.01)))
    plot.legend(frameon=False, fontsize=8)
    return png(drawn)
