"""Convert a FLUX.1 checkpoint to another number format, tensor by tensor: source → plan → encoded → file."""
