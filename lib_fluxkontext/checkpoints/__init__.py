"""What a checkpoint file is, from its header alone: ``header`` reads, ``flux`` explains, ``fit`` reckons."""
