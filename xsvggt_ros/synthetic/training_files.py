# SPDX-License-Identifier: Apache-2.0
"""What a training leaves in its directory: its losses, scores and images."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xsvggt_ros.errors import OutputError, first_line
from xsvggt_ros.geometry.files import replacing
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.synthetic.png import colored, png_bytes
from xsvggt_ros.synthetic.scores import Scores
from xsvggt_ros.synthetic.sequence import Sequence
from xsvggt_ros.synthetic.training_progress import Progress

_COLUMNS = ("step", "stage", "total", "depth", "points", "camera", "guides",
            "learning_rate", "frames_per_second", "skipped")  # fmt: skip
_SHOWN = 5
LOSSES, SCORES, WEIGHTS = "losses.csv", "scores.jsonl", "weights.safetensors"
_WRITTEN = (LOSSES, "losses.png", SCORES, WEIGHTS, "evaluation")


def require_no_other(directory: Path) -> None:
    """Look whether a training that begins in ``directory`` would replace what is not its own.

    Raises:
        OutputError: files lie there that a training writes.

    """
    taken = [name for name in _WRITTEN if (directory / name).exists()]
    if taken:
        raise OutputError(
            f"'{directory}' holds {', '.join(taken)}, but no training that could go on; choose "
            "another place, or move them away"
        )


class LossLog:
    """``losses.csv`` and ``scores.jsonl``; what comes after the step that is resumed is cut off."""

    def __init__(self, directory: Path) -> None:
        """Look at what lies there.

        Raises:
            OutputError: it is no log of a training.

        """
        self._losses, self._scores = directory / LOSSES, directory / SCORES
        self.rows()
        self._lines()

    def begin(self, step: int) -> None:
        """Make the files, or cut them after a step."""
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
        """Append the scores of an evaluation, in place of an earlier one of the same."""
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
        for name in ("total", "depth", "points", "camera", "guides"):
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
) -> Path:
    """Draw some frames of a sequence: image, true depth, predicted depth, confidence, by rows."""
    count = min(len(sequence), 10)
    frames = [sequence.frame(index) for index in range(count)]
    images = torch.from_numpy(np.stack([frame.color for frame in frames])).to(network.device)
    with torch.inference_mode():
        found = network.forward_sequence(images.movedim(-1, 1).float()[None] / 255, ["depth"])
    assert found.depth is not None
    assert found.depth_confidence is not None
    depth = found.depth[0].cpu().numpy()
    truth = np.stack([frame.depth for frame in frames])
    depth = depth * np.median(truth / depth)
    confidence = np.log(found.depth_confidence[0].cpu().numpy())
    top = float(np.quantile(truth, 0.99))
    columns = []
    for k in np.linspace(0, count - 1, min(_SHOWN, count)).round().astype(int):
        parts = [
            frames[k].color,
            colored(truth[k], 0, top),
            colored(depth[k], 0, top),
            colored(confidence[k], 0, float(confidence.max())),
        ]
        columns.append(np.concatenate(parts))
    path = directory / "evaluation" / f"step_{step:07d}.png"
    with replacing(path) as stream:
        stream.write(png_bytes(np.concatenate(columns, axis=1)))
    return path
