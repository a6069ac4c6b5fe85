"""Other caches for Flux in diffusers, on the same pipeline, noise and references as this project's.

Each is a context manager around one batch of pictures, ``with method(pipeline, …) as work:``; ``work`` counts what ran
of the transformer (``work.Work``). Nothing of a method is left on the pipeline afterwards. This project's own caches
must be off meanwhile: ``KontextSettings(cache=False)``.

======================================  ===================  =========================================================
Method                                  Here                 Source
======================================  ===================  =========================================================
First Block Cache                       first_block_cache    diffusers 0.42.1
MagCache                                mag_cache            diffusers 0.42.1 (arXiv:2506.09045)
SeaCache                                sea_cache            diffusers 0.42.1 (arXiv:2602.18993)
TaylorSeer, lite and not                taylorseer           diffusers 0.42.1 (arXiv:2503.06923)
DBCache                                 db_cache             cache-dit 1.5.3
DBCache with TaylorSeer, FoCa, DMD      db_cache             cache-dit 1.5.3 (arXiv:2503.06923, arXiv:2508.16211, –)
TeaCache                                teacache             written anew from arXiv:2411.19108
EasyCache                               easycache            written anew from arXiv:2507.02860
Spectrum, the authors' and Forge Neo's  spectrum             written anew from arXiv:2603.01623
RegionE                                 region_e             written anew from arXiv:2510.25590
======================================  ===================  =========================================================

The first four are in ``diffusers_caches``, which also says why diffusers' TextKV, FasterCache and Pyramid Attention
Broadcast are not here; DBCache is in ``cache_dit_caches``; the others in modules of their name. MagCache and TeaCache
are calibrated on the model at hand: ``diffusers_caches.calibrated_ratios``, ``teacache.calibrated_coefficients``.
"""
