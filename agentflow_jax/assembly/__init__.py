"""Config -> built parts; the only package that knows the registries."""
