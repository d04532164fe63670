"""Layers over headrace for programs that come from elsewhere. Nothing here is imported unless it is asked for."""
