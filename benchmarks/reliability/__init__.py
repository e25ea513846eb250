"""Promises of reliability, each with the command that proves it."""
