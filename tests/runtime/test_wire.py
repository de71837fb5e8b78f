"""Values on their way from the server to a stage."""

import numpy as np

from consisid_runtime.signatures import Port
from consisid_runtime.wire import array_of, value_of


def test_tensors_are_copied_from_the_servers_memory() -> None:
    """The server uses it again, and a stage may write into its input."""
    memory = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = value_of(Port("latents", "FP32", (2, 3)), memory)
    found += 1
    assert memory[0].tolist() == [0, 1, 2] and found[0].tolist() == [1, 2, 3]


def test_bytes_arrive_as_they_were_sent() -> None:
    data = bytes(range(256))
    assert value_of(Port("image", "UINT8", (256,)), array_of(data)) == data
