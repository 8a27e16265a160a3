"""Shipped fakes: byte tokenizer, tiny model, scripted engine, fake tools."""
