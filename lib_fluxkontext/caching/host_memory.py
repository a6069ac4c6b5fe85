"""Main memory that a CUDA device can copy from and to without the CPU's help.

Memory is allocated as usual and then registered with the driver (``cudaHostRegister``). PyTorch's own pinned allocator
rounds every tensor up to a power of two, 48 MiB to 64, and before 2.5 never returns one to the system; what is
registered here has its own size and is freed like any other tensor.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from lib_fluxkontext.errors import is_out_of_memory


class _CardDriver:
    """``torch.cuda.cudart()`` with a card current: whichever is current is given a context, half a gigabyte of it.

    An error that is returned here also stays the driver's last one, which torch raises after the next kernel that it
    launches. So a kernel is launched for it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cudart = torch.cuda.cudart()

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
        with torch.cuda.device(self._device):
            return self._forgotten(self._cudart.cudaHostRegister(address, size, flags))

    def cudaHostUnregister(self, address: int) -> int:
        with torch.cuda.device(self._device):
            return self._forgotten(self._cudart.cudaHostUnregister(address))

    def _forgotten(self, error: Any) -> int:
        """Return an error once it is the driver's last one no more."""
        if int(error) != 0:
            with suppress(RuntimeError):
                torch.ones(1, device=self._device)
        return int(error)


class HostMemory:
    """Tensors in main memory, registered with the driver while they last.

    Args:
        device: that copies from and to it.
        cudart: registers and unregisters, or None where tensors are not registered.
    """

    def __init__(self, device: torch.device, cudart: Any = None) -> None:
        self._device = device
        self._cudart = cudart
        self._registered: list[Tensor] = []
        self._can_register = cudart is not None

    def allocate(self, like: Tensor) -> Tensor:
        """Allocate a tensor of equal shape and dtype; pageable, and slower to copy, once the driver registers no more.

        Raises:
            RuntimeError, MemoryError: main memory ran out.
        """
        tensor = torch.empty(like.shape, dtype=like.dtype, device="cpu")
        if self._can_register and not self._register(tensor):
            self._can_register = False
        return tensor

    def _register(self, tensor: Tensor) -> bool:
        try:
            error = int(self._cudart.cudaHostRegister(tensor.data_ptr(), tensor.nelement() * tensor.element_size(), 0))
        except (RuntimeError, MemoryError) as failure:
            if not is_out_of_memory(failure):
                raise
            return False
        if error == 0:
            self._registered.append(tensor)
        return error == 0

    def release(self) -> None:
        """Unregister everything, once no copy can still be under way. Whoever holds the tensors drops them after."""
        registered, self._registered = self._registered, []
        if not registered:
            return
        with suppress(RuntimeError):  # after a CUDA failure there is nothing left to wait for
            torch.cuda.synchronize(self._device)
        for tensor in registered:
            with suppress(RuntimeError):
                self._cudart.cudaHostUnregister(tensor.data_ptr())

    def __del__(self) -> None:
        self.release()


def may_copy_later(device: torch.device) -> bool:
    """Whether a copy between main memory and a device may go on after the call (``non_blocking``).

    On CUDA a stream keeps the order; MPS may read memory that is free by then (pytorch issue 139550).
    """
    return device.type == "cuda"


def host_memory_for(device: torch.device) -> HostMemory:
    """Host memory for a device; registered for CUDA alone, since other backends cannot use it."""
    return HostMemory(device, _CardDriver(device) if device.type == "cuda" else None)
