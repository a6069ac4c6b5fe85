"""How a batch runs on Ray. Imports nothing that takes long."""

from __future__ import annotations

from dataclasses import dataclass, field

from lib_fluxkontext.hosts.diffusers.options import LoadOptions


@dataclass(frozen=True)
class RayOptions:
    """How a batch runs on Ray.

    Attributes:
        address: of the cluster; None for the one that ``RAY_ADDRESS`` names, else the one that runs on this machine,
            else one that is started for this batch.
        loading: how actors load checkpoints.
        batch_size: most rows of one shape in one batch of an actor.
        actors: fewest and most of them; None for one up to as many as the cluster has GPUs, or else CPUs, at the start.
        forge: address of a Forge server as each actor's node sees it, to be driven instead of a pipeline;
            ``{gpu}`` in it is the number of the actor's card.
        auth: ``user:password`` of its ``--api-auth``.
    """

    address: str | None = None
    loading: LoadOptions = field(default_factory=LoadOptions)
    batch_size: int = 1
    actors: tuple[int, int] | None = None
    forge: str | None = None
    auth: str | None = field(default=None, repr=False)
