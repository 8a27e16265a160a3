"""Scores of finished trajectories and the report page."""
