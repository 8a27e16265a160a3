"""What things cost, measured; launch/benchmark.py runs the suites."""
