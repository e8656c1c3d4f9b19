"""A model's diagnostics as tables: what `gapwise evaluate --diagnostics` prints after the figures."""

from typing import Any

from gapwise.cli.output import figure, heading, print_table, stdout

_DISTANCE = "mean over samples; 0 is the same representation as with nothing missing"
_CORRELATION = (
    "rank correlation, over the samples that have the modality, of PRLF's score and of the plain count of observed "
    "frames with the true Fisher information; - is undefined: one side is constant"
)
_CHOICE = (
    "share of samples in which the most informative modality is named: by PRLF; always the one that carries most on "
    "average in the training split; the one that carries most on average of those that the sample has"
)


def show_diagnostics(model: str, protocol: str, body: dict[str, Any]) -> None:
    """The tables that there are, or a line saying that there are none; `body` is a `Diagnostics` as a dict."""
    first, seeds = heading(protocol), body["mask_seeds"]
    if body["dominance"] is None and body["distance"] is None:
        stdout.print(f"{model} has no diagnostics", soft_wrap=True)
    else:
        stdout.print(
            f"diagnostics: mean ± sd over {seeds} mask seeds" if seeds > 1 else "diagnostics: one mask, so no sd"
        )
    if body["dominance"] is not None:
        _show_dominance(first, body["dominance"], known=body["reliability"] is not None)
    if body["distance"] is not None:
        _show_distance(first, body["distance"])
    if body["reliability"] is not None:
        _show_correlations(first, body["reliability"])
        _show_choice(first, body["reliability"]["dominant"])


def _show_dominance(first: str, table: dict[str, Any], *, known: bool) -> None:
    names = list(next(iter(table.values()))["shares"])
    rows = [
        [condition, *(_figure(row["shares"][name]) for name in names), _figure(row["none"])]
        for condition, row in table.items()
    ]
    unknown = "" if known else "; whether it should is known on synthetic data only"
    caption = f"(none): no modality is there{unknown}"
    print_table("share of samples by dominant modality", [first, *names, "(none)"], rows, caption=caption)


def _show_distance(first: str, table: dict[str, Any]) -> None:
    rows = [[condition, _figure(row["cosine"]), _figure(row["relative_l2"])] for condition, row in table.items()]
    columns = [first, "1 - cosine", "relative L2"]
    print_table("distance of incomplete from complete representations", columns, rows, caption=_DISTANCE)


def _show_correlations(first: str, body: dict[str, Any]) -> None:
    table, summary = body["correlations"], body["mean_of_correlations"]
    names = list(next(iter(table.values())))
    columns = [first, *(f"{name} {cue}" for name in names for cue in ("score", "count"))]
    rows = [
        [condition, *(_figure(row[name][cue]) for name in names for cue in ("score", "count"))]
        for condition, row in table.items()
    ]
    print_table("reliability against the true Fisher information", columns, rows, caption=_CORRELATION)
    if summary["cells"]:
        stdout.print(
            f"mean of the {summary['cells']} correlations in which both are defined (a summary, nothing is pooled): "
            f"score {figure(summary['score'])}, count {figure(summary['count'])}",
            soft_wrap=True,
        )


def _show_choice(first: str, table: dict[str, Any]) -> None:
    columns = [first, "PRLF's dominant", "always the best", "best of those there", "best on average"]
    rows = [
        [
            condition,
            *(_figure(row[name]) for name in ("chosen", "always_best", "best_available")),
            row["best_on_average"] or "-",
        ]
        for condition, row in table.items()
    ]
    print_table("is the dominant modality the most informative one", columns, rows, caption=_CHOICE)


def _figure(value: dict[str, float] | None) -> str:
    return "-" if value is None else figure(value["mean"], value["sd"])
