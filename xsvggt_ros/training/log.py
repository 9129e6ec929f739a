# SPDX-License-Identifier: Apache-2.0
"""What a training tells and leaves behind: progress, losses, scores and images."""

from __future__ import annotations

import csv
import io
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xsvggt_ros.errors import OutputError, first_line
from xsvggt_ros.geometry.files import replacing
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.synthetic.sequence import Sequence
from xsvggt_ros.training.learning import WEIGHTS
from xsvggt_ros.training.scores import Scores

PARTS = ("total", "depth", "points", "camera", "auxiliary")
"""Parts of the loss, as they are logged."""


@dataclass(frozen=True)
class Progress:
    """What a step was like; losses are means since the last report."""

    step: int
    steps: int
    stage: str
    losses: dict[str, float]
    frames_per_second: float
    skipped: int

    def line(self) -> str:
        """Return the progress as one line."""
        parts = ", ".join(f"{name} {value:.4f}" for name, value in self.losses.items())
        skipped = f", {self.skipped} steps skipped" if self.skipped else ""
        return (
            f"step {self.step}/{self.steps} {self.stage}: {parts}, "
            f"{self.frames_per_second:.1f} frames/s{skipped}"
        )


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    ``weights`` is a safetensors file in float16; ``scores`` belong to it, None where the training
    was stopped.
    """

    step: int
    steps: int
    scores: Scores | None
    weights: Path

    def line(self) -> str:
        """Return the final line."""
        if self.scores is None:
            return f"stopped after step {self.step} of {self.steps}; the same command continues"
        state = "" if self.step == self.steps else f" (step {self.step} of {self.steps})"
        return f"held-out{state}: {self.scores.line()}"


class LossMeter:
    """Means of losses and frames per second between two reports."""

    def __init__(self, seconds: float = 5.0) -> None:
        """Begin to measure; a report is due after ``seconds``."""
        self._seconds = seconds
        self.restart(time.monotonic())

    def restart(self, now: float) -> None:
        """Forget what was measured."""
        self._since = now
        self._sums: dict[str, float | Tensor] = {}
        self._counts: Counter[str] = Counter()
        self._frames = self.steps = 0

    def add(self, parts: Mapping[str, float | Tensor], frames: int) -> None:
        """Note one step; losses on a device stay there until a report, and may be overwritten."""
        self.steps += 1
        self._frames += frames
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] += 1

    def due(self, now: float) -> bool:
        """Return whether it is time to report."""
        return now - self._since >= self._seconds

    def means(self) -> dict[str, float]:
        """Return the mean of each loss."""
        return {name: float(total) / self._counts[name] for name, total in self._sums.items()}

    def frames_per_second(self, now: float) -> float:
        """Return how fast frames were learned from."""
        return self._frames / max(now - self._since, 1e-9)


_COLUMNS = ("step", "stage", "total", "depth", "points", "camera", "auxiliary",
            "learning_rate", "frames_per_second", "skipped")  # fmt: skip
_SHOWN = 5
LOSSES, SCORES = "losses.csv", "scores.jsonl"
_WRITTEN = (LOSSES, "losses.png", SCORES, WEIGHTS, "evaluation")


def require_no_other(directory: Path) -> None:
    """Check that a new training in ``directory`` would replace nothing that is not its own.

    Raises:
        OutputError: there are files that a training writes.

    """
    taken = [name for name in _WRITTEN if (directory / name).exists()]
    if taken:
        raise OutputError(
            f"'{directory}' holds {', '.join(taken)}, but no training to continue; choose "
            "another place, or move them away"
        )


class LossLog:
    """``losses.csv`` and ``scores.jsonl``; what comes after the step that is resumed is cut off."""

    def __init__(self, directory: Path) -> None:
        """Read an earlier log, if there is one.

        Raises:
            OutputError: it is no log of a training.

        """
        self._losses, self._scores = directory / LOSSES, directory / SCORES
        self.rows()
        self._lines()

    def truncate_after(self, step: int) -> None:
        """Create the files, or drop what comes after a step."""
        kept = [row for row in self.rows() if int(row["step"]) <= step]
        with replacing(self._losses) as stream:
            stream.write(_csv([dict.fromkeys(_COLUMNS, "")], header=True) + _csv(kept))
        self._write_lines([line for line in self._lines() if line["step"] <= step])

    def rows(self) -> list[dict[str, str]]:
        """Return what has been logged; raise OutputError where that is something else."""
        try:
            text = self._losses.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise _no_log(self._losses, error) from error
        reader = csv.DictReader(io.StringIO(text))
        rows = list(reader)
        if tuple(reader.fieldnames or ()) != _COLUMNS:
            raise _no_log(self._losses, ValueError(f"its columns are {reader.fieldnames}"))
        # The last row may have broken off.
        return [row for row in rows if row["step"].isdecimal() and row["skipped"]]

    def _lines(self) -> list[dict[str, Any]]:
        try:
            text = self._scores.read_text(encoding="utf-8")
            lines = [json.loads(line) for line in text.splitlines()]
            return [{**line, "step": int(line["step"])} for line in lines]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _no_log(self._scores, error) from error

    def _write_lines(self, lines: list[dict[str, Any]]) -> None:
        with replacing(self._scores) as stream:
            stream.write("".join(json.dumps(line) + "\n" for line in lines).encode("utf-8"))

    def add(self, progress: Progress, learning_rate: float) -> None:
        """Append the losses of a report."""
        row: dict[str, Any] = {
            "step": progress.step,
            "stage": progress.stage,
            "learning_rate": f"{learning_rate:.3e}",
            "frames_per_second": f"{progress.frames_per_second:.2f}",
            "skipped": progress.skipped,
        }
        row |= {name: f"{value:.6f}" for name, value in progress.losses.items()}
        with self._losses.open("ab") as stream:
            stream.write(_csv([row]))

    def add_scores(self, step: int, longest: str, scores: Scores) -> None:
        """Append the scores of an evaluation, in place of an earlier one of the same.

        Args:
            step: of the training.
            longest: where it is one of several evaluations, which.
            scores: of the evaluation.

        """
        new = {"step": step, "longest": longest, **asdict(scores)}
        others = [
            line for line in self._lines() if (line["step"], line.get("longest")) != (step, longest)
        ]
        self._write_lines([*others, new])

    def draw(self) -> None:
        """Draw the loss curves into ``losses.png``, where matplotlib is installed."""
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError:
            return
        rows = self.rows()
        figure = Figure(figsize=(9, 5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot(xlabel="step", ylabel="loss, confidence included")
        for name in ("total", "depth", "points", "camera", "auxiliary"):
            points = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
            if points:
                steps, values = zip(*points, strict=True)
                width = max(1, len(values) // 100)
                smooth = np.convolve(values, np.ones(width) / width, mode="valid")
                axes.plot(steps[width - 1 :], smooth, label=name)
        if rows:
            axes.legend()
        axes.grid(alpha=0.3)
        with replacing(self._losses.with_suffix(".png")) as stream:
            figure.savefig(stream, format="png", dpi=110)


def _no_log(path: Path, error: Exception) -> OutputError:
    return OutputError(
        f"'{path}' is no log of a training ({first_line(error)}); move it away, or choose another "
        "place"
    )


def _csv(rows: list[dict[str, Any]], *, header: bool = False) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    else:
        writer.writerows(rows)
    return text.getvalue().encode("utf-8")


def write_evaluation_image(
    directory: Path, network: StreamVggt, sequence: Sequence, step: int
) -> None:
    """Draw some frames of a sequence: image, true depth, predicted depth, confidence, by rows.

    Only where OpenCV is installed: a machine that does nothing but train need not have it.
    """
    try:
        import cv2
    except ImportError:
        return
    count = min(len(sequence), 10)
    frames = [sequence.frame(index) for index in range(count)]
    images = torch.from_numpy(np.stack([frame.color for frame in frames])).to(network.device)
    with torch.inference_mode():
        found = network.forward_sequence(images.movedim(-1, 1).float()[None] / 255, ["depth"])
    assert found.depth is not None
    assert found.depth_confidence is not None
    depth = found.depth[0].cpu().numpy()
    truth = np.stack([frame.depth for frame in frames])
    depth = depth * (np.median(truth) / np.median(depth))
    confidence = np.log(found.depth_confidence[0].cpu().numpy())
    top = float(np.quantile(truth, 0.99))
    columns = []
    for k in np.linspace(0, count - 1, min(_SHOWN, count)).round().astype(int):
        parts = [
            frames[k].color,
            *(
                cv2.applyColorMap(_scaled(values[k], most), cv2.COLORMAP_VIRIDIS)[..., ::-1]
                for values, most in ((truth, top), (depth, top), (confidence, confidence.max()))
            ),
        ]
        columns.append(np.concatenate(parts))
    path = directory / "evaluation" / f"step_{step:07d}.png"
    with replacing(path) as stream:
        stream.write(cv2.imencode(".png", np.concatenate(columns, axis=1)[..., ::-1])[1].tobytes())


def _scaled(values: NDArray[np.floating], most: float) -> NDArray[np.uint8]:
    """Return values [H, W] from 0 to ``most`` as 0 to 255."""
    pixels: NDArray[np.uint8] = (255 * np.clip(values / max(most, 1e-9), 0, 1)).astype(np.uint8)
    return pixels
