"""Keeps removed weights at 0 while a model trains."""
