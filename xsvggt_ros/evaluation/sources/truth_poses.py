# SPDX-License-Identifier: Apache-2.0
"""Where true poses enter: what is no pose is none, and is counted."""

from __future__ import annotations

from collections.abc import Sequence

from xsvggt_ros.geometry.rigid import Matrix, is_pose, is_position

POSITIONS_ONLY = (
    "the truth has positions only (no quaternions, or zeros): orientation, RPE and clouds are not "
    "judged"
)


def true_poses(given: Sequence[Matrix | None], of: str) -> tuple[list[Matrix | None], list[str]]:
    """Return poses [4, 4] with None for what is none, and what to say of it.

    A pose is finite and rigid. Where no pose at all has a rotation, the truth is one of positions,
    and rotations stay NaN.

    Args:
        given: of each frame or stamp; None where there is none.
        of: where they come from, for the sentence.

    """
    there = [each for each in given if each is not None]
    if there and not any(map(is_pose, there)) and any(map(is_position, there)):
        kept = [each if each is not None and is_position(each) else None for each in given]
        remarks = [POSITIONS_ONLY]
    else:
        kept = [each if each is not None and is_pose(each) else None for each in given]
        remarks = []
    lost = len(there) - sum(each is not None for each in kept)
    if lost:
        remarks.append(
            f"{lost} of {len(there)} poses of {of} are none (not finite, or no rotation): they are "
            "left out"
        )
    return kept, remarks
