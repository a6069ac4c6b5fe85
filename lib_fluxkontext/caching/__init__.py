"""The step caches: what of an earlier step may serve again. Pure torch; knows neither settings nor transformers.

``first_block`` skips blocks, ``reference_kv`` skips the reference tokens, ``correction`` compensates the error of both;
``forecast`` extrapolates a cached tensor, ``batched_state`` and ``kv_store`` hold tensors by sample, ``host_memory``
and ``prefetch`` stream them. ``caches`` is the set that one sampling uses.
"""
