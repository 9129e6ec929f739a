# SPDX-License-Identifier: Apache-2.0
"""Stand-in for tf2_ros in environments without a ROS 2 distribution, with its public API.

Left out are what needs other packages: ``BufferClient``, ``BufferServer`` and ``Buffer.transform``
of messages.
"""

from tf2_py import BufferCore as BufferCore
from tf2_py import ConnectivityException as ConnectivityException
from tf2_py import ExtrapolationException as ExtrapolationException
from tf2_py import InvalidArgumentException as InvalidArgumentException
from tf2_py import LookupException as LookupException
from tf2_py import TimeoutException as TimeoutException
from tf2_py import TransformException as TransformException

from .buffer import Buffer as Buffer
from .static_transform_broadcaster import (
    StaticTransformBroadcaster as StaticTransformBroadcaster,
)
from .transform_broadcaster import TransformBroadcaster as TransformBroadcaster
from .transform_listener import TransformListener as TransformListener
