"""Agents: everything that acts and learns from imagined or replayed experience."""
