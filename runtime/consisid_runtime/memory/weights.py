"""The weights of one network, on the device or in the host's memory; a network's blocks, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from consisid_runtime.memory.host import HostMemory
from consisid_runtime.memory.plan import SLOTS


class Copies:
    """Copies weights to a device beside what runs there; on a CPU, which stands in for one in tests, at once.

    Attributes:
        host: where the weights wait.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.host = HostMemory(pinned=device.type == "cuda")
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def begin(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> torch.cuda.Event | None:
        """Copy each first tensor to the second. What is queued so far may still read them; returns what to await."""
        if self._stream is None:
            for host, place in pairs:
                place.copy_(host)
            return None
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            for host, place in pairs:
                place.copy_(host, non_blocking=True)
            event: torch.cuda.Event = self._stream.record_event()
        return event

    def finish(self, event: torch.cuda.Event | None) -> None:
        """What is queued from now on begins after the copies."""
        if event is not None:
            torch.cuda.current_stream(self.device).wait_event(event)

    def room_for(self, host: Tensor) -> Tensor:
        """Memory of the device for a tensor of the host's."""
        return torch.empty_strided(host.shape, host.stride(), dtype=host.dtype, device=self.device)


@dataclass(slots=True)
class _Weight:
    """A parameter or buffer, everywhere in a network where it is, and its copy on the host."""

    host: Tensor
    places: list[tuple[nn.Module, str]] = field(default_factory=list)

    def put(self, tensor: Tensor) -> None:
        for module, name in self.places:
            if name in module._parameters:
                module._parameters[name] = nn.Parameter(tensor, requires_grad=False)
            else:
                module._buffers[name] = tensor


class Weights:
    """A network's weights. They are all on the device, or none is, whatever fails.

    Args:
        network: on the device; from then on its weights are on the host.
        besides: parts that somebody else moves.
    """

    def __init__(self, network: nn.Module, copies: Copies, besides: Iterable[nn.Module] = ()) -> None:
        self._copies = copies
        self._weights = _weights(network, copies, besides)
        self._event: torch.cuda.Event | None = None
        self.on_device = True
        self.drop()

    def bring(self) -> None:
        """Begin to copy them to the device, unless they are there."""
        if self.on_device:
            return
        made = [self._copies.room_for(each.host) for each in self._weights]
        self._event = self._copies.begin(zip((each.host for each in self._weights), made, strict=True))
        for each, tensor in zip(self._weights, made, strict=True):
            each.put(tensor)
        self.on_device = True

    def require(self) -> None:
        """Bring them; what is queued from now on finds them there."""
        self.bring()
        self._copies.finish(self._event)
        self._event = None

    def drop(self) -> bool:
        """Free the device's memory. Returns whether there was any to free."""
        if not self.on_device:
            return False
        self._copies.finish(self._event)  # the memory must not be used again before the copy has ended
        self._event = None
        self.on_device = False
        self.put_away()
        return True

    def put_away(self) -> None:
        """Where they are not to be on the device, free what somebody else has brought there."""
        for each in self._weights if not self.on_device else ():
            each.put(each.host)


class StreamedBlocks(nn.ModuleList):
    """A network's equal blocks, of which some share two places on the device and come there in turn.

    A block that is asked for is there until another one is: while it works, the next of those that come is copied.

    Args:
        blocks: on the device.
        count: how many come from the host, spread evenly; a multiple of `SLOTS`, so that the last one of a step and the
            first one of the next do not share a place.
    """

    def __init__(self, blocks: Sequence[nn.Module], count: int, copies: Copies) -> None:
        if count % SLOTS or not count:
            raise ValueError(f"count must be a multiple of {SLOTS}, got {count}")
        super().__init__(blocks)
        self._copies = copies
        self._order = [number * len(blocks) // count for number in range(count)]
        self._hosts = {i: _weights(blocks[i], copies) for i in self._order}
        self._slots: list[list[Tensor]] = []
        self._held: list[int | None] = [None] * SLOTS
        self._events: list[torch.cuda.Event | None] = [None] * SLOTS
        for i in self._order:
            _put(self._hosts[i], [each.host for each in self._hosts[i]])

    @property
    def streamed(self) -> list[nn.Module]:
        """The blocks that come from the host."""
        return [nn.ModuleList.__getitem__(self, i) for i in self._order]

    def attach(self) -> None:
        """Take the places on the device."""
        if self._slots:
            return
        some = self._hosts[self._order[0]]
        self._slots = [[self._copies.room_for(each.host) for each in some] for _ in range(SLOTS)]
        for number, i in enumerate(self._order):
            _put(self._hosts[i], self._slots[number % SLOTS])

    def detach(self) -> None:
        """Free them."""
        for event in self._events:
            self._copies.finish(event)
        for i in self._order if self._slots else ():
            _put(self._hosts[i], [each.host for each in self._hosts[i]])
        self._slots, self._held, self._events = [], [None] * SLOTS, [None] * SLOTS

    def __getitem__(self, index: int) -> nn.Module:  # type: ignore[override]
        if index in self._hosts:
            number = self._order.index(index)
            self._bring(number)
            self._copies.finish(self._events[number % SLOTS])
            self._bring((number + 1) % len(self._order))
        return nn.ModuleList.__getitem__(self, index)

    def __iter__(self) -> Iterator[nn.Module]:
        return (self[i] for i in range(len(self)))

    def _bring(self, number: int) -> None:
        """Begin to copy the block of this place in the order, unless it is there."""
        slot, index = number % SLOTS, self._order[number]
        if self._held[slot] == index:
            return
        self._held[slot] = None  # until the copy has begun
        pairs = zip((each.host for each in self._hosts[index]), self._slots[slot], strict=True)
        self._events[slot] = self._copies.begin(pairs)
        self._held[slot] = index


def _weights(network: nn.Module, copies: Copies, besides: Iterable[nn.Module] = ()) -> list[_Weight]:
    """Every parameter and buffer once, with a copy of each on the host."""
    others = {id(module) for part in besides for module in part.modules()}
    found: dict[int, _Weight] = {}
    for module in network.modules():
        if id(module) in others:
            continue
        for kind in (module._parameters, module._buffers):
            for name, tensor in kind.items():
                if tensor is not None and tensor.numel():
                    known = found.get(id(tensor)) or found.setdefault(
                        id(tensor), _Weight(copies.host.kept(tensor.data))
                    )
                    known.places.append((module, name))
    return list(found.values())


def _put(weights: Sequence[_Weight], tensors: Sequence[Tensor]) -> None:
    for each, tensor in zip(weights, tensors, strict=True):
        each.put(tensor)
