# SPDX-License-Identifier: Apache-2.0
"""What is advised where no images come leads to images, whatever is published."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

REASON = "needs ROS 2: run scripts/test, or source a workspace"
pytest.importorskip("rclpy", reason=REASON)

from xsvggt_ros.ros.topics import COMPRESSED, COMPRESSED_TYPE, RAW_TYPE, advice

TYPES = {"raw": RAW_TYPE, "compressed": COMPRESSED_TYPE}
RAW, JPEG = {RAW_TYPE}, {COMPRESSED_TYPE}


@pytest.mark.parametrize(
    ("topic", "transport", "published", "expected"),
    [
        ("/image", "raw", {}, "start a camera or a bag that publishes sensor_msgs/msg/Image"),
        ("/image", "raw", {"/cam/image_raw": RAW}, "remap image to one of /cam/image_raw"),
        ("/cam/image_raw", "raw", {"/cam/image_raw/compressed": JPEG},
         "set input.image_transport to compressed"),
        ("/cam/image_raw/compressed", "raw", {"/cam/image_raw/compressed": JPEG},
         "set input.image_transport to compressed and remap image to one of /cam/image_raw"),
        ("/cam/image_raw/compressed", "compressed", {"/cam/image_raw": RAW},
         "set input.image_transport to raw and remap image to one of /cam/image_raw"),
        ("/image/compressed", "compressed", {"/front/image_raw": RAW, "/back/image_raw": RAW},
         "set input.image_transport to raw and remap image to one of /back/image_raw, "
         "/front/image_raw"),
        ("/image", "raw", {"/cam/jpeg": JPEG},
         "set input.image_transport to compressed and remap image/compressed to one of /cam/jpeg"),
        ("/image/compressed", "compressed", {"/cam/jpeg": JPEG},
         "remap image/compressed to one of /cam/jpeg"),
        ("/image", "raw", {"/cam/depth/image_raw": RAW, "/cam/color/image_raw": RAW},
         "remap image to one of /cam/color/image_raw"),
        ("/image", "raw", {"/cam/depth/image_raw": RAW}, "start a camera or a bag"),
        ("/image", "raw", {"/cam/image_raw/theora": {"theora_image_transport/msg/Packet"}},
         "/cam/image_raw/theora cannot be read here; have image_transport republish"),
        ("/image/compressed", "compressed", {"/cam/image_raw/compressedDepth": JPEG},
         "/cam/image_raw/compressedDepth cannot be read here"),
        ("/cam", "raw", {"/cam": {"std_msgs/msg/String"}, "/b": RAW}, "remap image to one of /b"),
    ],
)  # fmt: skip
def test_the_remedy_fits_what_is_published(
    topic: str, transport: str, published: dict[str, set[str]], expected: str
) -> None:
    assert advice(topic, transport, "image", published).startswith(expected)


def test_a_camera_of_a_rig_is_remapped_by_its_own_name() -> None:
    told = advice("/left/image", "raw", "left/image", {"/cam/jpeg": JPEG, "/cam/raw": RAW})
    assert told == "remap left/image to one of /cam/raw"
    told = advice("/left/image", "raw", "left/image", {"/cam/jpeg": JPEG})
    assert told.endswith("remap left/image/compressed to one of /cam/jpeg")


def _followed(told: str, topic: str, transport: str) -> list[tuple[str, str]]:
    """Return which topics and types are subscribed to by those who do as they are told."""
    if found := re.search(r"set input.image_transport to (\w+)", told):
        if found[1] == "compressed" and transport == "raw":
            topic += "" if topic.endswith(COMPRESSED) else COMPRESSED
        if found[1] == "raw":
            topic = "what image was remapped to"
        transport = found[1]
    targets = [topic]
    if found := re.search(r"remap (\S+) to one of (.+)", told):
        targets = found[2].split(", ")
        if transport == "compressed" and not found[1].endswith(COMPRESSED):
            targets = [each.removesuffix(COMPRESSED) + COMPRESSED for each in targets]
    return [(each, TYPES[transport]) for each in targets]


TOPICS = st.sampled_from(
    ["/image", "/image/compressed", "/cam/image_raw", "/cam/image_raw/compressed", "/cam/jpeg",
     "/cam/image_raw/compressed/compressed", "/front/rect", "/front/rect/compressed"]
)  # fmt: skip


@given(
    st.sampled_from(["/image", "/cam/image_raw", "/front/rect"]),
    st.sampled_from(["raw", "compressed", "raw, compressed topic"]),
    st.dictionaries(TOPICS, st.sampled_from([RAW, JPEG, RAW | JPEG]), max_size=5),
)
def test_whoever_follows_the_advice_gets_images(
    base: str, way: str, published: dict[str, set[str]]
) -> None:
    """There is no advice that leads in a circle."""
    transport = way.partition(",")[0]
    topic = base if way == "raw" else base + COMPRESSED
    told = advice(topic, transport, "image", published)
    if not published:
        assert told.startswith("start a camera")
        return
    for target, kind in _followed(told, topic, transport):
        assert kind in published.get(target, ()), told
