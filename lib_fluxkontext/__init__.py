"""FLUX.1 Kontext with several references, step caches and telemetry: a host-neutral core, and hosts that drive it.

The data's way through the package, each step in the folder of its name:

1. ``settings``       what the user asked for, validated; the presets
2. ``images/``        anything Pillow opens → RGB → the size it is encoded at
3. ``references/``    latents, cached; tokens and position ids
4. ``sampling/``      one session for every sampling: it owns all that follows
5. ``hooks/``         what is hooked on a transformer for the length of one model call
6. ``caching/``       what of an earlier step may serve again
7. ``telemetry/``     seconds of every model call, memory of process and card
8. ``presentation/``  the numbers as text, HTML and tables
9. ``history/``       every finished generation in a log, to compare

``checkpoints/`` tells what a file is from its header, ``infotext`` writes and reads what an image carries, ``i18n``
translates, ``geometry`` knows pixels, latents and tokens, ``job`` is one picture to make.

Many pictures: ``batch/`` turns a manifest into rows, and finished rows into a folder; ``commands/`` is the command line
over it. ``convert/`` writes a checkpoint in another number format. What all of them use: ``command_line`` (exit codes
and errors), ``text_values``, ``replaced_file``, ``bounded_cache``.

Hosts: ``hosts/forge`` runs inside Stable Diffusion WebUI Forge, ``hosts/diffusers`` around diffusers' pipeline;
``hosts/forge_api`` and ``hosts/ray`` make a batch's rows on Forge servers and on a cluster. The core never imports a
host.

``docs/architecture.md`` follows a photo, a model call and a step's seconds through the files.
"""

__version__ = "0.1.0"
