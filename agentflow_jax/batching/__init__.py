"""From scored trajectories to fixed-shape packed training batches."""
