"""The public Python API of selfemo."""
