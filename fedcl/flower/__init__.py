"""Flower: messages, runtimes and bytes. The only folder that imports flwr."""
