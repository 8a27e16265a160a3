"""The embedded default world: true facts, questions, and rules that play it."""
