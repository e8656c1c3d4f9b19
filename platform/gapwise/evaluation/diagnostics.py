"""What a model says of itself under every condition: who leads, how far incomplete is from complete, and is it right.

It takes a function from batch to named tensors (the `diagnostics` of a prediction) and knows no model. Which tables
there are follows from the names: `dominant` and `score` are PRLF's (its reliability r before the softmax), `fused` is
PROMISE's; a model that names none of them has no diagnostics. Nothing is selected by these figures.

Shape legend: K conditions, V mask seeds, N samples, B batch, M modalities in sorted order, W width.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from gapwise.data.batch import ModalityBatch
from gapwise.data.store import Split, TrainSplit
from gapwise.evaluation.agreement import NAMINGS, Claims, agreement, average_information, known_grid
from gapwise.evaluation.grid import Grid, Read, Readings, read_grid
from gapwise.evaluation.objective import Curve
from gapwise.spec.protocol import ProtocolSpec

SCORE, DOMINANT, FUSED = "score", "dominant", "fused"
_COSINE, _RELATIVE = "cosine", "relative_l2"

Table = dict[str, Any]
"""{condition: row}."""


class Diagnostics(NamedTuple):
    """Plain values for JSON; None for a table that the model, or the dataset, does not have."""

    mask_seeds: int
    dominance: Table | None = None
    """{condition: {shares: {modality: {mean, sd}}, none: {mean, sd}}}: shares of all samples."""
    distance: Table | None = None
    """{condition: {cosine: {mean, sd}, relative_l2: {mean, sd}}}: see `distances`; means over all samples."""
    reliability: dict[str, Any] | None = None
    """See `agreement.agreement`; on synthetic data only."""


def diagnose(
    read: Read, split: Split, protocol: ProtocolSpec, mask_seeds: Sequence[int], train: TrainSplit
) -> Diagnostics:
    """Every table for a whole split, on the masks of the robustness grid; `train` says what carries most on average.

    Raises DataError where a synthetic dataset's parameters or truth are not its own.
    """
    offered = _offered(read, split)
    if not offered & {DOMINANT, FUSED}:
        return Diagnostics(len(mask_seeds))
    rows = np.arange(len(split), dtype=np.int64)
    found = read_grid(_measured(read, split, offered), split, rows, protocol, mask_seeds)
    seeds = next(iter(found.values.values())).shape[1]
    names = sorted(split.manifest.modalities)
    return Diagnostics(
        mask_seeds=seeds,
        dominance=_dominance(found, names) if DOMINANT in offered else None,
        distance=_distance(found) if FUSED in offered else None,
        reliability=_reliability(found, names, split, protocol, mask_seeds, train) if SCORE in offered else None,
    )


def _offered(read: Read, split: Split) -> set[str]:
    with torch.inference_mode():
        names = set(read(split.batch(np.zeros(1, np.int64))))
    return names if DOMINANT in names else names - {SCORE}


def _measured(read: Read, split: Split, offered: set[str]) -> Read:
    """Reads what the tables need; a representation becomes its distances at once, being too wide to keep for a grid."""
    complete_NW = _complete(read, split) if FUSED in offered else None

    def measured(batch: ModalityBatch) -> dict[str, Tensor]:
        found = read(batch)
        kept = {name: found[name] for name in offered & {SCORE, DOMINANT}}
        return kept if complete_NW is None else kept | distances(found[FUSED].cpu(), complete_NW[batch.rows])

    return measured


def _complete(read: Read, split: Split) -> Tensor:
    """(N, W): representations with nothing missing, which the conditions need not contain."""
    rows, nothing_missing = np.arange(len(split), dtype=np.int64), ProtocolSpec(rates=(0.0,))
    found = read_grid(lambda batch: {FUSED: read(batch)[FUSED]}, split, rows, nothing_missing, [0])
    return torch.from_numpy(found.values[FUSED][0, 0])


def distances(view_BW: Tensor, complete_BW: Tensor) -> dict[str, Tensor]:
    """(B,) each: 1 - cosine, and the L2 distance as a share of the complete representation's length."""
    view_BW, complete_BW = view_BW.double(), complete_BW.double()
    tiny = torch.finfo(torch.float64).tiny
    # Half the squared distance of unit vectors is 1 - cosine without its cancellation near 0.
    turned_B = 0.5 * (normalize(view_BW) - normalize(complete_BW)).square().sum(1)
    gap_B = (view_BW - complete_BW).norm(dim=1) / complete_BW.norm(dim=1).clamp_min(tiny)
    return {_COSINE: turned_B, _RELATIVE: gap_B}


def _distance(found: Readings) -> Table:
    means = {name: found.values[name].astype(np.float64).mean(2) for name in (_COSINE, _RELATIVE)}
    return Grid(found.conditions, means).table()


def _dominance(found: Readings, names: list[str]) -> Table:
    leader_KVN = found.values[DOMINANT]
    led = {name: (leader_KVN == m).mean(2) for m, name in enumerate(names)}
    shares = Grid(found.conditions, led).table()
    none = Grid(found.conditions, {"none": (leader_KVN < 0).mean(2)}).table()
    return {condition: {"shares": shares[condition], **none[condition]} for condition in found.conditions}


def _reliability(
    found: Readings,
    names: list[str],
    split: Split,
    protocol: ProtocolSpec,
    mask_seeds: Sequence[int],
    train: TrainSplit,
) -> dict[str, Any] | None:
    """One mask seed on the training split is enough: what counts there is a mean over samples."""
    known, training = (known_grid(*one) for one in ((split, protocol, mask_seeds), (train, protocol, mask_seeds[:1])))
    if known is None or training is None:
        return None
    score, dominant = found.values[SCORE].astype(np.float64), found.values[DOMINANT].astype(np.int64)
    return agreement(Claims(found.conditions, names, score, dominant), known, average_information(training))


def curves(found: Diagnostics) -> dict[str, Curve]:
    """{name: {condition: mean}} as tracking and model folders keep them; undefined figures are left out."""
    flat: dict[str, Curve] = {}
    for table in (_dominance_names, _distance_names, _reliability_names):
        for name, condition, figure in table(found):
            if figure is not None:
                flat.setdefault(name, {})[condition] = figure["mean"]
    return flat


Named = list[tuple[str, str, Mapping[str, float] | None]]
"""Name of the curve, condition, figure."""


def _dominance_names(found: Diagnostics) -> Named:
    named: Named = []
    for condition, row in (found.dominance or {}).items():
        named += [(f"dominant_share/{name}", condition, figure) for name, figure in row["shares"].items()]
        named.append(("dominant_none", condition, row["none"]))
    return named


def _distance_names(found: Diagnostics) -> Named:
    rows = (found.distance or {}).items()
    return [(f"distance/{name}", condition, figure) for condition, row in rows for name, figure in row.items()]


def _reliability_names(found: Diagnostics) -> Named:
    body = found.reliability or {"correlations": {}, "dominant": {}}
    named: Named = [
        (f"rank_correlation/{name}/{cue}", condition, figure)
        for condition, row in body["correlations"].items()
        for name, cell in row.items()
        for cue, figure in cell.items()
    ]
    for condition, row in body["dominant"].items():
        named += [(f"dominant_accuracy/{name}", condition, row[name]) for name in NAMINGS]
    return named
