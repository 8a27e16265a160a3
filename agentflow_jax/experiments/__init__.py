"""The paper's questions in miniature: conditions, seeds, intervals."""
