"""Statistics of studies: arrays in, small frozen dataclasses out; no tables, no models."""
