"""Searching for evidence in any corpus: rules that play it, random planners."""
