"""Doors to other people's tools: each module needs the package it is for, and nothing else of ours needs it."""
