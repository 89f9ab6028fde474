"""An event for processes on any nodes of a Ray cluster."""

import time
import uuid
from dataclasses import dataclass, field

# By what Ray's own parts tell each other, though its name is a private one: a named actor, the public
# way, is a further process of 70 MiB.
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_exists, _internal_kv_put

_NAMESPACE = "dsdi_ray"
_PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class ClusterEvent:
    """As :class:`threading.Event`, for any process of a Ray cluster that it is sent to."""

    _key: str = field(default_factory=lambda: f"event-{uuid.uuid4().hex}")

    def set(self) -> None:
        """Let all that wait go on, now and from now on."""
        _internal_kv_put(self._key, b"", namespace=_NAMESPACE)

    def clear(self) -> None:
        """Take it back; the cluster keeps no trace of it."""
        _internal_kv_del(self._key, namespace=_NAMESPACE)

    def is_set(self) -> bool:
        """Whether it is set."""
        return bool(_internal_kv_exists(self._key, namespace=_NAMESPACE))

    def wait(self) -> None:
        """Return once it is set."""
        while not self.is_set():
            time.sleep(_PAUSE_SECONDS)
