"""When a step may reuse what an earlier one computed. Pure torch: tensors in, decisions out."""
